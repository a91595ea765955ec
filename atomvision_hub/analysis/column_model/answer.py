"""Columns that explain an image, put together: those of a crystal on their sites, and loose ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from atomvision_hub.analysis.column_model.crystal import CrystalFit
from atomvision_hub.analysis.column_model.lines import Straightened
from atomvision_hub.analysis.column_model.loose import MOST, LooseFit, fit_loose
from atomvision_hub.analysis.column_model.motif import PENALTY
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.probe_search import PART
from atomvision_hub.analysis.column_model.profiles import Profiles, clearness, in_image

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: `ColumnFit.ratio` beyond which columns do not explain an image.
MOST_LEFT = 1.3

_LOOSENED = 1.06  # residual over noise from which columns of a crystal are loosened
_HOT = 6.0  # standard deviations at which a place of the residual loosens the columns around it
_AROUND = 2.0  # widths
_MOSTLY = 0.5  # share of loosened columns from which there is no crystal
_THERE, _SHARE = 4.0, 0.3  # a column is there from so many errors, or from this share of its site's height
_TRACE = 0.01  # share of its site's height below which a column is not there


@dataclass(frozen=True)
class ColumnFit:
    """Columns that explain an image, see `fit_columns`.

    Parameters
    ----------
    x, y
        Places in pixels, also of columns that reach into the image from outside; (n,). Where lines are
        displaced, places are those in the image as it was recorded.
    height
        Grey levels above `ground`, (n,).
    site
        Index of the site in the cell, (n,); -1 for columns that follow no lattice.
    basis
        Of the lattice, rows (x, y) in pixels, (2, 2); ``None`` where columns follow none.
    ground
        Grey level under the columns.
    noise
        Standard deviation of a pixel, measured where no column reaches in Fourier space.
    probe
        Profile of the columns, px.
    ratio
        Root mean square of what is left of the image over `noise`: 1 where the columns explain it all.
    cost
        Description length: chi-squared beyond that of noise, and what the numbers of the model cost. The less
        the better, between fits to one image.
    left
        What is left of the image, [row, column].
    lines
        By how much each line of the scan shows the crystal displaced, (x, y) in pixels, (rows, 2); ``None``
        where lines are straight.
    """

    x: Array
    y: Array
    height: Array
    site: Integers
    basis: Array | None
    ground: float
    noise: float
    probe: Probe
    ratio: float
    cost: float
    left: Array = field(repr=False)
    lines: Array | None = field(default=None, repr=False)

    @property
    def width(self) -> float:
        """Standard deviation of the columns, px; of the Gaussian most like `probe` where that is none."""
        return self.probe.width

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Which columns lie in the image, (n,)."""
        shape = (self.left.shape[0], self.left.shape[1])
        return in_image(np.stack([self.x, self.y], 1), shape)


def _profiles(places: Array, probe: Probe, grey: Array) -> Profiles:
    return Profiles(places, probe, (grey.shape[0], grey.shape[1]))


def with_loose(straight: Straightened, probe: Probe) -> ColumnFit:
    """Return a crystal whose columns are free to move where it leaves more than noise."""
    grey, noise, crystal = straight.image, straight.noise, straight.crystal
    assert crystal is not None
    kept = answer(crystal, np.ones(len(crystal.site), dtype=bool), None, grey, probe, noise)
    kept = replace(kept, lines=straight.offsets)
    if crystal.ratio < _LOOSENED:
        return kept
    margin = int(probe.reach) + 1
    hot = np.abs(clearness(crystal.left, probe.width, noise, margin)) > _HOT
    near = maximum_filter(hot, size=2 * int(_AROUND * probe.width) + 1)
    column, row = (np.rint(crystal.places) + margin).astype(int).T
    row, column = row.clip(0, near.shape[0] - 1), column.clip(0, near.shape[1] - 1)
    free = near[row, column]
    if not free.any() or free.mean() > _MOSTLY or free.sum() > MOST // 2:
        return kept
    held = _profiles(crystal.places[~free], probe, grey).image(crystal.heights[~free])
    lit = free & (crystal.heights > 0)
    loose = fit_loose(
        grey - held, probe, noise, crystal.places[lit], crystal.heights[lit], crystal.ground, rounds=5
    )
    if loose is None:
        return kept
    freed = answer(crystal, ~free, loose, grey, probe, noise)
    return replace(freed, lines=straight.offsets) if freed.cost < kept.cost else kept


def answer(
    crystal: CrystalFit | None,
    held: npt.NDArray[np.bool_],
    loose: LooseFit | None,
    grey: Array,
    probe: Probe,
    noise: float,
) -> ColumnFit:
    """Return the model of a crystal's columns that are held on their sites, and loose ones."""
    places, heights, site = [], [], []
    left, ground, cost = grey, 0.0, 0.0
    if crystal is not None:
        there = held & _there(crystal)
        places.append(crystal.places[there])
        heights.append(crystal.heights[there])
        site.append(crystal.site[there])
        left, ground = crystal.left, crystal.ground
        cost += crystal.cost - (crystal.ratio**2 - 1) * grey.size
    if loose is not None:
        places.append(loose.places)
        heights.append(loose.heights)
        site.append(np.full(len(loose.heights), -1, dtype=np.int64))
        left, ground = loose.left, loose.ground
        cost += PENALTY * int(in_image(loose.places, (grey.shape[0], grey.shape[1])).sum())
    ratio = float(np.sqrt((left**2).mean())) / noise
    x, y = np.concatenate(places).T
    return ColumnFit(
        x=x,
        y=y,
        height=np.concatenate(heights),
        site=np.concatenate(site),
        basis=None if crystal is None else crystal.basis,
        ground=ground,
        noise=noise,
        probe=probe,
        ratio=ratio,
        cost=cost + (ratio**2 - 1) * grey.size + PART * (len(probe.parts) - 1),
        left=left,
    )


def _there(crystal: CrystalFit) -> npt.NDArray[np.bool_]:
    """Return which columns are no vacancies."""
    clear = np.minimum(_THERE * crystal.errors, _SHARE * crystal.usual)
    return np.asarray(crystal.heights > np.maximum(clear, _TRACE * crystal.usual))
