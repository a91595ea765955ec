"""Super-resolution: what a finished run reports about the test rows, and what travels with its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator

from atomvision_hub.engine.data import Rows, Source
from atomvision_hub.engine.tasks.srgan.batches import Prepared
from atomvision_hub.engine.tasks.srgan.config import SrganConfig, SrganTraining
from atomvision_hub.engine.tasks.srgan.judge import Judge
from atomvision_hub.engine.tasks.srgan.scores import (
    METHOD_COLUMNS,
    Scene,
    choose_smoothing,
    columns_found,
    columns_of_row,
    judge_images,
    method_rows,
    metric_facts,
    simple_methods,
)
from atomvision_hub.engine.tasks.srgan.views import Views, decode_views, spread_rows
from atomvision_hub.models.super_resolution import SCALE

#: Doses of the table, electrons per Å².
DOSES = (50.0, 150.0, 500.0, 1500.0, 5000.0)


def known_facts(source: Source, config: SrganTraining, side: int) -> dict[str, Any]:
    """Return what travels with the weights: pixel size and field of view of the input, degradation."""
    known: dict[str, Any] = dict(source.calibration(config.crop / side))
    if known:
        known["pixel_size"] = [round(SCALE * value, 9) for value in known["pixel_size"]]
    known |= {"scale": SCALE, "degradation": config.degradation}
    return known | ({"dose": list(config.dose)} if config.degradation == "physical" else {})


@dataclass(frozen=True)
class Report:
    """Figures on the test rows, and pictures of some of them."""

    metrics: dict[str, dict[str, Any]]
    tables: list[dict[str, Any]]
    notes: list[str]
    examples: list[tuple[str, dict[str, npt.NDArray[np.float32]]]]
    pixel_size: float | None

    def facts(self, chosen: Mapping[str, Any], origin: str, config: SrganTraining) -> dict[str, Any]:
        """Return what the card adds to the facts of every run, for the `chosen` epoch.

        `origin` says where the content loss has its weights from.
        """
        mse = config.pretrain_epochs == config.epochs
        loss = (
            "Trained by mean squared error alone, without adversary."
            if mse
            else f"Content loss `{config.content}` ({origin}), adversarial loss weighted "
            f"{config.adversarial:g}, after {config.pretrain_epochs} epochs by mean squared error."
        )
        captions = {
            "curves.png": "Validation over the epochs; grey: by mean squared error alone.",
            "examples.png": "Test images as they were tested: low resolution, enlargements, truth.",
        }
        return {
            "metrics": {
                "validation": {name: chosen[name] for name in ("psnr", "content")},
                "test": self.metrics,
            },
            "tables": self.tables,
            "figures": [{"file": file, "caption": caption} for file, caption in captions.items()],
            "notes": [loss, *self.notes],
        }

    def in_words(self) -> str:
        """Return the main figures in one line."""
        units = {"dB": " dB", "Å": " Å", "1": ""}
        return ", ".join(
            f"{name.replace('_', ' ')} {figure['value']:.4g}{units[figure['unit']]}"
            for name, figure in self.metrics.items()
            if figure["value"] is not None
        )


def test_report(
    model: torch.nn.Module,
    source: Source,
    config: SrganConfig,
    side: int,
    validation: Judge,
    accelerator: Accelerator,
) -> Report | None:
    """Open the test rows and judge the network and simple methods on them.

    Every process has to call it (they share the network's work); all but the main one get None.
    """
    settings, rows = config.training, source.splits["test"]
    views = decode_views(rows, side, config.data.pixel_size)
    data = Prepared(views, settings, accelerator.device)
    judge = Judge(data, settings, accelerator, seed=settings.seed + 1)
    answers = judge.answers(model)
    picked = spread_rows(len(rows), settings.dose_rows)
    doses = DOSES if settings.degradation == "physical" else ()
    part = Prepared(views.rows(picked), settings, accelerator.device)
    dosed = [Judge(part, settings, accelerator, seed=settings.seed + 2, dose=dose) for dose in doses]
    dose_answers = [one.answers(model) for one in dosed]
    if not accelerator.is_main_process:
        return None

    name = "this_network"
    smoothing = 0.0
    if settings.degradation == "physical":
        # What noise calls for before any interpolation; its width is chosen on validation images.
        few = spread_rows(len(validation.data), 64)
        smoothing = choose_smoothing(validation.low()[few], validation.truth()[few])
    scenes = _scenes(rows, views, judge.truth(), config)
    sought = spread_rows(len(rows), settings.atom_rows)
    scenes = [
        scene if index in set(sought.tolist()) else Scene(scene.truth) for index, scene in enumerate(scenes)
    ]
    methods = {
        "high_resolution": judge.truth(),
        **simple_methods(judge.low(), smoothing),
        name: answers,
    }
    scores = judge_images(methods, scenes)
    groups = np.array(rows.columns["material_id"]) if "material_id" in rows.columns else None
    floor = scores.pop("high_resolution")
    table = method_rows(scores)
    floor_row = method_rows({"high resolution": floor})[0]
    table.append([floor_row[0], None, None, *floor_row[3:]])
    tables = [
        {
            "title": "Methods",
            "columns": list(METHOD_COLUMNS),
            "rows": table,
            "note": _methods_note(settings, len(rows), len(sought), smoothing),
        }
    ]
    if dosed:
        tried: dict[str, npt.NDArray[np.float32]] = {}
        for dose, one, made in zip(doses, dosed, dose_answers, strict=True):
            tried |= {
                f"{dose:g}|{method}": images
                for method, images in {**simple_methods(one.low(), smoothing), name: made}.items()
                if method != "lanczos"
            }
        judged = judge_images(tried, _scenes(rows, views, judge.truth(), config, picked))
        dose_rows = [[*str(row[0]).split("|"), *row[1:]] for row in method_rows(judged)]
        tables.append(
            {
                "title": "Over dose",
                "columns": ["dose (e/Å²)", *METHOD_COLUMNS],
                "rows": dose_rows,
                "note": f"{len(picked)} of the test images at one dose each.",
            }
        )
    shown = [int(row) for row in spread_rows(len(rows), 5)[1:-1]] or [0]
    names = rows.columns.get(
        "material_id", rows.columns.get("id", [f"image {row}" for row in range(len(rows))])
    )
    low, truth = judge.low(), judge.truth()
    examples = []
    for row in shown:
        title = str(names[row])
        if settings.degradation == "physical":
            title += f"\n{float(judge.doses[row]):.0f} e/Å²"
        pictures = {"low resolution": low[row], "bicubic": methods["bicubic"][row]}
        examples.append((title, pictures | {"this network": answers[row], "truth": truth[row]}))
    size = math.sqrt(float(views.area[0]))
    return Report(
        metrics=metric_facts(scores, name, groups),
        tables=tables,
        notes=_notes(config, bool(np.isfinite(views.area).all()), "atoms" in rows.columns),
        examples=examples,
        pixel_size=size if math.isfinite(size) else None,
    )


def _scenes(
    rows: Rows,
    views: Views,
    truth: npt.NDArray[np.float32],
    config: SrganConfig,
    picked: npt.NDArray[np.int64] | None = None,
) -> list[Scene]:
    scenes = []
    for index in range(len(rows)) if picked is None else picked.tolist():
        size = (
            rows.columns["pixel_size"][index]
            if "pixel_size" in rows.columns
            else [config.data.pixel_size] * 2
        )
        if None in size:
            scenes.append(Scene(truth[index]))
            continue
        steps = (float(size[0] or 0), float(size[1] or 0))
        if "atoms" in rows.columns:
            corner = (int(views.left[index]), int(views.top[index]))
            exponent = float(rows.columns["z_exponent"][index])
            shape = truth[index].shape
            columns = columns_of_row(rows.columns["atoms"][index], shape, steps, exponent, corner)
        else:
            columns = columns_found(truth[index], steps)
        scenes.append(Scene(truth[index], columns, steps))
    return scenes


def _methods_note(config: SrganTraining, rows: int, sought: int, smoothing: float) -> str:
    how = (
        "Low resolution by bicubic reduction to a quarter, 8 bit."
        if config.degradation == "bicubic"
        else "Low resolution by adding up 4 x 4 pixels and drawing the number of electrons, "
        f"{config.dose[0]:g} to {config.dose[1]:g} detected electrons per Å² (log-uniform, fixed seed)."
    )
    smooth = f" Smoothed: by a Gaussian of {smoothing:g} px, chosen on validation images."
    if not smoothing:
        lowers = " Smoothing before the interpolation lowers the mean PSNR of validation images at any width."
        smooth = lowers if config.degradation == "physical" else ""
    return (
        f"{how}{smooth} PSNR and SSIM on {rows} images, atoms on {sought}. Atoms are sought by "
        "`detect_atoms`; what it finds in the true images is the row of the high resolution."
    )


def _notes(config: SrganConfig, calibrated: bool, told: bool) -> list[str]:
    notes = []
    if config.training.degradation == "bicubic":
        notes.append(
            "Without noise an image of columns ten pixels wide loses little when it is reduced to a quarter: "
            "plain interpolation is hard to beat here, and this is no measure of use on micrographs."
        )
    else:
        notes.append("The dose is the only noise it knows: no drift, scan distortion or amorphous support.")
    if not calibrated:
        notes.append("The images tell no pixel size: atoms were not scored.")
    elif not told:
        notes.append("Nobody tells the true atoms: those found in the high-resolution images count as true.")
    return notes
