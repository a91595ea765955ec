"""The crystal seen along the beam: which atoms an image can show, and where on it.

The beam runs along z. A crystal becomes a few atoms and the translations that repeat them over the image plane;
the atoms in view are all combinations that fall into a box around the image.
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
    positions
        Cartesian positions relative to the point shown in the image centre, (n, 3), in Å.
    numbers
        Atomic numbers, (n,).
    translations
        Vectors that repeat the atoms, (m, d) in Å: m <= 2 vectors in the image plane (d = 2), or the three
        lattice vectors (d = 3) when `slab` bounds them along the beam.
    slab
        Lowest and highest z, in Å, of the atoms that are shown, or ``None`` for those of one period.
    """

    positions: Array
    numbers: npt.NDArray[np.int64]
    translations: Array
    slab: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Pose:
    """Where on the image the crystal lies: ``(row, column) = origin + matrix @ (y, x)`` written for (x, y).

    Attributes
    ----------
    matrix
        Maps Å to pixels, (2, 2), in the order (x, y).
    origin
        Position of the crystal's centre on the image, (x, y) in pixels.
    """

    matrix: Array
    origin: Array


def project(
    atoms: Atoms, *, center: tuple[float, float] | None = None, thickness: float | None = None
) -> Projection:
    """Return a crystal as atoms and the translations that repeat them on the image.

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
    positions = np.array(atoms.positions, dtype=np.float64)
    numbers = np.asarray(atoms.numbers)
    cell = np.asarray(atoms.cell.array)
    _check(positions, numbers, cell)
    periodic = cell[np.asarray(atoms.pbc)]
    if thickness is None:
        planar = _planar_translations(periodic)
    else:
        periodic = _slab_translations(periodic, thickness)
        planar = np.eye(2)
    middle = _center(positions[:, :2], planar) if center is None else np.asarray(center, dtype=np.float64)
    if middle.shape != (2,) or not np.all(np.isfinite(middle)):
        raise UsageError(f"center must be two finite lengths (x, y) in Å, not {center!r}")
    positions[:, :2] -= middle
    if thickness is None:
        return Projection(positions, numbers, planar)
    return Projection(positions, numbers, periodic, (-_FACE, thickness - _FACE))


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


def _center(planar_positions: Array, planar: Array) -> Array:
    """Return the middle of the bounding box along directions in which nothing repeats, zero along others."""
    if len(planar) == 2:
        return np.zeros(2)
    if len(planar) == 0:
        return (planar_positions.min(0) + planar_positions.max(0)) / 2
    along = planar[0] / np.linalg.norm(planar[0])
    across = np.array([-along[1], along[0]])
    heights = planar_positions @ across
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
    """Return the map from Å to pixels for an image of `shape` (rows, columns) and `pixel_size` (Å/px) alike."""
    step = np.array([pixel_size[1], pixel_size[0]])
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    return Pose(rotation_matrix(rotation) / step[:, None], middle + np.asarray(shift) / step)


@dataclass(frozen=True, slots=True)
class AtomsInView:
    """Atoms near an image: column `x` and row `y` in pixels, height `z` in Å, index of the atom in the crystal."""

    x: Array
    y: Array
    z: Array
    index: npt.NDArray[np.int64]


def atoms_in_view(
    projection: Projection, pose: Pose, shape: tuple[int, int], margin: tuple[float, float]
) -> AtomsInView:
    """Return all atoms, repeated ones too, on an image or within `margin` (row, column; pixels) of it.

    Raises
    ------
    UsageError
        When the view holds more atoms than any sensible image.
    """
    translations, slab = projection.translations, projection.slab
    low = [-0.5 - margin[1], -0.5 - margin[0]]
    high = [shape[1] - 0.5 + margin[1], shape[0] - 0.5 + margin[0]]
    points = projection.positions[:, :2] @ pose.matrix.T + pose.origin
    steps = translations[:, :2] @ pose.matrix.T
    z = projection.positions[:, 2]
    if slab is not None:
        low, high = [*low, slab[0]], [*high, slab[1]]
        points, steps = np.column_stack([points, z]), np.column_stack([steps, translations[:, 2]])
    index = np.arange(len(points))
    if len(steps):
        points, counts = _repeat(points, steps, np.array(low), np.array(high))
        index, z = np.tile(index, counts), np.tile(z, counts)
    keep = (points[:, 0] >= low[0]) & (points[:, 0] <= high[0])
    keep &= (points[:, 1] >= low[1]) & (points[:, 1] <= high[1])
    if slab is not None:
        z = points[:, 2]
        keep &= (z >= slab[0]) & (z < slab[1])
    chosen = np.flatnonzero(keep)
    return AtomsInView(points[chosen, 0], points[chosen, 1], z[chosen], index[chosen])


def _repeat(points: Array, steps: Array, low: Array, high: Array) -> tuple[Array, int]:
    """Return `points` repeated by all combinations of `steps` that can fall into the box, and their count."""
    if len(steps) == 2:  # numpy.linalg costs ten times as much as this
        (a, b), (c, d) = steps.tolist()
        determinant = a * d - b * c
        inverse = np.array([[d, -b], [-c, a]]) / determinant
    else:
        inverse = np.linalg.pinv(steps)
    fractional = points @ inverse
    points = points - np.floor(fractional) @ steps  # now all within the first cell
    middle = ((low + high) / 2) @ inverse
    half = ((high - low) / 2) @ np.abs(inverse)
    first = np.ceil(middle - half - 1).astype(int)
    last = np.floor(middle + half).astype(int)
    lengths = last - first + 1
    count = math.prod(lengths.tolist())
    if count * len(points) > _MOST_ATOMS:
        raise UsageError(
            f"the view would need about {count * len(points):.0e} atoms; choose a smaller pixel_size, shape, psf "
            "or thickness"
        )
    offsets = np.zeros((1, points.shape[1]))
    for start, length, step in zip(first.tolist(), lengths.tolist(), steps, strict=True):
        offsets = (offsets[:, None] + np.arange(start, start + length)[:, None] * step).reshape(-1, len(step))
    return (offsets[:, None] + points).reshape(-1, points.shape[1]), count
