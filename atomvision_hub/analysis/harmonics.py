"""An image as a sum of waves on a reciprocal lattice: amplitudes, what is left, and the lattice that fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from atomvision_hub.analysis.scan_lines import shrunk

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Integers = npt.NDArray[np.int64]

#: Bins around the origin that hold slow changes, not waves; a wave keeps this distance from others too.
NEAR = 2.5

_RING = 4  # bins
_COUPLED = 1e-4  # side lobes of the window below this do not couple waves
#: One of each pair of a wave's neighbours, as steps of its indices.
_NEIGHBOURS = np.array([(0, 1), (0, 2), *((i, j) for i in (1, 2) for j in range(-2, 3))])
_STRONGEST = 40  # waves whose places refine the lattice
_LOST = 4.0  # bins that a wave may move from where it was guessed
_LAST = 1e-3  # bins
_MOST_STEPS = 6


class NoLatticeError(ArithmeticError):
    """What was taken for a lattice is none: its waves run away when they are fitted."""


class View:
    """An image under a Hann window.

    Frequencies are in cycles per pixel, (x, y); phases refer to the middle of the image; a wave
    ``2 Re(c exp(2 pi i q.r))`` has power ``|c|²``.

    Parameters
    ----------
    image
        Grey levels [row, column], finite; the plane that fits best is taken off.
    step
        So many rows and columns are averaged first. Lengths and frequencies remain those of the pixels given.

    Attributes
    ----------
    image
        The averaged image without its plane.
    size
        Width and height (x, y) in pixels.
    x, y
        Coordinates of columns and rows from the middle.
    qx, qy, q
        Frequencies of the bins of `power`: of its columns, of its rows, and their length.
    """

    def __init__(self, image: Array, step: tuple[int, int] = (1, 1)) -> None:
        self.step = step
        image = averaged(image, step)
        self.shape = (image.shape[0], image.shape[1])
        self.size = np.array([self.shape[1] * step[1], self.shape[0] * step[0]])
        self.y, self.x = (k * (np.arange(n) - (n - 1) / 2) for n, k in zip(self.shape, step, strict=True))
        # A Hann window without the zeros at both ends.
        self._wy, self._wx = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in self.shape)
        self._weight = float(self._wy.sum() * self._wx.sum())
        self._window = (self._wy[:, None] * self._wx / self._weight).astype(np.float32)
        mean = self._wy @ image @ self._wx / self._weight
        slope_y = (self._wy * self.y) @ image @ self._wx / (self._wy * self.y**2).sum() / self._wx.sum()
        slope_x = self._wy @ image @ (self._wx * self.x) / (self._wx * self.x**2).sum() / self._wy.sum()
        self.image: Array = image - (mean + slope_y * self.y[:, None] + slope_x * self.x)
        self.qx, self.qy, self.q = _frequencies(self.shape, step)
        #: Power of white noise of variance one in every pixel, in every bin.
        self.white = float((self._wy**2).sum() * (self._wx**2).sum()) / self._weight**2 / (step[0] * step[1])
        #: Mean square of x and y under the window.
        self.spread = np.array(
            [
                (self._wx * self.x**2).sum() / self._wx.sum(),
                (self._wy * self.y**2).sum() / self._wy.sum(),
            ]
        )
        #: Variance of a first moment under white noise, over that of an amplitude.
        self.spread_of_noise = np.array(
            [
                (self._wx**2 * self.x**2).sum() / (self._wx**2).sum(),
                (self._wy**2 * self.y**2).sum() / (self._wy**2).sum(),
            ]
        )

    def power(self, image: Array, finer: int = 1) -> Array:
        """Return the power spectrum of an image of this shape, [row, column >= 0], `finer` times as fine."""
        shape = (finer * self.shape[0], finer * self.shape[1])
        # Single precision: its rounding is 1e-7 of the whole image's power, spread over all bins.
        values = fft.rfft2(image.astype(np.float32) * self._window, shape)
        return np.asarray(values.real**2 + values.imag**2)

    def noise(self, power: Array, least: float = 0.0) -> Array:
        """Return the expected power of what is no wave, bin by bin; white noise of variance `least` at least.

        From the median of rings, and of all bins of one column frequency: jitter of scan lines smears waves
        along the columns of the image and so along the columns of its spectrum.
        """
        ring, order, ends = _rings(self.shape, self.step)
        parts = np.split(power.ravel()[order], ends)
        rings = np.array([np.partition(part, len(part) // 2)[len(part) // 2] for part in parts])
        columns = np.sort(power.T, axis=1)[:, len(power) // 2]
        found = np.maximum(rings[ring], columns) / power.dtype.type(math.log(2))
        return np.asarray(np.maximum(found, least * self.white))

    def at(self, frequencies: Array, spectrum: Array, finer: int = 1) -> Array:
        """Return the values of a power or noise spectrum at the bins nearest to frequencies."""
        x, y = np.rint(frequencies * (finer * self.size)).astype(int).T
        y = np.where(x < 0, -y, y) % (finer * self.shape[0])
        return np.asarray(spectrum[y, np.minimum(np.abs(x), spectrum.shape[1] - 1)])

    def waves(self, reciprocal: Array, indices: Integers) -> tuple[Complex, Complex]:
        """Return ``exp(-2 pi i q.r)`` of a reciprocal lattice's waves as factors along rows and columns."""
        rows, columns = (
            _powers(reciprocal[0, axis], along, indices[:, 0])
            * _powers(reciprocal[1, axis], along, indices[:, 1])
            for axis, along in ((1, self.y), (0, self.x))
        )
        return rows, columns

    def amplitudes(self, image: Array, rows: Complex, columns: Complex) -> Complex:
        """Return what the window shows of waves in an image, shape (n,)."""
        lines = _lines(image, rows * self._wy)
        return np.asarray(np.einsum("ij,ij->i", lines, columns * self._wx) / self._weight)

    def moments(self, image: Array, rows: Complex, columns: Complex) -> tuple[Complex, Complex]:
        """Return the same, and that of the image times x and times y, shape (n, 2)."""
        left, right = rows * self._wy, columns * self._wx
        lines = _lines(image, np.concatenate([left, left * self.y]))
        plain, by_y = lines[: len(left)], lines[len(left) :]
        sums = [
            np.einsum("ij,ij->i", *pair) for pair in ((plain, right), (plain, right * self.x), (by_y, right))
        ]
        return np.asarray(sums[0] / self._weight), np.asarray(np.stack(sums[1:], axis=1) / self._weight)

    def gain(self, frequencies: Array) -> Array:
        """Return what averaging leaves of the amplitudes of waves, shape (n,)."""
        return np.asarray(np.sinc(frequencies * self.step[::-1]).prod(axis=1))

    def transform(self, frequencies: Array) -> Array:
        """Return the transform of the window, 1 at zero."""
        wx = np.cos(2 * np.pi * np.outer(frequencies[:, 0], self.x)) @ self._wx
        wy = np.cos(2 * np.pi * np.outer(frequencies[:, 1], self.y)) @ self._wy
        return np.asarray(wx * wy / self._weight)


