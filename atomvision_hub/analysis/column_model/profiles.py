"""Sums of round columns, and what least squares needs of them, from profiles along x and y."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d

from atomvision_hub.analysis.column_model.probe import Probe

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Profiles:
    """Columns of height one. As a Gaussian is a product, all sums over pixels are products of matrices.

    Parameters
    ----------
    places
        x, y in pixels, (n, 2); they may lie outside the image.
    probe
        Profile of a column.
    shape
        Rows and columns of the image.
    """

    def __init__(self, places: Array, probe: Probe, shape: tuple[int, int]) -> None:
        along = np.arange(shape[1]) - places[:, :1]
        down = np.arange(shape[0]) - places[:, 1:]
        self._parts = [_Part(along, down, height, width) for height, width in probe.parts]

    def image(self, heights: Array) -> Array:
        """Return the sum of columns of these heights, [row, column]."""
        return _sum((part.y * heights[:, None]).T @ part.x for part in self._parts)

    def slopes(self, heights: Array) -> tuple[Array, Array]:
        """Return the derivatives of `image` by x and by y, [row, column]."""
        along = _sum((part.y * heights[:, None]).T @ part.slope_x for part in self._parts)
        down = _sum((part.slope_y * heights[:, None]).T @ part.x for part in self._parts)
        return -along, -down

    def sums(self) -> Array:
        """Return the sum over the pixels of each column, (n,)."""
        return _sum(part.x.sum(1) * part.y.sum(1) for part in self._parts)

    def seen(self, image: Array) -> Array:
        """Return the products of each column with an image, summed over the pixels, (n,)."""
        return _sum(((part.x @ image.T) * part.y).sum(1) for part in self._parts)

    def pulled(self, image: Array) -> tuple[Array, Array]:
        """Return the same for the derivatives of the columns by x and by y."""
        along = _sum(((part.slope_x @ image.T) * part.y).sum(1) for part in self._parts)
        return along, _sum(((part.x @ image.T) * part.slope_y).sum(1) for part in self._parts)

    def overlaps(self) -> Array:
        """Return the products of the columns with each other, (n, n)."""
        total: Array | float = 0.0
        for one, two in self._pairs():
            product = (one.x @ two.x.T) * (one.y @ two.y.T)
            total = total + product if one is two else total + product + product.T
        return np.asarray(total)

    def moments(self) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return products, (n, n), of columns and their derivatives: 1·1, 1·x, 1·y, x·x, x·y, y·y."""
        total: list[Array] = []
        for one, two in self._pairs():
            x, x_slope, slopes_x = one.x @ two.x.T, one.x @ two.slope_x.T, one.slope_x @ two.slope_x.T
            y, y_slope, slopes_y = one.y @ two.y.T, one.y @ two.slope_y.T, one.slope_y @ two.slope_y.T
            if one is two:
                slope_x, slope_y = x_slope.T, y_slope.T
            else:
                slope_x, slope_y = one.slope_x @ two.x.T, one.slope_y @ two.y.T
            products = [x * y, x_slope * y, x * y_slope, slopes_x * y, slope_x * y_slope, x * slopes_y]
            if one is not two:  # and the other way round
                swapped = [x * y, slope_x * y, x * slope_y, slopes_x * y, x_slope * slope_y, x * slopes_y]
                products = [product + other.T for product, other in zip(products, swapped, strict=True)]
            total = [before + new for before, new in zip(total, products, strict=True)] if total else products
        return total[0], total[1], total[2], total[3], total[4], total[5]

    def _pairs(self) -> Iterator[tuple[_Part, _Part]]:
        return combinations_with_replacement(self._parts, 2)


class _Part:
    """One Gaussian of every column: profiles along x, and along y with its height."""

    def __init__(self, along: Array, down: Array, height: float, width: float) -> None:
        self._along, self._down, self._width = along, down, width
        self.x = np.exp(-0.5 * (along / width) ** 2)
        self.y = height * np.exp(-0.5 * (down / width) ** 2)

    @cached_property
    def slope_x(self) -> Array:
        """Derivatives of `x` by the places."""
        return np.asarray(self._along / self._width**2 * self.x)

    @cached_property
    def slope_y(self) -> Array:
        """Derivatives of `y` by the places."""
        return np.asarray(self._down / self._width**2 * self.y)


def _sum(parts: Iterable[Array]) -> Array:
    return np.asarray(sum(parts))


def in_image(places: Array, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which places (x, y), (n, 2), lie on pixels of an image of so many rows and columns."""
    return np.asarray(((places > -0.5) & (places < np.array(shape[::-1]) - 0.5)).all(1))


def clearness(left: Array, width: float, noise: float, margin: int) -> Array:
    """Return how many standard deviations of white noise a column would stand out of `left`, everywhere.

    Parameters
    ----------
    left
        What a model leaves of an image, [row, column].
    width, noise
        Of a column (pixels) and of a pixel (grey levels).
    margin
        So many pixels around the image are searched too: columns there are seen by their tails.

    Returns
    -------
    Array
        [row + 2 margin, column + 2 margin].
    """
    reach = int(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)

    def filtered(values: Array, weights: Array) -> Array:
        once = convolve1d(values, weights, axis=0, mode="constant")
        return np.asarray(convolve1d(once, weights, axis=1, mode="constant"))

    padded = np.pad(left, margin)
    squares = filtered(np.pad(np.ones_like(left), margin), kernel**2)
    # Far outside nearly nothing is seen of a column.
    seen = np.sqrt(np.maximum(squares, 0.04 * squares.max()))
    return np.asarray(filtered(padded, kernel) / seen / noise)


def strength(width: float) -> float:
    """Return the square root of the sum of squares of a column of height one."""
    return width * float(np.sqrt(np.pi))


def white_noise(image: Array, width: float) -> float:
    """Return the standard deviation of an image's noise, from frequencies that no column reaches.

    A Gaussian of standard deviation w has fallen to exp(-2 pi²) = 3e-9 at the frequency 1 / w.
    """
    rows, columns = image.shape
    window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (rows, columns)))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns))
    beyond = frequency > min(1 / width, 0.5)
    return float(np.sqrt(power[beyond].mean() / (window**2).sum()))


def rounding_noise(image: Array) -> float:
    """Return the noise of rounding to 8 bits."""
    return float(np.ptp(image)) / 255 / math.sqrt(12)


def pixel_noise(image: Array, width: float) -> float:
    """Return the noise, no less than nearly that of rounding to 8 bits, which dark places hide."""
    return max(white_noise(image, width), 0.9 * rounding_noise(image))
