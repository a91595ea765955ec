"""How columns repeat: the share that does, and the cell of the lattice, from positions and heights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from atomvision_hub.structures.lattice import bravais_class
from atomvision_hub.structures.record import LATTICES

#: Fewest columns that tell how they repeat.
FEWEST = 12
#: Changes of the two shortest vectors, relative to the sum of their lengths, that do not change the class.
TOLERANCE = 0.01

_MOST = 5000  # columns that are looked at, those nearest to the middle
_REACH, _BIN, _NEAR = 8.0, 0.1, 0.2  # longest displacement, bin and tolerance, in nearest distances
_CANDIDATES = 48
_SAME = 0.3  # of two columns of one kind the higher is at most so much higher
_REPEATS = 0.6  # share of the columns that a translation of the lattice must repeat

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Conventional cell of the plane lattice that the columns repeat on.

    Parameters
    ----------
    a, b, gamma
        Edges (a <= b) in `unit`, and their angle in degrees, at least 90.
    lattice
        Its Bravais class, where changes of 1 % are forgiven.
    repeats
        Share of the columns that have another one of like height at the two shortest translations.
    unit
        ``"Å"`` or ``"px"``.
    """

    a: float
    b: float
    gamma: float
    lattice: str
    repeats: float
    unit: str


def find_repeats(
    positions: Array, heights: Array, nearest: float, size: tuple[float, float], unit: str
) -> tuple[float, Cell | None]:
    """Return the share of columns that have another one at the commonest displacement, and the cell if any.

    Displacements up to eight nearest distances are counted in bins of a tenth of them. Each of the commonest
    is sought around every column, if that place is inside the image. Those that repeat nearly as many as
    the best, with like heights, are translations of the lattice; its basis fits all of them.

    Parameters
    ----------
    positions
        (x, y), shape (n, 2), n >= `FEWEST`.
    heights
        Of the columns: kinds of columns are told apart by them.
    nearest
        Typical distance between nearest columns.
    size
        Width and height of the image.
    unit
        Of all lengths.
    """
    chosen = np.argsort(((positions - positions.mean(axis=0)) ** 2).sum(axis=1))[:_MOST]
    places, heights = positions[chosen], heights[chosen]
    tree = cKDTree(places)
    order, found = 0.0, []
    for guess in _common(places, tree, nearest):
        share, same, vector = _repeated(places, heights, tree, guess, nearest, size)
        order = max(order, share)
        if same > 0:
            found.append((same, vector))
    best = max((same for same, _ in found), default=0.0)
    if best < _REPEATS:
        return order, None
    translations = [vector for same, vector in found if same >= best - 0.15]
    basis = _basis(np.array(translations), nearest)
    if basis is None:
        return order, None
    tolerance = TOLERANCE * float(np.hypot(*basis.T).sum())
    fit = bravais_class(basis, tolerance)
    cell = Cell(
        a=fit.cell.a,
        b=fit.cell.b,
        gamma=fit.cell.gamma,
        lattice=LATTICES[fit.label],
        repeats=best,
        unit=unit,
    )
    return order, cell


def _common(places: Array, tree: cKDTree, nearest: float) -> list[Array]:
    """Return the commonest displacements between columns, one of each pair of opposite ones."""
    pairs = tree.query_pairs(_REACH * nearest, output_type="ndarray")
    vectors = places[pairs[:, 1]] - places[pairs[:, 0]]
    vectors = np.concatenate([vectors, -vectors])
    half = math.ceil(_REACH / _BIN) + 4
    bins = np.rint(vectors / (_BIN * nearest)).astype(np.intp) + half
    side = 2 * half + 1
    counts = np.bincount(bins[:, 0] * side + bins[:, 1], minlength=side * side).reshape(side, side)
    around = sum(np.roll(counts, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    remaining = np.asarray(around, np.int64)
    x, y = np.meshgrid(np.arange(side) - half, np.arange(side) - half, indexing="ij")
    remaining[(x < 0) | ((x == 0) & (y < 0))] = 0
    found: list[Array] = []
    while len(found) < _CANDIDATES and remaining.max() > 0:
        i, j = divmod(int(remaining.argmax()), side)
        found.append(np.array([i - half, j - half]) * (_BIN * nearest))
        remaining[max(0, i - 3) : i + 4, max(0, j - 3) : j + 4] = 0
    return found


def _repeated(
    places: Array,
    heights: Array,
    tree: cKDTree,
    vector: Array,
    nearest: float,
    size: tuple[float, float],
) -> tuple[float, float, Array]:
    """Return which share of the columns has a partner there, and one of like height, and the mean vector."""
    share = same = 0.0
    for _ in range(2):
        aims = places + vector
        inside = np.flatnonzero(((aims >= 0) & (aims <= size)).all(axis=1))
        # What only a corner of the image could show is no evidence.
        if len(inside) < max(FEWEST / 2, 0.25 * len(places)):
            return 0.0, 0.0, vector
        distance, partner = tree.query(aims[inside], distance_upper_bound=_NEAR * nearest)
        hit = np.isfinite(distance)
        if not hit.any():
            return 0.0, 0.0, vector
        own, other = heights[inside[hit]], heights[partner[hit]]
        like = np.abs(own - other) <= _SAME * np.maximum(own, other)
        share, same = float(hit.mean()), float(like.sum() / len(inside))
        vector = np.median(places[partner[hit]] - places[inside[hit]], axis=0)
    return share, same, vector


def _basis(translations: Array, nearest: float) -> Array | None:
    """Return two vectors of which all translations are whole sums, as well as they can be fitted."""
    lengths = np.hypot(translations[:, 0], translations[:, 1])
    ordered = translations[np.argsort(lengths)]
    first = ordered[0]
    for second in ordered[1:]:
        area = abs(first[0] * second[1] - first[1] * second[0])
        if area > 0.25 * math.hypot(*first) * math.hypot(*second):
            break
    else:
        return None
    basis = np.array([first, second])
    for _ in range(2):
        whole = np.rint(ordered @ np.linalg.inv(basis))
        fits = np.hypot(*(ordered - whole @ basis).T) < _NEAR * nearest
        if fits.sum() < 2 or np.linalg.matrix_rank(whole[fits]) < 2:
            return basis
        basis = np.linalg.lstsq(whole[fits], ordered[fits], rcond=None)[0]
    return basis
