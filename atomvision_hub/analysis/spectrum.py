"""Windowed power spectrum of an image: background, refinement of one peak, and what its position is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage, stats

Array = npt.NDArray[np.float64]

#: Peaks weaker than this part of the strongest one are not told from the side lobes of the window.
_DYNAMIC_RANGE = 1e-7
_STEP = 0.25
_BLOCKS = 3
_REACH = 64


@dataclass(frozen=True)
class Peak:
    """A refined maximum of the spectrum.

    Parameters
    ----------
    frequency
        Cycles per pixel (row, column).
    covariance
        Of the frequency, from the noise beside the peak, (2, 2).
    amplitude
        Complex amplitude of the wave; its phase refers to the middle of the image.
    power, noise
        Power of the windowed spectrum at the peak, and expected power of the noise there.
    unevenness
        Ratio by which the phases of parts of the image scatter more than the noise explains, 1 where they do
        not: bent or strained lattices, scan distortion. Already in `covariance`, squared.
    """

    frequency: Array
    covariance: Array
    amplitude: complex
    power: float
    noise: float
    unevenness: float


class Spectrum:
    """Power spectrum of an image under a Hann window.

    Parameters
    ----------
    image
        Grey levels [row, column], finite.
    """

    def __init__(self, image: Array) -> None:
        self.shape = (image.shape[0], image.shape[1])
        self.axes = [np.arange(length) - (length - 1) / 2 for length in self.shape]
        self.windows = [_hann(length) for length in self.shape]
        window = np.outer(*self.windows)
        self.image = image - _plane(image, window, self.axes)
        self.values: npt.NDArray[np.complex128] = fft.rfft2(self.image * window)
        rows, columns = self.shape
        self.row_bins = fft.fftfreq(rows) * rows
        self.column_bins = np.arange(self.values.shape[1], dtype=float)
        # Radius in cycles per image of the shorter side's scale, so that rings are rings in cycles per pixel.
        scale = min(rows, columns)
        self.radius = np.hypot(self.row_bins[:, None] / rows, self.column_bins[None] / columns) * scale
        self.power: Array = np.abs(self.values) ** 2
        rounding = (16 * np.finfo(float).eps * float(np.abs(image).max())) ** 2 * float((window**2).sum())
        self.floor = max(_DYNAMIC_RANGE * float(self.power.max()), rounding, float(np.finfo(float).tiny))
        # The peaks themselves fill a part of a small ring.
        self.noise = background(self.power, self.radius, self.floor, quantile=0.25)

    def evaluate(self, frequencies: tuple[Array, Array]) -> npt.NDArray[np.complex128]:
        """Return the spectrum at all pairs of row and column frequencies (cycles per pixel)."""
        rows, columns = (
            np.exp(-2j * np.pi * np.outer(frequency, axis)) * window
            for frequency, axis, window in zip(frequencies, self.axes, self.windows, strict=True)
        )
        half = (np.concatenate([rows.real, rows.imag]) @ self.image).reshape(2, len(rows), -1)
        return np.asarray((half[0] + 1j * half[1]) @ columns.T)

    def refine(self, bins: tuple[int, int], noise: float, *, uneven: bool = True) -> Peak | None:
        """Return the maximum of the power near a bin, `None` where it runs away.

        Newton steps on the logarithm of the power of the continuous spectrum. The covariance follows from the
        noise beside the peak: ``H^-1 G H^-1`` with the measured curvature ``H`` and the variance ``G`` of the
        gradient that white noise of that power has under the window, and with `uneven` from how uneven the
        lattice is.
        """
        size = np.array(self.shape, dtype=float)
        position = np.array([self.row_bins[bins[0]], self.column_bins[bins[1]]])
        start = position.copy()
        for _ in range(8):
            power, gradient, curvature = self._shape_at(position)
            if np.linalg.eigvalsh(curvature)[-1] >= 0:
                return None
            step = -np.linalg.solve(curvature, gradient)
            position += np.clip(step, -0.5, 0.5)
            if np.abs(position - start).max() > 1.5:
                return None
            if np.abs(step).max() < 1e-6:
                break
        spread = np.array(
            [(a**2 * w**2).sum() / (w**2).sum() for a, w in zip(self.axes, self.windows, strict=True)]
        )
        spread *= (2 * np.pi / size) ** 2
        inverse = np.linalg.inv(curvature)
        covariance = inverse @ np.diag(2 * spread * noise / power) @ inverse
        frequency = position / size
        unevenness = self._unevenness(frequency, noise) if uneven else 1.0
        covariance = covariance * unevenness**2 / np.outer(size, size)
        wave = complex(self.evaluate((frequency[:1], frequency[1:]))[0, 0])
        amplitude = wave / float(self.windows[0].sum() * self.windows[1].sum())
        return Peak(frequency, covariance, amplitude, float(power), noise, unevenness)

    def _shape_at(self, position: Array) -> tuple[float, Array, Array]:
        """Return power, and gradient and curvature of its logarithm per bin, at a position in bins."""
        offsets = np.array([-_STEP, 0, _STEP])
        stencil = [(center + offsets) / length for center, length in zip(position, self.shape, strict=True)]
        power = np.abs(self.evaluate((stencil[0], stencil[1]))) ** 2
        log = np.log(np.maximum(power, 1e-300))
        gradient = np.array([log[2, 1] - log[0, 1], log[1, 2] - log[1, 0]]) / (2 * _STEP)
        second = (log[2, 1] + log[0, 1] - 2 * log[1, 1], log[1, 2] + log[1, 0] - 2 * log[1, 1])
        mixed = (log[2, 2] - log[2, 0] - log[0, 2] + log[0, 0]) / 4
        return float(power[1, 1]), gradient, np.array([[second[0], mixed], [mixed, second[1]]]) / _STEP**2

    def _unevenness(self, frequency: Array, noise: float) -> float:
        """Return how much more than by noise the wave's phase strays from a plane, over 3 x 3 parts.

        The Birge ratio: sqrt(chi² / degrees of freedom) where chi² is improbable (5 %), else 1.
        """
        lengths = [length // _BLOCKS for length in self.shape]
        if np.abs(frequency * lengths).max() < 3:
            return 1.0
        windows = [_hann(length) for length in lengths]
        # Each part has its own three rows and columns of the wave, zero outside the part.
        rows, columns = (
            np.kron(np.eye(_BLOCKS), window) * np.exp(-2j * np.pi * f * axis[: _BLOCKS * length])
            for f, axis, length, window in zip(frequency, self.axes, lengths, windows, strict=True)
        )
        image = self.image[: rows.shape[1], : columns.shape[1]]
        half = (np.concatenate([rows.real, rows.imag]) @ image).reshape(2, _BLOCKS, -1)
        sums = (half[0] + 1j * half[1]) @ columns.T
        whole = np.prod([(w**2).sum() for w in self.windows])
        variance = noise * np.prod([(w**2).sum() for w in windows]) / whole / (2 * np.abs(sums) ** 2)
        sure = variance < 0.04
        if sure.sum() < 5:
            return 1.0
        weights = np.where(sure, 1 / variance, 0).ravel()
        mean = np.angle((sums.ravel() / np.abs(sums.ravel()) * weights).sum())
        phases = np.angle(sums.ravel() * np.exp(-1j * mean))
        y, x = (grid.ravel() for grid in np.mgrid[-1:2, -1:2])
        plane = np.stack([np.ones(9), y, x], axis=1) * np.sqrt(weights)[:, None]
        residual = phases * np.sqrt(weights) - plane @ np.linalg.lstsq(plane, phases * np.sqrt(weights))[0]
        chi2, freedom = float((residual**2).sum()), int(sure.sum()) - 3
        return float(np.sqrt(chi2 / freedom)) if stats.chi2.sf(chi2, freedom) < 0.05 else 1.0

    def add(self, peak: Peak, sign: float = 1.0) -> None:
        """Add a wave to `image`, or take it out with `sign` -1."""
        row, column = (
            np.exp(2j * np.pi * f * axis) for f, axis in zip(peak.frequency, self.axes, strict=True)
        )
        row = 2 * sign * peak.amplitude * row
        self.image += np.stack([row.real, -row.imag], axis=1) @ np.stack([column.real, column.imag])

    def subtract(self, peak: Peak) -> None:
        """Take a wave out of `image`, `values` and `power`, so that side lobes are not taken for peaks."""
        self.add(peak, -1)
        for sign, amplitude in ((1, peak.amplitude), (-1, peak.amplitude.conjugate())):
            center = sign * peak.frequency * self.shape
            near = self._near(center)
            row, column = (
                _response(bins[part] - place, length) * np.exp(2j * np.pi * bins[part] * axis[0] / length)
                for bins, part, place, length, axis in zip(
                    (self.row_bins, self.column_bins), near, center, self.shape, self.axes, strict=True
                )
            )
            block = np.ix_(*near)
            self.values[block] -= amplitude * np.outer(row, column)
            self.power[block] = np.abs(self.values[block]) ** 2

    def _near(self, center: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows and columns within reach of a place in bins: beyond, a wave leaves below 1e-12."""
        around = np.arange(-_REACH, _REACH + 1)
        columns = round(float(center[1])) + around
        inside = columns[(columns >= 0) & (columns < self.values.shape[1])]
        return np.unique((round(float(center[0])) + around) % self.shape[0]), inside


