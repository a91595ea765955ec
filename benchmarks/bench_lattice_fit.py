"""How often an image's lattice is right, how exact, how honest, how fast, and when the answer is "none".

    python benchmarks/bench_lattice_fit.py --data build/stem2d [--split test] [--materials N] [--poses N]
        [--acquisitions ideal typical] [--seed N] [--out benchmarks/results/lattice-fit-DATE.json]

On one thread. Crystals of the configuration ``structures`` of a stem2d dataset, by its split of compositions;
truth is the lattice of the projected columns. Each is seen in random poses, 256 x 256 pixels, 8 bit, the
pixel size drawn log-uniformly from the part of 0.05 to 0.25 Å/px that shows three periods of the longer
reduced vector; materials with no such part are listed. Figures count materials whose label has a margin of
0.015 Å; intervals are as wide as if each composition had been seen once. Beside it, always saying the most
frequent class. Images without a lattice: counting noise, vacuum, single atoms, amorphous layers, films,
fringes, edges, scan lines.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from _machine import machine_facts
from ase import Atoms
from scipy import ndimage

from atomvision_hub._files import write_json
from atomvision_hub.analysis.lattice_fit import LatticeFit, fit_lattice
from atomvision_hub.engine.metrics import evaluate, macro_f1_interval, proportion
from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.structures.classify import lattice_fits
from atomvision_hub.structures.lattice import BravaisFit
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]
SIDE, PERIODS, SIZES, MARGIN = 256, 3.0, (0.05, 0.25), 0.015


def crystals(data: Path, split: str) -> Iterator[tuple[str, str, Atoms]]:
    """Return id, formula and crystal of a split's rows."""
    for file in sorted((data / "data" / "structures").glob(f"{split}-*.parquet")):
        columns = ["id", "formula", "cell", "numbers", "positions"]
        for row in pq.read_table(file, columns=columns).to_pylist():
            atoms = Atoms(
                numbers=row["numbers"],
                positions=row["positions"],
                cell=row["cell"],
                pbc=(True, True, False),
            )
            yield row["id"], row["formula"], atoms


def judged(fit: LatticeFit, truth: BravaisFit, vectors: Array) -> dict[str, Any]:
    """Return what is right of a fit; `vectors` are the true reduced ones as the image shows them."""
    if fit.vectors is None or fit.a is None or fit.b is None or fit.gamma is None or fit.covariance is None:
        return {"class": -1, "lattice": False, "cell": False, "score": fit.score, "p": [0.2] * 5}
    index = vectors @ np.linalg.inv(fit.vectors)
    whole = np.rint(index)
    same = bool(np.abs(index - whole).max() < 0.1 and round(abs(float(np.linalg.det(index)))) == 1)
    cell = truth.cell
    pulls: list[float] = []
    if same:
        change = np.kron(whole, np.eye(2))
        errors = np.sqrt(np.diag(change @ fit.covariance @ change.T))
        pulls = ((whole @ fit.vectors - vectors).ravel() / np.maximum(errors, 1e-12)).tolist()
    return {
        "class": LATTICES.index(fit.lattice or "oblique"),
        "lattice": same,
        "cell": abs(fit.a / cell.a - 1) < 0.003
        and abs(fit.b / cell.b - 1) < 0.003
        and abs(fit.gamma - cell.gamma) < 0.2,
        "score": fit.score,
        "p": list(fit.probabilities),
        "pulls": pulls,
    }


def no_lattice(seed: int) -> Iterator[tuple[str, Array]]:
    """Return images of things that do not repeat in two directions, by name."""
    generator = np.random.default_rng(seed)
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
    yield "counting noise", generator.poisson(dose, x.shape).astype(float)
    yield "vacuum", generator.poisson(0.02 * dose, x.shape).astype(float)
    yield "scan lines", generator.normal(size=(SIDE, 1)) * 10 + generator.normal(size=x.shape)
    for name, image in clean.items():
        yield name, generator.poisson(dose * image).astype(float)
        yield f"{name}, no noise", to_grey(image)[0].astype(float)


