"""Where a layer ends: grain boundaries between two orientations, and edges to the vacuum."""

from __future__ import annotations

import math
from typing import Literal

import ase
import numpy as np
import numpy.typing as npt
from ase.data import covalent_radii

from atomvision_hub.errors import UsageError
from atomvision_hub.structures.lattice import reduce_basis
from atomvision_hub.structures.patches import check_length, disk, flat

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: Atoms of two grains nearer than this share of the sum of their covalent radii are one atom; the shortest
#: bonds of 2DMatPedia are 0.8 of it.
OVERLAP = 0.75
#: Atoms are bonded up to this multiple of the sum of their covalent radii.
_BOND = 1.25


def grain_boundary(
    atoms: ase.Atoms,
    misorientation: float,
    diameter: float,
    *,
    orientation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    overlap: float = OVERLAP,
) -> ase.Atoms:
    """Return a disk of two grains that meet along the y axis.

    Geometry alone: atoms that come too close at the line are merged, nothing relaxes. Two atoms of one
    element become one half-way between; of two elements the heavier stays.

    Parameters
    ----------
    atoms
        Two-dimensional crystal.
    misorientation
        The left grain (x < 0) is turned by half of it from +x towards +y, the right one by half of it back.
    diameter
        Of the disk in Å, see `patches.disk`.
    orientation
        Turn of both grains against the line, in degrees: 0 is a symmetric boundary for crystals with a
        mirror line along y.
    shift
        Shift of the right grain, (x, y) in Å.
    overlap
        Share of the sum of covalent radii below which two atoms are merged.

    Returns
    -------
    ase.Atoms
        Without cell. Arrays: ``grain`` (0 left, 1 right) and ``merged`` (the atom stands for several).
    """
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap must be a share of the bond length from 0 to below 1, not {overlap!r}")
    left = disk(atoms, diameter, rotation=orientation + misorientation / 2)
    right = disk(atoms, diameter, rotation=orientation - misorientation / 2, shift=shift)
    left, right = left[left.positions[:, 0] < 0], right[right.positions[:, 0] >= 0]
    numbers = np.concatenate((left.numbers, right.numbers))
    positions = np.concatenate((left.positions, right.positions))
    grains = np.repeat(np.array([0, 1], np.int8), (len(left), len(right)))
    kept, merged = _merged(numbers, positions, grains, overlap)
    pair = ase.Atoms(numbers=numbers[kept], positions=positions[kept], pbc=False)
    pair.set_array("grain", grains[kept])
    pair.set_array("merged", merged[kept])
    return pair


def _merged(
    numbers: Integers, positions: Floats, grains: npt.NDArray[np.int8], overlap: float
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Merge atoms across the line in place; return the indices that are left, and which were merged."""
    from scipy.spatial import cKDTree

    radii = covalent_radii[numbers]
    reach = 2 * overlap * float(radii.max())
    near = np.flatnonzero(np.abs(positions[:, 0]) <= 2 * reach)
    alive, merged = np.ones(len(numbers), dtype=bool), np.zeros(len(numbers), dtype=bool)
    while overlap > 0:
        here = near[alive[near]]
        pairs = here[cKDTree(positions[here]).query_pairs(reach, output_type="ndarray")]
        first, second = pairs.T
        # Bonds within a grain are as the crystal has them.
        foreign = (grains[first] != grains[second]) | merged[first] | merged[second]
        lengths = np.linalg.norm(positions[first] - positions[second], axis=1) / (
            radii[first] + radii[second]
        )
        close = np.flatnonzero(foreign & (lengths < overlap))
        if not len(close):
            break
        touched: set[int] = set()
        for i, j in pairs[close[np.argsort(lengths[close], kind="stable")]].tolist():
            if i in touched or j in touched:
                continue  # looked at again in the next round
            touched |= {i, j}
            stays, goes = (i, j) if numbers[i] >= numbers[j] else (j, i)
            if numbers[i] == numbers[j]:
                positions[stays] = (positions[i] + positions[j]) / 2
            alive[goes], merged[stays] = False, True
    return np.flatnonzero(alive), merged


def edge(
    atoms: ase.Atoms,
    direction: Literal["zigzag", "armchair"] | tuple[int, int],
    diameter: float,
    *,
    width: float | None = None,
    shift: float = 0.0,
    trim: bool = True,
) -> ase.Atoms:
    """Return a disk of a layer that ends along the y axis: the half plane x <= 0, or a ribbon.

    Parameters
    ----------
    atoms
        Two-dimensional crystal.
    direction
        Along which the layer ends: ``"zigzag"`` is that of the shortest lattice vector, ``"armchair"`` the
        one at right angles to it, as in graphene and in MoS2; or (u, v) for u times the first cell vector
        and v times the second. (-u, -v) gives the opposite edge.
    diameter
        Of the disk in Å, see `patches.disk`.
    width
        For a ribbon with both its edges, |x| <= width / 2, in Å. By default the half plane.
    shift
        Shift of the crystal along x before it is cut, in Å: chooses which row of atoms is the last.
    trim
        Take away atoms that have lost more than half of their bonds.

    Returns
    -------
    ase.Atoms
        Without cell. The array ``site`` holds for each atom its index in the cell of the layer.
    """
    layer = flat(atoms)
    along = _direction(layer.cell.array[:2, :2], direction)
    # The direction comes to lie along +y.
    rotation = 90.0 - math.degrees(math.atan2(along[1], along[0]))
    whole = disk(layer, diameter, rotation=rotation, shift=(shift, 0.0))
    x = whole.positions[:, 0]
    if width is None:
        kept = x <= 1e-6
    else:
        check_length("width", width)
        kept = np.abs(x) <= width / 2 + 1e-6
    if trim:
        kept = _trimmed(whole, kept)
    if not kept.any():
        raise UsageError("no atom is left of the layer; give a wider ribbon or a larger disk")
    return whole[kept]


def _direction(cell: Floats, direction: str | tuple[int, int]) -> Floats:
    if isinstance(direction, str):
        ux, uy, _, _ = reduce_basis(cell)
        if direction == "zigzag":
            return np.array([ux, uy])
        if direction == "armchair":
            return np.array([-uy, ux])
    elif len(direction) == 2 and any(direction):
        return np.asarray(np.array(direction, dtype=np.float64) @ cell)
    raise UsageError(f"direction must be 'zigzag', 'armchair' or two whole numbers (u, v), not {direction!r}")


def _trimmed(whole: ase.Atoms, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return `kept` without the atoms that have lost more than half of the bonds they have in the layer."""
    from scipy.spatial import cKDTree

    radii = covalent_radii[whole.numbers]
    tree = cKDTree(whole.positions)
    pairs = tree.query_pairs(2 * _BOND * float(radii.max()), output_type="ndarray")
    lengths = np.linalg.norm(whole.positions[pairs[:, 0]] - whole.positions[pairs[:, 1]], axis=1)
    pairs = pairs[lengths <= _BOND * radii[pairs].sum(axis=1)]
    before = np.bincount(pairs.ravel(), minlength=len(whole))
    while True:
        inside = pairs[kept[pairs].all(axis=1)]
        loose = kept & (2 * np.bincount(inside.ravel(), minlength=len(whole)) < before)
        if not loose.any():
            return kept
        kept = kept & ~loose
