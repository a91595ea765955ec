"""Sums of Gaussians that end somewhere, and their overlaps with an image: products of small matrices.

A Gaussian is a product of two profiles, so the sum of those in a tile of the image is one product of two
matrices, and so are the overlaps of all of them with what a tile shows. That is several times as fast as to
go through the pixels around each peak.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.atoms.pixels import Array

REACH = 3.0  # half side of a peak's window in widths of a column: exp(-4.5)

_SIDE = 48  # px of a tile, or a little more
_WHOLE = 128  # px; up to this an image is not cut

Values = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class Overlaps(NamedTuple):
    """Sums over an image of each peak's Gaussian g, with p and q the distances (x, y) in widths.

    Times 1, p, q, and p² + q².
    """

    one: Array
    along_x: Array
    along_y: Array
    squares: Array


class Tiles:
    """Gaussian peaks of height 1 in the tiles of an image that they reach into.

    Parameters
    ----------
    x, y
        Centres, px; they may lie a little outside.
    sigma
        Widths (rows, columns), px.
    shape
        Rows and columns of the image.
    """

    def __init__(self, x: Array, y: Array, sigma: tuple[float, float], shape: tuple[int, int]) -> None:
        self.shape, self.number = shape, len(x)
        down, across = _Axis.of(y, sigma[0], shape[0]), _Axis.of(x, sigma[1], shape[1])
        self.count, self.sides = (down.tiles, across.tiles), (down.side, across.side)
        tiles = down.tiles * across.tiles
        self.peak = slots = np.arange(self.number)
        self.most, row, column = self.number, down.first, across.first
        if tiles > 1:
            self.peak, row, column = _entries(down, across)
            tile = row * across.tiles + column
            held = np.bincount(tile, minlength=tiles)
            self.most = int(held.max(initial=0))
            slots = tile * self.most + np.arange(len(tile)) - (np.cumsum(held) - held)[tile]
        self.slots = slots
        self.down = _Profiles(down, self.peak, row, slots, tiles * self.most)
        self.across = _Profiles(across, self.peak, column, slots, tiles * self.most)

    def model(self, height: Array) -> Values:
        """Return the sum of the peaks with their heights, shape (rows, columns)."""
        light = np.zeros(len(self.down.dense), np.float32)
        light[self.slots] = height[self.peak]
        scaled = self._by_tile(self.down.dense * light[:, None])
        tiles = scaled.transpose(0, 2, 1) @ self._by_tile(self.across.dense)
        tiles = tiles.reshape(*self.count, *self.sides).transpose(0, 2, 1, 3)
        rows, columns = self.shape
        return tiles.reshape(self.count[0] * self.sides[0], -1)[:rows, :columns]

    def overlaps(self, image: Values) -> Overlaps:
        """Return the overlaps of the peaks with an image, which is dark outside."""
        ends = [n * side for n, side in zip(self.count, self.sides, strict=True)]
        if ends != list(self.shape):
            image = np.pad(image, [(0, end - n) for end, n in zip(ends, self.shape, strict=True)])
        (ny, nx), (rows, columns) = self.count, self.sides
        tiles = image.reshape(ny, rows, nx, columns).transpose(0, 2, 1, 3).reshape(-1, rows, columns)
        along = self.down.near(self._by_tile(self.across.dense) @ tiles.transpose(0, 2, 1))
        across = self.across.near(self._by_tile(self.down.dense) @ tiles)
        q, p = self.down.distance, self.across.distance
        first_x, first_y = across * p, along * q
        sums = (
            along.sum(axis=1),
            first_x.sum(axis=1),
            first_y.sum(axis=1),
            np.einsum("eu,eu->e", first_x, p) + np.einsum("ev,ev->e", first_y, q),
        )
        return Overlaps(*(np.bincount(self.peak, one, minlength=self.number).astype(float) for one in sums))

    def _by_tile(self, dense: Values) -> Values:
        return dense.reshape(self.count[0] * self.count[1], self.most, dense.shape[1])


class _Axis(NamedTuple):
    """Peaks along one axis of an image: first and last tile that they reach into."""

    place: Array
    width: float
    middle: Indices
    reach: int
    tiles: int
    side: int
    first: Indices
    last: Indices

    @classmethod
    def of(cls, place: Array, width: float, length: int) -> _Axis:
        reach = int(np.ceil(REACH * width))
        # A tile is at least as wide as a peak, which so reaches into two at most.
        count = max(1, length // max(_SIDE, 2 * reach + 1)) if length > _WHOLE else 1
        side = -(-length // count)
        middle = np.rint(place).astype(np.intp)
        if count == 1:
            first = last = np.zeros(len(place), np.intp)
        else:
            first = np.maximum(middle - reach, 0) // side
            last = np.minimum(middle + reach, length - 1) // side
        return cls(place, width, middle, reach, count, side, first, last)


def _entries(down: _Axis, across: _Axis) -> tuple[Indices, Indices, Indices]:
    """Return peak, row and column of tiles that peaks reach into, ordered by tile."""
    parts = []
    for one, other in itertools.product((0, 1), (0, 1)):
        # Most peaks reach into one tile, those near a border into two, at corners into four.
        there = np.flatnonzero((down.last - down.first >= one) & (across.last - across.first >= other))
        parts.append((there, down.first[there] + one, across.first[there] + other))
    peak, row, column = (np.concatenate(one) for one in zip(*parts, strict=True))
    order = np.argsort(row * across.tiles + column, kind="stable")
    return peak[order], row[order], column[order]


class _Profiles:
    """Profiles along one axis of the peaks in tiles.

    `dense` holds them over all pixels of their tile, one row a slot; `distance` from the centre in widths and
    `profile` only where a peak reaches, one row for each peak in each tile.
    """

    def __init__(self, axis: _Axis, peak: Indices, tile: Indices, slots: Indices, size: int) -> None:
        reach, side = axis.reach, axis.side
        offsets = np.arange(-reach, reach + 1, dtype=np.float32)
        shift = (axis.middle - axis.place).astype(np.float32)
        self.distance = (offsets + shift[:, None]) / np.float32(axis.width)
        profile = np.exp(-0.5 * self.distance * self.distance)
        if size > len(peak) or len(peak) > len(profile):
            self.distance, profile = self.distance[peak], profile[peak]
        start = axis.middle[peak] - reach - tile * side
        # What reaches out of a tile is written into a frame around it.
        wide = np.zeros((size, side + 4 * reach), np.float32)
        steps = np.arange(2 * reach + 1)
        into = (slots * wide.shape[1] + start + 2 * reach)[:, None] + steps
        wide.ravel()[into] = profile
        self.dense = wide[:, 2 * reach : 2 * reach + side]
        pixel = start[:, None] + steps
        inside = (pixel >= 0) & (pixel < side)
        self.profile = profile * inside
        self.pixel = (slots * side)[:, None] + np.minimum(np.maximum(pixel, 0), side - 1)

    def near(self, values: Values) -> Values:
        """Return values by slot and pixel where the peaks reach, times their profiles."""
        return np.asarray(values.ravel().take(self.pixel) * self.profile)
