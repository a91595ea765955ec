"""Grey-level PNG at the speed a builder needs, in the same bytes every time.

Encoding is the floor of a build. Atomic images hardly change from one row to the next, so PNG's "up" filter,
one NumPy subtraction, does what libpng's trial of all filters does, and libdeflate's fastest levels do the
rest: several times faster than Pillow or OpenCV at Pillow's size (benchmarks/README.md has the table). ISA-L
would be twice as fast again, but once gave another answer to the same question.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import deflate
import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILTER_NONE, _FILTER_UP = 0, 2


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
        filtered = np.full((rows, columns + 1), _FILTER_NONE, np.uint8)
        np.multiply(image, np.uint8(255), out=filtered[:, 1:])
        level = 2
    else:
        lines = image.astype(">u2" if depth == 16 else np.uint8, order="C", copy=False)
        raw = lines.view(np.uint8).reshape(rows, -1)
        filtered = np.full((rows, raw.shape[1] + 1), _FILTER_UP, np.uint8)
        filtered[0, 1:] = raw[0]
        np.subtract(raw[1:], raw[:-1], out=filtered[1:, 1:])
        level = 1
    body = bytes(deflate.zlib_compress(filtered.data, level))
    header = struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
