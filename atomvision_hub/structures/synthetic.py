"""Random crystals of all layer groups, balanced over the five lattices: the source ``synthetic:N``.

Crystal number i is drawn from (seed, i) alone: it is the same for every N, order and process. Its projected
lattice is class i mod 5, and the layer groups that can show a class take turns. Each is verified by
`classify_lattice` and drawn again where symmetry came out higher by chance.

Real lattices are often nearly more symmetric than they are; to learn from such cases, a share of the crystals
is made *pseudo-symmetric*, in two ways:

* metric: cell lengths and angle lie a given distance (Å) from a more symmetric class;
* superlattice: a crystal with a smaller cell, distorted by small displacements of its atoms that only the
  larger cell repeats, as a charge-density wave does.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache, lru_cache
from typing import Any

import ase
import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers, covalent_radii

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures.classify import lattice_fits
from atomvision_hub.structures.formula import reduced_formula
from atomvision_hub.structures.lattice import (
    CENTERED,
    HEXAGONAL,
    OBLIQUE,
    RECTANGULAR,
    SQUARE,
    bravais_class,
)
from atomvision_hub.structures.layer import flat_layer
from atomvision_hub.structures.layer_groups import COUNT, LayerGroup, layer_group, tables_version
from atomvision_hub.structures.record import LATTICES
from atomvision_hub.structures.sources import SourceInfo
from atomvision_hub.structures.validity import check_crystal

Floats = npt.NDArray[np.float64]

#: Changes whenever the same (seed, index) would give another crystal.
RECIPE = 1
#: Empty height (Å) of the cells beyond the thickness of the layer.
VACUUM = 20.0
#: Thickest layer in Å; a tenth of the layers is one atom thick.
THICKNESS = 7.0
#: Largest area an atom, in squares of the mean covalent radius (graphene: 4.5; 95 % of 2DMatPedia: up to
#: 4.8).
SPARSEST = 5.5
#: Longest vector (Å) of the reduced cell: a common field of view shows two periods.
LONGEST = 14.0
#: Atoms of a conventional cell, unless the group needs more.
MOST_ATOMS = 16
#: Bonds, as multiples of the sum of covalent radii: the shortest of a crystal is drawn from this range ...
BONDS = (0.9, 1.05)
#: ... and every atom has a neighbour at least this near, as `flat_layer` asks of one layer.
FARTHEST = 1.35
#: Distortions after the bonds were set may shorten one to this.
SHORTEST = 0.85

_CATIONS = (
    "Li Na K Mg Ca Sr Ba Al Ga In Sc Y La Ti Zr Hf V Nb Ta Cr Mo W Mn Re Fe Ru Co Rh Ni Pd Pt Cu Ag Zn Cd "
    "Ge Sn Pb Sb Bi"
)
_ANIONS = "O S Se Te F Cl Br I N P As C B Si"
_ELEMENTS = "B C Si Ge Sn P As Sb Bi Te"
_CATION, _ANION, _ELEMENT = (
    np.array([atomic_numbers[symbol] for symbol in symbols.split()])
    for symbols in (_CATIONS, _ANIONS, _ELEMENTS)
)
# Crystals of one, two and three elements, about as in 2DMatPedia.
_SPECIES = (0.1, 0.5, 0.4)
_MORE_SYMMETRIC = {
    HEXAGONAL: (),
    SQUARE: (),
    RECTANGULAR: (HEXAGONAL, SQUARE),
    CENTERED: (HEXAGONAL, SQUARE),
    OBLIQUE: (HEXAGONAL, SQUARE, RECTANGULAR, CENTERED),
}
_CITATION = (
    "AtomVision Hub; layer groups from PyXtal, S. Fredericks et al., Comput. Phys. Commun. 261, 107810 "
    "(2021), doi:10.1016/j.cpc.2020.107810"
)
_LICENCE = "CC0-1.0 (drawn at random)"
# Positions drawn at once, of which the densest packing is kept.
_DRAWS = 48
_ATTEMPTS = 2000
_IMAGES = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=2)))
_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """How random crystals are drawn.

    Parameters
    ----------
    seed
        Of all crystals.
    pseudo
        Share of pseudo-symmetric crystals, 0 to 1.
    margin
        Pseudo-symmetric cells lie between `margin` and twice as far (Å, as `classify_lattice` measures it)
        from a more symmetric class; all other crystals lie farther away. Above the tolerance of the labels,
        0.05 Å.
    displacement
        Atoms of pseudo-symmetric superlattices are moved in the plane by between `displacement` and twice
        as much, in Å.
    """

    seed: int = 0
    pseudo: float = 0.25
    margin: float = 0.1
    displacement: float = 0.1

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("seed", self.seed, 0, 2**63 - 1),
            ("pseudo", self.pseudo, 0.0, 1.0),
            ("margin", self.margin, 0.06, 0.2),
            ("displacement", self.displacement, 0.06, 0.2),
        ):
            if not low <= value <= high:
                raise UsageError(f"synthetic crystals: {name} must be between {low} and {high}, not {value}")


class SyntheticSource:
    """The crystals 0 to N - 1 of `synthetic_crystal`, each made when it is asked for.

    Parameters
    ----------
    text
        What follows ``synthetic:`` in the name of the source: ``"500"``, or with options
        ``"500,seed=3,pseudo=0.5,margin=0.1,displacement=0.1"``.
    """

    name = "synthetic"

    def __init__(self, text: str) -> None:
        self._count, self._options = _parse(text)
        self._version = f"recipe {RECIPE}, {tables_version()}, " + ", ".join(
            f"{key} {value}" for key, value in asdict(self._options).items()
        )
        self._indices = {f"synth-{self._options.seed}-{index}": index for index in range(self._count)}
        self.ids = tuple(self._indices)
        self._formulas: dict[str, str] = {}
        # A build looks at a crystal several times in a row.
        self._make = lru_cache(maxsize=64)(lambda index: synthetic_crystal(index, self._options))

    def info(self) -> SourceInfo:
        """Return what the crystals are and how they were drawn."""
        citation, licence = self.provenance("")
        return SourceInfo(
            self.name,
            "random crystals of the 80 layer groups, balanced over the five lattices; no real materials",
            citation,
            licence,
            "https://github.com/MaterSim/PyXtal",
            self._version,
        )

    def provenance(self, source_id: str) -> tuple[str, str]:
        """Return what to cite for the tables of layer groups."""
        return _CITATION, _LICENCE

    def formula(self, source_id: str) -> str:
        """Return the reduced formula; the crystal is made."""
        if source_id not in self._formulas:
            self._formulas[source_id] = reduced_formula(self._make(self._indices[source_id]).numbers.tolist())
        return self._formulas[source_id]

    def atoms(self, source_id: str) -> ase.Atoms:
        """Make one crystal."""
        return self._make(self._indices[source_id]).copy()


def _parse(text: str) -> tuple[int, SyntheticOptions]:
    usage = "write synthetic:N or synthetic:N,seed=0,pseudo=0.25,margin=0.1,displacement=0.1"
    number, *pairs = text.split(",")
    types: dict[str, Callable[[str], float]] = {
        field.name: int if field.name == "seed" else float for field in fields(SyntheticOptions)
    }
    values: dict[str, Any] = {}
    try:
        count = int(number)
        for pair in pairs:
            key, _, value = pair.partition("=")
            values[key] = types[key.strip()](value)
    except (ValueError, KeyError):
        raise UsageError(f"source 'synthetic:{text}' is not understood; {usage}") from None
    if not 1 <= count <= _LARGEST:
        raise UsageError(f"source 'synthetic:{text}': N must be between 1 and {_LARGEST:,}; {usage}")
    return count, SyntheticOptions(**values)


def synthetic_crystal(index: int, options: SyntheticOptions | None = None) -> ase.Atoms:
    """Return one random crystal.

    Parameters
    ----------
    index
        Which one, from 0; its projected lattice is ``LATTICES[index % 5]``.
    options
        Seed, share and strength of pseudo-symmetry.

    Returns
    -------
    ase.Atoms
        Flat layer, periodic along its first two vectors. ``info`` holds `layer_group` (number of the drawn
        group, that of the undistorted crystal for superlattices) and `pseudosymmetry` (``""``, ``"metric"``
        or ``"superlattice"``).

    Raises
    ------
    MissingExtraError
        When PyXtal is not installed.
    """
    options = options or SyntheticOptions()
    label = index % len(LATTICES)
    digest = hashlib.blake2b(f"synthetic {RECIPE}:{options.seed}:{index}".encode(), digest_size=16).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    groups = groups_of(label)
    group = layer_group(groups[index // len(LATTICES) % len(groups)])
    kind = ""
    if generator.random() < options.pseudo:
        kind = "metric" if _MORE_SYMMETRIC[label] and generator.random() < 0.5 else "superlattice"
    for _ in range(_ATTEMPTS):
        if kind == "superlattice":
            drawn = _superlattice(label, options, generator)
        else:
            drawn = _crystal(group, label, kind, options, generator)
        if drawn is not None:
            return drawn
    raise CrystalError(
        f"synthetic crystal {index} of seed {options.seed} cannot be drawn; choose other options"
    )


@cache
def groups_of(label: int) -> tuple[int, ...]:
    """Return the numbers of the layer groups whose crystals show a lattice class when seen along z.

    A glide plane in the layer makes the projected lattice finer than that of the crystal, and so may move a
    group to another class: seen from above, pmmn is centred.
    """
    found = []
    for number in range(1, COUNT + 1):
        group = layer_group(number)
        # Odd numbers, so that nothing but the group makes the lattice symmetric.
        cell = {
            "oblique": np.array([[3.1, 0.0], [-1.09, 4.37]]),
            "rectangular": np.diag([3.1, 4.37]),
            "square": np.diag([3.1, 3.1]),
            "hexagonal": 3.1 * _HEXAGONAL_CELL,
        }[group.system]
        if bravais_class(group.projected_basis @ cell, 1e-6).label == label:
            found.append(number)
    return tuple(found)


_HEXAGONAL_CELL = np.array([[1.0, 0.0], [-0.5, math.sqrt(0.75)]])


def _crystal(
    group: LayerGroup, label: int, kind: str, options: SyntheticOptions, generator: np.random.Generator
) -> ase.Atoms | None:
    """Return a crystal of a group whose projected lattice has a class, or ``None`` when the draw failed."""
    shape = _near_shape(group, label, generator) if kind == "metric" else _shape(group, generator)
    packed = _packed(group, shape, generator)
    if packed is None:
        return None
    numbers, fractions, scale = packed
    cell = scale * shape
    more = _MORE_SYMMETRIC[label]
    if kind == "metric":
        wanted = options.margin * generator.uniform(1.0, 2.0)
        distorted = _distorted(cell, group, more, wanted, generator)
        if distorted is None:
            return None
        cell = distorted
    fit = bravais_class(group.projected_basis @ cell)
    if np.linalg.norm(fit.cell.reduced[1]) > LONGEST:
        return None
    if more and not kind and min(fit.distances[other] for other in more) < 2 * options.margin:
        return None
    atoms = _atoms(numbers, fractions, cell)
    if not _sound(atoms):
        return None
    area = abs(np.linalg.det(group.projected_basis @ cell))
    if not _shows(atoms, label, area):
        return None
    atoms.info.update(layer_group=group.number, pseudosymmetry=kind)
    return atoms


def _shape(group: LayerGroup, generator: np.random.Generator) -> Floats:
    """Return the in-plane vectors of a random cell that the group allows, the first of length one."""
    if group.system == "hexagonal":
        return _HEXAGONAL_CELL
    if group.system == "square":
        return np.eye(2)
    ratio = float(np.exp(generator.uniform(0.0, np.log(2.5))))
    if group.system == "rectangular":
        return np.diag([1.0, ratio if generator.random() < 0.5 else 1 / ratio])
    # Two shortest vectors: the second leans by up to half the first.
    lean = generator.uniform(-0.5, 0.0)
    projected = np.array([[1.0, 0.0], [lean, math.sqrt(max(ratio**2 - lean**2, 0.75))]])
    return np.asarray(np.linalg.inv(group.projected_basis) @ projected)


def _near_shape(group: LayerGroup, label: int, generator: np.random.Generator) -> Floats:
    """Return a cell that the group allows and that makes the projected lattice more symmetric."""
    basis = group.projected_basis
    if label == OBLIQUE:
        ratio = float(generator.uniform(1.1, 2.0))
        near = (
            _HEXAGONAL_CELL,
            np.eye(2),
            np.diag([1.0, ratio]),
            np.array([[0.5, 0.5 * ratio], [-0.5, 0.5 * ratio]]),
        )
        return np.asarray(np.linalg.inv(basis) @ near[generator.integers(4)])
    if label == RECTANGULAR:
        return np.diag([1.0, basis[0, 0] / basis[1, 1]])
    ratios = (1.0, math.sqrt(3.0), 1 / math.sqrt(3.0))
    return np.diag([1.0, ratios[generator.integers(3)]])


def _distorted(
    cell: Floats,
    group: LayerGroup,
    more: tuple[int, ...],
    wanted: float,
    generator: np.random.Generator,
) -> Floats | None:
    """Return a cell strained as the group allows until its nearest more symmetric class is so far (Å)."""
    sign = 1.0 if generator.random() < 0.5 else -1.0
    if group.system == "rectangular":
        tensor = np.diag([0.0, sign])
    else:
        x, y, shear = generator.uniform(-1.0, 1.0, 3)
        tensor = np.array([[x, shear], [shear, y]])

    def far(amount: float) -> float:
        strained = group.projected_basis @ cell @ (np.eye(2) + amount * tensor)
        distances = bravais_class(strained).distances
        return min(distances[other] for other in more)

    low = high = 0.0
    while far(high) < wanted:
        low, high = high, high + 0.01
        if high > 0.2:
            return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if far(middle) < wanted else (low, middle)
    return np.asarray(cell @ (np.eye(2) + high * tensor))


def _packed(
    group: LayerGroup, shape: Floats, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], Floats, float] | None:
    """Return elements, positions (two fractions, height in Å) and the scale of `shape` in Å, or ``None``.

    Sites and elements are drawn once, positions several times; each draw is scaled until its shortest bond
    is as long as it should be, and the smallest cell is kept in which every atom is bonded.
    """
    sites = _sites(group, generator)
    if sites is None:
        return None
    numbers = np.concatenate([np.full(group.orbits[orbit].multiplicity, element) for orbit, element in sites])
    thickness = 0.0 if generator.random() < 0.1 else generator.uniform(1.0, THICKNESS)
    points = generator.uniform(size=(len(sites), _DRAWS, 3))
    points[..., 2] = (points[..., 2] - 0.5) * thickness
    fractions = np.concatenate(
        [group.orbits[orbit].place(at) for (orbit, _), at in zip(sites, points, strict=True)], axis=1
    )
    fractions[..., :2] %= 1.0
    radii = covalent_radii[numbers]
    bond = float(generator.uniform(*BONDS))
    squares, heights = _separations(fractions, shape)
    sums = radii[:, None] + radii
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = ((bond * sums) ** 2 - heights**2)[..., None] / squares
    needed[np.isnan(needed)] = 0.0
    scales = np.sqrt(np.maximum(needed, 0.0).max(axis=(1, 2, 3)))
    area = abs(float(np.linalg.det(shape)))
    for draw in np.argsort(scales, kind="stable").tolist():
        scale = float(scales[draw])
        if not 0 < scale**2 * area <= SPARSEST * len(numbers) * float(np.mean(radii)) ** 2:
            break
        lengths = np.sqrt((squares[draw] * scale**2).min(axis=2) + heights[draw] ** 2) / sums
        if lengths.min(axis=1).max() <= FARTHEST:
            return numbers, fractions[draw], scale
    return None


def _sites(group: LayerGroup, generator: np.random.Generator) -> list[tuple[int, int]] | None:
    """Return pairs (orbit, atomic number) of a random composition."""
    count = int(generator.choice(3, p=_SPECIES)) + 1
    if count == 1:
        elements = [int(generator.choice(_ELEMENT))]
    else:
        cations = 1 if count == 2 or generator.random() < 0.5 else 2
        elements = [
            int(number)
            for pool, size in ((_CATION, cations), (_ANION, count - cations))
            for number in generator.choice(pool, size, replace=False)
        ]
    smallest = min(orbit.multiplicity for orbit in group.orbits)
    budget = max(int(generator.integers(count, MOST_ATOMS + 1)), smallest * count)
    used: set[int] = set()
    sites: list[tuple[int, int]] = []
    left = budget
    wanted = list(elements)
    while wanted:
        element = wanted.pop(0)
        free = [
            number
            for number, orbit in enumerate(group.orbits)
            if orbit.multiplicity <= left and not (orbit.fixed and number in used)
        ]
        if not free:
            break
        orbit = int(generator.choice(free))
        used.add(orbit)
        sites.append((orbit, element))
        left -= group.orbits[orbit].multiplicity
        if not wanted and generator.random() < 0.5:
            wanted.append(int(generator.choice(elements)))
    return sites if len(sites) >= count else None


def _separations(fractions: Floats, shape: Floats) -> tuple[Floats, Floats]:
    """Return squared distances in the plane [draw, i, j, image], of unit scale, and heights [draw, i, j].

    An atom's distance to itself is infinite.
    """
    offsets = fractions[:, :, None, :] - fractions[:, None, :, :]
    flat = offsets[..., :2] - np.rint(offsets[..., :2])
    apart = (flat[..., None, :] + _IMAGES) @ shape
    squares = (apart**2).sum(axis=-1)
    atoms = np.arange(fractions.shape[1])
    squares[:, atoms, atoms, len(_IMAGES) // 2] = np.inf
    return squares, np.abs(offsets[..., 2])


def _atoms(numbers: npt.NDArray[np.int64], fractions: Floats, plane: Floats) -> ase.Atoms:
    """Return a flat layer from fractions of its cell and heights, its mid-plane in the middle."""
    heights = fractions[:, 2]
    low, high = float(heights.min()), float(heights.max())
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = plane, high - low + VACUUM
    z = heights + cell[2, 2] / 2 - (low + high) / 2
    positions = np.column_stack((fractions[:, :2] @ plane, z))
    return ase.Atoms(numbers=numbers, positions=positions, cell=cell, pbc=(True, True, False))


def _sound(atoms: ase.Atoms) -> bool:
    """Whether bonds have their lengths and the atoms are one layer, also after a distortion."""
    plane = atoms.cell.array[:2, :2]
    fractions = np.column_stack((atoms.positions[:, :2] @ np.linalg.inv(plane), atoms.positions[:, 2]))
    squares, heights = _separations(fractions[None], plane)
    radii = covalent_radii[atoms.numbers]
    lengths = np.sqrt(squares[0].min(axis=2) + heights[0] ** 2) / (radii[:, None] + radii)
    if lengths.min() < SHORTEST or lengths.min(axis=1).max() > FARTHEST:
        return False
    try:
        check_crystal(atoms)
        flat_layer(atoms)
    except CrystalError:
        return False
    return True


def _shows(atoms: ase.Atoms, label: int, area: float) -> bool:
    """Whether the projected lattice is of a class and its primitive cell as large as it should be."""
    fit = lattice_fits(atoms)[1]
    return fit.label == label and math.isclose(abs(np.linalg.det(fit.cell.reduced)), area, rel_tol=1e-6)


def _superlattice(label: int, options: SyntheticOptions, generator: np.random.Generator) -> ase.Atoms | None:
    """Return a crystal of a smaller cell, distorted so that only a larger cell of the class repeats it."""
    base = (label, HEXAGONAL, SQUARE, RECTANGULAR)[generator.integers(4)]
    groups = [number for number in groups_of(base) if layer_group(number).primitive]
    if not groups:
        return None
    group = layer_group(int(generator.choice(groups)))
    crystal = _crystal(group, base, "", options, generator)
    if crystal is None:
        return None
    plane = crystal.cell.array[:2, :2]
    more = _MORE_SYMMETRIC[label]
    fitting = []
    for matrix in _sublattices():
        fit = bravais_class(matrix @ plane)
        far = min((fit.distances[other] for other in more), default=np.inf)
        if fit.label == label and far >= 2 * options.margin:
            fitting.append(matrix)
    if not fitting:
        return None
    matrix = fitting[generator.integers(len(fitting))]
    atoms = _repeated(crystal, matrix)
    directions = generator.uniform(0, 2 * np.pi, len(atoms))
    lengths = options.displacement * generator.uniform(1.0, 2.0, len(atoms))
    atoms.positions[:, 0] += lengths * np.cos(directions)
    atoms.positions[:, 1] += lengths * np.sin(directions)
    area = abs(np.linalg.det(atoms.cell.array[:2, :2]))
    if not (_sound(atoms) and _shows(atoms, label, area)):
        return None
    atoms.info.update(layer_group=group.number, pseudosymmetry="superlattice")
    return atoms


@cache
def _sublattices() -> tuple[Floats, ...]:
    """Return all sublattices of index 2 to 4 in Hermite normal form, shape (2, 2) each."""

    def forms() -> Iterator[Floats]:
        for index in (2, 3, 4):
            for first in (n for n in range(1, index + 1) if index % n == 0):
                for shift in range(index // first):
                    yield np.array([[first, shift], [0, index // first]], dtype=np.float64)

    return tuple(forms())


def _repeated(crystal: ase.Atoms, matrix: Floats) -> ase.Atoms:
    """Return a crystal in the larger cell whose in-plane vectors are `matrix` times its own."""
    from ase.build import make_supercell

    whole = np.eye(3)
    whole[:2, :2] = matrix
    atoms = make_supercell(crystal, whole)
    atoms.pbc = crystal.pbc
    return ase.Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
