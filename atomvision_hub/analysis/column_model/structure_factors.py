"""Structure factors of an image: its waves at the points of a reciprocal lattice, to the last one seen."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgWarning, solve

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StructureFactors:
    """Amplitudes of waves ``F exp(2 pi i q.r)`` whose sum is the periodic part of an image.

    Parameters
    ----------
    basis
        Of the lattice, rows (x, y) in pixels.
    indices
        (n, 2), one of each pair +h, -h, the mean (0, 0) included.
    frequencies
        q in cycles per pixel, (n, 2).
    values
        F in grey levels, (n,).
    noise
        Standard deviation that white noise of the image gives them.
    """

    basis: Array
    indices: Integers
    frequencies: Array
    values: Complex
    noise: float


def structure_factors(image: Array, basis: Array, finest: float, noise: float) -> StructureFactors:
    """Return the waves of a lattice that fit an image best, all together, under a Hann window.

    Parameters
    ----------
    image
        Grey levels [row, column].
    basis
        Rows (x, y) in pixels.
    finest
        Largest frequency, cycles per pixel.
    noise
        Standard deviation of a pixel.

    Notes
    -----
    Under the window waves overlap; the least-squares solution needs the window's transform at all differences
    of their frequencies, which are points of the same lattice.
    """
    rows, columns = image.shape
    reciprocal = np.linalg.inv(basis).T
    reach = int(finest * np.hypot(*basis.T).max()) + 1
    indices = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    frequencies = indices @ reciprocal
    inside = (frequencies**2).sum(1) <= finest**2
    indices, frequencies = indices[inside], frequencies[inside]

    window_x, window_y = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (columns, rows))
    measured = _transform(frequencies, window_x, window_y, image)
    steps = np.mgrid[-2 * reach : 2 * reach + 1, -2 * reach : 2 * reach + 1].reshape(2, -1).T
    table = _transform(steps @ reciprocal, window_x, window_y, None).reshape(4 * reach + 1, -1)
    first, second = np.moveaxis(indices[:, None] - indices[None], -1, 0) + 2 * reach
    with warnings.catch_warnings():
        # Of cells nearly as long as the image waves cannot be told apart; what comes of it explains nothing.
        warnings.simplefilter("ignore", LinAlgWarning)
        values = solve(table[first, second], measured, assume_a="her")
    half = (indices[:, 0] > 0) | ((indices[:, 0] == 0) & (indices[:, 1] >= 0))
    spread = np.sqrt((window_x**2).sum() * (window_y**2).sum()) / (window_x.sum() * window_y.sum())
    return StructureFactors(basis, indices[half], frequencies[half], values[half], float(noise * spread))


def _transform(frequencies: Array, window_x: Array, window_y: Array, image: Array | None) -> Complex:
    """Return the sums of ``window * image * exp(-2 pi i q.r)``; of the window alone without an image."""
    along = np.exp(-2j * np.pi * frequencies[:, :1] * np.arange(len(window_x))) * window_x
    down = np.exp(-2j * np.pi * frequencies[:, 1:] * np.arange(len(window_y))) * window_y
    if image is None:
        return np.asarray(along.sum(1) * down.sum(1))
    return np.asarray(((along @ image.T) * down).sum(1))


def wave_power(image: Array, frequencies: Array) -> Array:
    """Return the power of an image's waves at frequencies (cycles per pixel), under a Hann window."""
    window_x, window_y = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in image.shape[::-1])
    found = _transform(frequencies, window_x, window_y, image) / (window_x.sum() * window_y.sum())
    return np.asarray(np.abs(found) ** 2)
