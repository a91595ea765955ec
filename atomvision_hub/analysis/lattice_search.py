"""The translation lattice of an image: a first guess, waves that it lacks, translations it has too few of."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from atomvision_hub.analysis.harmonics import (
    NEAR,
    Array,
    Integers,
    NoLatticeError,
    View,
    Waves,
    averaged,
    fit_waves,
    half_indices,
    line_offsets,
    moved_lines,
    refine,
)
from atomvision_hub.analysis.lattice_columns import moves
from atomvision_hub.analysis.self_correlation import repeating_shifts
from atomvision_hub.structures.lattice import reduce_basis

#: Distance from a class that is forgiven without calibration, relative to the two shortest vectors' sum.
RELATIVE_TOLERANCE = 0.006

_FALSE_ALARMS = 1e-3  # images of noise in which a wave is seen
_WHOLE = 3e-6  # part of the power of all waves that may lie beyond the finest one that counts
_DISTORTED = 4.0  # by how much (natural logarithm) a wave in the residual must be clearer than in the image
_UNSURE_NOISE = 1.2  # of many waves the noise must be so many times stronger than it was measured
_SURE = 10.0  # minus the natural logarithm of the chance at which a superstructure counts as seen
_NOISY = 4.0  # variance of noise over that of rounding
_JITTER = 0.02  # px; lines that are straighter are left alone
_THRESHOLDS = (0.25, 0.1, 0.03, 0.01, 0.003)
_FRINGES = 3e-5  # power across fringes, relative to theirs, that rounding of grey levels makes
_PEAKS = 8
_ENOUGH = 0.97  # share of the waves that a lattice takes away, above which no other guess is tried
_MOST_GUESSES = 3
_ROUGH, _EXACT = 1e-2, 2e-5  # bins by which waves may still move when a lattice counts as refined
_MOST_STEPS = 6
_PRIMES = (2, 3, 5, 7)
_SMALL = 0.2  # displacements, relative to the finest period, that may be forgiven
_FAR = 3.0  # tolerances of mean displacement beyond which no column needs to be looked at
# Logistic regression of "within the tolerance" on tanh(6 ln m), ln m and ln u: m is by how much the worst
# column misses its like, u the displacement that columns do not explain, in tolerances. Superstructures in
# exact images of 2,000 training materials of 2DMatPedia, by how far columns really move.
_FORGIVEN = (-7.58, -2.19, -0.42, -1.41)
_FEWEST_PERIODS = 1.8
_FOLDED = 0.42  # cycles per averaged pixel that the finest wave may have
_BINS = 3.6  # bins that a wave takes part in
_REACH = 1.6  # bins within which a peak of the spectrum belongs to a point of the reciprocal lattice


@dataclass(frozen=True)
class Superstructure:
    """What speaks against a translation that a lattice lacks.

    Parameters
    ----------
    order
        So many of these translations lead to one of the lattice.
    translation
        (x, y) in pixels.
    evidence
        Minus the natural logarithm of the chance that noise makes the waves that the translation forbids.
    displacement
        Root mean square displacement of the image's parts, in pixels, that would make them.
    largest
        Distance by which the worst column misses its like, in pixels; infinite where it is not looked for.
    other
        Share of their power that no displacement of columns makes: columns of other brightness, or absent.
    """

    order: int
    translation: Array
    evidence: float
    displacement: float
    largest: float
    other: float


@dataclass(frozen=True)
class Found:
    """A lattice in an image.

    Parameters
    ----------
    basis
        Reduced direct basis, rows (x, y) in pixels.
    covariance
        Of (ax, ay, bx, by), shape (4, 4), px².
    explained
        Share of the power of the image's waves that the lattice takes away, less what any lattice would.
    weakest
        Of the superstructures that make the lattice as coarse as it is, the one nearest to not being there;
        ``None`` where no translation of a finer lattice nearly fits.
    dropped
        Superstructures that were seen and count as none, see `find_lattice`.
    waves
        Amplitudes.
    noise
        Expected power of the noise at them.
    scanned
        Whether the image has more noise than the rounding of its grey levels.
    jitter
        Root mean square offset of the scan lines along x, in pixels; they were moved back.
    """

    basis: Array
    covariance: Array
    explained: float
    weakest: Superstructure | None
    dropped: tuple[Superstructure, ...]
    waves: Waves
    noise: Array
    scanned: bool
    jitter: float


def find_lattice(image: Array, tolerance: float | None, rounding: float = 0.0) -> Found | None:
    """Return the lattice on which an image repeats, ``None`` where nothing repeats.

    Parameters
    ----------
    image
        Grey levels [row, column], finite.
    tolerance
        Displacement, in pixels, that breaks no translation; ``None`` for `RELATIVE_TOLERANCE`.
    rounding
        Variance that rounding to grey levels makes. An image without other noise was not scanned, and its
        lines are straight.
    """
    view = View(image)
    power = view.power(view.image)
    noise = view.noise(power, rounding)
    finest = _finest(view, power, noise)
    if finest is not None and (step := _step(view, power, noise, finest, rounding)) != (1, 1):
        view = View(image, step)
        power = view.power(view.image)
        noise = view.noise(power, rounding)
    best: Found | None = None
    tried: list[float] = []
    for basis in [] if finest is None else _guesses(view, power, noise, finest):
        area = abs(float(np.linalg.det(basis)))
        if any(abs(area / other - 1) < 0.05 for other in tried):
            continue
        tried.append(area)
        try:
            found = _from_guess(copy(view), power, noise, finest or 0.5, basis, tolerance, rounding)
        except NoLatticeError:
            continue
        if best is None or found.explained > best.explained:
            best = found
        if found.explained > _ENOUGH or len(tried) == _MOST_GUESSES:
            break
    return best


def first_lattices(image: Array) -> tuple[View, Array, Array, float, list[Array]]:
    """Return what `find_lattice` begins with: view, power, noise, finest wave, and the bases it would try.

    Parameters
    ----------
    image
        Grey levels [row, column], 0 to 1, finite.
    """
    view = View(image)
    power = view.power(view.image)
    noise = view.noise(power)
    finest = _finest(view, power, noise)
    return view, power, noise, finest or 0.5, _guesses(view, power, noise, finest) if finest else []


def coarser_lattices(basis: Array) -> list[Array]:
    """Return the reduced bases of the three doubled and the four tripled cells of a lattice."""
    reciprocal = inverse_basis(basis)
    return [
        _of_reciprocal(_span([[p, 0], [0, p], [h, k]]) / p @ reciprocal)
        for p in (2, 3)
        for h, k in _generators(p)
    ]


def _from_guess(
    view: View,
    power: Array,
    noise: Array,
    finest: float,
    basis: Array,
    tolerance: float | None,
    rounding: float,
) -> Found:
    """Return the lattice that a guess leads to."""
    scanned = _white(view, power) > _NOISY * rounding
    recorded, applied, jitter = view.image, np.zeros(view.shape[0]), 0.0
    for step in range(_MOST_STEPS):
        # Before lines are straightened there is no point in being exact.
        done = _ROUGH if scanned and step == 0 else _EXACT
        fit = refine(view, inverse_basis(basis), finest, power, noise, done=done)
        waves = fit_waves(view, fit.reciprocal, half_indices(fit.reciprocal, finest))
        if scanned:
            offsets, jitter = line_offsets(waves, recorded)
        # A superstructure that is not yet known looks like offsets; they go when it is.
        if jitter <= _JITTER:
            offsets, jitter = np.zeros(view.shape[0]), 0.0
        moved = bool(np.abs(offsets - applied).max() > _JITTER)
        if moved:
            applied = offsets
            view.image = recorded - moved_lines(waves, offsets)
            power = view.power(view.image)
            noise = view.noise(power, rounding)
            finest = max(finest, _finest(view, power, noise) or 0.0)
        if moved or done > _EXACT:
            fit = refine(view, fit.reciprocal, finest, power, noise)
            waves = fit_waves(view, fit.reciprocal, half_indices(fit.reciprocal, finest))
        left = view.image - waves.image()
        left_power = view.power(left)
        left_noise = view.noise(left_power, rounding)
        coarser = _coarser(view, inverse_basis(fit.reciprocal), left, left_power, left_noise, finest)
        if coarser is None:
            break
        basis = coarser
    least = np.maximum(_level(view) * view.at(waves.frequencies, left_noise), _FRINGES * waves.power.max())
    seen = waves.indices[waves.power > least]
    if np.linalg.det(seen.T @ seen) < 0.5:  # whole numbers: all waves on one line
        raise NoLatticeError
    explained = _explained(view, power, noise, left_power, finest, len(waves.indices))
    waves, dropped, weakest = _finer(view, waves, left_noise, finest, tolerance)
    if dropped:
        fit = refine(view, waves.reciprocal, finest, power, noise)
    basis, covariance = _reduced_with(inverse_basis(fit.reciprocal), fit.covariance)
    waves, level = _whole(view, waves, left_noise)
    return Found(
        basis=basis,
        covariance=covariance,
        explained=explained,
        weakest=weakest,
        dropped=tuple(dropped),
        waves=waves,
        noise=level,
        scanned=scanned,
        jitter=jitter,
    )


def _white(view: View, power: Array) -> float:
    """Return the variance of white noise, per pixel: waves fill a small part of the spectrum."""
    return float(np.median(power)) / math.log(2) / view.white


def _level(view: View) -> float:
    """Power over noise that noise exceeds in one of 1 / `_FALSE_ALARMS` images."""
    return math.log(view.q.size / _FALSE_ALARMS)


def _finest(view: View, power: Array, noise: Array) -> float | None:
    """Return the frequency (cycles per pixel) up to which waves stand out of the noise."""
    seen = (power > _level(view) * noise) & (view.q > NEAR / view.size.min())
    if not seen.any():
        return None
    q, p = view.q[seen], power[seen]
    order = np.argsort(-q)
    beyond = p[order].cumsum()
    edge = q[order][np.argmax(beyond > _WHOLE * beyond[-1])]
    return float(min(0.5, edge + 1.5 / view.size.min()))


def _step(view: View, power: Array, noise: Array, finest: float, rounding: float) -> tuple[int, int]:
    """Return how many rows and columns may be averaged without losing or confusing waves."""
    seen = (power > _level(view) * noise) & (view.q > NEAR / view.size.min())
    # A wave beyond the new Nyquist frequency must not come to lie among those that count.
    step = max(1, int(min(_FOLDED / finest, 1 / (finest + float(view.q[seen].max())))))
    # Lines of a scan may have to be moved, each by itself.
    return (1, step) if _white(view, power) > _NOISY * rounding else (step, step)


def _guesses(view: View, power: Array, noise: Array, finest: float) -> list[Array]:
    """Return lattices of shifts with high self-correlation: first the finest that holds the image's waves."""
    more = [max(1, int(0.25 / finest / step)) for step in view.step]
    step = np.array([view.step[0] * more[0], view.step[1] * more[1]])
    small = averaged(view.image, (more[0], more[1])).astype(np.float32)
    shifts, heights = repeating_shifts(ndimage.gaussian_filter(small, 0.25 / finest / step))
    shifts = shifts * step[::-1]
    long = np.hypot(*shifts.T) > 0.7 / finest
    shifts, heights = shifts[long], heights[long]
    if len(shifts) < 2 or heights[0] <= 0:
        return []
    found: list[tuple[float, Array]] = []
    for count in sorted({max(3, int((heights > (1 - part) * heights[0]).sum())) for part in _THRESHOLDS}):
        basis = _shortest(shifts[:count])
        if basis is not None and np.hypot(*basis[1]) * _FEWEST_PERIODS < view.size.max():
            found.append((_captured(view, power, noise, finest, basis), basis))
    best = max((share for share, _ in found), default=0.0)

    def rank(entry: tuple[float, Array]) -> tuple[bool, float]:
        return entry[0] < 0.97 * best, abs(float(np.linalg.det(entry[1])))

    return [basis for _, basis in sorted(found, key=rank)]


