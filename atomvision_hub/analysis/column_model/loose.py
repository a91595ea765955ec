"""Columns without a lattice: moved, added and dropped one by one until noise is all that is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from atomvision_hub.analysis.column_model.motif import PENALTY
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.profiles import Profiles, clearness, strength

Array = npt.NDArray[np.float64]

#: Most columns that are moved together: the time grows with their third power.
MOST = 900

_CLEAR = 5.0  # standard deviations at which a column is added
_SAME = 0.3  # widths within which two columns are one
_OUTSIDE = 2.4  # widths outside the image where columns may be
_FARTHEST = 0.4  # widths that a column moves in one step
_FEWER = 16  # how often columns are taken out
_APART = 4.0  # widths between columns that are taken out together
_STEPS = 6  # between two searches for more columns


@dataclass(frozen=True)
class LooseFit:
    """Columns fitted one by one: places (n, 2) in px, heights (n,), ground under them, what is left."""

    places: Array
    heights: Array
    ground: float
    left: Array


def fit_loose(
    image: Array,
    probe: Probe,
    noise: float,
    places: Array,
    heights: Array,
    ground: float | None = None,
    *,
    rounds: int = 10,
) -> LooseFit | None:
    """Return columns that explain an image, beginning with some; None where there are too many.

    Parameters
    ----------
    image
        Grey levels [row, column].
    probe
        Profile of a column.
    noise
        Standard deviation of a pixel, grey levels.
    places, heights
        To begin with.
    ground
        Grey level under the columns; fitted where it is not given.
    rounds
        How often columns are added.

    References
    ----------
    Alternating descent conditional gradient: N. Boyd, G. Schiebinger and B. Recht, SIAM J. Optim. 27, 616
    (2017), algorithm 3.
    """
    shape = (image.shape[0], image.shape[1])
    width = probe.width
    margin, side = int(_OUTSIDE * width), int(1.2 * width) | 1
    level = float(image.min()) if ground is None else ground
    state = _State(image, probe, level, ground is None)
    for number in range(rounds):
        if len(heights):
            places, heights = state.descend(places, heights)
            # Far outside, or where less is left than noise would leave, there is nothing.
            keep = heights > noise / strength(width)
            places, heights = _joined(places[keep], heights[keep], _SAME * width)
        left = image - state.ground - Profiles(places, probe, shape).image(heights)
        if number == rounds - 1:
            break
        clear = clearness(left, width, noise, margin)
        peaks = (clear == maximum_filter(clear, size=side)) & (clear > _CLEAR)
        row, column = np.nonzero(peaks)
        if not len(row) or len(heights) + len(row) > MOST:
            break
        places = np.concatenate([places, np.stack([column, row], 1) - margin])
        heights = np.append(heights, clear[row, column] * noise / strength(width))
    if len(heights) >= MOST:
        return None
    if len(heights):
        places, heights = state.fewer(places, heights, noise)
        left = image - state.ground - Profiles(places, probe, shape).image(heights)
    return LooseFit(places, heights, state.ground, left)


class _State:
    def __init__(self, image: Array, probe: Probe, ground: float, fitted: bool) -> None:
        self.image, self.probe, self.ground, self._fitted = image, probe, ground, fitted
        self.width = probe.width
        self.shape = (image.shape[0], image.shape[1])
        self._edge = np.array(self.shape[::-1]) - 1 + _OUTSIDE * self.width

    def _left(self, places: Array, heights: Array, ground: float) -> Array:
        return np.asarray(self.image - ground - Profiles(places, self.probe, self.shape).image(heights))

    def descend(self, places: Array, heights: Array) -> tuple[Array, Array]:
        """Levenberg-Marquardt steps with heights that are not negative."""
        count, damping = len(heights), 1e-3
        left = self._left(places, heights, self.ground)
        misfit = float((left**2).sum())
        for _ in range(_STEPS):
            profiles = Profiles(places, self.probe, self.shape)
            normal, gradient = self._normal(profiles, heights, left)
            dark = heights <= 0
            free = np.concatenate([~(dark & (gradient[:count] <= 0)), ~dark, ~dark, [self._fitted]])
            part, down = normal[np.ix_(free, free)], gradient[free]
            size = np.diag(part).copy()
            for _ in range(5):
                damped = part.copy()
                damped[np.diag_indices_from(damped)] += damping * size + 1e-9
                step = np.zeros(3 * count + 1)
                try:
                    step[free] = cho_solve(cho_factor(damped, check_finite=False), down)
                except LinAlgError:
                    damping = max(10 * damping, 1e-6)
                    continue
                moved = step[count:-1].reshape(2, -1).T
                length = np.hypot(*moved.T)
                moved *= np.minimum(1, _FARTHEST * self.width / np.maximum(length, 1e-9))[:, None]
                there = np.clip(places + moved, -_OUTSIDE * self.width, self._edge)
                high, ground = np.maximum(heights + step[:count], 0), self.ground + float(step[-1])
                rest = self._left(there, high, ground)
                reached = float((rest**2).sum())
                if reached < misfit:
                    break
                damping = max(10 * damping, 1e-6)
            else:
                break
            gained, misfit, left = misfit - reached, reached, rest
            places, heights, self.ground = there, high, ground
            damping = max(damping / 10, 1e-9)
            if gained < 1e-4 * misfit:
                break
        return places, heights

    def fewer(self, places: Array, heights: Array, noise: float) -> tuple[Array, Array]:
        """Take out columns that others can stand for, as long as the description gets shorter."""
        most = len(heights)
        for _ in range(_FEWER):
            left = self._left(places, heights, self.ground)
            normal, _ = self._normal(Profiles(places, self.probe, self.shape), heights, left)
            normal /= noise**2
            normal[np.diag_indices_from(normal)] *= 1 + 1e-9
            try:
                variance = np.diag(np.linalg.inv(normal))[: len(heights)]
            except np.linalg.LinAlgError:
                break
            rise = heights**2 / variance.clip(1e-30)
            # Of those that matter least, some that are far from each other.
            gone: list[int] = []
            for index in np.argsort(rise).tolist():
                if not rise[index] < PENALTY or len(gone) == most:
                    break
                if all(np.hypot(*(places[index] - places[other])) > _APART * self.width for other in gone):
                    gone.append(index)
            if not gone:
                break
            before, ground = float((left**2).sum()), self.ground
            there, high = self.descend(np.delete(places, gone, 0), np.delete(heights, gone))
            after = float((self._left(there, high, self.ground) ** 2).sum())
            if after - before > PENALTY * len(gone) * noise**2:
                # Together they mattered: fewer at once.
                self.ground, most = ground, len(gone) // 3
                if not most:
                    break
                continue
            places, heights = there, high
        return places, heights

    def _normal(self, profiles: Profiles, heights: Array, left: Array) -> tuple[Array, Array]:
        count, both = len(heights), heights[:, None] * heights
        one, by_x, by_y, xx, xy, yy = profiles.moments()
        normal = np.empty((3 * count + 1, 3 * count + 1))
        first, second, third = (slice(k * count, (k + 1) * count) for k in range(3))
        normal[first, first] = one
        normal[first, second], normal[first, third] = by_x * heights, by_y * heights
        normal[second, second], normal[second, third] = xx * both, xy * both
        normal[third, third] = yy * both
        normal[second, first], normal[third, first] = normal[first, second].T, normal[first, third].T
        normal[third, second] = normal[second, third].T
        along, down = profiles.pulled(np.ones(self.shape))
        normal[:-1, -1] = normal[-1, :-1] = np.concatenate([profiles.sums(), heights * along, heights * down])
        normal[-1, -1] = self.image.size
        along, down = profiles.pulled(left)
        gradient = np.concatenate([profiles.seen(left), heights * along, heights * down, [left.sum()]])
        return normal, gradient


def _joined(places: Array, heights: Array, distance: float) -> tuple[Array, Array]:
    """Return columns with those that are nearer than a distance joined."""
    while len(heights) > 1:
        pairs = cKDTree(places).query_pairs(distance, output_type="ndarray")
        if not len(pairs):
            break
        places, heights = places.copy(), heights.copy()
        used, gone = np.zeros(len(heights), dtype=bool), np.zeros(len(heights), dtype=bool)
        for first, second in pairs.tolist():
            if used[first] or used[second]:
                continue
            used[[first, second]], gone[second] = True, True
            total = heights[first] + heights[second]
            places[first] += (places[second] - places[first]) * heights[second] / total
            heights[first] = total
        places, heights = places[~gone], heights[~gone]
    return places, heights