def _plane(image: Array, window: Array, axes: list[Array]) -> Array:
    """Return the plane that fits an image best under the window; without it the origin does not leak."""
    weight = window.sum()
    grids = (axes[0][:, None], axes[1][None])
    slopes = [(image * window * grid).sum() / (window * grid**2).sum() for grid in grids]
    return np.asarray((image * window).sum() / weight + slopes[0] * grids[0] + slopes[1] * grids[1])


def _response(offset: Array, length: int) -> Array:
    """Return the transform of the window, referred to its middle, at offsets in bins."""
    # A Hann window is three Dirichlet kernels.
    kernels = np.stack([_dirichlet(offset + shift, length) for shift in (-1, 0, 1)])
    return np.asarray(np.array([0.25, 0.5, 0.25]) @ kernels)


def _dirichlet(offset: Array, length: int) -> Array:
    sine = np.sin(np.pi * offset / length)
    small = np.abs(sine) < 1e-12
    # At multiples of the length the limit, whose sign alternates for even lengths.
    limit = length * np.cos(np.pi * offset) / np.where(np.cos(np.pi * offset / length) < 0, -1, 1)
    return np.asarray(np.where(small, limit, np.sin(np.pi * offset) / np.where(small, 1, sine)))


def _hann(length: int) -> Array:
    # Without the zeros at both ends.
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length))


