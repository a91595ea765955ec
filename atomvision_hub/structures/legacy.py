"""The lattice label of the AtomVision paper, to compare with: a rule about the cell as it was written."""

from __future__ import annotations

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.structures.lattice import CENTERED, HEXAGONAL, OBLIQUE, RECTANGULAR, SQUARE

_KEY = "source_cell"


def legacy_class(a: float, b: float, gamma: float) -> int:
    """Return the label of a cell: the rule of jarvis-tools' ``get_2d_lattice``, right or wrong.

    Parameters
    ----------
    a, b
        Lengths of the first two lattice vectors in Å.
    gamma
        Angle between them in degrees.
    """
    a, b, gamma = round(a, 2), round(b, 2), round(gamma, 2)
    if a == b:
        return HEXAGONAL if gamma in (120, 60) else SQUARE if gamma == 90 else CENTERED
    return RECTANGULAR if gamma == 90 else OBLIQUE


def cell_parameters(cell: npt.ArrayLike) -> tuple[float, float, float]:
    """Return (a, b, gamma) of a cell in Å and degrees, rounded as ``jarvis.core.lattice.Lattice`` does.

    It rounds vectors to 5, lengths to 6 and angles to 4 decimals; labels of cells on the edge depend on it.
    """
    lattice = np.around(np.asarray(cell, dtype="float64").reshape(3, 3), decimals=5)
    a, b, _ = (round(length, 6) for length in np.sqrt(np.sum(lattice**2, axis=1)).tolist())
    if b * a <= 1e-2:
        return a, b, 90.0
    with np.errstate(invalid="ignore"):
        gamma = 180.0 * np.arccos(np.dot(lattice[1], lattice[0]) / (b * a)) / np.pi
    # Left a NumPy float, which rounds ties in another way than a Python float does: 60.005 becomes 60.0, not
    # 60.01.
    return a, b, round(gamma, 4)


def remember_source_cell(atoms: ase.Atoms, parameters: tuple[float, float, float]) -> None:
    """Keep what the source says of the cell of `atoms`, (a, b, gamma), for `source_parameters`."""
    atoms.info[_KEY] = {"parameters": parameters, "cell": atoms.cell.array.tolist()}


def source_parameters(atoms: ase.Atoms) -> tuple[float, float, float]:
    """Return (a, b, gamma) as the source gave them, or of the cell itself when that was changed since."""
    known = atoms.info.get(_KEY)
    if known is not None and known["cell"] == atoms.cell.array.tolist():
        a, b, gamma = known["parameters"]
        return a, b, gamma
    return cell_parameters(atoms.cell.array)
