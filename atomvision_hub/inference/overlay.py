"""Picture of an analysis: the image with its atoms and bonds, what was told about them, their statistics."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.inference.result import Analysis
from atomvision_hub.microscopy.view import to_view

#: px a side that an image is drawn with at most, and columns above which bonds are left out.
_SIDE, _MOST_BONDS = 1400, 1500
#: Columns above which the image is dots: circles would hide it.
_MOST_CIRCLES = 4000
_MAP = "viridis"
#: Colour of the unit cell, and shortest arrow of its edges relative to the image.
_CELL, _SHORTEST_ARROW = "#ffd23f", 0.1


def overlay(image: npt.NDArray[Any], analysis: Analysis, *, bonds: bool = True) -> bytes:
    """Return a PNG: the image, the same with atoms (colour: confidence) and bonds, and their statistics.

    Parameters
    ----------
    image
        Grey levels [row, column], as given to `analyze`.
    analysis
        Its result.
    bonds
        Draw the pairs within 1.25 typical nearest distances, where columns are few enough to see them.
    """
    from matplotlib.figure import Figure

    grey = to_view(image).grey
    figure = Figure(figsize=(15, 6.6), dpi=100)
    grid = figure.add_gridspec(
        2,
        3,
        width_ratios=(1, 1, 0.6),
        left=0.01,
        right=0.985,
        bottom=0.12,
        top=0.84,
        wspace=0.05,
        hspace=0.45,
    )
    plain, marked = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[:, 1])
    _draw_image(plain, grey, analysis)
    _scale_bar(plain, analysis)
    _draw_image(marked, grey, analysis)
    drawn = _draw_atoms(marked, analysis, bonds)
    draw_cell(plain, analysis)
    # In a place of its own, so that both pictures stay of one size.
    bar = figure.add_axes((0.44, 0.075, 0.26, 0.02))
    figure.colorbar(drawn, cax=bar, orientation="horizontal", label=_colour_label(analysis))
    _draw_distances(figure.add_subplot(grid[0, 2]), analysis)
    _draw_heights(figure.add_subplot(grid[1, 2]), analysis)
    figure.suptitle(_headline(analysis), fontsize=12)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _headline(analysis: Analysis) -> str:
    graph, lattice = analysis.graph, analysis.lattice
    name = analysis.file or analysis.name
    if analysis.file and (analysis.frames > 1 or analysis.index):
        name += f" [{analysis.index}] {analysis.name}"
    words = [f"{len(analysis.atoms):,} columns"]
    if graph.nearest_distance is not None:
        words.append(f"nearest {graph.nearest_distance:.3g} {graph.unit}")
    if graph.order is not None:
        words.append(f"order {graph.order:.2f}")
    if analysis.calibration.pixel_size is None:
        words.append("not calibrated")
    found = []
    if (fit := analysis.parameters) is not None:
        found.append(
            f"a {fit.a:.4g} ± {fit.a_error:.2g}, b {fit.b:.4g} ± {fit.b_error:.2g} {fit.unit}, "
            f"γ {fit.gamma:.1f} ± {fit.gamma_error:.1f}°"
        )
    elif (cell := analysis.cell) is not None:
        found.append(
            f"cell {cell.a:.4g} x {cell.b:.4g} {cell.unit}, {cell.gamma:.1f}°: {_plain(cell.lattice)}"
        )
    if lattice is not None:
        found.append(f"{lattice.model}: {_plain(lattice.label)} {lattice.probability:.2f}")
    # A name may hold anything: no line breaks, no mathematics.
    shown = "".join(letter if letter.isprintable() else "?" for letter in name).replace("$", r"\$")
    return f"{shown}\n{'  ·  '.join(words)}\n{'  ·  '.join(found) or 'no lattice told'}"


def _plain(label: str) -> str:
    return label.replace("_", " ")


def draw_cell(axes: Any, analysis: Analysis) -> None:
    """Draw the unit cell, its edges a and b as arrows, and what was fitted where that is a part only."""
    from matplotlib.patches import Polygon, Rectangle

    found = analysis.parameters
    if found is None:
        return
    rows, columns = analysis.shape
    if found.source != "image":
        left, top, width, height = found.box
        axes.add_patch(
            Rectangle(
                (left, top), width, height, facecolor="none", edgecolor=_CELL, linestyle=":", linewidth=1
            )
        )
    origin, (a, b) = np.array(found.origin), np.array(found.vectors_px)
    axes.add_patch(
        Polygon(
            [origin, origin + a, origin + a + b, origin + b],
            facecolor=_CELL,
            alpha=0.3,
            edgecolor="none",
        )
    )
    # A cell of a few pixels is told by a multiple of its edges.
    times = max(1, round(_SHORTEST_ARROW * min(rows, columns) / float(np.hypot(*a))))
    for edge, name in ((a, "a"), (b, "b")):
        tip = origin + times * edge
        axes.annotate("", tip, origin, arrowprops={"arrowstyle": "-|>", "color": _CELL, "linewidth": 1.8})
        shown = name if times == 1 else f"{times}{name}"
        axes.annotate(
            shown,
            tip,
            tuple(9 * edge / np.hypot(*edge) * (1, -1)),
            textcoords="offset points",
            color=_CELL,
            fontsize=12,
            fontweight="bold",
            ha="center",
            va="center",
        )


def _draw_image(axes: Any, grey: npt.NDArray[np.uint8], analysis: Analysis) -> None:
    step = max(1, -(-max(grey.shape) // _SIDE))
    rows, columns = (length // step * step for length in grey.shape)
    small = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    dy, dx = analysis.calibration.pixel_size or (1.0, 1.0)
    axes.imshow(
        small,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect=dy / dx,
        interpolation="nearest",
    )
    axes.set_xlim(-0.5, grey.shape[1] - 0.5)
    axes.set_ylim(grey.shape[0] - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_atoms(axes: Any, analysis: Analysis, bonds: bool) -> Any:
    from matplotlib.collections import EllipseCollection, LineCollection

    atoms, graph = analysis.atoms, analysis.graph
    places = np.stack([atoms.x, atoms.y], axis=1)
    if bonds and graph.nearest_distance is not None and len(atoms) <= _MOST_BONDS:
        source, target = analysis.bonds.edges
        short = (source < target) & (analysis.bonds.lengths <= 1.25 * graph.nearest_distance)
        lines = np.stack([places[source[short]], places[target[short]]], axis=1)
        axes.add_collection(LineCollection(list(lines), colors="#ff8c00", linewidths=0.7, alpha=0.8))
    # Half of the radius: the image stays to be seen around and inside the circles.
    scale = 2.0 if len(atoms) <= _MOST_CIRCLES else 0.8
    dy, dx = analysis.calibration.pixel_size or (1.0, 1.0)
    mean = np.sqrt(dy * dx)
    circles = EllipseCollection(
        scale * atoms.radius * mean / dx,
        scale * atoms.radius * mean / dy,
        np.zeros(len(atoms)),
        units="xy",
        offsets=places if len(atoms) else np.zeros((0, 2)),
        transOffset=axes.transData,
        facecolors="none",
        linewidths=1.1,
        cmap=_MAP,
    )
    circles.set_array(_colours(analysis))
    circles.set_clim(0, 1)
    axes.add_collection(circles)
    return circles


def _colours(analysis: Analysis) -> npt.NDArray[np.float64]:
    """Return what is told by colour: how surely a column is one."""
    confidence = analysis.atoms.confidence
    return confidence if analysis.probability is None else confidence * analysis.probability


def _colour_label(analysis: Analysis) -> str:
    return "confidence" if analysis.probability is None else "confidence x probability of the segmenter"


def _scale_bar(axes: Any, analysis: Analysis) -> None:
    rows, columns = analysis.shape
    if analysis.calibration.pixel_size is None:
        step, unit = 1.0, "px"
    else:
        step, unit = analysis.calibration.pixel_size[1], "Å"
    aim = 0.25 * columns * step
    power = 10.0 ** np.floor(np.log10(aim))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= aim)
    shown = f"{length / 10:g} nm" if unit == "Å" and length >= 20 else f"{length:g} {unit}"
    left, bottom = 0.04 * columns, 0.955 * rows
    from matplotlib.patches import Rectangle

    wide, high = length / step, 0.012 * rows
    axes.add_patch(
        Rectangle(
            (left - 0.015 * columns, bottom - 0.085 * rows),
            wide + 0.03 * columns,
            0.11 * rows,
            facecolor="black",
            alpha=0.55,
            linewidth=0,
        )
    )
    axes.add_patch(Rectangle((left, bottom - high), wide, high, facecolor="white", linewidth=0))
    axes.text(
        left + wide / 2, bottom - 1.6 * high, shown, color="white", ha="center", va="bottom", fontsize=11
    )


def _draw_distances(axes: Any, analysis: Analysis) -> None:
    """Draw how long the edges of the graph are."""
    lengths = analysis.bonds.lengths
    axes.hist(lengths, bins=80, range=(0, analysis.graph.cutoff), color="#4477aa")
    axes.set_xlim(0, analysis.graph.cutoff)
    axes.set_yticks([])
    axes.set_xlabel(f"distance between columns ({analysis.graph.unit})")


def _draw_heights(axes: Any, analysis: Analysis) -> None:
    """Draw how high the columns are: kinds of columns are peaks."""
    heights = analysis.atoms.amplitude
    if len(heights):
        axes.hist(
            heights / max(float(np.percentile(heights, 99)), 1e-30), bins=60, range=(0, 1.2), color="#aa6644"
        )
    axes.set_xlim(0, 1.2)
    axes.set_yticks([])
    axes.set_xlabel("height of a column / highest")
