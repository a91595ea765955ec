"""Columns of an image at the scale that they tell, what the image shows under them, and their graph."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from atomvision_hub.analysis import (
    AnalysisError,
    AtomGraph,
    AtomTable,
    bond_angle_histogram,
    detect_atoms,
    radius_graph,
)
from atomvision_hub.analysis.atoms import COLUMN_WIDTH
from atomvision_hub.inference.inputs import COARSEST, Values
from atomvision_hub.inference.repeats import FEWEST, Cell, find_repeats
from atomvision_hub.inference.result import Calibration, GraphSummary

#: Columns that are less sure than this come from noise as well as not.
MIN_CONFIDENCE = 0.5
#: Slower changes than this are no columns: standard deviation of the Gaussian mean that is subtracted, Å.
GROUND = 3.0
#: Longest edge of the graph, Å; without calibration in typical nearest distances.
CUTOFF, CUTOFF_NEAREST = 4.0, 1.6
#: Below this order the lattice class means little (columns at random have 0.1 to 0.3).
ORDERED = 0.4

_LOOK = 400  # px a side of the centre in which the width of columns is measured
_WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0)  # times the first guess
_MOST_ANGLES = 5_000_000


def find_columns(
    values: Values, calibration: Calibration, threshold: float, *, guess: bool
) -> tuple[AtomTable, tuple[float, float], Calibration]:
    """Return the peaks, and the Å/px at which their columns are as wide as the models know them."""
    scale = calibration.pixel_size
    if scale is None or guess:
        scale = _guessed(values, threshold)
    atoms = _peaks(values, scale, threshold)
    if scale != calibration.pixel_size:
        apparent = float(COLUMN_WIDTH / math.sqrt(math.prod(atoms.width)))
        scale, calibration = (apparent, apparent), dataclasses.replace(calibration, apparent=apparent)
    return atoms, scale, calibration


def _guessed(values: Values, threshold: float) -> tuple[float, float]:
    """Return the Å/px at which the columns in the centre of an image would be as wide as columns are.

    For uncalibrated images, and for those of tunnelling microscopes, whose atoms look wider. A first guess of
    the width comes from the image's peaks. Too narrow a width splits columns, too wide a one merges them, and
    both disturb their repeats: of some widths around the guess the narrowest is taken at which the columns
    repeat nearly best.
    """
    rows, columns = values.shape
    top, left = max(0, (rows - _LOOK) // 2), max(0, (columns - _LOOK) // 2)
    values = values[top : top + _LOOK, left : left + _LOOK]
    guess = COLUMN_WIDTH / math.sqrt(math.prod(detect_atoms(values, None).width))
    orders = {}
    for factor in _WIDTHS:
        scale = min(guess / factor, COARSEST)
        try:
            atoms = _peaks(values, (scale, scale), threshold)
        except AnalysisError:  # so wide that nothing fits into the image
            continue
        inner = ~atoms.edge
        if inner.sum() >= FEWEST:
            positions = atoms.positions()
            nearest = float(np.median(cKDTree(positions).query(positions, k=2)[0][inner, 1]))
            orders[scale], _ = _repeats(atoms, nearest, "Å")
    best = max(orders.values(), default=0.0)
    scale = next((scale for scale, order in orders.items() if order >= best - 0.02), guess)
    return (scale, scale) if best >= ORDERED else (min(guess, COARSEST),) * 2


def _peaks(values: Values, scale: tuple[float, float], threshold: float) -> AtomTable:
    """Return the columns that are surely no noise; a support or a slope under them does not count."""
    ground = _ground(values, scale)
    peaks = detect_atoms(values - ground, scale, threshold=threshold)
    peaks = peaks.select(peaks.confidence >= MIN_CONFIDENCE)
    under = ground[pixels_of(peaks)].astype(np.float64)
    return dataclasses.replace(peaks, max=peaks.max + under, min=peaks.min + under, mean=peaks.mean + under)


def _ground(values: Values, scale: tuple[float, float]) -> Values:
    """Return what changes slowly in an image: a plane, and Gaussian means over `GROUND` of what is left."""
    sigma = [GROUND / size for size in scale]
    # A Gaussian many pixels wide is known from blocks of a quarter of its width.
    steps = [max(1, int(side / 4)) for side in sigma]
    padded = np.pad(
        values, [(0, -n % step) for n, step in zip(values.shape, steps, strict=True)], mode="edge"
    )
    rows, columns = (n // step for n, step in zip(padded.shape, steps, strict=True))
    coarse = padded.reshape(rows, steps[0], columns, steps[1]).mean(axis=(1, 3), dtype=np.float64)
    # The means are mirrored at the edges, where a slope would become a ridge: it is taken out first.
    down, across = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    slope_down = float(down @ coarse.mean(axis=1)) / max(float(down @ down), 1.0)
    slope_across = float(across @ coarse.mean(axis=0)) / max(float(across @ across), 1.0)
    plane = slope_down * down[:, None] + slope_across * across
    widths = [side / step for side, step in zip(sigma, steps, strict=True)]
    smooth = plane + ndimage.gaussian_filter(coarse - plane, widths, mode="reflect", truncate=3)
    if steps == [1, 1]:
        return np.asarray(smooth, np.float32)
    along = [(np.arange(n) - (step - 1) / 2) / step for n, step in zip(values.shape, steps, strict=True)]
    by_rows = _interpolated(smooth, along[0])
    return np.asarray(_interpolated(by_rows.T, along[1]).T, np.float32)


def _interpolated(values: npt.NDArray[Any], places: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return linear interpolation along the first axis, straight on beyond its ends."""
    if len(values) == 1:
        return np.repeat(values, len(places), axis=0)
    below = np.clip(np.floor(places).astype(np.intp), 0, len(values) - 2)
    share = (places - below)[:, None]
    return np.asarray(values[below] * (1 - share) + values[below + 1] * share)


