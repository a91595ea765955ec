"""Laws of plane lattices: the class does not depend on the basis, the margin keeps its promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atomvision_hub.structures.lattice import (
    CENTERED,
    HEXAGONAL,
    OBLIQUE,
    RECTANGULAR,
    SQUARE,
    bravais_class,
    reduce_basis,
)
from atomvision_hub.structures.record import LATTICES

LAW = settings(deadline=None, derandomize=True, max_examples=120)

edge = st.floats(2.3, 12.0)
angle = st.floats(0.0, 2 * math.pi)


def basis(a: float, b: float, degrees: float) -> np.ndarray:
    gamma = math.radians(degrees)
    return np.array([[a, 0.0], [b * math.cos(gamma), b * math.sin(gamma)]])


def ideal(label: int, a: float, ratio: float, degrees: float) -> np.ndarray:
    """A lattice that is exactly of its class and well away from the more symmetric ones."""
    if label == HEXAGONAL:
        return basis(a, a, 120.0)
    if label == SQUARE:
        return basis(a, a, 90.0)
    if label == RECTANGULAR:
        return basis(a, a * ratio, 90.0)
    if label == CENTERED:
        return basis(a, a, degrees)
    return basis(a, a * ratio, degrees)


labels = st.sampled_from([HEXAGONAL, SQUARE, RECTANGULAR, CENTERED, OBLIQUE])
any_lattice = st.builds(ideal, labels, edge, st.floats(1.0, 3.0), st.floats(45.0, 135.0))


@st.composite
def unimodular(draw: st.DrawFn) -> np.ndarray:
    """Another basis of the same lattice, of either handedness."""
    matrix = np.eye(2, dtype=int)
    for shear in draw(st.lists(st.integers(-3, 3), min_size=1, max_size=3)):
        matrix = np.array([[shear, 1], [1, 0]]) @ matrix
    return matrix


@pytest.mark.parametrize("label", range(5))
@given(a=edge, ratio=st.floats(1.15, 1.85), degrees=st.floats(97.0, 113.0))
@LAW
def test_ideal_lattices_are_recognised(label: int, a: float, ratio: float, degrees: float) -> None:
    vectors = ideal(label, a, ratio, degrees)
    if label == OBLIQUE:
        u, v = basis(a, a * ratio, degrees)
        assume(abs(np.linalg.norm(u + v) - np.linalg.norm(v)) > 0.06)
        assume(abs(np.linalg.norm(u + v) - np.linalg.norm(u)) > 0.06)
    fit = bravais_class(vectors)
    assert fit.label == label
    assert fit.margin > 0


@given(vectors=any_lattice, change=unimodular(), turn=angle, mirror=st.booleans())
@LAW
def test_class_and_margin_do_not_depend_on_the_basis(
    vectors: np.ndarray, change: np.ndarray, turn: float, mirror: bool
) -> None:
    c, s = math.cos(turn), math.sin(turn)
    rotation = np.array([[c, s], [-s, c]]) @ np.diag([1.0, -1.0 if mirror else 1.0])
    first, second = bravais_class(vectors), bravais_class(change @ vectors @ rotation)
    assert second.distances == pytest.approx(first.distances, abs=1e-9)
    assert second.margin == pytest.approx(first.margin, abs=1e-9)
    if first.margin > 1e-9:  # on the edge rounding decides
        assert second.label == first.label
    if abs(first.distances[CENTERED]) < 1e-9:  # two or three rhombic cells fit equally well
        return
    assert (second.cell.a, second.cell.b, second.cell.gamma) == pytest.approx(
        (first.cell.a, first.cell.b, first.cell.gamma), abs=1e-6
    )


@given(
    vectors=any_lattice,
    tolerance=st.sampled_from([0.01, 0.05, 0.1]),
    directions=st.tuples(angle, angle),
    share=st.floats(0.0, 1.0),
    size=st.floats(0.0, 0.999),
)
@settings(deadline=None, derandomize=True, max_examples=600)
def test_no_change_below_the_margin_changes_the_class(
    vectors: np.ndarray, tolerance: float, directions: tuple[float, float], share: float, size: float
) -> None:
    fit = bravais_class(vectors, tolerance)
    length = fit.margin * size
    lengths = (length * share, length * (1 - share))
    change = [[d * math.cos(t), d * math.sin(t)] for d, t in zip(lengths, directions, strict=True)]
    changed = bravais_class(fit.cell.reduced + change, tolerance)
    assert LATTICES[changed.label] == LATTICES[fit.label]


@given(a=edge, delta=st.floats(0.0, 0.2))
@LAW
def test_distance_of_a_rectangle_from_square_is_the_difference_of_its_edges(a: float, delta: float) -> None:
    fit = bravais_class(basis(a, a + delta, 90.0))
    assert fit.distances[SQUARE] == pytest.approx(delta, abs=1e-9)
    assert fit.distances[RECTANGULAR] == pytest.approx(0.0, abs=1e-9)


@given(vectors=any_lattice)
@LAW
def test_symmetric_classes_are_never_nearer_than_those_that_contain_them(vectors: np.ndarray) -> None:
    hexagonal, square, rectangular, centered = bravais_class(vectors).distances
    assert hexagonal >= centered - 1e-12
    assert square >= max(rectangular, centered) - 1e-12


@given(vectors=any_lattice, change=unimodular())
@LAW
def test_reduction_keeps_the_area_and_finds_the_shortest_vectors(
    vectors: np.ndarray, change: np.ndarray
) -> None:
    ux, uy, vx, vy = reduce_basis(change @ vectors)
    reduced = np.array([[ux, uy], [vx, vy]])
    assert abs(np.linalg.det(reduced)) == pytest.approx(abs(np.linalg.det(vectors)), rel=1e-9)
    u, v = np.linalg.norm(reduced, axis=1)
    grid = np.array([(i, j) for i in range(-4, 5) for j in range(-4, 5) if (i, j) != (0, 0)])
    lengths = np.sort(np.linalg.norm(grid @ reduced, axis=1))
    assert u == pytest.approx(lengths[0])
    assert u <= v + 1e-9
    assert -0.5 - 1e-9 <= reduced[0] @ reduced[1] / u**2 <= 1e-12


@given(vectors=any_lattice)
@LAW
def test_conventional_cell_follows_the_conventions(vectors: np.ndarray) -> None:
    fit = bravais_class(vectors)
    cell = fit.cell
    assert cell.a <= cell.b
    assert 90.0 <= cell.gamma <= 120.0 + 1.0
    multiple = 2.0 if fit.label == CENTERED else 1.0
    area = cell.a * cell.b * math.sin(math.radians(cell.gamma))
    assert area == pytest.approx(multiple * abs(np.linalg.det(vectors)), rel=1e-9)


def test_alternatives_are_sorted_and_leave_out_the_class() -> None:
    fit = bravais_class(basis(3.0, 3.2, 90.0))
    names = [name for name, _ in fit.alternatives]
    assert "rectangular" not in names
    assert sorted(names) == sorted(set(LATTICES) - {"rectangular"})
    assert [d for _, d in fit.alternatives] == sorted(d for _, d in fit.alternatives)
