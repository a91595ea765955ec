"""Explore: the images of a dataset by lattice, element and source, and on a map of what is alike."""

from __future__ import annotations

import html
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.embedding import embed
from atomvision_hub.data import load_dataset
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.embeddings import embed_images
from atomvision_hub.models.images import to_8bit
from tabs import figures
from tabs.shared import LIFE, guarded, say

#: Rows that are looked at, images on a page, points of a map, and the fewest that make one.
_MOST_ROWS, _PAGE, _MOST_POINTS, _FEWEST = 5000, 24, 400, 6
#: Folders of the server are for who runs it on their own machine.
_ON_SPACE = "SPACE_ID" in os.environ
_ANY = "any"
#: One colour a class, apart also for colour-blind eyes (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_OPEN_POINT = """
const open = (point) => trigger("select", {index: Number(point.dataset.row), value: point.dataset.row});
element.addEventListener("click", (event) => {
  const point = event.target.closest("[data-row]");
  if (point) { open(point); }
});
element.addEventListener("keydown", (event) => {
  if (event.target.dataset.row && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    open(event.target);
  }
});
"""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A split of a dataset with what it is filtered by.

    Parameters
    ----------
    table
        The rows.
    names
        Classes of `lattice`, empty without labels.
    lattice
        Index into `names` by row.
    elements
        Symbols in the formula by row.
    sources
        Source by row.
    """

    table: Any
    names: tuple[str, ...]
    lattice: npt.NDArray[np.int64]
    elements: tuple[frozenset[str], ...]
    sources: tuple[str, ...]

    @classmethod
    def open(cls, where: str, config: str, split: str) -> Loaded:
        """Load a split of a dataset of this project."""
        where = where.strip()
        if not where:
            raise UsageError("give the Hub id of a dataset, such as atomvision/stem2d, or its folder")
        if _ON_SPACE and Path(where).exists():
            raise UsageError(f"{where} is no Hub id; folders are read where the app runs on your own machine")
        table = load_dataset(where, config.strip() or None, split=split)
        if "image" not in table.column_names:
            raise UsageError(f"{where} has no images in this config; choose another one")
        table = table.select(range(min(len(table), _MOST_ROWS)))
        plain = table.remove_columns(
            [name for name in table.column_names if name not in ("lattice_projected", "formula", "source")]
        ).to_dict()
        count = len(table)
        feature = table.features.get("lattice_projected")
        formulas = plain.get("formula") or [""] * count
        return cls(
            table=table,
            names=tuple(getattr(feature, "names", ())),
            lattice=np.asarray(plain.get("lattice_projected") or [0] * count, dtype=np.int64),
            elements=tuple(frozenset(re.findall(r"[A-Z][a-z]?", formula or "")) for formula in formulas),
            sources=tuple(str(one) for one in plain.get("source") or [""] * count),
        )

    def chosen(self, lattice: str, element: str, source: str) -> list[int]:
        """Return the rows that fit all three."""
        return [
            row
            for row in range(len(self.table))
            if lattice in (_ANY, self.name(row))
            and (element == _ANY or element in self.elements[row])
            and source in (_ANY, self.sources[row])
        ]

    def name(self, row: int) -> str:
        """Return the lattice of a row."""
        return self.names[self.lattice[row]] if self.names else ""

    def grey(self, row: int) -> figures.Grey:
        """Return the image of a row in 8 bits."""
        return np.asarray(to_8bit(self.table[row]["image"]).convert("L"))


