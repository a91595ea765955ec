"""The crystal seen along the beam: which atoms an image can show, and where on it.

The beam runs along z. A crystal becomes a few points and the translations that repeat them over the image
plane; the atoms in view are all combinations that fall into a box around the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import CrystalError, UsageError

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[np.float64]

#: Translations shorter than this (Å) in the image plane run along the beam and repeat nothing in it.
_SHORT = 1e-3
#: Slab faces are moved outwards by this (Å), so that whole periods count their atoms exactly once.
_FACE = 1e-6
#: A view with more atoms than this would take minutes and gigabytes; the user meant something else.
_MOST_ATOMS = 20_000_000


@dataclass(frozen=True, slots=True)
class Projection:
    """A crystal ready to be placed on images.

    Attributes
    ----------
    points
        Positions relative to the point shown in the image centre, in Å: (n, 2) as seen along the beam, or
        (n, 3) when `slab` bounds the crystal along it.
    translations
        Vectors that repeat the points, (m, 2) with m <= 2, or the three lattice vectors, (3, 3), with a slab.
        Points lie within their first cell.
    numbers
        Atomic numbers, (n,).
    heights
        z of the atoms, (n,), in Å.
    slab
        Lowest and highest z, in Å, of the atoms that are shown, or ``None`` for those of one period.
    """

    points: Array
    translations: Array
    numbers: npt.NDArray[np.int64]
    heights: Array
    slab: tuple[float, float] | None = None

    def overlapping(self) -> tuple[Array, npt.NDArray[np.int64]]:
        """Return the distinct points and, for every atom, which of them it lies on.

        Atoms on top of each other are drawn once with their joint weight. Points are compared to 1e-7 Å; two
        that escape that are drawn twice, which is right as well.
        """
        if self.slab is not None or len(self.points) == 1:
            return self.points, np.arange(len(self.points))
        rounded = np.rint(self.points * 1e7)
        _, first, which = np.unique(
            rounded[:, 0] + 1j * rounded[:, 1], return_index=True, return_inverse=True
        )
        return self.points[first], which


@dataclass(frozen=True, slots=True)
class Pose:
    """Where on the image the crystal lies: pixel (x, y) of a point is ``origin + point @ matrix``.

    Attributes
    ----------
    matrix
        Maps Å to pixels, (2, 2).
    origin
        Pixel (x, y) at which the crystal's centre is shown, (2,).
    """

    matrix: Array
    origin: Array


def project(
    atoms: Atoms, *, center: tuple[float, float] | None = None, thickness: float | None = None
) -> Projection:
    """Return a crystal as points on the image plane and the translations that repeat them.

    Parameters
    ----------
    atoms
        Any crystal or cluster; ``atoms.pbc`` says along which cell vectors it repeats.
    center
        Cartesian point (x, y), in Å, that an unshifted image shows in its centre. By default (0, 0) along
        periodic directions and the middle of the bounding box along others.
    thickness
        ``None`` for one period along the beam: of three periodic cell vectors the third is not repeated.
        Otherwise the slab ``0 <= z < thickness``, in Å, of the crystal repeated along all its vectors.

    Raises
    ------
    CrystalError
        When there are no atoms, a position or cell entry is not finite, or an element is unknown.
    UsageError
        When the cell does not tile the image plane, or `thickness` fits no crystal that is periodic along z.
    """
    positions = np.asarray(atoms.positions, dtype=np.float64)
    numbers = np.asarray(atoms.numbers)
    cell = np.asarray(atoms.cell.array)
    _check(positions, numbers, cell)
    periodic = cell[np.asarray(atoms.pbc)]
    if thickness is None:
        translations = _planar_translations(periodic)
        points = positions[:, :2] - _middle(positions[:, :2], translations, center)
        slab = None
    else:
        translations = _slab_translations(periodic, thickness)
        points = positions.copy()
        points[:, :2] -= _middle(positions[:, :2], np.eye(2), center)
        slab = (-_FACE, thickness - _FACE)
    if len(translations):
        points -= np.floor(points @ _inverse(translations)) @ translations
    return Projection(points, translations, numbers, positions[:, 2], slab)


def _check(positions: Array, numbers: npt.NDArray[np.int64], cell: Array) -> None:
    if len(numbers) == 0:
        raise CrystalError("the crystal has no atoms; nothing to simulate")
    # A NaN or an infinity spoils the sum; cheaper than looking at every entry.
    if not (math.isfinite(positions.sum()) and math.isfinite(cell.sum())):
        raise CrystalError("a position or cell vector is not a finite number; repair the structure")
    if not 0 < numbers.min() <= numbers.max() < 119:
        raise CrystalError("an atomic number is not between 1 and 118; replace unknown elements")


def _planar_translations(periodic: Array) -> Array:
    """Return the independent translations in the image plane, shortest first; at most two."""
    planar = periodic[:2, :2] if len(periodic) == 3 else periodic[:, :2]
    if len(planar) == 2:
        planar = reduce_basis(planar)
    planar = planar[np.hypot(planar[:, 0], planar[:, 1]) > _SHORT]
    if len(periodic) == 3 and len(planar) < 2:
        raise UsageError(
            "the first two cell vectors do not span the image plane; turn the crystal so that the third lies "
            "along z, or give a thickness"
        )
    return planar


def reduce_basis(basis: Array) -> Array:
    """Return the shortest basis of a plane lattice (Lagrange-Gauss), (2, 2) rows in Å, shortest first."""
    (ax, ay), (bx, by) = basis.tolist()
    for _ in range(1000):
        if ax * ax + ay * ay > bx * bx + by * by:
            ax, ay, bx, by = bx, by, ax, ay
        square = ax * ax + ay * ay
        if square < _SHORT**2:
            break
        n = round((ax * bx + ay * by) / square)
        if n == 0:
            break
        bx, by = bx - n * ax, by - n * ay
    return np.array([[ax, ay], [bx, by]])


def _slab_translations(periodic: Array, thickness: float) -> Array:
    if not (math.isfinite(thickness) and thickness > 0):
        raise UsageError(f"thickness must be a positive length in Å, not {thickness!r}")
    if len(periodic) < 3 or abs(np.linalg.det(periodic)) < 1e-6:
        raise UsageError(
            "thickness needs a crystal that repeats along all three cell vectors; leave it out for layers, "
            "wires and particles"
        )
    from ase.geometry import minkowski_reduce

    return np.asarray(minkowski_reduce(periodic)[0], dtype=np.float64)


def _inverse(translations: Array) -> Array:
    """Return the matrix that turns points into multiples of the translations."""
    if len(translations) == 2:  # what numpy.linalg takes much longer for
        (a, b), (c, d) = translations.tolist()
        determinant = a * d - b * c
        return np.array([[d / determinant, -b / determinant], [-c / determinant, a / determinant]])
    return np.asarray(np.linalg.pinv(translations), dtype=np.float64)


def _middle(points: Array, translations: Array, center: tuple[float, float] | None) -> Array:
    """Return `center`, by default the middle of the bounding box where nothing repeats and zero elsewhere."""
    if center is not None:
        middle = np.asarray(center, dtype=np.float64)
        if middle.shape != (2,) or not np.all(np.isfinite(middle)):
            raise UsageError(f"center must be two finite lengths (x, y) in Å, not {center!r}")
        return middle
    if len(translations) == 2:
        return np.zeros(2)
    if len(translations) == 0:
        return np.asarray((points.min(0) + points.max(0)) / 2)
    along = translations[0] / np.linalg.norm(translations[0])
    across = np.array([-along[1], along[0]])
    heights = points @ across
    return np.asarray((heights.min() + heights.max()) / 2 * across)


def rotation_matrix(degrees: float) -> Array:
    """Return the (2, 2) matrix that turns (x, y) from +x towards +y; exact for multiples of 90°."""
    quarter, rest = divmod(degrees, 90.0)
    angle = math.radians(rest)
    cosine, sine = math.cos(angle), math.sin(angle)
    for _ in range(int(quarter) % 4):
        cosine, sine = -sine, cosine
    return np.array([[cosine, -sine], [sine, cosine]])


def pose(
    shape: tuple[int, int], pixel_size: tuple[float, float], rotation: float, shift: tuple[float, float]
) -> Pose:
    """Return the map from Å to the pixels of an image of `shape` and `pixel_size`, both (row, column)."""
    dy, dx = pixel_size
    return Pose(
        rotation_matrix(rotation).T / np.array([dx, dy]),
        np.array([(shape[1] - 1) / 2 + shift[0] / dx, (shape[0] - 1) / 2 + shift[1] / dy]),
    )


@dataclass(frozen=True, slots=True)
class PointsInView:
    """Points near an image: column `x`, row `y` (pixels), height `z` in a slab (Å), index of the point."""

    x: Array
    y: Array
    z: Array | None
    index: npt.NDArray[np.int64]


def points_in_view(
    points: Array, projection: Projection, pose: Pose, shape: tuple[int, int], margin: tuple[float, float]
) -> PointsInView:
    """Return where `points` and their repetitions lie, as far as on an image or within a margin of it.

    Parameters
    ----------
    points
        Those of the projection, or some of them.
    projection, pose
        How they repeat and where the image shows them.
    shape
        Rows and columns of the image.
    margin
        Width of the margin along (rows, columns), in pixels.

    Raises
    ------
    UsageError
        When the view holds more atoms than any sensible image.
    """
    (ox, oy), matrix, slab = pose.origin.tolist(), pose.matrix, projection.slab
    low = [-0.5 - margin[1] - ox, -0.5 - margin[0] - oy]
    high = [shape[1] - 0.5 + margin[1] - ox, shape[0] - 0.5 + margin[0] - oy]
    if slab is not None:
        low, high = [*low, slab[0]], [*high, slab[1]]
        matrix = np.block([[matrix, np.zeros((2, 1))], [np.zeros((1, 2)), np.ones((1, 1))]])
    # Coordinates are rows here, so that what runs over all atoms runs along the longest axis.
    placed = matrix.T @ points.T
    if len(projection.translations):
        placed = _repeat(placed, projection.translations @ matrix, np.array(low), np.array(high))
    keep = (placed[0] >= low[0]) & (placed[0] < high[0])
    for axis in range(1, len(low)):
        keep &= (placed[axis] >= low[axis]) & (placed[axis] < high[axis])
    chosen = np.flatnonzero(keep)
    inside = placed[:, chosen]
    heights = None if slab is None else inside[2]
    return PointsInView(inside[0] + ox, inside[1] + oy, heights, chosen % len(points))


def _repeat(points: Array, steps: Array, low: Array, high: Array) -> Array:
    """Return `points` of the first cell, (d, n), repeated by all multiples of `steps` that reach the box."""
    inverse = _inverse(steps)
    middle, half = ((low + high) / 2) @ inverse, ((high - low) / 2) @ np.abs(inverse)
    first, last = np.ceil(middle - half - 1).tolist(), np.floor(middle + half).tolist()
    count = points.shape[1] * math.prod(b - a + 1 for a, b in zip(first, last, strict=True))
    if count > _MOST_ATOMS:
        raise UsageError(
            f"the view would hold about {count:.0e} atoms; "
            "choose a smaller pixel_size, shape, psf or thickness"
        )
    for a, b, step in zip(first, last, steps, strict=True):
        multiples = step[:, None] * np.arange(a, b + 1)
        points = (multiples[:, :, None] + points[:, None, :]).reshape(len(points), -1)
    return points
