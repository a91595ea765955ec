"""Noise of an image, and how far off it puts the height of a column."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomvision_hub.analysis.atoms.pixels import Array, Grid, nearest_pixels


@dataclass(frozen=True)
class Noise:
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
    def of(cls, values: npt.NDArray[np.float32], grid: Grid) -> Noise:
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

    def at_least(self, error: float) -> Noise:
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
        row, column = nearest_pixels(x, y)
        rows, columns = self.level.shape
        row, column = np.minimum(np.maximum(row, 0), rows - 1), np.minimum(np.maximum(column, 0), columns - 1)
        level = self.level[row, column].astype(float)
        at_zero, slope = self.variance
        least = max(self.least, 0.5 * self.typical)
        return np.asarray(np.sqrt(np.maximum(at_zero + slope * level, least**2) / self.area))
