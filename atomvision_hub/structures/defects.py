"""Point defects: made on a supercell with labelled positions, and found in one by its pristine lattice."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import ase
import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures.patches import flat
from atomvision_hub.structures.validity import complete_cell

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: Kinds of point defects in the order of their integers. Interstitials are found, never made.
KINDS: tuple[str, ...] = ("vacancy", "antisite", "substitution", "interstitial")
VACANCY, ANTISITE, SUBSTITUTION, INTERSTITIAL = range(4)

#: One defect: kind (integer of `KINDS`), place of the site (Å), atomic numbers before and after (0 for none),
#: index of the site in the pristine supercell (-1 for interstitials).
DEFECT_DTYPE = np.dtype(
    [
        ("kind", np.int8),
        ("x", np.float64),
        ("y", np.float64),
        ("z", np.float64),
        ("before", np.uint8),
        ("after", np.uint8),
        ("site", np.int32),
    ]
)
DefectTable = np.ndarray  # structured, of DEFECT_DTYPE

#: How many defects: a whole number, a share of the sites, or one of both for each element.
Amount = int | float | Mapping[str, int | float]

#: An element replaces another of its group whose covalent radius differs by at most this share: the rule of
#: W. Hume-Rothery et al., J. Inst. Met. 54, 209 (1934), who found 15 % for metals, a little wider, so that
#: bromine replaces chlorine.
RADIUS_RATIO = 0.2
# Rare gases and elements without stable isotopes replace nothing; nor does hydrogen.
_USUAL = tuple(n for n in range(3, 84) if n not in (10, 18, 36, 43, 54, 61))
_IMAGES = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=2)))
# Atoms tried as anchors when two crystals are laid on each other: most of them are not defects.
_ANCHORS = 12
# Cells may differ from a multiple of the pristine one by this share.
_STRAIN = 0.06


@dataclass(frozen=True)
class DefectiveCrystal:
    """A supercell with point defects and what was done to it.

    Attributes
    ----------
    atoms
        The supercell with its defects; vacant sites are left out.
    pristine
        The supercell without them.
    defects
        Table of `DEFECT_DTYPE`, sorted by site.
    sites
        For each of the atoms the index of its site in the pristine supercell, (n,).
    repeats
        How often the cell was repeated along its first two vectors.
    """

    atoms: ase.Atoms
    pristine: ase.Atoms
    defects: DefectTable
    sites: Integers
    repeats: tuple[int, int]

    def counts(self) -> dict[str, int]:
        """Return how many defects there are of each kind."""
        found = Counter(self.defects["kind"].tolist())
        return {name: found[kind] for kind, name in enumerate(KINDS) if found[kind]}


def add_defects(
    atoms: ase.Atoms,
    *,
    vacancies: Amount = 0,
    antisites: Amount = 0,
    substitutions: Amount = 0,
    dopants: Mapping[str, Sequence[str]] | None = None,
    repeats: tuple[int, int] = (1, 1),
    minimum_distance: float = 0.0,
    seed: int | np.random.Generator = 0,
) -> DefectiveCrystal:
    """Return a supercell with point defects at random sites.

    Parameters
    ----------
    atoms
        Any crystal; not changed. Nothing relaxes around the defects.
    vacancies, substitutions
        A whole number, a share of all sites (a float, rounded to whole defects), or a mapping such as
        ``{"S": 0.03}`` with numbers or shares for the sites of an element.
    antisites
        Two neighbours of different elements exchange their places, which makes two antisite defects and
        keeps the composition. A whole number counts such pairs; a share is that of the sites, two a pair; a
        mapping says of which elements the first of the two is.
    dopants
        Element of a site -> elements that may replace it. By default those of `dopants_of`.
    repeats
        How often the cell is repeated along its first two vectors before.
    minimum_distance
        No two defects are nearer than this in the xy plane (Å), but for the two of an exchange.
    seed
        Equal seeds give equal defects. A generator is used as it is.

    Raises
    ------
    UsageError
        When a number, an element or a distance makes no sense, or so many defects find no room.
    """
    if min(repeats) < 1:
        raise UsageError(f"repeats must be two whole numbers from 1, not {repeats}")
    if not (math.isfinite(minimum_distance) and minimum_distance >= 0):
        raise UsageError(f"minimum_distance must be a length in Å, not {minimum_distance!r}")
    generator = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    pristine = atoms.repeat((*repeats, 1))
    room = _Room(pristine, minimum_distance)
    before = pristine.numbers.copy()
    after, kinds = before.copy(), np.full(len(pristine), -1)
    for what, wanted in (
        ("antisites", antisites),
        ("substitutions", substitutions),
        ("vacancies", vacancies),
    ):
        for number, count in _counts(what, wanted, before):
            for _ in range(count):
                free = room.free() & (before == number if number else True)
                if what == "antisites":
                    first, second = room.exchange(free, before, generator)
                    after[[first, second]] = before[[second, first]]
                    kinds[[first, second]] = ANTISITE
                    room.take(first, second)
                    continue
                site = room.choose(free, what, generator)
                after[site] = (
                    0 if what == "vacancies" else _replacement(int(before[site]), dopants, generator)
                )
                kinds[site] = VACANCY if what == "vacancies" else SUBSTITUTION
                room.take(site)
    changed = np.flatnonzero(kinds >= 0)
    kept = np.flatnonzero(after)
    defective = pristine[kept]
    defective.numbers = after[kept]
    defective.info.update(atoms.info)
    return DefectiveCrystal(
        defective,
        pristine,
        _table(kinds[changed], pristine.positions[changed], before[changed], after[changed], changed),
        kept,
        (repeats[0], repeats[1]),
    )


def apply_defects(
    atoms: ase.Atoms, repeats: Sequence[int], defects: Mapping[str, Sequence[int]] | DefectTable
) -> ase.Atoms:
    """Return the supercell with defects that a table describes, such as that of a dataset row.

    Parameters
    ----------
    atoms
        The pristine crystal.
    repeats
        How often its cell is repeated along its first two vectors.
    defects
        Columns ``site``, ``before`` and ``after`` as of `DEFECT_DTYPE`.

    Raises
    ------
    CrystalError
        When a site does not exist or holds another element than the table says.
    """
    whole = atoms.repeat((int(repeats[0]), int(repeats[1]), 1))
    sites, before = np.asarray(defects["site"], dtype=np.int64), np.asarray(defects["before"])
    inside = (sites >= 0) & (sites < len(whole))
    if not inside.all() or (whole.numbers[sites] != before).any():
        raise CrystalError("the table of defects is not one of this crystal and supercell; give its own")
    whole.numbers[sites] = np.asarray(defects["after"])
    return whole[np.flatnonzero(whole.numbers)]


@cache
def dopants_of(number: int) -> tuple[int, ...]:
    """Return the elements that commonly replace another one, by atomic number.

    Those of its group whose covalent radius (B. Cordero et al., Dalton Trans. 2008, 2832,
    doi:10.1039/b801115j) differs by at most `RADIUS_RATIO`; where there is none, those of the neighbouring
    groups (boron and nitrogen for carbon); else the one with the nearest radius. Rare earths count as one
    group.
    """
    group, radius = _group(number), float(covalent_radii[number])
    others = [n for n in _USUAL if n != number]
    near = [n for n in others if abs(covalent_radii[n] - radius) <= RADIUS_RATIO * radius]
    alike = [n for n in near if _group(n) == group]
    beside = [n for n in near if abs(_group(n) - group) == 1]
    nearest = [min(others, key=lambda n: abs(covalent_radii[n] - radius))]
    return tuple(alike or beside or nearest)


def _group(number: int) -> int:
    """Return the group of the periodic table, 3 for lanthanides and actinides."""
    period_ends = (0, 2, 10, 18, 36, 54, 86, 118)
    period = next(k for k, last in enumerate(period_ends) if number <= last)
    place, length = number - period_ends[period - 1], period_ends[period] - period_ends[period - 1]
    if length == 2:
        return 1 if place == 1 else 18
    if place <= 2:
        return place
    if length == 32 and place <= 17:
        return 3
    return place + 18 - length


def _replacement(
    number: int, dopants: Mapping[str, Sequence[str]] | None, generator: np.random.Generator
) -> int:
    symbol = chemical_symbols[number]
    if dopants is None:
        choices: Sequence[int] = dopants_of(number)
    else:
        choices = [_number(name) for name in dopants.get(symbol, ())]
        if not choices or number in choices:
            raise UsageError(f"dopants names no other element for {symbol}; add one or leave its sites out")
    return int(choices[int(generator.integers(len(choices)))])


def _number(symbol: str) -> int:
    if symbol not in atomic_numbers or symbol == "X":
        raise UsageError(f"there is no element {symbol!r}")
    return int(atomic_numbers[symbol])


def _counts(what: str, amount: Amount, numbers: Integers) -> list[tuple[int, int]]:
    """Return pairs (atomic number of the sites, 0 for all; number of defects or exchanges)."""
    if not isinstance(amount, Mapping):
        return [(0, _count(what, amount, len(numbers)))]
    found = []
    for symbol, wanted in amount.items():
        number = _number(symbol)
        sites = int((numbers == number).sum())
        if not sites:
            raise UsageError(f"{what}: there is no {symbol} in the crystal")
        found.append((number, _count(what, wanted, sites)))
    return found


def _count(what: str, amount: float, sites: int) -> int:
    pair = 2 if what == "antisites" else 1
    if isinstance(amount, (int, np.integer)) and not isinstance(amount, bool):
        count = int(amount)
    elif isinstance(amount, (float, np.floating)) and 0 <= amount <= 1:
        count = round(float(amount) * sites / pair)
    else:
        raise UsageError(
            f"{what} must be a whole number or a share of the sites (0.0 to 1.0), not {amount!r}"
        )
    if not 0 <= count <= sites:
        raise UsageError(f"{what}: {count} of {sites} sites; ask for fewer")
    return count


class _Room:
    """Where in a supercell further defects fit."""

    def __init__(self, atoms: ase.Atoms, minimum_distance: float) -> None:
        self._atoms, self._distance = atoms, minimum_distance
        basis = complete_cell(atoms.cell.array, atoms.pbc)
        # As seen from above; a third vector that is tilted shifts nothing that a layer shows.
        self._cell = basis[:2, :2]
        self._images = (_IMAGES * atoms.pbc[:2].astype(float))[None] @ self._cell
        self._periodic = atoms.pbc[:2]
        self._inverse = np.linalg.inv(self._cell) if abs(np.linalg.det(self._cell)) > 0 else np.zeros((2, 2))
        self._free = np.ones(len(atoms), dtype=bool)

    def free(self) -> npt.NDArray[np.bool_]:
        """Return the sites that are not defects and far enough from all."""
        return self._free

    def choose(self, free: npt.NDArray[np.bool_], what: str, generator: np.random.Generator) -> int:
        """Return a random free site."""
        candidates = np.flatnonzero(free)
        if not len(candidates):
            raise UsageError(
                f"{what}: no site is left that is {self._distance:g} Å from all other defects; "
                "ask for fewer, or a larger supercell"
            )
        return int(candidates[generator.integers(len(candidates))])

    def exchange(
        self, free: npt.NDArray[np.bool_], numbers: Integers, generator: np.random.Generator
    ) -> tuple[int, int]:
        """Return a random free site and its nearest free neighbour of another element."""
        if len(np.unique(numbers)) < 2:
            raise UsageError("antisites need a crystal of at least two elements")
        first = self.choose(free, "antisites", generator)
        others = np.flatnonzero(self.free() & (numbers != numbers[first]))
        if not len(others):
            raise UsageError("antisites: no site of another element is left to exchange with; ask for fewer")
        distances = np.hypot(
            self._flat_distances(first)[others],
            self._atoms.positions[others, 2] - self._atoms.positions[first, 2],
        )
        nearest = np.flatnonzero(distances <= distances.min() + 0.1)
        return first, int(others[nearest[generator.integers(len(nearest))]])

    def take(self, *sites: int) -> None:
        """Note defects at these sites."""
        for site in sites:
            if self._distance > 0:
                self._free &= self._flat_distances(site) >= self._distance
            self._free[site] = False

    def _flat_distances(self, site: int) -> Floats:
        """Return the distances in the plane of all sites from the nearest image of one."""
        apart = self._atoms.positions[:, :2] - self._atoms.positions[site, :2]
        apart -= (np.rint(apart @ self._inverse) * self._periodic) @ self._cell
        squares: Floats = ((apart[:, None] + self._images) ** 2).sum(axis=-1).min(axis=1)
        return np.sqrt(squares)


def _table(
    kinds: Integers, positions: Floats, before: Integers, after: Integers, sites: Integers
) -> DefectTable:
    table = np.empty(len(kinds), dtype=DEFECT_DTYPE)
    table["kind"], table["site"] = kinds, sites
    table["before"], table["after"] = before, after
    for axis, name in enumerate("xyz"):
        table[name] = positions[:, axis]
    return table


def find_defects(
    defective: ase.Atoms, pristine: ase.Atoms, *, tolerance: float | None = None, align: bool = True
) -> DefectTable:
    """Return the point defects of a supercell, by comparing it with its pristine crystal.

    Every site of the pristine lattice is paired with the atom on it: none is a vacancy, one of another
    element of the crystal an antisite, one of a foreign element a substitution; an atom on no site is an
    interstitial.

    Parameters
    ----------
    defective
        Layer with defects, relaxed or not.
    pristine
        The crystal without them: its cell, or any supercell of it; the lattice may be strained by a few per
        cent against that of `defective`.
    tolerance
        Atoms may be off their site by this much, in Å. By default 0.45 of the shortest distance between two
        sites.
    align
        Look for the shift, turn or mirror image by which the two fit best. Otherwise both are taken to share
        axes and origin.

    Returns
    -------
    numpy.ndarray
        Table of `DEFECT_DTYPE`, sorted by site, interstitials last; places are those of the sites,
        within the cell, in the frame of ``flat_layer(defective)``, which differs from that of a layer in the
        xy plane by a shift along z alone. Sites count through the cells of `pristine` along its second
        vector first, as ``pristine.repeat`` does.

    Raises
    ------
    CrystalError
        When the cell is no multiple of the pristine one, or fewer than half of the sites are taken.
    """
    found, ideal = flat(defective), flat(pristine)
    cell = found.cell.array[:2, :2]
    matrix = _multiple(cell, ideal.cell.array[:2, :2])
    fractions = ideal.positions[:, :2] @ np.linalg.inv(ideal.cell.array[:2, :2])
    sites = _Sites(cell, matrix, ideal)
    if tolerance is None:
        tolerance = 0.45 * sites.shortest(fractions)
    places = sites.places(fractions, ideal.positions[:, 2])
    if align:
        places = _aligned(found, sites, fractions, ideal.positions[:, 2], tolerance)
    places[:, :2] = (places[:, :2] @ np.linalg.inv(cell) % 1.0) @ cell
    partner, taken = _pairs(cell, places, found.positions, tolerance)
    if (partner >= 0).sum() < len(places) / 2:
        raise CrystalError(
            f"only {(partner >= 0).sum()} of {len(places)} sites are taken within {tolerance:.2f} Å; "
            "give the pristine crystal of this structure"
        )
    before = sites.numbers
    after = np.where(partner >= 0, found.numbers[partner], 0)
    changed = np.flatnonzero(after != before)
    known = set(ideal.numbers.tolist())
    kinds = np.array(
        [VACANCY if n == 0 else ANTISITE if n in known else SUBSTITUTION for n in after[changed].tolist()],
        dtype=np.int64,
    )
    table = _table(kinds, places[changed], before[changed], after[changed], changed)
    extra = np.flatnonzero(~taken)
    none = np.zeros(len(extra), dtype=np.int64)
    added = _table(none + INTERSTITIAL, found.positions[extra], none, found.numbers[extra], none - 1)
    return np.concatenate((table, added))


def _multiple(cell: Floats, unit: Floats) -> Integers:
    """Return the integer matrix that makes the supercell from the unit cell, rows of vectors both."""
    matrix = np.rint(cell @ np.linalg.inv(unit))
    misfit = np.linalg.norm(matrix @ unit - cell, axis=1) / np.linalg.norm(cell, axis=1)
    if abs(np.linalg.det(matrix)) < 0.5 or misfit.max() > _STRAIN:
        raise CrystalError(
            f"the cell is no multiple of the pristine one (off by {100 * misfit.max():.1f} %); "
            "give the pristine crystal of this structure, in the same orientation"
        )
    return np.asarray(matrix, dtype=np.int64)


class _Sites:
    """The sites of a pristine crystal in the cell of a defective one."""

    def __init__(self, cell: Floats, matrix: Integers, ideal: ase.Atoms) -> None:
        self._cell, self._inverse = cell, np.linalg.inv(matrix)
        self.unit = self._inverse @ cell
        corners = np.array([(0, 0), matrix[0], matrix[1], matrix[0] + matrix[1]])
        low, high = corners.min(axis=0), corners.max(axis=0)
        grid = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1].reshape(2, -1).T
        inside = grid @ self._inverse
        self._cells = grid[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
        self.numbers = np.tile(ideal.numbers, len(self._cells))
        self._ideal = ideal

    def places(self, fractions: Floats, heights: Floats) -> Floats:
        """Return the Cartesian places of all sites, cell by cell, (n, 3)."""
        flat_places = (self._cells[:, None, :] + fractions).reshape(-1, 2) @ self.unit
        return np.column_stack((flat_places, np.tile(heights, len(self._cells))))

    def shortest(self, fractions: Floats) -> float:
        """Return the shortest distance between two sites."""
        places = np.column_stack((fractions @ self.unit, self._ideal.positions[:, 2]))
        cloud = (places[:, None] + np.pad(_IMAGES @ self.unit, ((0, 0), (0, 1)))).reshape(-1, 3)
        distances = np.linalg.norm(places[:, None] - cloud, axis=-1)
        return float(distances[distances > 1e-6].min())

    def symmetries(self) -> list[Integers]:
        """Return the integer matrices that turn or mirror the pristine lattice onto itself, in fractions."""
        metric = self.unit @ self.unit.T
        kept = []
        for entries in itertools.product((-1, 0, 1), repeat=4):
            matrix = np.array(entries).reshape(2, 2)
            if abs(round(float(np.linalg.det(matrix)))) == 1:
                image = matrix @ metric @ matrix.T
                if np.abs(image - metric).max() <= 2 * _STRAIN * metric.max():
                    kept.append(matrix)
        # The identity first: it wins where several fit equally well.
        return sorted(kept, key=lambda matrix: bool((matrix != np.eye(2)).any()))


def _aligned(found: ase.Atoms, sites: _Sites, fractions: Floats, heights: Floats, tolerance: float) -> Floats:
    """Return where the sites fit the atoms best, of all shifts, turns and mirror images."""
    unit_numbers = sites.numbers[: len(fractions)]
    shared = {n: c for n, c in Counter(unit_numbers.tolist()).items() if (found.numbers == n).any()}
    if not shared:
        raise CrystalError("the two crystals share no element; give the pristine crystal of this structure")
    rarest = min(shared, key=lambda n: (shared[n], n))
    atoms = np.flatnonzero(found.numbers == rarest)
    anchors = found.positions[atoms[np.linspace(0, len(atoms) - 1, min(_ANCHORS, len(atoms))).astype(int)]]
    cell = found.cell.array[:2, :2]
    inverse = np.linalg.inv(cell)
    counts, needed = Counter(found.numbers.tolist()), Counter(sites.numbers.tolist())
    # No placement puts more atoms on sites of their element.
    most = sum(min(counts[n], needed[n]) for n in needed)
    best, chosen = 0, sites.places(fractions, heights)
    members = np.flatnonzero(unit_numbers == rarest).tolist()
    for matrix, flip in itertools.product(sites.symmetries(), (1.0, -1.0)):
        places = sites.places(fractions @ matrix, flip * heights)
        for member, anchor in itertools.product(members, anchors):
            moved = places + (anchor - places[member])
            right = 0
            for _ in range(2):
                partner, _taken = _pairs(cell, moved, found.positions, tolerance)
                same = (partner >= 0) & (found.numbers[partner] == sites.numbers)
                right = int(same.sum())
                if right <= best:
                    break
                offset = found.positions[partner[same]] - moved[same]
                offset[:, :2] -= np.rint(offset[:, :2] @ inverse) @ cell
                # The median: atoms near a defect are off their sites.
                moved = moved + np.median(offset, axis=0)
            if right > best:
                best, chosen = right, moved
            if best == most:
                return chosen
    return chosen


def _pairs(
    cell: Floats, places: Floats, positions: Floats, tolerance: float
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return for each site its atom, -1 for none, and for each atom whether it lies on a site.

    A site and an atom are a pair when each is the other's nearest and they are within the tolerance.
    """
    from scipy.spatial import cKDTree

    inverse = np.linalg.inv(cell)

    def wrapped(points: Floats) -> Floats:
        inside = points.copy()
        inside[:, :2] = (points[:, :2] @ inverse % 1.0) @ cell
        return inside

    def nearest(targets: Floats, queries: Floats) -> tuple[Floats, Integers]:
        images = np.pad(_IMAGES @ cell, ((0, 0), (0, 1)))
        cloud = (targets[None] + images[:, None]).reshape(-1, 3)
        middle = np.append(cell.sum(axis=0) / 2, 0.0)
        reach = np.linalg.norm(np.abs(cell).sum(axis=0)) / 2 + tolerance + 1e-6
        near = np.flatnonzero(((cloud - middle)[:, :2] ** 2).sum(axis=1) <= reach**2)
        distances, index = cKDTree(cloud[near]).query(queries)
        return distances, near[index] % len(targets)

    sites, atoms = wrapped(places), wrapped(positions)
    distance, atom_of = nearest(atoms, sites)
    site_of = nearest(sites, atoms)[1]
    paired = (distance <= tolerance) & (site_of[atom_of] == np.arange(len(sites)))
    taken = np.zeros(len(atoms), dtype=bool)
    taken[atom_of[paired]] = True
    return np.where(paired, atom_of, -1), taken
