"""Finite pieces of a layer, and supercells that do not repeat in view."""

from __future__ import annotations

import math

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError
from atomvision_hub.structures.lattice import reduce_basis
from atomvision_hub.structures.layer import flat_layer, is_flat

Floats = npt.NDArray[np.float64]

#: A piece with more atoms than this would take minutes; the user meant something else.
MOST_ATOMS = 2_000_000


def flat(atoms: ase.Atoms) -> ase.Atoms:
    """Return a layer as `flat_layer` makes it, unless it is one already."""
    return atoms if is_flat(atoms) else flat_layer(atoms)


def disk(
    atoms: ase.Atoms, diameter: float, *, rotation: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
) -> ase.Atoms:
    """Return the part of an infinite layer that lies within a disk around the origin.

    A finite piece has no periodic directions, and `simulate_stem` shows vacuum around it: a disk of the
    diagonal of the view and twice the reach of the probe fills the view under every rotation.

    Parameters
    ----------
    atoms
        Two-dimensional crystal; made flat by `flat_layer` unless it is.
    diameter
        Of the disk, in Å.
    rotation
        Turn of the layer about its origin in degrees, from +x towards +y.
    shift
        Shift (x, y) of the layer after the turn, in Å.

    Returns
    -------
    ase.Atoms
        Without cell. The array ``site`` holds for each atom its index in the cell of the layer.
    """
    check_length("diameter", diameter)
    layer = flat(atoms)
    angle = math.radians(rotation)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    cell = layer.cell.array[:2, :2] @ turn
    points = layer.positions[:, :2] @ turn + np.asarray(shift, dtype=np.float64)
    if len(layer) * math.pi / 4 * diameter**2 / abs(np.linalg.det(cell)) > MOST_ATOMS:
        raise UsageError(f"a piece of {diameter:g} Å holds more than {MOST_ATOMS:,} atoms; make it smaller")
    ux, uy, vx, vy = reduce_basis(cell)
    basis = np.array([[ux, uy], [vx, vy]])
    inverse = np.linalg.inv(basis)
    points -= np.floor(points @ inverse) @ basis
    # Cells whose corner is within the radius of the origin, measured along both vectors.
    reach = np.ceil(diameter / 2 * np.sqrt((inverse**2).sum(axis=0))).astype(int) + 1
    first, second = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    corners = np.column_stack((first.ravel(), second.ravel())) @ basis
    places = (corners[:, None, :] + points).reshape(-1, 2)
    sites = np.tile(np.arange(len(layer)), len(corners))
    inside = np.flatnonzero((places**2).sum(axis=1) <= (diameter / 2) ** 2)
    sites = sites[inside]
    piece = ase.Atoms(
        numbers=layer.numbers[sites],
        positions=np.column_stack((places[inside], layer.positions[sites, 2])),
        pbc=False,
    )
    piece.set_array("site", sites.astype(np.int32))
    return piece


def repeats_beyond(atoms: ase.Atoms, size: float) -> tuple[int, int]:
    """Return how often to repeat a layer along its first two vectors so that no two copies are near.

    Parameters
    ----------
    atoms
        Flat layer.
    size
        Every translation of the supercell is at least this long, in Å: a view of that diagonal, with its
        margins, never shows an atom of the supercell twice.
    """
    check_length("size", size)
    inverse = np.linalg.inv(atoms.cell.array[:2, :2])
    heights = 1.0 / np.sqrt((inverse**2).sum(axis=0))
    first, second = (max(1, math.ceil(size / height - 1e-9)) for height in heights.tolist())
    return first, second


def check_length(name: str, value: float) -> None:
    """Raise `UsageError` unless `value` is a positive length."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} must be a positive length in Å, not {value!r}")
