"""How many pixels a segmenter gets right alone, and with columns fitted to the image, over dose.

    python benchmarks/bench_segmenter.py DATASET [--split validation] [--rows N] [--doses 0 5000 500 50]
        [--model DIR] [--config defects] [--workers N] [--card model_cards/atom-segmenter]
        [--out benchmarks/results/segmenter-DAY.json] [--picture docs/images/columns.png]

The images are those of the model's card: rows of the split as stored (8 bits), or with Poisson noise of so
many detected electrons per Å², then 8 bits; masks are disks of the model's first radius (0.5 Å). *network*:
the answer of `Segmenter.predict(images)`; *columns*: that of `Segmenter.predict(images, pixel_size=...)`,
which also fits columns and takes their disks where they explain the image and agree with the network.
Intervals: 95 %, whole materials drawn again. Times are those of one process on one core beside the others.

--card writes the figures into the facts of a model and renders its card anew; only for the test split, which
is opened once a release. --picture draws three validation images of which less than a quarter of the columns
can be resolved, at equal steps through them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from _machine import machine_facts
from accelerate import Accelerator
from matplotlib.figure import Figure
from rich.progress import track

from atomvision_hub._files import atomic_path, write_json
from atomvision_hub.analysis.atom_scores import true_columns
from atomvision_hub.cards.model import write_model_card
from atomvision_hub.engine.scenes import Scenes, decode
from atomvision_hub.engine.tasks.segmenter import (
    Condition,
    SegmenterConfig,
    accuracy,
    iou,
    open_scenes,
    record,
)
from atomvision_hub.engine.tasks.segmenter_report import SHARES, interval
from atomvision_hub.engine.workers import cores, worker_pool
from atomvision_hub.models.pretrained import DEFAULT_SEGMENTER, pretrained_folder
from atomvision_hub.models.segmenter import Segmenter

Pixels = npt.NDArray[np.bool_]
_CHUNK = 4
_NETWORKS: dict[str, Segmenter] = {}


def judge(model: str, images: npt.NDArray[np.float32], masks: Pixels, sizes: list[float]) -> list[Any]:
    """Return of each image the outcomes of network and columns, whether columns answered, and both times."""
    network = _NETWORKS.setdefault(model, Segmenter.from_pretrained(model).eval())
    found = []
    for image, mask, size in zip(images, masks, sizes, strict=True):
        batch = torch.from_numpy(image)[None]
        start = time.perf_counter()
        alone = network.predict(batch)
        middle = time.perf_counter()
        fitted = network.predict(batch, pixel_size=size)
        end = time.perf_counter()
        counts = [outcome((answer[0, 0] >= network.threshold).numpy(), mask) for answer in (alone, fitted)]
        found.append((counts, not torch.equal(alone, fitted), middle - start, end - middle))
    return found


def outcome(answer: Pixels, truth: Pixels) -> list[int]:
    """Return true positives, false positives, false negatives, true negatives."""
    return [int((answer == a).__and__(truth == b).sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]


def chunks(
    groups: list[Scenes], rows: int | None, dose: float, radius: float
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Pixels, list[float]]]:
    """Yield numbers of rows, images, masks and pixel sizes."""
    condition = Condition(dose=dose or math.inf)
    for group in groups:
        count = len(group) if rows is None else min(rows, len(group))
        for places in np.array_split(np.arange(count), math.ceil(count / _CHUNK)):
            images, masks, _ = record(group, places, (radius,), condition, 0)
            sizes = group.pixel_size[places].tolist()
            yield group.rows[places], images.numpy(), masks[:, 0].numpy(), sizes


def at_dose(
    model: str, groups: list[Scenes], rows: int | None, dose: float, radius: float, workers: int
) -> dict[int, Any]:
    """Return what `judge` tells of every row."""
    results: dict[int, Any] = {}
    with worker_pool(workers) as pool:
        jobs = [
            (numbers, pool.submit(judge, model, images, masks, sizes))
            for numbers, images, masks, sizes in chunks(groups, rows, dose, radius)
        ]
        for numbers, job in track(jobs, description=f"{dose:g} electrons/Å²" if dose else "noise-free"):
            results |= dict(zip(numbers.tolist(), job.result(), strict=True))
    return results


def scores(found: npt.NDArray[np.float64], materials: list[str]) -> dict[str, Any]:
    """Return pixel accuracy and IoU of outcomes [row, 4] with their intervals."""
    return {
        "pixel_accuracy": accuracy(found),
        "pixel_accuracy_interval": interval(found, accuracy, materials),
        "iou": iou(found),
        "iou_interval": interval(found, iou, materials),
    }


def summary(results: dict[int, Any], materials: list[str], picked: list[int] | None = None) -> dict[str, Any]:
    """Return the scores of network and columns on all rows, or on some."""
    rows = sorted(results) if picked is None else picked
    counts = np.array([results[row][0] for row in rows], dtype=np.float64)
    names = [materials[row] for row in rows]
    fits = np.array([results[row][3] - results[row][2] for row in rows])
    return {
        "n": len(rows),
        "materials": len(set(names)),
        "network": scores(counts[:, 0], names),
        "columns": scores(counts[:, 1], names),
        "columns_answered": float(np.mean([results[row][1] for row in rows])),
        "fit_seconds_50_95_100_percent": np.quantile(fits, [0.5, 0.95, 1]).tolist(),
    }


def resolvable(columns: Any, groups: list[Scenes]) -> dict[int, float]:
    """Return the share of the columns of each row that can be resolved."""
    share = {}
    for group in groups:
        for row in group.rows.tolist():
            size = tuple(columns["pixel_size"][row])
            found = true_columns(columns["atoms"][row], group.shape, size, columns["z_exponent"][row])
            share[row] = float(found.resolvable[found.inside].mean()) if found.inside.any() else 1.0
    return share


def put_on_card(folder: Path, report: dict[str, Any]) -> None:
    """Write the figures of the test split into the facts of a model, and its card anew."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    free = report["doses"]["noise_free"]
    for name in ("pixel_accuracy", "iou"):
        facts["metrics"]["test"][f"{name}_with_columns"] = {
            "value": free["columns"][name],
            "unit": "1",
            "n": free["n"],
            "groups": free["materials"],
            "interval": free["columns"][f"{name}_interval"],
            "baselines": {"network alone": free["network"][name]},
            "note": "noise-free; columns fitted to the image, `predict(images, pixel_size=...)`",
        }
    title = "With columns fitted to the image"
    rows = []
    for name, part in [*report["doses"].items(), *report["resolvable"].items()]:
        numbers = [
            part[kind][score] for kind in ("columns", "network") for score in ("pixel_accuracy", "iou")
        ]
        answered = f"{100 * part['columns_answered']:.0f} %"
        rows.append([name.replace("_", " "), *(f"{100 * n:.2f} %" for n in numbers), answered, part["n"]])
    heads = ["pixel accuracy", "IoU", "network: pixel accuracy", "network: IoU", "columns answered", "n"]
    table = {
        "title": title,
        "columns": ["images", *heads],
        "rows": rows,
        "note": "Columns on a lattice with heights of their own, or loose ones, explain the image down "
        "to its noise (`analysis.fit_columns`). Where they do and agree with the network (IoU 0.6, "
        "0.5 without noise), their disks are the answer, elsewhere the network's mask. "
        "By `benchmarks/bench_segmenter.py`.",
    }
    facts["tables"] = [*(entry for entry in facts["tables"] if entry["title"] != title), table]
    write_json(folder / "facts.json", facts)
    write_model_card(folder)


