"""Lattice parameters of an image of any size: parts are fitted, and answered is what they agree on.

A fit to one rectangle takes the border of a grain, an edge of the sample or a bar burnt into the picture for
a part of the lattice. So squares spread over the image are fitted first; where enough of them show one
lattice, the rectangle around these is fitted once more, and that answer must agree with theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import LatticeFit, fit_lattice
from atomvision_hub.inference.beam import beam
from atomvision_hub.inference.flatten import flattened
from atomvision_hub.inference.grains import (
    Array,
    Box,
    Part,
    apart,
    bounding,
    congruent,
    grains,
    multiple,
    tiles,
)
from atomvision_hub.inference.lattice_result import LatticeParameters, Region
from atomvision_hub.structures.lattice import CENTERED
from atomvision_hub.structures.record import LATTICES

#: Relative distortions of real scans, each as likely: of four scans of known crystals one is off by 1 %, two
#: by 2 % and one by 6 %.
DISTORTION = (0.01, 0.02, 0.03, 0.06)
#: Asymmetry that coma, three-fold astigmatism and tilt leave in such scans (MoS2, SrTiO3: 0.002 to 0.013).
ABERRATION = 0.01
#: Relative standard error of pixel sizes: two scans of known crystals are off by 5 and 10 %.
CALIBRATION = 0.05

_FINEST = 0.2  # Å/px; finer images are binned, their columns stay many pixels wide
_SIDES = (256, 128)  # px of the squares, and the most of them along a side
_MOST = (5, 9)
_LARGEST = 640  # px a side of what is fitted in the end
_SMALL = 320  # px; up to this the whole image is asked first
_SHARE = 0.6  # of the squares that show a lattice, those that must agree
#: The ground is at least this wide (standard deviation, Å): more than a column.
_GROUND = 1.5
_FEWEST_PERIODS = 3.0  # of a lattice that no squares bear out
_WITNESS_PERIODS = 3.0  # of what one square shows; fewer are edges and steps
_SURE_PERIODS = 4.0  # of a superstructure that the squares do not show
_FEWEST_FOR_SCATTER = 3
#: Cells so many times longer than wide must repeat so often: bent or jittering scans look like these.
_LONG, _LONG_PERIODS = 4.0, 6.0
#: Score that a superstructure may have less than the finer lattice of the squares.
_LESS = 0.02
#: Features (99th percentile over the median, both of absolute values) that are rare and strong, and where
#: they are cut off, in medians. Lattices of few, bright columns have 4 to 6, noise 4.
_OUTLYING, _CUT = 6.5, 3.0


@dataclass(frozen=True)
class Measured:
    """The answer: parameters, or the reason why there are none; and all parts that were looked at."""

    parameters: LatticeParameters | None
    reason: str | None
    regions: tuple[Region, ...] = ()
    notes: tuple[str, ...] = ()


def measure_lattice(
    values: npt.NDArray[np.number],
    pixel_size: tuple[float, float] | None,
    *,
    apparent: float | None = None,
    calibration: float = CALIBRATION,
    distortion: float | Sequence[float] = DISTORTION,
) -> Measured:
    """Return the lattice on which an image, or most of what is crystalline in it, repeats.

    Parameters
    ----------
    values
        Finite grey levels [row, column].
    pixel_size
        Å/px (row, column); ``None`` gives lengths in pixels.
    apparent
        Without calibration a guess of the Å/px, that tells how fine the pixels are.
    calibration
        Relative standard error of the pixel size.
    distortion
        Relative distortion of the scan, as of `fit_lattice`.
    """
    scale = min(pixel_size) if pixel_size else apparent
    step = _binning(values.shape, scale)
    image = _binned(flattened(values, _GROUND / scale if scale else 0.0), step)
    size = None if pixel_size is None else (pixel_size[0] * step, pixel_size[1] * step)
    search = _Search(image, size, distortion)
    found = search.run()
    if isinstance(found, str) and (common := _without_outliers(image)) is not None:
        # Heavy atoms here and there hide the light ones that repeat.
        again = _Search(common, size, distortion)
        if not isinstance(second := again.run(), str):
            search, found = again, second
            search.notes.append(
                "the lattice is that of the many: columns much brighter than these were cut down to them"
            )
    regions = _regions(search, step)
    if not isinstance(found, str):
        found = _borne_out(found, size)
    if isinstance(found, str):
        return Measured(None, found, regions, tuple(search.notes))
    parameters = _parameters(found, search, step, calibration if pixel_size else None)
    if (times := beam(values, np.array(parameters.vectors_px))) is not None:
        reason = (
            f"a diffraction pattern, it seems: a spot in the middle is {times:.0f} times as strong as any "
            "other, and these fade around it; give an image of the crystal"
        )
        return Measured(None, reason, regions, tuple(search.notes))
    return Measured(parameters, None, regions, tuple(search.notes))


def _borne_out(found: _Found, size: tuple[float, float] | None) -> _Found | str:
    """Return the lattice, or why it is not believed."""
    fit = found.part.fit
    assert fit.vectors is not None
    assert fit.periods is not None
    short, long = (float(length) for length in np.hypot(*fit.vectors.T))
    if long <= _LONG * short or min(fit.periods) >= _LONG_PERIODS:
        return found
    unit = "px" if size is None else "Å"
    times = min(fit.periods)
    return (
        f"what looks like a cell of {short:.3g} x {long:.3g} {unit} repeats only {times:.1f} times in "
        "view; a distorted scan makes such long cells; crop the part that is least distorted"
    )


@dataclass(frozen=True)
class _Found:
    part: Part
    members: list[Part]
    source: Literal["image", "middle", "regions"]


class _Search:
    def __init__(
        self, image: Array, size: tuple[float, float] | None, distortion: float | Sequence[float]
    ) -> None:
        self.image, self.size, self.distortion = image, size, distortion
        self.parts: dict[Box, Part] = {}
        self.notes: list[str] = []
        #: Whether two lattices were seen in two places each: smaller squares will not agree better.
        self.several = False

    def run(self) -> _Found | str:
        rows, columns = self.image.shape
        whole: Part | None = None
        if min(rows, columns) <= _SMALL:
            whole = self._fit(_middle((0, 0, columns, rows)))
            if whole.fit.lattice and _FEWEST_PERIODS <= self._periods(whole) < 2 * _SURE_PERIODS:
                # Squares would hold too few periods to say anything.
                return self._alone(whole)
        reason = ""
        for side, most in zip(_SIDES, _MOST, strict=True):
            if side > 0.7 * min(rows, columns):
                continue
            answer = self._consensus(side, most)
            if isinstance(answer, _Found):
                return answer
            reason = reason or answer
            if self.several:
                break
        if reason:
            return reason
        return self._alone(whole or self._fit(_middle((0, 0, columns, rows))))

    def _alone(self, whole: Part) -> _Found | str:
        """Return the answer of one fit that nothing else bears out."""
        if whole.fit.lattice is None:
            return "the image does not repeat, or shows fewer than two periods"
        if self._periods(whole) < _FEWEST_PERIODS:
            return (
                f"what looks like a lattice repeats only {self._periods(whole):.2f} times in view; "
                f"{_FEWEST_PERIODS:g} periods or more tell one"
            )
        rows, columns = self.image.shape
        everything = whole.box == (0, 0, columns, rows)
        return _Found(whole, [whole], "image" if everything else "middle")

    def _consensus(self, side: int, most: int) -> _Found | str:
        """Return the lattice that squares agree on; why there is none; nothing where none shows any."""
        rows, columns = self.image.shape
        boxes = tiles((rows, columns), side, most)
        for number, box in enumerate(_few_first(boxes)):
            self._fit(box)
            if (
                number == 4
                and len(grains(first := self._at(boxes))) == 1
                and all(p.fit.lattice for p in first)
            ):
                break
        parts = self._at(boxes)
        shown = [part for part in parts if part.fit.lattice and self._periods(part) >= _WITNESS_PERIODS]
        if not shown:
            return ""
        groups = grains(shown)
        largest = groups[0]
        alike = [part for part in shown if _same_phase(largest[0], part) or _nested(largest[0], part)]
        if apart(largest) < 2 or len(alike) < _SHARE * len(shown):
            unlike = [group for group in groups[1:] if not _nested(largest[0], group[0])]
            self.several = apart(largest) > 1 and any(apart(group) > 1 for group in unlike)
            return _disagreement(groups, len(parts))
        orientations = [
            group for group in groups[1:] if _same_phase(largest[0], group[0]) and apart(group) > 1
        ]
        if orientations:
            self.notes.append(
                f"{1 + len(orientations)} grains of one lattice in different orientations; "
                "the vectors are those of the largest"
            )
        if len(alike) < 0.8 * len(parts):
            others, none = len(shown) - len(alike), len(parts) - len(shown)
            self.notes.append(
                f"{len(alike)} of {len(parts)} parts of the image show this lattice, {others} another one, "
                f"{none} none (vacuum, amorphous, noisy, edges)"
            )
        return self._refined(largest, everywhere=len(largest) == len(parts))

    def _refined(self, members: list[Part], *, everywhere: bool) -> _Found:
        """Return the fit to the rectangle around squares that agree, or the best of them if it does not."""
        rows, columns = self.image.shape
        full = (0, 0, columns, rows)
        box = _middle(full if everywhere else bounding(members))
        whole = self._fit(box)
        best = max(members, key=lambda part: part.fit.score)
        if whole.fit.lattice is None or not (cells := multiple(best.vectors, whole.vectors)):
            return _Found(best, members, "regions")
        worse = whole.fit.score < best.fit.score - _LESS
        if cells > 1 and (worse or self._periods(whole) < _SURE_PERIODS):
            # Steps in thickness look like a superstructure that repeats twice or thrice, a second grain like
            # one of many times the cell.
            return _Found(best, members, "regions")
        agreeing = [part for part in members if multiple(whole.vectors, part.vectors) == 1]
        source: Literal["image", "middle", "regions"] = "regions"
        if everywhere:
            source = "image" if box == full else "middle"
        return _Found(whole, agreeing or [whole], source)

    def _fit(self, box: Box) -> Part:
        if box not in self.parts:
            left, top, width, height = box
            fit = fit_lattice(
                self.image[top : top + height, left : left + width],
                self.size,
                distortion=self.distortion,
                aberration=ABERRATION,
            )
            self.parts[box] = Part(box, fit)
        return self.parts[box]

    def _at(self, boxes: Sequence[Box]) -> list[Part]:
        return [self.parts[box] for box in boxes if box in self.parts]

    @staticmethod
    def _periods(part: Part) -> float:
        return min(part.fit.periods) if part.fit.periods else 0.0


def _same_phase(one: Part, other: Part) -> bool:
    return multiple(one.vectors, other.vectors) == 1 or congruent(one.vectors, other.vectors)


def _nested(one: Part, other: Part) -> bool:
    """Tell whether one lattice is a superstructure of the other: seen by accident, or missed for noise."""
    return max(multiple(one.vectors, other.vectors), multiple(other.vectors, one.vectors)) > 0


def _disagreement(groups: list[list[Part]], looked: int) -> str:
    shown = sum(map(len, groups))
    if shown == 1:
        return (
            f"one of {looked} parts of the image shows a lattice, and none other bears it out; "
            "crop that part (see the regions)"
        )
    return (
        f"parts of the image show different lattices ({shown} of {looked} parts, {len(groups)} lattices or "
        "orientations): several grains or particles, or columns too faint; crop one of them (see the regions)"
    )


def _few_first(boxes: list[Box]) -> Iterator[Box]:
    """Yield the middle and those nearest to the quarters first: if they agree, the others are not asked."""
    right, bottom = boxes[-1][0] + boxes[-1][2], boxes[-1][1] + boxes[-1][3]
    left = list(boxes)
    for x, y in ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.75, 0.25), (0.25, 0.75)):
        if not left:
            return
        near = min(
            left, key=lambda b: (b[0] + b[2] / 2 - x * right) ** 2 + (b[1] + b[3] / 2 - y * bottom) ** 2
        )
        left.remove(near)
        yield near
    yield from left


def _middle(box: Box) -> Box:
    left, top, width, height = box
    wide, high = min(width, _LARGEST), min(height, _LARGEST)
    return left + (width - wide) // 2, top + (height - high) // 2, wide, high


def _binning(shape: tuple[int, ...], finest: float | None) -> int:
    if finest is None:
        return 1
    return max(1, min(int(_FINEST / finest), min(shape) // _SIDES[1]))


def _binned(image: Array, step: int) -> Array:
    if step == 1:
        return image
    rows, columns = (n // step for n in image.shape)
    return np.asarray(
        image[: rows * step, : columns * step].reshape(rows, step, columns, step).mean(axis=(1, 3))
    )


def _without_outliers(image: Array) -> Array | None:
    """Return an image whose rare, strong features are cut to the common ones; None where it has none."""
    usual = float(np.median(np.abs(image)))
    if usual == 0 or float(np.percentile(np.abs(image), 99)) < _OUTLYING * usual:
        return None
    return np.clip(image, -_CUT * usual, _CUT * usual)


def _regions(search: _Search, step: int) -> tuple[Region, ...]:
    parts = list(search.parts.values())
    numbers = {part.box: n for n, group in enumerate(grains(parts), 1) for part in group}
    return tuple(
        Region(
            left=part.box[0] * step,
            top=part.box[1] * step,
            width=part.box[2] * step,
            height=part.box[3] * step,
            lattice=part.fit.lattice,
            a=part.fit.a,
            b=part.fit.b,
            gamma=part.fit.gamma,
            vectors=None if part.fit.vectors is None else _pairs(part.fit.vectors),
            score=part.fit.score,
            grain=numbers.get(part.box, 0),
        )
        for part in parts
    )


def _parameters(found: _Found, search: _Search, step: int, calibration: float | None) -> LatticeParameters:
    fit, box = found.part.fit, found.part.box
    assert fit.lattice is not None
    assert fit.vectors is not None
    a, b, gamma = _numbers(fit.a, fit.b, fit.gamma)
    vectors = conventional(fit.vectors, LATTICES.index(fit.lattice))
    scale = np.array((1.0, 1.0) if search.size is None else search.size[::-1])
    pixels = vectors / scale * step
    scatter = _scatter(found, fit)
    errors = _numbers(fit.a_error, fit.b_error, fit.gamma_error)
    if scatter is not None:
        # Parts that differ by more than was assumed are distorted by more than was assumed.
        errors = [max(pair) for pair in zip(errors, scatter, strict=True)]
    unit = 1.0 if search.size else float(step)
    a_error, b_error, gamma_error = errors[0] * unit, errors[1] * unit, errors[2]
    width, height = (n * step for n in box[2:])
    periods = [float((np.array((width, height)) / np.abs(v).clip(1e-12)).min()) for v in pixels]
    return LatticeParameters(
        lattice=fit.lattice,
        probabilities=dict(zip(LATTICES, fit.probabilities, strict=True)),
        a=a * unit,
        b=b * unit,
        gamma=gamma,
        a_error=a_error,
        b_error=b_error,
        gamma_error=gamma_error,
        calibration_error=calibration,
        distortion=fit.distortion,
        scatter=scatter and (scatter[0] * unit, scatter[1] * unit, scatter[2]),
        unit="px" if search.size is None else "Å",
        vectors=_pairs(vectors * unit),
        vectors_px=_pairs(pixels),
        origin=((box[0] * step + (width - 1) / 2), (box[1] * step + (height - 1) / 2)),
        periods=(periods[0], periods[1]),
        score=fit.score,
        margin=(fit.margin or 0.0) * unit,
        source=found.source,
        box=(box[0] * step, box[1] * step, width, height),
    )


def _numbers(*values: float | None) -> list[float]:
    """Return the numbers that a fit has where it has a lattice."""
    return [float(value) for value in values if value is not None]


def _scatter(found: _Found, fit: LatticeFit) -> tuple[float, float, float] | None:
    """Return the standard deviations of a, b, gamma between parts that do not overlap much."""
    assert fit.vectors is not None
    assert fit.lattice is not None
    reference, label = fit.vectors, LATTICES.index(fit.lattice)
    cells = []
    for part in found.members:
        whole = np.rint(reference @ np.linalg.inv(part.vectors))
        if abs(round(float(np.linalg.det(whole)))) == 1:
            cells.append(_lengths(conventional_of(whole @ part.vectors, reference, label)))
    if len(cells) < _FEWEST_FOR_SCATTER:
        return None
    spread = np.std(np.array(cells), axis=0, ddof=1)
    return float(spread[0]), float(spread[1]), float(spread[2])


def conventional(vectors: Array, label: int) -> Array:
    """Return the edges a, b of the conventional cell, rows (x, y), from a reduced basis; |a| <= |b|."""
    return conventional_of(vectors, vectors, label)


def conventional_of(vectors: Array, reference: Array, label: int) -> Array:
    """Return the edges that correspond to those of a reference lattice, whatever its small differences."""
    combine = np.eye(2)
    if label == CENTERED:
        # The rhombus is made of the two vectors of most equal lengths.
        u, v, w = (float(np.hypot(*vector)) for vector in (*reference, reference.sum(axis=0)))
        combine = np.array([[1.0, 1.0], [1.0, -1.0]] if v - u < w - v else [[1.0, 0.0], [1.0, 2.0]])
    edges = combine @ reference
    if np.hypot(*edges[0]) > np.hypot(*edges[1]):
        combine, edges = combine[::-1], edges[::-1]
    if edges[0] @ edges[1] > 0:
        combine = combine * [[1.0], [-1.0]]
    return np.asarray(combine @ vectors)


def _lengths(edges: Array) -> tuple[float, float, float]:
    a, b = (float(np.hypot(*edge)) for edge in edges)
    return a, b, math.degrees(math.acos(float(np.clip(edges[0] @ edges[1] / (a * b), -1, 1))))


def _pairs(vectors: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    (ax, ay), (bx, by) = vectors.tolist()
    return (ax, ay), (bx, by)


def with_origin(
    parameters: LatticeParameters, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]
) -> LatticeParameters:
    """Return the parameters with the corner of the cell at the column that is nearest to it."""
    if not len(x):
        return parameters
    at = int(((x - parameters.origin[0]) ** 2 + (y - parameters.origin[1]) ** 2).argmin())
    return replace(parameters, origin=(float(x[at]), float(y[at])))
