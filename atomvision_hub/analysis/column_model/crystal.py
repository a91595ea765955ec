"""Columns on the sites of a lattice: places shared by all cells, heights of their own where they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from atomvision_hub.analysis.column_model.motif import PENALTY, Motif
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.profiles import Profiles, in_image
from atomvision_hub.analysis.column_model.structure_factors import structure_factors

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: What a column of another height than its site's costs, as chi-squared: two numbers and which column it is.
CHANGE = 15.0

_FINEST = 0.75  # finest wave, in cycles per width: there the profile has fallen to 1.5e-5
_MOST_COLUMNS, _MOST_SITES = 1500, 72
_ROUNDS = 3
_ALIKE = 0.01  # relative spread of heights of columns on one site
_FIRST = 0.3  # the same, before it is known which columns differ
_CLIPS = 3  # how often columns of negative height are taken out
_FAINT = 0.02  # heights below this part of the highest site's spread as if they had it
_DIFFERENT = 0.05  # relative change, beside 1.7 times the noise, from which a column counts as changed
_STRAY = 0.6  # widths that a site may move in one step
_HOPELESS = 6.0  # residual over noise at which a cell with many changed columns is given up
_CHANGED = 0.3  # share of the columns that counts as many


@dataclass(frozen=True)
class CrystalFit:
    """Columns of a crystal fitted to an image.

    Parameters
    ----------
    basis
        Of the lattice, rows (x, y) in pixels.
    sites, site_heights
        Places in one cell, (n, 2), px, and their usual heights, (n,), grey levels.
    places, site, heights
        Of every column, also just outside the image: (m, 2), (m,), (m,).
    errors
        Standard errors of the heights.
    ground
        Grey level under the columns.
    left
        The image less all of it.
    ratio
        Root mean square of `left` over the noise.
    changed
        Columns in the image whose height is another than their site's.
    inside
        Columns in the image.
    cost
        Description length: chi-squared beyond that of noise, plus `CHANGE` for each changed column and the
        penalty for each site.
    freedom
        By how much chi-squared falls by chance, as every column has a height of its own.
    """

    basis: Array
    sites: Array
    site_heights: Array
    places: Array
    site: Integers
    heights: Array
    errors: Array = field(repr=False)
    ground: float
    left: Array = field(repr=False)
    ratio: float
    changed: int
    inside: int
    cost: float
    freedom: float

    @property
    def usual(self) -> Array:
        """The usual height of every column's site, (m,)."""
        return np.asarray(self.site_heights[self.site])


