"""Crystals and the slow, obviously right image that the fast ones are measured against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms

Direct = Callable[..., npt.NDArray[np.float64]]


@pytest.fixture
def mos2() -> Atoms:
    """Monolayer 2H-MoS2, the two S of a column exactly on top of each other."""
    a = 3.19
    third = a / np.sqrt(3)
    return Atoms(
        "MoS2",
        positions=[(0, 0, 10), (0, third, 11.56), (0, third, 8.44)],
        cell=[(a, 0, 0), (-a / 2, a * np.sqrt(3) / 2, 0), (0, 0, 20)],
        pbc=(True, True, False),
    )


@pytest.fixture
def graphene() -> Atoms:
    """Graphene in its primitive cell: no two atoms overlap."""
    a = 2.46
    return Atoms(
        "C2",
        positions=[(0, 0, 0), (0, a / np.sqrt(3), 0)],
        cell=[(a, 0, 0), (a / 2, a * np.sqrt(3) / 2, 0), (0, 0, 15)],
        pbc=(True, True, False),
    )


@pytest.fixture
def direct() -> Direct:
    """Sum over atoms in float64, term by term from the documented formula; no code of the package."""

    def image(
        atoms: Atoms,
        profile: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
        *,
        shape: tuple[int, int] = (256, 256),
        pixel_size: tuple[float, float] = (0.1, 0.1),
        rotation: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
        z_exponent: float = 1.7,
        repeats: int = 20,
    ) -> npt.NDArray[np.float64]:
        angle = np.radians(rotation)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        y = (np.arange(shape[0]) - (shape[0] - 1) / 2)[:, None] * pixel_size[0]
        x = (np.arange(shape[1]) - (shape[1] - 1) / 2)[None, :] * pixel_size[1]
        total = np.zeros(shape)
        far = np.hypot(shape[0] * pixel_size[0], shape[1] * pixel_size[1]) / 2 + 6
        multiples = range(-repeats, repeats + 1)
        for i in multiples if atoms.pbc[0] else [0]:
            for j in multiples if atoms.pbc[1] else [0]:
                for number, position in zip(atoms.numbers, atoms.positions, strict=True):
                    crystal = position[:2] + i * atoms.cell[0, :2] + j * atoms.cell[1, :2]
                    px, py = turn @ crystal + shift
                    if np.hypot(px, py) < far:
                        total += number**z_exponent * profile(np.hypot(x - px, y - py))
        return total

    return image
