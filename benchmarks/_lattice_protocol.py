"""What lattice classifiers are judged on: crystals, poses, images with and without a lattice.

Crystals of the configuration ``structures`` of a stem2d dataset, by its split of compositions; the truth is
the lattice of the projected columns. Each is seen in poses that depend on nothing but seed, material and
number: 256 x 256 pixels, any rotation and shift, the pixel size drawn log-uniformly from the part of 0.05 to
0.25 Å/px that shows three periods of the longer reduced vector; materials with no such part are listed.
Figures of the answers: `_lattice_figures`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from ase import Atoms
from scipy import ndimage

from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.simulation.acquisition import Acquisition, record_stem
from atomvision_hub.structures.classify import lattice_fits
from atomvision_hub.structures.lattice import BravaisFit

Array = npt.NDArray[np.float64]

SIDE, PERIODS, SIZES, POSES = 256, 3.0, (0.05, 0.25), 5


@dataclass(frozen=True)
class Material:
    """A crystal and the lattice of its projected columns; `label` is an index of `LATTICES`."""

    id: str
    formula: str
    atoms: Atoms
    truth: BravaisFit

    @property
    def label(self) -> int:
        """Index of the class in `LATTICES`."""
        return self.truth.label

    @property
    def longer(self) -> float:
        """Length of the longer reduced vector, Å."""
        return float(np.hypot(*self.truth.cell.reduced.T).max())

    @property
    def coarsest_part(self) -> tuple[float, float] | None:
        """Pixel sizes (Å/px) that show three periods of the longer vector; None where there are none."""
        lowest = max(SIZES[0], PERIODS * self.longer / SIDE)
        return (lowest, SIZES[1]) if lowest <= SIZES[1] else None


@dataclass(frozen=True)
class Pose:
    """How a material is seen.

    Parameters
    ----------
    pixel_size
        Å/px.
    rotation
        Degrees.
    shift
        Å (x, y).
    seed
        Of the acquisition, and of vacancies.
    """

    pixel_size: float
    rotation: float
    shift: tuple[float, float]
    seed: int

    def turned(self, vectors: Array) -> Array:
        """Return vectors of the crystal, rows (x, y), as an image in this pose shows them."""
        c, s = np.cos(np.radians(self.rotation)), np.sin(np.radians(self.rotation))
        return np.asarray(vectors @ np.array([[c, s], [-s, c]]))


def materials(
    data: Path, split: str, limit: int | None = None, seed: int = 0
) -> tuple[list[Material], list[str]]:
    """Return the materials of a split that fit into a view, and the ids of those that do not.

    Parameters
    ----------
    data
        stem2d dataset with the configuration ``structures``.
    split
        train, validation or test.
    limit, seed
        So many, drawn at random; by default all, in the order of the dataset.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted((data / "data" / "structures").glob(f"{split}-*.parquet")):
        columns = ["id", "formula", "cell", "numbers", "positions"]
        rows += pq.read_table(file, columns=columns).to_pylist()
    if limit is not None:
        rows = [rows[number] for number in np.random.default_rng(seed).permutation(len(rows))[:limit]]
    seen, outside = [], []
    for row in rows:
        atoms = Atoms(
            numbers=row["numbers"], positions=row["positions"], cell=row["cell"], pbc=(True, True, False)
        )
        material = Material(row["id"], row["formula"], atoms, lattice_fits(atoms)[1])
        if material.coarsest_part is None:
            outside.append(material.id)
        else:
            seen.append(material)
    return seen, outside


def pose(material: Material, number: int, seed: int = 0) -> Pose:
    """Return a material's pose of a number: the same whatever else is drawn."""
    part = material.coarsest_part
    if part is None:
        raise ValueError(f"{material.id} shows three periods at no pixel size; leave it out")
    generator = np.random.default_rng([seed, zlib.crc32(material.id.encode()), number])
    return Pose(
        pixel_size=float(np.exp(generator.uniform(*np.log(part)))),
        rotation=float(generator.uniform(0, 360)),
        shift=(float(generator.uniform(0, 10)), float(generator.uniform(0, 10))),
        seed=int(generator.integers(2**31)),
    )


