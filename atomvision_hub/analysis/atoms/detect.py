"""Image -> atom columns: positions to a hundredth of an ångström, without a network.

Columns of a high-resolution image are peaks of nearly one width. Peaks are found as maxima of a sharpened
image; then heights, positions, background and the common width are fitted together, as a sum of Gaussians, by
Gauss-Newton steps on the normal equations of all peaks at once (so that neighbours that overlap do not pull
each other). What the model leaves is searched once more for columns that were shoulders of brighter ones. Two
peaks closer than two widths show one maximum (Sparrow's limit): the fit keeps both, the table the brighter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomvision_hub.analysis.atoms.fit import MERGED, Fit
from atomvision_hub.analysis.atoms.noise import Noise
from atomvision_hub.analysis.atoms.peaks import CURVED_NOISE, curved, hollow, maxima, peak_width, sharpened
from atomvision_hub.analysis.atoms.pixels import Grid, nearest_pixels, quantile, spread
from atomvision_hub.analysis.atoms.table import AtomTable, measured
from atomvision_hub.analysis.errors import AnalysisError

#: Standard deviation of a column's profile in an ideal image of this package, Å.
COLUMN_WIDTH = 0.5
#: Columns closer than this and weaker than this part of the brightest are not resolvable.
RESOLVABLE_DISTANCE, RESOLVABLE_PEAK = 1.2, 0.05  # Å, relative height

_FAINT = 0.3  # peaks of the sharpened image down to this part of the threshold are tried in the fit
_APART = 1.3  # widths; of two peaks closer than this only the brighter stays in the fit
_CLEAR = 30.0  # brightest column over the standard error of a height: enough to tell the width in noise
_WIDER = 1.02  # a width is too small when places that noise drew hide this much of it
_SNR = 5.0  # detection threshold: amplitude over its standard error; more is told by the confidence


def detect_atoms(
    image: npt.NDArray[Any],
    pixel_size: float | tuple[float, float] | None = None,
    *,
    mask: npt.NDArray[Any] | None = None,
    width: float | None = None,
    threshold: float = 0.03,
    background: float | None = None,
) -> AtomTable:
    """Find the columns of atoms in an image.

    Parameters
    ----------
    image
        Grey levels or counts, shape (rows, columns), bright columns.
    pixel_size
        Å/px, one number or (row, column).
    mask
        Probability of "atom" (or a boolean mask) of a segmenter, same shape: only peaks inside it count.
    width
        Standard deviation of a column's profile, in Å (in pixels without `pixel_size`); 0.5 Å is where the
        search starts by default, or what the image's own peaks tell without a pixel size, and the fit
        refines it; a width that is given is kept.
    threshold
        Smallest amplitude relative to the brightest columns (99th percentile of the peaks).
    background
        Width (as `width`) of a Gaussian whose smoothed image is subtracted first; for uneven supports.

    Returns
    -------
    AtomTable

    Raises
    ------
    AnalysisError
        When the image is no finite two-dimensional array or the pixel size makes no sense.
    """
    values = _checked(image, mask)
    steps = _steps(pixel_size)
    dy, dx = steps or (1.0, 1.0)
    width_known = width is not None
    if width is None:
        width = COLUMN_WIDTH if steps is not None else peak_width(values)
    if not (np.isfinite(width) and width > 0):
        raise AnalysisError(f"the width of a column must be positive, not {width}")
    sigma = (width / dy, width / dx)
    if max(sigma) > min(values.shape) / 4 or min(sigma) < 0.4:
        raise AnalysisError(
            f"columns {sigma[0]:.3g} px wide do not fit {values.shape[0]} x {values.shape[1]} pixels; "
            "check the pixel size, or resample the image"
        )
    if background is not None:
        wide = (background / dy, background / dx)
        values = values - ndimage.gaussian_filter(values, wide, mode="reflect", truncate=3)
    # Grey levels of any offset and scale are treated alike.
    low, high = float(values.min()), float(values.max())
    span = high - low
    if span <= 1e-6 * max(abs(low), abs(high)):
        nothing = np.zeros(0)
        return measured(values, (nothing, nothing, nothing, nothing), sigma, steps)
    original, values = values, (values - np.float32(low)) / np.float32(span)
    # Columns many pixels wide are sought and fitted on binned pixels: the same light, a fraction of the work.
    grid = Grid.of(values, sigma)
    noise = Noise.of(values, grid)
    fit = Fit(grid.image, grid.sigma, refine=not width_known)
    # The floor that noise sets for a peak's height, and that of the image.
    error = noise.typical / np.sqrt(np.pi * sigma[0] * sigma[1])
    floor = quantile(grid.image, 0.02)
    clean = error < 0.002 * float(np.ptp(grid.image))
    sharp = sharpened(grid.image, grid.sigma, clean=clean)
    x, y = maxima(sharp, grid.sigma, floor)
    if len(x):
        height = sharp[nearest_pixels(x, y)].astype(float) - floor
        rank = int(0.99 * (len(height) - 1))
        brightest = float(np.partition(height, rank)[rank])
        lowest = threshold * brightest
        # Peaks of noise stand 8 or 9 errors above the darkest pixels; they have no width to tell.
        fit.refine &= brightest > 16 * error
        # The dark rings of bright neighbours hide faint columns: the fit will tell, not the sharpened image.
        keep = height > np.maximum(_FAINT * lowest, _SNR * noise.error(x, y))
        fit.add(x[keep], y[keep], height[keep])
        fit.run(last=not width_known and steps is None)  # a guessed width comes first
        _shoulders(fit, noise, sharp, grid.sigma, lowest, error)
        if fit.refine and not clean and brightest > _CLEAR * error:
            # Noise drew places that make up for a width that is too small. Without them the fit finds the
            # width, and at the right width the rest shows what is there.
            wider = fit.copy()
            wider.drop(np.maximum(lowest, _SNR * noise.error(wider.x, wider.y)), MERGED)
            wider.run(last=True, free=True)
            if wider.scale > _WIDER * fit.scale:
                fit = wider
                _shoulders(fit, noise, sharp, grid.sigma, lowest, error)
        fit.drop(np.maximum(lowest, _SNR * noise.error(fit.x, fit.y)), _APART)
        fit.run(last=True)
        fit.drop(np.maximum(lowest, _SNR * noise.error(fit.x, fit.y)), MERGED)
        # Noise that pixels share, and texture, show in what is left, not in differences of pixels.
        if not clean:
            noise = noise.at_least(spread(curved(fit.rest(), grid.sigma)) / CURVED_NOISE)
    errors = noise.error(fit.x, fit.y) * span / fit.scale
    fit.x, fit.y = grid.to_pixels(fit.x, fit.y)
    fit.sigma = (sigma[0] * fit.scale, sigma[1] * fit.scale)
    inside = (fit.x >= -0.5) & (fit.x < values.shape[1] - 0.5)
    inside &= (fit.y >= -0.5) & (fit.y < values.shape[0] - 0.5)
    fit.keep(inside)
    # Binning widens and lowers a Gaussian; its volume stays.
    lowered = np.prod(grid.sigma) * np.prod(grid.bins) / np.prod(sigma)
    fit.height = fit.height * span * float(lowered)
    peaks = (fit.x, fit.y, fit.height, errors[inside])
    return measured(original, peaks, fit.sigma, steps, mask)


def _shoulders(
    fit: Fit,
    noise: Noise,
    sharp: npt.NDArray[np.float32],
    sigma: tuple[float, float],
    lowest: float,
    error: float,
) -> None:
    """Add what the fit leaves of the image and looks like columns: shoulders of brighter ones, faint ones."""
    left = curved(fit.rest(), sigma)
    x, y = maxima(left, sigma, 0.7 * max(lowest, _SNR * error))
    height = left[nearest_pixels(x, y)].astype(float)
    keep = (height > 0.7 * _SNR * noise.error(x, y)) & ~hollow(sharp, x, y)
    if keep.any():
        fit.add(x[keep], y[keep], height[keep])
        fit.run()


def _checked(image: npt.NDArray[Any], mask: npt.NDArray[Any] | None) -> npt.NDArray[np.float32]:
    values = np.asarray(image)
    if values.ndim != 2 or min(values.shape) < 8:
        raise AnalysisError(f"atoms are sought in images [row, column] of 8 px or more, not {values.shape}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise AnalysisError("the image holds values that are not finite; replace them first")
    if mask is not None and np.shape(mask) != values.shape:
        raise AnalysisError(f"the mask has shape {np.shape(mask)}, the image {values.shape}; give them alike")
    return values


def _steps(pixel_size: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if pixel_size is None:
        return None
    pair = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2)
    if not (np.isfinite(pair).all() and (pair > 0).all()):
        raise AnalysisError(f"the pixel size must be positive, in Å/px, not {pixel_size!r}")
    return float(pair[0]), float(pair[1])
