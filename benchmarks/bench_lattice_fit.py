"""How often the lattice fitted to an image is right, how exact, how honest, how fast, and when it is "none".

    python benchmarks/bench_lattice_fit.py --data build/stem2d [--split test] [--poses 5] [--materials N]
        [--calibration 1] [--curves N] [--seed N] [--out benchmarks/results/lattice-fit-DATE.json]
    python benchmarks/bench_lattice_fit.py --draw benchmarks/results/lattice-fit-DATE.json
        --picture docs/images/lattice-fit.png

On one thread, by the protocol of `_lattice_protocol`: noise-free and with the preset ``typical``; runs of
the same split add to the file. Conformal sets are calibrated on `--calibration` poses of the validation
materials. `--curves` N materials with a clear label are seen once for each dose, pixel size and so on.
Beside it, always saying the most frequent class.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _lattice_figures import MARGIN, Answers, area_under_curve, share, summary
from _lattice_protocol import PERIODS, SIDE, Material, Pose, materials, no_lattice, pose, render
from _machine import machine_facts

from atomvision_hub._files import write_json
from atomvision_hub.analysis.conformal import ConformalSets, calibrate_sets
from atomvision_hub.analysis.lattice_fit import LatticeFit, fit_lattice
from atomvision_hub.simulation.acquisition import Acquisition, Dose, Drift, LineJitter
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]
Row = dict[str, Any]
TYPICAL = Acquisition.preset("typical")
ACQUISITIONS: dict[str, Acquisition] = {
    "ideal": Acquisition.preset("ideal"),
    "typical": TYPICAL,
    "typical, 125 e/Å²": TYPICAL.with_steps(Dose(electrons=125)),
    "typical, 2000 e/Å²": TYPICAL.with_steps(Dose(electrons=2000)),
}
LEVELS = (0.9, 0.95, 0.99)


def judged(fit: LatticeFit, material: Material, view: Pose) -> Row:
    """Return what is right of a fit."""
    missing = {"class": -1, "lattice": False, "cell": False, "score": fit.score, "p": [0.2] * 5, "pulls": []}
    if fit.vectors is None or fit.a is None or fit.b is None or fit.gamma is None or fit.covariance is None:
        return missing
    vectors = view.turned(material.truth.cell.reduced)
    index = vectors @ np.linalg.inv(fit.vectors)
    whole = np.rint(index)
    same = bool(np.abs(index - whole).max() < 0.1 and round(abs(float(np.linalg.det(index)))) == 1)
    pulls: list[float] = []
    if same:
        change = np.kron(whole, np.eye(2))
        errors = np.sqrt(np.diag(change @ fit.covariance @ change.T))
        pulls = ((whole @ fit.vectors - vectors).ravel() / np.maximum(errors, 1e-12)).tolist()
    cell = material.truth.cell
    return {
        "class": LATTICES.index(fit.lattice or "oblique"),
        "lattice": same,
        "cell": abs(fit.a / cell.a - 1) < 0.003
        and abs(fit.b / cell.b - 1) < 0.003
        and abs(fit.gamma - cell.gamma) < 0.2,
        "score": fit.score,
        "p": list(fit.probabilities),
        "pulls": pulls,
        "area": abs(float(np.linalg.det(index))),
    }


def seen(
    material: Material, view: Pose, acquisition: Acquisition, number: int = 0, vacancies: float = 0.0
) -> Row:
    """Return the judged fit of one image, and how long it took."""
    image = render(material, view, acquisition, vacancies)
    started = time.process_time()
    fit = fit_lattice(image, view.pixel_size)
    spent = time.process_time() - started
    row: Row = {
        "id": material.id,
        "formula": material.formula,
        "label": material.label,
        "margin": material.truth.margin,
        "pose": number,
        "pixel_size": view.pixel_size,
        "seconds": spent,
    }
    return row | judged(fit, material, view)


def answers(rows: Sequence[Row]) -> Answers:
    """Return rows as arrays."""
    return Answers(
        np.array([row["label"] for row in rows]),
        np.array([row["formula"] for row in rows]),
        np.array([row["margin"] for row in rows]),
        np.array([row["class"] for row in rows]),
        np.array([row["p"] for row in rows]).reshape(-1, len(LATTICES)),
    )


def figures(rows: list[Row], sets: Sequence[ConformalSets], without: Array, most: int) -> dict[str, Any]:
    """Return the figures of one acquisition."""
    clear = [row for row in rows if row["margin"] >= MARGIN]
    formulas = np.array([row["formula"] for row in clear])
    pulls = np.array([pull for row in clear for pull in row["pulls"]])
    times = 1e3 * np.array([row["seconds"] for row in rows])
    scores = np.array([row["score"] for row in rows])
    wrong = [row for row in clear if row["class"] != row["label"]]
    keys = ("id", "pose", "label", "class", "lattice", "area", "margin", "pixel_size", "p")
    found: dict[str, Any] = summary(answers(rows), sets)
    return found | {
        "lattice_right": share(np.array([row["lattice"] for row in clear]), formulas),
        "cell_within_bars": share(np.array([row["cell"] for row in clear]), formulas),
        "most_frequent_class": share(np.array([row["label"] == most for row in clear]), formulas),
        "pull_rms": float(np.sqrt((pulls**2).mean())),
        "lattice_or_none_auroc": area_under_curve(scores, without),
        "cpu_ms": {
            "median": float(np.median(times)),
            "mean": float(times.mean()),
            "p90": float(np.quantile(times, 0.9)),
        },
        "wrong": [{key: row[key] for key in keys if key in row} for row in wrong],
    }


def conditions() -> Iterator[tuple[str, float, Acquisition, dict[str, float]]]:
    """Return the curves' points: curve, place on its axis, acquisition, what changes of the pose."""
    for dose in (30, 60, 125, 250, 500, 1000, 2000, 8000):
        yield "dose", dose, TYPICAL.with_steps(Dose(electrons=float(dose))), {}
    for periods in (2.0, 2.5, 3.0, 4.0, 6.0, 8.0):
        yield "periods", periods, TYPICAL, {"periods": periods}
    for rotation in (0, 15, 30, 45, 60, 75):
        yield "rotation", rotation, TYPICAL, {"rotation": float(rotation)}
    for size in (0.05, 0.08, 0.12, 0.18, 0.25):
        yield "pixel_size", size, TYPICAL, {"pixel_size": size}
    for factor in (0.0, 0.5, 1.0, 2.0, 4.0):
        steps = Drift(fraction=0.01 * factor), LineJitter(rms=0.1 * factor)
        yield "distortion", factor, TYPICAL.with_steps(*steps), {}
    for part in (0.0, 0.01, 0.03, 0.1, 0.2):
        yield "vacancies", part, TYPICAL, {"vacancies": part}


