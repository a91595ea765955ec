"""How probable each Bravais class is, given measured lattice vectors and how far they may be off.

A crystal is either exactly symmetric or of any shape. For each symmetry the measured vectors miss one or two
conditions (the cosine of an angle, the logarithm of a ratio of lengths); their covariance, from noise and
from distortions of the scan, says how likely that miss is. A lattice of any shape meets the conditions by
accident with the density of such shapes, a few per unit: so the smaller the uncertainty, the less a near miss
counts as symmetric. What is left is labelled by `structures.lattice.bravais_class` with its tolerance, as
crystals are. The symmetry of what repeats has its say too (`lattice_symmetry`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.lattice_symmetry import Asymmetry
from atomvision_hub.structures.lattice import CENTERED, HEXAGONAL, OBLIQUE, RECTANGULAR, SQUARE

Array = npt.NDArray[np.float64]

#: Shares of the classes among two-dimensional materials (training part of 2DMatPedia, n = 3,148).
PRIOR = {HEXAGONAL: 0.276, SQUARE: 0.165, RECTANGULAR: 0.291, CENTERED: 0.175, OBLIQUE: 0.093}
# Density of the shapes of less symmetric lattices per unit of a condition, by how nearly it is met: base,
# excess at zero, and its width. Distorted relatives of symmetric crystals are frequent (same source).
_SQUARES, _RHOMBS, _OBLIQUES = (1.5, 1.0, 0.03), (1.5, 4.0, 0.02), (2.0, 6.0, 0.03)
_SECOND = 1.5  # density of oblique lattices along the other condition
# Label, share, indices of the conditions (see `_conditions`) and symmetry of content of each kind of lattice.
_KINDS: tuple[tuple[int, float, list[int], str], ...] = (
    (HEXAGONAL, 1.0, [1, 2], "threefold"),
    (SQUARE, 1.0, [0, 1], "fourfold"),
    (RECTANGULAR, 1.0, [0], "mirror u"),
    (CENTERED, 0.42, [1], "mirror u-v"),
    (CENTERED, 0.58, [3], "mirror v-w"),
    (OBLIQUE, 1.0, [], ""),
)
# Symmetries that a content with another one has as often as not.
_MAYBE = {"threefold": ("mirror u-v", "mirror v-w"), "fourfold": ("mirror u", "mirror u-v")}
_ASYMMETRIC = 5e-4  # asymmetry from which on a content is no longer symmetric
# Chance that content looks symmetric: where the lattice is so for a reason, and where it only seems to be
# (training materials of 2DMatPedia in images of the preset ``typical`` and at a quarter of its dose).
_SYMMETRIC, _BY_CHANCE = 0.99, 0.1
#: Relative uncertainty below which conditions are not told apart from exact ones.
_ROUNDING = 2e-5
_DRAWS = 64


def class_probabilities(
    vectors: Array,
    covariance: Array,
    tolerance: float,
    asymmetry: Mapping[str, Asymmetry | None] | None = None,
    aberration: float = 0.0,
) -> Array:
    """Return the probability of each class, in the order of `LATTICES`.

    Parameters
    ----------
    vectors
        Reduced basis as rows (x, y), at an angle of 90 to 120 degrees.
    covariance
        Of (ax, ay, bx, by), with distortions, shape (4, 4); or several that are equally likely, (n, 4, 4).
    tolerance
        Distance from a class that `bravais_class` forgives, in the unit of the vectors.
    asymmetry
        What `lattice_symmetry.asymmetries` says of the content.
    aberration
        Asymmetry that the instrument may give to a symmetric content, see `fit_lattice`.
    """
    rounding = (_ROUNDING * float(np.abs(vectors).max())) ** 2 * np.eye(4)
    flat = vectors.ravel()
    draws = _normal_draws()
    weights, shares = [], []
    miss, slope = _conditions(vectors)
    content = {
        kind: _log_content(kind, _MAYBE.get(kind, ()), asymmetry or {}, aberration) for *_, kind in _KINDS
    }
    possible = np.reshape(covariance, (-1, 4, 4)) + rounding
    for assumed, (label, part, pick, symmetry) in product(possible, _KINDS):
        spread = slope[pick] @ assumed @ slope[pick].T
        inverse = np.linalg.inv(spread)
        gain = assumed @ slope[pick].T @ inverse
        middle, left = flat - gain @ miss[pick], assumed - gain @ slope[pick] @ assumed
        weights.append(
            math.log(PRIOR[label] * part * _density(label, pick, middle.reshape(2, 2)))
            + content[symmetry]
            - float(miss[pick] @ inverse @ miss[pick]) / 2
            - math.log(2 * math.pi) * len(pick) / 2
            - float(np.linalg.slogdet(spread)[1]) / 2
        )
        values, axes = np.linalg.eigh(left)
        points = middle + draws @ (axes * np.sqrt(np.maximum(values, 0))).T
        labels = _labels(points.reshape(-1, 2, 2), tolerance)
        shares.append(np.bincount(labels, minlength=5) / len(labels))
    total = np.exp(np.array(weights) - max(weights))
    return np.asarray(total @ np.array(shares) / total.sum())


def _labels(bases: Array, tolerance: float) -> npt.NDArray[np.int64]:
    """Return the classes of bases that are reduced but for small changes, as `bravais_class` does of one."""
    u, v = bases[:, 0], bases[:, 1]
    product = -np.abs((u * v).sum(axis=1))
    uu, vv = (u * u).sum(axis=1), (v * v).sum(axis=1)
    # The two shortest of u, v and w = u + v, at an angle of at least 90 degrees, are a reduced basis.
    u, v, w = np.sqrt(np.sort(np.stack([uu, vv, uu + vv + 2 * product]), axis=0))
    right = (u * u + v * v - w * w) / (2 * v)
    hexagonal, square, centered = w - u, np.maximum(right, v - u), np.minimum(v - u, w - v)
    symmetric = np.minimum(hexagonal, square) <= tolerance
    half = np.minimum(right, centered) <= tolerance
    return np.select(
        [symmetric & (hexagonal <= square), symmetric, half & (right <= centered), half],
        [HEXAGONAL, SQUARE, RECTANGULAR, CENTERED],
        OBLIQUE,
    )


def _log_content(
    own: str, maybe: tuple[str, ...], asymmetry: Mapping[str, Asymmetry | None], aberration: float
) -> float:
    """Return the logarithm of the chance of the asymmetries that are seen, for content with one symmetry."""
    total = 0.0
    # Asymmetry is the square of a difference, and small differences are all equally frequent.
    by_chance = min(1.0, _BY_CHANCE * math.sqrt(1 + aberration / _ASYMMETRIC))
    for name, seen in asymmetry.items():
        if seen is None:
            continue
        limit = _ASYMMETRIC + 2 * seen.uncertainty
        symmetric = 1 / (1 + (seen.value / (limit + aberration)) ** 2)
        # Noise that hides asymmetries makes everything look symmetric.
        chance = 1 - (1 - by_chance) * _ASYMMETRIC / limit
        if name == own:
            chance = _SYMMETRIC
        elif name in maybe:
            chance = (1 + chance) / 2
        total += math.log(chance * symmetric + (1 - chance) * (1 - symmetric))
    return total


def _density(label: int, pick: list[int], vectors: Array) -> float:
    """Return the density of a class's lattices of this shape in what its symmetry leaves free."""
    if label in (HEXAGONAL, SQUARE):
        return 1.0
    cosine, vu, wu, wv = np.abs(_conditions(vectors)[0])
    if label == RECTANGULAR:
        near, (base, excess, width) = vu, _SQUARES
    elif label == CENTERED:
        near, (base, excess, width) = (min(cosine, wu) if pick == [1] else vu), _RHOMBS
    else:
        near, (base, excess, width) = min(cosine, vu, wv), _OBLIQUES
    density = base + excess * math.exp(-near / width)
    return float(density * (_SECOND if label == OBLIQUE else 1.0))


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
    """Return the same normal draws for every lattice, zero and opposite pairs, shape (n, 4)."""
    half = np.random.default_rng(0).standard_normal((_DRAWS // 2, 4))
    return np.concatenate([np.zeros((1, 4)), half, -half])