def calibration_error(p: Array, right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error in ten bins of confidence."""
    confidence = p.max(axis=1)
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(right[bins == k].mean() - confidence[bins == k].mean()) * (bins == k).mean() for k in set(bins)
    ]
    return float(sum(gaps))


def area_under_curve(yes: Array, no: Array) -> float:
    """Return the chance that an image with a lattice has the higher score; ties count half."""
    return float((yes[:, None] > no).mean() + 0.5 * (yes[:, None] == no).mean())


def summary(rows: list[dict[str, Any]], most_frequent: int) -> dict[str, Any]:
    """Return the figures of one acquisition over materials whose margin counts."""
    labels = np.array([row["label"] for row in rows])
    groups = np.array([row["formula"] for row in rows])
    said, p = np.array([row["class"] for row in rows]), np.array([row["p"] for row in rows])
    # "No lattice" counts as a wrong class.
    told = np.where(said < 0, (labels + 1) % len(LATTICES), said)
    pulls = np.array([pull for row in rows for pull in row.get("pulls", [])])
    return {
        "images": len(rows),
        "compositions": len(np.unique(groups)),
        "accuracy": proportion(said == labels, groups),
        "none": int((said < 0).sum()),
        "lattice_right": proportion(np.array([row["lattice"] for row in rows]), groups),
        "cell_within_bars": proportion(np.array([row["cell"] for row in rows]), groups),
        "classes": evaluate(labels, told, LATTICES, groups),
        "macro_f1_interval": macro_f1_interval(labels, told, groups=groups),
        "log_loss": float(-np.log(np.maximum(p[np.arange(len(p)), labels], 1e-6)).mean()),
        "calibration_error": calibration_error(p, said == labels),
        "pull_rms": float(np.sqrt((pulls**2).mean())),
        "most_frequent_class": proportion(labels == most_frequent, groups),
    }


def main() -> None:
    """Fit, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="stem2d dataset with the config structures")
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"])
    parser.add_argument("--materials", type=int, help="so many, drawn at random; by default all")
    parser.add_argument("--poses", type=int, default=1)
    parser.add_argument("--acquisitions", nargs="+", default=["ideal", "typical"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-lattice", type=int, default=40, help="images of each kind without a lattice")
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    known = list(crystals(options.data, options.split))
    chosen = generator.permutation(len(known))[: options.materials]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options.acquisitions}
    times: dict[str, list[float]] = {name: [] for name in options.acquisitions}
    outside: list[str] = []
    for number in chosen:
        identifier, formula, atoms = known[number]
        truth = lattice_fits(atoms)[1]
        lowest = max(SIZES[0], PERIODS * float(np.hypot(*truth.cell.reduced.T).max()) / SIDE)
        if lowest > SIZES[1]:
            outside.append(identifier)
            continue
        for _ in range(options.poses):
            size = float(np.exp(generator.uniform(np.log(lowest), np.log(SIZES[1]))))
            turn, shift = float(generator.uniform(0, 360)), generator.uniform(0, 10, 2)
            seed = int(generator.integers(2**31))
            c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
            vectors = truth.cell.reduced @ np.array([[c, s], [-s, c]])
            pose: dict[str, Any] = {
                "shape": (SIDE, SIDE),
                "pixel_size": size,
                "rotation": turn,
                "shift": shift,
            }
            for name in options.acquisitions:
                if name == "ideal":
                    image: npt.NDArray[Any] = to_grey(simulate_stem(atoms, **pose).image)[0]
                else:
                    image = record_stem(atoms, name, seed=seed, **pose).image
                started = time.process_time()
                fit = fit_lattice(image, size)
                times[name].append(time.process_time() - started)
                row = {"id": identifier, "formula": formula, "label": truth.label, "margin": truth.margin}
                row |= judged(fit, truth, vectors)
                row["pixel_size"] = size
                rows[name].append(row)
    most_frequent = Counter(row["label"] for row in rows[options.acquisitions[0]]).most_common(1)[0][0]
    empty: dict[str, list[float]] = {}
    for seed in range(options.no_lattice):
        for kind, picture in no_lattice(seed):
            empty.setdefault(kind, []).append(fit_lattice(picture, 0.1, min_score=0.0).score)
    without = np.array([score for scores in empty.values() for score in scores])
    result: dict[str, Any] = {
        "machine": machine_facts(),
        "split": options.split,
        "seed": options.seed,
        "materials": len(chosen) - len(outside),
        "poses": options.poses,
        "too_large": outside,
        "no_lattice": {
            kind: {"images": len(scores), "highest_score": max(scores)} for kind, scores in empty.items()
        },
        "acquisitions": {},
    }
    for name, all_rows in rows.items():
        clear = [row for row in all_rows if row["margin"] >= MARGIN]
        unclear = [row for row in all_rows if row["margin"] < MARGIN]
        scores = np.array([row["score"] for row in all_rows])
        result["acquisitions"][name] = summary(clear, most_frequent) | {
            "small_margin": proportion(
                np.array([row["class"] == row["label"] for row in unclear], dtype=bool)
            ),
            "lattice_or_none_auroc": area_under_curve(scores, without),
            "cpu_ms": {
                "median": 1e3 * statistics.median(times[name]),
                "mean": 1e3 * statistics.fmean(times[name]),
                "p90": 1e3 * float(np.quantile(times[name], 0.9)),
            },
            "wrong": [
                {key: row[key] for key in ("id", "label", "class", "lattice", "margin", "pixel_size")}
                for row in clear
                if row["class"] != row["label"] or not row["lattice"]
            ],
        }
        figures = result["acquisitions"][name]
        print(f"\n{name}: {figures['images']} images, {figures['compositions']} compositions")
        for key in ("accuracy", "lattice_right", "cell_within_bars", "most_frequent_class"):
            told = figures[key]
            low, high = told["interval"]
            print(f"  {key:20s} {told['value']:.4f} [{low:.4f}, {high:.4f}]")
        recall = [one["recall"]["value"] for one in figures["classes"]["per_class"].values()]
        print(
            f"  macro-F1 {figures['classes']['macro_f1']['value']:.4f}, recall {np.round(recall, 4).tolist()}"
        )
        print(
            f"  calibration error {figures['calibration_error']:.4f}, log loss {figures['log_loss']:.4f}, "
            f"pulls {figures['pull_rms']:.2f}, AUROC {figures['lattice_or_none_auroc']:.4f}, "
            f"{figures['cpu_ms']['median']:.1f} ms"
        )
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