def _shortest(shifts: Array) -> Array | None:
    """Return a reduced basis of the two shortest independent shifts, fitted to all that are combinations."""
    shifts = shifts[np.argsort((shifts**2).sum(axis=1))]
    lengths = np.hypot(*shifts.T)
    areas = np.abs(shifts[0, 0] * shifts[:, 1] - shifts[0, 1] * shifts[:, 0])
    independent = np.flatnonzero(areas > 0.3 * lengths[0] * lengths)
    if not len(independent):
        return None
    basis = _reduced(shifts[[0, independent[0]]])
    for reach in (2.2, 4.4, np.inf):
        near = shifts[lengths < reach * np.hypot(*basis[1])]
        whole = np.rint(near @ np.linalg.inv(basis))
        fits = np.abs(near - whole @ basis).max(axis=1) < 0.15 * np.hypot(*basis[0])
        normal = whole[fits].T @ whole[fits]
        if np.linalg.det(normal) < 0.5:  # whole numbers: all on one line
            break
        basis = _reduced(np.linalg.solve(normal, whole[fits].T @ near[fits]))
    return basis


def _captured(view: View, power: Array, noise: Array, finest: float, basis: Array) -> float:
    """Return the share of the power of all waves that is near points of the reciprocal lattice."""
    row, column = np.nonzero(
        (power > _level(view) * noise) & (view.q > NEAR / view.size.min()) & (view.q < finest)
    )
    near = _away(view, np.stack([view.qx[column], view.qy[row]], axis=1), basis) < _REACH
    weights = power[row, column]
    return float(weights[near].sum() / weights.sum()) if len(weights) else 0.0


