"""The columns of a cell from its structure factors: as few as explain them, apart by less than their width.

Structure factors of columns are sums of waves, one a column, times the transform of the profile. Columns are
added one after the other where what is left speaks for them, all are moved after each (alternating descent
conditional gradient), and in the end each is taken out again, or joined with its neighbour, if nothing that
exceeds the noise speaks against it. So columns are told apart that no picture of the cell resolves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.ndimage import maximum_filter

from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.structure_factors import StructureFactors

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

#: By how much chi-squared must fall for one more column: three numbers, by the Bayesian information criterion
#: about 3 ln(65,536).
PENALTY = 30.0
#: Error of structure factors that is no noise where the profile is known: the window, pixels of finite size.
EXACT = 2e-4

_CLEAR = 5.0  # standard deviations at which a column is added
_LEAST = 1e-4  # height relative to the highest below which a column is none; hydrogen beside bismuth: 5e-4
_SAME = 0.1  # widths within which two columns are one
_JOINED = 2.0  # widths within which columns may be joined
_ADDITIONS = 60  # how often columns are added
_AT_ONCE = 6  # columns added together
_MOST = 64  # columns from which none is added
_HIDDEN = 1e-4  # part of a column's certainty that the others leave it at least
_FARTHEST = 0.4  # widths that a column moves in one step
_TRIALS = 5  # columns that are tried to be taken out, those that matter least
_HOPELESS = 3000.0  # times the penalty: estimated rise of chi-squared at which no trial is made


class Motif:
    """Columns in one cell, fitted to structure factors.

    Parameters
    ----------
    factors
        What is to be explained. Their mean is left free: a background may lie under the columns.
    probe
        Profile of a column.
    relative
        Error of structure factors that is no noise, relative to each: of the window, of pixels of finite
        size, or of a profile that is not known well.

    Attributes
    ----------
    places
        x, y in pixels, (n, 2).
    heights
        Grey levels, (n,).
    misfit
        Chi-squared: twice the number of structure factors, if noise is all that is left.
    root
        What structure factors are multiplied with to have a noise of one in chi-squared, (q,).
    """

    def __init__(self, factors: StructureFactors, probe: Probe, relative: float = EXACT) -> None:
        self._factors, self._width = factors, probe.width
        self._allowed = probe.density * abs(float(np.linalg.det(factors.basis)))
        q = factors.frequencies
        area = abs(float(np.linalg.det(factors.basis)))
        self._blur = probe.transform((q**2).sum(1)) / area
        variance = factors.noise**2 + (relative * np.abs(factors.values)) ** 2
        self._weight = np.where((factors.indices == 0).all(1), 0.0, 2.0) / variance
        self.root = np.sqrt(self._weight)
        self._reach = int(np.abs(factors.indices).max(initial=0))
        self._index = (factors.indices + self._reach).T
        # Where columns may be added: a fifth of their width apart.
        counts = [max(4, int(np.ceil(5 * np.hypot(*vector) / self._width))) for vector in factors.basis]
        self._shape = (counts[0], counts[1])
        self._grid = np.mgrid[: counts[0], : counts[1]].reshape(2, -1).T / counts @ factors.basis
        waves = self.root * self._blur * np.exp(-2j * np.pi * self._grid @ q.T)
        self._columns = np.concatenate([waves.real, waves.imag], 1)
        self.places: Array = np.empty((0, 2))
        self.heights: Array = np.empty(0)
        self.misfit = self._misfit(self.places, self.heights)

    @property
    def freedom(self) -> int:
        """Number of measured numbers less that of fitted ones."""
        return max(1, 2 * len(self._factors.values) - 1 - 3 * len(self.heights))

    def fit(self, penalty: float = PENALTY, start: tuple[Array, Array] | None = None) -> None:
        """Find the columns.

        Parameters
        ----------
        penalty
            By how much chi-squared must fall for one more column.
        start
            Places and heights to begin with.
        """
        if start is not None:
            self._moved(*start, 20)
        for _ in range(_ADDITIONS):
            places, heights = self._missing(joint=False)
            if not len(heights):
                places, heights = self._missing(joint=True)
            if not len(heights) or len(self.heights) >= _MOST:
                break
            before = self.places, self.heights, self.misfit
            self._moved(np.concatenate([self.places, places]), np.concatenate([self.heights, heights]), 8)
            self._tidy()
            if self.misfit > before[2] - penalty:
                self.places, self.heights, self.misfit = before
                break
        self._moved(self.places, self.heights, 30)
        self._tidy()
        self._fewer(penalty)
        while len(self.heights) > max(1.0, self._allowed + 0.5):
            faintest = int(self.heights.argmin())
            self.settle(np.delete(self.places, faintest, 0), np.delete(self.heights, faintest))

    def settle(self, places: Array, heights: Array) -> None:
        """Fit these columns: none is added or taken out."""
        self._moved(places, heights, 30)

    def _waves_of(self, places: Array) -> Complex:
        """Return ``exp(-2 pi i q.r)`` times the profile's transform, [column, q]: powers of two waves."""
        reciprocal = np.linalg.inv(self._factors.basis).T
        tables = [
            _powers(np.exp(-2j * np.pi * places @ reciprocal[axis]), self._reach)[:, self._index[axis]]
            for axis in (0, 1)
        ]
        return np.asarray(self._blur * tables[0] * tables[1])

    def _model(self, places: Array, heights: Array) -> Complex:
        return np.asarray(heights @ self._waves_of(places))

    def _misfit(self, places: Array, heights: Array) -> float:
        left = self._factors.values - self._model(places, heights)
        return float((self._weight * np.abs(left) ** 2).sum())

    def _missing(self, *, joint: bool) -> tuple[Array, Array]:
        """Return places and heights of the columns that what is left speaks for most clearly.

        Parameters
        ----------
        joint
            Whether the columns that are there may change as well (Rao's score test): finds those that others
            stand for in part.
        """
        left = self.root * (self._factors.values - self._model(self.places, self.heights))
        certainty = np.full(len(self._grid), float((self._weight * self._blur**2).sum()))
        if joint and len(self.heights):
            basis = np.linalg.qr(self._tangents(self.places, self.heights)[0].T)[0]
            certainty -= ((self._columns @ basis) ** 2).sum(1)
            certainty = certainty.clip(_HIDDEN * certainty.max())
        height = self._columns @ np.concatenate([left.real, left.imag]) / certainty
        clear = height * np.sqrt(certainty)
        grid = clear.reshape(self._shape)
        peaks = (grid == maximum_filter(grid, size=3, mode="wrap")).ravel() & (clear > _CLEAR + joint)
        chosen = np.flatnonzero(peaks)
        chosen = chosen[np.argsort(-clear[chosen])]
        chosen = chosen[clear[chosen] > 0.25 * clear[chosen[:1]]][: 1 if joint else _AT_ONCE]
        return self._grid[chosen], height[chosen]

    def _tangents(self, places: Array, heights: Array) -> tuple[Array, Array]:
        """Return derivatives by heights, x and y, (3 n, numbers), and what is left, over the noise."""
        q = self._factors.frequencies
        waves = self._waves_of(places)
        left = self.root * (self._factors.values - heights @ waves)
        waves *= self.root
        lit = -2j * np.pi * waves * heights[:, None]
        every = np.concatenate([waves, lit * q[:, 0], lit * q[:, 1]])
        # Real and imaginary parts are so many more measurements.
        return np.concatenate([every.real, every.imag], 1), np.concatenate([left.real, left.imag])

    def _normal(self, places: Array, heights: Array) -> tuple[Array, Array]:
        """Return normal matrix and gradient of heights, x and y."""
        tangents, left = self._tangents(places, heights)
        return tangents @ tangents.T, tangents @ left

    def _moved(self, places: Array, heights: Array, steps: int) -> None:
        self.places, self.heights, self.misfit = self._descend(places, heights, steps)

    def _descend(self, places: Array, heights: Array, steps: int) -> tuple[Array, Array, float]:
        """Levenberg-Marquardt steps with heights that are not negative."""
        count, damping = len(heights), 1e-4
        misfit = self._misfit(places, heights)
        for _ in range(steps if count else 0):
            normal, gradient = self._normal(places, heights)
            dark = heights <= 0
            free = np.concatenate([~(dark & (gradient[:count] <= 0)), ~dark, ~dark])
            if not free.any():
                break
            part = normal[np.ix_(free, free)]
            size = np.diag(part).copy()
            for _ in range(6):
                damped = part.copy()
                damped[np.diag_indices_from(damped)] += damping * size + 1e-9 * size.max()
                step = np.zeros(3 * count)
                try:
                    step[free] = cho_solve(cho_factor(damped, check_finite=False), gradient[free])
                except LinAlgError:
                    damping *= 10
                    continue
                moved = step[count:].reshape(2, -1).T
                length = np.hypot(*moved.T)
                moved *= np.minimum(1, _FARTHEST * self._width / np.maximum(length, 1e-9))[:, None]
                there, high = places + moved, np.maximum(heights + step[:count], 0)
                reached = self._misfit(there, high)
                if reached < misfit:
                    break
                damping *= 10
            else:
                break
            gained, places, heights, misfit = misfit - reached, there, high, reached
            damping = max(damping / 10, 1e-9)
            if gained < 1e-3:
                break
        return places, heights, misfit

    def _tidy(self) -> None:
        """Drop columns without height, join those at one place."""
        if not len(self.heights):
            return
        bright = self.heights > _LEAST * self.heights.max()
        places, heights = self.places[bright], self.heights[bright]
        while len(heights) > 1:
            apart = self._apart(places)
            first, second = np.unravel_index(int(apart.argmin()), apart.shape)
            if apart[first, second] > _SAME * self._width:
                break
            places, heights = self._join(places, heights, int(first), int(second))
        self.places, self.heights, self.misfit = places, heights, self._misfit(places, heights)

    def _apart(self, places: Array) -> Array:
        """Return distances in the periodic cell, infinite on the diagonal."""
        steps = (places[:, None] - places) @ np.linalg.inv(self._factors.basis)
        distances = np.linalg.norm((steps - np.rint(steps)) @ self._factors.basis, axis=-1)
        np.fill_diagonal(distances, np.inf)
        return np.asarray(distances)

    def _join(self, places: Array, heights: Array, first: int, second: int) -> tuple[Array, Array]:
        step = (places[second] - places[first]) @ np.linalg.inv(self._factors.basis)
        step = (step - np.rint(step)) @ self._factors.basis
        total = heights[first] + heights[second]
        places, heights = places.copy(), heights.copy()
        places[first] += step * (heights[second] / total if total > 0 else 0.5)
        heights[first] = total
        return np.delete(places, second, 0), np.delete(heights, second)

    def _fewer(self, penalty: float) -> None:
        """Take out and join columns as long as chi-squared rises by no more than the penalty."""
        self._moved(self.places, self.heights, 20)
        while len(self.heights) > 1:
            count = len(self.heights)
            normal, _ = self._normal(self.places, self.heights)
            diagonal = np.diag_indices_from(normal)
            normal[diagonal] = normal[diagonal] * (1 + 1e-9) + 1e-12 * normal.max()
            try:
                variance = np.diag(np.linalg.inv(normal))[:count].clip(1e-30)
            except np.linalg.LinAlgError:
                return
            # What chi-squared would rise by if columns did not have to move far.
            rise = self.heights**2 / variance
            apart = self._apart(self.places)
            best: tuple[Array, Array, float] | None = None
            for index in np.argsort(rise)[:_TRIALS].tolist():
                if rise[index] > _HOPELESS * penalty:
                    break
                trials = [(np.delete(self.places, index, 0), np.delete(self.heights, index))]
                near = int(apart[index].argmin())
                if apart[index, near] < _JOINED * self._width:
                    trials.append(self._join(self.places, self.heights, near, index))
                for trial in trials:
                    found = self._descend(*trial, 25)
                    if best is None or found[2] < best[2]:
                        best = found
                if best is not None and best[2] - self.misfit <= penalty:
                    break
            if best is None or best[2] - self.misfit > penalty:
                return
            self.places, self.heights, self.misfit = best


def _powers(waves: Complex, reach: int) -> Complex:
    """Return the powers -reach to reach of waves (n,), [n, power]."""
    table = np.empty((len(waves), 2 * reach + 1), dtype=complex)
    table[:, reach] = 1
    table[:, reach + 1 :] = waves[:, None]
    np.cumprod(table[:, reach:], axis=1, out=table[:, reach:])
    table[:, :reach] = table[:, :reach:-1].conj()
    return table
