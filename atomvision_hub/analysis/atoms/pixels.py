"""Binned pixels, and quick statistics of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_FINEST = 1.6  # fewest pixels across a column's standard deviation after binning

Array = npt.NDArray[np.float64]


class Grid(NamedTuple):
    """An image on binned pixels, with the width that a column has there (rows, columns)."""

    image: npt.NDArray[np.float32]
    sigma: tuple[float, float]
    bins: tuple[int, int]

    @classmethod
    def of(cls, values: npt.NDArray[np.float32], sigma: tuple[float, float]) -> Grid:
        """Bin an image as far as its columns stay at least `_FINEST` pixels wide."""
        bins = (max(1, int(sigma[0] / _FINEST)), max(1, int(sigma[1] / _FINEST)))
        # The mean over n pixels widens a profile by the variance of n places.
        rows, columns = (np.sqrt(s**2 + (n**2 - 1) / 12) / n for s, n in zip(sigma, bins, strict=True))
        return cls(_bin(values, bins), (float(rows), float(columns)), bins)

    def to_pixels(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return places in the pixels of the image."""
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


def nearest_pixels(x: Array, y: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return rows and columns of places."""
    return np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)


def spread(values: npt.NDArray[np.float32]) -> float:
    """Return a standard deviation that outliers do not change, from a quarter of the pixels."""
    size = np.abs(values[::2, ::2]).ravel()
    return float(1.4826 * np.partition(size, size.size // 2)[size.size // 2])


def quantile(values: npt.NDArray[np.float32], share: float) -> float:
    """Return a quantile of every second pixel of every second row: quick, and near enough."""
    part = values[::2, ::2].ravel()
    index = int(share * (part.size - 1))
    return float(np.partition(part, index)[index])
