"""What one column looks like: a round profile of one Gaussian, or of a few."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_AT_LEAST = 0.8  # of `Probe.width`: parts that are narrower are not looked for in finer waves


@dataclass(frozen=True)
class Probe:
    """The profile of a column of height one, a sum of round Gaussians.

    Parameters
    ----------
    parts
        Height and standard deviation (px) of each Gaussian; the heights are positive and their sum is one.
    density
        Columns for each square pixel, at most: what an image seems to show beyond is due to columns that are
        not round or not everywhere the same.
    """

    parts: tuple[tuple[float, float], ...]
    density: float = math.inf

    @classmethod
    def gaussian(cls, width: float) -> Probe:
        """Return the profile of one Gaussian of this standard deviation (px)."""
        return cls(((1.0, width),))

    @property
    def width(self) -> float:
        """Standard deviation of the Gaussian of the same height that stands out of noise as clearly, px."""
        if len(self.parts) == 1:
            return self.parts[0][1]
        squares = sum(2 * a * b * (v * w) ** 2 / (v**2 + w**2) for a, v in self.parts for b, w in self.parts)
        return math.sqrt(squares)

    @property
    def narrowest(self) -> float:
        """Standard deviation (px) that says how fine the waves are that a column shows."""
        return max(min(width for _, width in self.parts), _AT_LEAST * self.width)

    @property
    def reach(self) -> float:
        """Three standard deviations of the widest Gaussian, px."""
        return 3.0 * max(width for _, width in self.parts)

    def transform(self, squares: Array) -> Array:
        """Return the Fourier transform at squared frequencies (cycles per pixel); at 0 it is the sum."""
        parts = (
            height * np.exp(-2 * (np.pi * width) ** 2 * squares) * (2 * np.pi * width**2)
            for height, width in self.parts
        )
        return np.asarray(sum(parts))

    def scaled(self, factor: float) -> Probe:
        """Return the same profile in pixels of which so many are one of these."""
        parts = tuple((height, width * factor) for height, width in self.parts)
        return Probe(parts, self.density / factor**2)
