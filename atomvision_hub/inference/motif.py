"""The two-dimensional motif: columns of atoms folded into one cell and averaged over all cells; CIF of it.

What an image shows are columns: their places in the cell and how bright they are. It shows neither heights
nor elements, so a motif names none unless it is told them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from atomvision_hub.analysis import AtomTable
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.lattice_result import LatticeParameters, plain

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: Fewest cells that are averaged.
FEWEST_CELLS = 6
#: Share of the columns that must lie on sites of the motif, and of the cells that a site must be seen in.
_EXPLAINED, _SHARE = 0.6, 0.3
#: How far columns of a site may be from its mean, in distances of nearest sites or columns.
_NEAR = 0.35
#: How far from a whole translation a partner may be, relative to the shorter edge.
_STRAY = 0.15
_MOST = 5000  # columns, those nearest to the middle
_BINS = 64  # along each edge, in which places are counted
#: Height of the cell in a CIF, Å: none was measured.
_HEIGHT = 10.0
_SYMBOL = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A column of the motif.

    Parameters
    ----------
    x, y
        Place in the cell along a and b, 0 to below 1; the brightest site is the origin.
    error
        Standard error of the place, from how much cells and quarters of the image differ; in the motif's
        unit. Columns that overlap pull at each other, which it does not hold.
    spread
        Root mean square distance of single columns from the mean, in the motif's unit.
    intensity, intensity_spread
        Mean height of the column over that of the brightest site, and standard deviation between cells.
    share
        In how many of the cells it was found, relative to the most complete site.
    count
        In how many cells it was found.
    """

    x: float
    y: float
    error: float
    spread: float
    intensity: float
    intensity_spread: float
    share: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Motif:
    """What repeats: a cell and its columns, brightest first.

    Parameters
    ----------
    a, b, gamma, a_error, b_error, gamma_error, calibration_error
        The cell and its errors as in `LatticeParameters`.
    unit
        ``"Å"`` or ``"px"``.
    lattice
        Its class.
    sites
        Columns.
    explained
        Share of the columns in view that belong to a site.
    towards_viewer
        Whether a x b points at the viewer; the c axis of a CIF does the same.
    """

    a: float
    b: float
    gamma: float
    a_error: float
    b_error: float
    gamma_error: float
    calibration_error: float | None
    unit: str
    lattice: str
    sites: tuple[Site, ...]
    explained: float
    towards_viewer: bool

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON-ready values."""
        values: dict[str, Any] = plain({**self.__dict__, "sites": [site.__dict__ for site in self.sites]})
        return values

    def to_cif(self, name: str = "motif", elements: Sequence[str] | None = None) -> str:
        """Return a CIF of the cell with one dummy atom a column, in space group P 1.

        Parameters
        ----------
        name
            Of the data block; what a CIF forbids in it becomes an underscore.
        elements
            Symbols of the sites, brightest first, for those who know them; otherwise all are ``X``.

        Raises
        ------
        UsageError
            Without calibration, and when there are not as many elements as sites.
        """
        if self.unit != "Å":
            raise UsageError("a CIF has lengths in Å and this image is not calibrated; give its pixel size")
        if elements is not None:
            _check(elements, len(self.sites))
        share = 100 * (self.calibration_error or 0.0)
        block = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60] or "motif"
        lines = [
            "# Two-dimensional motif of an image: columns of atoms, averaged over the cells in view.",
            "# z and c are placeholders: an image shows no heights.",
            "# Elements were given by the user."
            if elements
            else "# X: an image does not tell elements; relative_intensity is the height of the peak.",
            f"# Errors do not hold that of the pixel size: all lengths may be off by {share:g} %.",
            f"# The c axis points {'towards' if self.towards_viewer else 'away from'} the viewer.",
            f"data_{block}",
            f"_cell_length_a {with_error(self.a, self.a_error)}",
            f"_cell_length_b {with_error(self.b, self.b_error)}",
            f"_cell_length_c {_HEIGHT:.1f}",
            "_cell_angle_alpha 90",
            "_cell_angle_beta 90",
            f"_cell_angle_gamma {with_error(self.gamma, self.gamma_error)}",
            "_symmetry_space_group_name_H-M 'P 1'",
            "_space_group_IT_number 1",
            "loop_",
            "_space_group_symop_operation_xyz",
            "'x, y, z'",
            "loop_",
            *(
                f"_atom_site_{key}"
                for key in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
            ),
            "_atomvision_relative_intensity",
            "_atomvision_share_of_cells",
        ]
        for number, site in enumerate(self.sites):
            symbol = elements[number] if elements else "X"
            lines.append(
                f"{symbol}{number + 1} {symbol} {with_error(site.x, site.error / self.a)} "
                f"{with_error(site.y, site.error / self.b)} 0.5 1.0 {site.intensity:.3f} {site.share:.3f}"
            )
        return "\n".join(lines) + "\n"


def _check(elements: Sequence[str], sites: int) -> None:
    for symbol in elements:
        if not _SYMBOL.fullmatch(symbol):
            raise UsageError(f"{symbol!r} is no symbol of an element; write them as in Sr,Ti,O")
    if len(elements) != sites:
        raise UsageError(
            f"{len(elements)} elements for {sites} columns of the motif; give one a column, brightest first"
        )


def with_error(value: float, error: float) -> str:
    """Return a number with its standard error in brackets, as crystallographers write it: ``4.092(55)``."""
    if not error > 0:
        return f"{value:.4f}"
    digits = max(0, min(6, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f}({max(1, round(error * 10**digits))})"


def find_motif(atoms: AtomTable, lattice: LatticeParameters | None) -> Motif | None:
    """Return what repeats on the fitted lattice; ``None`` without one, or where columns do not follow it.

    Columns that are one translation apart are chained. The longest chain tells, column by column, where the
    lattice really is, distortions included; a smooth surface through that gives every other column its
    place in the cell. Places that many cells share are the sites.

    Parameters
    ----------
    atoms
        Columns in pixels.
    lattice
        What fits the image.
    """
    if lattice is None:
        return None
    places, heights = _chosen(atoms, lattice)
    edges = np.array(lattice.vectors_px)
    if len(places) < FEWEST_CELLS:
        return None
    members, cells = _chain(places, edges)
    if len(members) < FEWEST_CELLS:
        return None
    origins = _surface(places[members], places[members] - cells @ edges, places)
    fractions = (places - origins) @ np.linalg.inv(edges) % 1.0
    metric = np.array(lattice.vectors)
    groups = _sites(fractions, metric, len(members))
    explained = sum(map(len, groups)) / len(places)
    if not groups or explained < _EXPLAINED:
        return None
    largest = max(map(len, groups))
    quarter = (places > np.median(places, axis=0)) @ np.array((1, 2))
    sites = [_site(fractions[group], heights[group], quarter[group], metric, largest) for group in groups]
    sites.sort(key=lambda site: -site.intensity)
    first = sites[0]
    determinant = float(np.linalg.det(edges))
    return Motif(
        a=lattice.a,
        b=lattice.b,
        gamma=lattice.gamma,
        a_error=lattice.a_error,
        b_error=lattice.b_error,
        gamma_error=lattice.gamma_error,
        calibration_error=lattice.calibration_error,
        unit=lattice.unit,
        lattice=lattice.lattice,
        sites=tuple(_moved(site, first) for site in sites),
        explained=explained,
        # y points down, so that a positive determinant turns clockwise and a x b into the picture.
        towards_viewer=determinant < 0,
    )


def _chosen(atoms: AtomTable, lattice: LatticeParameters) -> tuple[Array, Array]:
    """Return places (x, y) and heights of the columns of the fitted part, off the edges of the image."""
    left, top, width, height = lattice.box
    inside = ~atoms.edge
    if lattice.source == "regions":
        inside &= (atoms.x >= left) & (atoms.x < left + width) & (atoms.y >= top) & (atoms.y < top + height)
    places = np.stack([atoms.x, atoms.y], axis=1)[inside]
    heights = np.asarray(atoms.amplitude[inside], dtype=float)
    if len(places) > _MOST:
        near = np.argsort(((places - np.array(lattice.origin)) ** 2).sum(axis=1))[:_MOST]
        places, heights = places[near], heights[near]
    return places, heights


def _chain(places: Array, edges: Array) -> tuple[Integers, Integers]:
    """Return the largest set of columns that are joined by translations, and their cells (whole numbers)."""
    tree = cKDTree(places)
    reach = _STRAY * float(np.hypot(*edges.T).min())
    links: list[list[tuple[int, int, int]]] = [[] for _ in places]
    for step, edge in ((np.array((1, 0)), edges[0]), (np.array((0, 1)), edges[1])):
        distance, partner = tree.query(places + edge, distance_upper_bound=reach)
        for here in np.flatnonzero(np.isfinite(distance)).tolist():
            there = int(partner[here])
            links[here].append((there, int(step[0]), int(step[1])))
            links[there].append((here, -int(step[0]), -int(step[1])))
    best: dict[int, tuple[int, int]] = {}
    visited = np.zeros(len(places), dtype=bool)
    for start in range(len(places)):
        if visited[start]:
            continue
        found = {start: (0, 0)}
        visited[start] = True
        waiting = [start]
        while waiting:
            here = waiting.pop()
            h, k = found[here]
            for there, i, j in links[here]:
                if not visited[there]:
                    visited[there] = True
                    found[there] = (h + i, k + j)
                    waiting.append(there)
        if len(found) > len(best):
            best = found
    return np.array(list(best), dtype=np.int64), np.array(list(best.values()), dtype=np.int64)


def _surface(at: Array, values: Array, wanted: Array) -> Array:
    """Return a smooth surface through values at places, at other places; what strays counts less."""
    centre, scale = at.mean(axis=0), float(np.abs(at - at.mean(axis=0)).max()) or 1.0
    order = 3 if len(at) >= 60 else 1

    def terms(places: Array) -> Array:
        x, y = ((places - centre) / scale).T
        return np.stack([x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)], axis=1)

    basis, weights = terms(at), np.ones(len(at))
    for _ in range(3):
        root = np.sqrt(weights)[:, None]
        factors = np.linalg.lstsq(basis * root, values * root, rcond=None)[0]
        left = np.hypot(*(values - basis @ factors).T)
        weights = 1 / (1 + (left / max(2 * float(np.median(left)), 1e-9)) ** 2)
    return np.asarray(terms(wanted) @ factors)


def _sites(fractions: Array, metric: Array, most: int) -> list[Integers]:
    """Return the columns of each site: places in the cell that many columns share."""
    # No nearer than a part of the cell that the columns in it leave to each.
    per_cell = max(1.0, len(fractions) / most)
    reach = _NEAR * math.sqrt(abs(float(np.linalg.det(metric))) / per_cell)
    width = [_BINS * reach / 2 / float(length) for length in np.hypot(*metric.T)]
    bins = np.minimum((fractions * _BINS).astype(np.int64), _BINS - 1)
    free = np.ones(len(fractions), dtype=bool)
    groups: list[Integers] = []
    while free.any():
        counts = np.zeros((_BINS, _BINS))
        np.add.at(counts, tuple(bins[free].T), 1.0)
        density = ndimage.gaussian_filter(counts, width, mode="wrap")
        centre = (np.array(np.unravel_index(int(density.argmax()), density.shape)) + 0.5) / _BINS
        for _ in range(2):
            offsets = ((fractions - centre + 0.5) % 1.0 - 0.5) @ metric
            group = np.flatnonzero(free & (np.hypot(*offsets.T) <= reach))
            centre = _mean(fractions[group]) if len(group) else centre
        if len(group) < max(3, _SHARE * max(map(len, groups), default=most)):
            break
        groups.append(group)
        free[group] = False
    return groups


def _site(fractions: Array, heights: Array, quarter: Integers, metric: Array, largest: int) -> Site:
    mean = _mean(fractions)
    # Neighbours err together: what four parts of the image say tells more than the scatter of single columns.
    parts = [_mean(fractions[quarter == number]) for number in range(4) if (quarter == number).sum() > 2]
    strays = ((np.array(parts) - mean + 0.5) % 1.0 - 0.5) @ metric if len(parts) > 1 else np.zeros((1, 2))
    between = float(np.sqrt((strays**2).sum() / 2 / max(1, len(parts) - 1) / len(strays)))
    offsets = (fractions - mean + 0.5) % 1.0 - 0.5
    spread = float(np.sqrt(((offsets @ metric) ** 2).sum(axis=1).mean()))
    return Site(
        x=float(mean[0]),
        y=float(mean[1]),
        error=max(between, spread / math.sqrt(2 * len(fractions))),
        spread=spread,
        intensity=float(heights.mean()),
        intensity_spread=float(heights.std()),
        share=len(fractions) / largest,
        count=len(fractions),
    )


def _mean(fractions: Array) -> Array:
    """Return the mean of places on a torus."""
    turned = np.angle(np.exp(2j * np.pi * fractions).mean(axis=0)) / (2 * np.pi)
    offsets = (fractions - turned + 0.5) % 1.0 - 0.5
    return np.asarray((turned + offsets.mean(axis=0)) % 1.0)


def _moved(site: Site, first: Site) -> Site:
    x, y = (round((there - here) % 1.0, 9) % 1.0 for there, here in ((site.x, first.x), (site.y, first.y)))
    return Site(
        x=x,
        y=y,
        error=site.error,
        spread=site.spread,
        intensity=site.intensity / first.intensity,
        intensity_spread=site.intensity_spread / first.intensity,
        share=site.share,
        count=site.count,
    )
