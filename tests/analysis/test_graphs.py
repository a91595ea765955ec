"""Graphs: brute force, invariances, conventions, mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.analysis import AnalysisError, bond_angle_histogram, radius_graph

SEEDS = st.integers(0, 2**32 - 1)


def cloud(seed: int, count: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 12, (count, 2))


@given(seed=SEEDS)
@settings(deadline=None, derandomize=True, max_examples=20)
def test_edges_and_angles_are_those_of_brute_force(seed: int) -> None:
    points = cloud(seed)
    graph = radius_graph(points, cutoff=4.0)
    expected = {
        (i, j)
        for i in range(len(points))
        for j in range(len(points))
        if i != j and np.hypot(*(points[j] - points[i])) <= 4
    }
    assert set(map(tuple, graph.edges.T.tolist())) == expected
    assert graph.edges.shape[1] == len(expected)
    line = graph.line_graph()
    wanted = {(i, j, k) for i, j in expected for m, k in expected if m == j and k != i}
    found = {
        (*graph.edges[:, first].tolist(), int(graph.edges[1, second]))
        for first, second in line.pairs.T.tolist()
    }
    assert found == wanted
    assert line.pairs.shape[1] == len(wanted)
    first, second = line.pairs
    a, b = -graph.vectors[first], graph.vectors[second]
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    np.testing.assert_allclose(line.cosines, cosines, atol=1e-5)


@given(seed=SEEDS, angle=st.floats(0, 6.3))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_turning_shifting_and_reordering_change_nothing(seed: int, angle: float) -> None:
    points = cloud(seed)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    order = np.random.default_rng(seed).permutation(len(points))
    one, two = radius_graph(points, cutoff=3.9), radius_graph((points @ turn.T + 5)[order], cutoff=3.9)
    np.testing.assert_allclose(np.sort(one.lengths), np.sort(two.lengths), atol=1e-4)
    cosines = [np.sort(graph.line_graph().cosines) for graph in (one, two)]
    np.testing.assert_allclose(*cosines, atol=2e-3)


def test_honeycomb_angles() -> None:
    cell = 2.46 * np.array([[1, 0], [-0.5, 3**0.5 / 2]])
    basis = np.array([[1 / 3, 2 / 3], [2 / 3, 1 / 3]])
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2)
    points = (cells[:, None] + basis).reshape(-1, 2) @ cell
    line = radius_graph(points, cutoff=1.6).line_graph()
    np.testing.assert_allclose(line.cosines, -0.5, atol=1e-5)
    histogram = bond_angle_histogram(line)
    assert histogram.shape == (200,)
    assert histogram[49:51].sum() == pytest.approx(1)


def test_the_nearest_neighbours_are_kept() -> None:
    graph = radius_graph([[0, 0], [1, 0], [2.5, 0]], cutoff=4, max_neighbours=1)
    assert graph.edges.T.tolist() == [[0, 1], [1, 0], [2, 1]]


def test_networkx_carries_everything() -> None:
    graph = radius_graph([[0, 0], [1, 0]]).to_networkx({"height": np.array([3.0, 4.0])})
    assert graph.nodes[1] == {"pos": (1.0, 0.0), "height": 4.0}
    assert graph.edges[1, 0] == {"vector": (-1.0, 0.0), "length": 1.0}


@pytest.mark.parametrize("count", [0, 1])
def test_lonely_atoms_have_no_edges(count: int) -> None:
    graph = radius_graph(np.zeros((count, 2)))
    assert graph.edges.shape == (2, 0)
    assert graph.line_graph().pairs.shape == (2, 0)
    assert not bond_angle_histogram(graph.line_graph()).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0, 0]],), r"positions \[n, 2\]"),
        (([[0, np.nan]],), "finite"),
        (([[0, 0]], 0), "cut-off must be a positive"),
        (([[0, 0]], 4, 0), "max_neighbours must be 1"),
    ],
)
def test_mistakes(arguments: tuple, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        radius_graph(*arguments)
