"""Counts of electrons for whole images, several times as fast as NumPy's own, which draws pixel by pixel.

A sum of independent Poisson numbers is a Poisson number of the sum of their means. So a mean is split into a
multiple of 1/8, for which one random number and a table (Walker's alias method) give the count, and the rest
below 1/8, which few pixels see: candidates fall on the image at random and are kept in proportion to it. Both
are exact. From a mean of 64 on, the count is a Gaussian number with the corrections of Cornish and Fisher to
third order.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
_STEPS = 8  # of a mean, per count
_MANY = 64  # from here on the expansion
_BITS = 7  # counts in the table: below 128, beyond which 64 reaches with 1e-12


def poisson(mean: Image, generator: np.random.Generator) -> Image:
    """Return Poisson counts, float32 of the shape of `mean` (float32, not negative)."""
    means = mean.ravel()
    highest = float(means.max(initial=0.0))
    if highest < _MANY:
        return _few(means, generator).reshape(mean.shape)
    counts = np.empty_like(means)
    many = means >= _MANY
    if not many.all():
        few = ~many
        counts[few] = _few(means[few], generator)
    counts[many] = _expanded(means[many], generator)
    return counts.reshape(mean.shape)


def _few(means: Image, generator: np.random.Generator) -> Image:
    thresholds, others = _tables()
    eighths = means * np.float32(_STEPS)
    level = eighths.astype(np.uint32)
    eighths -= level
    chance = generator.integers(0, 2**32, len(means), dtype=np.uint32)
    place = chance >> np.uint32(32 - _BITS)
    counts = place.astype(np.float32)
    level <<= np.uint32(_BITS)
    place |= level
    chance <<= np.uint32(_BITS)
    other = chance >= thresholds.take(place)
    np.copyto(counts, others.take(place), where=other, casting="unsafe")
    # What is left of the means, thinned from a constant mean of one step.
    candidates = int(generator.poisson(len(means) / _STEPS))
    where = generator.integers(0, len(means), candidates, dtype=np.uint32)
    kept = where[generator.random(candidates, dtype=np.float32) < eighths.take(where)]
    np.add.at(counts, kept, np.float32(1))
    return counts


def _expanded(means: Image, generator: np.random.Generator) -> Image:
    z = generator.standard_normal(len(means), dtype=np.float32)
    root = np.sqrt(means)
    square = z * z
    counts = means + root * z
    counts += (square - 1) * np.float32(1 / 6)
    counts += z * (1 - square) / (72 * root)
    return np.maximum(np.rint(counts), 0)


@functools.cache
def _tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    """Return, for means of 0, 1/8, 2/8 ... 64, what stands at each count: threshold and the other count."""
    size = 1 << _BITS
    thresholds = np.zeros((_MANY * _STEPS, size), dtype=np.uint32)
    others = np.zeros((_MANY * _STEPS, size), dtype=np.uint8)
    factorials = np.array([math.lgamma(k + 1) for k in range(size)])
    for level in range(_MANY * _STEPS):
        if level == 0:
            continue  # always the other count, 0
        mean = level / _STEPS
        heights = np.exp(np.arange(size) * math.log(mean) - mean - factorials)
        share = (heights * (size / heights.sum())).tolist()
        small = [k for k, height in enumerate(share) if height < 1]
        large = [k for k, height in enumerate(share) if height >= 1]
        while small and large:
            low, high = small.pop(), large[-1]
            thresholds[level, low] = min(int(share[low] * 2**32), 2**32 - 1)
            others[level, low] = high
            share[high] -= 1 - share[low]
            if share[high] < 1:
                small.append(large.pop())
        for k in (*small, *large):  # full but for rounding
            thresholds[level, k], others[level, k] = 2**32 - 1, k
    return thresholds.ravel(), others.ravel()
