"""How segmenters are judged: beside a threshold, over dose, pixel size, rotation and missing atoms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from atomvision_hub._files import atomic_path
from atomvision_hub.analysis.atom_scores import true_columns
from atomvision_hub.analysis.atoms import RESOLVABLE_DISTANCE, RESOLVABLE_PEAK
from atomvision_hub.engine.data import Source
from atomvision_hub.engine.loop import gather_rows
from atomvision_hub.engine.scenes import Scenes
from atomvision_hub.engine.tasks.segmenter import (
    Condition,
    accuracy,
    count_answers,
    iou,
    outcomes,
    record,
)

Outcomes = npt.NDArray[np.float64]

#: Doses of the curve, electrons/Å².
DOSES = (math.inf, 1e5, 5000.0, 500.0, 50.0, 20.0)
#: The dose of the `typical` preset of the acquisition model, at which robustness is looked at too.
TYPICAL = 500.0
ZOOMS = (0.5, 0.7, 1.0, 1.4, 2.0)
TURNS = (0.0, 15.0, 30.0, 45.0)
MISSING = (0.0, 0.01, 0.03, 0.1)
#: Shares of an image's columns that can be resolved, edges of the table's rows; the last one is "all".
SHARES = (0.0, 0.25, 0.5, 0.9, 1.0, 1.1)
#: Contrast of an atom relative to the brightest one of its image; 1/255 is one grey level.
CONTRASTS = (1 / 255, 4 / 255, 16 / 255, 64 / 255)
#: The paper's pixel accuracy (its U-Net, its materials and noise-free images).
PAPER_ACCURACY = 0.930


class Otsu(torch.nn.Module):
    """The peer: N. Otsu's threshold of each image (doi 10.1109/TSMC.1979.4310076), from 256 grey levels."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor, *, every: bool = True) -> Tensor:
        """Return logits: certain that what is brighter than the threshold is atom."""
        levels = (images * 255).round().long().flatten(1)
        batch = len(levels)
        first = 256 * torch.arange(batch, device=images.device)[:, None]
        counts = torch.bincount((levels + first).flatten(), minlength=256 * batch).view(batch, 256).double()
        below = counts.cumsum(1)
        weighted = (counts * torch.arange(256, device=images.device)).cumsum(1)
        above = below[:, -1:] - below
        means = weighted / below.clamp(min=1), (weighted[:, -1:] - weighted) / above.clamp(min=1)
        threshold = (below * above * (means[0] - means[1]).square()).argmax(1)
        atom = levels > threshold[:, None]
        logits = torch.where(atom, 20.0, -20.0).view(images.shape)
        return logits.expand(-1, self.outputs if every else 1, -1, -1)


