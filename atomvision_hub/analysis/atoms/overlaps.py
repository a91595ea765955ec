"""Gaussians of one width that overlap: which ones, how much, and by how much of their light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.spatial import cKDTree

from atomvision_hub.analysis.atoms.pixels import Array

_TOUCH = 5.0  # widths; farther neighbours do not couple: exp(-6)

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Pairs:
    """Peaks i, j that touch: both ways, and each with itself; ordered by i.

    Attributes
    ----------
    i, j
        Indices of peaks.
    dx, dy
        From i to j, in widths.
    middle_x, middle_y
        Midway between i and j, in widths.
    overlap
        Of two Gaussians, relative to that of one with itself.
    own
        Which pairs are of a peak with itself.
    places, ends
        Columns and row pointers of the matrix of all heights, shifts along x and shifts along y.
    """

    i: Indices
    j: Indices
    dx: Array
    dy: Array
    middle_x: Array
    middle_y: Array
    overlap: Array
    own: Indices
    places: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]

    @classmethod
    def of(cls, points: Array) -> Pairs:
        """Find the pairs of points (x, y) in widths."""
        count = len(points)
        pairs = cKDTree(points).query_pairs(_TOUCH, output_type="ndarray")
        each = np.arange(count)
        i = np.concatenate([pairs[:, 0], pairs[:, 1], each])
        j = np.concatenate([pairs[:, 1], pairs[:, 0], each])
        # A stable sort of short integers is a radix sort, several times as fast.
        order = np.argsort(i.astype(np.uint16) if count < 2**16 else i, kind="stable")
        i, j = i[order], j[order]
        own = np.flatnonzero(i == j)
        # Of the type that scipy's matrices keep, so that nothing is converted.
        places = np.empty((3, len(j), 3), np.int32)
        np.add(j.astype(np.int32)[:, None], np.arange(3, dtype=np.int32) * count, out=places)
        ends = np.zeros(3 * count + 1, np.int32)
        np.cumsum(np.tile(3 * np.bincount(i, minlength=count), 3), out=ends[1:])
        nowhere = np.zeros(0)
        unknown = (nowhere, nowhere, nowhere, nowhere, nowhere)
        return cls(i, j, *unknown, own, places.ravel(), ends).moved(points)

    def moved(self, points: Array) -> Pairs:
        """Return the same pairs after a step."""
        x, y = points.T.copy()
        x_i, y_i = x[self.i], y[self.i]
        dx, dy = x[self.j] - x_i, y[self.j] - y_i
        overlap = np.exp(-0.25 * (dx * dx + dy * dy))
        middle_x, middle_y = x_i + 0.5 * dx, y_i + 0.5 * dy
        return Pairs(self.i, self.j, dx, dy, middle_x, middle_y, overlap, self.own, self.places, self.ends)


def moments(middle: Array, width: float, side: int) -> tuple[Array, Array, Array]:
    """Return the means of 1, t, t² over ``exp(-t²)`` inside the image; t from `middle`, both in widths."""
    zeroth, first, second = np.ones(len(middle)), np.zeros(len(middle)), np.full(len(middle), 0.5)
    # exp(-3.5²) is nothing: elsewhere the whole integral counts.
    half = 0.5 * side / width
    at_edge = np.flatnonzero(np.abs(middle - half) > half - 3.5)
    low, high = -0.5 / width - middle[at_edge], (side - 0.5) / width - middle[at_edge]
    at_low, at_high = np.exp(-low * low), np.exp(-high * high)
    zeroth[at_edge] = inside = 0.5 * (special.erf(high) - special.erf(low))
    first[at_edge] = (at_low - at_high) / (2 * np.sqrt(np.pi))
    second[at_edge] = 0.5 * inside + (low * at_low - high * at_high) / (2 * np.sqrt(np.pi))
    return zeroth, first, second


def light_inside(place: Array, width: float, side: int) -> tuple[Array, Array]:
    """Return the integrals of ``exp(-t²/2)`` and ``t exp(-t²/2)`` inside the image."""
    zeroth, first = np.full(len(place), np.sqrt(2 * np.pi)), np.zeros(len(place))
    at_edge = np.flatnonzero(np.abs(place - 0.5 * side) > 0.5 * side - 5 * width)
    low, high = (-0.5 - place[at_edge]) / width, (side - 0.5 - place[at_edge]) / width
    zeroth[at_edge] *= special.ndtr(high) - special.ndtr(low)
    first[at_edge] = np.exp(-0.5 * low * low) - np.exp(-0.5 * high * high)
    return zeroth, first
