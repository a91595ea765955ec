"""Diffraction patterns that call themselves images: spots on a lattice too, but around a beam."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

Array = npt.NDArray[np.float64]

#: How much stronger than any other the spot in the middle is; how far from the middle of the picture it may
#: be (part of the shorter side); rank correlation of strength and distance.
_STRONGER, _MIDDLE, _FADING = 2.0, 0.2, -0.6
_FEWEST = 9  # spots


def beam(values: npt.NDArray[np.number], vectors: Array) -> float | None:
    """Return how many times stronger than any other spot the one in the middle is; None for an image.

    Columns of a crystal are equally strong all over, and those of a particle fade from one to the next;
    spots of a diffraction pattern fade around a beam that is much stronger than all of them.

    Parameters
    ----------
    values
        Finite grey levels [row, column].
    vectors
        Of the lattice of the spots, rows (x, y), in pixels.
    """
    shortest = float(np.hypot(*vectors.T).min())
    # The strength of a spot is its sum: its top may be cut off by the detector.
    summed = ndimage.gaussian_filter(values.astype(np.float64), 0.2 * shortest)
    summed -= float(np.median(summed))
    rows, columns = summed.shape
    row, column = (int(n) for n in np.unravel_index(int(summed.argmax()), summed.shape))
    if math.hypot(row - rows / 2, column - columns / 2) > _MIDDLE * min(rows, columns):
        return None
    reach = math.ceil(math.hypot(rows, columns) / shortest)
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    x, y = np.rint((steps[steps.any(axis=1)] @ vectors) + (column, row)).astype(np.intp).T
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    if inside.sum() < _FEWEST:
        return None
    near = ndimage.maximum_filter(summed, max(3, round(0.4 * shortest)))
    strengths = near[y[inside], x[inside]]
    times = float(summed[row, column]) / max(float(strengths.max()), 1e-300)
    distance = np.hypot(x[inside] - column, y[inside] - row)
    if times < _STRONGER or stats.spearmanr(strengths, distance).statistic > _FADING:
        return None
    return times
