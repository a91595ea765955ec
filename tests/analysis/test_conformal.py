"""Sets of classes hold the true one as often as promised; calibration error is what it says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from atomvision_hub.analysis.conformal import ConformalSets, calibrate_sets, calibration_error
from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]


def _answers(groups: int, each: int, seed: int) -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    """Return probabilities that are too sure, labels, and groups whose members share the label."""
    generator = np.random.default_rng(seed)
    true = generator.dirichlet(np.full(5, 0.4), groups)
    labels = np.array([generator.choice(5, p=row) for row in true])
    sure = true**2 / (true**2).sum(axis=1, keepdims=True)
    names = np.char.add("material ", np.arange(groups).astype(str))
    return np.repeat(sure, each, axis=0), np.repeat(labels, each), np.repeat(names, each)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_sets_of_an_overconfident_classifier_hold_the_promised_share(level: float) -> None:
    p, labels, names = _answers(2000, 3, 0)
    rule = calibrate_sets(p, labels, level, names)
    p, labels, _ = _answers(4000, 1, 1)
    members = rule.members(p)
    assert members[np.arange(len(p)), labels].mean() == pytest.approx(level, abs=0.02)
    assert members.sum(axis=1).min() == 1
    # The most probable class alone is right far less often than it claims.
    assert (p.argmax(axis=1) == labels).mean() < p.max(axis=1).mean() - 0.1


def test_more_is_promised_by_larger_sets() -> None:
    p, labels, names = _answers(500, 1, 2)
    sizes = [calibrate_sets(p, labels, level, names).members(p).sum() for level in (0.8, 0.9, 0.99)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_poses_of_a_material_count_as_one() -> None:
    """A material seen a hundred times weighs as much as one seen once."""
    p = np.array([[0.9, 0.1]] * 19 + [[0.4, 0.6]] * 100)
    labels = np.zeros(119, dtype=int)
    names = [f"{k}" for k in range(19)] + ["often"] * 100
    assert calibrate_sets(p, labels, 0.9, names).threshold == pytest.approx(0.9)
    assert calibrate_sets(p, labels, 0.9).threshold == pytest.approx(0.4)


def test_too_few_materials_promise_everything() -> None:
    """Nine materials cannot vouch for 95 %: all classes are in the set."""
    p = np.full((9, 5), 0.2)
    rule = calibrate_sets(p, np.zeros(9, dtype=int), 0.95)
    assert rule == ConformalSets(0.95, 0.0)
    assert rule.members([[1.0, 0, 0, 0, 0]]).all()


def test_calibration_error_of_known_answers() -> None:
    assert calibration_error([[0.75, 0.25]] * 4, [True, True, True, False]) == pytest.approx(0)
    assert calibration_error([[1.0, 0.0]] * 4, [True, False, False, False]) == pytest.approx(0.75)
    # Errors of one bin do not make up for those of another.
    assert calibration_error([[0.95, 0.05], [0.55, 0.45]], [False, True]) == pytest.approx(0.7)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(AnalysisError, match="level is 95"):
        calibrate_sets([[0.5, 0.5]], [0], 95)
    with pytest.raises(AnalysisError, match="2 rows of probabilities and 1 labels"):
        calibrate_sets([[0.5, 0.5]] * 2, [0], 0.9)
    with pytest.raises(AnalysisError, match="finite numbers"):
        calibration_error([[np.nan, 1.0]], [True])
    with pytest.raises(AnalysisError, match="0 rows"):
        calibration_error(np.empty((0, 5)), [])
