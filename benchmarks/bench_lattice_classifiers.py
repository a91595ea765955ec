"""Every classifier of lattices on the same images, in one table.

    python benchmarks/bench_lattice_classifiers.py --data build/stem2d --network DIR --cache DIR
        [--densenet DIR] [--split test] [--poses 5] [--fit-poses 5]
        [--few-poses 1] [--out benchmarks/results/NAME-DATE.json]

Crystals, poses and images: `_lattice_protocol`; figures: `_lattice_figures`. Methods:

- ``majority``: the most frequent class of the training materials;
- ``small``, ``densenet121``, ``network``: classifiers of images, asked through transformers' pipeline, which
  is told no pixel size;
- ``alignn``: columns found in the image, as a graph; views narrower than it learned are asked all the same;
- ``fit``: `analysis.fit_lattice`, no learning;
- ``judge``: fit and network together. Logarithms of their probabilities are added with weights, one pair for
  images that look scanned and one for those that do not, which make the validation materials most probable.

Recorded ``ideal``, ``typical``, and ``typical`` at a quarter and four times its dose. Conformal sets (of
``fit``, ``network`` and ``judge``) are calibrated on ``typical`` images of the validation materials. Images
with a lattice are told from those without by the largest probability, for ``fit`` and ``judge`` by the fit's
score. Answers are kept in the folder --cache, so that an interrupted run goes on. Poses are --poses for
``network`` and --fit-poses for ``fit`` and ``judge`` on ``ideal`` and ``typical`` images, and --few-poses for
the rest; only ``fit``, ``network`` and ``judge`` see the other doses.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from _lattice_figures import Answers, area_under_curve, share, summary
from _lattice_protocol import Material, materials, no_lattice, pose, render
from _machine import machine_facts
from PIL import Image
from scipy.optimize import minimize

import atomvision_hub.models.lattice_network  # noqa: F401 - tells transformers what an atomvision_lattice is
from atomvision_hub._files import atomic_path, write_json
from atomvision_hub.analysis.atoms import detect_atoms
from atomvision_hub.analysis.conformal import calibrate_sets
from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.lattice_fit import fit_lattice
from atomvision_hub.data import load_dataset
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.inference.graph_lattice import classify_columns
from atomvision_hub.models import Alignn
from atomvision_hub.models.alignn import TorchGraph
from atomvision_hub.models.graphs import column_graph
from atomvision_hub.models.images import grey_levels
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, DEFAULT_GRAPH_CLASSIFIER, pretrained_folder
from atomvision_hub.simulation.acquisition import Acquisition, Dose
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]
#: Of one image: class or -1, probabilities, score that there is a lattice, whether noise and scan are seen.
Answer = tuple[int, Array, float, bool]
Method = Callable[[npt.NDArray[Any], float], Answer]

TYPICAL = Acquisition.of("typical")
ACQUISITIONS: dict[str, Acquisition | str] = {
    "ideal": "ideal",
    "typical": TYPICAL,
    "typical, dose / 4": TYPICAL.with_steps(Dose(electrons=125.0)),
    "typical, dose x 4": TYPICAL.with_steps(Dose(electrons=2000.0)),
}

LEVEL = 0.95
EMPTY_SEEDS = 6


def image_classifier(folder: Path) -> Method:
    """Return a classifier of images as transformers' pipeline runs it."""
    from transformers import pipeline

    ask = pipeline("image-classification", model=str(folder), top_k=len(LATTICES))

    def method(image: npt.NDArray[Any], _: float) -> Answer:
        grey = image if image.dtype == np.uint8 else grey_levels(image)
        found = {entry["label"]: entry["score"] for entry in ask(Image.fromarray(grey))}
        p = np.array([found[name] for name in LATTICES])
        return int(p.argmax()), p, float(p.max()), False

    return method