def draw(model: str, groups: list[Scenes], columns: Any, radius: float, path: Path) -> None:
    """Draw images, masks and both answers as PNG."""
    network = Segmenter.from_pretrained(model).eval()
    share = resolvable(columns, groups[:1])
    dense = [place for place, row in enumerate(groups[0].rows.tolist()) if share[row] < 0.25]
    places = np.array(dense)[np.linspace(0, len(dense) - 1, 5).astype(int)[1:4]]
    images, masks, _ = record(groups[0], places, (radius,), Condition(), 0)
    sizes = groups[0].pixel_size[places].tolist()
    answers = [network.predict(images), network.predict(images, pixel_size=sizes)]
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(len(places), 4)
    for line, (picture, truth) in enumerate(zip(images[:, 0], masks[:, 0], strict=True)):
        material = str(columns["material_id"][int(groups[0].rows[places[line]])])
        shown: list[tuple[str, Any]] = [(material.split("-")[-2], picture.numpy()), ("atoms", truth.numpy())]
        for name, answer in zip(("network", "columns"), answers, strict=True):
            mask = (answer[line, 0] >= network.threshold).numpy()
            hits, false, missed, _ = outcome(mask, truth.numpy())
            shown.append((f"{name}: IoU {hits / (hits + false + missed):.2f}", mask))
        for axis, (name, values) in zip(axes[line], shown, strict=True):
            axis.imshow(values, cmap="gray", interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(name, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default=str(pretrained_folder(DEFAULT_SEGMENTER)))
    parser.add_argument("--config", default="defects")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--doses", type=float, nargs="+", default=[0, 5000, 500, 50], help="0: noise-free")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--card", type=Path)
    parser.add_argument("--picture", type=Path, help="draw three validation images, and no more")
    args = parser.parse_args()
    if args.picture and args.split == "test":
        parser.error("pictures are drawn of validation images")
    if args.card and (args.split != "test" or args.rows or 0 not in args.doses):
        parser.error("a card needs all rows of the test split, noise-free among the doses")

    config = SegmenterConfig()
    data = config.data.model_copy(update={"path": args.dataset, "config": args.config})
    source = open_scenes(data, seed=0, limit=None)
    part = source.splits[args.split]
    groups = decode(part, Accelerator(cpu=True).device)
    radius = float(Segmenter.from_pretrained(args.model).known["mask_radii"][0])
    if args.picture:
        draw(args.model, groups, part.columns, radius, args.picture)
        return
    materials = [str(name) for name in part.columns["material_id"]]
    report: dict[str, Any] = {
        "machine": machine_facts(),
        "model": Path(args.model).name,
        "data": source.data_facts({}) | {"split": args.split},
        "workers": args.workers,
        "doses": {},
        "resolvable": {},
    }
    for dose in args.doses:
        results = at_dose(args.model, groups, args.rows, dose, radius, args.workers)
        name = f"{dose:g} e/Å²" if dose else "noise_free"
        report["doses"][name] = summary(results, materials)
        print(name, json.dumps(report["doses"][name], indent=1, ensure_ascii=False), flush=True)
        if dose:
            continue
        share = resolvable(part.columns, groups)
        for low, high in itertools.pairwise(SHARES):
            picked = [row for row in sorted(results) if low <= share[row] < high]
            told = "all columns" if low >= 1 else f"{100 * low:g} to {100 * high:g} % of columns"
            if picked:
                report["resolvable"][f"{told} resolvable"] = summary(results, materials, picked)
        light = [row for row in sorted(results) if 1 in part.columns["atoms"][row]["number"]]
        heavier = sorted(set(results) - set(light))
        report["hydrogen"] = {
            name: summary(results, materials, rows)
            for name, rows in (("with", light), ("without", heavier))
            if rows
        }
    if args.out:
        write_json(args.out, report)
    if args.card:
        put_on_card(args.card, report)


if __name__ == "__main__":
    main()
