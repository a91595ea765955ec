"""How probable each Bravais class is, given measured lattice vectors and how far they may be off.

A crystal is either exactly symmetric or of any shape. For each symmetry the measured vectors miss one or two
conditions (the cosine of an angle, the logarithm of a ratio of lengths); their covariance, from noise and from
distortions of the scan, says how likely that miss is. A lattice of any shape meets the conditions by accident
with the density of such shapes, about one per unit: so the smaller the uncertainty, the less a near miss counts
as symmetric. What is left is labelled by `structures.lattice.bravais_class` with its tolerance, as crystals are.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from atomvision_hub.structures.lattice import (
    CENTERED,
    HEXAGONAL,
    OBLIQUE,
    RECTANGULAR,
    SQUARE,
    bravais_class,
)

Array = npt.NDArray[np.float64]

#: Share of exact lattices of each class among two-dimensional materials (training part of 2DMatPedia; the
#: synthetic crystals have equal shares).
PRIOR = {HEXAGONAL: 0.27, SQUARE: 0.20, RECTANGULAR: 0.27, CENTERED: 0.18, OBLIQUE: 0.08}
#: Density of shapes per unit of a condition, of lattices that need not meet it.
_DENSITY = 1.0
#: Relative uncertainty below which conditions are not told apart from exact ones.
_ROUNDING = 2e-5
_DRAWS = 24
_CERTAIN = 5.0  # standard deviations from which on a class is not in doubt


def class_probabilities(vectors: Array, covariance: Array, tolerance: float) -> Array:
    """Return the probability of each class, in the order of `LATTICES`.

    Parameters
    ----------
    vectors
        Reduced basis as rows (x, y), at an angle of 90 to 120 degrees.
    covariance
        Of (ax, ay, bx, by), shape (4, 4), with distortions.
    tolerance
        Distance from a class that `bravais_class` forgives, in the unit of the vectors.
    """
    covariance = covariance + (_ROUNDING * float(np.abs(vectors).max())) ** 2 * np.eye(4)
    flat = vectors.ravel()
    draws = _normal_draws()
    weights, shares = [], []
    for label, pick in (
        (HEXAGONAL, (1, 2)),
        (SQUARE, (0, 1)),
        (RECTANGULAR, (0,)),
        (CENTERED, (1,)),
        (CENTERED, (3,)),
        (OBLIQUE, ()),
    ):
        prior = PRIOR[label] / (2 if label == CENTERED else 1)
        if not pick:
            weights.append(math.log(prior * _DENSITY**2))
            middle, left = flat, covariance
        else:
            miss, slope = _conditions(vectors)
            miss, slope = miss[list(pick)], slope[list(pick)]
            spread = slope @ covariance @ slope.T
            inverse = np.linalg.inv(spread)
            weights.append(
                math.log(prior * _DENSITY ** (2 - len(pick)))
                - float(miss @ inverse @ miss) / 2
                - math.log(2 * math.pi) * len(pick) / 2
                - float(np.linalg.slogdet(spread)[1]) / 2
            )
            gain = covariance @ slope.T @ inverse
            middle, left = flat - gain @ miss, covariance - gain @ slope @ covariance
        values, axes = np.linalg.eigh(left)
        best = bravais_class(middle.reshape(2, 2), tolerance)
        labels = [best.label]
        if best.margin < _CERTAIN * math.sqrt(max(0.0, float(values.sum()))):
            points = middle + draws @ (axes * np.sqrt(np.maximum(values, 0))).T
            labels += [bravais_class(point.reshape(2, 2), tolerance).label for point in points]
        shares.append(np.bincount(labels, minlength=5) / len(labels))
    total = np.exp(np.array(weights) - max(weights))
    return np.asarray(total @ np.array(shares) / total.sum())


def _conditions(vectors: Array) -> tuple[Array, Array]:
    """Return how far four conditions are missed, and the derivatives by (ax, ay, bx, by).

    With the reduced vectors u, v and w = u + v: cos(u, v), ln(v / u), ln(w / u), ln(w / v).
    """
    u, v = vectors
    w = u + v
    uu, vv, ww, uv = float(u @ u), float(v @ v), float(w @ w), float(u @ v)
    cosine = uv / math.sqrt(uu * vv)
    logs = [math.log(x) / 2 for x in (uu, vv, ww)]
    # Derivatives of the logarithms of the three lengths.
    zero = np.zeros(2)
    du, dv, dw = (np.concatenate(p) for p in ((u / uu, zero), (zero, v / vv), (w / ww, w / ww)))
    dcos = np.concatenate([v, u]) / math.sqrt(uu * vv) - cosine * (du + dv)
    miss = np.array([cosine, logs[1] - logs[0], logs[2] - logs[0], logs[2] - logs[1]])
    return miss, np.stack([dcos, dv - du, dw - du, dw - dv])


@cache
def _normal_draws() -> Array:
    """Return the same normal draws for every lattice, in opposite pairs, shape (n, 4)."""
    half = np.random.default_rng(0).standard_normal((_DRAWS // 2, 4))
    return np.concatenate([half, -half])