def graph_classifier() -> Method:
    """Return ALIGNN on detected columns."""
    model = Alignn.from_pretrained(pretrained_folder(DEFAULT_GRAPH_CLASSIFIER))
    order = [model.known["labels"].index(name) for name in LATTICES]

    def method(image: npt.NDArray[Any], size: float) -> Answer:
        try:
            table = detect_atoms(image, size)
            try:
                chances = classify_columns(table, model)[1].mean(axis=0)
            except AtomVisionError:  # narrower than it learned
                graph = column_graph(table, model.graph_settings)
                with torch.inference_mode():
                    chances = model(TorchGraph.of([graph])).softmax(-1)[0].double().numpy()
        except (AnalysisError, AtomVisionError):
            return -1, np.full(len(LATTICES), 1 / len(LATTICES)), 0.0, False
        p = chances[order]
        return int(p.argmax()), p, float(p.max()), False

    return method


def lattice_fit(image: npt.NDArray[Any], size: float) -> Answer:
    """Ask the physics road."""
    fit = fit_lattice(image, size)
    if fit.lattice is None:
        return -1, np.full(len(LATTICES), 1 / len(LATTICES)), fit.score, fit.distortion > 0
    return LATTICES.index(fit.lattice), np.array(fit.probabilities), fit.score, fit.distortion > 0


