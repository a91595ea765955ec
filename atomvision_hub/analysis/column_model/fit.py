"""Which columns make an image: of a crystal with its defects, loose ones, or both."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from atomvision_hub.analysis.atoms import COLUMN_WIDTH
from atomvision_hub.analysis.column_model.answer import ColumnFit, answer, with_loose
from atomvision_hub.analysis.column_model.cells import EXPLAINED
from atomvision_hub.analysis.column_model.choice import of_best_probe
from atomvision_hub.analysis.column_model.lines import Straightened, recorded_places, straighten
from atomvision_hub.analysis.column_model.loose import fit_loose
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]

#: Pixels of the largest image that is fitted.
MOST_PIXELS = 2**18

_NARROWEST, _WIDEST = 1.5, 0.25  # columns: pixels, and relative to the image


def fit_columns(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float],
    *,
    width: float | None = COLUMN_WIDTH,
    probe: Probe | None = None,
    loose: bool = True,
) -> ColumnFit | None:
    """Return the columns of atoms that explain an image down to its noise.

    An image is modelled as a sum of columns of one profile on an even ground. Where it repeats,
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
        Standard deviation of a Gaussian column, Å. ``None`` finds the profile of a crystal's columns: its
        width, between 0.2 Å and what the lattice can tell, and its tails.
    probe
        Profile of a column, in pixels; takes the place of `width`.
    loose
        Whether an image that no crystal explains gets loose columns, which takes long where there are many.

    Returns
    -------
    ColumnFit or None
        ``None`` where there are too many columns to fit, or none; without a width also where there is no
        crystal, or several profiles would do. Look at `ColumnFit.ratio`: beyond 1.3 or so the model does not
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
    given = Probe.gaussian(sigma) if probe is None else probe
    # The matrices are small: more threads take longer and change the last digits.
    with threadpool_limits(1, user_api="blas"):
        if probe is None and width is None:
            fit = of_best_probe(grey, given)
        else:
            fit = _fitted(straighten(grey, given), given, loose)
    return None if fit is None else _as_recorded(fit)


def _fitted(straight: Straightened, probe: Probe, loose: bool) -> ColumnFit | None:
    best = None if straight.crystal is None else with_loose(straight, probe)
    if loose and (best is None or best.ratio > EXPLAINED):
        grey, noise = straight.image, straight.noise
        free = fit_loose(grey, probe, noise, np.empty((0, 2)), np.empty(0))
        if free is not None and len(free.heights):
            other = answer(None, np.empty(0, dtype=bool), free, grey, probe, noise)
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
