"""Image -> atom columns: positions to a hundredth of an ångström, without a network.

Columns of a high-resolution image are peaks of nearly one width. Peaks are found as maxima of a sharpened
image; then heights, positions, background and the common width are fitted together, as a sum of Gaussians, by
Gauss-Newton steps on the normal equations of all peaks at once (so that neighbours that overlap do not pull
each other). What the model leaves is searched once more for columns that were shoulders of brighter ones. Two
peaks closer than two widths show one maximum (Sparrow's limit): the fit keeps both, the table the brighter.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse, special
from scipy.spatial import cKDTree

from atomvision_hub.analysis.errors import AnalysisError

#: Standard deviation of a column's profile in an ideal image of this package, Å.
COLUMN_WIDTH = 0.5
#: Columns closer than this and weaker than this part of the brightest are not resolvable.
RESOLVABLE_DISTANCE, RESOLVABLE_PEAK = 1.2, 0.05  # Å, relative height

_REACH = 3.0  # half side of a peak's window in widths of a column: exp(-4.5)
_TOUCH = 5.0  # widths; farther neighbours do not couple: exp(-6)
_FAINT = 0.3  # peaks of the sharpened image down to this part of the threshold are tried in the fit
_STEPS = 6  # most Gauss-Newton steps of a pass
_CURVED = 0.7  # widths; smoothing before curvature is looked at
# Standard deviation of the curvature in white noise, in standard errors of a peak's height.
_CURVED_NOISE = (1 + _CURVED**2) ** 2 / _CURVED**3 / np.sqrt(8)
_CONVERGED = 0.15  # widths; the last pass ends when nine of ten columns moved no farther
_GROSS, _FINE = 0.05, 0.005  # relative errors of the width
_WIDTHS = (0.5, 2.5)  # smallest and largest width, relative to where the search starts
_DAMPING = 1e-2  # of the normal equations: two peaks in one place share the light
_INNER = 8  # steps of conjugate gradients for a step of the fit
_APART = 1.3  # widths; of two peaks closer than this only the brighter stays in the fit
_MERGED = 2.0  # widths; of two columns closer than this, which show one maximum, the brighter is told
_FINEST = 1.6  # fewest pixels across a column's standard deviation after binning
_SNR = 5.0  # detection threshold: amplitude over its standard error; more is told by the confidence

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


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
        0..1 from amplitude over its standard error in the noise around it, s: ``Phi((s - 9) / 1.5)`` with the
        normal distribution's Phi. The highest peak of an image of pure noise reaches s = 8.5 (measured), so a
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
        return _table(values, _Fit(values, sigma), np.zeros(0), mask, steps)
    original, values = values, (values - np.float32(low)) / np.float32(span)
    # Columns many pixels wide are sought and fitted on binned pixels: the same light, a fraction of the work.
    grid = _Grid.of(values, sigma)
    noise = _Noise.of(values, grid)
    fit = _Fit(grid.image, grid.sigma, refine=not width_known)
    # The floor that noise sets for a peak's height, and that of the image.
    error = noise.typical / np.sqrt(np.pi * sigma[0] * sigma[1])
    floor = _quantile(grid.image, 0.02)
    clean = error < 0.002 * float(np.ptp(grid.image))
    sharp = _sharpened(grid.image, grid.sigma, clean=clean)
    x, y = _maxima(sharp, grid.sigma, floor)
    if len(x):
        height = sharp[_at(x, y)].astype(float) - floor
        rank = int(0.99 * (len(height) - 1))
        brightest = float(np.partition(height, rank)[rank])
        lowest = threshold * brightest
        # Peaks of noise stand 8 or 9 errors above the darkest pixels; they have no width to tell.
        fit.refine &= brightest > 16 * error
        # The dark rings of bright neighbours hide faint columns: the fit will tell, not the sharpened image.
        keep = height > np.maximum(_FAINT * lowest, _SNR * noise.error(x, y))
        fit.add(x[keep], y[keep], height[keep])
        fit.run(last=not width_known and steps is None)  # a guessed width comes first
        left = _curved(fit.rest(), grid.sigma)
        x, y = _maxima(left, grid.sigma, 0.7 * max(lowest, _SNR * error))
        height = left[_at(x, y)].astype(float)
        keep = (height > 0.7 * _SNR * noise.error(x, y)) & ~_hollow(sharp, x, y)
        if keep.any():
            fit.add(x[keep], y[keep], height[keep])
            fit.run()
        errors = noise.error(fit.x, fit.y)
        fit.drop(np.maximum(lowest, _SNR * errors), _APART)
        fit.run(last=True)
        fit.drop(np.maximum(lowest, _SNR * noise.error(fit.x, fit.y)), _MERGED)
        # Noise that pixels share, and texture, show in what is left, not in differences of pixels.
        if not clean:
            noise = noise.at_least(_spread(_curved(fit.rest(), grid.sigma)) / _CURVED_NOISE)
    errors = noise.error(fit.x, fit.y) * span / fit.scale
    fit.x, fit.y = grid.to_pixels(fit.x, fit.y)
    fit.sigma = (sigma[0] * fit.scale, sigma[1] * fit.scale)
    inside = (fit.x >= -0.5) & (fit.x < values.shape[1] - 0.5)
    inside &= (fit.y >= -0.5) & (fit.y < values.shape[0] - 0.5)
    fit.keep(inside)
    # Binning widens and lowers a Gaussian; its volume stays.
    lowered = np.prod(grid.sigma) * np.prod(grid.bins) / np.prod(sigma)
    fit.height = fit.height * span * float(lowered)
    return _table(original, fit, errors[inside], mask, steps)


class _Grid(NamedTuple):
    """An image on binned pixels, with the width that a column has there (rows, columns)."""

    image: npt.NDArray[np.float32]
    sigma: tuple[float, float]
    bins: tuple[int, int]

    @classmethod
    def of(cls, values: npt.NDArray[np.float32], sigma: tuple[float, float]) -> _Grid:
        """Bin an image as far as its columns stay at least `_FINEST` pixels wide."""
        bins = (max(1, int(sigma[0] / _FINEST)), max(1, int(sigma[1] / _FINEST)))
        # The mean over n pixels widens a profile by the variance of n places.
        rows, columns = (np.sqrt(s**2 + (n**2 - 1) / 12) / n for s, n in zip(sigma, bins, strict=True))
        return cls(_bin(values, bins), (float(rows), float(columns)), bins)

    def to_pixels(self, x: Array, y: Array) -> tuple[Array, Array]:
        rows, columns = self.bins
        return x * columns + (columns - 1) / 2, y * rows + (rows - 1) / 2


def _bin(values: npt.NDArray[np.float32], bins: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return means over blocks of pixels; a rest at the right and lower edge is left out."""
    if bins == (1, 1):
        return values
    rows, columns = (side // n for side, n in zip(values.shape, bins, strict=True))
    values = values[: rows * bins[0], : columns * bins[1]]
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
    return result + np.float32(0.5 * _quantile(values, 0.02))


def _curved(values: npt.NDArray[np.float32], sigma: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Return the height of the Gaussian that would explain the curvature around each pixel.

    What is not curved within a column, a background that was misjudged or is uneven, does not count.
    """
    blur = _CURVED
    smooth = ndimage.gaussian_filter(values, [blur * side for side in sigma], mode="nearest", truncate=2.5)
    padded = np.pad(smooth, 1, mode="edge")
    second = (padded[2:, 1:-1] + padded[:-2, 1:-1] - 2 * smooth) * np.float32(sigma[0] ** 2)
    second += (padded[1:-1, 2:] + padded[1:-1, :-2] - 2 * smooth) * np.float32(sigma[1] ** 2)
    result: npt.NDArray[np.float32] = np.float32(-0.5 * (1 + blur**2) ** 2) * second
    return result


def _hollow(image: npt.NDArray[np.float32], x: Array, y: Array) -> npt.NDArray[np.bool_]:
    """Return at which places an image is curved upwards in all directions.

    What a fit leaves in the hollows between columns is a background that is uneven; shoulders of columns are
    curved downwards along the flank.
    """
    step = 2  # about a width of the column, so that noise counts less
    row, column = (place + step for place in _at(x, y))
    padded = np.pad(image, step, mode="edge")
    down = padded[row + step, column] + padded[row - step, column] - 2 * padded[row, column]
    across = padded[row, column + step] + padded[row, column - step] - 2 * padded[row, column]
    mixed = padded[row + step, column + step] + padded[row - step, column - step]
    mixed = 0.25 * (mixed - padded[row + step, column - step] - padded[row - step, column + step])
    return np.asarray((down + across > 0) & (down * across > mixed * mixed))


def _spread(values: npt.NDArray[np.float32]) -> float:
    """Return a standard deviation that outliers do not change, from a quarter of the pixels."""
    size = np.abs(values[::2, ::2]).ravel()
    return float(1.4826 * np.partition(size, size.size // 2)[size.size // 2])


def _quantile(values: npt.NDArray[np.float32], share: float) -> float:
    """Return a quantile of every second pixel of every second row: quick, and near enough."""
    part = values[::2, ::2].ravel()
    index = int(share * (part.size - 1))
    return float(np.partition(part, index)[index])


class _Fit:
    """Sum of Gaussians of one width on a constant background, fitted to an image by least squares.

    Each Gaussian lives in a window of `_REACH` widths, and only near ones touch: time and memory grow with
    the number of peaks, however large the image. A Gauss-Newton step moves all heights and positions; with
    ``g`` a Gaussian and ``p, q`` distances from its centre in widths, the model changes by ``g, p g, q g``,
    whose overlaps are known in closed form.
    """

    def __init__(
        self, image: npt.NDArray[np.float32], sigma: tuple[float, float], refine: bool = False
    ) -> None:
        self.image, self.sigma, self.background = image, sigma, 0.0
        self.first, self.scale, self.refine = sigma, 1.0, refine
        self.x = self.y = self.height = np.zeros(0)

    def add(self, x: Array, y: Array, height: Array) -> None:
        self.x, self.y = np.append(self.x, x), np.append(self.y, y)
        self.height = np.append(self.height, height)

    def run(self, *, last: bool = False) -> None:
        """Fit heights, positions, background and the common width: in one step, the last pass to the end."""
        rows, columns = self.image.shape
        near: _Pairs | None = None
        before = 0.0
        for _ in range(_STEPS if len(self.x) else 0):
            window = _Window(self)
            error = window.cut(window.rest())
            along = np.einsum("nvu,nu->nv", error, window.profile_x)
            across = np.einsum("nvu,nv->nu", error, window.profile_y)
            raw = (
                np.einsum("nv,nv->n", along, window.profile_y),
                np.einsum("nu,nu,nu->n", across, window.profile_x, window.p),
                np.einsum("nv,nv,nv->n", along, window.profile_y, window.q),
            )
            # Peaks move little in a pass: who touches whom is looked up once.
            near = _Pairs.of(self._scaled()) if near is None else near.moved(self._scaled())
            change = self._solve(np.concatenate(raw).astype(float), near)
            growth = 0.0
            if self.refine:
                # The width's own direction, without what the heights can do: h g (p² + q² - 1).
                squares = np.einsum("nu,nu,nu->n", across, window.profile_x, window.p**2)
                squares += np.einsum("nv,nv,nv->n", along, window.profile_y, window.q**2)
                mutual = near.overlap * (1 - 0.25 * (near.dx**2 + near.dy**2)) ** 2
                power = float(self.height[near.i] @ (self.height[near.j] * mutual))
                growth = float((self.height * (squares - raw[0])).sum())
                growth /= max(np.pi * self.sigma[0] * self.sigma[1] * power, 1e-12)
                # Heights follow the width and slow it down: the rest of a geometric series (Aitken 1926).
                ratio = growth / before if before else 0.0
                before = growth
                growth /= 1 - min(max(ratio, 0.0), 0.75)
                # Missing columns look like width: before the last pass only gross errors count.
                growth = float(np.clip(growth, -0.1, 0.1)) if last or abs(growth) > _GROSS else 0.0
            safe = np.maximum(self.height, 1e-6)
            self.height = np.maximum(self.height + change[0], 1e-6)
            gain_x, gain_y = np.clip(change[1] / safe, -0.3, 0.3), np.clip(change[2] / safe, -0.3, 0.3)
            # Columns outside the view, whose flank is inside, are fitted too.
            out_x, out_y = 1.5 * self.sigma[1], 1.5 * self.sigma[0]
            self.x = np.clip(self.x + self.sigma[1] * gain_x, -out_x, columns + out_x)
            self.y = np.clip(self.y + self.sigma[0] * gain_y, -out_y, rows + out_y)
            self.scale = float(np.clip(self.scale * np.exp(growth), *_WIDTHS))
            self.sigma = (self.scale * self.first[0], self.scale * self.first[1])
            # Newton's steps square the error. Peaks that will be merged may wander for long.
            alone = np.ones(len(self.x), bool)
            close = near.overlap > np.exp(-0.25 * _MERGED**2)
            close[near.own] = False
            alone[near.i[close]] = False
            far = np.count_nonzero(np.maximum(np.abs(gain_x), np.abs(gain_y))[alone] > _CONVERGED)
            if not last and abs(growth) <= _GROSS:
                break
            if abs(growth) <= _FINE and far <= 0.1 * np.count_nonzero(alone):
                break

    def rest(self) -> npt.NDArray[np.float32]:
        """Return what the model leaves of the image."""
        return _Window(self).rest()

    def _solve(self, gradient: Array, near: _Pairs) -> Array:
        """Return the step (height; shifts in widths times height), shape (3, n), of the normal equations."""
        count, (rows, columns) = len(self.x), self.image.shape
        # Moments over the part of the image's sides where both Gaussians are: exact at the edges too.
        x0, x1, x2 = _moments(self.x, near.i, near.dx, self.sigma[1], columns)
        y0, y1, y2 = _moments(self.y, near.i, near.dy, self.sigma[0], rows)
        hx, xh, xx = x1 - 0.5 * near.dx * x0, x1 + 0.5 * near.dx * x0, x2 - 0.25 * near.dx**2 * x0
        hy, yh, yy = y1 - 0.5 * near.dy * y0, y1 + 0.5 * near.dy * y0, y2 - 0.25 * near.dy**2 * y0
        blocks = (x0 * y0, hx * y0, x0 * hy, xh * y0, xx * y0, xh * hy, x0 * yh, hx * yh, x0 * yy)
        # Rows of one peak have their entries in the same places: the matrix is written as it is stored.
        values = np.empty((3, len(near.i), 3))
        for k, block in enumerate(blocks):
            np.multiply(block, near.overlap, out=values[k // 3, :, k % 3])
        for k in range(3):
            values[k, near.own, k] = np.maximum(values[k, near.own, k], 1e-6) * (1 + _DAMPING)
        diagonal = np.concatenate([values[k, near.own, k] for k in range(3)])
        matrix = sparse.csr_array((values.ravel(), near.places, near.ends), shape=(3 * count, 3 * count))
        area = np.pi * self.sigma[0] * self.sigma[1]
        # The background follows the heights at once: it is eliminated, at the cost of a matrix of rank one.
        light_x, light_y = _light(self.x, self.sigma[1], columns), _light(self.y, self.sigma[0], rows)
        light = np.concatenate(
            [light_x[0] * light_y[0], light_x[1] * light_y[0], light_x[0] * light_y[1]]
        ) * (self.sigma[0] * self.sigma[1])
        # 0.98: what is approximate here must not turn the matrix indefinite.
        pull = 0.98 * light / (area * self.image.size)
        step, rest = np.zeros(3 * count), gradient / area
        search = fresh = rest / diagonal
        norm = first = float(rest @ fresh)
        for _ in range(_INNER):
            if norm <= 1e-4 * first:
                break
            image = matrix @ search - pull * float(light @ search)
            curvature = float(search @ image)
            if curvature <= 0:
                break
            length = norm / curvature
            step += length * search
            rest = rest - length * image
            fresh = rest / diagonal
            norm, old = float(rest @ fresh), norm
            search = fresh + norm / old * search
        return step.reshape(3, count)

    def drop(self, lowest: Array, apart: float) -> None:
        """Remove peaks below `lowest` and those nearer than `apart` (widths) to a brighter that stays."""
        self.keep(self.height > lowest)
        if len(self.x) < 2:
            return
        pairs = cKDTree(self._scaled()).query_pairs(apart, output_type="ndarray")
        swap = self.height[pairs[:, 0]] < self.height[pairs[:, 1]]
        pairs[swap] = pairs[swap, ::-1]
        stay = np.ones(len(self.x), bool)
        for brighter, weaker in pairs[np.argsort(-self.height[pairs[:, 0]], kind="stable")].tolist():
            if stay[brighter]:
                stay[weaker] = False
        self.keep(stay)

    def _scaled(self) -> Array:
        return np.stack([self.x / self.sigma[1], self.y / self.sigma[0]], axis=1)

    def keep(self, chosen: npt.NDArray[np.bool_]) -> None:
        self.x, self.y, self.height = self.x[chosen], self.y[chosen], self.height[chosen]


@dataclass(frozen=True)
class _Pairs:
    """Peaks i, j that touch: both ways, and each with itself; ordered by i.

    Attributes
    ----------
    i, j
        Indices of peaks.
    dx, dy
        From i to j, in widths.
    overlap
        Of two Gaussians, relative to that of one with itself.
    own
        Which pairs are of a peak with itself.
    places, ends
        Columns and row pointers of the matrix of all heights, shifts along x and shifts along y.
    """

    i: Indices
    j: Indices
    dx: Array
    dy: Array
    overlap: Array
    own: Indices
    places: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]

    @classmethod
    def of(cls, points: Array) -> _Pairs:
        """Find the pairs of points (x, y) in widths."""
        count = len(points)
        pairs = cKDTree(points).query_pairs(_TOUCH, output_type="ndarray")
        each = np.arange(count)
        i = np.concatenate([pairs[:, 0], pairs[:, 1], each])
        j = np.concatenate([pairs[:, 1], pairs[:, 0], each])
        order = np.argsort(i, kind="stable")
        i, j = i[order], j[order]
        own = np.flatnonzero(i == j)
        # Of the type that scipy's matrices keep, so that nothing is converted.
        places = np.tile(np.add.outer(j, np.arange(3) * count).astype(np.int32).ravel(), 3)
        ends = np.zeros(3 * count + 1, np.int32)
        np.cumsum(np.tile(3 * np.bincount(i, minlength=count), 3), out=ends[1:])
        nowhere = np.zeros(0)
        return cls(i, j, nowhere, nowhere, nowhere, own, places, ends).moved(points)

    def moved(self, points: Array) -> _Pairs:
        """Return the same pairs after a step."""
        x, y = points.T.copy()
        dx, dy = x[self.j] - x[self.i], y[self.j] - y[self.i]
        overlap = np.exp(-0.25 * (dx * dx + dy * dy))
        return replace(self, dx=dx, dy=dy, overlap=overlap)


def _moments(place: Array, i: Indices, apart: Array, width: float, side: int) -> tuple[Array, Array, Array]:
    """Return the means of 1, t, t² over ``exp(-t²)`` inside the image; t from midway between i and j."""
    middle = place[i] / width + 0.5 * apart
    zeroth, first, second = np.ones(len(i)), np.zeros(len(i)), np.full(len(i), 0.5)
    # exp(-3.5²) is nothing: elsewhere the whole integral counts.
    at_edge = np.flatnonzero((middle < 3.5) | (middle > side / width - 3.5))
    low, high = -0.5 / width - middle[at_edge], (side - 0.5) / width - middle[at_edge]
    at_low, at_high = np.exp(-low * low), np.exp(-high * high)
    zeroth[at_edge] = inside = 0.5 * (special.erf(high) - special.erf(low))
    first[at_edge] = (at_low - at_high) / (2 * np.sqrt(np.pi))
    second[at_edge] = 0.5 * inside + (low * at_low - high * at_high) / (2 * np.sqrt(np.pi))
    return zeroth, first, second


def _light(place: Array, width: float, side: int) -> tuple[Array, Array]:
    """Return the integrals of ``exp(-t²/2)`` and ``t exp(-t²/2)`` inside the image."""
    zeroth, first = np.full(len(place), np.sqrt(2 * np.pi)), np.zeros(len(place))
    at_edge = np.flatnonzero((place < 5 * width) | (place > side - 5 * width))
    low, high = (-0.5 - place[at_edge]) / width, (side - 0.5 - place[at_edge]) / width
    zeroth[at_edge] *= special.ndtr(high) - special.ndtr(low)
    first[at_edge] = np.exp(-0.5 * low * low) - np.exp(-0.5 * high * high)
    return zeroth, first


class _Window:
    """The pixels around each peak of a fit, and the peak's profile there."""

    def __init__(self, fit: _Fit) -> None:
        self.fit = fit
        self.reach = [int(np.ceil(_REACH * side)) for side in fit.sigma]
        row, column = np.rint(fit.y), np.rint(fit.x)
        v, u = (np.arange(-n, n + 1, dtype=np.float32) for n in self.reach)
        self.q = (v + (row - fit.y).astype(np.float32)[:, None]) / np.float32(fit.sigma[0])
        self.p = (u + (column - fit.x).astype(np.float32)[:, None]) / np.float32(fit.sigma[1])
        self.profile_y, self.profile_x = np.exp(-0.5 * self.q * self.q), np.exp(-0.5 * self.p * self.p)
        # The image gets a frame as wide as a window and the flight of peaks outside the view.
        self.frame = [2 * n + 2 for n in self.reach]
        self.width = fit.image.shape[1] + 2 * self.frame[1]
        corner = (row + (self.frame[0] - self.reach[0])) * self.width + column
        offsets = np.add.outer(np.arange(len(v)) * self.width, np.arange(len(u)))
        first = corner.astype(np.intp) + (self.frame[1] - self.reach[1])
        self.pixels = first[:, None, None] + offsets

    def cut(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the windows of an image, zero outside it, float32 [n, rows, columns]."""
        (top, left), (rows, columns) = self.frame, image.shape
        padded = np.zeros((rows + 2 * top, self.width), np.float32)
        padded[top : top + rows, left : left + columns] = image
        windows: npt.NDArray[np.float32] = padded.ravel()[self.pixels]
        return windows

    def rest(self) -> npt.NDArray[np.float32]:
        """Return the image without the model; sets the background to what makes its mean vanish."""
        fit, (top, left) = self.fit, self.frame
        peaks = self.profile_y[:, :, None] * self.profile_x[:, None, :]
        peaks *= np.asarray(fit.height, np.float32)[:, None, None]
        rows = fit.image.shape[0] + 2 * top
        model = np.bincount(self.pixels.ravel(), peaks.ravel(), minlength=rows * self.width)
        model = model.reshape(rows, self.width)[top : rows - top, left : self.width - left]
        rest = fit.image - model.astype(np.float32)
        fit.background = float(rest.mean())
        return np.asarray(rest - np.float32(fit.background))


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


@dataclass(frozen=True)
class _Noise:
    """Noise of an image, which may be stronger where it is bright (electrons arrive one by one).

    Attributes
    ----------
    typical
        Mean standard deviation of a pixel.
    variance
        Of a pixel: at level 0, and how it grows with the level.
    level
        Smoothed image on binned pixels.
    area
        Pixels that a peak's height is averaged over: pi sigma_x sigma_y.
    least
        Least standard deviation of a pixel.
    """

    typical: float
    variance: tuple[float, float]
    level: npt.NDArray[np.float32]
    area: float
    least: float = 0.0

    @classmethod
    def of(cls, values: npt.NDArray[np.float32], grid: _Grid) -> _Noise:
        """Tell the noise from what a smooth image does not have.

        From second differences across both axes (Immerkaer 1996, doi 10.1006/cviu.1996.0060; here from the
        smaller nine tenths of them), in the darker and in the brighter half.
        """
        level = ndimage.gaussian_filter(grid.image, grid.sigma, mode="nearest", truncate=2)
        every = max(1, values.size // 6000)  # so many pixels tell it to two per cent
        inner = values[:-2:every] - 2 * values[1:-1:every] + values[2::every]
        inner = np.abs(inner[:, :-2] - 2 * inner[:, 1:-1] + inner[:, 2:])
        row = np.minimum(np.arange(1, values.shape[0] - 1, every) // grid.bins[0], level.shape[0] - 1)
        column = np.minimum(np.arange(1, values.shape[1] - 1) // grid.bins[1], level.shape[1] - 1)
        place = level[row[:, None], column]
        middle = np.partition(place.ravel(), place.size // 2)[place.size // 2]
        spread, means = [], []
        for half in (place < middle, place >= middle):
            chosen = inner[half] if half.any() else inner.ravel()
            most = max(1, int(0.9 * len(chosen)))
            small = np.partition(chosen, most - 1)[:most]
            # 0.623 of the variance of a normal distribution is left when its largest tenth is cut off.
            spread.append(float(small @ small) / most / 0.623 / 36)
            means.append(float(place[half].mean()) if half.any() else float(middle))
        area = float(np.pi * np.prod(grid.sigma) * np.prod(grid.bins))
        typical, apart, slope = float(np.sqrt(np.mean(spread))), means[1] - means[0], 0.0
        # Noise alone has halves too, 0.8 standard errors apart.
        if apart > max(3 * typical / np.sqrt(area), 1e-6):
            slope = max(0.0, (spread[1] - spread[0]) / apart)
        at_zero = spread[0] - slope * means[0] if slope else typical**2
        return cls(typical, (at_zero, slope), level, area)

    def at_least(self, error: float) -> _Noise:
        """Return what confidence counts on: noise nowhere below the typical one, nor below `error` of a peak.

        That noise is weaker where it is dark holds for images whose level 0 is known.
        """
        typical = max(self.typical, error * np.sqrt(self.area))
        factor = typical / max(self.typical, 1e-30) if self.typical > 0 else 1.0
        at_zero, slope = self.variance
        grown = (at_zero * factor**2, slope * factor**2)
        return replace(self, typical=typical, variance=grown, least=typical)

    def error(self, x: Array, y: Array) -> Array:
        """Return the standard errors of the heights of peaks at places of the binned pixels."""
        row, column = _at(x, y)
        rows, columns = self.level.shape
        level = self.level[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)].astype(float)
        at_zero, slope = self.variance
        least = max(self.least, 0.5 * self.typical)
        return np.asarray(np.sqrt(np.maximum(at_zero + slope * level, least**2) / self.area))


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
    error: Array,
    mask: npt.NDArray[Any] | None,
    steps: tuple[float, float] | None,
) -> AtomTable:
    order = np.lexsort((fit.x, fit.y))
    x, y, height, error = fit.x[order], fit.y[order], fit.height[order], error[order]
    if mask is not None and len(x):
        inside = np.asarray(mask, dtype=float)[np.rint(y).astype(int), np.rint(x).astype(int)] >= 0.5
        x, y, height, error = x[inside], y[inside], height[inside], error[inside]
    rows, columns = values.shape
    half = np.sqrt(2 * np.log(2))  # half width at half maximum of a Gaussian, in standard deviations
    reach = [half * side for side in fit.sigma]
    v, u = (np.arange(-int(side) - 1, int(side) + 2) for side in reach)
    row, column = np.rint(y).astype(np.intp)[:, None] + v, np.rint(x).astype(np.intp)[:, None] + u
    q = np.square((row - y[:, None]) / reach[0]).astype(np.float32)
    p = np.square((column - x[:, None]) / reach[1]).astype(np.float32)
    q[(row < 0) | (row >= rows)] = p[(column < 0) | (column >= columns)] = np.inf
    near = q[:, :, None] + p[:, None, :] <= 1
    # At least the pixel of the centre, however narrow the columns.
    near[:, len(v) // 2, len(u) // 2] = True
    row, column = np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)
    found = values[row[:, :, None], column[:, None, :]]
    weight = near.astype(np.float32)
    number = np.einsum("nvu->n", weight)
    score = np.divide(height, error, out=np.full(len(x), np.inf), where=error > 0)
    edge = (x < 2 * reach[1]) | (x > columns - 1 - 2 * reach[1])
    edge |= (y < 2 * reach[0]) | (y > rows - 1 - 2 * reach[0])
    return AtomTable(
        x=x,
        y=y,
        radius=np.full(len(x), float(np.sqrt(reach[0] * reach[1]))),
        max=np.where(near, found, np.float32(-np.inf)).max(axis=(1, 2), initial=-np.inf).astype(float),
        min=np.where(near, found, np.float32(np.inf)).min(axis=(1, 2), initial=np.inf).astype(float),
        mean=np.einsum("nvu,nvu->n", weight, found).astype(float) / np.maximum(number, 1),
        amplitude=height.astype(float),
        confidence=special.ndtr((score - 9) / 1.5),
        edge=edge,
        shape=(rows, columns),
        pixel_size=steps,
        width=fit.sigma,
    )
