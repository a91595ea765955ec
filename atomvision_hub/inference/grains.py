"""Lattices of parts of an image: which of them are one and the same, and in how many orientations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import LatticeFit

Array = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]

#: Relative difference of vectors that the distortion of a scan may make between two parts of an image.
ALIKE = 0.06
#: Longest multiple of a lattice that is told from a chance agreement.
_MOST_MULTIPLE = 12


@dataclass(frozen=True)
class Part:
    """A rectangle (left, top, width, height), px, and the lattice that fits it."""

    box: Box
    fit: LatticeFit

    @property
    def vectors(self) -> Array:
        """Reduced basis, rows (x, y)."""
        assert self.fit.vectors is not None
        return self.fit.vectors


def multiple(fine: Array, coarse: Array) -> int:
    """Return of how many cells of one lattice a cell of the other is made, 0 where it is not.

    1 means that they are equal, orientation included.
    """
    whole = np.rint(coarse @ np.linalg.inv(fine))
    left = np.hypot(*(coarse - whole @ fine).T)
    # A fraction of the longer one, and no more of the finer lattice's own vectors.
    allowed = np.minimum(ALIKE * np.hypot(*coarse.T), 0.25 * float(np.hypot(*fine.T).min()))
    cells = abs(round(float(np.linalg.det(whole))))
    return cells if (left <= allowed).all() and cells <= _MOST_MULTIPLE else 0


def congruent(one: Array, other: Array) -> bool:
    """Tell whether two lattices are equal up to orientation, by the three shortest lengths of each."""
    lengths = [np.sort(np.hypot(*np.vstack([basis, basis.sum(axis=0)]).T)) for basis in (one, other)]
    return bool((np.abs(lengths[0] / lengths[1] - 1) <= ALIKE).all())


def grains(parts: Sequence[Part]) -> list[list[Part]]:
    """Return parts that share lattice and orientation, most of them first; those without lattice left out."""
    groups: list[list[Part]] = []
    for part in sorted((p for p in parts if p.fit.lattice), key=lambda p: -p.fit.score):
        for group in groups:
            if multiple(group[0].vectors, part.vectors) == 1:
                group.append(part)
                break
        else:
            groups.append([part])
    return sorted(groups, key=lambda group: (-len(group), -group[0].fit.score))


def tiles(shape: tuple[int, int], side: int, most: int) -> list[Box]:
    """Return up to most x most squares of a side, spread evenly, at most half overlapping."""
    starts = []
    for length in shape:
        extent = min(side, length)
        count = min(most, 1 + math.ceil(2 * (length - extent) / extent))
        starts.append([round(i * (length - extent) / max(1, count - 1)) for i in range(count)])
    height, width = (min(side, length) for length in shape)
    return [(left, top, width, height) for top in starts[0] for left in starts[1]]


def bounding(parts: Sequence[Part]) -> Box:
    """Return the rectangle around parts."""
    left, top = (min(part.box[axis] for part in parts) for axis in (0, 1))
    right, bottom = (max(part.box[axis] + part.box[axis + 2] for part in parts) for axis in (0, 1))
    return left, top, right - left, bottom - top


def apart(parts: Sequence[Part]) -> int:
    """Return how many of the parts do not overlap by more than half: independent witnesses."""
    kept: list[Box] = []
    for part in parts:
        if all(_overlap(part.box, box) <= 0.5 * part.box[2] * part.box[3] for box in kept):
            kept.append(part.box)
    return len(kept)


def _overlap(one: Box, other: Box) -> float:
    width, height = (
        max(0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])) for i in (0, 1)
    )
    return width * height
