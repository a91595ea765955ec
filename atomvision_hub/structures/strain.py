"""Homogeneous strain of a layer in its plane."""

from __future__ import annotations

import math

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError

Floats = npt.NDArray[np.float64]


def biaxial(amount: float) -> Floats:
    """Return the tensor of equal strain along all directions; 0.01 is 1 % longer."""
    return np.eye(2) * amount


def uniaxial(amount: float, direction: float = 0.0, poisson_ratio: float = 0.0) -> Floats:
    """Return the tensor of strain along one direction.

    Parameters
    ----------
    amount
        Strain along the direction; 0.01 is 1 % longer.
    direction
        Degrees from +x towards +y.
    poisson_ratio
        The layer shrinks across the direction by this times `amount`.
    """
    angle = math.radians(direction)
    along, across = (
        np.array([math.cos(angle), math.sin(angle)]),
        np.array([-math.sin(angle), math.cos(angle)]),
    )
    return np.asarray(amount * (np.outer(along, along) - poisson_ratio * np.outer(across, across)))


def shear(amount: float, direction: float = 0.0) -> Floats:
    """Return the tensor of pure shear: a right angle, one side along `direction`, closes by `amount`.

    Parameters
    ----------
    amount
        Engineering shear strain: the change of the right angle in radians, for small ones.
    direction
        Degrees from +x towards +y.
    """
    angle = math.radians(direction)
    along, across = (
        np.array([math.cos(angle), math.sin(angle)]),
        np.array([-math.sin(angle), math.cos(angle)]),
    )
    return np.asarray(amount / 2 * (np.outer(along, across) + np.outer(across, along)))


def strained(atoms: ase.Atoms, tensor: npt.ArrayLike) -> ase.Atoms:
    """Return a crystal after a homogeneous deformation of the xy plane.

    Every point r, atoms and cell vectors alike, goes to (1 + tensor) r: atoms keep their fractional
    coordinates, heights stay. The lattice may lose symmetry: seen by `classify_lattice`, a hexagonal layer
    is centred rectangular after a uniaxial strain along or across a mirror line and oblique along any other
    direction, as soon as its vectors change by more than the tolerance; biaxial strain keeps every class.

    Parameters
    ----------
    atoms
        Any crystal or cluster; not changed.
    tensor
        Displacement gradient, shape (2, 2): symmetric for a strain, of any kind for one with a turn.

    Raises
    ------
    UsageError
        When the tensor is not finite or turns the layer inside out.
    """
    array = np.asarray(tensor, dtype=np.float64)
    if array.shape != (2, 2) or not np.isfinite(array).all():
        raise UsageError(f"a strain is a finite (2, 2) tensor, not {array.tolist()}")
    gradient = np.eye(2) + array
    if np.linalg.det(gradient) <= 0:
        raise UsageError(f"the strain {array.tolist()} leaves no area; strains are small against one")
    other = atoms.copy()
    cell = other.cell.array.copy()
    cell[:, :2] = cell[:, :2] @ gradient.T
    positions = other.positions.copy()
    positions[:, :2] = positions[:, :2] @ gradient.T
    other.set_cell(cell, scale_atoms=False)
    other.set_positions(positions)
    return other
