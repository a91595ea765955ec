"""Grey-level PNG at the speed a builder needs, in the same bytes every time.

Encoding is the floor of a build. Atomic images hardly change from one row to the next, so PNG's "up" filter,
one NumPy subtraction, does what libpng's trial of all filters does, and zlib's fastest level is enough:
several times faster than Pillow or OpenCV at nearly Pillow's size (benchmarks/README.md has the table).
ISA-L would be another three times faster, but gave two answers to the same question on one machine.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILTER_NONE, _FILTER_UP = 0, 2
_LEVEL = 1


def encode_png(image: npt.NDArray[Any]) -> bytes:
    """Return a grey-level image as PNG.

    Parameters
    ----------
    image
        uint8 or uint16 array [row, column]; or bool, which becomes 0 and 255.

    Raises
    ------
    ValueError
        For another type or another number of axes.
    """
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ValueError(
            f"PNG takes uint8, uint16 or bool [row, column], not {image.dtype}{list(image.shape)}"
        )
    rows, columns = image.shape
    depth = 16 if image.dtype == np.uint16 else 8
    if image.dtype == np.bool_:
        # Long runs of equal values: a filter would only break them up.
        lines, filter_type, strategy = image * np.uint8(255), _FILTER_NONE, zlib.Z_RLE
    else:
        lines = image.astype(">u2" if depth == 16 else np.uint8, order="C", copy=False)
        filter_type, strategy = _FILTER_UP, zlib.Z_DEFAULT_STRATEGY
    raw = lines.view(np.uint8).reshape(rows, -1)
    filtered = np.empty((rows, raw.shape[1] + 1), np.uint8)
    filtered[:, 0] = filter_type
    if filter_type == _FILTER_UP:
        filtered[0, 1:] = raw[0]
        np.subtract(raw[1:], raw[:-1], out=filtered[1:, 1:])
    else:
        filtered[:, 1:] = raw
    header = struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0)
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    body = deflate.compress(filtered) + deflate.flush()
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
