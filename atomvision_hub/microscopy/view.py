"""Raw intensities without loss, and the 8-bit view that people and models look at."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Share of pixels, in %, that the view clips at each end: dead and hot pixels do not set the contrast.
CLIP = 0.1
_LEVEL = 6
_DEFLATE, _HORIZONTAL = 8, 2


@dataclass(frozen=True, eq=False)
class View:
    """An 8-bit picture of intensities: grey level g shows ``low + (high - low) * g / 255``.

    Parameters
    ----------
    grey
        uint8 [row, column]; what lies outside `low` and `high` is clipped, what is not finite is 0.
    low, high
        Intensities of grey levels 0 and 255.
    clipped
        Share of the pixels outside, or not finite.
    """

    grey: npt.NDArray[np.uint8]
    low: float
    high: float
    clipped: float


def to_view(data: npt.NDArray[Any], clip: float = CLIP) -> View:
    """Return the 8-bit view of an image, linear between two percentiles.

    Parameters
    ----------
    data
        Intensities [row, column] of any real type.
    clip
        Percent of the finite pixels to clip at each end; 0 shows the whole range.
    """
    values = data.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return View(np.zeros(data.shape, np.uint8), 0.0, 0.0, 1.0)
    sound = data if finite.all() else data[finite]  # in its own type: much faster to sort
    low, high = (float(edge) for edge in np.percentile(sound, [clip, 100 - clip], method="nearest"))
    if low == high:  # a few bright pixels on an even ground: show them
        low, high = float(sound.min()), float(sound.max())
    values[~finite] = low
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    grey = np.where(finite, np.clip(np.rint(scaled), 0, 255), 0).astype(np.uint8)
    outside = int(np.count_nonzero(~finite | (values < low) | (values > high)))
    return View(grey, low, high, outside / values.size)


def encode_raw(data: npt.NDArray[Any]) -> bytes:
    """Return an image as TIFF: its own type, lossless (Deflate), the same bytes every time.

    Parameters
    ----------
    data
        [row, column] of an integer or float type up to 64 bits; NaN survives.
    """
    import deflate
    import tifffile

    little = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    integer = little.dtype.kind in "iu"
    # Neighbours are alike: integers are stored as differences along the row, modulo their range.
    stored = np.diff(little, axis=1, prepend=little.dtype.type(0)) if integer else little
    body = bytes(deflate.zlib_compress(stored.astype(little.dtype, copy=False).tobytes(), _LEVEL))
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        iter([body]),
        byteorder="<",
        shape=little.shape,
        dtype=little.dtype,
        compression=_DEFLATE,
        predictor=_HORIZONTAL if integer else None,
        photometric="minisblack",
        rowsperstrip=little.shape[0],
        metadata=None,
        software=False,
    )
    return stream.getvalue()


def decode_raw(content: bytes) -> npt.NDArray[Any]:
    """Return the image of `encode_raw`; any TIFF library reads the same."""
    import tifffile

    return np.asarray(tifffile.imread(io.BytesIO(content)))