@dataclass(frozen=True)
class Waves:
    """The waves of a reciprocal lattice in an image, one of each pair h, -h, without h = 0.

    Parameters
    ----------
    reciprocal
        Basis as rows (x, y), in cycles per pixel.
    indices
        Shape (n, 2).
    amplitudes
        Shape (n,); phases refer to the middle of the image.
    rows, columns
        Factors of `View.waves`.
    """

    reciprocal: Array
    indices: Integers
    amplitudes: Complex
    rows: Complex
    columns: Complex

    @property
    def frequencies(self) -> Array:
        """Cycles per pixel (x, y), shape (n, 2)."""
        return np.asarray(self.indices @ self.reciprocal)

    @property
    def power(self) -> Array:
        """``|c|²``, shape (n,)."""
        return np.asarray(np.abs(self.amplitudes) ** 2)

    def image(self) -> Array:
        """Return the sum of the waves, [row, column]."""
        left, right = 2 * self.amplitudes[:, None] * self.rows.conj(), self.columns.conj()
        rows = np.concatenate([left.real, -left.imag], dtype=np.float32)
        columns = np.concatenate([right.real, right.imag], dtype=np.float32)
        return np.asarray(rows.T @ columns, dtype=float)


def line_offsets(waves: Waves, image: Array) -> tuple[Array, float]:
    """Return how far each line of an image is shifted along x against its waves, in pixels, and the rms.

    Least squares on a line, ``offset = sum (image - waves) slope / sum slope²`` with the slope of the waves;
    shrunk by how much of the scatter of all lines is more than noise.
    """
    slope = Waves(
        waves.reciprocal,
        waves.indices,
        2j * np.pi * waves.frequencies[:, 0] * waves.amplitudes,
        waves.rows,
        waves.columns,
    ).image()
    left = image - waves.image()
    strength = (slope**2).sum(axis=1)
    strength = np.maximum(strength, 1e-12 * strength.max(initial=1e-300))
    offsets = (left * slope).sum(axis=1) / strength
    # What is left of a line when it is moved back is noise, stronger where the line is brighter.
    noise = left - offsets[:, None] * slope
    variance = ((noise * slope) ** 2).sum(axis=1) / strength**2
    return shrunk(offsets, variance)


