"""Columns of atoms -> graph of bonds and repeats, as arrays; no torch, so that worker processes start fast.

A graph has two kinds of edges. *Bonds* join columns nearer than 4 Å, as in the AtomVision paper. Such a
graph does not reach across the cells of most materials, and the lattice is what repeats: *repeats* join a
column with the nearest columns that have the same surroundings, at most one in a direction. Whether the
surroundings of two columns are alike is measured on the sum of Gaussians that `analysis.atoms` fitted: the
difference of the two patches relative to their size, where both lie within the view. Nothing here knows a
lattice class.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from atomvision_hub._files import atomic_path
from atomvision_hub.analysis.atoms import AtomTable, detect_atoms
from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.graphs import radius_graph
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models.images import to_8bit

#: Features of a node, in this order; grey levels relative to the brightest columns of the image.
FEATURES = ("amplitude", "max", "min", "mean", "radius", "confidence", "edge")
#: What the median distance of nearest neighbours becomes where no pixel size is known, Å.
TYPICAL_DISTANCE = 2.0

_PATCH, _STEP, _PROFILE = 4.0, 0.5, 0.5  # Å: radius and spacing of a patch, width of a column's Gaussian
_COMMON = 0.5  # smallest part of a patch that two columns must have in common within the view
_ALIKE, _HARDLY = 0.1, 0.4  # relative difference of like surroundings: without noise, and at most with it
_ABOVE_BEST = 2.5  # like surroundings differ by up to so many times what the best pairs do
_PERIOD = 0.5  # Å; a shorter distance is no repeat
_COLLINEAR = 0.3  # Å; nearer than this to the line of a shorter repeat, a repeat tells nothing new
_CANDIDATES = 40  # nearest like columns among which repeats are chosen

Array = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]


@dataclass(frozen=True)
class GraphSettings:
    """How an image becomes a graph; travels with the weights.

    Parameters
    ----------
    cutoff
        Longest bond, in Å.
    neighbours
        Most bonds that leave a column, the nearest.
    repeats
        Most repeats that leave a column; 0 for a graph of bonds alone.
    reach
        Longest repeat, in Å.
    columns
        Most columns of a graph, those nearest to the centre of the image.
    """

    cutoff: float = 4.0
    neighbours: int = 8
    repeats: int = 8
    reach: float = 14.0
    columns: int = 192

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ColumnGraph:
    """The graph of one image.

    Attributes
    ----------
    positions
        (x, y) of the columns relative to the centre of the image, in Å, float32 [n, 2].
    features
        `FEATURES`, float32 [n, f].
    edges
        (from, to), int32 [2, e], ordered by from, bonds first.
    repeat
        Whether an edge is a repeat, bool [e].
    mismatch
        Relative difference of the surroundings of a repeat's ends, float32 [e]; 0 for bonds.
    """

    positions: Values
    features: Values
    edges: Indices
    repeat: npt.NDArray[np.bool_]
    mismatch: Values

    def __len__(self) -> int:
        return len(self.positions)


def column_graph(table: AtomTable, settings: GraphSettings | None = None) -> ColumnGraph:
    """Return the graph of the columns of an image.

    Lengths are in Å; without a pixel size the median distance of nearest neighbours counts as 2 Å.
    """
    settings = settings or GraphSettings()
    count = len(table)
    step = np.array(table.pixel_size or (1.0, 1.0))
    if table.pixel_size is None:
        step = step * _scale(table.positions())
    positions = np.stack([table.x * step[1], table.y * step[0]], axis=1)
    size = np.array([table.shape[1] * step[1], table.shape[0] * step[0]])
    top = float(np.percentile(table.amplitude, 99)) if count else 1.0
    amplitudes = table.amplitude / max(top, 1e-12)
    centred = positions - (size - step[::-1]) / 2
    inner = np.sort(np.argsort((centred**2).sum(1), kind="stable")[: settings.columns])
    bonds = radius_graph(positions[inner], settings.cutoff, settings.neighbours).edges
    sources, targets, mismatch = _repeats(positions, amplitudes, size, inner, settings)
    source, target = np.concatenate([bonds, np.stack([sources, targets])], axis=1)
    repeat = np.arange(len(source)) >= bonds.shape[1]
    order = np.lexsort((repeat, source))
    difference = np.concatenate([np.zeros(bonds.shape[1]), mismatch])
    return ColumnGraph(
        centred[inner].astype(np.float32),
        _features(table, float(np.sqrt(step.prod())))[inner],
        np.stack([source, target])[:, order].astype(np.int32),
        repeat[order],
        difference[order].astype(np.float32),
    )


def _scale(positions: Array) -> float:
    from scipy.spatial import cKDTree

    if len(positions) < 2:
        return 1.0
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]
    return TYPICAL_DISTANCE / max(float(np.median(nearest)), 1e-6)


def _features(table: AtomTable, step: float) -> Values:
    if not len(table):
        return np.zeros((0, len(FEATURES)), np.float32)
    low = float(table.min.min())
    span = max(float(np.percentile(table.max, 99)) - low, 1e-12)
    top = max(float(np.percentile(table.amplitude, 99)), 1e-12)
    columns = {
        "amplitude": table.amplitude / top,
        "max": (table.max - low) / span,
        "min": (table.min - low) / span,
        "mean": (table.mean - low) / span,
        "radius": table.radius * step,
        "confidence": table.confidence,
        "edge": table.edge,
    }
    return np.stack([columns[name] for name in FEATURES], axis=1).astype(np.float32)


def _repeats(
    positions: Array, amplitudes: Array, size: Array, inner: npt.NDArray[np.intp], settings: GraphSettings
) -> tuple[Indices, Indices, Array]:
    """Return from, to (as indices into `inner`) and mismatch of the repeats, ordered by from, then length."""
    nothing = np.zeros(0, np.int32)
    if settings.repeats == 0 or len(inner) < 2:
        return nothing, nothing, np.zeros(0)
    patches, valid = _patches(positions, amplitudes, size, inner)
    # Differences over the common part of both patches, all pairs at once by matrix products.
    weighted = valid * patches
    squares = (weighted * patches) @ valid.T
    norm = 0.5 * (squares + squares.T)
    difference = squares + squares.T - 2 * weighted @ weighted.T
    mismatch = np.sqrt(np.maximum(difference, 0) / np.maximum(norm, 1e-6))
    vectors = positions[inner][None] - positions[inner][:, None]
    lengths = np.hypot(vectors[..., 0], vectors[..., 1])
    common = valid @ valid.T >= _COMMON * patches.shape[1]
    possible = common & (lengths > _PERIOD) & (lengths <= settings.reach)
    mismatch = np.where(possible, mismatch, np.inf)
    best = mismatch.min(1)
    if not np.isfinite(best).any():
        return nothing, nothing, np.zeros(0)
    # Noise moves columns: then the best that most columns find is the measure of what is alike.
    alike = float(np.clip(_ABOVE_BEST * np.median(best[np.isfinite(best)]), _ALIKE, _HARDLY))
    distance = np.where(mismatch <= alike, lengths, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :_CANDIDATES]
    node = np.arange(len(inner))[:, None]
    distance, vector = distance[node, nearest], vectors[node, nearest]
    unit = vector / np.maximum(np.hypot(vector[..., 0], vector[..., 1]), 1e-9)[..., None]
    chosen = np.zeros(nearest.shape, bool)
    for order in range(nearest.shape[1]):
        v = vector[:, order, None]
        across = np.abs(unit[:, :order, 0] * v[..., 1] - unit[:, :order, 1] * v[..., 0])
        along = (unit[:, :order] * v).sum(-1)
        shadowed = (chosen[:, :order] & (across < _COLLINEAR) & (along > 0)).any(1)
        room = chosen.sum(1) < settings.repeats
        chosen[:, order] = np.isfinite(distance[:, order]) & ~shadowed & room
    source, rank = np.nonzero(chosen)
    target = nearest[source, rank]
    return source.astype(np.int32), target.astype(np.int32), mismatch[source, target].astype(float)


def _patches(
    positions: Array, amplitudes: Array, size: Array, inner: npt.NDArray[np.intp]
) -> tuple[Values, Values]:
    """Return the model image around columns on a grid of points, and which points lie within the view."""
    grid = np.arange(-_PATCH, _PATCH + 1e-6, _STEP)
    centres = positions[inner]
    offsets = positions[None] - centres[:, None]
    exponents = -0.5 * ((grid - offsets[..., None]) / _PROFILE) ** 2
    profiles = np.exp(np.maximum(exponents, -25)).astype(np.float32)  # [node, column, axis, grid]
    # A Gaussian is a product of its profiles: [node, y, column] @ [node, column, x].
    scaled = profiles[:, :, 1] * amplitudes.astype(np.float32)[None, :, None]
    patches = np.asarray(scaled.transpose(0, 2, 1) @ profiles[:, :, 0], np.float32)
    inside = [
        (centres[:, axis, None] + grid >= 0) & (centres[:, axis, None] + grid <= size[axis])
        for axis in (0, 1)
    ]
    disk = np.hypot(*np.meshgrid(grid, grid)) <= _PATCH + 1e-6
    valid = inside[1][:, :, None] & inside[0][:, None, :]
    return patches[:, disk], valid[:, disk].astype(np.float32)


def graph_of_image(
    image: npt.NDArray[Any], pixel_size: float | tuple[float, float] | None, settings: GraphSettings
) -> ColumnGraph:
    """Return the graph of an image [row, column]; without columns where none is found."""
    try:
        return column_graph(detect_atoms(image, pixel_size), settings)
    except AnalysisError:
        return column_graph(no_columns(np.shape(image)), settings)


def no_columns(shape: tuple[int, ...]) -> AtomTable:
    """Return the table of an image in which nothing is found."""
    none = np.zeros(0)
    names = ("x", "y", "radius", "max", "min", "mean", "amplitude", "confidence")
    return AtomTable(
        **dict.fromkeys(names, none),
        edge=none.astype(bool),
        shape=(shape[0], shape[1]),
        pixel_size=None,
        width=(1.0, 1.0),
    )


@dataclass(frozen=True)
class Graphs:
    """Many graphs in flat arrays, one after another; indices of edges count from each graph's first column.

    Attributes
    ----------
    nodes, links
        Number of columns and of edges of every graph, int64 [g].
    positions, features, edges, repeat, mismatch
        As of `ColumnGraph`, joined.
    """

    nodes: npt.NDArray[np.int64]
    links: npt.NDArray[np.int64]
    positions: Values
    features: Values
    edges: Indices
    repeat: npt.NDArray[np.bool_]
    mismatch: Values

    def __len__(self) -> int:
        return len(self.nodes)

    @classmethod
    def join(cls, graphs: Sequence[ColumnGraph]) -> Self:
        """Return the graphs one after another."""
        return cls(
            np.array([len(graph) for graph in graphs], np.int64),
            np.array([graph.edges.shape[1] for graph in graphs], np.int64),
            np.concatenate([graph.positions for graph in graphs]),
            np.concatenate([graph.features for graph in graphs]),
            np.concatenate([graph.edges for graph in graphs], axis=1),
            np.concatenate([graph.repeat for graph in graphs]),
            np.concatenate([graph.mismatch for graph in graphs]),
        )

    def save(self, path: Path) -> None:
        """Write the arrays to an ``npz`` file, complete or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def read_levels(encoded: bytes | Path) -> npt.NDArray[np.uint8]:
    """Decode an image file to 8-bit grey levels [row, column]."""
    where = encoded if isinstance(encoded, Path) else "an image of the dataset"
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            return np.asarray(to_8bit(image).convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise AtomVisionError(f"{where} cannot be read as an image: {problem}") from None
