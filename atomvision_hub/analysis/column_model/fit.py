"""Which columns make an image: of a crystal with its defects, loose ones, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from atomvision_hub.analysis.atoms import COLUMN_WIDTH
from atomvision_hub.analysis.column_model.cells import EXPLAINED
from atomvision_hub.analysis.column_model.crystal import MARGIN, CrystalFit
from atomvision_hub.analysis.column_model.lines import (
    Straightened,
    recorded_places,
    refitted,
    straighten,
    straighten_by,
)
from atomvision_hub.analysis.column_model.loose import MOST, LooseFit, fit_loose
from atomvision_hub.analysis.column_model.motif import PENALTY
from atomvision_hub.analysis.column_model.profiles import Profiles, clearness, in_image
from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: `ColumnFit.ratio` beyond which columns do not explain an image.
MOST_LEFT = 1.3
#: Pixels of the largest image that is fitted.
MOST_PIXELS = 2**18

_NARROWEST, _WIDEST = 1.5, 0.25  # columns: pixels, and relative to the image
_WIDTHS, _WIDER = 5, 1.1  # widths that are tried, each so many times the one before
# By how much a description with fewer sites may be longer than the shortest, to be taken and to raise doubts:
# jitter and drift make images that no width explains exactly.
_LONGER, _DOUBTFUL = 300.0, 1000.0
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
    width
        Standard deviation of the columns, px.
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
    width: float
    ratio: float
    cost: float
    left: Array = field(repr=False)
    lines: Array | None = field(default=None, repr=False)

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Which columns lie in the image, (n,)."""
        shape = (self.left.shape[0], self.left.shape[1])
        return in_image(np.stack([self.x, self.y], 1), shape)


def fit_columns(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float],
    *,
    width: float | None = COLUMN_WIDTH,
    loose: bool = True,
) -> ColumnFit | None:
    """Return the columns of atoms that explain an image down to its noise.

    An image is modelled as a sum of Gaussian columns of one known width on an even ground. Where it repeats,
    all cells tell together where the columns of a cell are, so that columns are told apart that are much
    nearer than their width; every column has a height of its own where it is another than its site's
    (vacancies, foreign atoms). Lines of a scan that are displaced against the crystal are moved back. What a
    crystal does not explain, and images without one, get loose columns. The simplest model that leaves
    nothing but noise is chosen by its description length.

    Parameters
    ----------
    image
        Grey levels [row, column] that are proportional to the intensity, at most `MOST_PIXELS`; rounding to
        whole levels counts as noise.
    pixel_size
        Å/px; pixels must be square.
    width
        Standard deviation of a column, Å. ``None`` finds it, of five between 0.5 and 0.73 Å, for columns
        of a crystal.
    loose
        Whether an image that no crystal explains gets loose columns, which takes long where there are many.

    Returns
    -------
    ColumnFit or None
        ``None`` where there are too many columns to fit, or none; without a width also where there is no
        crystal, or several widths would do. Look at `ColumnFit.ratio`: beyond 1.3 or so the model does not
        hold (drift, other profiles, a background that changes).

    Raises
    ------
    AnalysisError
        For what is no image, is too large, has pixels that are not square, or columns as wide as a pixel.

    References
    ----------
    Images as sums of Gaussian columns whose parameters overlap: A. De Backer et al., Ultramicroscopy 171, 104
    (2016). Few columns at free places: N. Boyd, G. Schiebinger and B. Recht, SIAM J. Optim. 27, 616 (2017).
    How many: G. Schwarz, Ann. Stat. 6, 461 (1978), equation 1.

    Examples
    --------
    >>> from atomvision_hub import load_structures, simulate_stem
    >>> frame = simulate_stem(load_structures("reference")["MoS2"], shape=(128, 128), rotation=12)
    >>> found = fit_columns(frame.image, frame.pixel_size)
    >>> found.ratio < 1.05, int(found.site.max()) + 1
    (True, 2)
    """
    grey, sigma = _checked(image, pixel_size, COLUMN_WIDTH if width is None else width)
    if np.ptp(grey) == 0:
        return None
    # The matrices are small: more threads take longer and change the last digits.
    with threadpool_limits(1, user_api="blas"):
        straight = straighten(grey, sigma)
        fit = _fitted(straight, sigma, loose) if width is not None else _of_best_width(grey, straight, sigma)
    return None if fit is None else _as_recorded(fit)


def _of_best_width(grey: Array, straight: Straightened, start: float) -> ColumnFit | None:
    """Return the crystal of the width that needs the fewest sites for a description that is hardly longer.

    Several narrow columns look like a wide one: what is a little too narrow explains an image as well, by
    columns that are not there.
    """
    if straight.crystal is None:
        return None
    found = [_with_loose(straight, start)]
    for number in range(1, _WIDTHS):
        if (sigma := start * _WIDER**number) > min(grey.shape) * _WIDEST:
            break
        other = refitted(straight.image, straight.crystal.basis, sigma, straight.noise)
        if other is None:
            continue
        tried = replace(straight, crystal=other)
        if straight.offsets is not None:  # columns of another width place the lines elsewhere
            tried = straighten_by(grey, other, sigma)
        if tried.crystal is not None:
            found.append(_with_loose(tried, sigma))
    least = min(fit.cost for fit in found)
    least += 0.5 * max(0.0, least)
    best = min((fit for fit in found if fit.cost <= least + _LONGER), key=lambda fit: (_parts(fit), fit.cost))
    doubtful = any(_parts(fit) < _parts(best) for fit in found if fit.cost <= least + _DOUBTFUL)
    return None if doubtful else best


