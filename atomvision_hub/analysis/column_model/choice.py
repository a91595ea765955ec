"""The profile of a crystal's columns and the columns themselves, found together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.column_model.answer import MOST_LEFT, ColumnFit, with_loose
from atomvision_hub.analysis.column_model.cells import find_crystal, first_bases
from atomvision_hub.analysis.column_model.lines import Straightened, refitted, straighten, straighten_by
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.probe_search import Description, measured_probes
from atomvision_hub.analysis.column_model.profiles import pixel_noise

Array = npt.NDArray[np.float64]

_FINER = 0.75  # cell relative to a crystal's from which it counts as smaller
# By how much a description with fewer sites may be longer than the shortest, to be taken and to raise doubts;
# and for each pixel, where more than nearly noise is left anyhow: drift, columns that are not round.
_LONGER, _DOUBTFUL, _UNEVEN = 100.0, 130.0, 0.03
_USELESS = 2.0  # residual over noise from which nothing else is tried
_EVEN = 1.03  # residual over noise below which no column is there for what the model cannot show


def of_best_probe(grey: Array, start: Probe) -> ColumnFit | None:
    """Return the crystal of the profile that needs the fewest sites for a description that is hardly longer.

    Several narrow columns look like a wide one: what is a little too narrow explains an image as well, by
    columns that are not there.
    """
    noise = pixel_noise(grey, start.narrowest)
    crystal = find_crystal(grey, start, noise)
    if crystal is None:
        return None
    straight = Straightened(grey, noise, crystal)
    tried = [(straight, start)]
    # Lines are placed by columns of a likely profile: a wrong one finds displacements where there are none.
    for likeliest in measured_probes(grey, crystal.basis, start, noise):
        start = likeliest.probe
        straight = straighten(grey, start)
        if straight.crystal is None:
            return None
        if straight.crystal.ratio > _USELESS:
            return with_loose(straight, start)
        tried.append((straight, start))
        break
    for basis in _bases(straight):
        ratio = math.inf
        for one in measured_probes(straight.image, basis, start, straight.noise):
            if (one.held and ratio < _EVEN) or MOST_LEFT < ratio < math.inf:
                break
            again = _described(grey, straight, basis, one)
            if again is not None and again.crystal is not None:
                tried.append((again, one.probe))
                ratio = min(ratio, again.crystal.ratio)
    found = [with_loose(one, probe) for one, probe in tried]
    costs = _comparable(found, [0.0 if one.crystal is None else one.crystal.freedom for one, _ in tried])
    least = min(costs)
    uneven = _UNEVEN * grey.size if least > (_EVEN**2 - 1) * grey.size else 0.0
    longer, doubted = (least + uneven + more for more in (_LONGER, _DOUBTFUL))
    parts = [_parts(fit) for fit in found]
    best = min((parts[k], costs[k], k) for k in range(len(found)) if costs[k] <= longer)[2]
    doubtful = any(parts[k] < parts[best] and costs[k] <= doubted for k in range(len(found)))
    if doubtful:
        return None
    chosen = found[best]
    if not uneven or chosen.basis is None:
        return chosen
    sites = len(np.unique(chosen.site[chosen.site >= 0]))
    density = sites / abs(float(np.linalg.det(chosen.basis)))
    return replace(chosen, probe=replace(chosen.probe, density=density))


def _described(
    grey: Array, straight: Straightened, basis: Array, description: Description
) -> Straightened | None:
    """Return the image with the crystal that a description of its structure factors leads to."""
    columns = description.places, description.heights
    crystal = refitted(straight.image, basis, description.probe, straight.noise, columns)
    if crystal is None:
        return None
    # Columns of another profile place displaced lines elsewhere.
    moved = straight.offsets is not None
    return straighten_by(grey, crystal, description.probe) if moved else replace(straight, crystal=crystal)


def _bases(straight: Straightened) -> list[Array]:
    """Return the lattice of a crystal, and finer ones: a wrong profile may have asked for the larger."""
    assert straight.crystal is not None
    basis = straight.crystal.basis
    area = abs(float(np.linalg.det(basis)))
    return [basis] + [
        other for other in first_bases(straight.image) if abs(float(np.linalg.det(other))) < _FINER * area
    ]


def _comparable(fits: list[ColumnFit], freedoms: list[float]) -> list[float]:
    """Return the costs of fits as for pixels of one noise, and without what falls by chance."""
    quiet = min(fit.noise for fit in fits)
    return [
        fit.cost + fit.ratio**2 * fit.left.size * ((fit.noise / quiet) ** 2 - 1) + freedom
        for fit, freedom in zip(fits, freedoms, strict=True)
    ]


def _parts(fit: ColumnFit) -> int:
    """Return how many places describe a fit: those of sites, and of loose columns."""
    return len(np.unique(fit.site[fit.site >= 0])) + int((fit.site < 0).sum())