def _coarser(
    view: View, basis: Array, left: Array, power: Array, noise: Array, finest: float
) -> Array | None:
    """Return a lattice with fewer translations if waves are left at fractions of its reciprocal one."""
    peaks = _peaks(view, basis, power, noise, finest)
    together = _by_all(view, basis, left, noise, finest)
    if not peaks or (together is not None and _away(view, peaks[0][0], together) < 0.8):
        return together
    return _by_peaks(view, basis, peaks)


def _peaks(view: View, basis: Array, power: Array, noise: Array, finest: float) -> list[tuple[Array, float]]:
    """Return the waves off the lattice that stand out of what is left: frequency and clearness, in order."""
    snr = np.where((view.q < finest) & (view.q > NEAR / view.size.min()), power / noise, 0.0)
    found: list[tuple[Array, float]] = []
    for _ in range(2 * _PEAKS):
        row, column = (int(i) for i in np.unravel_index(int(snr.argmax()), snr.shape))
        strength = float(snr[row, column])
        if strength < _level(view) + _DISTORTED or len(found) == _PEAKS:
            break
        place = _top(view, power, row, column)
        if _away(view, place, basis) > 1.2:
            found.append((place, math.log(strength)))
        rows = np.arange(row - 2, row + 3) % view.shape[0]
        snr[np.ix_(rows, np.arange(max(0, column - 2), min(column + 3, snr.shape[1])))] = 0
    return found