def fit_crystal(
    image: Array,
    basis: Array,
    probe: Probe,
    noise: float,
    columns: tuple[Array, Array] | None = None,
) -> CrystalFit | None:
    """Return the columns on a lattice that explain an image, None where there are too many or none.

    The cell's columns come from structure factors (`Motif`). Then every column gets a height of its own, held
    to the others of its site unless it clearly differs (a Student-like prior, by reweighting): vacancies and
    foreign atoms. Then sites and lattice are moved on the image itself, and the changed columns are taken off
    the image for the next round of structure factors.

    Parameters
    ----------
    image
        Grey levels [row, column].
    basis
        Rows (x, y) in pixels, right to a pixel or so over the image.
    probe
        Profile of a column.
    noise
        Standard deviation of a pixel.
    columns
        To begin with: places in a cell (x, y), px, (n, 2), and grey levels, (n,).
    """
    shape = (image.shape[0], image.shape[1])
    start = columns
    perfect, penalty = image, PENALTY
    found: CrystalFit | None = None
    for number in range(_ROUNDS):
        motif = Motif(structure_factors(perfect, basis, _FINEST / probe.narrowest, noise), probe)
        if number == 0 and start is not None:
            motif.settle(*start)
            penalty = _penalty(motif)
        motif.fit(penalty, start)
        sites, site_heights = _centred(motif.places, basis, shape), motif.heights
        if not 0 < len(sites) <= _MOST_SITES or not site_heights.any():
            return found
        for step in range(3):
            places, site, cells = _in_view(sites, basis, shape, probe.reach)
            if not 0 < len(places) <= _MOST_COLUMNS:
                return found
            profiles = Profiles(places, probe, shape)
            fitted = _heights(image, profiles, site, site_heights, noise, rounds=4 if step < 2 else 6)
            site_heights = fitted.usual
            if step == 2:
                break
            moved, change = _moves(profiles, fitted, site, cells, len(sites))
            if np.abs(moved).max() < _STRAY * probe.width:
                sites, basis = sites + moved, basis + change
        usual = site_heights[site]
        inside = in_image(places, shape)
        differs = np.abs(fitted.heights - usual) > _DIFFERENT * usual + 1.7 * noise
        changed, ratio = int((differs & inside).sum()), float(np.sqrt((fitted.left**2).mean())) / noise
        found = CrystalFit(
            basis=basis,
            sites=sites,
            site_heights=site_heights,
            places=places,
            site=site,
            heights=fitted.heights,
            errors=fitted.errors,
            ground=fitted.ground,
            left=fitted.left,
            ratio=ratio,
            changed=changed,
            inside=int(inside.sum()),
            cost=(ratio**2 - 1) * image.size + CHANGE * changed + PENALTY * len(sites),
            freedom=_by_chance(fitted, places, probe, noise),
        )
        if ratio > _HOPELESS and changed > _CHANGED * found.inside:
            break
        perfect = image - profiles.image(fitted.heights - usual)
        penalty = _penalty(motif)
        start = (sites, site_heights)
    return found


def _by_chance(fitted: _Heights, places: Array, probe: Probe, noise: float) -> float:
    """Return by how much heights of their own lower chi-squared by chance: more where noise is stronger."""
    squares = fitted.left**2
    around = Profiles(
        places, Probe.gaussian(probe.width / math.sqrt(2)), (squares.shape[0], squares.shape[1])
    )
    seen = around.sums()
    variance = around.seen(squares) / np.maximum(seen, 1e-3 * seen.max())
    return float((fitted.freedom * variance).sum()) / noise**2


def _penalty(motif: Motif) -> float:
    """Return what a column must explain: more, where structure factors miss by more than noise."""
    return PENALTY * max(1.0, motif.misfit / motif.freedom)


def _centred(places: Array, basis: Array, shape: tuple[int, int]) -> Array:
    """Return sites in the cell around the middle of the image: there their cell has the number 0."""
    middle = (np.array(shape[::-1]) - 1) / 2
    return np.asarray(places - np.rint((places - middle) @ np.linalg.inv(basis)) @ basis)


def _in_view(
    sites: Array, basis: Array, shape: tuple[int, int], margin: float
) -> tuple[Array, Integers, Array]:
    """Return all columns in and around the image: places, sites, numbers of their cells."""
    size = np.array(shape[::-1])
    corners = np.array([(x, y) for x in (-1, 1) for y in (-1, 1)]) * (size / 2 + margin)
    reach = np.ceil(np.abs(corners @ np.linalg.inv(basis)).max(0)).astype(int) + 1
    if (2 * reach + 1).prod() * len(sites) > 50 * _MOST_COLUMNS:
        return np.empty((0, 2)), np.empty(0, dtype=np.int64), np.empty((0, 2))
    cells = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1].reshape(2, -1).T
    places = (sites[:, None] + cells @ basis).reshape(-1, 2)
    near = ((places > -0.5 - margin) & (places < size - 0.5 + margin)).all(1)
    site = np.repeat(np.arange(len(sites)), len(cells))
    return places[near], site[near], np.tile(cells, (len(sites), 1))[near].astype(np.float64)


@dataclass(frozen=True)
class _Heights:
    heights: Array
    errors: Array
    usual: Array
    ground: float
    left: Array
    freedom: Array


