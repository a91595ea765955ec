"""Fit of a sum of Gaussians of one width: all peaks at once, by Gauss-Newton steps."""

from __future__ import annotations

import copy
import math

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from atomvision_hub.analysis.atoms.equations import Equations
from atomvision_hub.analysis.atoms.overlaps import Pairs
from atomvision_hub.analysis.atoms.pixels import Array
from atomvision_hub.analysis.atoms.tiles import Tiles

MERGED = 2.0  # widths; of two columns closer than this, which show one maximum, the brighter is told

_STEPS = 6  # most Gauss-Newton steps of a pass
_CONVERGED = 0.15  # widths; the last pass ends when nine of ten columns moved no farther
_GROSS, _FINE = 0.05, 0.005  # relative errors of the width
_WIDTHS = (0.5, 2.5)  # smallest and largest width, relative to where the search starts
_FASTEST = 0.1  # most that the width may grow in a step, relative


class Fit:
    """Sum of Gaussians of one width on a constant background, fitted to an image by least squares.

    Each Gaussian lives in a window of `REACH` widths, and only near ones touch: time and memory grow with
    the number of peaks, however large the image. A Gauss-Newton step moves all heights and positions; with
    ``g`` a Gaussian and ``p, q`` distances from its centre in widths, the model changes by ``g, p g, q g``,
    whose overlaps are known in closed form.
    """

    def __init__(
        self, image: npt.NDArray[np.float32], sigma: tuple[float, float], refine: bool = False
    ) -> None:
        self.image, self.sigma, self.background = image, sigma, 0.0
        self.first, self.scale, self.refine = sigma, 1.0, refine
        self.x = self.y = self.height = np.zeros(0)

    def copy(self) -> Fit:
        """Return a fit of the same image that goes its own way."""
        return copy.copy(self)

    def add(self, x: Array, y: Array, height: Array) -> None:
        """Put in more peaks, at places (px) and with heights to start from."""
        self.x, self.y = np.append(self.x, x), np.append(self.y, y)
        self.height = np.append(self.height, height)

    def run(self, *, last: bool = False, free: bool = False) -> None:
        """Fit heights, positions, background and the common width.

        Parameters
        ----------
        last
            To the end; otherwise in one step, in which the width only follows gross errors.
        free
            All peaks follow the width at once. That finds it from far off and where columns overlap, but
            takes columns that the model lacks for width; otherwise it grows by what it does alone.
        """
        shape = rows, columns = self.image.shape
        near: Pairs | None = None
        before = 0.0
        for _ in range(_STEPS if len(self.x) else 0):
            tiles = Tiles(self.x, self.y, self.sigma, shape)
            seen = tiles.overlaps(self._left(tiles))
            # Peaks move little in a pass: who touches whom is looked up once.
            near = Pairs.of(self._scaled()) if near is None else near.moved(self._scaled())
            area = np.pi * self.sigma[0] * self.sigma[1]
            equations = Equations.of(self.x, self.y, self.sigma, shape, near)
            gradient, growth = np.concatenate(seen[:3]) / area, 0.0
            if self.refine:
                # The width's own direction, without what the heights can do: h g (p² + q² - 1).
                widening = float((self.height * (seen.squares - seen.one)).sum()) / area
            if self.refine and free:
                step, full = equations.solve_with_width(gradient, widening, self.height)
                growth = _clipped(full, -_FASTEST, _FASTEST)
                step *= growth / full if full else 1.0
            else:
                step = equations.solve(gradient)
            if self.refine and not free:
                growth = widening / max(self._stiffness(near), 1e-12)
                # Heights follow the width and slow it down: the rest of a geometric series (Aitken 1926).
                ratio = growth / before if before else 0.0
                before = growth
                growth = _clipped(growth / (1 - _clipped(ratio, 0.0, 0.75)), -_FASTEST, _FASTEST)
                # Missing columns look like width: before the last pass only gross errors count.
                growth = growth if last or abs(growth) > _GROSS else 0.0
            change = step.reshape(3, -1)
            safe = np.maximum(self.height, 1e-6)
            self.height = np.maximum(self.height + change[0], 1e-6)
            gain_x, gain_y = (np.minimum(np.maximum(one / safe, -0.3), 0.3) for one in change[1:])
            # Columns outside the view, whose flank is inside, are fitted too.
            out_x, out_y = 1.5 * self.sigma[1], 1.5 * self.sigma[0]
            self.x = np.minimum(np.maximum(self.x + self.sigma[1] * gain_x, -out_x), columns + out_x)
            self.y = np.minimum(np.maximum(self.y + self.sigma[0] * gain_y, -out_y), rows + out_y)
            self.scale = _clipped(self.scale * math.exp(growth), *_WIDTHS)
            self.sigma = (self.scale * self.first[0], self.scale * self.first[1])
            if not last and abs(growth) <= _GROSS:
                break
            # Newton's steps square the error. Peaks that will be merged may wander for long.
            alone = np.ones(len(self.x), bool)
            close = near.overlap > np.exp(-0.25 * MERGED**2)
            close[near.own] = False
            alone[near.i[close]] = False
            far = np.count_nonzero(np.maximum(np.abs(gain_x), np.abs(gain_y))[alone] > _CONVERGED)
            if abs(growth) <= _FINE and far <= 0.1 * np.count_nonzero(alone):
                break

    def rest(self) -> npt.NDArray[np.float32]:
        """Return what the model leaves of the image."""
        return self._left(Tiles(self.x, self.y, self.sigma, self.image.shape))

    def _left(self, tiles: Tiles) -> npt.NDArray[np.float32]:
        """Return the image without the model; sets the background to what makes its mean vanish."""
        rest = self.image - tiles.model(self.height)
        self.background = float(rest.sum()) / rest.size
        return np.asarray(rest - np.float32(self.background))

    def drop(self, lowest: Array, apart: float) -> None:
        """Remove peaks below `lowest` and those nearer than `apart` (widths) to a brighter that stays."""
        self.keep(self.height > lowest)
        if len(self.x) < 2:
            return
        pairs = cKDTree(self._scaled()).query_pairs(apart, output_type="ndarray")
        swap = self.height[pairs[:, 0]] < self.height[pairs[:, 1]]
        pairs[swap] = pairs[swap, ::-1]
        stay = np.ones(len(self.x), bool)
        for brighter, weaker in pairs[np.argsort(-self.height[pairs[:, 0]], kind="stable")].tolist():
            if stay[brighter]:
                stay[weaker] = False
        self.keep(stay)

    def _stiffness(self, near: Pairs) -> float:
        """Return the square of what the width alone does to the image, in units of a peak of height 1."""
        mutual = near.overlap * (1 - 0.25 * (near.dx**2 + near.dy**2)) ** 2
        return float(self.height[near.i] @ (self.height[near.j] * mutual))

    def _scaled(self) -> Array:
        return np.stack([self.x / self.sigma[1], self.y / self.sigma[0]], axis=1)

    def keep(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Remove all other peaks."""
        self.x, self.y, self.height = self.x[chosen], self.y[chosen], self.height[chosen]


def _clipped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
