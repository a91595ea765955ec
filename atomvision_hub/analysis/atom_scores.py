"""How well detected columns agree with the true ones: precision, recall, F1, error of the positions.

A true column is *resolvable* where its nearest neighbour is at least 1.2 Å away and its peak has at least
5 % of the brightest column's; the image shows others as shoulders or hardly at all. Detections are matched
one to one, nearest pairs first, up to a tolerance: first with resolvable columns, which count; then the rest
with the other columns, where a detection is neither right nor wrong. What is left is a false alarm.

Columns whose centre lies outside the image count as others, and so do those within a `border` where one is
asked for. Nearest pairs first is the best assignment there is where columns that count are more than two
tolerances apart (1.2 Å against 0.5 Å): no detection can then choose between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from atomvision_hub.analysis.atoms import RESOLVABLE_DISTANCE, RESOLVABLE_PEAK
from atomvision_hub.analysis.errors import AnalysisError

#: How far from a column a detection may lie, in Å.
TOLERANCE = 0.5

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrueColumns:
    """Columns of atoms, those outside the image too as far as they are known.

    Attributes
    ----------
    positions
        (x, y) in Å, shape (n, 2): pixel coordinates times the pixel size.
    peak
        Height of the column's peak relative to the brightest one inside the image.
    inside
        Whether the centre lies inside the image.
    distance
        To the nearest other column, in Å; infinite for a lonely one.
    """

    positions: Array
    peak: Array
    inside: Flags
    distance: Array

    @property
    def resolvable(self) -> Flags:
        """Whether an image can show the column as a peak of its own."""
        return (self.distance >= RESOLVABLE_DISTANCE) & (self.peak >= RESOLVABLE_PEAK)


def true_columns(
    atoms: Mapping[str, npt.ArrayLike] | npt.NDArray[np.void],
    shape: tuple[int, int],
    pixel_size: float | tuple[float, float],
    z_exponent: float = 1.7,
) -> TrueColumns:
    """Return the columns that the atoms of an image form.

    Parameters
    ----------
    atoms
        Table with `x`, `y` (px), `number`, `column`: ``frame.atoms`` or a row's ``atoms``. It should reach a
        little over the image's edge; a neighbour that it lacks makes a column look resolvable.
    shape
        Rows and columns of the image.
    pixel_size
        Å/px, one number or (row, column).
    z_exponent
        An atom has the intensity Z**z_exponent; a column stands at the weighted mean of its atoms.
    """
    dy, dx = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2)
    weight = np.asarray(atoms["number"], dtype=float) ** z_exponent
    count, column = np.unique(np.asarray(atoms["column"]), return_inverse=True)
    total = np.bincount(column, weight, minlength=len(count))
    x, y = (
        np.bincount(column, weight * np.asarray(atoms[axis], dtype=float), minlength=len(count)) / total
        for axis in "xy"
    )
    inside = (x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5)
    positions = np.stack([x * dx, y * dy], axis=1)
    distance = np.full(len(x), np.inf)
    if len(x) > 1:
        distance = cKDTree(positions).query(positions, k=2)[0][:, 1]
    brightest = total[inside].max() if inside.any() else np.inf
    return TrueColumns(positions, total / brightest, inside, distance)


@dataclass(frozen=True)
class AtomScore:
    """Counts of one image or of several: scores add up.

    Attributes
    ----------
    right, missed, false
        Columns that count with and without a detection; detections on no column at all.
    ignored
        Detections on columns that do not count.
    excluded
        Columns inside the image that do not count, for lack of distance or height or in the border.
    squares
        Sum of the squared distances of the right detections, Å² (or px²).
    """

    right: int = 0
    missed: int = 0
    false: int = 0
    ignored: int = 0
    excluded: int = 0
    squares: float = 0.0

    def __add__(self, other: AtomScore) -> AtomScore:
        return AtomScore(
            self.right + other.right,
            self.missed + other.missed,
            self.false + other.false,
            self.ignored + other.ignored,
            self.excluded + other.excluded,
            self.squares + other.squares,
        )

    @property
    def precision(self) -> float:
        """Share of the detections that are right, of those that count; 1 without any."""
        return self.right / found if (found := self.right + self.false) else 1.0

    @property
    def recall(self) -> float:
        """Share of the columns that count that were found; 1 without any."""
        return self.right / known if (known := self.right + self.missed) else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = 2 * self.right + self.missed + self.false
        return 2 * self.right / total if total else 1.0

    @property
    def rmse(self) -> float:
        """Root mean squared distance of right detections, in the unit of the positions; NaN without any."""
        return float(np.sqrt(self.squares / self.right)) if self.right else float("nan")

    @property
    def excluded_fraction(self) -> float:
        """Share of the columns inside the image that do not count."""
        total = self.right + self.missed + self.excluded
        return self.excluded / total if total else 0.0

    def to_dict(self) -> dict[str, float | None]:
        """Return all figures by name, `None` for an error of nothing."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "rmse": self.rmse if self.right else None,
            "excluded_fraction": self.excluded_fraction,
            "right": self.right,
            "missed": self.missed,
            "false": self.false,
            "ignored": self.ignored,
        }