def moved_lines(waves: Waves, offsets: Array) -> Array:
    """Return what moving each line by its offset (px, along x) adds to the image of the waves."""
    turned = waves.rows * np.exp(-2j * np.pi * np.outer(waves.frequencies[:, 0], offsets))
    moved = Waves(waves.reciprocal, waves.indices, waves.amplitudes, turned, waves.columns)
    return np.asarray(moved.image() - waves.image())


def half_indices(reciprocal: Array, finest: float) -> Integers:
    """Return the indices (h, k) of a reciprocal lattice's points up to a frequency, one of each pair."""
    reach = np.ceil(finest * np.linalg.norm(np.linalg.inv(reciprocal).T, axis=1)).astype(int)
    h, k = np.mgrid[0 : reach[0] + 1, -reach[1] : reach[1] + 1].reshape(2, -1)
    half = (h > 0) | (k > 0)
    indices = np.stack([h[half], k[half]], axis=1)
    places = indices @ reciprocal
    # Beyond Nyquist along either axis a wave looks like another one.
    return np.asarray(indices[((places**2).sum(axis=1) <= finest**2) & (np.abs(places).max(axis=1) < 0.5)])


def fit_waves(view: View, reciprocal: Array, indices: Integers) -> Waves:
    """Return the waves of these indices, fitted together: under the window each sees its neighbours."""
    rows, columns = view.waves(reciprocal, indices)
    measured = view.amplitudes(view.image, rows, columns)
    return Waves(reciprocal, indices, _uncoupled(view, reciprocal, indices, measured), rows, columns)


def _uncoupled(view: View, reciprocal: Array, indices: Integers, measured: Complex) -> Complex:
    """Solve for the amplitudes by fixed-point iteration; neighbours overlap little."""
    steps = _NEIGHBOURS
    factors = view.transform(steps @ reciprocal)
    coupled = np.abs(factors) > _COUPLED
    steps, factors = steps[coupled], factors[coupled]
    reach = int(np.abs(indices).max(initial=0)) + 3
    h, k = (reach + indices).T
    grid = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=complex)
    solution = measured
    for _ in range(12):
        grid[h, k], grid[2 * reach - h, 2 * reach - k] = solution, solution.conj()
        seen = np.zeros_like(measured)
        for (i, j), factor in zip(steps.tolist(), factors.tolist(), strict=True):
            seen += factor * (grid[h - i, k - j] + grid[h + i, k + j])
        before, solution = solution, measured - seen
        if np.abs(solution - before).max(initial=0) <= 1e-7 * np.abs(measured).max(initial=0):
            break
    return solution


@dataclass(frozen=True)
class Refined:
    """A lattice that fits an image best.

    Parameters
    ----------
    reciprocal
        Basis as rows (x, y), in cycles per pixel.
    covariance
        Of the direct basis (ax, ay, bx, by), px², shape (4, 4): from the noise, and from how much more than
        by noise the waves stray from the lattice (Birge ratio).
    waves
        The strongest waves.
    """

    reciprocal: Array
    covariance: Array
    waves: Waves


