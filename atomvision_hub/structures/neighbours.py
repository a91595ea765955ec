"""Neighbours in a layer of many atoms, in little time and memory."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: With more points than this a search tree beats the table of all distances.
MANY = 150


class PeriodicTree:
    """Search tree over points that repeat in a plane.

    Parameters
    ----------
    cell
        In-plane vectors as rows in Å, shape (2, 2).
    points
        Cartesian positions in Å, shape (n, 2) or (n, 3); a third coordinate does not repeat.
    reach
        Largest distance in Å that is asked for; small against the cell.
    """

    def __init__(self, cell: Floats, points: Floats, reach: float) -> None:
        from scipy.spatial import cKDTree

        self._cell, self._inverse = cell, np.linalg.inv(cell)
        self._reach = reach
        margins = reach * np.sqrt((self._inverse**2).sum(axis=0)) * 1.01
        fractions = self._wrapped(points)
        clouds, indices = [], []
        for image in itertools.product((-1.0, 0.0, 1.0), repeat=2):
            moved = fractions[:, :2] + image
            near = np.flatnonzero(((moved >= -margins) & (moved <= 1 + margins)).all(axis=1))
            clouds.append(np.column_stack((moved[near] @ cell, fractions[near, 2:])))
            indices.append(near)
        self._tree, self._indices = cKDTree(np.concatenate(clouds)), np.concatenate(indices)

    def nearest(self, points: Floats) -> Floats:
        """Return the distance of each point to the nearest of the tree, infinite beyond the reach."""
        distances: Floats = self._tree.query(self._cartesian(points), distance_upper_bound=self._reach)[0]
        return distances

    def within(self, points: Floats) -> list[list[int]]:
        """Return for each point the indices of all points of the tree within the reach, sorted."""
        found = self._tree.query_ball_point(self._cartesian(points), self._reach)
        return [sorted(set(self._indices[members].tolist())) for members in found]

    def _wrapped(self, points: Floats) -> Floats:
        fractions = points.copy()
        fractions[:, :2] = (points[:, :2] @ self._inverse) % 1.0
        return fractions

    def _cartesian(self, points: Floats) -> Floats:
        wrapped = self._wrapped(points)
        wrapped[:, :2] = wrapped[:, :2] @ self._cell
        return wrapped