def pixels_of(atoms: AtomTable) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pixels (row, column) at the centres of columns."""
    rows, columns = atoms.shape
    y = np.clip(np.rint(atoms.y).astype(np.intp), 0, rows - 1)
    return y, np.clip(np.rint(atoms.x).astype(np.intp), 0, columns - 1)


def as_measured(atoms: AtomTable, total: float) -> AtomTable:
    """Return dark columns with the grey levels of the file, which were mirrored for the search."""
    return dataclasses.replace(atoms, max=total - atoms.min, min=total - atoms.max, mean=total - atoms.mean)


def connect(atoms: AtomTable, unit: str, warnings: list[str]) -> tuple[GraphSummary, AtomGraph, Cell | None]:
    """Return what the graph of the columns tells, the graph, and the cell that the columns repeat on."""
    positions = atoms.positions()
    inner = ~atoms.edge
    nearest, spread, coordination, order, cell = None, None, {}, None, None
    if len(atoms) > 1:
        tree = cKDTree(positions)
        distances = tree.query(positions, k=2)[0][:, 1]
        judged = distances[inner] if inner.any() else distances
        nearest = float(np.median(judged))
        spread = float(np.diff(np.percentile(judged, [16, 84]))[0] / 2)
        shell = tree.query_ball_point(positions[inner], 1.25 * distances[inner], return_length=True) - 1
        counts = np.bincount(np.asarray(shell, dtype=np.intp))
        coordination = {int(n): int(counts[n]) for n in np.flatnonzero(counts)}
        if inner.sum() >= FEWEST:
            order, cell = _repeats(atoms, nearest, unit)
    cutoff = max(CUTOFF if unit == "Å" else 0.0, CUTOFF_NEAREST * (nearest or 1.0))
    bonds = radius_graph(positions, cutoff)
    # Successive edges grow with the square of the neighbours: of very dense peaks only the nearest count.
    degree = np.bincount(bonds.edges[0], minlength=len(atoms))
    if int((degree.astype(np.int64) ** 2).sum()) > _MOST_ANGLES:
        warnings.append("bond angles of the 8 nearest neighbours only: too many columns within the cut-off")
        angles = bond_angle_histogram(radius_graph(positions, cutoff, max_neighbours=8).line_graph())
    else:
        angles = bond_angle_histogram(bonds.line_graph())
    summary = GraphSummary(
        nodes=len(atoms),
        edges=bonds.edges.shape[1] // 2,
        cutoff=cutoff,
        nearest_distance=nearest,
        nearest_spread=spread,
        coordination=coordination,
        order=order,
        bond_angles=tuple(angles.tolist()) if angles.any() else (),
        unit=unit,
    )
    return summary, bonds, cell


def _repeats(atoms: AtomTable, nearest: float, unit: str) -> tuple[float, Cell | None]:
    dy, dx = atoms.pixel_size or (1.0, 1.0)
    size = ((atoms.shape[1] - 1) * dx, (atoms.shape[0] - 1) * dy)
    return find_repeats(atoms.positions(), atoms.amplitude, nearest, size, unit)
