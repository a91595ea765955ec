"""Sums of Gaussians seen by a beam whose lines are displaced: drift and jitter while rendering.

Where a line stands along the rows is put into the factor along the rows, which is exact. Along the columns
the factors are coefficients of cubic splines, so that each line of the product can be read at its own offset:
by the same interpolation that `acquisition` uses, but without a pass over the image before it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atomvision_hub.simulation.psf import GAUSSIAN_REACH
from atomvision_hub.simulation.render import BAND, panel_width

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

_LOWEST = np.float32(-25.0)


def render_scanned(
    x: Array,
    y: Array,
    weights: Array,
    sigma: float,
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    lines: Array,
) -> Image:
    """Return ``sum of weight * exp(-r² / 2 sigma²) / (2 pi sigma²)`` where the beam stood.

    Parameters
    ----------
    x, y, weights
        Column and row coordinates of the atoms in pixels, and their weights, (n,).
    sigma
        Width of an atom, Å; at least 1.2 pixels along the columns, else splines do not follow it.
    shape, pixel_size
        As of `render`.
    lines
        Where the beam stands instead of on the pixel, Å (x, y), a line, (rows, 2).

    Returns
    -------
    float32 array (rows, columns), in units of the weights per Å².
    """
    rows, columns = shape
    along, down = lines[:, 0] / pixel_size[1], lines[:, 1] / pixel_size[0]
    whole = np.floor(along)
    first, last = int(whole.min()) - 1, int(whole.max()) + 2
    wide = _products(
        x - first,
        y,
        weights / (2 * math.pi * sigma**2),
        np.arange(rows) + down,
        columns + last - first,
        (sigma / pixel_size[0], sigma / pixel_size[1]),
    )
    # Every line from its own start: four neighbours of a cubic B-spline.
    windows = np.lib.stride_tricks.sliding_window_view(wide, columns + 3, axis=1)
    taken = windows[np.arange(rows), whole.astype(np.intp) - 1 - first]
    image = np.empty(shape, dtype=np.float32)
    scratch = np.empty_like(image)
    for k, weight in enumerate(_taps(along - whole)):
        np.multiply(taken[:, k : k + columns], weight[:, None], out=scratch if k else image)
        if k:
            image += scratch
    return image


def _products(
    x: Array, y: Array, weights: Array, places: Array, width: int, sigma: tuple[float, float]
) -> Image:
    """Return the sum of Gaussians on lines at `places`; along the columns its cubic spline coefficients."""
    order = np.argsort(y)
    x, y, weights = x[order], y[order], weights[order]
    image = np.zeros((len(places), width), dtype=np.float32)
    reach_y, reach_x = GAUSSIAN_REACH * sigma[0], GAUSSIAN_REACH * sigma[1] + 2
    # Bands of lines, the last one filled up with its own last line.
    tops = np.arange(0, len(places), BAND)
    bands = places[np.minimum(tops[:, None] + np.arange(BAND), len(places) - 1)]
    wide = panel_width(reach_x)
    for left in range(0, width, wide):
        right = min(left + wide, width)
        near = np.flatnonzero((x >= left - reach_x) & (x <= right - 1 + reach_x))
        block_x, block_y = x[near], y[near]
        if not len(near):
            continue
        columns = _factors(block_x - left, np.arange(right - left, dtype=np.float64), sigma[1], spline=True)
        columns *= weights[near, None].astype(np.float32)
        first = np.searchsorted(block_y, bands.min(axis=1) - reach_y)
        last = np.searchsorted(block_y, bands.max(axis=1) + reach_y, side="right")
        chosen = np.minimum(first[:, None] + np.arange(int((last - first).max())), len(block_y) - 1)
        rows = _factors(block_y[chosen] - tops[:, None], bands - tops[:, None], sigma[0])
        for band, (top, begin, end) in enumerate(
            zip(tops.tolist(), first.tolist(), last.tolist(), strict=True)
        ):
            target = image[top : top + BAND, left:right]
            np.matmul(rows[band, : end - begin, : len(target)].T, columns[begin:end], out=target)
    return image


def _factors(center: Array, places: Array, sigma: float, *, spline: bool = False) -> Image:
    """Return ``exp(-(place - center)² / 2 sigma²)``, (..., n, places), or its coefficients of cubic splines.

    Parameters
    ----------
    center, places
        In pixels, (..., n) and (..., places).
    """
    # As in `render`: differences of whole numbers are exact in float32.
    left = np.empty((*center.shape, 4), dtype=np.float32)
    left[..., 0] = left[..., 3] = 1
    left[..., 1] = whole = np.rint(center)
    left[..., 2] = center - whole
    right = np.empty((*places.shape[:-1], 4, places.shape[-1]), dtype=np.float32)
    right[..., 0, :] = nearest = np.rint(places)
    right[..., 1:3, :] = -1
    right[..., 3, :] = places - nearest
    square: Image = left @ right
    np.square(square, out=square)
    square *= np.float32(-0.5 / sigma**2)
    np.maximum(square, _LOWEST, out=square)
    if not spline:
        np.exp(square, out=square)
        return square
    # The spectrum of a Gaussian divided by that of the sampled B-spline, (2 + cos w) / 3, to order w⁴:
    # G - G'' / 6 + G'''' / 72, with -2 u = (distance / sigma)².
    a, b = 1 / (6 * sigma**2), 1 / (72 * sigma**4)
    polynomial = square * np.float32(4 * b)
    polynomial += np.float32(2 * a + 12 * b)
    polynomial *= square
    polynomial += np.float32(1 + a + 3 * b)
    np.exp(square, out=square)
    square *= polynomial
    return square


def _taps(t: Array) -> Image:
    """Return the weights of the four cubic B-splines around a place, a part `t` behind the second one."""
    weights = [
        (1 - t) ** 3,
        3 * t**3 - 6 * t**2 + 4,
        -3 * t**3 + 3 * t**2 + 3 * t + 1,
        t**3,
    ]
    return np.asarray(np.stack(weights) / 6, dtype=np.float32)
