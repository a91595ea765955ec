"""Whether what repeats has the symmetry that its lattice seems to have.

A crystal's lattice is square because the crystal has fourfold axes, not the other way round; a lattice that
only happens to be nearly square belongs to a crystal without them. Powers of waves tell: those of a crystal
with fourfold axes are equal in fours. Drift and calibration, which make lattices look oblique or square,
leave them as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Symmetries of a lattice with the reduced vectors u, v and w = u + v, as maps of indices (h, k) of waves.
OPERATIONS = {
    "threefold": ((0, 1), (-1, -1)),  # u -> v -> -w
    "fourfold": ((0, 1), (-1, 0)),  # u -> v -> -u
    "mirror u": ((1, 0), (0, -1)),  # v -> -v
    "mirror u-v": ((0, 1), (1, 0)),  # u <-> v
    "mirror v-w": ((1, 0), (-1, -1)),  # v -> -w
}


@dataclass(frozen=True)
class Asymmetry:
    """How much waves differ that a symmetry makes equal.

    Parameters
    ----------
    value
        Sum of squared differences of their amplitudes over that of the amplitudes: 0 where they are equal,
        about 0.3 where they have nothing to do with each other.
    uncertainty
        What noise alone makes of it.
    """

    value: float
    uncertainty: float


def asymmetries(
    indices: npt.NDArray[np.int64], frequencies: Array, power: Array, noise: Array
) -> dict[str, Asymmetry | None]:
    """Return the asymmetry for each of `OPERATIONS`, ``None`` where no wave has a partner.

    Parameters
    ----------
    indices
        Of waves on the reciprocal lattice of the reduced basis, one of each pair h, -h, shape (n, 2).
    frequencies
        Of the waves (x, y), shape (n, 2): amplitudes may fall off with the frequency elliptically, as jitter
        and astigmatism make it.
    power, noise
        Of the waves, and of the noise at them.
    """
    reach = int(np.abs(indices).max(initial=0)) * 2
    place = np.full((2 * reach + 1, 2 * reach + 1), -1)
    for sign in (1, -1):
        place[reach + sign * indices[:, 0], reach + sign * indices[:, 1]] = np.arange(len(indices))
    x, y = frequencies.T
    squares = np.stack([x * x, 2 * x * y, y * y], axis=1)
    amplitude = np.sqrt(power)
    found: dict[str, Asymmetry | None] = {}
    for name, operation in OPERATIONS.items():
        there = indices @ np.array(operation).T
        partner = place[reach + there[:, 0], reach + there[:, 1]]
        first = np.flatnonzero((partner >= 0) & (partner != np.arange(len(indices))))
        if not len(first):
            found[name] = None
            continue
        second = partner[first]
        a, b = amplitude[first], amplitude[second]
        variance = (noise[first] + noise[second]) / 2
        # Fall-off: the logarithm of their ratio is a quadratic form of the frequencies.
        weight = 1 / (variance / 2 + 1e-4 * a * b + 1e-300)
        slope = (squares[first] - squares[second]) * np.sqrt(a * b)[:, None]
        normal = slope.T @ (slope * weight[:, None])
        normal += np.eye(3) * (1e-6 * np.trace(normal) + 1e-300)
        left = a - b - slope @ np.linalg.solve(normal, slope.T @ (weight * (a - b)))
        total = float((a**2 + b**2).sum())
        excess = max(0.0, float((left**2).sum() - variance.sum()))
        found[name] = Asymmetry(excess / total, float(variance.sum()) / total / math.sqrt(len(first)))
    return found
