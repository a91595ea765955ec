"""A density without a calculation: an s orbital on every atom.

For pictures that need a shape and no electronic structure. It knows neither element nor bias, and is marked
as ``engine="surrogate"`` wherever it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atomvision_hub.simulation.stm.density import LocalDensity
from atomvision_hub.structures import check_crystal, flat_layer
from atomvision_hub.structures.layer import is_flat

if TYPE_CHECKING:
    from ase import Atoms

ENGINE = "surrogate"
#: Decay of a state's amplitude into vacuum (1/Å): sqrt(2 m phi) / hbar for a work function of 4.5 eV.
KAPPA = 1.0868


def surrogate_density(atoms: Atoms, *, kappa: float = KAPPA, spacing: float = 0.12) -> LocalDensity:
    """Return a sum of decaying s orbitals as a local density.

    ::

        rho(r) = sum over atoms of  kappa^3 / pi * exp(-2 kappa |r - r_atom|)

    One electron an atom, whatever the element; the exponential is how any state decays into the vacuum, the
    s wave is that of Tersoff and Hamann's tip.

    Parameters
    ----------
    atoms
        Two-dimensional crystal; turned and centred by `flat_layer` unless that has been done.
    kappa
        Decay in 1/Å.
    spacing
        Largest distance of grid points in the plane, in Å.

    Raises
    ------
    CrystalError
        When the crystal is damaged or has no vacuum along just one direction.

    References
    ----------
    J. Tersoff and D. R. Hamann, Phys. Rev. B 31, 805 (1985), doi 10.1103/PhysRevB.31.805.
    """
    check_crystal(atoms)
    layer = atoms if is_flat(atoms) else flat_layer(atoms)
    cell = np.asarray(layer.cell.array[:2, :2])
    shape = tuple(int(np.ceil(length / spacing)) for length in np.linalg.norm(cell, axis=1))
    inverse = np.linalg.inv(cell)
    heights = np.linspace(-1.0, 6.0, 71)
    positions = layer.positions - [0, 0, layer.positions[:, 2].max()]
    fractions = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    points = fractions.reshape(-1, 2) @ cell
    # Farther atoms add less than a thousandth of what stands above one.
    reach, deepest = 9.0, 5.0
    spans = np.ceil(reach * np.linalg.norm(inverse, axis=0)).astype(int) + 1
    values = np.zeros((len(points), len(heights)))
    for *plane, z in positions[positions[:, 2] > -deepest].tolist():
        first = plane - np.floor(plane @ inverse) @ cell
        for i in range(-spans[0], spans[0] + 1):
            for j in range(-spans[1], spans[1] + 1):
                flat = points - (first + i * cell[0] + j * cell[1])
                squares = (flat**2).sum(axis=1)
                near = squares < reach**2
                if near.any():
                    distance = np.sqrt(squares[near, None] + (heights - z) ** 2)
                    values[near] += np.exp(-2 * kappa * distance)
    return LocalDensity(
        values=values.reshape(*shape, -1) * (kappa**3 / np.pi),
        heights=heights,
        atoms=layer,
        bias=None,
        bias_reference=None,
        window=None,
        broadening=None,
        engine=ENGINE,
        parameters={"kappa": kappa, "spacing": spacing},
    )
