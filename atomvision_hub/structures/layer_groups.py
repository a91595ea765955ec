"""The 80 layer groups: where atoms may sit and which cells are allowed, from PyXtal's tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import MissingExtraError

Floats = npt.NDArray[np.float64]
System = Literal["oblique", "rectangular", "square", "hexagonal"]

#: Number of layer groups.
COUNT = 80
# Last layer group of each system of cells: International Tables E (2010), table 1.2.6.1.
_LAST: tuple[tuple[int, System], ...] = (
    (7, "oblique"),
    (48, "rectangular"),
    (64, "square"),
    (80, "hexagonal"),
)


@dataclass(frozen=True)
class Orbit:
    """One Wyckoff position: the atoms that a layer group makes of one.

    Attributes
    ----------
    matrices, offsets
        Atom k lies at ``matrices[k] @ point + offsets[k]``, shapes (m, 3, 3) and (m, 3). The first two
        coordinates are fractions of the conventional cell; the third is a height, in any unit, that no
        layer group shifts.
    fixed
        Whether the place has no freedom, so that it holds one atom only.
    """

    matrices: Floats
    offsets: Floats
    fixed: bool

    @property
    def multiplicity(self) -> int:
        """Number of atoms in the conventional cell."""
        return len(self.offsets)

    def place(self, points: Floats) -> Floats:
        """Return the atoms of points: shape (..., 3) becomes (..., m, 3)."""
        return np.asarray(np.einsum("mij,...j->...mi", self.matrices, points) + self.offsets)


@dataclass(frozen=True)
class LayerGroup:
    """A layer group in its conventional setting.

    Attributes
    ----------
    number, symbol
        Number and Hermann-Mauguin symbol of the International Tables, volume E.
    system
        What the group asks of the cell.
    orbits
        Wyckoff positions, the most special first.
    """

    number: int
    symbol: str
    system: System
    orbits: tuple[Orbit, ...]

    @cached_property
    def projected_basis(self) -> Floats:
        """Shortest translations of the crystal seen along z, as fractions of the conventional cell, (2, 2).

        Finer than the lattice where a glide plane lies in the layer: the layer group p11a, seen from above,
        repeats after half a cell vector.
        """
        general = self.orbits[-1]
        still = np.abs(general.matrices[:, :2, :2] - np.eye(2)).max(axis=(1, 2)) < 1e-6
        shifts = {(round(float(x) % 1, 6), round(float(y) % 1, 6)) for x, y in general.offsets[still, :2]}
        half = {(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)} & shifts
        if len(shifts) != len(half) + 1:
            raise ValueError(f"layer group {self.number}: translations {sorted(shifts)} are not halves")
        if len(half) == 3:
            return np.array([[0.5, 0.0], [0.0, 0.5]])
        if (0.5, 0.5) in half:
            return np.array([[0.5, 0.5], [0.5, -0.5]])
        return np.diag([0.5 if (0.5, 0.0) in half else 1.0, 0.5 if (0.0, 0.5) in half else 1.0])

    @property
    def primitive(self) -> bool:
        """Whether neither the crystal nor its projection repeats within the conventional cell."""
        return bool((self.projected_basis == np.eye(2)).all())


@cache
def layer_group(number: int) -> LayerGroup:
    """Return a layer group by its number, 1 to 80.

    Raises
    ------
    MissingExtraError
        When PyXtal is not installed.
    """
    group = _table(number)
    system = next(system for last, system in _LAST if number <= last)
    orbits = []
    for position in reversed(list(group)):
        affine = np.array([operation.affine_matrix for operation in position.ops], dtype=np.float64)
        matrices, offsets = affine[:, :3, :3].copy(), affine[:, :3, 3].copy()
        orbits.append(Orbit(matrices, offsets, fixed=not matrices.any()))
    return LayerGroup(number, str(group.symbol), system, tuple(orbits))


def tables_version() -> str:
    """Return what the tables come from, with its version."""
    return f"PyXtal {_pyxtal().__version__}"


def _table(number: int) -> Any:
    _pyxtal()
    from pyxtal.symmetry import Group

    return Group(number, dim=2)


def _pyxtal() -> Any:
    try:
        import pyxtal
    except ImportError:
        raise MissingExtraError(
            "synthetic crystals need the layer groups of PyXtal; install it: "
            "pip install 'atomvision-hub[synthetic]'"
        ) from None
    return pyxtal
