"""What is not a crystal: refused with its reason."""

from __future__ import annotations

import itertools
import math
from functools import cache

import ase
import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols, covalent_radii

from atomvision_hub.errors import CrystalError

#: Atoms closer than this share of the sum of their covalent radii overlap (no bond is shorter than about
#: 0.7).
OVERLAP_RATIO = 0.5
#: Smallest height of a cell in Å.
_FLAT = 0.1
#: More atoms than this are compared through a neighbour list, in less memory.
_MANY = 300


def check_crystal(atoms: ase.Atoms) -> None:
    """Raise when `atoms` cannot be a real structure.

    Refused are: no atoms, unknown elements, positions or cells that are not finite, no periodic direction, a
    cell without area or volume, and atoms (or their periodic images) closer than half the sum of their
    covalent radii.

    Raises
    ------
    CrystalError
        With step ``"crystal"`` and the reason in one line.
    """
    numbers, positions, cell, periodic = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    if not len(numbers):
        raise CrystalError("no atoms in the structure")
    if numbers.min() < 1 or numbers.max() > 118:
        wrong = next(number for number in numbers.tolist() if not 1 <= number <= 118)
        name = chemical_symbols[0] if wrong == 0 else str(wrong)
        raise CrystalError(f"unknown element {name!r}")
    if not math.isfinite(positions.sum()) or not math.isfinite(cell.sum()):
        what = "positions" if not np.isfinite(positions).all() else "cell vectors"
        raise CrystalError(f"{what} are not finite numbers")
    if not periodic.any():
        raise CrystalError("not periodic in any direction, so not a crystal; give the file a cell with pbc")
    basis = complete_cell(cell, periodic)
    inverse = _inverse(basis)
    # Distance between opposite faces of the cell along each vector.
    heights = 1.0 / np.sqrt((inverse**2).sum(axis=0))
    if (heights[periodic] < _FLAT).any():
        raise CrystalError(f"the cell is flat: height {heights[periodic].min():.3g} Å")
    if len(numbers) <= _MANY:
        _refuse_overlap(numbers, positions, basis, inverse, heights, periodic)
    else:
        _refuse_overlap_of_many(atoms)


def complete_cell(cell: npt.NDArray[np.float64], periodic: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the cell with the vectors along non-periodic directions replaced by unit normals.

    Parameters
    ----------
    cell
        Lattice vectors as rows in Å, shape (3, 3); rows of non-periodic directions may be zero.
    periodic
        Periodic directions, shape (3,).
    """
    if periodic.all():
        return cell
    basis = cell.copy()
    kept = np.flatnonzero(periodic)
    if not len(kept):
        return np.eye(3)
    if len(kept) == 2:
        normal = np.cross(cell[kept[0]], cell[kept[1]])
        length = np.linalg.norm(normal)
        basis[~periodic] = normal / length if length > 0 else 0.0
    else:
        # One periodic direction: any two unit vectors orthogonal to it and to each other.
        basis[~periodic] = np.linalg.svd(cell[kept[:1]])[2][1:]
    return basis


def _inverse(basis: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    try:
        inverse = np.linalg.inv(basis).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        raise CrystalError("the cell has no volume") from None
    if not np.isfinite(inverse).all():
        raise CrystalError("the cell has no volume")
    return inverse


def _refuse_overlap(
    numbers: npt.NDArray[np.int64],
    positions: npt.NDArray[np.float64],
    basis: npt.NDArray[np.float64],
    inverse: npt.NDArray[np.float64],
    heights: npt.NDArray[np.float64],
    periodic: npt.NDArray[np.bool_],
) -> None:
    radii = covalent_radii[numbers] * OVERLAP_RATIO
    reach = 2.0 * float(radii.max())
    separation = positions[:, None, :] - positions[None, :, :]
    separation -= (np.rint(separation @ inverse) * periodic) @ basis
    # Wrapped differences lie within half a cell; images farther than `reach` in height cannot overlap.
    spans = [
        math.floor(reach / height + 0.5) if along else 0
        for height, along in zip(heights.tolist(), periodic.tolist(), strict=True)
    ]
    squares = ((separation + _images(*spans)[:, None, None, :] @ basis) ** 2).sum(axis=-1)
    squares[len(squares) // 2].flat[:: len(numbers) + 1] = np.inf  # an atom and itself
    short = (radii[:, None] + radii) ** 2 - squares
    if short.max() > 0:
        image, i, j = np.unravel_index(int(short.argmax()), short.shape)
        raise _overlap(numbers, int(i), int(j), math.sqrt(squares[image, i, j]))


def _refuse_overlap_of_many(atoms: ase.Atoms) -> None:
    from ase.neighborlist import neighbor_list

    radii = covalent_radii[atoms.numbers] * OVERLAP_RATIO
    first, second, distances = neighbor_list("ijd", atoms, radii)
    if len(distances):
        worst = int(distances.argmin())
        raise _overlap(atoms.numbers, int(first[worst]), int(second[worst]), float(distances[worst]))


def _overlap(numbers: npt.NDArray[np.int64], i: int, j: int, distance: float) -> CrystalError:
    pair = f"{chemical_symbols[numbers[i]]} and {chemical_symbols[numbers[j]]}"
    return CrystalError(f"atoms {i} and {j} ({pair}) overlap: {distance:.3f} Å apart")


@cache
def _images(*spans: int) -> npt.NDArray[np.float64]:
    """Return all integer vectors within +-spans, the zero vector in the middle; shape (k, 3)."""
    return np.array(list(itertools.product(*(range(-span, span + 1) for span in spans))), dtype=float)