@dataclass(frozen=True)
class Told:
    """Answers of one method to the images of one pose number of each material, in their order."""

    said: npt.NDArray[np.int64]
    p: Array
    score: Array
    scanned: npt.NDArray[np.bool_]
    ms: Array

    @classmethod
    def join(cls, parts: list[Told]) -> Told:
        """Return several as one."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def first(self, count: int) -> Told:
        """Return the first answers."""
        return Told(**{name: getattr(self, name)[:count] for name in self.__dataclass_fields__})


def ask(
    methods: dict[str, Method], images: Iterator[tuple[npt.NDArray[Any], float]], files: dict[str, Path]
) -> None:
    """Ask methods about images and write what each says."""
    answers: dict[str, list[tuple[Answer, float]]] = {name: [] for name in files}
    for image, size in images:
        for name in files:
            began = time.process_time()
            answer = methods[name](image, size)
            answers[name].append((answer, 1e3 * (time.process_time() - began)))
    for name, file in files.items():
        said, p, score, scanned = zip(*(answer for answer, _ in answers[name]), strict=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                said=np.array(said),
                p=np.array(p),
                score=np.array(score, dtype=float),
                scanned=np.array(scanned),
                ms=np.array([ms for _, ms in answers[name]]),
            )


def told(
    methods: dict[str, Method],
    chosen: list[Material],
    acquisition: str,
    poses: dict[str, int],
    cache: Path,
    split: str,
) -> dict[str, Told]:
    """Return the answers of all methods, from the cache where they are there."""
    parts: dict[str, list[Told]] = {name: [] for name in methods}
    for number in range(max(poses.values())):
        slug = acquisition.replace(", ", "-").replace(" ", "")
        wanted = {
            name: cache / f"{split}-{slug.replace('/', 'by')}-{number}-{name}.npz"
            for name in methods
            if number < poses.get(name, 0)
        }
        missing = {name: file for name, file in wanted.items() if not file.is_file()}
        if missing:
            views = ((one, pose(one, number)) for one in chosen)
            ask(
                methods,
                ((render(one, view, ACQUISITIONS[acquisition]), view.pixel_size) for one, view in views),
                missing,
            )
            print(f"{split}, {acquisition}, pose {number}: {', '.join(missing)}", flush=True)
        for name, file in wanted.items():
            with np.load(file) as values:
                parts[name].append(Told(**values))
    return {name: Told.join(found) for name, found in parts.items() if found}


def empty(methods: dict[str, Method], cache: Path) -> dict[str, Told]:
    """Return the answers to images without a lattice."""
    files = {name: cache / f"empty-{name}.npz" for name in methods}
    missing = {name: file for name, file in files.items() if not file.is_file()}
    if missing:
        images = ((image, size) for seed in range(EMPTY_SEEDS) for _, size, image in no_lattice(seed))
        ask(methods, images, missing)
    found = {}
    for name, file in files.items():
        with np.load(file) as values:
            found[name] = Told(**values)
    return found


def answers(chosen: list[Material], found: Told) -> Answers:
    """Return answers beside the truth."""
    times = len(found.said) // len(chosen)
    return Answers(
        labels=np.array([one.label for one in chosen] * times),
        formulas=np.array([one.formula for one in chosen] * times),
        margins=np.array([one.truth.margin for one in chosen] * times),
        said=found.said,
        probabilities=found.p,
    )


@dataclass(frozen=True)
class Judge:
    """Weights of (fit, network) for images that look scanned and those that do not."""

    weights: Array

    def together(self, fit: Told, network: Told) -> Told:
        """Return the joint answer; where the fit finds no lattice, so does the judge."""
        p = _mixed(self.weights, fit, network)
        said = np.where(fit.said < 0, -1, p.argmax(axis=1))
        return Told(said, p, fit.score, fit.scanned, fit.ms + network.ms)


def _mixed(weights: Array, fit: Told, network: Told) -> Array:
    mine = weights.reshape(2, 2)[fit.scanned.astype(int)]
    logits = mine[:, :1] * np.log(fit.p.clip(1e-5)) + mine[:, 1:] * np.log(network.p.clip(1e-5))
    logits -= logits.max(axis=1, keepdims=True)
    p = np.exp(logits)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def learn_judge(fit: Told, network: Told, labels: npt.NDArray[np.int64], clear: npt.NDArray[Any]) -> Judge:
    """Return the weights under which the true classes of clear images are most probable."""
    rows = np.flatnonzero(clear & (fit.said >= 0))

    def loss(weights: Array) -> float:
        p = _mixed(weights, fit, network)[rows, labels[rows]]
        # Images of one kind may all be right whatever the weights: these stay finite.
        return float(-np.log(p.clip(1e-9)).mean() + 1e-4 * ((weights - 0.5) ** 2).sum())

    found = minimize(loss, np.full(4, 0.5), method="Nelder-Mead", options={"maxiter": 600})
    return Judge(np.asarray(found.x))


def legacy(data: Path, methods: dict[str, Method], split: str) -> dict[str, Any]:
    """Return accuracies on the labels and images of the paper: the best guess from the lattice that is said.

    Legacy labels depend on how the source wrote the cell down. Each lattice stands for the legacy label that
    is most frequent with it among the training materials, so that even the true lattice is right only as
    often as ``ceiling`` says.
    """
    loaded = load_dataset(str(data), "default")
    train, test = loaded["train"], loaded[split]
    columns = {name: np.array(train[name]) for name in ("lattice_projected", "lattice_legacy")}
    labels, formulas = np.array(test["lattice_legacy"]), np.array(test["formula"])
    guess = np.array(
        [
            np.bincount(columns["lattice_legacy"][columns["lattice_projected"] == label]).argmax()
            for label in range(len(LATTICES))
        ]
    )
    said: dict[str, list[int]] = {name: [] for name in methods}
    for row in test:
        image = np.asarray(row["image"])
        for name, method in methods.items():
            said[name].append(method(image, float(row["pixel_size"][0]))[0])
    found = {
        name: share(np.where(np.array(one) < 0, -1, guess[np.array(one)]) == labels, formulas)
        for name, one in said.items()
    }
    true = guess[np.array(test["lattice_projected"])]
    frequent = int(np.bincount(columns["lattice_legacy"]).argmax())
    return found | {
        "ceiling": share(true == labels, formulas),
        "majority": share(labels == frequent, formulas),
    }


def main() -> None:
    """Ask, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="stem2d dataset with the config structures")
    add("--network", type=Path, required=True, help="folder of a trained lattice network")
    add("--densenet", type=Path, help="folder of a trained densenet121")
    add("--cache", type=Path, required=True, help="folder for answers")
    add("--split", default="test", choices=["validation", "test"])
    add("--materials", type=int, help="so many, drawn at random; by default all")
    add("--poses", type=int, default=5, help="poses for the network on ideal and typical images")
    add("--fit-poses", type=int, default=5, help="the same for the fit and the judge")
    add("--few-poses", type=int, default=1, help="poses for the other methods, and for other doses")
    add("--out", type=Path, help="JSON file for the raw figures")
    options = parser.parse_args()
    methods: dict[str, Method] = {
        "fit": lattice_fit,
        "network": image_classifier(options.network),
        "small": image_classifier(pretrained_folder(DEFAULT_CLASSIFIER)),
        "alignn": graph_classifier(),
    }
    if options.densenet is not None:
        methods["densenet121"] = image_classifier(options.densenet)

    def poses(acquisition: str) -> dict[str, int]:
        many = {"network": options.poses, "fit": options.fit_poses}
        if acquisition not in ("ideal", "typical"):
            return dict.fromkeys(many, options.few_poses)
        return dict.fromkeys(methods, options.few_poses) | many

    chosen, outside = materials(options.data, options.split, options.materials)
    validation, _ = materials(options.data, "validation", options.materials)
    train_labels = [one.label for one in materials(options.data, "train", options.materials)[0]]
    most_frequent = int(np.bincount(train_labels).argmax())

    learned = {name: methods[name] for name in ("fit", "network")}
    calibration = {
        name: told(learned, validation, name, dict.fromkeys(learned, 1), options.cache, "validation")
        for name in ("ideal", "typical")
    }
    joint = {name: Told.join([calibration["ideal"][name], calibration["typical"][name]]) for name in learned}
    truth = answers(validation, joint["fit"])
    judge = learn_judge(joint["fit"], joint["network"], truth.labels, truth.margins >= 0.015)
    for found in calibration.values():
        found["judge"] = judge.together(found["fit"], found["network"])
    sets = {}
    for name, answer in calibration["typical"].items():
        clear = answers(validation, answer).clear
        sets[name] = calibrate_sets(clear.probabilities, clear.labels, LEVEL, clear.formulas)
    nothing = empty(methods, options.cache)
    nothing["judge"] = nothing["fit"]

    result: dict[str, Any] = {
        "machine": machine_facts(),
        "split": options.split,
        "materials": len(chosen),
        "too_large": outside,
        "poses": {name: poses(name) for name in ACQUISITIONS},
        "judge_weights": {
            kind: dict(zip(("fit", "network"), row, strict=True))
            for kind, row in zip(("clean", "scanned"), judge.weights.reshape(2, 2).tolist(), strict=True)
        },
        "most_frequent_class": LATTICES[most_frequent],
        "acquisitions": {},
    }
    for acquisition in ACQUISITIONS:
        found = told(methods, chosen, acquisition, poses(acquisition), options.cache, options.split)
        shared = min(len(found["fit"].said), len(found["network"].said))
        found["judge"] = judge.together(found["fit"].first(shared), found["network"].first(shared))
        figures: dict[str, Any] = {}
        for name, answer in found.items():
            figures[name] = summary(answers(chosen, answer), [sets[name]] if name in sets else []) | {
                "lattice_or_none_auroc": area_under_curve(answer.score, nothing[name].score),
                "cpu_ms": float(np.median(answer.ms)),
            }
        clear = answers(chosen, found["fit"]).clear
        figures["majority"] = {"accuracy": share(clear.labels == most_frequent, clear.formulas)}
        result["acquisitions"][acquisition] = figures
        print(f"\n{acquisition}")
        for name, one in figures.items():
            low, high = one["accuracy"]["interval"]
            line = f"  {name:12s} {one['accuracy']['value']:.4f} [{low:.4f}, {high:.4f}]"
            if name != "majority":
                recall = " ".join(f"{entry['value']:.3f}" for entry in one["recall"].values())
                line += (
                    f"  F1 {one['macro_f1']['value']:.4f}  recall {recall}  "
                    f"ECE {one['calibration_error']:.3f}  AUROC {one['lattice_or_none_auroc']:.4f}  "
                    f"{one['cpu_ms']:.1f} ms"
                )
                for sets_of in one["conformal"]:
                    line += f"  covers {sets_of['coverage']['value']:.3f} by {sets_of['mean_size']:.2f}"
            print(line, flush=True)
    result["legacy"] = legacy(
        options.data, {name: methods[name] for name in ("fit", "network")}, options.split
    )
    told_legacy = ", ".join(f"{name} {one['value']:.4f}" for name, one in result["legacy"].items())
    print(f"\nlegacy labels: {told_legacy}")
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