def background(power: Array, radius: Array, floor: float, quantile: float = 0.5) -> Array:
    """Return the expected power of what is no peak: a quantile over rings, and along the two axes.

    Of exponentially distributed values (speckle, noise) a quantile p is -ln(1 - p) of the mean. Noise of scan
    lines and edges of the image lie on the axes, where a ring does not show them; there a quarter of the
    values is looked at, for the orders of a lattice along an axis may fill half of it.
    """
    ring = np.minimum(radius / 2, radius.max() / 2).astype(int)
    order = np.argsort(ring, axis=None, kind="stable")
    counts = np.bincount(ring.ravel())
    pieces = np.split(power.ravel()[order], np.cumsum(counts)[:-1])
    values = np.array([np.quantile(piece, quantile) if len(piece) else np.nan for piece in pieces])
    filled = np.flatnonzero(np.isfinite(values))
    values = np.interp(np.arange(len(values)), filled, values[filled])
    noise = np.interp(radius, 2 * np.arange(len(values)) + 1, values) / -np.log(1 - quantile)
    for line in (np.s_[:, 0:1], np.s_[0:1, :], np.s_[:, 1:2], np.s_[1:2, :], np.s_[-1:, :]):
        strip = np.fft.fftshift(power[line], axes=0)
        size = tuple(min(31, length) if length > 1 else 1 for length in strip.shape)
        local = ndimage.percentile_filter(strip, 25, size=size, mode="nearest") / -np.log(0.75)
        noise[line] = np.maximum(noise[line], np.fft.ifftshift(local, axes=0))
    return np.asarray(np.maximum(noise, floor))


def quantile_of_noise(shape: Any, false_alarms: float) -> float:
    """Return the power over noise that pure noise exceeds once in 1 / `false_alarms` images."""
    return float(np.log(np.prod(shape) / 2 / false_alarms))
