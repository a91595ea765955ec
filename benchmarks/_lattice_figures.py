"""Figures of a lattice classifier's answers, whatever it is: accuracy, recalls, calibration, conformal sets.

They count materials whose label has a margin of 0.015 Å; the others stand apart. Intervals are those of a
bootstrap over compositions. Crystals, poses and images: `_lattice_protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.conformal import ConformalSets, calibration_error
from atomvision_hub.engine.metrics import evaluate
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MARGIN = 0.015
DRAWS = 1000


def area_under_curve(yes: Array, no: Array) -> float:
    """Return the chance that an image with a lattice has the higher score; ties count half."""
    return float((yes[:, None] > no).mean() + 0.5 * (yes[:, None] == no).mean())


@dataclass(frozen=True)
class Answers:
    """What a classifier says of images.

    Parameters
    ----------
    labels
        True classes, (n,).
    formulas
        Compositions, (n,).
    margins
        Of the labels, Å, (n,).
    said
        Classes; -1 where it says that there is no lattice, which counts as wrong. (n,).
    probabilities
        (n, 5).
    """

    labels: Integers
    formulas: npt.NDArray[np.str_]
    margins: Array
    said: Integers
    probabilities: Array

    def take(self, rows: npt.NDArray[Any]) -> Answers:
        """Return a part of the images."""
        return Answers(
            self.labels[rows],
            self.formulas[rows],
            self.margins[rows],
            self.said[rows],
            self.probabilities[rows],
        )

    @property
    def clear(self) -> Answers:
        """The images whose label has the margin that counts."""
        return self.take(self.margins >= MARGIN)


def bootstrap(
    groups: npt.NDArray[np.str_], figure: Callable[[Integers], float], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a figure of rows; whole groups are drawn."""
    generator = np.random.default_rng(seed)
    member = np.unique(groups, return_inverse=True)[1]
    order, counts = np.argsort(member, kind="stable"), np.bincount(member)
    parts = np.split(order, counts.cumsum()[:-1])
    values = []
    for _ in range(draws):
        drawn = generator.integers(0, len(parts), len(parts))
        values.append(figure(np.concatenate([parts[number] for number in drawn])))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def share(hits: npt.NDArray[Any], groups: npt.NDArray[np.str_]) -> dict[str, Any]:
    """Return value, n, groups and interval of the mean of hits; value None without observations."""
    if not len(hits):
        return {"value": None, "n": 0}
    member = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(member, hits.astype(float)), np.bincount(member)
    drawn = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    found = {"value": float(hits.mean()), "n": len(hits), "groups": len(sums)}
    return found | {"interval": [float(low), float(high)], "unit": "1"}


def _recalls(labels: Integers, told: Integers) -> Array:
    hits = np.bincount(labels[labels == told], minlength=len(LATTICES))
    return np.asarray(hits / np.maximum(np.bincount(labels, minlength=len(LATTICES)), 1))


def _macro_f1(labels: Integers, told: Integers) -> float:
    count, said = (np.bincount(one, minlength=len(LATTICES)) for one in (labels, told))
    hits = np.bincount(labels[labels == told], minlength=len(LATTICES))
    return float((2 * hits / np.maximum(count + said, 1))[count > 0].mean())


def summary(answers: Answers, sets: Sequence[ConformalSets] = (), *, draws: int = DRAWS) -> dict[str, Any]:
    """Return accuracy, recalls, macro-F1, calibration and conformal sets of answers, with intervals.

    Parameters
    ----------
    sets
        Calibrated on other materials.
    draws
        Of the bootstrap.
    """
    clear, unclear = answers.clear, answers.take(answers.margins < MARGIN)
    labels, groups, p = clear.labels, clear.formulas, clear.probabilities
    # "No lattice" counts as a wrong class.
    told = np.where(clear.said < 0, (labels + 1) % len(LATTICES), clear.said)
    recalls = bootstrap_many(groups, lambda rows: _recalls(labels[rows], told[rows]), draws=draws)
    f1_interval = bootstrap(groups, lambda rows: _macro_f1(labels[rows], told[rows]), draws=draws)
    right = told == labels
    true = np.maximum(p[np.arange(len(p)), labels], 1e-6)
    return {
        "images": len(labels),
        "compositions": len(np.unique(groups)),
        "accuracy": share(right, groups),
        "macro_f1": {"value": _macro_f1(labels, told), "interval": list(f1_interval), "unit": "1"},
        "recall": {
            name: {"value": float(value), "interval": interval, "n": int((labels == k).sum())}
            for k, (name, value, interval) in enumerate(
                zip(LATTICES, _recalls(labels, told), recalls, strict=True)
            )
        },
        "confusion": evaluate(labels, told, LATTICES)["confusion"],
        "none": int((clear.said < 0).sum()),
        "calibration_error": calibration_error(p, right),
        "log_loss": float(-np.log(true).mean()),
        "conformal": [_covered(one, clear) for one in sets],
        "small_margin": share(unclear.said == unclear.labels, unclear.formulas),
    }


def bootstrap_many(
    groups: npt.NDArray[np.str_], figures: Callable[[Integers], Array], *, draws: int = DRAWS
) -> list[list[float]]:
    """Return the 95 % intervals of several figures of rows; whole groups are drawn."""
    values: list[Array] = []

    def collect(rows: Integers) -> float:
        values.append(figures(rows))
        return 0.0

    bootstrap(groups, collect, draws=draws)
    low, high = np.quantile(np.array(values), [0.025, 0.975], axis=0)
    intervals: list[list[float]] = np.stack([low, high], axis=1).tolist()
    return intervals


def _covered(sets: ConformalSets, answers: Answers) -> dict[str, Any]:
    members = sets.members(answers.probabilities)
    inside = members[np.arange(len(members)), answers.labels]
    size = members.sum(axis=1)
    return {
        "level": sets.level,
        "coverage": share(inside, answers.formulas),
        "mean_size": float(size.mean()),
        "single": float((size == 1).mean()),
    }
