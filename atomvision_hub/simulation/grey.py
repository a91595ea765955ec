"""Intensities as grey levels, with the two numbers that give the intensities back."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError

Grey = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def to_grey(image: npt.ArrayLike, bits: Literal[8, 16] = 8) -> tuple[Grey, float, float]:
    """Return an image as grey levels that use the whole range.

    Parameters
    ----------
    image
        Intensities, any shape.
    bits
        8 or 16.

    Returns
    -------
    grey, scale, offset
        ``intensity = offset + scale * grey`` to half a grey level; `scale` and `offset` in the image's unit.

    Raises
    ------
    UsageError
        When an intensity is not finite or `bits` is neither 8 nor 16.
    """
    if bits not in (8, 16):
        raise UsageError(f"bits must be 8 or 16, not {bits!r}")
    values = np.asarray(image, dtype=np.float32)
    if values.size == 0:
        raise UsageError("the image is empty; nothing to encode")
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError("the image holds a value that is not finite; nothing can be encoded")
    scale = (high - low) / (2**bits - 1) or 1.0  # a constant image is grey level 0 everywhere
    levels = values - np.float32(low)
    levels *= np.float32(1 / scale)
    levels += np.float32(0.5)
    grey: Grey = levels.astype(np.uint8) if bits == 8 else levels.astype(np.uint16)
    return grey, scale, low


def to_intensity(grey: npt.ArrayLike, scale: float, offset: float) -> npt.NDArray[np.float32]:
    """Return the intensities that `to_grey` encoded, ``offset + scale * grey``, as float32."""
    return (offset + scale * np.asarray(grey, dtype=np.float64)).astype(np.float32)