def _by_peaks(view: View, basis: Array, peaks: list[tuple[Array, float]]) -> Array | None:
    """Return the cell whose fractions of the reciprocal lattice explain the clearest wave and most others."""
    reciprocal = inverse_basis(basis)
    places, weights = np.array([place for place, _ in peaks]), [weight for _, weight in peaks]
    best, found = np.inf, None
    index = basis @ places[0]
    for n in range(2, 9):
        whole = np.rint(n * index)
        if np.abs((whole / n - index) @ reciprocal * view.size).max() > 1.0:
            continue
        coarse = _of_reciprocal(_span([[n, 0], [0, n], whole.astype(int).tolist()]) / n @ reciprocal)
        if np.hypot(*coarse[1]) * _FEWEST_PERIODS > view.size.min():
            continue
        misfits = np.minimum(1, (_away(view, places, coarse) / 0.5) ** 2)
        cost = float(np.average(misfits, weights=weights)) + 0.04 * n
        if cost < best:
            best, found = cost, coarse
    return found


def _away(view: View, places: Array, basis: Array) -> Array:
    """Return how far frequencies are from the points of the reciprocal lattice, in bins."""
    index = places @ basis.T
    return np.asarray(np.abs((index - np.rint(index)) @ np.linalg.inv(basis).T * view.size).max(axis=-1))


def _top(view: View, power: Array, row: int, column: int) -> Array:
    """Return the frequency (x, y) of a maximum of the spectrum, by a parabola through the logarithms."""
    rows, columns = power.shape
    place = np.array([view.qx[column], view.qy[row]])
    for axis, length in ((0, view.size[0]), (1, view.size[1])):
        if axis == 0 and not 0 < column < columns - 1:
            continue
        near = [(row, column + i) if axis == 0 else ((row + i) % rows, column) for i in (-1, 0, 1)]
        low, middle, high = (math.log(max(float(power[i]), 1e-300)) for i in near)
        bend = low + high - 2 * middle
        if bend < 0:
            place[axis] += min(0.5, max(-0.5, (low - high) / 2 / bend)) / length
    return place


