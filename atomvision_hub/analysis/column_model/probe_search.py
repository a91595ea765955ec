"""What a column looks like, from the structure factors of a crystal: columns and profile together.

The transform of a round profile falls off with the frequency, whichever way a wave runs; the columns of a
cell make some waves of one frequency strong and others weak. So one image tells both, by as few columns as a
profile that falls off steadily allows: at first structure factors are explained roughly, and the better the
profile becomes, the closer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, nnls

from atomvision_hub.analysis.column_model.motif import EXACT, PENALTY, Motif
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.structure_factors import StructureFactors, structure_factors

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

#: How well structure factors need to be explained, relative to each, from step to step.
_ROUGHLY = (0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001, EXACT)
_ALTERNATIONS = 4  # how often columns and profile are fitted in each step
_FEWEST = 3  # numbers of columns from which the search begins once more
_BESIDE = (1.1, 1.05, 1 / 1.05)  # profiles so many times as wide are begun with once more
_FINEST = 0.94  # finest wave, in cycles per width of the profile to begin with
_NARROWEST, _WIDER = 0.4, 1.12  # Gaussians: the narrowest to the first profile, the next ones to each other
# Over the frequency of the coarsest wave: what is wider can hardly be told from a ground, or not at all.
_WIDEST = (0.3, 0.4)
_NEARLY = 0.98
#: What one more Gaussian costs, as chi-squared: two numbers.
PART = 20.0

_PLENTY = 40  # columns in a cell: what needs more is no crystal, or takes too long
_HOPELESS = 30.0  # chi-squared for each number from which nothing else is tried
_MOST = 3  # Gaussians
_RATIO = 14.0  # natural logarithm of the largest ratio of their heights
_RIDGE = 1e-9  # keeps columns apart that are at one place
_EVALUATIONS = 30
_SETTLED = 1.0  # change of chi-squared


@dataclass(frozen=True)
class Description:
    """What explains structure factors.

    Parameters
    ----------
    probe
        Profile of a column.
    places, heights
        Of the columns in one cell: x, y in pixels, (n, 2), and grey levels, (n,).
    cost
        Description length.
    held
        Whether it has fewer columns than the structure factors ask for.
    """

    probe: Probe
    places: Array
    heights: Array
    cost: float
    held: bool = False


def measured_probes(image: Array, basis: Array, start: Probe, noise: float) -> Iterator[Description]:
    """Yield profiles of a crystal's columns, the likeliest first, then such that fewer columns need.

    Where an image is not what the model can show (drift, columns that are not round), the likeliest has
    columns that are not there. Which one explains the image well enough, the image itself must say.

    Parameters
    ----------
    image
        Grey levels [row, column].
    basis
        Of its lattice, rows (x, y) in pixels.
    start
        Profile to begin with, right to a factor of two.
    noise
        Standard deviation of a pixel.
    """
    try:
        found = _descriptions(structure_factors(image, basis, _FINEST / start.width, noise), start)
    except np.linalg.LinAlgError:  # waves or columns that the image does not tell apart
        return
    if not found:
        return
    free = sorted((one for one in found if not one.held), key=lambda one: one.cost)
    yield free[0]
    counts = {len(free[0].heights)}
    held = sorted((one for one in found if one.held), key=lambda one: -len(one.heights))
    for one in (*free[1:], *held):
        if len(one.heights) < min(counts):
            counts.add(len(one.heights))
            yield one


def _descriptions(factors: StructureFactors, start: Probe) -> list[Description]:
    """Return descriptions, with wider tails only where those that can surely be told are too narrow."""
    frequencies = np.hypot(*factors.frequencies.T)
    if not frequencies.any():
        return []
    coarsest = float(frequencies[frequencies > 0].min())
    found: list[Description] = []
    for widest in _WIDEST:
        search = _Search(factors, (_NARROWEST * start.width, max(widest / coarsest, start.width)))
        tried = search.descriptions(start)
        if not tried:
            break
        at_limit = search.at_limit(min(tried, key=lambda one: one.cost).probe)
        if not found or not at_limit:
            found = tried
        if not at_limit:
            break
    return found


class _Search:
    """Descriptions of structure factors.

    Parameters
    ----------
    factors
        Structure factors of the image.
    limits
        The least and the largest standard deviation of a Gaussian, px.
    """

    def __init__(self, factors: StructureFactors, limits: tuple[float, float]) -> None:
        self._factors, self._limits = factors, limits

    def at_limit(self, probe: Probe) -> bool:
        """Return whether a Gaussian is as wide as is allowed, and would rather be wider."""
        return max(width for _, width in probe.parts) > _NEARLY * self._limits[1]

    def descriptions(self, start: Probe) -> list[Description]:
        """Return descriptions, from structure factors explained roughly to closely.

        There are none where there are no columns, or too many.
        """
        found: Description | None = None
        rough: dict[int, Description] = {}
        for relative in _ROUGHLY:
            found = self.alternate(start if found is None else found.probe, found, relative)
            if found is None or len(found.heights) > _PLENTY:
                return []
            rough[len(found.heights)] = found
        assert found is not None
        if found.cost > _HOPELESS * 2 * len(self._factors.values):
            return [found]
        # A profile a little too narrow or wide may stand for faint columns.
        tried = [self.alternate(found.probe.scaled(scale), None, EXACT) for scale in _BESIDE]
        # Columns that stand for tails are easier not to add than to take out again.
        for one in (rough[count] for count in sorted(rough)[:_FEWEST]):
            held = self.alternate(one.probe, one, EXACT, held=True)
            tried += [held, held and self.alternate(held.probe, held, EXACT)]
        return [found, *(one for one in tried if one is not None)]

    def alternate(
        self, probe: Probe, found: Description | None, relative: float, *, held: bool = False
    ) -> Description | None:
        """Fit columns and profile in turn, None where there are no columns.

        Parameters
        ----------
        probe, found
            To begin with; without a description columns are found anew.
        relative
            Error of the structure factors relative to each, beside noise.
        held
            Whether the number of columns stays as it is.
        """
        for _ in range(_ALTERNATIONS):
            motif = Motif(self._factors, probe, relative)
            if held and found is not None:
                motif.settle(found.places, found.heights)
            else:
                motif.fit(PENALTY, None if found is None else (found.places, found.heights))
            if not motif.heights.any():
                return None
            probe, heights, misfit = _Profile(self._factors, motif, self._limits).likeliest()
            cost = misfit + PENALTY * len(heights) + PART * len(probe.parts)
            found = Description(probe, motif.places, heights, cost, held)
            if motif.misfit - misfit < _SETTLED:
                break
        return found


class _Profile:
    """The profile that explains structure factors, given the places of columns.

    Parameters
    ----------
    factors
        Structure factors of the image.
    motif
        Columns that explain them nearly.
    limits
        The least and the largest standard deviation of a Gaussian, px.
    """

    def __init__(self, factors: StructureFactors, motif: Motif, limits: tuple[float, float]) -> None:
        area = abs(float(np.linalg.det(factors.basis)))
        waves = np.exp(-2j * np.pi * motif.places @ factors.frequencies.T)
        self._points = np.asarray(waves * (motif.root / area), dtype=np.complex128)
        self._measured = _numbers(motif.root * factors.values)
        self._squares = (factors.frequencies**2).sum(1)
        self._heights, self._limits = motif.heights, limits

    def likeliest(self) -> tuple[Probe, Array, float]:
        """Return the profile, the heights of the columns with it, and chi-squared."""
        fits = [self._refined(start) for start in self._starts()]
        return min(fits, key=lambda fit: fit[2] + PART * len(fit[0].parts))

    def _starts(self) -> list[tuple[Array, Array]]:
        """Return heights and widths of one, two, ... Gaussians that are nearly right."""
        low, high = self._limits
        widths = np.exp(np.arange(np.log(low), np.log(high), np.log(_WIDER)))
        points = self._heights @ self._points
        table = np.stack([_numbers(points * _gaussian(width, self._squares)) for width in widths], 1)
        size = np.linalg.norm(table, axis=0)
        try:
            heights = nnls(table / size, self._measured)[0] / size
        except RuntimeError:  # it did not converge
            heights = np.zeros(len(widths))
        lit = np.flatnonzero(heights)
        if not len(lit):
            return [(np.ones(1), np.array([math.sqrt(low * high)]))]
        # Two neighbours stand for one between them, of their volume and second moment.
        groups = np.split(lit, np.flatnonzero(np.diff(lit) > 1) + 1)
        volumes, squares = heights * widths**2, widths**2
        joined = np.array([[volumes[group].sum(), volumes[group] @ squares[group]] for group in groups])
        joined = joined[np.argsort(-joined[:, 0])]
        starts = [joined.sum(0, keepdims=True)]
        starts += [joined[:count] for count in range(2, min(len(joined), _MOST) + 1)]
        return [(one[:, 0] ** 2 / one[:, 1], np.sqrt(one[:, 1] / one[:, 0])) for one in starts]

    def _refined(self, start: tuple[Array, Array]) -> tuple[Probe, Array, float]:
        """Return profile, heights of columns and chi-squared; for each profile the best heights are known."""
        count = len(start[0])

        def parts(numbers: Array) -> tuple[Array, Array]:
            return np.append(1.0, np.exp(numbers[: count - 1])), np.exp(numbers[count - 1 :])

        def columns(numbers: Array) -> tuple[Array, Array]:
            heights, widths = parts(numbers)
            shown = sum(
                height * _gaussian(width, self._squares)
                for height, width in zip(heights, widths, strict=True)
            )
            values = self._points * shown
            table = np.concatenate([values.real, values.imag], 1)
            normal = table @ table.T
            normal[np.diag_indices_from(normal)] *= 1 + _RIDGE
            best = np.linalg.solve(normal, table @ self._measured)
            return best, self._measured - best @ table

        low, high = np.log(self._limits)
        bounds = np.full((2, 2 * count - 1), [[-_RATIO], [_RATIO]])
        bounds[:, count - 1 :] = [[low], [high]]
        numbers = np.log(np.concatenate([start[0][1:] / start[0][0], start[1]]))
        found = least_squares(
            lambda numbers: columns(numbers)[1],
            numbers.clip(bounds[0] + 1e-6, bounds[1] - 1e-6),
            bounds=bounds,
            x_scale="jac",
            max_nfev=_EVALUATIONS,
        )
        heights, widths = parts(found.x)
        scale, order = float(heights.sum()), np.argsort(-heights)
        profile = zip((heights / scale)[order].tolist(), widths[order].tolist(), strict=True)
        return Probe(tuple(profile)), np.maximum(columns(found.x)[0] * scale, 0), 2 * float(found.cost)


def _gaussian(width: float, squares: Array) -> Array:
    return Probe.gaussian(width).transform(squares)


def _numbers(values: Complex) -> Array:
    """Return real and imaginary parts one after the other."""
    return np.concatenate([values.real, values.imag])
