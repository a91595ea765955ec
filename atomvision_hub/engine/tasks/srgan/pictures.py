"""Super-resolution: curves and pictures of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub._files import atomic_path

Array = npt.NDArray[np.float32]


def draw_history(history: Sequence[dict[str, Any]], first: int, path: Path) -> None:
    """Draw losses and validation scores over the epochs as PNG; `first` epochs were without adversary."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    names = (
        ("psnr", "validation PSNR (dB)", False),
        ("content", "validation content loss", True),
        ("discriminator_loss", "loss of the discriminator", False),
    )
    for axes, (name, label, logarithmic) in zip(figure.subplots(1, 3), names, strict=True):
        values = [math.nan if entry[name] is None else entry[name] for entry in history]
        axes.plot(epochs, values, marker=".", markersize=3)
        axes.set(xlabel="epoch", ylabel=label)
        if logarithmic:
            axes.set_yscale("log")
        if 0 < first < len(history):
            axes.axvspan(0.5, first + 0.5, color="0.92", zorder=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def draw_examples(
    examples: Sequence[tuple[str, Mapping[str, Array]]], pixel_size: float | None, path: Path
) -> None:
    """Draw images of several materials, a row each, as PNG.

    Parameters
    ----------
    examples
        Title of the row, and its images by title; all of one field of view, some of lower resolution. Grey
        levels 0..1.
    pixel_size
        Å/px of the finest image, for a scale bar of 5 Å.
    """
    from matplotlib.figure import Figure

    titles = list(examples[0][1])
    figure = Figure(figsize=(2.1 * len(titles) + 0.3, 2.2 * len(examples) + 0.2), layout="constrained")
    grid = figure.subplots(len(examples), len(titles), squeeze=False)
    side = max(image.shape[0] for image in examples[0][1].values())
    for index, (axes_row, (name, images)) in enumerate(zip(grid, examples, strict=True)):
        for axes, title in zip(axes_row, titles, strict=True):
            extent = (-0.5, side - 0.5, side - 0.5, -0.5)
            axes.imshow(images[title], cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if index == 0:
                axes.set_title(title, fontsize=9)
        axes_row[0].set_ylabel(name, fontsize=9)
    if pixel_size is not None:
        length = 5 / pixel_size
        bar = grid[-1][-1]
        bar.plot([0.05 * side, 0.05 * side + length], [0.94 * side] * 2, color="white", linewidth=3)
        bar.text(0.05 * side, 0.9 * side, "5 Å", color="white", fontsize=8, va="bottom")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
