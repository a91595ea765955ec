"""Laws of lattice labels: a crystal's class does not depend on how it is written down."""

from __future__ import annotations

import math
from functools import cache

import ase
import numpy as np
import pytest
from ase.build import make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.structures import classify_lattice, flat_layer, load_structures, prototype_label
from atomvision_hub.structures.duplicates import fingerprint

LAW = settings(deadline=None, derandomize=True, max_examples=40)
IDS = tuple(load_structures("reference"))
material = st.sampled_from(IDS)
small = st.integers(-2, 2)


@cache
def layer(material_id: str) -> ase.Atoms:
    return flat_layer(load_structures("reference")[material_id])


def same_class(first: ase.Atoms, second: ase.Atoms) -> None:
    one, two = classify_lattice(first), classify_lattice(second)
    assert (two.lattice, two.projected) == (one.lattice, one.projected)
    assert two.margin == pytest.approx(one.margin, abs=1e-6)
    assert two.projected_margin == pytest.approx(one.projected_margin, abs=1e-6)
    assert (two.cell.a, two.cell.b, two.cell.gamma) == pytest.approx(
        (one.cell.a, one.cell.b, one.cell.gamma), abs=1e-3
    )


@given(material_id=material, p=small, q=small, n=st.integers(1, 3), m=st.integers(1, 2), swap=st.booleans())
@LAW
def test_supercells_and_other_cells(material_id: str, p: int, q: int, n: int, m: int, swap: bool) -> None:
    atoms = layer(material_id)
    if len(atoms) * n * m > 60:
        n = m = 1
    shear = np.array([[1, p, 0], [0, 1, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [q, 1, 0], [0, 0, 1]])
    matrix = np.diag([n, m, 1]) @ shear
    if swap:
        matrix = matrix[[1, 0, 2]]
    other = make_supercell(atoms, matrix)
    other.pbc = atoms.pbc
    same_class(atoms, other)


@given(material_id=material, turn=st.floats(0, 360), mirror=st.booleans(), flip=st.booleans())
@LAW
def test_rotation_and_mirrors(material_id: str, turn: float, mirror: bool, flip: bool) -> None:
    atoms, other = layer(material_id), layer(material_id).copy()
    other.rotate(turn, "z", rotate_cell=True)
    sign = np.diag([-1.0 if mirror else 1.0, 1.0, -1.0 if flip else 1.0])
    other.set_cell(other.cell.array @ sign)
    other.positions = other.positions @ sign
    other.pbc = True
    same_class(atoms, other)


@given(
    material_id=material,
    x=st.floats(-9, 9),
    y=st.floats(-9, 9),
    z=st.floats(-40, 40),
    seed=st.integers(0, 99),
)
@LAW
def test_origin_order_and_wrapping(material_id: str, x: float, y: float, z: float, seed: int) -> None:
    atoms = layer(material_id)
    other = atoms[np.random.default_rng(seed).permutation(len(atoms))]
    other.pbc = True
    other.positions += (x, y, z)
    other.wrap()
    same_class(atoms, other)


@given(
    material_id=material,
    axis=st.integers(0, 2),
    tilt=st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    turn=st.floats(0, 180),
)
@LAW
def test_any_axis_may_be_the_vacuum_and_tilted(
    material_id: str, axis: int, tilt: tuple[int, int], turn: float
) -> None:
    atoms = layer(material_id)
    cell = atoms.cell.array.copy()
    cell[2] += 0.3 * tilt[0] * cell[0] + 0.3 * tilt[1] * cell[1]
    other = ase.Atoms(
        atoms.numbers, positions=atoms.positions, cell=np.roll(cell, axis + 1, axis=0), pbc=True
    )
    other.rotate(turn, (1, 2, 3), rotate_cell=True)
    other.positions += (1.0, 2.0, 17.0)
    other.wrap()
    same_class(atoms, other)
    assert flat_layer(other).cell.array[2, :2] == pytest.approx([0, 0])


@given(material_id=material, seed=st.integers(0, 10_000), size=st.floats(0.0, 0.99))
@settings(deadline=None, derandomize=True, max_examples=120)
def test_changes_of_the_vectors_below_the_margin_change_nothing(
    material_id: str, seed: int, size: float
) -> None:
    atoms = layer(material_id)
    label = classify_lattice(atoms)
    rng = np.random.default_rng(seed)
    share, directions = rng.random(), rng.random(2) * 2 * math.pi
    lengths = label.margin * size * np.array([share, 1 - share])
    reduced = label.cell.reduced
    changed = reduced + lengths[:, None] * np.column_stack([np.cos(directions), np.sin(directions)])
    strain = np.eye(3)
    strain[:2, :2] = np.linalg.solve(reduced, changed)
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ strain)
    other.positions = atoms.positions @ strain
    assert classify_lattice(other).lattice == label.lattice


