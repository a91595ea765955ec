"""Which planes of a given crystal an image shows, and along which axis it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.reflections import Indices, Lattice, Reflection, conventional, families
from atomvision_hub.analysis.spacings import Spacing, Spacings

Array = npt.NDArray[np.float64]

#: Standard uncertainties within which a spacing counts as matched.
_COVERAGE = 2.5
#: Relative distance in reciprocal space within which a peak counts as a point of a zone: scan distortion.
_MISFIT = 0.05
_SEEDS = 6
#: Reflections weaker than this part of the strongest are not missed where an image does not show them.
_STRONG = 0.3


@dataclass(frozen=True)
class Facet:
    """A family of planes that fits a measured spacing.

    Parameters
    ----------
    hkl
        Representative of the family, conventional cell.
    d
        Its spacing, Å.
    deviation
        (measured - d) / d.
    sigmas
        Deviation over the standard uncertainty, calibration included.
    strength
        Kinematic structure factor, 1 where all atoms scatter in phase.
    probability
        Among the families that fit: likelihood times kinematic intensity, normalised.
    """

    hkl: Indices
    d: float
    deviation: float
    sigmas: float
    strength: float
    probability: float


@dataclass(frozen=True)
class Zone:
    """A direction of view that explains spacings and angles together.

    Parameters
    ----------
    axis
        Representative direction [uvw], conventional cell.
    indices
        For each measured spacing the plane hkl, or `None` where the zone does not explain it; signs are
        consistent within the zone.
    scale
        Measured lengths over those of the crystal: what the calibration would have to be corrected by.
    residual
        Root mean square distance of the explained peaks from the zone's points, relative to their length.
    explained
        Part of the measured amplitude that is explained.
    completeness
        Part of the zone's strong reflections in the measured range that the image shows.
    score
        0 to 1: explained, complete, undistorted, near the stated calibration, and of low indices (axes beyond
        <111> count less, as the inverse of their length).
    """

    axis: Indices
    indices: tuple[Indices | None, ...]
    scale: float
    residual: float
    explained: float
    completeness: float
    score: float


@dataclass(frozen=True)
class Matches:
    """Planes and directions of view, best first.

    Parameters
    ----------
    facets
        For each measured spacing the families that fit, most probable first.
    zones
        Directions of view; empty where the image shows fewer than two directions.
    """

    facets: tuple[tuple[Facet, ...], ...]
    zones: tuple[Zone, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all in plain types, for JSON."""
        return {
            "facets": [[facet.__dict__ for facet in facets] for facets in self.facets],
            "zones": [zone.__dict__ for zone in self.zones],
        }


def match_spacings(
    spacings: Spacings, atoms: Atoms, *, tolerance: float | None = None, angle_tolerance: float = 3.0
) -> Matches:
    """Return the planes of a crystal that fit measured spacings, and the directions of view that fit all.

    Extinct planes are left out by their structure factor. Planes are named in the conventional cell.

    Parameters
    ----------
    spacings
        Of a calibrated image.
    atoms
        The crystal; a layer (not periodic along z) is seen along [001].
    tolerance
        Relative deviation of a spacing that is still a match; by default 2.5 of its standard uncertainties.
    angle_tolerance
        Deviation of the angle between two planes that is still a match, degrees.

    Raises
    ------
    AnalysisError
        Where the image is not calibrated or the atoms are no crystal.
    """
    if spacings.pixel_size is None:
        raise AnalysisError("the image is not calibrated; give its pixel size to compare with a crystal")
    if not spacings.peaks:
        return Matches((), ())
    lattice = conventional(atoms)
    widths = [
        _COVERAGE * peak.total_uncertainty / peak.d if tolerance is None else tolerance
        for peak in spacings.peaks
    ]
    shortest = min(peak.d * (1 - width) for peak, width in zip(spacings.peaks, widths, strict=True))
    planes = families(lattice, shortest)
    facets = tuple(
        tuple(_facets(peak, width, planes)) for peak, width in zip(spacings.peaks, widths, strict=True)
    )
    calibration = (
        tolerance / _COVERAGE if tolerance is not None else spacings.relative_calibration_uncertainty
    )
    table = _Table.of(planes, lattice)
    best: dict[Indices, Zone] = {}
    for seed in _seeds(spacings.peaks, widths, planes, lattice, angle_tolerance):
        zone = _zone(spacings.peaks, seed, table, lattice, max(calibration, 0.005))
        if zone is not None and (zone.axis not in best or zone.score > best[zone.axis].score):
            best[zone.axis] = zone
    ranked = sorted(best.values(), key=lambda zone: (-round(zone.score, 9), zone.axis))
    return Matches(facets, tuple(zone for zone in ranked[:5] if zone.score > 0.01))


