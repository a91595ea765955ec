"""The translation lattice of a layer, found from its atoms rather than believed from its cell.

If a cell holds n atoms of every kind (or multiples of n), its translations form a group whose order divides
n, and each is a fraction k/n of the cell vectors. So it is enough to try, for every prime p that divides n,
the p + 1 subgroups of order p, to take the one that fits best, and to go on from the smaller cell until none
fits.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from atomvision_hub.structures.neighbours import MANY, PeriodicTree

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def primitive_vectors(
    cell: Floats, positions: Floats, kinds: list[int], tolerance: float, start: Floats | None = None
) -> Floats:
    """Return a basis of the translation lattice of points in a plane, as rows, shape (2, 2).

    Parameters
    ----------
    cell
        Vectors that are certainly translations, as rows in Å, shape (2, 2).
    positions
        Cartesian positions in Å, shape (n, 2) or (n, 3); a third coordinate does not repeat.
    kinds
        What must be mapped onto its like: one integer a point.
    tolerance
        Largest distance, in Å, between the image of a point and the nearest of its like.
    start
        Basis of a finer lattice that is known already (rows, shape (2, 2)).
    """
    lattice = cell if start is None else start
    members: dict[int, list[int]] = {}
    for index, kind in enumerate(kinds):
        members.setdefault(kind, []).append(index)
    repeats = math.gcd(*map(len, members.values()))
    if start is not None:
        repeats //= round(_area(cell) / _area(start))
    if repeats <= 1:
        return lattice
    # The rarest kind refuses most candidates at the least cost.
    groups = [_Kind(cell, positions[group], tolerance) for group in sorted(members.values(), key=len)]
    while repeats > 1:
        found = _best_translation(lattice, repeats, groups, tolerance)
        if found is None:
            break
        lattice, order = found
        repeats //= order
    return lattice


class _Kind:
    """All points of one kind, to be mapped onto each other by candidate translations."""

    def __init__(self, cell: Floats, points: Floats, tolerance: float) -> None:
        (a, b), (c, d) = cell.tolist()
        self._cell, self._points = cell, points
        self._inverse = np.array(((d, -b), (-c, a))) / (a * d - b * c)
        self._tree = PeriodicTree(cell, points, 2 * tolerance) if len(points) > MANY else None

    def misfits(self, vectors: Floats) -> Floats:
        """Return the largest squared distance from a point's image to its like for each of the vectors."""
        if self._tree is not None:
            flat = np.zeros((len(vectors), 1, self._points.shape[1]))
            flat[:, 0, :2] = vectors
            return np.array([self._tree.nearest(self._points + shift).max() ** 2 for shift in flat])
        separation = self._points[:, None] - self._points
        offset = separation[..., :2] @ self._inverse - (vectors @ self._inverse)[:, None, None]
        offset -= np.rint(offset)
        offset = offset @ self._cell
        offset *= offset
        squares = offset[..., 0] + offset[..., 1]
        if separation.shape[2] > 2:
            squares += separation[..., 2] ** 2
        worst: Floats = squares.min(axis=2).max(axis=1)
        return worst


def _best_translation(
    lattice: Floats, repeats: int, groups: list[_Kind], tolerance: float
) -> tuple[Floats, int] | None:
    """Return the lattice refined by the translation that fits best, and how many times; else ``None``."""
    best, found = tolerance * tolerance, None
    for prime in _prime_factors(repeats):
        vectors = _generators(prime) @ lattice / prime
        misfits = groups[0].misfits(vectors)
        for index in np.flatnonzero(misfits <= best).tolist():
            # All multiples must fit; those beyond half the order are the inverses of the others.
            multiples = vectors[index] * np.arange(1, max(2, (prime + 1) // 2))[:, None]
            misfit = max(float(group.misfits(multiples).max()) for group in groups)
            # Candidates that fit equally well are told apart by their order alone.
            if misfit <= best - (1e-12 if found else 0.0):
                # The generator (1, k) replaces the first basis vector, (0, 1) the second.
                kept = lattice[1] if index < prime else lattice[0]
                best, found = misfit, (np.array((vectors[index], kept)), prime)
    return found


@cache
def _generators(prime: int) -> Integers:
    return np.array([(1, k) for k in range(prime)] + [(0, 1)])


@cache
def _prime_factors(number: int) -> tuple[int, ...]:
    return tuple(p for p in range(2, number + 1) if number % p == 0 and all(p % q for q in range(2, p)))


def _area(vectors: Floats) -> float:
    (a, b), (c, d) = vectors.tolist()
    return abs(float(a * d - b * c))