def score_atoms(
    found: npt.ArrayLike,
    truth: TrueColumns,
    *,
    tolerance: float = TOLERANCE,
    border: float = 0.0,
    field_of_view: tuple[float, float] | None = None,
) -> AtomScore:
    """Compare detections with the columns of an image.

    Parameters
    ----------
    found
        Detected (x, y) in Å, shape (n, 2), as `AtomTable.positions` gives them.
    truth
        What is there.
    tolerance
        Largest distance of a match, in Å.
    border, field_of_view
        Count only columns at least `border` (Å) inside the edges of an image of `field_of_view` (height,
        width, in Å).

    Raises
    ------
    AnalysisError
        When positions are no [n, 2] array, or a border is asked for without a field of view.
    """
    counts = truth.resolvable & truth.inside
    if border > 0:
        if field_of_view is None:
            raise AnalysisError("a border needs the field of view (height, width) in Å")
        counts &= within(truth.positions, border, field_of_view)
    matched, distance, used = match_points(found, truth.positions[counts], tolerance)
    rest = np.asarray(found, dtype=float).reshape(-1, 2)[~used]
    others = match_points(rest, truth.positions[~counts], tolerance)[0]
    return AtomScore(
        right=len(matched),
        missed=int(counts.sum()) - len(matched),
        false=len(rest) - len(others),
        ignored=len(others),
        excluded=int((truth.inside & ~counts).sum()),
        squares=float((distance**2).sum()),
    )


def within(positions: Array, border: float, field_of_view: tuple[float, float]) -> Flags:
    """Return which (x, y) lie at least `border` inside an image of (height, width), all in one unit."""
    high = np.array(field_of_view[::-1]) - border
    return np.asarray(((positions >= border) & (positions <= high)).all(axis=1))


def match_points(
    found: npt.ArrayLike, truth: npt.ArrayLike, tolerance: float
) -> tuple[npt.NDArray[np.intp], Array, Flags]:
    """Match points one to one, nearest pairs first.

    Parameters
    ----------
    found, truth
        Points, shapes (n, 2) and (m, 2), in one unit.
    tolerance
        Largest distance of a pair.

    Returns
    -------
    pairs
        Indices (found, truth), shape (k, 2), nearest pair first.
    distances
        Of the pairs, shape (k,).
    used
        Whether a found point has a partner, shape (n,).
    """
    points, targets = (np.asarray(one, dtype=np.float64) for one in (found, truth))
    points, targets = (one.reshape(0, 2) if one.size == 0 else one for one in (points, targets))
    if any(one.ndim != 2 or one.shape[1] != 2 for one in (points, targets)):
        raise AnalysisError(f"positions must be arrays [n, 2], not {points.shape} and {targets.shape}")
    used, taken = np.zeros(len(points), bool), np.zeros(len(targets), bool)
    if not (len(points) and len(targets)):
        return np.zeros((0, 2), np.intp), np.zeros(0), used
    near = cKDTree(points).sparse_distance_matrix(cKDTree(targets), tolerance, output_type="ndarray")
    near = near[np.lexsort((near["j"], near["i"], near["v"]))]
    pairs: list[int] = []
    for index, (i, j) in enumerate(zip(near["i"].tolist(), near["j"].tolist(), strict=True)):
        if not (used[i] or taken[j]):
            used[i] = taken[j] = True
            pairs.append(index)
    chosen: npt.NDArray[Any] = near[pairs]
    return np.stack([chosen["i"], chosen["j"]], axis=1).astype(np.intp), np.asarray(chosen["v"]), used