@given(material_id=material, seed=st.integers(0, 10_000))
@LAW
def test_small_noise_of_the_atoms_changes_nothing(material_id: str, seed: int) -> None:
    atoms = layer(material_id)
    other = atoms.repeat((2, 2, 1))
    other.positions += np.random.default_rng(seed).uniform(-0.01, 0.01, other.positions.shape)
    one, two = classify_lattice(atoms), classify_lattice(other)
    assert (two.lattice, two.projected) == (one.lattice, one.projected)


@given(material_id=material, n=st.integers(1, 2), turn=st.floats(0, 360), mirror=st.booleans())
@settings(deadline=None, derandomize=True, max_examples=40)
def test_fingerprint_and_prototype_do_not_depend_on_the_cell(
    material_id: str, n: int, turn: float, mirror: bool
) -> None:
    atoms = layer(material_id)
    other = atoms.repeat((n, 3 - n, 1))
    other.rotate(turn, "z", rotate_cell=True)
    if mirror:
        other.set_cell(other.cell.array * (1, -1, 1))
        other.positions *= (1, -1, 1)
    other.positions += (0.7, 0.3, 0.0)
    assert np.abs(fingerprint(other, 20) - fingerprint(atoms, 20)).max() < 1e-9
    assert prototype_label(other) == prototype_label(atoms)


def chain(numbers: list[int], xs: list[float], length: float, zs: list[float] | None = None) -> ase.Atoms:
    positions = np.array([(x, 0.0, z) for x, z in zip(xs, zs or [0.0] * len(xs), strict=True)])
    cell = [(length, 0, 0), (0, 4.0, 0), (0, 0, 20)]
    return ase.Atoms(numbers, positions=positions, cell=cell, pbc=(True, True, False))


def test_a_shift_beyond_the_tolerance_is_no_translation() -> None:
    # Two atoms almost half a cell apart: one is a row of period 3 Å only when the other is in its place.
    assert classify_lattice(chain([6, 6], [0, 3.04], 6.0)).cell.a == pytest.approx(3.0)
    assert classify_lattice(chain([6, 6], [0, 3.06], 6.0)).cell.a == pytest.approx(4.0)


def test_translations_map_elements_onto_themselves() -> None:
    alternating = classify_lattice(chain([5, 7], [0, 3.0], 6.0))
    assert alternating.cell.b == pytest.approx(6.0)
    # One foreign atom in a supercell makes the whole cell the period.
    doped = classify_lattice(chain([42, 42, 42, 74], [0, 3, 6, 9], 12.0))
    assert doped.cell.b == pytest.approx(12.0)


def test_heights_count_for_the_crystal_but_not_for_its_projection() -> None:
    buckled = classify_lattice(chain([6, 6], [0, 2.5], 5.0, [0.0, 0.8]))
    assert (buckled.cell.a, buckled.cell.b) == pytest.approx((4.0, 5.0))
    assert (buckled.projected_cell.a, buckled.projected_cell.b) == pytest.approx((2.5, 4.0))


def test_a_column_of_two_is_not_a_column_of_one() -> None:
    # In projection every column looks alike but for the number of its atoms.
    atoms = chain([16, 16, 16], [0, 0, 3.0], 6.0, [0.0, 3.0, 1.5])
    assert classify_lattice(atoms).projected_cell.b == pytest.approx(6.0)
    even = chain([16] * 4, [0, 0, 3.0, 3.0], 6.0, [0.0, 3.0, 0.5, 2.5])
    assert classify_lattice(even).cell.b == pytest.approx(6.0)
    assert classify_lattice(even).projected_cell.a == pytest.approx(3.0)


@pytest.mark.parametrize("order", [2, 3, 5, 7, 11])
def test_translations_of_every_prime_order_are_found(order: int) -> None:
    row = chain([6] * order, [2.6 * k for k in range(order)], 2.6 * order)
    found = classify_lattice(row)
    assert (found.cell.a, found.cell.b) == pytest.approx((2.6, 4.0))


def test_a_centering_that_only_the_atoms_show() -> None:
    # A rectangular cell with an atom in its middle: the primitive cell is a rhombus.
    atoms = ase.Atoms("C2", positions=[(0, 0, 0), (2, 3, 0)], cell=[4, 6, 20], pbc=(True, True, False))
    label = classify_lattice(atoms)
    assert label.lattice == "centered_rectangular"
    assert (label.cell.a, label.cell.b, label.cell.gamma) == pytest.approx((4.0, 6.0, 90.0))
    assert label.legacy == "rectangular"
