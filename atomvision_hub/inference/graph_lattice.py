"""Which lattice columns of atoms form, according to a graph classifier."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from atomvision_hub.analysis.atoms import AtomTable
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models.alignn import Alignn, TorchGraph
from atomvision_hub.models.graphs import ColumnGraph, column_graph

#: Fewest columns of a part of an image that is asked about.
FEWEST = 12
#: Smallest part of a view that training showed: windows of half of the columns.
SMALLEST_VIEW = 0.7
_GRID = 2  # parts along each side, at most


def is_graph_classifier(model: str) -> bool:
    """Return whether a model folder holds a graph classifier; an id on the Hub is not asked."""
    config = Path(model) / "config.json"
    if not config.is_file():
        return False
    try:
        return bool(json.loads(config.read_text(encoding="utf-8")).get("model_type") == Alignn.kind)
    except (ValueError, AttributeError):
        return False


@functools.lru_cache(maxsize=2)
def load_graph_classifier(model: str) -> Alignn:
    """Return the graph classifier of a folder, kept for the next image."""
    return Alignn.from_pretrained(model)


def classify_columns(atoms: AtomTable, model: Alignn) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return class names and their probabilities for parts of an image.

    Parameters
    ----------
    atoms
        Bright columns of atoms. Without a pixel size the median distance of nearest neighbours counts as 2 Å.
    model
        Its ``known`` says how wide the views were that it learned from; parts of a wider image are that wide.

    Returns
    -------
    names
        Of the classes.
    chances
        Shape (parts, classes).

    Raises
    ------
    AtomVisionError
        When the view is smaller than what the model learned from, or no part has enough columns.
    """
    known = model.known.get("field_of_view")
    if known and atoms.pixel_size is not None:
        view = min(step * side for step, side in zip(atoms.pixel_size, atoms.shape, strict=True))
        if view < SMALLEST_VIEW * known[0]:
            raise AtomVisionError(
                f"the image shows {view:.1f} Å, the model learned views of {SMALLEST_VIEW * known[0]:.0f} to "
                f"{known[1]:.0f} Å: take a wider view"
            )
    graphs = [column_graph(part, model.graph_settings) for part in _parts(atoms, model)]
    graphs = [graph for graph in graphs if _usable(graph)]
    if not graphs:
        raise AtomVisionError(f"too few columns that repeat; a graph classifier needs {FEWEST} of them")
    with torch.inference_mode():
        chances = model(TorchGraph.of(graphs)).float().softmax(-1).double().numpy()
    return list(model.known["labels"]), chances


def _usable(graph: ColumnGraph) -> bool:
    return len(graph) >= FEWEST and graph.edges.shape[1] > 0


def _parts(atoms: AtomTable, model: Alignn) -> list[AtomTable]:
    """Return up to 2 x 2 parts as wide as the views of training, around where columns are."""
    known = model.known.get("field_of_view")
    if atoms.pixel_size is None or not known or not len(atoms):
        return [atoms]
    sides = [min(known[1] / step, n) for step, n in zip(atoms.pixel_size, atoms.shape, strict=True)]
    starts: list[list[float]] = []
    for places, side, length in zip((atoms.y, atoms.x), sides, atoms.shape, strict=True):
        first, last = float(places.min()), float(places.max())
        count = int(np.clip((last - first) // side, 1, _GRID))
        centres = first + (last - first) * (np.arange(count) + 0.5) / count
        starts.append([float(np.clip(c - side / 2, 0, length - side)) for c in centres])
    parts = []
    for top in starts[0]:
        for left in starts[1]:
            y, x = atoms.y - top, atoms.x - left
            inside = (y >= -0.5) & (y < sides[0] - 0.5) & (x >= -0.5) & (x < sides[1] - 0.5)
            part = dataclasses.replace(atoms, x=x, y=y, shape=(round(sides[0]), round(sides[1])))
            parts.append(part.select(inside))
    return parts
