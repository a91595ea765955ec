"""The translation lattice of a layer, found from its atoms rather than believed from its cell.

All translations of a structure with n atoms of its rarest kind are fractions k/n of the cell, so it is enough to
try, for every prime p that divides the numbers of atoms of all kinds, the p + 1 subgroups of order p, to take
the one that fits best, and to go on from the smaller cell until none fits.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def primitive_vectors(
    cell: Floats, positions: Floats, kinds: Integers, tolerance: float, start: Floats | None = None
) -> Floats:
    """Return a basis of the translation lattice of points in a plane, as rows, shape (2, 2).

    Parameters
    ----------
    cell
        Vectors that are certainly translations, as rows in Å, shape (2, 2).
    positions
        Cartesian positions in Å, shape (n, 2) or (n, 3); columns beyond the second do not repeat.
    kinds
        What must be mapped onto its like: one integer a point, shape (n,).
    tolerance
        Largest distance, in Å, between a point and the image of its like.
    start
        Basis of a finer lattice that is known already (rows, shape (2, 2)).
    """
    order = np.argsort(kinds, kind="stable")
    counts = np.diff(np.flatnonzero(np.diff(kinds[order], prepend=np.nan, append=np.nan))).tolist()
    lattice = cell if start is None else start
    index = 1 if start is None else round(abs(np.linalg.det(cell) / np.linalg.det(start)))
    repeats = math.gcd(*counts)
    if repeats <= index or repeats == 1:
        return lattice
    to_fraction = np.linalg.inv(cell)
    edges = [0, *np.cumsum(counts).tolist()]
    groups = [positions[order[first:last]] for first, last in pairwise(edges)]
    groups.sort(key=len)  # the rarest kind refuses most candidates at the least cost
    differences = []
    for group in groups:
        separation = group[:, None, :] - group[None, :, :]
        differences.append((separation[..., :2] @ to_fraction, (separation[..., 2:] ** 2).sum(axis=-1)))
    while True:
        remaining = repeats // index
        best, vector, factor = math.inf, None, 1
        for prime in _prime_factors(remaining):
            for candidate in _subgroup_generators(prime) @ lattice / prime:
                misfit = _misfit(candidate, prime, differences, cell, to_fraction, tolerance)
                # Candidates that fit equally well are told apart by their order alone.
                if misfit <= tolerance and misfit < best - 1e-9:
                    best, vector, factor = misfit, candidate, prime
        if vector is None:
            return lattice
        lattice = _with_vector(lattice, vector, factor)
        index *= factor


def _misfit(
    vector: Floats,
    order: int,
    differences: list[tuple[Floats, Floats]],
    cell: Floats,
    to_fraction: Floats,
    tolerance: float,
) -> float:
    worst = 0.0
    limit = tolerance * tolerance
    for multiple in range(1, max(2, order // 2 + 1)):
        shift = multiple * vector @ to_fraction
        for fractions, heights in differences:
            offset = fractions - shift
            offset -= np.rint(offset)
            squares = ((offset @ cell) ** 2).sum(axis=-1) + heights
            worst = max(worst, float(squares.min(axis=1).max()))
            if worst > limit:
                return math.inf
    return math.sqrt(worst)


def _subgroup_generators(prime: int) -> Integers:
    return np.array([(1, k) for k in range(prime)] + [(0, 1)])


def _with_vector(lattice: Floats, vector: Floats, prime: int) -> Floats:
    i, j = np.rint(vector @ np.linalg.inv(lattice) * prime).astype(int).tolist()
    # (i, j) is (1, k) or (0, 1): the vector replaces the first or the second basis vector.
    return np.array((vector, lattice[1])) if i else np.array((lattice[0], vector))


def _prime_factors(number: int) -> list[int]:
    factors, candidate = [], 2
    while number > 1:
        if number % candidate == 0:
            factors.append(candidate)
            while number % candidate == 0:
                number //= candidate
        candidate += 1
    return factors
