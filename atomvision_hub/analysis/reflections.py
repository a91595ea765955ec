"""Lattice planes of a crystal: spacing, strength, extinctions, equivalent planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import spglib
from ase import Atoms

from atomvision_hub.analysis.errors import AnalysisError

Indices = tuple[int, int, int]

#: Structure factors below this part of the sum of all atomic numbers count as extinct.
_EXTINCT = 5e-3
_MOST_VECTORS = 200_000


@dataclass(frozen=True)
class Reflection:
    """A family of equivalent lattice planes.

    Parameters
    ----------
    hkl
        The member with the most positive and largest leading indices; conventional cell.
    d
        Spacing, Å.
    strength
        Structure factor over the sum of the atomic numbers, point atoms weighted by Z: 1 where all scatter in
        phase, kinematic.
    members
        All equivalent planes, both signs.
    """

    hkl: Indices
    d: float
    strength: float
    members: tuple[Indices, ...]


@dataclass(frozen=True)
class Lattice:
    """Conventional cell of a crystal with its symmetry.

    Parameters
    ----------
    reciprocal
        Reciprocal vectors as rows, 1/Å (without 2 pi).
    rotations
        Of the point group, acting on directions [uvw] as columns.
    fractional, numbers
        Atoms.
    flat
        Whether the third direction is no lattice direction (a layer): then l = 0.
    """

    reciprocal: npt.NDArray[np.float64]
    rotations: npt.NDArray[np.int64]
    fractional: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    flat: bool

    def family(self, hkl: Indices) -> tuple[Indices, ...]:
        """Return all planes equivalent to one, both signs, the representative first."""
        images = np.einsum("i,rij->rj", np.array(hkl), self.rotations)
        return _ranked(np.concatenate([images, -images]))

    def direction(self, uvw: Indices) -> Indices:
        """Return the representative of all directions equivalent to one."""
        images = np.einsum("rij,j->ri", self.rotations, np.array(uvw))
        return _ranked(np.concatenate([images, -images]))[0]


def _ranked(vectors: npt.NDArray[np.int64]) -> tuple[Indices, ...]:
    unique = {tuple(int(index) for index in vector) for vector in vectors}
    ordered = sorted(unique, key=lambda v: (-sum(index < 0 for index in v), v), reverse=True)
    return tuple((v[0], v[1], v[2]) for v in ordered)


def conventional(atoms: Atoms, *, tolerance: float = 0.02) -> Lattice:
    """Return the conventional cell of a crystal; of a layer (not periodic along z) its own cell.

    Parameters
    ----------
    tolerance
        Å by which atoms may stray from their symmetry.

    Raises
    ------
    AnalysisError
        Where the atoms are no crystal.
    """
    flat = bool(atoms.pbc[0] and atoms.pbc[1] and not atoms.pbc[2])
    if not (flat or atoms.pbc.all()) or len(atoms) == 0 or abs(atoms.cell.volume) < 1e-6:
        raise AnalysisError(
            "the structure is no crystal: it needs atoms and a cell that repeats in all directions"
        )
    cell = (np.asarray(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    if not flat:
        standard = spglib.standardize_cell(cell, to_primitive=False, no_idealize=True, symprec=tolerance)
        cell = cell if standard is None else standard
    symmetry = spglib.get_symmetry(cell, symprec=tolerance)
    rotations = np.eye(3, dtype=int)[None] if symmetry is None else np.unique(symmetry["rotations"], axis=0)
    reciprocal = np.linalg.inv(np.asarray(cell[0], dtype=float)).T
    return Lattice(reciprocal, rotations.astype(np.int64), np.asarray(cell[1]), np.asarray(cell[2]), flat)


def reflections(atoms: Atoms, min_spacing: float, max_spacing: float = np.inf) -> list[Reflection]:
    """Return the families of planes with spacings in a range, largest first, without extinct ones.

    Parameters
    ----------
    atoms
        A crystal; a layer (not periodic along z) has planes hk0 only.
    min_spacing, max_spacing
        Å.

    Raises
    ------
    AnalysisError
        Where the atoms are no crystal, or have too many planes in the range.
    """
    return families(conventional(atoms), min_spacing, max_spacing)


def families(lattice: Lattice, min_spacing: float, max_spacing: float = np.inf) -> list[Reflection]:
    """Return what `reflections` returns, for a lattice."""
    lengths = 1 / np.linalg.norm(np.linalg.inv(lattice.reciprocal), axis=0)
    limits = np.floor(1 / min_spacing / lengths).astype(int)
    if lattice.flat:
        limits[2] = 0
    if np.prod(2 * limits + 1.0) > _MOST_VECTORS:
        raise AnalysisError(f"the crystal has too many planes down to {min_spacing:.2f} Å; raise min_spacing")
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limits), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    q = np.linalg.norm(grid @ lattice.reciprocal, axis=1)
    grid = grid[(q > 1e-9) & (q <= 1 / min_spacing) & (q >= 1 / max_spacing)]
    factors = (
        np.abs(np.exp(2j * np.pi * grid @ lattice.fractional.T) @ lattice.numbers) / lattice.numbers.sum()
    )
    strengths = {(int(h), int(k), int(j)): float(f) for (h, k, j), f in zip(grid, factors, strict=True)}
    found: list[Reflection] = []
    seen: set[Indices] = set()
    for hkl, strength in strengths.items():
        if hkl in seen:
            continue
        members = lattice.family(hkl)
        seen.update(members)
        if strength > _EXTINCT:
            d = float(1 / np.linalg.norm(np.array(hkl) @ lattice.reciprocal))
            found.append(Reflection(members[0], d, strength, members))
    return sorted(found, key=lambda reflection: (-reflection.d, reflection.hkl))