class Judge:
    """Counts right and wrong pixels of the network and of Otsu's threshold on the test rows.

    Every method runs on all processes.

    Parameters
    ----------
    model, threshold
        The network and the probability above which a pixel counts as atom.
    scenes
        The decoded test rows.
    radii
        Of the masks, Å; empty where masks are bitmaps.
    robustness_rows
        Rows of the tables of robustness.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        threshold: float,
        scenes: Sequence[Scenes],
        radii: Sequence[float],
        accelerator: Accelerator,
        robustness_rows: int,
    ) -> None:
        self.model, self.threshold, self.scenes = model, threshold, scenes
        self.radii, self.accelerator, self.rows = tuple(radii), accelerator, robustness_rows
        self.otsu = Otsu(max(1, len(self.radii)))

    @property
    def simulated(self) -> bool:
        """Whether there are atoms, so that images can be recorded under any condition."""
        return all(group.atoms is not None for group in self.scenes)

    def outcomes(self, condition: Condition, rows: int | None = None) -> tuple[Outcomes, Outcomes]:
        """Return outcomes [row, mask, 4] of the network and of Otsu's threshold."""
        found = []
        for model, threshold in ((self.model, self.threshold), (self.otsu, 0.5)):
            counts = count_answers(model, self.scenes, self.radii, condition, self.accelerator, rows=rows)
            found.append(outcomes(counts, threshold))
        return found[0], found[1]

    def by_contrast(self) -> npt.NDArray[np.int64]:
        """Return mask pixels by the contrast of the atom they belong to: [contrast class, (all, found)]."""
        kinds = len(CONTRASTS) + 1
        total = torch.zeros(kinds, 2, dtype=torch.int64)
        edges = torch.tensor(CONTRASTS, device=self.accelerator.device)
        self.model.eval()
        for group in self.scenes:

            def count(places: npt.NDArray[np.int64], group: Scenes = group) -> Tensor:
                images, masks, contrast = record(group, places, self.radii, Condition(), 0, contrast=True)
                assert contrast is not None
                found = self.model(images).float().sigmoid()[:, 0] >= self.threshold
                kind = torch.bucketize(contrast, edges, right=True)
                # Background pixels go to one more class, which is cut off.
                kind = torch.where(masks[:, 0], kind, kinds)
                code = 2 * kind + found
                first = torch.arange(len(places), device=code.device)[:, None, None] * 2 * (kinds + 1)
                counts = torch.bincount((code + first).flatten(), minlength=len(places) * 2 * (kinds + 1))
                return counts.view(len(places), kinds + 1, 2)[:, :kinds]

            batch = max(1, 24 * 256**2 // (group.shape[0] * group.shape[1]))
            missed_found = gather_rows(count, len(group), self.accelerator, batch).sum(0)
            total += torch.stack([missed_found.sum(1), missed_found[:, 1]], 1)
        return total.numpy()


def interval(
    found: Outcomes, score: Callable[[Outcomes], float], groups: Sequence[Any], *, draws: int = 1000
) -> list[float]:
    """Return the 95 % bootstrap interval of a score of outcomes [row, 4]; whole groups are drawn, seeded."""
    members = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.zeros((int(members.max()) + 1, 4))
    np.add.at(sums, members, found)
    generator = np.random.default_rng(0)
    drawn = [score(sums[generator.integers(0, len(sums), len(sums))]) for _ in range(draws)]
    return [float(edge) for edge in np.quantile(drawn, [0.025, 0.975])]


def judge_test(judge: Judge, source: Source) -> dict[str, Any]:
    """Return ``metrics.test``, ``tables`` and what the pictures need, of the test rows.

    Runs on all processes, each gets the same.
    """
    columns = source.splits["test"].columns
    ours, otsu = judge.outcomes(Condition())
    groups = columns.get("material_id", list(range(len(ours))))

    def result(found: Outcomes, score: Callable[[Outcomes], float], **more: Any) -> dict[str, Any]:
        return {
            "value": score(found),
            "unit": "1",
            "n": len(found),
            "groups": len(set(groups)),
            "interval": interval(found, score, groups),
        } | more

    background = (ours[:, 0, 1] + ours[:, 0, 3]).sum() / ours[:, 0].sum()
    size = f", disks of {judge.radii[0]} Å" if judge.radii and judge.simulated else ""
    paper = {"paper": PAPER_ACCURACY} if judge.simulated else {}
    test = {
        "pixel_accuracy": result(
            ours[:, 0],
            accuracy,
            baselines={"Otsu threshold": accuracy(otsu[:, 0]), "always background": float(background)},
            note=f"{'noise-free' if judge.simulated else 'images as they are'}{size}; all pixels together",
            **paper,
        ),
        "iou": result(
            ours[:, 0],
            iou,
            baselines={"Otsu threshold": iou(otsu[:, 0]), "always background": 0.0},
            note="atom pixels: intersection over union, all pixels together",
        ),
    }
    if not judge.simulated:
        return {"test": test, "tables": [], "doses": []}
    if "prototype" in columns:
        seen = set(source.splits["train"].columns["prototype"])
        new = np.array([prototype not in seen for prototype in columns["prototype"]])
        if new.any():
            materials = [group for group, keep in zip(groups, new, strict=True) if keep]
            test["iou_of_new_prototypes"] = {
                "value": iou(ours[new, 0]),
                "unit": "1",
                "n": int(new.sum()),
                "groups": len(set(materials)),
                "interval": interval(ours[new, 0], iou, materials),
                "baselines": {"Otsu threshold": iou(otsu[new, 0])},
                "note": "structure prototypes that training never saw, noise-free",
            }
    doses, curve = _dose_table(judge, (ours, otsu))
    tables = [
        doses,
        _radius_table(judge, ours, otsu),
        _resolvable_table(judge, columns, ours, otsu),
        _contrast_table(judge, ours),
        *_robustness(judge),
    ]
    return {"test": test, "tables": tables, "doses": curve}


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _scores(found: Outcomes) -> list[str]:
    return [_percent(accuracy(found)), _percent(iou(found))]


_COLUMNS = ("pixel accuracy", "IoU", "Otsu: pixel accuracy", "Otsu: IoU")


def _dose_table(
    judge: Judge, free: tuple[Outcomes, Outcomes]
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    rows: list[list[Any]] = []
    curve = []
    for dose in DOSES:
        ours, otsu = free if math.isinf(dose) else judge.outcomes(Condition(dose=dose))
        name = "noise-free" if math.isinf(dose) else f"{dose:g}"
        rows.append([name, *_scores(ours[:, 0]), *_scores(otsu[:, 0]), len(ours)])
        curve.append({"dose": dose, "iou": iou(ours[:, 0]), "otsu": iou(otsu[:, 0])})
    table = {
        "title": "Dose",
        "columns": ["detected electrons per Å²", *_COLUMNS, "n"],
        "rows": rows,
        "note": "All test rows at their own pixel size; Poisson counts, then 8 bits.",
    }
    return table, curve


def _radius_table(judge: Judge, ours: Outcomes, otsu: Outcomes) -> dict[str, Any]:
    order = np.argsort(judge.radii)
    return {
        "title": "Radius of the disks",
        "columns": ["radius, Å", "atom pixels", *_COLUMNS],
        "rows": [
            [
                f"{judge.radii[index]:g}",
                _percent(float((ours[:, index, 0] + ours[:, index, 2]).sum() / ours[:, index].sum())),
                *_scores(ours[:, index]),
                *_scores(otsu[:, index]),
            ]
            for index in order
        ],
        "note": "Noise-free. One network learned all radii at once, one output each; the same threshold.",
    }


def _resolvable_table(
    judge: Judge, columns: Mapping[str, Any], ours: Outcomes, otsu: Outcomes
) -> dict[str, Any]:
    """Return the table of images by how many of their columns can be told apart at all."""
    share = np.ones(len(ours))
    for group in judge.scenes:
        for row in group.rows.tolist():
            found = true_columns(
                columns["atoms"][row],
                group.shape,
                tuple(columns["pixel_size"][row]),
                columns["z_exponent"][row],
            )
            if found.inside.any():
                share[row] = found.resolvable[found.inside].mean()
    rows = []
    for low, high in itertools.pairwise(SHARES):
        chosen = (share >= low) & (share < high)
        if chosen.any():
            name = "all" if low >= 1 else f"{100 * low:g} % to {100 * high:g} %"
            ratio = float((ours[chosen, 0, 0] + ours[chosen, 0, 2]).sum() / ours[:, 0][:, [0, 2]].sum())
            scores = [*_scores(ours[chosen, 0]), *_scores(otsu[chosen, 0])]
            rows.append([name, int(chosen.sum()), _percent(ratio), *scores])
    return {
        "title": "What limits it: columns too near or too faint to be seen",
        "columns": ["columns of the image that can be resolved", "n", "share of mask", *_COLUMNS],
        "rows": rows,
        "note": f"Noise-free. Resolvable: nearest column at least {RESOLVABLE_DISTANCE} Å away, peak at "
        f"least {100 * RESOLVABLE_PEAK:g} % of the brightest. Where several disks hide under one blob "
        "the image does not tell their outline.",
    }


def _contrast_table(judge: Judge, ours: Outcomes) -> dict[str, Any]:
    counts = judge.by_contrast()
    edges = [f"{round(255 * value)}/255" for value in CONTRASTS]
    names = [f"below {edges[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(edges))]
    rows = [
        [name, _percent(every / counts[:, 0].sum()), _percent(hit / every) if every else None]
        for name, (every, hit) in zip([*names, f"{edges[-1]} and more"], counts.tolist(), strict=True)
    ]
    hits, false = ours[:, 0, 0].sum(), ours[:, 0, 1].sum()
    wrong = _percent(1 - hits / max(1, hits + false))
    return {
        "title": "What limits it: the contrast of atoms",
        "columns": ["intensity of the atom relative to the brightest in its image", "share of mask", "found"],
        "rows": rows,
        "note": "Noise-free, pixels of the mask by the brightest atom whose disk covers them; 1/255 of the "
        "brightest atom is one grey level at most. An atom's disk is no brighter than its neighbours' tails "
        f"when the neighbours are heavy. Of the pixels called atom, {wrong} are none.",
    }


def _robustness(judge: Judge) -> list[dict[str, Any]]:
    size = float(judge.scenes[0].pixel_size[0])
    square = all(group.shape[0] == group.shape[1] for group in judge.scenes)
    plans: list[tuple[str, str, Mapping[str, Condition]]] = [
        (
            "Missing atoms",
            "share of the atoms taken out",
            {f"{100 * value:g} %": Condition(missing=value) for value in MISSING},
        )
    ]
    if all(group.psf is None for group in judge.scenes):
        plans = []
    if square:
        plans += [
            ("Pixel size", "Å/px", {f"{size * zoom:.3g}": Condition(zoom=zoom) for zoom in ZOOMS}),
            ("Rotation", "degrees", {f"{turn:g}": Condition(degrees=turn) for turn in TURNS}),
        ]
    tables = []
    for title, column, conditions in plans:
        rows = []
        for name, condition in conditions.items():
            free, _ = judge.outcomes(condition, judge.rows)
            noisy = Condition(TYPICAL, condition.zoom, condition.degrees, condition.missing)
            typical, _ = judge.outcomes(noisy, judge.rows)
            rows.append([name, *_scores(free[:, 0]), *_scores(typical[:, 0]), len(free)])
        at = f"{TYPICAL:g} e/Å²"
        heads = ["pixel accuracy, noise-free", "IoU, noise-free", f"pixel accuracy, {at}", f"IoU, {at}", "n"]
        note = (
            ""
            if title == "Missing atoms"
            else "The largest view that fits, interpolated from the test images."
        )
        tables.append({"title": title, "columns": [column, *heads], "rows": rows, "note": note})
    return tables


def draw_pictures(
    judge: Judge, history: Sequence[dict[str, Any]], curve: Sequence[dict[str, float]], folder: Path
) -> list[dict[str, str]]:
    """Draw everything that the card shows into a folder; return files and captions."""
    draw_curves(history, folder / "curves.png")
    draw_examples(judge, folder / "examples.png")
    figures = [
        {"file": "examples.png", "caption": "Test images, their masks, and the probabilities answered"},
        {"file": "curves.png", "caption": "Learning curves"},
    ]
    if curve:
        draw_doses(curve, folder / "doses.png")
        figures.insert(1, {"file": "doses.png", "caption": "IoU on the test rows over dose"})
    return figures


def in_words(test: Mapping[str, Any]) -> str:
    """Return the scores of `judge_test` in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {score['value']:.4f}" for name, score in test.items())


def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw loss and validation scores over the epochs as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(epochs, [entry["loss"] for entry in history], marker=".", label="training")
    left.plot(epochs, [entry["validation_loss"] for entry in history], marker=".", label="validation")
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    for name in history[0]:
        if name.startswith("iou"):
            right.plot(epochs, [entry[name] for entry in history], marker=".", label=_condition(name))
    right.set(xlabel="epoch", ylabel="IoU, validation", ylim=(None, 1))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
    _save(figure, path)


def _condition(name: str) -> str:
    dose = name.removeprefix("iou").removeprefix("_")
    return f"{dose} electrons/Å²" if dose.isdigit() else dose.replace("_", "-") or "validation"


def draw_doses(curve: Sequence[dict[str, float]], path: Path) -> None:
    """Draw IoU over dose as PNG, noise-free at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    order = sorted(curve, key=lambda entry: entry["dose"])
    places = range(len(order))
    axes.plot(places, [entry["iou"] for entry in order], marker="o", label="segmenter")
    axes.plot(places, [entry["otsu"] for entry in order], marker="s", label="Otsu threshold")
    names = ["no noise" if math.isinf(entry["dose"]) else f"{entry['dose']:g}" for entry in order]
    axes.set_xticks(places, names)
    axes.set(xlabel="detected electrons per Å²", ylabel="IoU", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def draw_examples(judge: Judge, path: Path) -> None:
    """Draw two test images at three doses with masks and answers as PNG."""
    from matplotlib.figure import Figure

    group = judge.scenes[0]
    places = np.unique(np.linspace(0, len(group) - 1, 2).astype(np.int64))
    doses = (math.inf, TYPICAL, 50.0) if judge.simulated else (math.inf,)
    figure = Figure(figsize=(5.6 * len(places), 2.0 * len(doses)), layout="constrained")
    axes = figure.subplots(len(doses), 3 * len(places), squeeze=False)
    for row, dose in enumerate(doses):
        images, masks, _ = record(group, places, judge.radii, Condition(dose=dose), 0)
        with torch.inference_mode():
            chances = judge.model(images).float().sigmoid()
        for index in range(len(places)):
            shown = {"image": images, "mask": masks, "answer": chances}
            if judge.simulated:
                shown = {"no noise" if math.isinf(dose) else f"{dose:g} electrons/Å²": images} | shown
                del shown["image"]
            for column, (name, values) in enumerate(shown.items(), 3 * index):
                picture = values[index, 0].float().cpu().numpy()
                axes[row, column].imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes[row, column].set_axis_off()
                axes[row, column].set_title(name, fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
