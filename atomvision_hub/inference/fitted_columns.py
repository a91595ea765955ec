"""Columns of a crystal fitted to an image, part by part where it is large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.spatial import cKDTree

from atomvision_hub.analysis import AnalysisError, AtomTable, ColumnFit, Probe, fit_columns
from atomvision_hub.analysis.atoms import COLUMN_WIDTH
from atomvision_hub.analysis.atoms.table import measured
from atomvision_hub.analysis.column_model import MOST_LEFT
from atomvision_hub.analysis.harmonics import averaged
from atomvision_hub.inference.inputs import Values

Array = npt.NDArray[np.float64]

#: Share of fitted columns that may be off the lattice.
MOST_LOOSE = 0.3

_PART = 320  # px a side of the largest part that is fitted at once
_SAMPLED = 4.0  # pixels to a standard deviation of a column, to which finer images are averaged
_AROUND = 5.0  # widths by which a part reaches into its neighbours
_SEAM = 0.5  # px by which two parts may place a column differently
_FEWEST = 0.5  # share of the parts that a crystal must explain
_ASKED = 3  # parts that are asked for the profile of the columns


@dataclass(frozen=True)
class FittedColumns:
    """Columns of a crystal, what they leave of the image relative to its noise, and their profile (px)."""

    atoms: AtomTable
    residual: float
    probe: Probe


@dataclass(frozen=True)
class _Part:
    """A rectangle of an image, (top, left, bottom, right), and the larger one that is fitted for it."""

    core: tuple[float, float, float, float]
    outer: tuple[slice, slice]

    def holds(self, x: Array, y: Array, slack: float = 0.0) -> npt.NDArray[np.bool_]:
        """Return which places are in the rectangle, or not farther from it."""
        top, left, bottom, right = self.core
        low, high = -0.5 - slack, -0.5 + slack
        return np.asarray((y >= top + low) & (y < bottom + high) & (x >= left + low) & (x < right + high))


def explaining_columns(
    values: Values, scale: tuple[float, float], peaks: AtomTable, warnings: list[str]
) -> FittedColumns | None:
    """Return the columns of a crystal that explain an image.

    Their profile is found too. A large image is fitted in parts, so that slow distortions do not matter;
    where a part is not explained its peaks stay. Where most are not, a warning says so, and the answer is
    ``None``.

    Parameters
    ----------
    values
        Grey levels [row, column].
    scale
        Å/px along (rows, columns).
    peaks
        Columns found one by one.
    warnings
        Gets a line where columns are not, or not everywhere, those of a crystal.
    """
    step = max(1, int(COLUMN_WIDTH / max(scale) / _SAMPLED))
    coarse = averaged(values.astype(np.float64), (step, step))
    size = (scale[0] * step, scale[1] * step)
    parts = _parts((coarse.shape[0], coarse.shape[1]), math.ceil(_AROUND * COLUMN_WIDTH / min(size)))
    try:
        fits = _fitted(coarse, size, parts)
    except AnalysisError as problem:
        warnings.append(f"columns were not fitted, peaks are shown: {problem.reason}")
        return None
    explained = [
        (part, fit) for part, fit in zip(parts, fits, strict=True) if fit is not None and _explains(fit)
    ]
    if len(explained) < max(1.0, _FEWEST * len(parts)):
        warnings.append(
            f"fitted columns of a crystal do not explain the image ({_why_not(fits)}), peaks are shown; a "
            "background that changes, grains, or columns of several profiles are not in the model"
        )
        return None
    found = [_columns_of(part, fit, step) for part, fit in explained]
    if len(explained) < len(parts):
        warnings.append(
            f"a crystal explains {len(explained)} of {len(parts)} parts of the image, the others show peaks"
        )
        others = np.ones(len(peaks), dtype=bool)
        for part, _ in explained:
            others &= ~part.holds((peaks.x - (step - 1) / 2) / step, (peaks.y - (step - 1) / 2) / step)
        found.append(_as_found(peaks.select(others)))
    probe = explained[0][1].probe.scaled(step)
    table = measured(values, _joined(found, 2 * _SEAM * step), (probe.width, probe.width), peaks.pixel_size)
    return FittedColumns(table, float(np.sqrt(np.mean([fit.ratio**2 for _, fit in explained]))), probe)


def _parts(shape: tuple[int, int], around: int) -> list[_Part]:
    """Return the parts of an image; those at its edges hold what lies beyond them too."""
    edges = []
    for length in shape:
        count = math.ceil(length / _PART)
        edges.append([round(length * k / count) for k in range(count + 1)])
    parts = []
    for top, bottom in pairwise(edges[0]):
        for left, right in pairwise(edges[1]):
            core = (
                top if top else -math.inf,
                left if left else -math.inf,
                bottom if bottom < shape[0] else math.inf,
                right if right < shape[1] else math.inf,
            )
            outer = (
                slice(max(0, top - around), min(shape[0], bottom + around)),
                slice(max(0, left - around), min(shape[1], right + around)),
            )
            parts.append(_Part(core, outer))
    return parts


def _fitted(image: Array, size: tuple[float, float], parts: list[_Part]) -> list[ColumnFit | None]:
    """Return the fits of all parts, with the profile of columns that one of those in the middle tells."""
    fits: list[ColumnFit | None] = [None] * len(parts)
    middle = [(number + len(parts) // 2) % len(parts) for number in range(len(parts))]
    probe = None
    for tried, number in enumerate(middle):
        if probe is None and tried >= _ASKED:
            break
        fit = fit_columns(image[parts[number].outer], size, width=None, probe=probe, loose=False)
        if probe is None and fit is not None and _explains(fit):
            probe = fit.probe
        fits[number] = fit
    return fits


def _explains(fit: ColumnFit) -> bool:
    return fit.ratio <= MOST_LEFT and float((fit.site < 0).mean()) <= MOST_LOOSE


def _why_not(fits: list[ColumnFit | None]) -> str:
    ratios = [fit.ratio for fit in fits if fit is not None]
    if not ratios:
        return "no crystal, or of which profile is not clear"
    return f"what they leave is {float(np.median(ratios)):.1f} times the noise"


def _columns_of(part: _Part, fit: ColumnFit, step: int) -> tuple[Array, Array, Array, Array]:
    """Return x, y, height and error of the columns that belong to a part, in pixels of the whole image."""
    x, y = fit.x + part.outer[1].start, fit.y + part.outer[0].start
    mine = fit.inside & part.holds(x, y, _SEAM)
    error = np.full(int(mine.sum()), fit.noise / (math.sqrt(math.pi) * fit.width))
    middle = (step - 1) / 2
    return x[mine] * step + middle, y[mine] * step + middle, fit.height[mine], error


def _joined(parts: list[tuple[Array, Array, Array, Array]], near: float) -> tuple[Array, Array, Array, Array]:
    """Return the columns of all parts, those once that two parts see on the seam between them.

    Parameters
    ----------
    parts
        Columns of each; the first one is believed.
    near
        Distance in pixels up to which two are the same.
    """
    x, y, height, error = (np.concatenate(one) for one in zip(*parts, strict=True))
    part = np.repeat(np.arange(len(parts)), [len(one[0]) for one in parts])
    pairs = cKDTree(np.stack([x, y], 1)).query_pairs(near, output_type="ndarray")
    keep = np.ones(len(x), dtype=bool)
    keep[pairs[part[pairs[:, 0]] != part[pairs[:, 1]], 1]] = False
    return x[keep], y[keep], height[keep], error[keep]


def _as_found(peaks: AtomTable) -> tuple[Array, Array, Array, Array]:
    """Return x, y, height and error of peaks; what is sure has no error."""
    score = 9 + 1.5 * special.ndtri(peaks.confidence)
    error = np.where(np.isfinite(score), peaks.amplitude / np.maximum(score, 1e-9), 0.0)
    return peaks.x, peaks.y, peaks.amplitude, error