def _heights(
    image: Array, profiles: Profiles, site: Integers, usual: Array, noise: float, rounds: int
) -> _Heights:
    """Return heights that explain the image, near their site's unless they clearly differ.

    Least squares with a weight on the difference from the site's median that falls with its square: the
    reweighted form of a prior with heavy tails.
    """
    count = len(site)
    overlaps, sums = profiles.overlaps() / noise**2, profiles.sums() / noise**2
    seen, total = profiles.seen(image) / noise**2, float(image.sum()) / noise**2
    pixels = image.size / noise**2
    expected = usual[site]
    scale = np.maximum(expected, _FAINT * usual.max())
    spread = _FIRST * scale
    order = np.argsort(site, kind="stable")
    ends = np.searchsorted(site[order], np.arange(len(usual) + 1))
    usual = usual.copy()
    for _ in range(rounds):
        weight = 1 / spread**2
        free = np.ones(count, dtype=bool)
        for _ in range(_CLIPS):
            n = int(free.sum())
            normal = np.empty((n + 1, n + 1))
            normal[:n, :n] = overlaps[np.ix_(free, free)]
            normal[np.arange(n), np.arange(n)] += weight[free]
            normal[:n, n] = normal[n, :n] = sums[free]
            normal[n, n] = pixels
            right = np.append(seen[free] + (weight * expected)[free], total)
            factor = cho_factor(normal, check_finite=False)
            solution = cho_solve(factor, right, check_finite=False)
            heights, ground = np.zeros(count), float(solution[n])
            heights[free] = solution[:n]
            solved = free
            if (heights >= 0).all():
                break
            free = free & (heights >= 0)
            heights = np.maximum(heights, 0)
        for number in range(len(usual)):
            members = order[ends[number] : ends[number + 1]]
            if len(members):
                usual[number] = np.median(heights[members])
        expected = usual[site]
        spread = np.sqrt((_ALIKE * scale) ** 2 + (heights - expected) ** 2)
    errors = np.zeros(count)
    inverse = cho_solve(factor, np.eye(n + 1), check_finite=False)
    errors[solved] = np.sqrt(np.diag(inverse)[:n].clip(0))
    freedom = np.where(solved, 1 - weight * errors**2, 0)
    return _Heights(heights, errors, usual, ground, image - profiles.image(heights) - ground, freedom)


def _moves(
    profiles: Profiles, fitted: _Heights, site: Integers, cells: Array, sites: int
) -> tuple[Array, Array]:
    """Return one Gauss-Newton step of sites and lattice, with the heights of sites as further unknowns."""
    heights = fitted.heights
    along, down = profiles.pulled(fitted.left)
    own = np.zeros((len(site), sites))
    own[np.arange(len(site)), site] = 1
    # A column moves with its site, and with the lattice as many times as its cell's numbers say.
    with_lattice = np.concatenate([own, cells], axis=1)
    one, by_x, by_y, xx, xy, yy = profiles.moments()
    both = heights[:, None] * heights
    blocks = [
        [own.T @ one @ own, own.T @ (by_x * heights) @ with_lattice, own.T @ (by_y * heights) @ with_lattice],
        [with_lattice.T @ (xx * both) @ with_lattice, with_lattice.T @ (xy * both) @ with_lattice],
        [with_lattice.T @ (yy * both) @ with_lattice],
    ]
    normal = np.block(
        [
            blocks[0],
            [blocks[0][1].T, *blocks[1]],
            [blocks[0][2].T, blocks[1][1].T, *blocks[2]],
        ]
    )
    gradient = np.concatenate(
        [
            own.T @ profiles.seen(fitted.left),
            with_lattice.T @ (heights * along),
            with_lattice.T @ (heights * down),
        ]
    )
    size = np.diag(normal).copy()
    normal[np.diag_indices_from(normal)] += 1e-3 * size + 1e-9 * size.max()
    step = np.linalg.solve(normal, gradient)[sites:].reshape(2, -1).T
    return step[:sites], step[sites:]
