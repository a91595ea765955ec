"""Classification metrics with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, f1_score

Labels = npt.NDArray[np.int64]
Groups = npt.NDArray[np.str_]


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (95 % by default); (0, 1) without observations.

    E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi 10.1080/01621459.1927.10502953.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion(hits: npt.NDArray[np.bool_], groups: Groups | None = None) -> dict[str, Any]:
    """Return value, n and 95 % interval of a proportion; value None without observations.

    Several images of one material are no independent observations: with `groups` (one entry a hit) the
    interval is as wide as if each group had been seen once, and `groups` says how many there are.
    """
    n, successes = int(hits.size), int(hits.sum())
    independent = n if groups is None else len(np.unique(groups))
    interval = wilson(successes * independent / n if n else 0, independent)
    found = {"value": successes / n if n else None, "n": n, "interval": list(interval), "unit": "1"}
    return found if independent == n else found | {"groups": independent}


def evaluate(
    labels: Labels, predicted: Labels, classes: Sequence[str], groups: Groups | None = None
) -> dict[str, Any]:
    """Return accuracy, macro-F1 (of the classes that occur), recall and precision, confusion matrix."""
    matrix = confusion_matrix(labels, predicted, labels=range(len(classes)))
    present = sorted(set(labels.tolist()))
    hits = labels == predicted

    def share(rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        return proportion(hits[rows], None if groups is None else groups[rows])

    return {
        "accuracy": proportion(hits, groups),
        "macro_f1": {
            "value": float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0)),
            "n": int(labels.size),
            "unit": "1",
            "classes": len(present),
        },
        "per_class": {
            name: {
                "recall": share(labels == index),
                "precision": share(predicted == index),
            }
            for index, name in enumerate(classes)
        },
        "confusion": matrix.tolist(),
    }


def macro_f1_interval(
    labels: Labels, predicted: Labels, groups: Groups | None = None, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of macro-F1, seeded; whole `groups` are drawn where given."""
    generator = np.random.default_rng(seed)
    number = int(max(labels.max(), predicted.max())) + 1
    present = np.bincount(labels, minlength=number) > 0
    members = np.arange(labels.size) if groups is None else np.unique(groups, return_inverse=True)[1]
    tables = np.zeros((int(members.max()) + 1, number * number))
    np.add.at(tables, (members, labels * number + predicted), 1)
    scores = []
    for _ in range(draws):
        times = np.bincount(generator.integers(0, len(tables), len(tables)), minlength=len(tables))
        matrix = (times @ tables).reshape(number, number)
        total = matrix.sum(0) + matrix.sum(1)
        scores.append(np.mean((2 * np.diag(matrix) / np.maximum(total, 1))[present]))
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def majority_baseline(train: Labels, labels: Labels, groups: Groups | None = None) -> dict[str, Any]:
    """Return the accuracy of always saying the most frequent class of `train`."""
    return proportion(labels == np.bincount(train).argmax(), groups)


def ceiling(known_train: Labels, train: Labels, known: Labels, labels: Labels) -> dict[str, Any]:
    """Return the accuracy of guessing a label from a known class: the most frequent one with it in `train`.

    What labels decided by something else (such as the choice of the cell) allow at best.
    """
    number = int(max(train.max(), labels.max())) + 1
    fallback = int(np.bincount(train, minlength=number).argmax())
    guess = {
        value: int(np.bincount(train[known_train == value], minlength=number).argmax())
        for value in np.unique(known_train).tolist()
    }
    return proportion(labels == np.array([guess.get(value, fallback) for value in known.tolist()]))
