"""What a finished run states: scores on the test rows and facts for the card."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atomvision_hub import __version__
from atomvision_hub.engine.config import Options, RunConfig
from atomvision_hub.engine.data import Source
from atomvision_hub.engine.metrics import ceiling, evaluate, macro_f1_interval, majority_baseline, proportion

_PACKAGES = (
    "accelerate",
    "alignn",
    "datasets",
    "numpy",
    "segmentation-models-pytorch",
    "timm",
    "torch",
    "transformers",
)
#: Packages that only some tasks use.
_TASK_PACKAGES = {
    "alignn": ("alignn",),
    "segmentation-models-pytorch": ("segmenter",),
    "timm": ("classifier", "segmenter"),
    "transformers": ("classifier",),
}


def test_report(source: Source, predicted: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return all scores on the test rows: overall, baseline, ceilings, prototypes that training never saw."""
    train, test = source.splits["train"], source.splits["test"]
    groups = np.array(test.columns["material_id"]) if "material_id" in test.columns else None
    scores = evaluate(test.labels, predicted, source.classes, groups)
    scores["macro_f1"]["interval"] = list(macro_f1_interval(test.labels, predicted, groups))
    scores["majority_class"] = majority_baseline(train.labels, test.labels, groups)
    if source.facts["label"] == "lattice_legacy":
        # These labels depend on the choice of the cell: who knows the lattice must still guess.
        scores["ceilings"] = {
            column: ceiling(
                np.asarray(train.columns[column]), train.labels, np.asarray(test.columns[column]), test.labels
            )
            for column in ("lattice", "lattice_projected")
            if column in train.columns
        }
    if "prototype" in test.columns:
        seen = set(train.columns["prototype"])
        new = np.array([prototype not in seen for prototype in test.columns["prototype"]], dtype=bool)
        scores["new_prototypes"] = {
            "accuracy": proportion((test.labels == predicted)[new], None if groups is None else groups[new])
        }
        if new.any():
            part = evaluate(test.labels[new], predicted[new], source.classes)
            scores["new_prototypes"]["macro_f1"] = part["macro_f1"]
    return scores


def in_words(test: dict[str, Any]) -> str:
    """Return the scores of a `test_report` in one line."""
    accuracy = test["accuracy"]
    low, high = accuracy["interval"]
    return (
        f"accuracy {accuracy['value']:.3f} ({low:.3f} to {high:.3f}, n = {accuracy['n']}), "
        f"macro-F1 {test['macro_f1']['value']:.3f}"
    )


def hardware(device: torch.device, processes: int) -> str:
    """Return the hardware in words, without names of machines."""
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU ({platform.machine()}), {cores} cores, {processes} process{'es' if processes > 1 else ''}"


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, ``-dirty`` appended, or None.

    The variable ``ATOMVISION_COMMIT`` tells it for a copy without ``.git``, as on a rented machine.
    """
    if told := os.environ.get("ATOMVISION_COMMIT"):
        return told
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        describe = [
            "git",
            "-C",
            str(root),
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty",
            "--exclude",
            "*",
        ]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def base_facts(
    config: RunConfig,
    data: dict[str, Any],
    *,
    task: str,
    model_name: str,
    model: torch.nn.Module,
    options: Options,
    history: Sequence[dict[str, Any]],
    best_epoch: int,
    hardware: str,
    seconds: float,
) -> dict[str, Any]:
    """Return what every run states; the task adds its scores.

    Parameters
    ----------
    data
        What the model learned from: `Source.data_facts`, or the same keys.
    task, model_name
        The Hub's ``pipeline_tag``, and what to call the model.
    history, best_epoch
        One entry an epoch; the one that validation chose.
    seconds
        Training time.
    """
    packages = {
        name: importlib.metadata.version(name)
        for name in _PACKAGES
        if name not in _TASK_PACKAGES or config.task_name in _TASK_PACKAGES[name]
    }
    facts = {
        "task": task,
        "model_name": model_name,
        "version": __version__,
        "commit": commit(),
        "data": data,
        "config": config.model_dump(mode="json", exclude={"data"}),
        "parameters": sum(value.numel() for value in model.parameters()),
        "seed": config.training.seed,
        "tiny": options.tiny,
        "best_epoch": best_epoch,
        "epochs": len(history),
        "hardware": hardware,
        "training_seconds": round(seconds, 1 if seconds >= 1 else 6),  # toy runs take milliseconds
        "environment": packages | {"python": platform.python_version()},
    }
    # The classifier's own facts have had no kind since before there were others.
    return facts if getattr(model, "kind", None) is None else facts | {"kind": model.kind}