def refine(
    view: View, reciprocal: Array, finest: float, power: Array, noise: Array, *, done: float = 2e-5
) -> Refined:
    """Return the reciprocal lattice that fits best.

    Gauss-Newton steps on the squared difference between the image and the strongest waves of the lattice,
    under the window: where a wave's frequency is a little off, the first moment of what is left tells by how
    much, and four numbers explain all of these offsets.

    Parameters
    ----------
    reciprocal
        First guess, rows (x, y), cycles per pixel; right to half a bin at the strongest waves.
    finest
        Largest frequency, cycles per pixel.
    power, noise
        Spectra of the image.
    done
        Bins by which waves still move when the lattice is found.

    Raises
    ------
    NoLatticeError
        When a wave leaves its place, or the waves do not tell two directions.
    """
    start, size = reciprocal, view.size
    indices = half_indices(reciprocal, finest)
    indices = indices[np.argsort(-view.at(indices @ reciprocal, power))[:_STRONGEST]]
    if len(indices) < 2:
        raise NoLatticeError
    waves = fit_waves(view, reciprocal, indices)
    for _ in range(_MOST_STEPS):
        more, moments = view.moments(view.image - waves.image(), waves.rows, waves.columns)
        amplitudes = waves.amplitudes + _uncoupled(view, reciprocal, indices, more)
        waves = replace(waves, amplitudes=amplitudes)
        offsets = (moments / waves.amplitudes[:, None]).imag / (2 * np.pi * view.spread)
        noise_at = view.at(waves.frequencies, noise)
        # A wave below the noise has no place.
        variances = (noise_at / np.maximum(2 * waves.power - noise_at, 1e-3 * noise_at))[:, None] * (
            view.spread_of_noise / (2 * np.pi * view.spread) ** 2
        )
        h = indices.astype(float)
        normal = np.stack([h.T @ (h / variances[:, axis, None]) for axis in (0, 1)])
        right = np.stack([h.T @ (offsets[:, axis] / variances[:, axis]) for axis in (0, 1)])
        if (np.linalg.det(normal) <= 1e-9 * normal[:, 0, 0] * normal[:, 1, 1]).any():
            raise NoLatticeError
        change = np.linalg.solve(normal, right[:, :, None])[:, :, 0].T
        reciprocal = reciprocal + change
        if np.abs(indices @ (reciprocal - start) * size).max() > _LOST:
            raise NoLatticeError
        waves = Waves(reciprocal, indices, amplitudes, *view.waves(reciprocal, indices))
        moved = np.abs(indices @ change).max() * view.size.max()
        # Steps shrink quadratically: after one of a thousandth of a bin there is none worth while.
        if moved < max(done, _LAST):
            break
    left = offsets - h @ change
    freedom = max(1, 2 * len(h) - 4)
    birge = max(1.0, float((left**2 / variances).sum()) / freedom)
    inverse = np.linalg.inv(normal) * birge
    direct = np.linalg.inv(reciprocal).T
    # d(direct) = -direct @ d(reciprocal).T @ direct, and columns of the reciprocal basis are independent.
    covariance = np.zeros((4, 4))
    for axis in (0, 1):
        # Of the reciprocal basis one component at a time: d direct = -direct d(reciprocal).T direct.
        jacobian = -np.einsum("k,mn->knm", direct[:, axis], direct).reshape(4, 2)
        covariance += jacobian @ inverse[axis] @ jacobian.T
    return Refined(reciprocal, covariance, waves)


def _lines(image: Array, left: Complex) -> Complex:
    """Return ``left @ image`` of a real image; single precision is exact to 1e-6 of the strongest wave."""
    both = np.concatenate([left.real, left.imag], dtype=np.float32) @ image.astype(np.float32)
    return np.asarray(both[: len(left)] + 1j * both[len(left) :])


def averaged(image: Array, step: tuple[int, int]) -> Array:
    """Return the means of blocks of an image's rows and columns; what is left over at its end is cut off."""
    if step == (1, 1):
        return image
    (rows, columns), (down, across) = image.shape, step
    cut = image[: rows // down * down, : columns // across * across]
    return np.asarray(cut.reshape(rows // down, down, columns // across, across).mean(axis=(1, 3)))


@cache
def _frequencies(shape: tuple[int, int], step: tuple[int, int]) -> tuple[Array, Array, Array]:
    qx, qy = np.arange(shape[1] // 2 + 1) / (shape[1] * step[1]), fft.fftfreq(shape[0], step[0])
    return qx, qy, np.hypot(qy[:, None], qx)


@cache
def _rings(shape: tuple[int, int], step: tuple[int, int]) -> tuple[Integers, Integers, Integers]:
    """Return the ring of every bin, the bins in the order of their rings, and where each ring ends."""
    extent = min(shape[0] * step[0], shape[1] * step[1])
    last = extent / (2 * max(step)) / _RING
    ring = np.minimum(_frequencies(shape, step)[2] * extent / _RING, last).astype(int)
    counts = np.bincount(ring.ravel())
    return ring, np.argsort(ring, axis=None, kind="stable"), np.cumsum(counts)[:-1]


def _powers(frequency: float, along: Array, exponents: Integers) -> Complex:
    """Return ``exp(-2 pi i n frequency r)`` for the exponents n, [exponent, r]."""
    reach = int(np.abs(exponents).max(initial=0))
    table = np.empty((2 * reach + 1, len(along)), dtype=complex)
    table[reach] = 1
    table[reach + 1 :] = np.exp(-2j * np.pi * frequency * along)
    np.cumprod(table[reach:], axis=0, out=table[reach:])
    table[:reach] = table[:reach:-1].conj()
    return np.asarray(table[exponents + reach])
