"""How exact, how honest and how fast lattice spacings from images are.

    python benchmarks/bench_spacings.py [--images N] [--data DIR] [--out benchmarks/results/spacings-DAY.json]

On one thread. *Exactness*: waves of known spacing in white noise, 100 to 200 pixels a side, pixels not
square; beside `lattice_spacings` the highest pixel of the transform, and the same with a parabola through its
neighbours. *Honesty*: how many true values lie within one and two standard uncertainties. *False alarms*:
white and Poisson noise. *Directions of view*: simulated images of crystals along low-index axes (atoms of a
slab drawn as Gaussians), rotated, with Poisson noise and a pixel size that is wrong by a few percent; is the
right axis first? *Real files*: what is found in two images of real microscopes (with --data).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _machine import machine_facts
from ase import Atoms

from atomvision_hub._files import write_json
from atomvision_hub.analysis import PHASES, lattice_spacings, match_spacings
from atomvision_hub.analysis.reflections import conventional
from atomvision_hub.simulation import simulate_stem

Array = npt.NDArray[np.float64]
AXES = {
    "Au": [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)],
    "Rh": [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)],
    "Si": [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)],
    "Fe3O4": [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)],
    "SrTiO3": [(1, 0, 0), (1, 1, 0), (1, 1, 1)],
    "SnS": [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
}


def noisy_wave(generator: np.random.Generator) -> tuple[Array, tuple[float, float], float, float]:
    """Return image, pixel size, spacing (Å) and direction (degree) of one wave in noise."""
    shape = tuple(int(n) for n in generator.integers(100, 200, 2))
    size = tuple(float(s) for s in generator.uniform(0.08, 0.14, 2))
    d, angle = float(generator.uniform(0.8, 1.8)), float(generator.uniform(0, 180))
    q = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))]) / d
    y, x = np.mgrid[: shape[0], : shape[1]]
    phase = generator.uniform(0, 2 * np.pi)
    image = np.cos(2 * np.pi * (q[0] * y * size[0] + q[1] * x * size[1]) + phase)
    noise = generator.uniform(0.5, 3.5)
    return image + noise * generator.normal(size=image.shape), (size[0], size[1]), d, angle


def highest_pixel(image: Array, size: tuple[float, float], *, parabola: bool) -> float:
    """Return the spacing at the highest pixel of the transform, as it is read off by hand."""
    rows, columns = image.shape
    window = np.outer(np.hanning(rows), np.hanning(columns))
    power = np.log(np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2 + 1e-300)
    fy, fx = np.fft.fftfreq(rows), np.fft.fftfreq(columns)
    near = np.hypot(fy[:, None] * rows, fx[None] * columns) < 4
    row, column = np.unravel_index(int(np.argmax(np.where(near, -np.inf, power))), power.shape)
    shift = [0.0, 0.0]
    if parabola:
        for axis, length in enumerate(image.shape):
            place = [row, column]
            values = []
            for step in (-1, 0, 1):
                place[axis] = ((row, column)[axis] + step) % length
                values.append(power[place[0], place[1]])
            shift[axis] = 0.5 * (values[0] - values[2]) / (values[0] - 2 * values[1] + values[2])
    q = ((fy[row] + shift[0] / rows) / size[0], (fx[column] + shift[1] / columns) / size[1])
    return float(1 / np.hypot(*q))


def exactness(images: int) -> dict[str, Any]:
    """Return errors of three ways, and how the stated uncertainties cover."""
    generator = np.random.default_rng(20261122)
    errors: dict[str, list[float]] = {"highest pixel": [], "parabola": [], "lattice_spacings": []}
    pulls: dict[str, list[float]] = {"spacing": [], "direction": []}
    missed = extra = 0
    for _ in range(images):
        image, size, d, angle = noisy_wave(generator)
        peaks = lattice_spacings(image, size).peaks
        extra += max(0, len(peaks) - 1)
        if not peaks:
            missed += 1
            continue
        errors["highest pixel"].append(abs(highest_pixel(image, size, parabola=False) / d - 1))
        errors["parabola"].append(abs(highest_pixel(image, size, parabola=True) / d - 1))
        errors["lattice_spacings"].append(abs(peaks[0].d / d - 1))
        pulls["spacing"].append((peaks[0].d - d) / peaks[0].uncertainty)
        pulls["direction"].append(((peaks[0].angle - angle + 90) % 180 - 90) / peaks[0].angle_uncertainty)
    return {
        "images": images,
        "missed": missed,
        "extra": extra,
        "relative_error_median": {name: statistics.median(values) for name, values in errors.items()},
        "relative_error_95_percent": {
            name: float(np.quantile(values, 0.95)) for name, values in errors.items()
        },
        "within_uncertainty": {
            name: {f"{k} sigma": float(np.mean(np.abs(values) <= k)) for k in (1, 2, 3)}
            for name, values in pulls.items()
        },
    }


def false_alarms(images: int) -> dict[str, int]:
    """Return in how many images of noise spacings are found."""
    generator = np.random.default_rng(1)
    found = {"white": 0, "poisson": 0}
    for _ in range(images):
        shape = tuple(int(n) for n in generator.integers(32, 300, 2))
        found["white"] += bool(lattice_spacings(generator.normal(size=shape), 0.1).peaks)
        found["poisson"] += bool(lattice_spacings(generator.poisson(0.5, size=shape), 0.1).peaks)
    return {"images": images, **found}


def slab(atoms: Atoms, axis: tuple[int, int, int], width: float, thickness: float) -> Atoms:
    """Return a crystal cut to a slab seen along a direction [uvw] (z)."""
    lattice = conventional(atoms)
    cell = np.linalg.inv(lattice.reciprocal).T
    beam = np.array(axis) @ cell
    beam /= np.linalg.norm(beam)
    x = np.cross(beam, [0.31, 0.52, 0.79])
    x /= np.linalg.norm(x)
    frame = np.stack([x, np.cross(beam, x), beam])
    reach = int(np.ceil(width / np.abs(1 / np.linalg.norm(lattice.reciprocal, axis=1)).min())) + 1
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cells = (grid @ cell) @ frame.T
    near = (np.abs(cells[:, :2]) < 0.75 * width + 12).all(axis=1) & (np.abs(cells[:, 2]) < thickness + 12)
    places = (cells[near][:, None] + (lattice.fractional @ cell @ frame.T)[None]).reshape(-1, 3)
    numbers = np.tile(lattice.numbers, int(near.sum()))
    inside = (np.abs(places[:, :2]) < 0.75 * width).all(axis=1) & (np.abs(places[:, 2]) < thickness / 2)
    return Atoms(numbers[inside], places[inside] + [0, 0, thickness], cell=[width] * 3, pbc=False)


def directions(repeats: int) -> dict[str, Any]:
    """Return how often the true direction of view is named first, by crystal."""
    generator = np.random.default_rng(2)
    result: dict[str, Any] = {}
    scales = []
    for name, axes in AXES.items():
        right = total = 0
        for axis in axes:
            cut = slab(PHASES[name](), axis, 36.0, 20.0)
            for _ in range(repeats):
                frame = simulate_stem(
                    cut,
                    shape=(240, 240),
                    pixel_size=0.15,
                    sigma=0.45,
                    rotation=float(generator.uniform(0, 360)),
                )
                counts = generator.poisson(20 * frame.image / frame.image.mean())
                wrong = float(generator.normal(1, 0.02))
                found = lattice_spacings(counts, 0.15 * wrong, calibration_uncertainty=0.02)
                zones = match_spacings(found, PHASES[name]()).zones
                total += 1
                if zones and zones[0].axis == axis:
                    right += 1
                    scales.append(zones[0].scale / wrong - 1)
        result[name] = {"right": right, "total": total}
    result["scale_error_median"] = statistics.median(abs(value) for value in scales)
    result["scale_error_95_percent"] = float(np.quantile(np.abs(scales), 0.95))
    return result


def rates() -> dict[str, float]:
    """Return seconds an image with a lattice of twelve sets of planes, by side."""
    seconds = {}
    for side in (256, 512, 1024, 2048):
        y, x = np.mgrid[:side, :side]
        image = np.random.default_rng(0).normal(size=(side, side))
        for index in range(12):
            angle, d = np.radians(15 * index + 4), 9 + 1.3 * index
            image += np.cos(2 * np.pi * (np.sin(angle) * y + np.cos(angle) * x) / d)
        times = []
        for _ in range(3):
            started = time.process_time()
            lattice_spacings(image, 0.1)
            times.append(time.process_time() - started)
        seconds[str(side)] = statistics.median(times)
    return seconds


def real_files(data: Path) -> dict[str, Any]:
    """Return what is found in two real images."""
    from atomvision_hub.microscopy import read_images

    result = {}
    for name, phase, part in (
        ("Acquisition_18.emd", "SrTiO3", np.s_[:, :]),
        ("Au_nanoparticle_HAADF.emd", "Au", np.s_[600:1200, 1250:1750]),
    ):
        image = read_images(data / "microscopy" / name)[0]
        found = lattice_spacings(image.data[part], image.pixel_size, calibration_uncertainty=0.05)
        zone = match_spacings(found, PHASES[phase]()).zones[0]
        result[name] = {
            "crystal": phase,
            "axis": zone.axis,
            "measured_over_crystal": zone.scale,
            "residual": zone.residual,
            "spacings": [
                {"d": peak.d, "uncertainty": peak.uncertainty, "angle": peak.angle, "hkl": hkl}
                for peak, hkl in zip(found.peaks, zone.indices, strict=True)
            ],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000, help="images of the statistics")
    parser.add_argument("--data", type=Path, help="folder with microscopy/*.emd")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {
        "machine": machine_facts(),
        "exactness": exactness(arguments.images),
        "false_alarms": false_alarms(arguments.images),
        "directions_of_view": directions(max(1, arguments.images // 100)),
        "processor_seconds_an_image": rates(),
        "real_files": real_files(arguments.data) if arguments.data else {},
    }
    for name, facts in result.items():
        if name != "machine":
            print(name, facts)
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