def _by_all(view: View, basis: Array, left: Array, noise: Array, finest: float) -> Array | None:
    """Look for the waves of doubled and tripled cells together, each too weak to be seen alone."""
    reciprocal = inverse_basis(basis)
    fine = view.power(left, finer=2)
    nodes = []
    for p in (2, 3):
        indices = half_indices(reciprocal / p, finest)
        frequencies = indices @ reciprocal / p
        new = (indices % p != 0).any(axis=1) & (np.hypot(*frequencies.T) > NEAR / view.size.min())
        indices, frequencies = indices[new], frequencies[new]
        nodes.append(
            (p, indices, frequencies, view.at(frequencies, fine, finer=2) / view.at(frequencies, noise))
        )
    ratios = np.concatenate([snr for *_, snr in nodes])
    if not len(ratios):
        return None
    # Most of these waves are noise, whatever its spectrum is.
    usual = max(1.0, float(np.median(ratios)) / math.log(2))
    best, found = 0.0, None
    for p, indices, frequencies, ratio in nodes:
        snr, q = ratio / usual, np.hypot(*frequencies.T)
        # In a small view a wave is seen at its neighbours too, but not as a maximum.
        steps = np.mgrid[-2:3, -2:3].reshape(2, -1).T / (2 * view.size)
        around = view.at((frequencies[:, None] + steps).reshape(-1, 2), fine, finer=2).reshape(-1, len(steps))
        sharp = snr * (around[:, len(steps) // 2] > 0.7 * around.max(axis=1))
        for h, k in _generators(p):
            # The waves (h, k) / p and its multiples, beside those of the lattice.
            members = (h * indices[:, 1] - k * indices[:, 0]) % p == 0
            if not members.any() or _evidence(snr[members], q[members], finest) < _SURE:
                continue
            coarse = _of_reciprocal(_span([[p, 0], [0, p], [h, k]]) / p @ reciprocal)
            mean = float(sharp[members].mean())
            if mean > best and np.hypot(*coarse[1]) * _FEWEST_PERIODS < view.size.min():
                best, found = mean, coarse
    return found


def _evidence(snr: Array, q: Array, finest: float) -> float:
    """Return minus the logarithm of the chance that noise makes waves as strong, alone or together."""
    # Finer waves of a superstructure are weaker, as those of the lattice are.
    weights = np.exp(-((q / (0.6 * finest)) ** 2))
    first, second = float(weights.sum()), float((weights**2).sum())
    together = _log_tail(first**2 / second, float((weights * snr).sum()) * first / second / _UNSURE_NOISE)
    alone = float(snr.max()) - math.log(len(snr))
    return max(alone, -together)


def _log_tail(shape: float, value: float) -> float:
    """Return the logarithm of the chance that a gamma variable exceeds a value."""
    tail = float(special.gammaincc(shape, value))
    if tail > 1e-290:
        return math.log(tail)
    return (shape - 1) * math.log(value) - value - float(special.gammaln(shape))


def _whole(view: View, waves: Waves, noise: Array) -> tuple[Waves, Array]:
    """Return waves as they are without averaging of pixels, and the noise at them."""
    gain = view.gain(waves.frequencies)
    return replace(waves, amplitudes=waves.amplitudes / gain), view.at(waves.frequencies, noise) / gain**2


def _finer(
    view: View, waves: Waves, noise: Array, finest: float, tolerance: float | None
) -> tuple[Waves, list[Superstructure], Superstructure | None]:
    """Add the translations that nothing speaks against, or no more than crystals are forgiven."""
    dropped: list[Superstructure] = []
    while True:
        basis = inverse_basis(waves.reciprocal)
        whole, level = _whole(view, waves, noise)
        allowed = RELATIVE_TOLERANCE * float(np.hypot(*basis.T).sum()) if tolerance is None else tolerance
        tests = _superstructures(whole, basis, level, finest, allowed)
        absent = [(test, h) for test, h in tests if test.evidence < _SURE or forgiven(test, allowed) > 0.5]
        if not absent:
            weakest = min((test for test, _ in tests), key=lambda test: test.displacement, default=None)
            return waves, dropped, weakest
        test, h = min(absent, key=lambda entry: entry[0].displacement)
        finer = _reduced(np.array([test.translation, basis[1] if h else basis[0]]))
        if np.hypot(*finer[0]) < 0.7 / finest:
            raise NoLatticeError
        dropped.append(test)
        reciprocal = inverse_basis(finer)
        waves = fit_waves(view, reciprocal, half_indices(reciprocal, finest))


def forgiven(test: Superstructure, tolerance: float) -> float:
    """Return the probability that all displacements behind a superstructure are within a tolerance (px)."""
    if not math.isfinite(test.largest):
        return 0.0
    miss = math.log(min(2.0, max(0.05, test.largest / tolerance)))
    unexplained = math.log(max(3e-3, test.displacement / tolerance * math.sqrt(test.other)))
    features = (1.0, math.tanh(6 * miss), miss, unexplained)
    exponent = sum(weight * feature for weight, feature in zip(_FORGIVEN, features, strict=True))
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, exponent))))


