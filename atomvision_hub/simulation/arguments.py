"""Arguments that all simulators share, checked alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from atomvision_hub.errors import UsageError

#: Longest side of an image, in pixels.
LARGEST = 16384


def finite(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def image_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns).

    Raises
    ------
    UsageError
        When they are not two positive whole numbers of at most `LARGEST`.
    """
    if np.shape(shape) != (2,) or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise UsageError(f"shape must be two positive whole numbers (rows, columns), not {shape!r}")
    rows, columns = (int(n) for n in shape)
    if max(rows, columns) > LARGEST:
        raise UsageError(
            f"an image of {rows} x {columns} pixels would need {rows * columns * 4 / 2**30:.1f} GiB; "
            f"at most {LARGEST} a side, render it in parts with shift="
        )
    return rows, columns


def pair(name: str, value: Any, unit: str) -> tuple[float, float]:
    """Return two finite numbers.

    Raises
    ------
    UsageError
        When they are not; the message has `name` and `unit`.
    """
    if np.shape(value) != (2,) or not all(finite(number) for number in value):
        raise UsageError(f"{name} must be two finite numbers in {unit}, not {value!r}")
    return float(value[0]), float(value[1])


def pixel_sizes(pixel_size: Any) -> tuple[float, float]:
    """Return Å per pixel (row, column) from one number or two.

    Raises
    ------
    UsageError
        When they are not positive and finite.
    """
    size = pair("pixel_size", [pixel_size] * 2 if np.ndim(pixel_size) == 0 else pixel_size, "Å/px")
    if min(size) <= 0:
        raise UsageError(f"pixel_size must be positive, in Å/px, not {pixel_size!r}")
    return size