def curves(known: list[Material], count: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return accuracy along each axis, everything else as in ``typical``."""
    clear = [material for material in known if material.truth.margin >= MARGIN]
    chosen = np.random.default_rng([seed, 3]).permutation(len(clear))[:count]
    found: dict[str, list[dict[str, Any]]] = {}
    for curve, place, acquisition, change in conditions():
        rows = []
        for material in (clear[number] for number in chosen):
            view = pose(material, 0, seed)
            periods, missing = change.get("periods"), change.get("vacancies", 0.0)
            if periods is not None:
                # So many of the longer vector in view, whatever the pixel size is then.
                view = replace(view, pixel_size=periods * material.longer / SIDE)
            if "rotation" in change:
                view = replace(view, rotation=change["rotation"])
            if "pixel_size" in change:
                view = replace(view, pixel_size=change["pixel_size"])
                if PERIODS * material.longer > SIDE * view.pixel_size:
                    continue
            rows.append(seen(material, view, acquisition, vacancies=missing))
        formulas = np.array([row["formula"] for row in rows])
        told = {"class": [row["class"] == row["label"] for row in rows]}
        told["lattice"] = [row["lattice"] for row in rows]
        told["none"] = [row["class"] < 0 for row in rows]
        point = {name: share(np.array(hits, dtype=bool), formulas) for name, hits in told.items()}
        found.setdefault(curve, []).append({"at": place} | point)
    return found


def add(path: Path, result: dict[str, Any]) -> None:
    """Write figures beside those of other acquisitions that the file holds, if they are of the same run."""
    same = ("split", "seed", "materials")
    held: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if any(held.get(key) != result[key] for key in same):
        held = {}
    merged = held | result
    merged["acquisitions"] = held.get("acquisitions", {}) | result["acquisitions"]
    write_json(path, merged)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the curves as one picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "dose": "dose (detected e/Å²)",
        "periods": "periods of the longer vector in view",
        "rotation": "rotation (degrees)",
        "pixel_size": "pixel size (Å/px), three periods in view",
        "distortion": "drift and jitter, relative to typical",
        "vacancies": "vacant sites (share)",
    }
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharey=True, constrained_layout=True)
    for axis, (curve, title) in zip(axes.ravel(), titles.items(), strict=True):
        points = result["curves"][curve]
        at = [point["at"] for point in points]
        for name, label, color in (("class", "class", "C0"), ("lattice", "lattice vectors", "C1")):
            value = np.array([point[name]["value"] for point in points])
            low, high = np.array([point[name]["interval"] for point in points]).T
            axis.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
            axis.plot(at, value, "o-", color=color, label=label, markersize=4)
        if curve == "dose":
            axis.set_xscale("log")
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("share of images right")
    axes[0, 0].legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Fit, judge, print and write; or draw what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="stem2d dataset with the config structures")
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"])
    parser.add_argument("--materials", type=int, help="so many, drawn at random; by default all")
    parser.add_argument("--poses", type=int, default=1)
    parser.add_argument("--acquisitions", nargs="*", default=["ideal", "typical"], choices=list(ACQUISITIONS))
    parser.add_argument("--shifted", type=int, default=0, help="poses at a quarter and four times the dose")
    parser.add_argument("--calibration", type=int, default=1, help="poses of validation for conformal sets")
    parser.add_argument("--curves", type=int, default=0, help="materials for the curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-lattice", type=int, default=20, help="images of each kind without a lattice")
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--draw", type=Path, help="JSON file whose curves are drawn to --picture")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/lattice-fit.png"))
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.picture)
        return
    if options.data is None:
        parser.error("give --data, or --draw")
    machine = machine_facts()
    known, outside = materials(options.data, options.split, options.materials, options.seed)
    most = int(np.bincount([material.label for material in known]).argmax())
    calibration, _ = materials(options.data, "validation", options.materials, options.seed)
    empty: dict[str, list[float]] = {}
    for number in range(options.no_lattice):
        for kind, size, picture in no_lattice(number):
            empty.setdefault(kind, []).append(fit_lattice(picture, size, min_score=0.0).score)
    without = np.array([score for scores in empty.values() for score in scores])
    result: dict[str, Any] = {
        "machine": machine,
        "split": options.split,
        "seed": options.seed,
        "materials": len(known),
        "too_large": outside,
        "no_lattice": {
            kind: {"images": len(scores), "highest_score": max(scores)} for kind, scores in empty.items()
        },
        "acquisitions": {},
    }
    poses = dict.fromkeys(options.acquisitions, options.poses)
    if options.shifted:
        poses |= dict.fromkeys(list(ACQUISITIONS)[2:], options.shifted)
    sets: dict[str, list[ConformalSets]] = {}
    for name, count in poses.items():
        acquisition = ACQUISITIONS[name]
        # A dose that is not known beforehand is met with the sets of ``typical``.
        rule = "ideal" if name == "ideal" else "typical"
        if rule not in sets:
            rows = [
                seen(material, pose(material, number, options.seed), ACQUISITIONS[rule], number)
                for material in calibration
                if material.truth.margin >= MARGIN
                for number in range(options.calibration)
            ]
            held = answers(rows)
            sets[rule] = [
                calibrate_sets(held.probabilities, held.labels, level, held.formulas) for level in LEVELS
            ]
        rows = [
            seen(material, pose(material, number, options.seed), acquisition, number)
            for material in known
            for number in range(count)
        ]
        told = {"poses": count, "machine": machine} | figures(rows, sets[rule], without, most)
        result["acquisitions"][name] = told
        print(f"\n{name}: {told['images']} images, {told['compositions']} compositions")
        for key in ("accuracy", "macro_f1", "lattice_right", "cell_within_bars", "most_frequent_class"):
            low, high = told[key]["interval"]
            print(f"  {key:20s} {told[key]['value']:.4f} [{low:.4f}, {high:.4f}]")
        print(f"  recall {[round(one['value'], 4) for one in told['recall'].values()]}")
        print(
            f"  calibration error {told['calibration_error']:.4f}, log loss {told['log_loss']:.4f}, "
            f"pulls {told['pull_rms']:.2f}, AUROC {told['lattice_or_none_auroc']:.4f}, "
            f"{told['cpu_ms']['mean']:.1f} ms"
        )
        for one in told["conformal"]:
            covered, size = one["coverage"]["value"], one["mean_size"]
            print(f"  conformal {one['level']}: {covered:.4f}, {size:.3f} classes")
        if options.out:
            add(options.out, result)
    if options.curves:
        result["curves"] = curves(known, options.curves, options.seed)
        if options.out:
            add(options.out, result)


if __name__ == "__main__":
    main()