def _superstructures(
    waves: Waves, basis: Array, noise: Array, finest: float, tolerance: float
) -> list[tuple[Superstructure, int]]:
    """Return what speaks against each translation of prime order, and the first index of the translation."""
    frequencies = waves.frequencies
    q = np.hypot(*frequencies.T)
    power = waves.power
    bending = float((power * q**2).sum()) * (2 * math.pi) ** 2 / 2
    found = []
    for p in _PRIMES:
        for h, k in _generators(p):
            forbidden = waves.indices @ (h, k) % p != 0
            evidence = displacement = 0.0
            if forbidden.any():
                evidence = _evidence(power[forbidden] / noise[forbidden], q[forbidden], finest)
                extra = max(0.0, float((power - noise)[forbidden].sum()))
                displacement = math.sqrt(extra / bending)
            largest, other = math.inf, 1.0
            if evidence >= _SURE and displacement < min(_SMALL / finest, _FAR * tolerance):
                seen = moves(waves.indices, frequencies, waves.amplitudes, noise, (h, k), p, basis, tolerance)
                if seen is not None:
                    largest, other = seen.largest, seen.other
            step = np.array((h, k)) @ basis / p
            found.append((Superstructure(p, step, evidence, displacement, largest, other), h))
    return found


def _generators(prime: int) -> list[tuple[int, int]]:
    """Return one generator of each subgroup of order p."""
    return [(1, k) for k in range(prime)] + [(0, 1)]


def _explained(view: View, power: Array, noise: Array, left: Array, finest: float, count: int) -> float:
    """Return the share of the waves that an image shows which those of the lattice, `count`, take away."""
    inside = (view.q < finest) & (view.q > NEAR / view.size.min())
    seen = inside & (power > _level(view) * noise)
    # Waves at any places would take away the share of the spectrum that the window spreads them over.
    free = min(0.99, count * _BINS / max(1, int(inside.sum())))
    rest = float(left[seen].sum()) / float(power[seen].sum()) if seen.any() else 1.0
    return float(np.clip(1 - rest / (1 - free), 0, 1))


def _reduced(basis: npt.ArrayLike) -> Array:
    return np.array(reduce_basis(basis)).reshape(2, 2)


def inverse_basis(basis: npt.ArrayLike) -> Array:
    """Return the reciprocal of a basis of rows, or the basis of a reciprocal one."""
    return np.asarray(np.linalg.inv(np.asarray(basis, dtype=float)).T, dtype=float)


def _of_reciprocal(reciprocal: Array) -> Array:
    return _reduced(inverse_basis(reciprocal))


def _reduced_with(basis: Array, covariance: Array) -> tuple[Array, Array]:
    """Return the reduced basis and its covariance."""
    reduced = _reduced(basis)
    change = np.kron(np.rint(reduced @ np.linalg.inv(basis)), np.eye(2))
    return reduced, change @ covariance @ change.T


def _span(rows: list[list[int]]) -> Integers:
    """Return a basis of the lattice that integer vectors span, by Euclid's algorithm column after column."""
    left, basis = [list(row) for row in rows], []
    for column in (0, 1):
        live = [row for row in left if row[column]]
        left = [row for row in left if not row[column]]
        while len(live) > 1:
            live.sort(key=lambda row: abs(row[column]))
            first, *others = live
            live = [first]
            for row in others:
                factor = row[column] // first[column]
                rest = [row[0] - factor * first[0], row[1] - factor * first[1]]
                (live if rest[column] else left).append(rest)
        basis.append(live[0])
    return np.array(basis)
