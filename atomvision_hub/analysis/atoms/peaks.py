"""Places where columns may be: maxima of images that are sharper, or more curved, than the image itself."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomvision_hub.analysis.atoms.pixels import Array, nearest_pixels, quantile

_CURVED = 0.7  # widths; smoothing before curvature is looked at
#: Standard deviation of the curvature in white noise, in standard errors of a peak's height.
CURVED_NOISE = (1 + _CURVED**2) ** 2 / _CURVED**3 / np.sqrt(8)


def sharpened(
    values: npt.NDArray[np.float32], sigma: tuple[float, float], *, clean: bool
) -> npt.NDArray[np.float32]:
    """Return an image whose peaks are narrower, of their own height, with hardly any tail.

    A Gaussian less half its Laplacian (in units of its variance) is ``G (2 - r²/2 sigma²)``: it crosses zero
    at two widths, so that the shoulder of a bright column becomes a peak. Smoothing first holds down noise.
    """
    blur = 0.3 if clean else 0.7
    smooth = ndimage.gaussian_filter(values, [blur * side for side in sigma], mode="nearest", truncate=2.5)
    second = _curvature(smooth, sigma)
    grown = np.float32(1 + blur**2)
    # After the blur a peak has height 1/grown and width sigma * sqrt(grown).
    result: npt.NDArray[np.float32] = 0.5 * grown * (smooth - 0.5 * grown * second)
    return result + np.float32(0.5 * quantile(values, 0.02))


def curved(values: npt.NDArray[np.float32], sigma: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Return the height of the Gaussian that would explain the curvature around each pixel.

    What is not curved within a column, a background that was misjudged or is uneven, does not count.
    """
    blur = _CURVED
    smooth = ndimage.gaussian_filter(values, [blur * side for side in sigma], mode="nearest", truncate=2.5)
    result: npt.NDArray[np.float32] = np.float32(-0.5 * (1 + blur**2) ** 2) * _curvature(smooth, sigma)
    return result


def _curvature(values: npt.NDArray[np.float32], sigma: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Return the Laplacian in units of the widths; an image goes on beyond its edges as it ends."""
    down = np.diff(values, axis=0) * np.float32(sigma[0] ** 2)
    across = np.diff(values, axis=1) * np.float32(sigma[1] ** 2)
    result = np.zeros_like(values)
    result[:-1] += down
    result[1:] -= down
    result[:, :-1] += across
    result[:, 1:] -= across
    return result


def hollow(image: npt.NDArray[np.float32], x: Array, y: Array) -> npt.NDArray[np.bool_]:
    """Return at which places an image is curved upwards in all directions.

    What a fit leaves in the hollows between columns is a background that is uneven; shoulders of columns are
    curved downwards along the flank.
    """
    step = 2  # about a width of the column, so that noise counts less
    row, column = nearest_pixels(x, y)
    above, left = np.maximum(row - step, 0), np.maximum(column - step, 0)
    below, right = (
        np.minimum(place + step, side - 1) for place, side in zip((row, column), image.shape, strict=True)
    )
    twice = 2 * image[row, column]
    down = image[below, column] + image[above, column] - twice
    across = image[row, right] + image[row, left] - twice
    mixed = 0.25 * (image[below, right] + image[above, left] - image[below, left] - image[above, right])
    return np.asarray((down + across > 0) & (down * across > mixed * mixed))


def maxima(image: npt.NDArray[np.float32], sigma: tuple[float, float], lowest: float) -> tuple[Array, Array]:
    """Return columns and rows of local maxima above `lowest`, at least a width apart."""
    around = image
    for axis, side in enumerate(sigma):
        around = _highest(around, max(1, int(0.8 * side)), axis)
    rows, columns = np.nonzero((image == around) & (image > lowest))
    centre = image[rows, columns]
    places = []
    for place, axis in ((columns, 1), (rows, 0)):
        first, last = np.maximum(place - 1, 0), np.minimum(place + 1, image.shape[axis] - 1)
        before, after = (image[rows, one] if axis else image[one, columns] for one in (first, last))
        curvature = np.minimum(before + after - 2 * centre, -1e-9)
        places.append(place + np.minimum(np.maximum(0.5 * (before - after) / curvature, -0.49), 0.49))
    return places[0].astype(float), places[1].astype(float)


def _highest(image: npt.NDArray[np.float32], reach: int, axis: int) -> npt.NDArray[np.float32]:
    """Return the highest value within `reach` pixels along an axis: for so few, whole rows beat a filter."""
    result = image.copy()
    source, target = (image, result) if axis == 0 else (image.T, result.T)
    for step in range(1, min(reach, len(source) - 1) + 1):
        np.maximum(target[step:], source[:-step], out=target[step:])
        np.maximum(target[:-step], source[step:], out=target[:-step])
    return result


def peak_width(values: npt.NDArray[np.float32]) -> float:
    """Return a typical width of peaks in pixels: where a difference of Gaussians is strongest."""
    spread = values - values.mean()
    scales = 1.5 * 1.15 ** np.arange(20)
    scales = scales[scales < min(values.shape) / 8]
    blurred = [ndimage.gaussian_filter(spread, scale, mode="reflect", truncate=3) for scale in scales]
    if len(blurred) < 3:
        return 1.5
    power = [float(np.percentile(a - b, 99.5)) for a, b in itertools.pairwise(blurred)]
    # Of a Gaussian of width s the normalised response is greatest at blur s (Lindeberg 1998).
    return float(scales[int(np.argmax(power))])
