"""Which shifts repeat an image: correlation with the shifted self, normalised over what overlaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

Array = npt.NDArray[np.float64]

#: Smallest part of the image that a shift must leave in view.
OVERLAP = 0.2


def repeating_shifts(image: npt.NDArray[np.floating]) -> tuple[Array, Array]:
    """Return the shifts at which an image resembles itself most, and how much.

    Local maxima of the mean product with the shifted self; each is refined by a parabola, its height is the
    correlation coefficient over the overlap. Only shifts that leave a fifth of the image in view count.

    Parameters
    ----------
    image
        Grey levels [row, column].

    Returns
    -------
    shifts, correlations
        (x, y) in pixels, shape (n, 2), one of each pair of opposite ones, without zero; and their
        correlations, shape (n,), highest first.
    """
    rows, columns = image.shape
    grey = (image - image.mean()).astype(np.float32)
    shape = fft.next_fast_len(2 * rows - 1, real=True), fft.next_fast_len(2 * columns - 1, real=True)
    spectrum = fft.rfft2(grey, shape)
    products = fft.irfft2(spectrum.real**2 + spectrum.imag**2, shape)
    dy, dx = np.arange(rows)[:, None], np.arange(-(columns - 1), columns)[None]
    count = ((rows - dy) * (columns - np.abs(dx))).astype(np.float32)
    mean = np.concatenate([products[:rows, -(columns - 1) :], products[:rows, :columns]], axis=1) / count
    y, x, step, height = _maxima(mean, count >= OVERLAP * rows * columns)
    shift = x - (columns - 1)
    # The coefficient at the maximum; between pixels it rises as the mean product does.
    first, second = _overlap_sums(grey, y, shift), _overlap_sums(grey * grey, y, shift)
    area = (rows - y) * (columns - np.abs(shift))
    spread = [squares - sums**2 / area for sums, squares in zip(first, second, strict=True)]
    scale = np.sqrt(np.maximum(spread[0] * spread[1], 0.0)) / area
    real = scale > 1e-6 * float((grey * grey).mean())
    coefficient = (height - first[0] * first[1] / area**2)[real] / scale[real]
    order = np.argsort(-coefficient)
    shifts = np.stack([shift + step[0], y + step[1]], axis=1)[real]
    return shifts[order], coefficient[order]


def _maxima(
    values: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], tuple[Array, Array], Array]:
    """Return row and column of the local maxima, the way (x, y) to a parabola's top, and its height."""
    rows, width = values.shape
    middle = (width - 1) // 2
    # The row above zero is the row below it, turned round.
    whole = np.concatenate([values[1:2, ::-1], values])
    centre = whole[1:-1, 1:-1]
    top = seen[: rows - 1, 1:-1] & (centre > 0)
    for i in range(3):
        for j in range(3):
            other = whole[i : i + rows - 1, j : j + width - 2]
            if (i, j) > (1, 1):
                top &= centre > other
            elif (i, j) < (1, 1):
                top &= centre >= other
    top[0, :middle] = False
    y, x = np.nonzero(top)
    x = x + 1
    patch = np.stack([[whole[y + i, x + j - 1] for j in range(3)] for i in range(3)]).astype(float)
    gy, gx = (patch[2, 1] - patch[0, 1]) / 2, (patch[1, 2] - patch[1, 0]) / 2
    yy = np.minimum(patch[2, 1] + patch[0, 1] - 2 * patch[1, 1], -1e-30)
    xx = np.minimum(patch[1, 2] + patch[1, 0] - 2 * patch[1, 1], -1e-30)
    xy = (patch[2, 2] - patch[2, 0] - patch[0, 2] + patch[0, 0]) / 4
    determinant = xx * yy - xy**2
    # Ridges have no top along them.
    determinant = np.where(determinant > 1e-6 * xx * yy, determinant, xx * yy)
    sx = np.clip(-(yy * gx - xy * gy) / determinant, -0.7, 0.7)
    sy = np.clip(-(xx * gy - xy * gx) / determinant, -0.7, 0.7)
    return y, x, (sx, sy), patch[1, 1] + (gx * sx + gy * sy) / 2


def _overlap_sums(
    values: npt.NDArray[np.float32], dy: npt.NDArray[np.intp], dx: npt.NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return the sums over the overlap of an image and of its copy moved by (dy >= 0, dx)."""
    rows, columns = values.shape
    total = np.zeros((rows + 1, columns + 1))
    total[1:, 1:] = values.cumsum(axis=0, dtype=float).cumsum(axis=1)

    def box(top: npt.NDArray[np.intp], left: npt.NDArray[np.intp]) -> Array:
        bottom, right = top + rows - dy, left + columns - np.abs(dx)
        sums: Array = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        return sums

    return box(dy, np.maximum(dx, 0)), box(np.zeros_like(dy), np.maximum(-dx, 0))