def render(
    material: Material, view: Pose, acquisition: Acquisition | str = "ideal", vacancies: float = 0.0
) -> npt.NDArray[Any]:
    """Return the image of a material in a pose, [row, column]: 8-bit grey levels, else electrons a pixel.

    Parameters
    ----------
    acquisition
        A preset's name or an acquisition; ``ideal`` is noise-free.
    vacancies
        Share of the atoms that are missing, at random.
    """
    atoms = material.atoms if not vacancies else _with_vacancies(material, view, vacancies)
    seen: dict[str, Any] = {
        "shape": (SIDE, SIDE),
        "pixel_size": view.pixel_size,
        "rotation": view.rotation,
        "shift": np.array(view.shift),
    }
    chosen = Acquisition.of(acquisition)
    if not chosen.steps:
        grey: npt.NDArray[Any] = to_grey(simulate_stem(atoms, **seen).image)[0]
        return grey
    image = record_stem(atoms, chosen, seed=view.seed, **seen).image
    digitise = chosen.step("digitise")
    return image.astype(np.uint8) if digitise is not None and image.max() <= 255 else image


def _with_vacancies(material: Material, view: Pose, share: float) -> Atoms:
    """Return a supercell larger than the view, so that no vacancy is seen twice, with atoms missing."""
    cell = material.atoms.cell.array[:2, :2]
    wide = 1.5 * SIDE * view.pixel_size + 30
    # Heights of the cell over its edges.
    area = abs(np.linalg.det(cell))
    first, second = (int(np.ceil(wide * np.hypot(*cell[1 - k]) / area)) for k in (0, 1))
    atoms = material.atoms.repeat((first, second, 1))
    return atoms[np.random.default_rng([view.seed, 1]).random(len(atoms)) >= share]


def no_lattice(seed: int) -> Iterator[tuple[str, float, npt.NDArray[Any]]]:
    """Return images of things that do not repeat in two directions: name, pixel size (Å/px), image."""
    generator = np.random.default_rng([seed, 2])
    size = float(np.exp(generator.uniform(*np.log(SIZES))))
    y, x = np.mgrid[:SIDE, :SIDE] * size
    dose = 500 * size**2

    def atoms(count: int, apart: float = 0.0) -> Array:
        image, places = np.zeros((SIDE, SIDE)), np.empty((0, 2))
        for _ in range(20 * count):
            place = generator.uniform(-1, SIDE * size + 1, 2)
            if len(places) == count:
                break
            if not len(places) or ((places - place) ** 2).sum(axis=1).min() >= apart**2:
                places = np.vstack([places, place])
        for across, down in places:
            rows, columns = np.exp(-((y[:, 0] - down) ** 2) / 0.5), np.exp(-((x[0] - across) ** 2) / 0.5)
            image += generator.uniform(0.3, 1) * np.outer(rows, columns)
        return image

    area = (SIDE * size) ** 2
    film = ndimage.gaussian_filter(generator.normal(size=x.shape), 0.5 / size)
    film -= film.min()
    angle, period = generator.uniform(0, np.pi), generator.uniform(2, 6)
    along = x * np.cos(angle) + y * np.sin(angle)
    clean = {
        "one atom": 0.05 + 5 * atoms(1),
        "few atoms": 0.05 + 5 * atoms(5),
        "amorphous": 0.1 + 3 * atoms(int(area / 8)),
        "amorphous, no overlaps": 0.1 + 3 * atoms(int(area / 10), 2.2),
        "film": film / film.mean(),
        "fringes": 1 + 0.5 * np.cos(2 * np.pi * along / period),
        "edge": 0.1 + (along > np.median(along)),
    }
    noisy = {
        "counting noise": generator.poisson(dose, x.shape).astype(float),
        "vacuum": generator.poisson(0.02 * dose, x.shape).astype(float),
        "scan lines": generator.normal(size=(SIDE, 1)) * 10 + generator.normal(size=x.shape),
    }
    for name, image in noisy.items():
        yield name, size, to_grey(image - image.min())[0]
    for name, image in clean.items():
        yield name, size, to_grey(generator.poisson(dose * image).astype(float))[0]
        yield f"{name}, no noise", size, to_grey(image)[0]
