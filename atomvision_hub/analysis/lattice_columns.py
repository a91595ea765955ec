"""How far the columns of a cell really move under a translation that nearly repeats it.

Crystals count as repeated by a translation when each column comes to lie within a tolerance of one of its
kind. What an image shows of that are the waves that the translation forbids. They are explained by
displacements of the columns of the mean cell: columns are bright spots of one shape, found one by one in the
waves that are allowed; in first order each displacement adds ``-2 pi i q.u`` times what its column
contributes. What displacements do not explain are columns of other brightness, or absent ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Integers = npt.NDArray[np.int64]

_MOST_COLUMNS = 24
_MOST_WAVES = 2000  # of a cell; larger ones hold more columns than these, and take seconds
_EXPLAINED = 1e-4  # share of the power of a cell below which no more columns are looked for
_NUMBERS = 3.5  # data for which one column with its three numbers may be found
_STEPS = 4
_FLOOR = 2e-3  # share of the power of forbidden waves that columns of one shape cannot explain
_LONGEST = 2.0  # displacements are expected to be so many tolerances, root mean square


@dataclass(frozen=True)
class Columns:
    """Bright spots of one shape, ``weight exp(-2 pi² variance q²)``.

    Parameters
    ----------
    places
        (x, y) in pixels, shape (n, 2).
    weights
        Shape (n,), all above zero.
    variance
        Mean square radius along one axis, px².
    """

    places: Array
    weights: Array
    variance: float

    def parts(self, frequencies: Array) -> Complex:
        """Return what each column contributes to waves, shape (waves, n)."""
        fall = np.exp(-2 * math.pi**2 * self.variance * (frequencies**2).sum(axis=1))
        phases = np.exp(-2j * math.pi * (frequencies @ self.places.T))
        return np.asarray(fall[:, None] * phases * self.weights)


@dataclass(frozen=True)
class Moves:
    """What a translation does to the columns of a cell.

    Parameters
    ----------
    largest
        Distance, px, by which the worst column misses its like.
    other
        Share of the power of the forbidden waves, less noise, that displacements do not explain.
    """

    largest: float
    other: float


def find_columns(frequencies: Array, amplitudes: Complex, noise: Array, basis: Array) -> Columns | None:
    """Return the columns of a cell from its waves, one of each pair q, -q; None where there are too few.

    The brightest spot of what is not yet explained is added, then all are fitted together; and so on.

    Parameters
    ----------
    frequencies
        (x, y) in cycles per pixel, shape (n, 2).
    amplitudes
        Shape (n,).
    noise
        Expected power of the noise, shape (n,).
    basis
        Of the cell, rows (x, y) in pixels.
    """
    squares, power = (frequencies**2).sum(axis=1), np.abs(amplitudes) ** 2
    most = min(_MOST_COLUMNS, int(2 * len(amplitudes) / _NUMBERS))
    clear = power > 4 * noise
    if most < 1 or clear.sum() < 3 or len(amplitudes) > _MOST_WAVES:
        return None
    slope = np.polyfit(squares[clear], np.log(power[clear]), 1, w=np.sqrt(power[clear] / power.max()) + 0.05)[
        0
    ]
    variance = max(-slope / (4 * math.pi**2), 1e-2 / squares.max())
    spacing = 0.3 / math.sqrt(squares.max())
    counts = [max(4, math.ceil(float(np.hypot(*edge)) / spacing)) for edge in basis]
    # Waves of a cell are whole numbers; on a grid over it their sum is a Fourier transform.
    places = tuple(np.rint(frequencies @ basis.T).astype(np.intp).T % np.array(counts)[:, None])
    enough = max(_EXPLAINED * float(power.sum()), float(noise.sum()))
    found = Columns(np.empty((0, 2)), np.empty(0), variance)
    left = amplitudes
    for _ in range(most):
        fall = np.exp(-2 * math.pi**2 * found.variance * squares)
        spectrum = np.zeros(counts, dtype=np.complex128)
        np.add.at(spectrum, places, fall * left)
        brightness = np.fft.ifft2(spectrum, norm="forward").real / float(fall @ fall)
        best = np.unravel_index(int(brightness.argmax()), brightness.shape)
        if brightness[best] <= 0:
            break
        found = Columns(
            np.vstack([found.places, np.array(best) / counts @ basis]),
            np.append(found.weights, brightness[best]),
            found.variance,
        )
        found = _fitted(found, frequencies, amplitudes)
        left = amplitudes - found.parts(frequencies).sum(axis=1)
        if float((np.abs(left) ** 2).sum()) < enough:
            break
    return found if len(found.weights) else None


def _fitted(columns: Columns, frequencies: Array, amplitudes: Complex) -> Columns:
    """Return columns whose places, weights and common width fit best: Gauss-Newton steps, damped."""
    squares = (frequencies**2).sum(axis=1)
    for _ in range(_STEPS):
        parts = columns.parts(frequencies)
        slopes = [
            parts / columns.weights,
            -2j * math.pi * frequencies[:, :1] * parts,
            -2j * math.pi * frequencies[:, 1:] * parts,
            -2 * math.pi**2 * squares[:, None] * parts.sum(axis=1, keepdims=True),
        ]
        slope = _real(np.concatenate(slopes, axis=1))
        normal = slope.T @ slope
        normal[np.diag_indices_from(normal)] *= 1 + 1e-3
        normal[np.diag_indices_from(normal)] += 1e-12 * float(normal.diagonal().max())
        change = np.linalg.solve(normal, slope.T @ _real(amplitudes - parts.sum(axis=1)))
        n = len(columns.weights)
        weights = columns.weights + change[:n]
        moves = np.stack([change[n : 2 * n], change[2 * n : 3 * n]], axis=1)
        # No step is longer than half a column's width.
        width = math.sqrt(columns.variance)
        moves /= np.maximum(1, np.hypot(*moves.T) / (0.5 * width))[:, None]
        kept = weights > 1e-4 * weights.max()
        if not kept.any():
            break
        variance = float(
            np.clip(columns.variance + change[-1], 0.7 * columns.variance, 1.4 * columns.variance)
        )
        columns = Columns((columns.places + moves)[kept], weights[kept], variance)
    return columns


def moves(
    indices: Integers,
    frequencies: Array,
    amplitudes: Complex,
    noise: Array,
    translation: tuple[int, int],
    order: int,
    basis: Array,
    tolerance: float,
) -> Moves | None:
    """Return how far columns miss their like under a translation; None where no columns are found.

    Parameters
    ----------
    indices
        Of the waves on the reciprocal lattice, one of each pair, shape (n, 2).
    frequencies, amplitudes, noise
        Of the waves.
    translation, order
        Whole numbers (h, k): the translation is ``(h, k) @ basis / order``.
    basis
        Of the cell that certainly repeats, rows (x, y) in pixels.
    tolerance
        Displacement that counts as none, px: the scale of what is expected.
    """
    kind = indices @ translation % order
    step = np.array(translation) @ basis / order
    small = np.array([step, basis[1] if translation[0] else basis[0]])
    mean = kind == 0
    columns = find_columns(frequencies[mean], amplitudes[mean], noise[mean], small)
    if columns is None:
        return None
    power = left = 0.0
    shifts = np.zeros((order, len(columns.weights), 2))
    for one in range(1, order // 2 + 1):
        # Of waves of the opposite kind the partner -q is of this one.
        turn = (kind == order - one) & (kind != one)
        members = (kind == one) | turn
        if not members.any():
            continue
        q = np.where(turn[members], -1, 1)[:, None] * frequencies[members]
        seen = np.where(turn[members], amplitudes[members].conj(), amplitudes[members])
        parts = -2j * math.pi * columns.parts(q)
        slope = np.concatenate([parts * q[:, :1], parts * q[:, 1:]], axis=1)
        total = np.abs(seen) ** 2
        spread = np.sqrt((noise[members] + _FLOOR * float(total.mean())) / 2)
        if order > 2:
            matrix: npt.NDArray[np.complexfloating] | Array = slope / spread[:, None]
            data: npt.NDArray[np.complexfloating] | Array = seen / spread
        else:
            matrix, data = _real(slope / spread[:, None]), _real(seen / spread)
        normal = matrix.conj().T @ matrix + np.eye(matrix.shape[1]) / (_LONGEST * tolerance) ** 2
        solution = np.linalg.solve(normal, matrix.conj().T @ data)
        rest = np.abs(seen - slope @ solution) ** 2
        expected = float(noise[members].sum())
        power += max(0.0, float(total.sum()) - expected)
        left += max(0.0, float(rest.sum()) - expected)
        amplitude = solution.reshape(2, -1).T
        for copy in range(order):
            wave = amplitude * np.exp(2j * math.pi * one * copy / order)
            shifts[copy] += wave.real * (2 if order > 2 else 1)
    misses = np.hypot(*np.moveaxis(np.roll(shifts, -1, axis=0) - shifts, -1, 0))
    return Moves(float(misses.max()), min(1.0, left / power) if power > 0 else 0.0)


def _real(values: npt.NDArray[np.complexfloating]) -> Array:
    return np.concatenate([values.real, values.imag])
