"""The plane lattice of an image, from nothing but the image: vectors, class, cell, and how sure they are.

1. Shifts that repeat the image: maxima of its self-correlation over the overlap (`self_correlation`).
2. The lattice of the shortest ones, refined on all periods in view: squared difference between the image and a
   sum of waves on the reciprocal lattice, whose frequencies are four free numbers (`harmonics`).
3. What that sum leaves is searched for waves at fractions of the reciprocal lattice, one by one and all waves of
   a doubled or tripled cell together, against the noise beside them: superstructures of light atoms or small
   shifts, cells that looked smaller than they are (`lattice_search`).
4. Translations that the lattice lacks but that no wave forbids are added: cells that looked larger.
5. The class, with what noise and scan distortion leave open (`lattice_classes`).

Noise is measured in the image's own spectrum, so that nothing depends on its units or on the dose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.lattice_classes import class_probabilities
from atomvision_hub.analysis.lattice_search import Found, find_lattice
from atomvision_hub.analysis.lattice_symmetry import asymmetries
from atomvision_hub.structures.lattice import BravaisFit, bravais_class
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]

#: Distance in Å that crystals are forgiven, as in `structures.classify_lattice`.
TOLERANCE = 0.05
#: The same for images without pixel size, relative to the sum of the two shortest vectors.
RELATIVE_TOLERANCE = 0.006
#: Distortion (relative, root mean square) of scanned images: the drift of the preset ``typical``.
DISTORTION = 0.008
#: Share of images whose lattice has a superstructure that is not seen, or none where one is seen: without noise
#: and with that of the preset ``typical`` (training materials).
HIDDEN = (0.005, 0.03)
#: Score below which an image shows no lattice.
MIN_SCORE = 0.5

_MOST_PIXELS = 2**20  # the middle of a larger image tells the lattice


@dataclass(frozen=True)
class LatticeFit:
    """The lattice of an image, see `fit_lattice`.

    Lengths are in `unit`. Standard errors hold noise and distortions, not the calibration, which scales all
    lengths alike.

    Parameters
    ----------
    lattice
        Most probable Bravais class, one of `structures.LATTICES`; ``None`` where the image shows no lattice, and
        then all that follows is ``None`` or empty.
    probabilities
        Of the five classes, in the order of `structures.LATTICES`.
    a, b, gamma
        Conventional cell of that class: edges, a <= b, and angle in degrees, at least 90, as measured (not made
        symmetric).
    a_error, b_error, gamma_error
        Their standard errors.
    vectors
        Reduced basis as rows (x, y): x along columns, y along rows, downwards. Shape (2, 2).
    covariance
        Of (ax, ay, bx, by), shape (4, 4).
    vectors_px, covariance_px
        The same in pixels, the covariance of noise alone.
    margin
        Smallest change |da| + |db| of the vectors that changes the class; 0 where only a distortion makes the
        vectors fit it.
    alternatives
        The other classes with their distances, nearest first, as `BravaisFit.alternatives`.
    score
        0 to 1: how sure it is that there is a lattice; the share of the image's signal that repeats on it.
    periods
        How many times the two vectors fit into the view along their directions.
    tolerance
        Distance from a class that was forgiven.
    distortion
        Relative distortion that was assumed.
    pixel_size
        Å/px (row, column); ``None`` where the image is not calibrated.
    """

    lattice: str | None
    probabilities: tuple[float, ...]
    a: float | None
    b: float | None
    gamma: float | None
    a_error: float | None
    b_error: float | None
    gamma_error: float | None
    vectors: Array | None
    covariance: Array | None
    vectors_px: Array | None
    covariance_px: Array | None
    margin: float | None
    alternatives: tuple[tuple[str, float], ...]
    score: float
    periods: tuple[float, float] | None
    tolerance: float | None
    distortion: float
    pixel_size: tuple[float, float] | None

    @property
    def unit(self) -> str:
        """Unit of lengths: ``"Å"``, or ``"px"`` without calibration."""
        return "px" if self.pixel_size is None else "Å"

    def to_dict(self) -> dict[str, Any]:
        """Return all in plain types, for JSON."""
        values = {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in self.__dict__.items()
        }
        values["probabilities"] = dict(zip(LATTICES, self.probabilities, strict=False))
        values["alternatives"] = dict(self.alternatives)
        return {"unit": self.unit} | values


def fit_lattice(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float] | None = None,
    *,
    tolerance: float | None = None,
    distortion: float | None = None,
    min_score: float = MIN_SCORE,
) -> LatticeFit:
    """Return the plane lattice on which an image repeats, or that there is none.

    Parameters
    ----------
    image
        Grey levels [row, column], at least 16 pixels a side; pixels that are not finite count as the mean.
        Three periods of the lattice should be in view.
    pixel_size
        Å/px, one number or (row, column); ``None`` gives lengths in pixels.
    tolerance
        Distance from a class that is forgiven, in Å (px without calibration); displacements of columns that are
        this small make no superstructure. By default 0.05 Å, as crystals are labelled; without calibration 0.6 %
        of the two shortest vectors.
    distortion
        Relative root mean square distortion of the scan (drift moves and shears the lattice along the rows'
        direction). By default 0.01, and 0 where the image has no noise but the rounding of its grey levels.
    min_score
        Score below which the answer is that there is no lattice.

    Raises
    ------
    AnalysisError
        For what is no image, and for a pixel size that is no positive number.

    Examples
    --------
    >>> from atomvision_hub import load_structures, simulate_stem
    >>> frame = simulate_stem(load_structures("reference")["MoS2"], rotation=12)
    >>> fit = fit_lattice(frame.image, frame.pixel_size)
    >>> fit.lattice, round(fit.a, 2)
    ('hexagonal', 3.18)
    """
    grey = _grey(image)
    size = _sizes(pixel_size)
    for name, value in (("tolerance", tolerance), ("distortion", distortion)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise AnalysisError(f"{name} is {value}; give a number from 0, or leave it out")
    scale = np.array((1.0, 1.0) if size is None else size[::-1])
    allowed = TOLERANCE if tolerance is None and size is not None else tolerance
    middle = _middle(grey)
    found = find_lattice(
        middle, None if allowed is None else allowed / float(scale.mean()), _rounding(middle)
    )
    if found is None or found.explained < min_score:
        return _none(found.explained if found else 0.0, distortion, size)
    vectors = found.basis * scale
    if allowed is None:
        allowed = RELATIVE_TOLERANCE * float(np.hypot(*vectors.T).sum())
    if distortion is None:
        distortion = DISTORTION if found.scanned else 0.0
    covariance_px = found.covariance
    covariance = covariance_px * np.outer(*[np.tile(scale, 2)] * 2) + _distorted(vectors, distortion)
    waves = found.waves
    indices = np.rint(waves.frequencies @ found.basis.T).astype(int)
    asymmetry = asymmetries(indices, waves.frequencies / scale, waves.power, found.noise)
    probabilities = class_probabilities(vectors, covariance, allowed, asymmetry)
    hidden = HIDDEN[found.scanned]
    probabilities = (1 - hidden) * probabilities + hidden / len(LATTICES)
    label = int(probabilities.argmax())
    bravais = bravais_class(vectors, allowed)
    measured = _as_class(vectors, label)
    cell, errors = _cell(vectors, covariance, label)
    rows, columns = grey.shape
    extent = scale * (columns, rows)
    return LatticeFit(
        lattice=LATTICES[label],
        probabilities=tuple(probabilities.tolist()),
        a=cell[0],
        b=cell[1],
        gamma=cell[2],
        a_error=errors[0],
        b_error=errors[1],
        gamma_error=errors[2],
        vectors=vectors,
        covariance=covariance,
        vectors_px=found.basis,
        covariance_px=covariance_px,
        margin=bravais.margin if bravais.label == label else 0.0,
        alternatives=measured,
        score=found.explained,
        periods=_periods(vectors, extent),
        tolerance=allowed,
        distortion=distortion,
        pixel_size=size,
    )


def _none(score: float, distortion: float | None, size: tuple[float, float] | None) -> LatticeFit:
    return LatticeFit(
        lattice=None,
        probabilities=(),
        a=None,
        b=None,
        gamma=None,
        a_error=None,
        b_error=None,
        gamma_error=None,
        vectors=None,
        covariance=None,
        vectors_px=None,
        covariance_px=None,
        margin=None,
        alternatives=(),
        score=score,
        periods=None,
        tolerance=None,
        distortion=distortion or 0.0,
        pixel_size=size,
    )


def _middle(grey: Array) -> Array:
    side = math.isqrt(_MOST_PIXELS)
    rows, columns = (max(0, (n - side) // 2) for n in grey.shape)
    return grey[rows : rows + side, columns : columns + side]


def _rounding(grey: Array) -> float:
    """Return the variance that rounding to the image's grey levels makes."""
    # Few pixels show whether levels are apart, and all would have to be sorted.
    levels = np.unique(grey.ravel()[:: max(1, grey.size // 4096)])
    return float(np.diff(levels).min()) ** 2 / 12 if len(levels) > 1 else 0.0


def _distorted(vectors: Array, distortion: float) -> Array:
    """Return the covariance of (ax, ay, bx, by) by a drift of random direction while lines are scanned."""
    along = np.zeros((4, 2))
    for vector in (0, 1):
        along[2 * vector, 0] = along[2 * vector + 1, 1] = vectors[vector, 1]
    return np.asarray(along @ along.T * distortion**2 / 2)


def _as_class(vectors: Array, label: int) -> tuple[tuple[str, float], ...]:
    distances = (*bravais_class(vectors, 0.0).distances, 0.0)
    others = [(LATTICES[k], distance) for k, distance in enumerate(distances) if k != label]
    return tuple(sorted(others, key=lambda entry: entry[1]))


def _cell(vectors: Array, covariance: Array, label: int) -> tuple[list[float], list[float]]:
    """Return a, b, gamma of the conventional cell and their standard errors."""
    combine = np.eye(2)
    u, v = vectors
    if LATTICES[label] == "centered_rectangular":
        # The rhombus is made of the two vectors of most equal lengths.
        lengths = [float(np.hypot(*w)) for w in (u, v, u + v)]
        rhombus_of_shortest = lengths[1] - lengths[0] < lengths[2] - lengths[1]
        combine = np.array([[1.0, 1.0], [1.0, -1.0]] if rhombus_of_shortest else [[1.0, 0.0], [1.0, 2.0]])
    p, q = combine @ vectors
    if p @ p > q @ q:
        p, q, combine = q, p, combine[::-1]
    if p @ q > 0:
        q, combine = -q, combine * [[1.0], [-1.0]]
    a, b = float(np.hypot(*p)), float(np.hypot(*q))
    cosine = max(-1.0, float(p @ q) / (a * b))
    # Derivatives of a, b, gamma by (px, py, qx, qy); angles turn across the vectors.
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    sign = math.copysign(1.0, float(p[0] * q[1] - p[1] * q[0]))
    slope = np.zeros((3, 4))
    slope[0, :2], slope[1, 2:] = p / a, q / b
    slope[2, :2], slope[2, 2:] = sign * (p @ turn.T) * -1 / a**2 * -1, sign * (q @ turn.T) / b**2 * -1
    full = np.kron(combine, np.eye(2))
    spread = slope @ full @ covariance @ full.T @ slope.T
    errors = np.sqrt(np.maximum(np.diag(spread), 0))
    return [a, b, math.degrees(math.acos(cosine))], [
        float(errors[0]),
        float(errors[1]),
        math.degrees(float(errors[2])),
    ]


def _periods(vectors: Array, extent: Array) -> tuple[float, float]:
    """Return how often each vector fits into the view along its own direction."""
    with np.errstate(divide="ignore"):
        first, second = (float((extent / np.abs(vector)).min()) for vector in vectors)
    return first, second


def _grey(image: npt.ArrayLike) -> Array:
    try:
        numbers = np.asarray(image)
        grey = numbers.real.astype(np.float64)
        if np.iscomplexobj(numbers):
            raise TypeError
    except (TypeError, ValueError):
        raise AnalysisError("the image is no array of numbers; give grey levels [row, column]") from None
    if grey.ndim != 2 or min(grey.shape) < 16:
        told = " x ".join(map(str, grey.shape))
        raise AnalysisError(f"the image is {told}; give grey levels [row, column], at least 16 x 16")
    finite = np.isfinite(grey)
    if not finite.any():
        raise AnalysisError("the image has no finite pixel")
    return np.where(finite, grey, grey[finite].mean())


def _sizes(pixel_size: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if pixel_size is None:
        return None
    sizes = np.broadcast_to(np.asarray(pixel_size, dtype=float), (2,))
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise AnalysisError(f"pixel_size is {pixel_size}; give Å/px above 0, one number or (row, column)")
    return float(sizes[0]), float(sizes[1])


__all__ = ["BravaisFit", "Found", "LatticeFit", "fit_lattice"]
