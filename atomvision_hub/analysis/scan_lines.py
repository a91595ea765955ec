"""Lines of a scan that are displaced against what the image shows: by how much, and moved back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates, spline_filter

Array = npt.NDArray[np.float64]
#: Returns a model of the image and its derivatives by x and y, with so many pixels more on every side.
Model = Callable[[int], tuple[Array, Array, Array]]

_ROOM = 6  # px around the image that lines may be taken from
_STEPS = 3
_SETTLED = 0.01  # px
_TOLD = 1e-4  # slopes of a line, squared and summed, over those of the steepest, from which they count
_FEWEST = 8  # lines


@dataclass(frozen=True)
class Lines:
    """Displacements of scan lines.

    Parameters
    ----------
    offsets
        By how much a line shows the specimen displaced, (x, y) in pixels, (rows, 2).
    rms
        Root mean square of the true displacements, without what noise adds, (x, y) in pixels; 0 where lines
        are straight.
    moved
        The model with its lines displaced, [row, column].
    """

    offsets: Array
    rms: tuple[float, float]
    moved: Array


def displaced_lines(image: Array, model: Model) -> Lines:
    """Return how the lines of an image are displaced against a model of it.

    Gauss-Newton steps of two numbers a line; each is shrunk by how much of the scatter of all lines is more
    than noise.

    Parameters
    ----------
    image
        Grey levels [row, column].
    model
        Of the same image.
    """
    rows, columns = image.shape
    canvas, by_x, by_y = model(_ROOM)
    smooth = spline_filter(canvas, order=3)
    y, x = np.mgrid[:rows, :columns].astype(float) + _ROOM
    offsets, rms = np.zeros((rows, 2)), (0.0, 0.0)
    moved = canvas[_ROOM : _ROOM + rows, _ROOM : _ROOM + columns]
    for _ in range(_STEPS):
        at = (y - offsets[:, 1:], x - offsets[:, :1])
        moved = map_coordinates(smooth, at, order=3, prefilter=False, mode="nearest")
        slopes = -np.stack([map_coordinates(one, at, order=1, mode="nearest") for one in (by_x, by_y)], 1)
        left = image - moved
        normal = np.einsum("rkc,rlc->rkl", slopes, slopes)
        told = normal[:, [0, 1], [0, 1]]
        size = max(float(told.max()), 1e-200)
        inverse = np.linalg.inv(normal + 1e-9 * size * np.eye(2))
        step = np.einsum("rkl,rlc,rc->rk", inverse, slopes, left)
        # What is left of a line when it is moved back is noise, stronger where the line is brighter.
        noise = left - np.einsum("rk,rkc->rc", step, slopes)
        pulls = np.einsum("rkl,rlc->rkc", inverse, slopes) * noise[:, None]
        variance = (pulls**2).sum(2)
        even = inverse[:, [0, 1], [0, 1]] * (noise**2).mean(1)[:, None]
        before, wanted = offsets, offsets + step
        offsets, spreads = np.zeros((rows, 2)), [0.0, 0.0]
        for k in range(2):
            seen = told[:, k] > _TOLD * size  # lines across a vacuum tell nothing
            if seen.sum() >= _FEWEST:
                measured = wanted[seen, k] - wanted[seen, k].mean()
                # Few pixels of a line lie on steep slopes, so its own variance is a poor guess. How much
                # noisier those are than others is much the same for all lines.
                steep = float((variance[seen, k] / np.maximum(even[seen, k], 1e-200)).mean())
                offsets[seen, k], spreads[k] = shrunk(measured, steep * even[seen, k])
        offsets, rms = offsets.clip(-_ROOM, _ROOM), (spreads[0], spreads[1])
        if np.abs(offsets - before).max() < _SETTLED:
            break
    at = (y - offsets[:, 1:], x - offsets[:, :1])
    moved = map_coordinates(smooth, at, order=3, prefilter=False, mode="nearest")
    return Lines(offsets, rms, np.asarray(moved))


def shrunk(offsets: Array, variance: Array) -> tuple[Array, float]:
    """Return the most likely displacements of lines, and the root mean square of the true ones.

    Measured displacements scatter by noise too. Each is shrunk by how much of the scatter is more than that;
    where it is none, all are 0.

    Parameters
    ----------
    offsets, variance
        Measured, and their variances by noise, (rows,).
    """
    variance = np.maximum(variance, 1e-12)
    weights = 1 / variance
    spread = float((weights * (offsets**2 - variance)).sum() / weights.sum())
    # Lines that are straight have a spread by chance.
    if spread <= 4 * math.sqrt(2 / len(offsets)) * len(offsets) / float(weights.sum()):
        return np.zeros(len(offsets)), 0.0
    return np.asarray(offsets * spread / (spread + variance)), math.sqrt(spread)