def _parts(fit: ColumnFit) -> int:
    """Return how many places describe a fit: those of sites, and of loose columns."""
    return len(np.unique(fit.site[fit.site >= 0])) + int((fit.site < 0).sum())


def _fitted(straight: Straightened, sigma: float, loose: bool) -> ColumnFit | None:
    best = None if straight.crystal is None else _with_loose(straight, sigma)
    if loose and (best is None or best.ratio > EXPLAINED):
        grey, noise = straight.image, straight.noise
        free = fit_loose(grey, sigma, noise, np.empty((0, 2)), np.empty(0))
        if free is not None and len(free.heights):
            other = _answer(None, np.empty(0, dtype=bool), free, grey, sigma, noise)
            if best is None or other.cost < best.cost:
                best = replace(other, lines=straight.offsets)
    return best


def _as_recorded(fit: ColumnFit) -> ColumnFit:
    """Return a fit with places in the image as it was recorded."""
    if fit.lines is None:
        return fit
    x, y = recorded_places(fit.x, fit.y, fit.lines, fit.width)
    return replace(fit, x=x, y=y)


def _checked(
    image: npt.ArrayLike, pixel_size: float | tuple[float, float], width: float
) -> tuple[Array, float]:
    try:
        grey = np.asarray(image, dtype=np.float64)
        down, across = np.broadcast_to(np.asarray(pixel_size, dtype=np.float64), (2,)).tolist()
    except (TypeError, ValueError):
        raise AnalysisError(
            "give grey levels [row, column] and Å/px as numbers, one or (row, column)"
        ) from None
    if grey.ndim != 2 or min(grey.shape) < 16 or not np.isfinite(grey).all():
        told = " x ".join(map(str, grey.shape))
        raise AnalysisError(f"the image is {told}; give finite grey levels [row, column], at least 16 x 16")
    if grey.size > MOST_PIXELS:
        raise AnalysisError(f"columns are fitted to {MOST_PIXELS} pixels at most, not {grey.size}; crop it")
    if not (0 < across < math.inf and abs(down / across - 1) < 1e-3):
        raise AnalysisError(f"pixel_size is {pixel_size}; give the Å/px of square pixels")
    sigma = width / across
    if not _NARROWEST <= sigma <= min(grey.shape) * _WIDEST:
        raise AnalysisError(
            f"columns of {width:g} Å are {sigma:.3g} px wide; 1.5 px to a quarter of the image are needed"
        )
    return grey, sigma


def _profiles(places: Array, sigma: float, grey: Array) -> Profiles:
    return Profiles(places, sigma, (grey.shape[0], grey.shape[1]))


def _with_loose(straight: Straightened, sigma: float) -> ColumnFit:
    """Return a crystal whose columns are free to move where it leaves more than noise."""
    grey, noise, crystal = straight.image, straight.noise, straight.crystal
    assert crystal is not None
    kept = _answer(crystal, np.ones(len(crystal.site), dtype=bool), None, grey, sigma, noise)
    kept = replace(kept, lines=straight.offsets)
    if crystal.ratio < _LOOSENED:
        return kept
    margin = int(MARGIN * sigma) + 1
    hot = np.abs(clearness(crystal.left, sigma, noise, margin)) > _HOT
    near = maximum_filter(hot, size=2 * int(_AROUND * sigma) + 1)
    column, row = (np.rint(crystal.places) + margin).astype(int).T
    row, column = row.clip(0, near.shape[0] - 1), column.clip(0, near.shape[1] - 1)
    free = near[row, column]
    if not free.any() or free.mean() > _MOSTLY or free.sum() > MOST // 2:
        return kept
    held = _profiles(crystal.places[~free], sigma, grey).image(crystal.heights[~free])
    lit = free & (crystal.heights > 0)
    loose = fit_loose(
        grey - held, sigma, noise, crystal.places[lit], crystal.heights[lit], crystal.ground, rounds=5
    )
    if loose is None:
        return kept
    freed = _answer(crystal, ~free, loose, grey, sigma, noise)
    return replace(freed, lines=straight.offsets) if freed.cost < kept.cost else kept


def _answer(
    crystal: CrystalFit | None,
    held: npt.NDArray[np.bool_],
    loose: LooseFit | None,
    grey: Array,
    sigma: float,
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
        width=sigma,
        ratio=ratio,
        cost=cost + (ratio**2 - 1) * grey.size,
        left=left,
    )


def _there(crystal: CrystalFit) -> npt.NDArray[np.bool_]:
    """Return which columns are no vacancies."""
    clear = np.minimum(_THERE * crystal.errors, _SHARE * crystal.usual)
    return np.asarray(crystal.heights > np.maximum(clear, _TRACE * crystal.usual))
