"""Image -> atom columns: positions to a hundredth of an ångström, without a network.

Columns of a high-resolution image are peaks of nearly one width. Peaks are found as maxima of the smoothed
image; then the amplitudes and positions of all of them are fitted together, as a sum of Gaussians of one
common width, by Gauss-Newton steps in a window around each peak on the residual of the whole model (so that
neighbours that overlap do not pull each other). What the model leaves is searched once more for columns that
were shoulders of brighter ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, ndimage, special
from scipy.spatial import cKDTree

from atomvision_hub.analysis.errors import AnalysisError

#: Standard deviation of a column's profile in an ideal image of this package, Å.
COLUMN_WIDTH = 0.5
#: Columns closer than this and weaker than this part of the brightest are not resolvable.
RESOLVABLE_DISTANCE, RESOLVABLE_PEAK = 1.2, 0.05  # Å, relative height

_WINDOW = 1.5  # half width of the fitting window in widths of a column
_STEPS = 8  # most Gauss-Newton steps of a pass
_CONVERGED = 5e-4  # widths; a pass ends when no peak moves farther
_APART = 1.3  # widths; of two peaks closer than this only the brighter is kept
_BINNED = 2.0  # fewest pixels across a column's standard deviation after binning
_SNR = 5.0  # detection threshold: amplitude over its standard error; more is told by the confidence

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AtomTable:
    """Columns of atoms found in an image, one entry each, ordered by row, then column.

    Attributes
    ----------
    x, y
        Centre along columns and rows, in pixels; pixel centres are integers.
    radius
        Half width at half maximum of the column's profile, in pixels.
    max, min, mean
        Grey levels of the image within `radius` of the centre.
    amplitude
        Height of the fitted Gaussian above the background, in grey levels.
    confidence
        0..1 from amplitude over its standard error in the image's noise, s: ``Phi((s - 8) / 1.5)`` with the
        normal distribution's Phi. The highest peak of an image of pure noise reaches s = 7 (measured), so a
        confidence above one half hardly comes from noise. Without noise it is 1.
    edge
        Whether the centre lies within two radii of the image's edge, where a part of the profile is missing.
    shape
        Rows and columns of the image.
    pixel_size
        Å/px along (rows, columns), or None.
    width
        Common standard deviation of the profiles, in pixels (rows, columns).
    """

    x: Array
    y: Array
    radius: Array
    max: Array
    min: Array
    mean: Array
    amplitude: Array
    confidence: Array
    edge: npt.NDArray[np.bool_]
    shape: tuple[int, int]
    pixel_size: tuple[float, float] | None
    width: tuple[float, float]

    def __len__(self) -> int:
        return len(self.x)

    def positions(self) -> Array:
        """Return the centres (x, y) in Å, or in pixels where no pixel size is known, shape (n, 2)."""
        dy, dx = self.pixel_size or (1.0, 1.0)
        return np.stack([self.x * dx, self.y * dy], axis=1)

    def select(self, keep: npt.NDArray[Any]) -> AtomTable:
        """Return the columns of a boolean or index array."""
        arrays = ("x", "y", "radius", "max", "min", "mean", "amplitude", "confidence", "edge")
        return AtomTable(
            **{name: getattr(self, name)[keep] for name in arrays},
            shape=self.shape,
            pixel_size=self.pixel_size,
            width=self.width,
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the per-column values as JSON-ready lists."""
        arrays = ("x", "y", "radius", "max", "min", "mean", "amplitude", "confidence", "edge")
        return {name: getattr(self, name).tolist() for name in arrays}


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
        width = COLUMN_WIDTH if steps is not None else _peak_width(values)
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
        return _table(values, _Fit(values, sigma), 0.0, mask, steps)
    original, values = values, (values - np.float32(low)) / np.float32(span)
    # Columns many pixels wide are fitted on binned pixels: the same light, a fraction of the work.
    bins = (max(1, int(sigma[0] / _BINNED)), max(1, int(sigma[1] / _BINNED)))
    binned = _bin(values, bins)
    # The mean over n pixels widens a profile by the variance of n places.
    narrow = tuple(np.sqrt(side**2 + (n**2 - 1) / 12) / n for side, n in zip(sigma, bins, strict=True))
    noise = _noise(values) / np.sqrt(bins[0] * bins[1])
    fit = _Fit(binned, narrow, refine=not width_known)
    # The floor that noise sets for a peak's height, and that of the image.
    error = noise / np.sqrt(np.pi * narrow[0] * narrow[1])
    floor = float(np.percentile(binned, 2))
    sharp = _sharpened(binned, narrow, clean=error < 0.002 * float(np.ptp(binned)))
    x, y = _maxima(sharp, narrow, floor)
    if len(x):
        lowest = max(threshold * (float(np.percentile(sharp[_at(x, y)], 99)) - floor), _SNR * error)
        # The dark rings of bright neighbours hide faint columns: the fit will tell, not the sharpened image.
        keep = sharp[_at(x, y)] - floor > max(0.1 * lowest, _SNR * error)
        fit.add(x[keep], y[keep])
        left = _sharpened(fit.run(_STEPS), narrow, clean=False)
        more = _maxima(left, narrow, 0.7 * lowest)
        fit.add(*more)
        if len(more[0]):
            fit.run(_STEPS)
        if fit.drop(lowest):
            fit.run(_STEPS)
            fit.drop(lowest)
    fit.x, fit.y = (np.asarray(c) * n + (n - 1) / 2 for c, n in zip((fit.x, fit.y), bins[::-1], strict=True))
    fit.sigma = (sigma[0] * fit.scale, sigma[1] * fit.scale)
    inside = (fit.x >= -0.5) & (fit.x < values.shape[1] - 0.5)
    fit.keep(inside & (fit.y >= -0.5) & (fit.y < values.shape[0] - 0.5))
    fit.height *= np.float32(span)
    return _table(original, fit, noise * span * np.sqrt(bins[0] * bins[1]), mask, steps)


