"""Metrics against hand-made figures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from atomvision_hub.engine.metrics import (
    ceiling,
    evaluate,
    macro_f1_interval,
    majority_baseline,
    proportion,
    wilson,
)


def test_wilson_interval_of_a_textbook_case() -> None:
    # 10 of 20: R, prop.test(10, 20, correct = FALSE)
    assert wilson(10, 20) == pytest.approx((0.2992980, 0.7007020), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == pytest.approx(1.0)


def test_scores_of_each_class() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 0, 1, 1, 3, 3])
    found = evaluate(labels, predicted, ["a", "b", "c", "d"])
    assert found["accuracy"]["value"] == pytest.approx(4 / 6)
    assert found["per_class"]["a"]["recall"]["value"] == pytest.approx(2 / 3)
    assert found["per_class"]["d"]["precision"] == proportion(np.array([True, False]))
    assert found["per_class"]["c"]["recall"] == {"value": None, "n": 0, "interval": [0.0, 1.0], "unit": "1"}
    assert found["confusion"][0] == [2, 1, 0, 0]
    assert found["macro_f1"]["classes"] == 3
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_macro_f1_interval_holds_the_value_and_repeats() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 300)
    predicted = np.where(generator.uniform(size=300) < 0.7, labels, generator.integers(0, 4, 300))
    low, high = macro_f1_interval(labels, predicted)
    assert low < f1_score(labels, predicted, average="macro") < high
    assert 0.05 < high - low < 0.2
    assert (low, high) == macro_f1_interval(labels, predicted)


def test_baseline_and_ceiling_learn_from_train_alone() -> None:
    train, test = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    assert majority_baseline(train, test)["value"] == 0.25
    known_train, known_test = np.array([5, 5, 6, 6]), np.array([5, 6, 6, 7])
    # 5 -> 0, 6 -> 1 (first of a draw), 7 never seen -> most frequent label 0
    assert ceiling(known_train, train, known_test, test)["value"] == 0.75


def test_images_of_one_material_are_no_independent_observations() -> None:
    hits = np.repeat([True, False, True, True], 8)
    groups = np.repeat(["a", "b", "c", "d"], 8)
    alone, grouped = proportion(hits), proportion(hits, groups)
    assert (grouped["value"], grouped["n"], grouped["groups"]) == (0.75, 32, 4)
    assert grouped["interval"] == proportion(hits[::8])["interval"]
    assert grouped["interval"][0] < alone["interval"][0] < alone["interval"][1] < grouped["interval"][1]
    labels = np.repeat([0, 1, 0, 1], 8)
    predicted = np.where(hits, labels, 1 - labels)
    low, high = macro_f1_interval(labels, predicted)
    wide_low, wide_high = macro_f1_interval(labels, predicted, groups)
    assert wide_low < low < high <= wide_high