def _facets(peak: Spacing, width: float, planes: Sequence[Reflection]) -> list[Facet]:
    """Return the families whose spacing fits, most probable first."""
    found = []
    for plane in planes:
        deviation = (peak.d - plane.d) / plane.d
        if abs(deviation) <= width:
            sigmas = (peak.d - plane.d) / max(peak.total_uncertainty, 1e-9)
            weight = float(np.exp(-(sigmas**2) / 2)) * plane.strength**2
            found.append((weight, plane, deviation, sigmas))
    total = sum(weight for weight, *_ in found) or 1.0
    return [
        Facet(plane.hkl, plane.d, deviation, sigmas, plane.strength, weight / total)
        for weight, plane, deviation, sigmas in sorted(found, key=lambda entry: (-entry[0], entry[1].hkl))
    ]


@dataclass(frozen=True)
class _Table:
    """All planes, both signs: indices, vectors in 1/Å, strengths."""

    hkl: npt.NDArray[np.int64]
    vectors: Array
    strengths: Array

    @classmethod
    def of(cls, planes: Sequence[Reflection], lattice: Lattice) -> _Table:
        members = [(hkl, plane.strength) for plane in planes for hkl in plane.members]
        hkl = np.array([indices for indices, _ in members], dtype=np.int64).reshape(-1, 3)
        return cls(hkl, hkl @ lattice.reciprocal, np.array([strength for _, strength in members]))


@dataclass(frozen=True)
class _Seed:
    """Two measured vectors (x, y) and the planes they are taken for."""

    measured: Array
    planes: npt.NDArray[np.int64]


def _seeds(
    peaks: Sequence[Spacing],
    widths: Sequence[float],
    planes: Sequence[Reflection],
    lattice: Lattice,
    tolerance: float,
) -> Iterator[_Seed]:
    """Yield pairs of strong peaks with pairs of planes of the same lengths and angle."""
    cosine_slack = np.radians(tolerance)
    for one, two in combinations(range(min(len(peaks), _SEEDS)), 2):
        measured = np.array([peaks[index].vector for index in (one, two)])
        angle = _angle(measured[0], measured[1])
        if min(angle, np.pi - angle) < np.radians(10):
            continue
        first = [plane.hkl for plane in planes if abs(peaks[one].d / plane.d - 1) <= widths[one]]
        second = np.array(
            [
                hkl
                for plane in planes
                if abs(peaks[two].d / plane.d - 1) <= widths[two]
                for hkl in plane.members
            ]
        ).reshape(-1, 3)
        vectors = second @ lattice.reciprocal
        for hkl in first:
            vector = np.array(hkl) @ lattice.reciprocal
            cosines = vectors @ vector / np.linalg.norm(vector) / np.linalg.norm(vectors, axis=1)
            close = np.abs(np.arccos(np.clip(cosines, -1, 1)) - angle) <= cosine_slack
            for other in second[close]:
                yield _Seed(measured, np.array([hkl, other]))


def _angle(one: Array, other: Array) -> float:
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return float(np.arccos(np.clip(cosine, -1, 1)))