def _bin(values: npt.NDArray[np.float32], bins: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return means over blocks of pixels; a rest at the right and lower edge is repeated to a full block."""
    if bins == (1, 1):
        return values
    rest = [(-side) % n for side, n in zip(values.shape, bins, strict=True)]
    if any(rest):
        values = np.pad(values, [(0, rest[0]), (0, rest[1])], mode="edge")
    rows, columns = values.shape[0] // bins[0], values.shape[1] // bins[1]
    # Sums of strided views: several times as fast as a mean over two axes.
    total = sum(values[i :: bins[0], j :: bins[1]] for i in range(bins[0]) for j in range(bins[1]))
    return np.asarray(total, np.float32).reshape(rows, columns) / np.float32(bins[0] * bins[1])


def _sharpened(
    values: npt.NDArray[np.float32], sigma: tuple[float, float], *, clean: bool
) -> npt.NDArray[np.float32]:
    """Return an image whose peaks are narrower, of their own height, with hardly any tail.

    A Gaussian less half its Laplacian (in units of its variance) is ``G (2 - r²/2 sigma²)``: it crosses zero
    at two widths, so that the shoulder of a bright column becomes a peak. Smoothing first holds down noise.
    """
    blur = 0.3 if clean else 0.7
    smooth = ndimage.gaussian_filter(values, [blur * side for side in sigma], mode="nearest", truncate=2.5)
    padded = np.pad(smooth, 1, mode="edge")
    second = (padded[2:, 1:-1] + padded[:-2, 1:-1] - 2 * smooth) * np.float32(sigma[0] ** 2)
    second += (padded[1:-1, 2:] + padded[1:-1, :-2] - 2 * smooth) * np.float32(sigma[1] ** 2)
    grown = np.float32(1 + blur**2)
    # After the blur a peak has height 1/grown and width sigma * sqrt(grown).
    result: npt.NDArray[np.float32] = 0.5 * grown * (smooth - 0.5 * grown * second)
    return result + 0.5 * np.float32(np.percentile(values, 2))


class _Fit:
    """Sum of Gaussians of one width on a constant background, fitted to an image."""

    def __init__(
        self, image: npt.NDArray[np.float32], sigma: tuple[float, float], refine: bool = False
    ) -> None:
        self.image, self.sigma, self.background = image, sigma, 0.0
        self.first, self.scale, self.refine = sigma, 1.0, refine
        self.rows = np.arange(image.shape[0], dtype=np.float32)
        self.columns = np.arange(image.shape[1], dtype=np.float32)
        self.x = self.y = np.zeros(0)
        self.height: npt.NDArray[np.float32] = np.zeros(0, np.float32)

    def add(self, x: Array, y: Array) -> None:
        self.x, self.y = np.append(self.x, x), np.append(self.y, y)

    def _factors(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        v = (self.rows - self.y.astype(np.float32)[:, None]) / np.float32(self.sigma[0])
        u = (self.columns - self.x.astype(np.float32)[:, None]) / np.float32(self.sigma[1])
        # Exponents end where a Gaussian is nothing: denormal numbers are slow.
        return np.exp(np.maximum(-0.5 * v * v, -25)), np.exp(np.maximum(-0.5 * u * u, -25))

    def solve(self) -> npt.NDArray[np.float32]:
        """Find all heights and the background by least squares; return what is left of the image."""
        along_rows, along_columns = self._factors()
        count = len(self.x)
        # A Gaussian is a product, so overlaps of images are products of those of rows and columns.
        gram = np.empty((count + 1, count + 1), np.float32)
        gram[:count, :count] = (along_rows @ along_rows.T) * (along_columns @ along_columns.T)
        gram[:count, count] = gram[count, :count] = along_rows.sum(1) * along_columns.sum(1)
        gram[count, count] = self.image.size
        diagonal = np.arange(count + 1)
        gram[diagonal, diagonal] *= np.float32(1 + 1e-4)  # two peaks in one place share the height
        right = np.empty(count + 1, np.float32)
        right[:count] = np.einsum("nc,nc->n", along_rows @ self.image, along_columns)
        right[count] = self.image.sum(dtype=np.float64)
        _, solution, failed = linalg.lapack.sposv(gram, right, lower=1, overwrite_a=True)
        if failed:  # more peaks in one place than single precision tells apart
            solution = linalg.lstsq(gram.astype(float), right.astype(float))[0]
        self.height = np.maximum(solution[:count], 0).astype(np.float32)
        self.background = float(solution[count])
        return self._rest(along_rows, along_columns)

    def _rest(
        self, along_rows: npt.NDArray[np.float32], along_columns: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        scaled = along_rows * np.asarray(self.height, np.float32)[:, None]
        rest: npt.NDArray[np.float32] = self.image - scaled.T @ along_columns - np.float32(self.background)
        return rest

    def run(self, steps: int) -> npt.NDArray[np.float32]:
        """Fit heights exactly, positions by Gauss-Newton steps in windows of their own; return the rest."""
        reach = [int(np.ceil(_WINDOW * side)) for side in self.sigma]
        v, u = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1].astype(np.float32)
        v, u = v.ravel(), u.ravel()
        rows, columns = self.image.shape
        residual = self.solve()
        for step in range(steps if len(self.x) else 0):
            out = (2 * reach[0] + 1, 2 * reach[1] + 1)
            padded = np.pad(residual, [(out[0], out[0]), (out[1], out[1])])
            row, column = np.rint(self.y), np.rint(self.x)
            start = (row + out[0] - reach[0]).astype(np.intp) * padded.shape[1]
            start += (column + out[1] - reach[1]).astype(np.intp)
            offsets = ((v + reach[0]) * padded.shape[1] + u + reach[1]).astype(np.intp)
            error = padded.ravel()[start[:, None] + offsets]
            q = (v + (row - self.y).astype(np.float32)[:, None]) / np.float32(self.sigma[0])
            p = (u + (column - self.x).astype(np.float32)[:, None]) / np.float32(self.sigma[1])
            # Errors of far pixels belong to the neighbours: a Gaussian weight keeps each peak to itself.
            profile = np.exp(-0.5 * (p * p + q * q))
            weight = profile * profile
            if step >= 2 and self.refine:
                # The common width, from the derivative of the model by its logarithm.
                slope = self.height[:, None] * profile * (p * p + q * q)
                growth = float((slope * error).sum() / max(float((slope * slope).sum()), 1e-12))
                self.scale = float(np.clip(self.scale * np.exp(np.clip(growth, -0.1, 0.1)), 0.6, 1.6))
                self.sigma = (self.scale * self.first[0], self.scale * self.first[1])
            slopes = [weight * p, weight * q]
            safe = np.maximum(self.height, 1e-6)
            gain_x, gain_y = (
                np.einsum("np,np->n", slope, error) / (np.einsum("np,np,np->n", slope, one, profile) * safe)
                for slope, one in zip(slopes, (p, q), strict=True)
            )
            if max(np.abs(gain_x).max(), np.abs(gain_y).max()) < _CONVERGED:
                break
            # Columns outside the view, whose flank is inside, are fitted too.
            out_x, out_y = 1.5 * self.sigma[1], 1.5 * self.sigma[0]
            self.x = np.clip(self.x + self.sigma[1] * np.clip(gain_x, -0.3, 0.3), -out_x, columns + out_x)
            self.y = np.clip(self.y + self.sigma[0] * np.clip(gain_y, -0.3, 0.3), -out_y, rows + out_y)
            residual = self.solve()
        return residual

    def drop(self, lowest: float) -> bool:
        """Remove what is lower than `lowest` or ran into a brighter neighbour.

        Returns whether a peak was removed whose light now belongs to others.
        """
        self.keep(self.height > lowest)
        scaled = np.stack([self.x / self.sigma[1], self.y / self.sigma[0]], axis=1)
        pairs = (
            cKDTree(scaled).query_pairs(_APART, output_type="ndarray")
            if len(scaled)
            else np.zeros((0, 2), int)
        )
        weaker = np.where(self.height[pairs[:, 0]] < self.height[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
        stay = np.ones(len(self.x), bool)
        stay[weaker] = False
        self.keep(stay)
        return not stay.all()

    def keep(self, chosen: npt.NDArray[np.bool_]) -> None:
        self.x, self.y, self.height = self.x[chosen], self.y[chosen], self.height[chosen]


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


def _noise(values: npt.NDArray[np.float32]) -> float:
    """Return the standard deviation of the noise, from what a smooth image does not have.

    The median absolute value of second differences across both axes (Immerkaer 1996, doi
    10.1006/cviu.1996.0060, with a median instead of a mean).
    """
    inner = values[:-2] - 2 * values[1:-1] + values[2:]
    inner = inner[:, :-2] - 2 * inner[:, 1:-1] + inner[:, 2:]
    return float(1.4826 * np.median(np.abs(inner)) / 6)


def _peak_width(values: npt.NDArray[np.float32]) -> float:
    """Return a typical width of peaks in pixels: where a difference of Gaussians is strongest."""
    spread = values - values.mean()
    scales = 1.5 * 1.15 ** np.arange(20)
    scales = scales[scales < min(values.shape) / 8]
    blurred = [ndimage.gaussian_filter(spread, scale, mode="reflect", truncate=3) for scale in scales]
    if len(blurred) < 3:
        return 1.5
    power = [float(np.percentile(a - b, 99.5)) for a, b in itertools.pairwise(blurred)]
    # Of a Gaussian of width s the normalised response is greatest at blur s (Lindeberg 1998).
    return float(scales[int(np.argmax(power))])


def _maxima(image: npt.NDArray[np.float32], sigma: tuple[float, float], lowest: float) -> tuple[Array, Array]:
    """Return columns and rows of local maxima above `lowest`, at least a width apart."""
    size = [2 * max(1, int(0.8 * side)) + 1 for side in sigma]
    high = image == ndimage.maximum_filter(image, size, mode="nearest")
    rows, columns = np.nonzero(high & (image > lowest))
    x, y = columns.astype(float), rows.astype(float)
    padded = np.pad(image, 1, mode="edge")
    centre = padded[rows + 1, columns + 1]
    shifts = []
    for axis in ((0, 1), (1, 0)):
        before = padded[rows + 1 - axis[0], columns + 1 - axis[1]]
        after = padded[rows + 1 + axis[0], columns + 1 + axis[1]]
        curvature = np.minimum(before + after - 2 * centre, -1e-9)
        shifts.append(np.clip(0.5 * (before - after) / curvature, -0.49, 0.49))
    return x + shifts[0], y + shifts[1]


def _at(x: Array, y: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)


def _table(
    values: npt.NDArray[np.float32],
    fit: _Fit,
    noise: float,
    mask: npt.NDArray[Any] | None,
    steps: tuple[float, float] | None,
) -> AtomTable:
    order = np.lexsort((fit.x, fit.y))
    x, y, height = fit.x[order], fit.y[order], fit.height[order]
    if mask is not None and len(x):
        inside = np.asarray(mask, dtype=float)[np.rint(y).astype(int), np.rint(x).astype(int)] >= 0.5
        x, y, height = x[inside], y[inside], height[inside]
    rows, columns = values.shape
    half = np.sqrt(2 * np.log(2))  # half width at half maximum of a Gaussian, in standard deviations
    reach = [half * side for side in fit.sigma]
    v, u = np.mgrid[-int(reach[0]) - 1 : int(reach[0]) + 2, -int(reach[1]) - 1 : int(reach[1]) + 2]
    row = np.rint(y).astype(np.intp)[:, None] + v.ravel()
    column = np.rint(x).astype(np.intp)[:, None] + u.ravel()
    near = ((row - y[:, None]) / reach[0]) ** 2 + ((column - x[:, None]) / reach[1]) ** 2 <= 1
    near |= (v.ravel() == 0) & (u.ravel() == 0)
    near &= (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    found = values[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)].astype(float)
    # Standard error of a Gaussian's height in white noise: noise / sqrt(pi sigma_x sigma_y).
    error = noise / np.sqrt(np.pi * fit.sigma[0] * fit.sigma[1])
    score = height / error if error > 0 else np.full(len(x), np.inf)
    edge = (x < 2 * reach[1]) | (x > columns - 1 - 2 * reach[1])
    edge |= (y < 2 * reach[0]) | (y > rows - 1 - 2 * reach[0])
    return AtomTable(
        x=x,
        y=y,
        radius=np.full(len(x), float(np.sqrt(reach[0] * reach[1]))),
        max=np.where(near, found, -np.inf).max(axis=1, initial=-np.inf),
        min=np.where(near, found, np.inf).min(axis=1, initial=np.inf),
        mean=np.where(near, found, 0).sum(axis=1) / np.maximum(near.sum(axis=1), 1),
        amplitude=height.astype(float),
        confidence=special.ndtr((score - 8) / 1.5),
        edge=edge,
        shape=(rows, columns),
        pixel_size=steps,
        width=fit.sigma,
    )
