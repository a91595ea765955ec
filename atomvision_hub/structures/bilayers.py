"""Two layers on top of each other, turned against each other by any angle."""

from __future__ import annotations

import math

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures.lattice import HEXAGONAL, bravais_class, reduce_basis
from atomvision_hub.structures.patches import check_length, disk, flat

Floats = npt.NDArray[np.float64]

#: Distance (Å) between the facing planes of atoms: that of graphite, and about that of most van der Waals
#: crystals. An image along z does not depend on it.
GAP = 3.35
_VACUUM = 20.0


def commensurate_angle(m: int, n: int) -> float:
    """Return the twist in degrees at which two equal hexagonal layers have a common cell.

    cos(angle) = (n² + 4nm + m²) / (2 (n² + nm + m²)); the common cell holds n² + nm + m² cells of each layer:
    G. Trambly de Laissardière, D. Mayou and L. Magaud, Nano Lett. 10, 804 (2010), doi:10.1021/nl902948m.
    The pairs (1, 2), (2, 3) and (31, 32) give 21.8°, 13.2° and, near the first magic angle, 1.05°.
    """
    _check_pair(m, n)
    cosine = (n * n + 4 * n * m + m * m) / (2 * (n * n + n * m + m * m))
    return math.degrees(math.acos(min(1.0, cosine)))


def twisted_bilayer(
    layer: ase.Atoms, m: int, n: int, *, gap: float = GAP, shift: tuple[float, float] = (0.0, 0.0)
) -> ase.Atoms:
    """Return a bilayer of a hexagonal crystal in the common cell of both its layers.

    Parameters
    ----------
    layer
        Crystal in a primitive cell of a hexagonal lattice. Both layers turn about the origin of the cell.
    m, n
        The upper layer is turned by `commensurate_angle` from +x towards +y.
    gap
        Distance between the facing planes of atoms, in Å.
    shift
        Of the upper layer after its turn, (x, y) in Å.

    Returns
    -------
    ase.Atoms
        Periodic along its first two vectors; the array ``layer`` is 0 for the lower layer and 1 for the
        upper.

    Raises
    ------
    CrystalError
        When the cell of `layer` is not hexagonal.
    """
    _check_pair(m, n)
    base = flat(layer)
    if bravais_class(base.cell.array[:2, :2], 1e-3).label != HEXAGONAL:
        raise CrystalError(
            "the cell is not that of a hexagonal lattice, so its twisted layers have no common cell; "
            "use twisted_patch, which needs none"
        )
    # The formula is for vectors at 60 degrees, the second turned from the first towards +y.
    ux, uy, vx, vy = reduce_basis(base.cell.array[:2, :2])
    basis = np.array([[ux, uy], [ux + vx, uy + vy]])
    if np.linalg.det(basis) < 0:
        basis = basis[::-1]
    m, n = sorted((m, n))
    common = np.array([[m, n], [-n, m + n]]) @ basis
    turned = np.array([[n, m], [-m, n + m]]) @ basis
    # The turn that lays the cell of the upper layer on that of the lower one.
    turn = np.linalg.inv(turned) @ common
    lower, upper = _repeated(base, common), _repeated(base, turned)
    upper.positions[:, :2] = upper.positions[:, :2] @ turn
    pair = _stacked(lower, upper, gap, shift)
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = common, np.ptp(pair.positions[:, 2]) + _VACUUM
    pair.positions[:, 2] += cell[2, 2] / 2 - (pair.positions[:, 2].min() + pair.positions[:, 2].max()) / 2
    pair.set_cell(cell)
    pair.pbc = (True, True, False)
    return pair


def twisted_patch(
    lower: ase.Atoms,
    upper: ase.Atoms,
    angle: float,
    diameter: float,
    *,
    gap: float = GAP,
    shift: tuple[float, float] = (0.0, 0.0),
) -> ase.Atoms:
    """Return a disk of a bilayer of any two layers at any angle; it repeats nowhere.

    Parameters
    ----------
    lower, upper
        Two-dimensional crystals, the same or different ones.
    angle
        Turn of the upper layer about the origin in degrees, from +x towards +y.
    diameter
        Of the disk in Å, see `patches.disk`.
    gap
        Distance between the facing planes of atoms, in Å.
    shift
        Of the upper layer after its turn, (x, y) in Å.

    Returns
    -------
    ase.Atoms
        Without cell; the array ``layer`` is 0 for the lower layer and 1 for the upper.
    """
    return _stacked(
        disk(lower, diameter), disk(upper, diameter, rotation=angle, shift=shift), gap, (0.0, 0.0)
    )


def _repeated(layer: ase.Atoms, vectors: Floats) -> ase.Atoms:
    """Return a layer in the larger cell of given in-plane vectors."""
    from ase.build import make_supercell

    matrix = np.eye(3)
    matrix[:2, :2] = np.rint(vectors @ np.linalg.inv(layer.cell.array[:2, :2]))
    return make_supercell(layer, matrix, wrap=False)


def _stacked(lower: ase.Atoms, upper: ase.Atoms, gap: float, shift: tuple[float, float]) -> ase.Atoms:
    """Return both layers as one, without a cell."""
    check_length("gap", gap)
    above = upper.positions.copy()
    above[:, 2] += lower.positions[:, 2].max() + gap - above[:, 2].min()
    above[:, :2] += shift
    pair = ase.Atoms(
        numbers=np.concatenate((lower.numbers, upper.numbers)),
        positions=np.concatenate((lower.positions, above)),
        pbc=False,
    )
    pair.set_array("layer", np.repeat(np.array([0, 1], np.int8), (len(lower), len(upper))))
    return pair


def _check_pair(m: int, n: int) -> None:
    if m < 0 or n < 0 or m + n < 1:
        raise UsageError(f"m and n are whole numbers from 0, not both 0; not ({m}, {n})")
