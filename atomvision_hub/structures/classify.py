"""Lattice labels of a crystal: of its translations, of its projection, and of the paper's rule."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.structures.lattice import BravaisFit, Lattice2D, bravais_class
from atomvision_hub.structures.layer import flat_layer, is_flat
from atomvision_hub.structures.legacy import legacy_class, source_parameters
from atomvision_hub.structures.neighbours import MANY, PeriodicTree
from atomvision_hub.structures.record import LATTICES
from atomvision_hub.structures.translations import primitive_vectors

Floats = npt.NDArray[np.float64]
_MANY = 100_000  # more atoms than any column holds


@dataclass(frozen=True, slots=True)
class LatticeClassification:
    """Lattice labels of a two-dimensional crystal.

    Parameters
    ----------
    lattice
        Bravais lattice of the translations that map every atom onto one of its element.
    legacy
        What the AtomVision paper's rule says of the cell as it stands.
    projected
        Bravais lattice of the atom columns seen along z, all that an image can show.
    margin, projected_margin
        No change of the reduced lattice vectors that adds up to less than this (Å) changes the class.
    alternatives, projected_alternatives
        The other classes with their distances in Å, nearest first.
    cell, projected_cell
        Conventional cell and reduced basis of both lattices.
    """

    lattice: str
    legacy: str
    projected: str
    margin: float
    projected_margin: float
    alternatives: tuple[tuple[str, float], ...]
    projected_alternatives: tuple[tuple[str, float], ...]
    cell: Lattice2D
    projected_cell: Lattice2D


def classify_lattice(atoms: ase.Atoms, tolerance: float = 0.05) -> LatticeClassification:
    """Return the lattice labels of a two-dimensional crystal.

    Parameters
    ----------
    atoms
        Two-dimensional crystal; made flat by `flat_layer` unless it is.
    tolerance
        Distance in Å within which atoms count as mapped onto each other, and lattice vectors as symmetric.

    Raises
    ------
    CrystalError
        When `atoms` is not two-dimensional.
    """
    flat = atoms if is_flat(atoms) else flat_layer(atoms)
    crystal, projected = lattice_fits(flat, tolerance)
    return LatticeClassification(
        lattice=LATTICES[crystal.label],
        legacy=LATTICES[legacy_class(*source_parameters(atoms))],
        projected=LATTICES[projected.label],
        margin=crystal.margin,
        projected_margin=projected.margin,
        alternatives=crystal.alternatives,
        projected_alternatives=projected.alternatives,
        cell=crystal.cell,
        projected_cell=projected.cell,
    )


def lattice_fits(flat: ase.Atoms, tolerance: float = 0.05) -> tuple[BravaisFit, BravaisFit]:
    """Return the classes of a flat layer's translations and of its projection along z."""
    cell, positions = flat.cell.array[:2, :2], flat.positions
    numbers: list[int] = flat.numbers.tolist()
    if math.gcd(*Counter(numbers).values()) == 1:
        # Neither the crystal nor its columns can repeat within the cell.
        crystal = bravais_class(cell, tolerance)
        return crystal, crystal
    vectors = primitive_vectors(cell, positions, numbers, tolerance)
    crystal = bravais_class(vectors, tolerance)
    columns, kinds = atom_columns(cell, positions[:, :2], flat.numbers, tolerance)
    seen = primitive_vectors(cell, columns, kinds, tolerance, start=vectors)
    return crystal, crystal if seen is vectors else bravais_class(seen, tolerance)


def atom_columns(
    cell: Floats, positions: Floats, numbers: npt.NDArray[np.int64], tolerance: float
) -> tuple[Floats, list[int]]:
    """Return the atom columns of one cell, each element by itself.

    Parameters
    ----------
    cell
        In-plane vectors as rows in Å, shape (2, 2).
    positions
        In-plane positions in Å, shape (n, 2).
    numbers
        Atomic numbers, shape (n,).
    tolerance
        Atoms of one element closer than this (Å) in projection are one column.

    Returns
    -------
    positions, kinds
        Mean position of each column, shape (m, 2), and an integer for each that is equal for columns of
        equally many atoms of the same element.
    """
    heads = _heads(cell, positions, numbers, tolerance)
    if (heads == np.arange(len(heads))).all():
        return positions, (numbers * _MANY + 1).tolist()
    while (heads[heads] != heads).any():
        heads = heads[heads]
    first, inverse, counts = np.unique(heads, return_inverse=True, return_counts=True)
    separation = positions - positions[heads]
    separation -= np.rint(separation @ np.linalg.inv(cell)) @ cell
    offsets = np.zeros((len(first), 2))
    np.add.at(offsets, inverse, separation)
    return positions[first] + offsets / counts[:, None], (numbers[first] * _MANY + counts).tolist()


def _heads(
    cell: Floats, positions: Floats, numbers: npt.NDArray[np.int64], tolerance: float
) -> npt.NDArray[np.int64]:
    """Return for each atom the first one of its element that is within `tolerance` in projection."""
    if len(numbers) > MANY:
        near = PeriodicTree(cell, positions, tolerance).within(positions)
        return np.array([next(j for j in found if numbers[j] == numbers[i]) for i, found in enumerate(near)])
    separation = positions[:, None, :] - positions[None, :, :]
    separation -= np.rint(separation @ np.linalg.inv(cell)) @ cell
    together = separation[..., 0] ** 2 + separation[..., 1] ** 2 <= tolerance**2
    heads: npt.NDArray[np.int64] = (together & (numbers[:, None] == numbers)).argmax(axis=1)
    return heads
