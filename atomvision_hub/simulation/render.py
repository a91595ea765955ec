"""Sums of point-spread functions at exact sub-pixel positions, without Fourier transforms.

A Gaussian is the product of a factor along the rows and one along the columns, so the image of many atoms is
one matrix product ``rows.T @ columns`` over the atoms. Only atoms near a band of rows take part in its
product, which keeps the cost proportional to the area. Other radial functions are evaluated atom by atom.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atomvision_hub.simulation.psf import GAUSSIAN_REACH, GaussianPSF, RadialPSF

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

# Block sizes found by measuring: factors and image band stay in the second-level cache. The narrower an atom,
# the narrower the panel of columns in which it takes part (least reach in pixels, width).
BAND = 32
_PANELS = ((25.0, 256), (16.0, 128), (0.0, 64))
_ATOMS = 1024
# Exponents of a factor end here (1.4e-11): far below the reach, and products stay clear of slow denormals.
_LOWEST = np.float32(-25.0)


def render(
    x: Array,
    y: Array,
    weights: Array,
    psf: RadialPSF,
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
) -> Image:
    """Return the sum of ``weight * psf(distance)`` over atoms, sampled at pixel centres.

    Parameters
    ----------
    x, y
        Column and row coordinates of the atoms in pixels, (n,).
    weights
        Weight of each atom, (n,).
    psf
        Point-spread function, in 1/Å².
    shape
        Rows and columns of the image.
    pixel_size
        Pixel size along rows and columns, in Å/px.

    Returns
    -------
    float32 array (rows, columns), in units of the weights per Å².
    """
    image = np.zeros(shape, dtype=np.float32)
    if isinstance(psf, GaussianPSF):
        order = np.argsort(y)
        x, y, weights = x[order], y[order], weights[order]
        for term, (weight, sigma) in enumerate(zip(psf.weights, psf.sigmas, strict=True)):
            scaled = weights * (weight / (2 * math.pi * sigma**2))
            pixels = sigma / pixel_size[0], sigma / pixel_size[1]
            _add_gaussians(image, x, y, scaled, pixels, blank=term == 0)
    else:
        _add_stamps(image, x, y, weights, psf, pixel_size)
    return image


def panel_width(reach: float) -> int:
    """Return the width of the panels of columns for atoms that reach so many pixels."""
    return next(width for least, width in _PANELS if reach >= least)


def _add_gaussians(
    image: Image, x: Array, y: Array, weights: Array, sigma: tuple[float, float], *, blank: bool
) -> None:
    """Add Gaussians of peak `weights` and width `sigma` (row, column; pixels) to `image`; `y` is sorted."""
    height, width = image.shape
    reach_y, reach_x = GAUSSIAN_REACH * sigma[0], GAUSSIAN_REACH * sigma[1]
    tops, wide = np.arange(0, height, BAND), panel_width(reach_x)
    for left in range(0, width, wide):
        right = min(left + wide, width)
        if width > wide:
            near = np.flatnonzero((x >= left - reach_x) & (x <= right - 1 + reach_x))
            panel = x[near], y[near], weights[near]
        else:
            panel = x, y, weights
        for start in range(0, len(panel[0]), _ATOMS):
            block_x, block_y, block_w = (values[start : start + _ATOMS] for values in panel)
            columns = _factors(block_x - left, right - left, sigma[1])
            columns *= block_w[:, None].astype(np.float32)
            first = np.searchsorted(block_y, tops - reach_y)
            last = np.searchsorted(block_y, tops + (BAND - 1 + reach_y), side="right")
            # The row factors of all bands in one go; bands near few atoms are filled up with any others.
            room = int((last - first).max())
            chosen = np.minimum(first[:, None] + np.arange(room), len(block_y) - 1)
            rows = _factors((block_y[chosen] - tops[:, None]).ravel(), BAND, sigma[0])
            for band, (top, begin, end) in enumerate(
                zip(tops.tolist(), first.tolist(), last.tolist(), strict=True)
            ):
                if begin == end:
                    continue
                target = image[top : top + BAND, left:right]
                factors = rows[band * room : band * room + end - begin, : len(target)].T, columns[begin:end]
                if blank and start == 0:
                    np.matmul(*factors, out=target)
                else:
                    target += np.matmul(*factors)


def _factors(center: Array, length: int, sigma: float) -> Image:
    """Return ``exp(-(pixel - center)² / 2 sigma²)`` for pixels 0 <= pixel < length, (n, length)."""
    # The differences as a matrix product, the quickest way. Those of whole pixels are exact in float32, so
    # that the error does not grow with the image.
    left = np.empty((len(center), 3), dtype=np.float32)
    left[:, 0] = 1
    left[:, 1] = whole = np.rint(center)
    left[:, 2] = center - whole
    right = np.empty((3, length), dtype=np.float32)
    right[0] = np.arange(length)
    right[1:] = -1
    exponent: Image = left @ right
    np.square(exponent, out=exponent)
    exponent *= np.float32(-0.5 / sigma**2)
    exponent.clip(_LOWEST, np.float32(0), out=exponent)
    np.exp(exponent, out=exponent)
    return exponent


def _add_stamps(
    image: Image, x: Array, y: Array, weights: Array, psf: RadialPSF, pixel_size: tuple[float, float]
) -> None:
    """Add any radial function to `image`, evaluated at the exact distance of every pixel within its reach."""
    height, width = image.shape
    half = [math.ceil(psf.reach / size) for size in pixel_size]
    rows, columns = np.arange(-half[0], half[0] + 1), np.arange(-half[1], half[1] + 1)
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    total = image.astype(np.float64)
    chunk = max(1, 2_000_000 // (len(rows) * len(columns)))
    for start in range(0, len(x), chunk):
        part = slice(start, start + chunk)
        dy = (rows + (row[part] - y[part])[:, None]) * pixel_size[0]
        dx = (columns + (column[part] - x[part])[:, None]) * pixel_size[1]
        stamps = psf(np.sqrt(dy[:, :, None] ** 2 + dx[:, None, :] ** 2)) * weights[part, None, None]
        for stamp, r, c in zip(
            stamps, (row[part] - half[0]).tolist(), (column[part] - half[1]).tolist(), strict=True
        ):
            top, left = max(r, 0), max(c, 0)
            bottom, right = min(r + len(rows), height), min(c + len(columns), width)
            if top < bottom and left < right:
                total[top:bottom, left:right] += stamp[top - r : bottom - r, left - c : right - c]
    image[...] = total