def build(page: gr.Blocks) -> None:
    """Lay out the tab."""
    loaded = gr.State(None, time_to_live=LIFE)
    rows = gr.State([], time_to_live=LIFE)
    with gr.Row():
        where = gr.Textbox(
            label="Dataset: Hub id" + ("" if _ON_SPACE else " or folder"),
            placeholder="atomvision/stem2d" + ("" if _ON_SPACE else " or build/stem2d"),
            scale=3,
            min_width=220,
            elem_id="explore-dataset",
        )
        config = gr.Textbox(label="Config", placeholder="default", min_width=120, elem_id="explore-config")
        split = gr.Dropdown(["train", "validation", "test"], value="train", label="Split", min_width=120)
        load = gr.Button("Open", variant="primary", min_width=100, elem_id="explore-open")
    status = gr.HTML(elem_id="explore-status")
    with gr.Row():
        lattice = gr.Dropdown([_ANY], value=_ANY, label="Lattice", elem_id="explore-lattice")
        element = gr.Dropdown([_ANY], value=_ANY, label="Element", elem_id="explore-element")
        source = gr.Dropdown([_ANY], value=_ANY, label="Source")
        sheet = gr.Number(1, label="Page", minimum=1, precision=0, min_width=90)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gallery = gr.HTML(elem_id="explore-gallery", js_on_load=_OPEN_POINT)
            draw = gr.Button(f"Draw a map of up to {_MOST_POINTS} of these", elem_id="explore-draw")
            chart = gr.HTML(elem_id="explore-map", js_on_load=_OPEN_POINT)
        with gr.Column(scale=2, min_width=300):
            detail = gr.HTML(elem_id="explore-detail")

    filters = [lattice, element, source]

    @guarded(status, loaded, rows, gallery, chart, detail)
    def opened(place: str, name: str, part: str) -> dict[Any, Any]:
        found = Loaded.open(place, name, part)
        present = sorted({found.name(row) for row in range(len(found.table))} - {""})
        return {
            loaded: found,
            lattice: gr.Dropdown([_ANY, *present], value=_ANY),
            element: gr.Dropdown([_ANY, *sorted(frozenset().union(*found.elements))], value=_ANY),
            source: gr.Dropdown([_ANY, *sorted(set(found.sources) - {""})], value=_ANY),
            sheet: 1,
            chart: "",
            detail: "",
            **listed(found, list(range(len(found.table))), 1),
        }

    @guarded(status, gallery)
    def filtered(found: Loaded | None, kind: str, symbol: str, origin: str, at: float) -> dict[Any, Any]:
        if found is None:
            raise UsageError("no dataset is open; give its Hub id or folder above")
        return listed(found, found.chosen(kind, symbol, origin), int(at or 1))

    def listed(found: Loaded, fitting: list[int], at: int) -> dict[Any, Any]:
        pages = max(1, -(-len(fitting) // _PAGE))
        at = min(max(at, 1), pages)
        shown = fitting[(at - 1) * _PAGE : at * _PAGE]
        tiles = "".join(_tile(found, row) for row in shown)
        line = f"{len(fitting):,} of {len(found.table):,} images; page {at} of {pages}."
        return {
            rows: fitting,
            gallery: f'<div class="av-gallery">{tiles}</div>',
            status: say(line, "good" if fitting else "note"),
        }

    @guarded(status, chart)
    def drawn(found: Loaded | None, fitting: list[int]) -> dict[Any, Any]:
        if found is None:
            raise UsageError("no dataset is open; give its Hub id or folder above")
        if len(fitting) < _FEWEST:
            raise UsageError(f"{len(fitting)} images make no map; it needs {_FEWEST} or more")
        picked = fitting
        if len(fitting) > _MOST_POINTS:
            generator = np.random.default_rng(0)
            picked = sorted(generator.choice(fitting, _MOST_POINTS, replace=False).tolist())
        sizes = None
        if "pixel_size" in found.table.column_names:
            sizes = [found.table[row]["pixel_size"] for row in picked]
        features = embed_images([found.grey(row) for row in picked], pixel_sizes=sizes)
        result = embed(features, found.lattice[picked] if found.names else None)
        return {chart: _map(found, picked, result), status: say(f"A map of {len(picked)} images.", "good")}

    @guarded(status, detail)
    def looked(found: Loaded | None, event: gr.EventData) -> dict[Any, Any]:
        row = int(getattr(event, "index", -1))
        if found is None or not 0 <= row < len(found.table):
            raise UsageError("that image is no longer open; open the dataset again")
        return {detail: _detail(found, row)}

    load.click(
        opened,
        [where, config, split],
        [loaded, rows, *filters, sheet, gallery, chart, detail, status],
        api_visibility="private",
        show_progress="minimal",
    )
    where.submit(
        opened,
        [where, config, split],
        [loaded, rows, *filters, sheet, gallery, chart, detail, status],
        api_visibility="private",
        show_progress="minimal",
    )
    gr.on(
        [*(one.input for one in filters), sheet.submit, sheet.input],
        filtered,
        [loaded, *filters, sheet],
        [rows, gallery, status],
        api_visibility="private",
        show_progress="hidden",
    )
    draw.click(drawn, [loaded, rows], [chart, status], api_visibility="private", show_progress="full")
    for picture in (gallery, chart):
        picture.select(looked, loaded, [detail, status], api_visibility="private", show_progress="hidden")


def _title(found: Loaded, row: int) -> str:
    entry = found.table[row]
    words = [str(entry.get("id", row)), found.name(row).replace("_", " ")]
    return ", ".join(word for word in words if word)


def _tile(found: Loaded, row: int) -> str:
    title = html.escape(_title(found, row))
    small = figures.data_url(figures.shrunk(found.grey(row), 128))
    return (
        f'<button type="button" class="av-tile" data-row="{row}" aria-label="Open {title}">'
        f'<img src="{small}" alt=""><span>{title}</span></button>'
    )


def _map(found: Loaded, picked: list[int], result: Any) -> str:
    points = result.points - result.points.min(axis=0)
    points = 20 + 560 * points / max(float(points.max()), 1e-9)
    height = float(points[:, 1].max()) + 20
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{_COLOURS[found.lattice[row] % len(_COLOURS)]}" '
        f'data-row="{row}" tabindex="0" role="button" aria-label="Open {html.escape(_title(found, row))}"/>'
        for row, (x, y) in zip(picked, points, strict=True)
    )
    present = sorted({int(found.lattice[row]) for row in picked}) if found.names else []
    legend = "".join(
        f'<span><i style="background:{_COLOURS[one % len(_COLOURS)]}"></i>'
        f"{html.escape(found.names[one].replace('_', ' '))}</span>"
        for one in present
    )
    told = f"trustworthiness {result.trustworthiness:.2f}"
    if result.after is not None:
        told += (
            f"; {100 * result.after.value:.0f} % of the {result.k} nearest on the map share the lattice, "
            f"{100 * result.after.chance:.0f} % by chance"
        )
    return (
        f'<figure class="av-map"><svg viewBox="0 0 600 {height:.0f}" role="group" '
        f'aria-label="Map of {len(picked)} images, alike ones near">{dots}</svg>'
        f'<figcaption><div class="av-legend">{legend}</div>'
        f"t-SNE of what the shipped classifier sees: {told}. "
        "Click a point, or reach it with the tabulator key and press Enter.</figcaption></figure>"
    )


def _detail(found: Loaded, row: int) -> str:
    entry = found.table[row]
    grey = found.grey(row)
    layers = {}
    atoms = entry.get("atoms")
    size = entry.get("pixel_size")
    pair = (float(size[0]), float(size[1])) if size is not None else None
    if isinstance(atoms, dict) and {"x", "y"} <= set(atoms):
        inside = [
            (x, y) for x, y in zip(atoms["x"], atoms["y"], strict=True)
            if 0 <= x < grey.shape[1] and 0 <= y < grey.shape[0]
        ]  # fmt: skip
        radius = 0.5 / pair[1] if pair else 4.0
        x, y = np.array(inside, dtype=float).reshape(-1, 2).T
        layers[f"atoms ({len(inside)})"] = figures.circles(x, y, radius)
    picture = figures.image_with_layers(grey, layers, _title(found, row), pair)
    facts = [
        (name.replace("_", " "), _short(value, found, name))
        for name, value in entry.items()
        if isinstance(value, str | int | float | bool) or name in ("pixel_size", "shift")
    ]
    return picture + figures.table(facts, _title(found, row))


def _short(value: Any, found: Loaded, name: str) -> str:
    feature = found.table.features.get(name)
    if hasattr(feature, "int2str") and isinstance(value, int):
        return str(feature.int2str(value)).replace("_", " ")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(f"{float(one):.4g}" for one in value)
    return str(value)[:200]
