"""Pictures of a run: learning curves and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atomvision_hub._files import atomic_path


def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw loss and validation scores over the epochs as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(epochs, [entry["loss"] for entry in history], marker=".", label="training")
    left.plot(epochs, [entry["validation_loss"] for entry in history], marker=".", label="validation")
    left.set(xlabel="epoch", ylabel="cross-entropy")
    right.plot(epochs, [entry["accuracy"] for entry in history], marker=".", label="accuracy")
    right.plot(epochs, [entry["macro_f1"] for entry in history], marker=".", label="macro-F1")
    right.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def draw_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix, counts with shares of the true class as colour, as PNG."""
    from matplotlib.figure import Figure

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.2 + 0.75 * len(classes)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    names = [name.replace("_", " ") for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(
        range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(1), strict=True)]
    )
    axes.set(xlabel="predicted", ylabel="true (n)")
    if len(names) <= 20:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
