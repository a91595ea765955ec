"""Sums of point-spread functions at exact sub-pixel positions, without Fourier transforms.

A Gaussian is the product of a factor along the rows and one along the columns, so the image of many atoms is
one matrix product ``rows.T @ columns`` over the atoms. Only atoms near a band of rows take part in its product,
which keeps the cost proportional to the area. Any other radial function is evaluated around every atom.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atomvision_hub.simulation.psf import GAUSSIAN_REACH, GaussianPSF, RadialPSF

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

# Block sizes found by measuring: factors and image band stay in the second-level cache.
_BAND = 32
_PANEL = 256
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
        for weight, sigma in zip(psf.weights, psf.sigmas, strict=True):
            scaled = weights * (weight / (2 * math.pi * sigma**2))
            _add_gaussians(image, x, y, scaled, (sigma / pixel_size[0], sigma / pixel_size[1]))
    else:
        _add_stamps(image, x, y, weights, psf, pixel_size)
    return image


def _add_gaussians(image: Image, x: Array, y: Array, weights: Array, sigma: tuple[float, float]) -> None:
    """Add Gaussians of peak `weights` and width `sigma` (row, column; pixels) to `image`; `y` is sorted."""
    height, width = image.shape
    reach_y, reach_x = GAUSSIAN_REACH * sigma[0], GAUSSIAN_REACH * sigma[1]
    for left in range(0, width, _PANEL):
        right = min(left + _PANEL, width)
        near = (
            slice(None)
            if width <= _PANEL
            else np.flatnonzero((x >= left - reach_x) & (x <= right - 1 + reach_x))
        )
        panel_x, panel_y, panel_w = x[near], y[near], weights[near]
        for start in range(0, len(panel_x), _ATOMS):
            block = slice(start, start + _ATOMS)
            columns = _factors(panel_x[block], left, right, sigma[1])
            columns *= panel_w[block, None].astype(np.float32)
            block_y = panel_y[block]
            tops = np.arange(0, height, _BAND)
            firsts = np.searchsorted(block_y, tops - reach_y).tolist()
            lasts = np.searchsorted(block_y, tops + (_BAND - 1 + reach_y), side="right").tolist()
            for top, first, last in zip(tops.tolist(), firsts, lasts, strict=True):
                if first < last:
                    bottom = min(top + _BAND, height)
                    rows = _factors(block_y[first:last], top, bottom, sigma[0])
                    image[top:bottom, left:right] += rows.T @ columns[first:last]


def _factors(center: Array, start: int, stop: int, sigma: float) -> Image:
    """Return ``exp(-(pixel - center)² / 2 sigma²)`` for pixels start <= pixel < stop, (n, stop - start)."""
    whole = np.rint(center)
    # Differences of whole pixels are exact in float32, so the error does not grow with the image.
    exponent = np.arange(start, stop, dtype=np.float32) - whole[:, None].astype(np.float32)
    exponent -= (center - whole)[:, None].astype(np.float32)
    np.square(exponent, out=exponent)
    exponent *= np.float32(-0.5 / sigma**2)
    np.maximum(exponent, _LOWEST, out=exponent)
    return np.exp(exponent, out=exponent)


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
