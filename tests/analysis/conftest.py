"""Images of known lattices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms

from atomvision_hub.analysis.reflections import conventional, families

Waves = list[tuple[tuple[float, float], float]]


def _waves_image(
    waves: Waves,
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    *,
    seed: int = 0,
    noise: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Return a sum of waves with vectors in 1/Å (row, column), random phases, and white noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] * np.array(pixel_size)[:, None, None]
    image = np.zeros(shape)
    for (row, column), amplitude in waves:
        image += amplitude * np.cos(2 * np.pi * (row * y + column * x + generator.uniform()))
    return image + noise * generator.normal(size=shape)


@pytest.fixture(scope="session")
def waves_image() -> Callable[..., npt.NDArray[np.float64]]:
    """Return a function (waves, shape, pixel size, ...) -> image."""
    return _waves_image


@pytest.fixture(scope="session")
def zone_image() -> Callable[..., npt.NDArray[np.float64]]:
    """Return a function (crystal, [uvw], ...) -> image of the crystal seen along a direction."""

    def make(
        atoms: Atoms, axis: Any, *, rotation: float = 20.0, scale: float = 1.0, finest: float = 1.2
    ) -> npt.NDArray[np.float64]:
        lattice = conventional(atoms)
        beam = np.array(axis) @ np.linalg.inv(lattice.reciprocal).T
        beam /= np.linalg.norm(beam)
        x = np.cross(beam, [0.3, 0.5, 0.8])
        x /= np.linalg.norm(x)
        frame = np.stack([np.cross(beam, x), x])
        turn = np.radians(rotation)
        frame = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ frame
        waves: Waves = []
        for plane in families(lattice, finest):
            for hkl in plane.members:
                if np.dot(hkl, axis) == 0:
                    row, column = frame @ (np.array(hkl) @ lattice.reciprocal) / scale
                    waves.append(((float(row), float(column)), plane.strength * np.exp(-1.5 / plane.d**2)))
        return _waves_image(waves, (256, 256), (0.15, 0.15), noise=0.5)

    return make
