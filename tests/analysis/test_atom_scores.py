"""Scores of detections: hand-made cases, the best assignment, laws of counting, mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from atomvision_hub.analysis import AnalysisError, detect_atoms
from atomvision_hub.analysis.atom_scores import (
    AtomScore,
    TrueColumns,
    match_points,
    score_atoms,
    true_columns,
)
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.structures import load_structures


def table(*atoms: tuple[float, float, int, int]) -> dict[str, np.ndarray]:
    """Atoms (x, y, number, column)."""
    return {
        name: np.array(values)
        for name, values in zip(("x", "y", "number", "column"), zip(*atoms, strict=True), strict=True)
    }


def plain(points: np.ndarray) -> TrueColumns:
    """Columns that all count."""
    count = len(points)
    return TrueColumns(points, np.ones(count), np.ones(count, bool), np.full(count, np.inf))


def test_a_column_stands_at_the_weighted_mean_of_its_atoms() -> None:
    columns = true_columns(
        table((10, 20, 2, 0), (10.4, 20, 1, 0), (50, 60, 1, 1)), (100, 100), (0.2, 0.1), 1.0
    )
    np.testing.assert_allclose(columns.positions, [[(2 * 1.0 + 1.04) / 3, 4], [5, 12]])
    np.testing.assert_allclose(columns.peak, [1, 1 / 3])
    assert columns.resolvable.all()


def test_resolvable_needs_distance_and_height() -> None:
    columns = true_columns(
        table((10, 10, 80, 0), (21, 10, 80, 1), (50, 50, 80, 2), (80, 50, 5, 3)), (100, 100), 0.1
    )
    assert columns.resolvable.tolist() == [False, False, True, False]  # 1.1 Å apart; alone; B beside Hg


def test_a_bright_column_outside_hides_nothing_inside() -> None:
    columns = true_columns(table((-3, 10, 80, 0), (50, 50, 5, 1)), (100, 100), 0.1)
    assert columns.inside.tolist() == [False, True]
    assert columns.peak[1] == 1


def test_right_missed_false_and_ignored() -> None:
    truth = TrueColumns(
        positions=np.array([[1.0, 1], [5, 5], [9, 9], [20, 1]]),
        peak=np.array([1, 1, 0.01, 1]),
        inside=np.array([True, True, True, False]),
        distance=np.full(4, 5.0),
    )
    found = [[1.3, 1.4], [9.1, 9], [9.2, 9], [20, 1], [14, 14]]
    score = score_atoms(found, truth)
    # Of two detections on the faint column one is ignored, the other is false.
    assert score == AtomScore(right=1, missed=1, false=2, ignored=2, excluded=1, squares=pytest.approx(0.25))
    assert score.precision == pytest.approx(1 / 3)
    assert score.recall == pytest.approx(1 / 2)
    assert score.f1 == pytest.approx(0.4)
    assert score.rmse == pytest.approx(0.5)
    assert score.excluded_fraction == pytest.approx(1 / 3)


def test_a_border_takes_columns_out_of_the_count() -> None:
    truth = plain(np.array([[0.5, 5.0], [5, 5]]))
    score = score_atoms([[0.5, 5]], truth, border=1.0, field_of_view=(10, 10))
    assert (score.right, score.missed, score.ignored, score.false, score.excluded) == (0, 1, 1, 0, 1)


def test_scores_add_up() -> None:
    one, two = AtomScore(8, 2, 1, 3, 4, 0.5), AtomScore(1, 1, 1, 1, 1, 0.1)
    total = sum([one, two], AtomScore())
    assert total == AtomScore(9, 3, 2, 4, 5, pytest.approx(0.6))
    assert total.rmse == pytest.approx(np.sqrt(0.6 / 9))


def test_nothing_found_and_nothing_there() -> None:
    nothing = score_atoms(np.zeros((0, 2)), plain(np.zeros((0, 2))))
    assert nothing == AtomScore()
    assert (nothing.precision, nothing.recall, nothing.f1) == (1, 1, 1)
    assert nothing.to_dict()["rmse"] is None
    assert score_atoms([], plain(np.array([[1.0, 1]]))).f1 == 0


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_greedy_is_the_best_assignment_of_columns_two_tolerances_apart(seed: int) -> None:
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 1.2
    truth = grid[generator.uniform(size=36) < 0.8]
    found = generator.uniform(-0.5, 7, (60, 2))
    pairs, distance, used = match_points(found, truth, 0.5)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs) == used.sum()
    cost = np.linalg.norm(found[:, None] - truth, axis=2)
    capped = np.where(cost <= 0.5, cost, 1000.0)
    rows, columns = linear_sum_assignment(capped)
    best = capped[rows, columns]
    assert len(pairs) == (best < 1).sum()
    assert distance.sum() == pytest.approx(best[best < 1].sum())


def test_the_order_of_detections_does_not_matter() -> None:
    generator = np.random.default_rng(1)
    truth, found = plain(generator.uniform(0, 10, (40, 2))), generator.uniform(0, 10, (40, 2))
    assert score_atoms(found, truth, tolerance=0.8) == score_atoms(found[::-1], truth, tolerance=0.8)


def test_a_real_detection_scores_well() -> None:
    frame = simulate_stem(load_structures("reference")["graphene"], shape=(200, 180), rotation=8)
    truth = true_columns(frame.atoms, frame.image.shape, frame.pixel_size)
    score = score_atoms(detect_atoms(frame.image, frame.pixel_size).positions(), truth)
    assert score.f1 > 0.98
    assert score.rmse < 0.02


def test_mistakes() -> None:
    with pytest.raises(AnalysisError, match=r"arrays \[n, 2\]"):
        match_points(np.zeros((3, 3)), np.zeros((1, 2)), 1)
    with pytest.raises(AnalysisError, match="field of view"):
        score_atoms([[0, 0]], plain(np.array([[1.0, 1]])), border=1)