def _zone(
    peaks: Sequence[Spacing], seed: _Seed, table: _Table, lattice: Lattice, calibration: float
) -> Zone | None:
    """Return the zone that two peaks span, with what it explains of all peaks."""
    axis = np.cross(*seed.planes)
    divisor = gcd(*(int(abs(index)) for index in axis))
    if divisor == 0:
        return None
    axis = axis // divisor
    # Planes of the zone in a plane frame (first plane along x), measured peaks in the same frame.
    vectors = seed.planes @ lattice.reciprocal
    frame = _frame(vectors)
    measured_frame = _frame(seed.measured)
    inside = table.hkl @ axis == 0
    names = [(int(h), int(k), int(j)) for h, k, j in table.hkl[inside]]
    places, strengths = table.vectors[inside] @ frame.T, table.strengths[inside]
    measured = np.array([peak.vector for peak in peaks]) @ measured_frame.T
    scale = float(np.mean(np.linalg.norm(vectors, axis=1) / np.linalg.norm(seed.measured, axis=1)))
    for _ in range(2):
        distances = np.linalg.norm(measured[:, None] * scale - places[None], axis=2)
        nearest = distances.argmin(axis=1)
        lengths = np.linalg.norm(places[nearest], axis=1)
        fits = distances[np.arange(len(peaks)), nearest] <= _MISFIT * lengths
        if fits.sum() < 2:
            return None
        turn, scale = _similarity(measured[fits], places[nearest][fits])
        measured = measured @ turn.T
    distances = np.linalg.norm(measured * scale - places[nearest], axis=1) / lengths
    residual = float(np.sqrt(np.mean(distances[fits] ** 2)))
    amplitudes = np.sqrt([peak.intensity for peak in peaks])
    explained = float(amplitudes[fits].sum() / amplitudes.sum())
    # What the zone must show: strong reflections not beyond the finest spacing that it explains.
    reach = np.linalg.norm(places, axis=1) <= lengths[fits].max() * 1.001
    strong = reach & (strengths >= _STRONG * strengths[reach].max())
    shown = {names[index] for index in nearest[fits]} | {_minus(names[index]) for index in nearest[fits]}
    weights = strengths[strong] ** 2
    completeness = float(
        sum(w for w, i in zip(weights, np.flatnonzero(strong), strict=True) if names[i] in shown)
        / weights.sum()
    )
    doubt = ((scale - 1) / calibration) ** 2 + (residual / 0.02) ** 2
    # Every image fits some high-index axis closely: low-index ones are to be preferred.
    simplicity = min(1.0, float(np.sqrt(3) / np.linalg.norm(axis)))
    score = explained * completeness * simplicity * float(np.exp(-doubt / 2))
    indices = tuple(names[index] if fit else None for index, fit in zip(nearest, fits, strict=True))
    view = (int(axis[0]), int(axis[1]), int(axis[2]))
    return Zone(lattice.direction(view), indices, scale, residual, explained, completeness, score)


def _frame(pair: Array) -> Array:
    """Return two orthonormal vectors as rows: along the first of a pair, and towards the second."""
    first = pair[0] / np.linalg.norm(pair[0])
    second = pair[1] - first * (pair[1] @ first)
    return np.stack([first, second / np.linalg.norm(second)])


def _similarity(points: Array, targets: Array) -> tuple[Array, float]:
    """Return rotation and scale that bring points closest to their targets, each relative to its length."""
    weights = 1 / np.linalg.norm(targets, axis=1) ** 2
    a = points[:, 0] + 1j * points[:, 1]
    b = targets[:, 0] + 1j * targets[:, 1]
    factor = complex((weights * a.conj() * b).sum() / (weights * np.abs(a) ** 2).sum())
    cosine, sine = factor.real / abs(factor), factor.imag / abs(factor)
    return np.array([[cosine, -sine], [sine, cosine]]), abs(factor)


def _minus(hkl: Indices) -> Indices:
    return -hkl[0], -hkl[1], -hkl[2]
