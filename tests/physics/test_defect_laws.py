"""Laws of what is done to crystals: nothing is lost, angles and lengths come out as asked."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import ase
import numpy as np
import pytest
from ase.data import covalent_radii
from ase.geometry import find_mic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from atomvision_hub import simulate_stem
from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures import classify_lattice, flat_layer, load_structures
from atomvision_hub.structures.bilayers import commensurate_angle, twisted_bilayer, twisted_patch
from atomvision_hub.structures.boundaries import OVERLAP, edge, grain_boundary
from atomvision_hub.structures.defects import ANTISITE, VACANCY, add_defects, find_defects
from atomvision_hub.structures.patches import disk, repeats_beyond
from atomvision_hub.structures.strain import biaxial, shear, strained, uniaxial

LAW = settings(deadline=None, derandomize=True, max_examples=15)
IDS = tuple(load_structures("reference"))
COMPOUNDS = ("MoS2", "h-BN", "PbO", "CrSBr")
material = st.sampled_from(IDS)
share = st.floats(0.0, 0.15)


@cache
def layer(material_id: str) -> ase.Atoms:
    return flat_layer(load_structures("reference")[material_id])


@given(
    material_id=st.sampled_from(COMPOUNDS),
    vacancies=share,
    substitutions=share,
    antisites=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
@LAW
def test_every_atom_is_accounted_for(
    material_id: str, vacancies: float, substitutions: float, antisites: int, seed: int
) -> None:
    pristine = layer(material_id).repeat((6, 5, 1))
    made = add_defects(
        layer(material_id),
        vacancies=vacancies,
        substitutions=substitutions,
        antisites=antisites,
        repeats=(6, 5),
        seed=seed,
    )
    sites = len(pristine)
    wanted = {
        "vacancy": round(vacancies * sites),
        "antisite": 2 * antisites,
        "substitution": round(substitutions * sites),
    }
    assert made.counts() == {kind: count for kind, count in wanted.items() if count}
    composition = Counter(pristine.numbers.tolist())
    composition.subtract(made.defects["before"].tolist())
    composition.update(after for after in made.defects["after"].tolist() if after)
    assert {n: c for n, c in composition.items() if c} == Counter(made.atoms.numbers.tolist())
    assert (made.atoms.cell.array == pristine.cell.array).all()
    # What was done is what a comparison with the pristine crystal finds.
    found = find_defects(made.atoms, layer(material_id), align=False)
    for name in ("site", "kind", "before", "after"):
        assert found[name].tolist() == made.defects[name].tolist()
    apart = np.array([found[axis] - made.defects[axis] for axis in "xyz"]).T
    if len(apart):
        apart[:, 2] -= apart[0, 2]  # heights count from the middle of the layer
        assert find_mic(apart, made.atoms.cell, (True, True, False))[1].max() < 1e-6


@given(material_id=st.sampled_from(COMPOUNDS), count=st.integers(1, 6), seed=st.integers(0, 10**6))
@LAW
def test_antisites_conserve_the_composition(material_id: str, count: int, seed: int) -> None:
    made = add_defects(layer(material_id), antisites=count, repeats=(5, 5), seed=seed)
    assert Counter(made.atoms.numbers.tolist()) == Counter(
        layer(material_id).repeat((5, 5, 1)).numbers.tolist()
    )
    assert (made.defects["kind"] == ANTISITE).all()
    assert len(made.defects) == 2 * count


@given(material_id=material, seed=st.integers(0, 10**6))
@LAW
def test_no_defects_are_the_identity(material_id: str, seed: int) -> None:
    made = add_defects(layer(material_id), vacancies=0.0, repeats=(2, 3), seed=seed)
    pristine = layer(material_id).repeat((2, 3, 1))
    assert not len(made.defects)
    assert made.atoms == pristine
    assert made.sites.tolist() == list(range(len(pristine)))


@given(material_id=st.sampled_from(COMPOUNDS), seed=st.integers(0, 10**6))
@LAW
def test_a_vacancy_takes_its_atom_out_of_the_image(material_id: str, seed: int) -> None:
    """The image without the atoms is the pristine one less their intensity."""
    atoms = layer(material_id)
    made = add_defects(atoms, vacancies=0.1, repeats=(4, 4), seed=seed)
    view = {"shape": (48, 48), "pixel_size": 0.3}
    missing = atoms.repeat((4, 4, 1))[made.defects["site"]]
    whole = simulate_stem(atoms, **view).image.astype(float)
    parts = simulate_stem(made.atoms, **view).image + simulate_stem(missing, **view).image.astype(float)
    assert np.abs(whole - parts).max() < 1e-4 * whole.max()
    assert (made.defects["kind"] == VACANCY).all()


entry = st.floats(-0.2, 0.2)


@given(material_id=material, xx=entry, xy=entry, yx=entry, yy=entry)
@LAW
def test_strain_is_exact(material_id: str, xx: float, xy: float, yx: float, yy: float) -> None:
    atoms, tensor = layer(material_id), np.array([[xx, xy], [yx, yy]])
    other = strained(atoms, tensor)
    gradient = np.eye(3)
    gradient[:2, :2] += tensor
    assert other.cell.array == pytest.approx(atoms.cell.array @ gradient.T, abs=1e-12)
    assert other.get_scaled_positions(wrap=False) == pytest.approx(
        atoms.get_scaled_positions(wrap=False), abs=1e-9
    )
    assert (other.positions[:, 2] == atoms.positions[:, 2]).all()
    back = strained(other, np.linalg.inv(np.eye(2) + tensor) - np.eye(2))
    assert back.positions == pytest.approx(atoms.positions, abs=1e-9)


@given(amount=st.floats(-0.1, 0.1), direction=st.floats(0, 180), poisson=st.floats(0, 0.5))
@LAW
def test_tensors(amount: float, direction: float, poisson: float) -> None:
    angle = math.radians(direction)
    along, across = (
        np.array([math.cos(angle), math.sin(angle)]),
        np.array([-math.sin(angle), math.cos(angle)]),
    )
    stretch = np.eye(2) + uniaxial(amount, direction, poisson)
    assert stretch @ along == pytest.approx((1 + amount) * along)
    assert stretch @ across == pytest.approx((1 - poisson * amount) * across)
    assert np.trace(shear(amount, direction)) == pytest.approx(0)
    assert along @ shear(amount, direction) @ across == pytest.approx(amount / 2)
    assert biaxial(amount) == pytest.approx(amount * np.eye(2))


@pytest.mark.parametrize(
    ("tensor", "lattice"),
    [
        (biaxial(0.05), "hexagonal"),
        (uniaxial(0.05), "centered_rectangular"),
        (uniaxial(0.05, 30), "centered_rectangular"),
        (uniaxial(0.05, 90), "centered_rectangular"),
        (uniaxial(0.08, 15), "oblique"),
        (shear(0.08, 45), "centered_rectangular"),
        (uniaxial(0.001), "hexagonal"),
    ],
)
def test_what_strain_does_to_a_hexagonal_lattice(tensor: np.ndarray, lattice: str) -> None:
    atoms = layer("MoS2")
    assert atoms.cell.array[0, 1] == pytest.approx(0)  # the first vector lies along x
    assert classify_lattice(strained(atoms, tensor)).projected == lattice


def test_wrong_strain() -> None:
    with pytest.raises(UsageError, match=r"a strain is a finite \(2, 2\) tensor"):
        strained(layer("MoS2"), np.eye(3))
    with pytest.raises(UsageError, match="leaves no area"):
        strained(layer("MoS2"), biaxial(-1.0))


@pytest.mark.parametrize(
    ("pair", "angle"), [((1, 2), 21.787), ((2, 3), 13.174), ((3, 4), 9.430), ((31, 32), 1.050), ((1, 1), 0.0)]
)
def test_known_angles(pair: tuple[int, int], angle: float) -> None:
    assert commensurate_angle(*pair) == pytest.approx(angle, abs=1e-3)


hexagonal = st.sampled_from([i for i in IDS if classify_lattice(layer(i)).lattice == "hexagonal"])


def turn_between(first: np.ndarray, second: np.ndarray, order: int = 6) -> float:
    """Angle of a lattice vector against another, folded by the rotations of the lattice."""
    angle = math.degrees(math.atan2(second[1], second[0]) - math.atan2(first[1], first[0]))
    period = 360 / order
    return (angle + period / 2) % period - period / 2


@given(material_id=hexagonal, m=st.integers(0, 4), n=st.integers(1, 4))
@LAW
def test_commensurate_bilayers(material_id: str, m: int, n: int) -> None:
    atoms = layer(material_id)
    pair = twisted_bilayer(atoms, m, n)
    cells = n * n + n * m + m * m
    assert len(pair) == 2 * cells * len(atoms)
    assert abs(np.linalg.det(pair.cell.array[:2, :2])) == pytest.approx(
        cells * abs(np.linalg.det(atoms.cell.array[:2, :2]))
    )
    lower, upper = pair[pair.arrays["layer"] == 0], pair[pair.arrays["layer"] == 1]
    assert upper.positions[:, 2].min() - lower.positions[:, 2].max() == pytest.approx(3.35)
    for half, turn in ((lower, 0.0), (upper, commensurate_angle(m, n))):
        # The layer, turned back, repeats with its own vectors and lies where it lay.
        expected = atoms.copy()
        expected.rotate(turn, "z", rotate_cell=True)
        for vector in (np.zeros(3), *expected.cell.array[:2]):
            moved = half.positions + vector
            moved[:, 2] -= half.positions[:, 2].min() - expected.positions[:, 2].min()
            for number in set(atoms.numbers.tolist()):
                mine, theirs = moved[half.numbers == number], expected.positions[expected.numbers == number]
                apart = (mine[:, None] - theirs).reshape(-1, 3)
                nearest = (
                    find_mic(apart, expected.cell, (True, True, False))[1].reshape(len(mine), -1).min(axis=1)
                )
                assert nearest.max() < 1e-6


@given(material_id=st.sampled_from(("graphene", "MoS2", "h-BN")), angle=st.floats(-29.5, 29.5))
@LAW
def test_the_twist_is_recovered_from_the_atoms(material_id: str, angle: float) -> None:
    atoms = layer(material_id)
    pair = twisted_patch(atoms, atoms, angle, 40.0)
    vectors = []
    for part in (0, 1):
        half = pair[pair.arrays["layer"] == part]
        heaviest = half.positions[half.numbers == half.numbers.max()]
        length = np.linalg.norm(atoms.cell.array[0])
        middle = heaviest[np.linalg.norm(heaviest[:, :2], axis=1).argmin()]
        apart = heaviest - middle
        steps = apart[np.abs(np.linalg.norm(apart, axis=1) - length) < 1e-6]
        assert len(steps) == 6
        vectors.append(steps[0])
    assert turn_between(*vectors) == pytest.approx(angle, abs=1e-6)


def test_other_lattices_have_no_common_cell() -> None:
    with pytest.raises(CrystalError, match="use twisted_patch"):
        twisted_bilayer(layer("PbO"), 1, 2)
    with pytest.raises(UsageError, match=r"not \(0, 0\)"):
        commensurate_angle(0, 0)


@given(material_id=material, rotation=st.floats(0, 360), x=st.floats(-9, 9), y=st.floats(-9, 9))
@LAW
def test_a_disk_shows_what_the_infinite_layer_shows(
    material_id: str, rotation: float, x: float, y: float
) -> None:
    atoms = layer(material_id)
    view = {"shape": (40, 60), "pixel_size": 0.2}
    piece = disk(atoms, math.hypot(8.0, 12.0) + 2 * 4.0, rotation=rotation, shift=(x, y))
    finite = simulate_stem(piece, center=(0.0, 0.0), **view)
    whole = simulate_stem(atoms, rotation=rotation, shift=(x, y), **view)
    assert np.abs(finite.image - whole.image).max() < 1e-4 * whole.image.max()
    assert (piece.numbers == atoms.numbers[piece.arrays["site"]]).all()


@given(material_id=material, size=st.floats(5, 60))
@LAW
def test_no_translation_of_the_supercell_is_shorter_than_the_view(material_id: str, size: float) -> None:
    atoms = layer(material_id)
    first, second = repeats_beyond(atoms, size)
    cell = atoms.repeat((first, second, 1)).cell.array[:2, :2]
    steps = np.mgrid[-3:4, -3:4].reshape(2, -1).T
    lengths = np.linalg.norm(steps[(steps != 0).any(axis=1)] @ cell, axis=1)
    assert lengths.min() >= size - 1e-6


@given(
    material_id=st.sampled_from(("graphene", "MoS2", "h-BN", "PbO")),
    angle=st.floats(0, 60),
    orientation=st.floats(0, 60),
    x=st.floats(-2, 2),
    y=st.floats(-2, 2),
)
@LAW
def test_grains(material_id: str, angle: float, orientation: float, x: float, y: float) -> None:
    atoms = layer(material_id)
    pair = grain_boundary(atoms, angle, 50.0, orientation=orientation, shift=(x, y))
    grains, merged = pair.arrays["grain"], pair.arrays["merged"]
    for grain, turn, shift in ((0, angle / 2, (0.0, 0.0)), (1, -angle / 2, (x, y))):
        # Off the line each grain is the crystal, whole and turned.
        bulk = disk(atoms, 50.0, rotation=orientation + turn, shift=shift)
        side = (-1 if grain == 0 else 1) * bulk.positions[:, 0] > 3.0
        mine = pair[(grains == grain) & ~merged]
        distances, index = cKDTree(mine.positions).query(bulk.positions[side])
        assert distances.max() < 1e-9
        assert (mine.numbers[index] == bulk.numbers[side]).all()
    assert np.abs(pair.positions[merged, 0]).max(initial=0.0) < 2.0
    near = pair[np.abs(pair.positions[:, 0]) < 6]
    pairs = cKDTree(near.positions).query_pairs(3.0, output_type="ndarray")
    lengths = np.linalg.norm(near.positions[pairs[:, 0]] - near.positions[pairs[:, 1]], axis=1)
    ratios = lengths / covalent_radii[near.numbers[pairs]].sum(axis=1)
    assert ratios.min() >= OVERLAP - 1e-9


@pytest.mark.parametrize("material_id", ["graphene", "MoS2", "black-P"])
def test_without_misorientation_there_is_no_boundary(material_id: str) -> None:
    pair, whole = grain_boundary(layer(material_id), 0.0, 40.0), disk(layer(material_id), 40.0)
    assert len(pair) == len(whole)
    assert not pair.arrays["merged"].any()
    assert cKDTree(whole.positions).query(pair.positions)[0].max() < 1e-9


@given(
    material_id=st.sampled_from(("graphene", "MoS2", "black-P")),
    direction=st.sampled_from(("zigzag", "armchair", (2, 1), (-1, 3))),
    shift=st.floats(-3, 3),
)
@LAW
def test_edges(material_id: str, direction: str | tuple[int, int], shift: float) -> None:
    atoms = layer(material_id)
    cut = edge(atoms, direction, 60.0, shift=shift, trim=False)
    assert cut.positions[:, 0].max() <= 1e-6
    trimmed = edge(atoms, direction, 60.0, shift=shift)
    assert len(trimmed) <= len(cut)
    deep = cut.positions[:, 0] < -5
    assert cKDTree(trimmed.positions).query(cut.positions[deep])[0].max() < 1e-9
    # The edge repeats along y, with the shortest lattice vector of its direction.
    ribbon = edge(atoms, direction, 60.0, width=14.0, shift=shift)
    assert np.ptp(ribbon.positions[:, 0]) <= 14.0 + 2e-6
    cell = atoms.cell.array[:2, :2]
    steps = np.mgrid[-4:5, -4:5].reshape(2, -1).T @ cell
    if isinstance(direction, tuple):
        period = float(np.linalg.norm(np.array(direction) @ cell))
    else:
        lengths = np.linalg.norm(steps, axis=1)
        shortest = steps[np.argmin(np.where(lengths > 0.1, lengths, np.inf))]
        along = shortest if direction == "zigzag" else np.array([-shortest[1], shortest[0]])
        parallel = np.abs(steps @ [-along[1], along[0]]) < 1e-6 * lengths.max()
        period = float(lengths[parallel & (lengths > 0.1)].min())
    inner = ribbon.positions[np.abs(ribbon.positions[:, 1]) < 25 - period]
    assert cKDTree(ribbon.positions).query(inner + np.array([0.0, period, 0.0]))[0].max() < 1e-6


def test_zigzag_and_armchair_of_graphene() -> None:
    """The last row of a zigzag edge has one atom a period of 2.46 Å, that of an armchair edge two in 4.26."""
    for direction, spacing in (("zigzag", [2.46]), ("armchair", [1.42, 2.84])):
        cut = edge(layer("graphene"), direction, 60.0, shift=0.1)
        x, y = cut.positions[:, 0], cut.positions[:, 1]
        last = np.sort(y[(x > x.max() - 0.1) & (np.abs(y) < 20)])
        assert sorted(set(np.round(np.diff(last), 1))) == pytest.approx(spacing, abs=0.06)


def test_wrong_edges() -> None:
    with pytest.raises(UsageError, match=r"direction must be 'zigzag', 'armchair' or two whole numbers"):
        edge(layer("graphene"), "straight", 30.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="width must be a positive length"):
        edge(layer("graphene"), "zigzag", 30.0, width=-1.0)
    with pytest.raises(UsageError, match="diameter must be a positive length"):
        disk(layer("graphene"), 0.0)
    with pytest.raises(UsageError, match="make it smaller"):
        disk(layer("graphene"), 1e5)
    with pytest.raises(UsageError, match="overlap must be a share"):
        grain_boundary(layer("graphene"), 10.0, 30.0, overlap=2.0)
