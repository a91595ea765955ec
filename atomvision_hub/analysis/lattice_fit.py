"""The plane lattice of an image, from nothing but the image: vectors, class, cell, and how sure they are.

1. Shifts that repeat the image: maxima of its self-correlation over the overlap (`self_correlation`).
2. The lattice of the shortest ones, refined on all periods in view: squared difference between the image and
   a sum of waves on the reciprocal lattice, whose frequencies are four free numbers (`harmonics`). Scan lines
   that jitter are moved back against that sum.
3. What the sum leaves is searched for waves at fractions of the reciprocal lattice, one by one and all waves
   of a doubled or tripled cell together, against the noise beside them: superstructures of light atoms or
   small shifts, cells that looked smaller than they are (`lattice_search`).
4. Translations that the lattice lacks but that no wave forbids are added (cells that looked larger), and
   those that only displacements within the tolerance of crystal labels forbid.
5. The class, with what noise and scan distortion leave open, and with the symmetry of what repeats
   (`lattice_classes`, `lattice_symmetry`).

Noise is measured in the image's own spectrum, so that nothing depends on units or on the dose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.lattice_classes import class_probabilities
from atomvision_hub.analysis.lattice_search import RELATIVE_TOLERANCE, Found, find_lattice
from atomvision_hub.analysis.lattice_symmetry import asymmetries
from atomvision_hub.structures.lattice import CENTERED, bravais_class, reduce_basis
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]

#: Distance in Å that crystals are forgiven, as in `structures.classify_lattice`.
TOLERANCE = 0.05
#: Distortion (relative, root mean square) of scanned images: the drift of the preset ``typical``.
DISTORTION = 0.01
#: Share of images whose superstructure is not seen, or that are said to have one they do not have: without
#: noise, and with that of the preset ``typical`` (training materials of 2DMatPedia).
HIDDEN = (0.005, 0.02)
#: Score below which an image shows no lattice.
MIN_SCORE = 0.8

_MOST_PIXELS = 2**20  # the middle of a larger image tells the lattice


@dataclass(frozen=True, kw_only=True)
class LatticeFit:
    """The lattice of an image, see `fit_lattice`.

    Lengths are in `unit`. Standard errors hold noise and distortions, not the calibration, which scales all
    lengths alike.

    Parameters
    ----------
    lattice
        Most probable Bravais class, one of `structures.LATTICES`; ``None`` where the image shows no lattice,
        and then all other fields but `score`, `distortion` and `pixel_size` are ``None`` or empty.
    probabilities
        Of the five classes, in the order of `structures.LATTICES`.
    a, b, gamma
        Conventional cell of that class: edges, a <= b, and angle in degrees, at least 90, as measured (not
        made symmetric).
    a_error, b_error, gamma_error
        Their standard errors.
    vectors
        Reduced basis as rows (x, y): x along columns, y along rows, downwards. Shape (2, 2).
    covariance
        Of (ax, ay, bx, by), shape (4, 4).
    vectors_px, covariance_px
        The same in pixels, the covariance of noise alone.
    margin
        No change of the vectors |da| + |db| below it changes the class, see `structures.lattice`; 0 where
        only a distortion makes the vectors fit the class.
    alternatives
        The other classes with their distances, nearest first.
    score
        0 to 1: the share of the image's waves that the lattice explains, less what any lattice would.
    periods
        How many times the two vectors fit into the view along their directions.
    tolerance
        Distance from a class that was forgiven.
    distortion
        Relative distortion that was assumed, root mean square.
    jitter
        Root mean square offset of the scan lines along x; 0 where they are straight.
    asymmetry
        For symmetries that the lattice may have, how much waves differ that it makes equal (0 to 1), see
        `lattice_symmetry.OPERATIONS`.
    pixel_size
        Å/px (row, column); ``None`` where the image is not calibrated.
    """

    lattice: str | None = None
    probabilities: tuple[float, ...] = ()
    a: float | None = None
    b: float | None = None
    gamma: float | None = None
    a_error: float | None = None
    b_error: float | None = None
    gamma_error: float | None = None
    vectors: Array | None = None
    covariance: Array | None = None
    vectors_px: Array | None = None
    covariance_px: Array | None = None
    margin: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()
    score: float
    periods: tuple[float, float] | None = None
    tolerance: float | None = None
    distortion: float
    jitter: float | None = None
    asymmetry: tuple[tuple[str, float], ...] = ()
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
        values["asymmetry"] = dict(self.asymmetry)
        return {"unit": self.unit} | values


def fit_lattice(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float] | None = None,
    *,
    tolerance: float | None = None,
    distortion: float | Sequence[float] | None = None,
    aberration: float = 0.0,
    min_score: float = MIN_SCORE,
) -> LatticeFit:
    """Return the plane lattice on which an image repeats, or that there is none.

    Parameters
    ----------
    image
        Grey levels [row, column], at least 16 pixels a side; pixels that are not finite count as the mean.
        Three periods of the lattice should be in view. Of images beyond 1024 x 1024 pixels the middle counts.
    pixel_size
        Å/px, one number or (row, column); ``None`` gives lengths in pixels.
    tolerance
        Distance from a class that is forgiven, in Å (px without calibration); displacements of columns that
        are this small make no superstructure. By default 0.05 Å, as crystals are labelled; without
        calibration 0.6 % of the sum of the two shortest vectors.
    distortion
        Relative root mean square distortion of the scan (drift shears and stretches the lattice along the
        rows' direction); several, equally likely, where some scans are much worse than most. By default
        0.01, and 0 where the image has no noise but the rounding of its grey levels.
    aberration
        Asymmetry (see `LatticeFit.asymmetry`) that the instrument may give to a symmetric crystal: coma,
        three-fold astigmatism, a tilt of the crystal. By default none.
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
    grey, size = _middle(_grey(image)), _sizes(pixel_size)
    levels = None if distortion is None else np.atleast_1d(np.asarray(distortion, dtype=float))
    for name, value in (
        ("tolerance", tolerance),
        ("distortion", distortion),
        ("aberration", aberration),
        ("min_score", min_score),
    ):
        numbers = np.atleast_1d(np.asarray(0.0 if value is None else value, dtype=float))
        if not (numbers.size and (np.isfinite(numbers) & (numbers >= 0)).all()):
            raise AnalysisError(f"{name} is {value}; give a number from 0, or leave it out")
    scale = np.array((1.0, 1.0) if size is None else size[::-1])
    allowed = TOLERANCE if tolerance is None and size is not None else tolerance
    # The same numbers whatever the unit: single precision comes after this.
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-300)
    found = find_lattice(grey, None if allowed is None else allowed / float(scale.mean()), _rounding(grey))
    if levels is None:
        levels = np.array([DISTORTION if found is not None and found.scanned else 0.0])
    if found is None or found.explained < min_score:
        score = found.explained if found else 0.0
        return LatticeFit(score=score, distortion=_usual(levels), pixel_size=size)
    return _answer(found, grey.shape, scale, allowed, levels, aberration, size)


def _answer(
    found: Found,
    shape: tuple[int, ...],
    scale: Array,
    allowed: float | None,
    levels: Array,
    aberration: float,
    size: tuple[float, float] | None,
) -> LatticeFit:
    # Where pixels are not square, vectors that are shortest in pixels need not be so in Å.
    vectors = np.array(reduce_basis(found.basis * scale)).reshape(2, 2)
    change = np.kron(np.rint(vectors / scale @ np.linalg.inv(found.basis)), np.eye(2))
    noise_px = change @ found.covariance @ change.T
    noise = noise_px * np.outer(*[np.tile(scale, 2)] * 2)
    distortion = _usual(levels)
    covariance = noise + _distorted(vectors, distortion)
    if allowed is None:
        allowed = RELATIVE_TOLERANCE * float(np.hypot(*vectors.T).sum())
    waves = found.waves
    indices = np.rint(waves.frequencies @ (vectors / scale).T).astype(int)
    asymmetry = asymmetries(indices, waves.frequencies / scale, waves.power, found.noise)
    hidden = HIDDEN[found.scanned]
    possible = np.array([noise + _distorted(vectors, level) for level in levels])
    probabilities = class_probabilities(vectors, possible, allowed, asymmetry, aberration)
    probabilities = (1 - hidden) * probabilities + hidden / len(LATTICES)
    label = int(probabilities.argmax())
    bravais = bravais_class(vectors, allowed)
    distances = [(LATTICES[k], d) for k, d in enumerate((*bravais.distances, 0.0)) if k != label]
    cell, errors = _conventional(vectors, covariance, label)
    first, second = (float((scale * shape[::-1] / np.abs(vector).clip(1e-12)).min()) for vector in vectors)
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
        vectors_px=vectors / scale,
        covariance_px=noise_px,
        margin=bravais.margin if bravais.label == label else 0.0,
        alternatives=tuple(sorted(distances, key=lambda entry: entry[1])),
        score=found.explained,
        periods=(first, second),
        tolerance=allowed,
        distortion=distortion,
        jitter=found.jitter * float(scale[0]),
        asymmetry=tuple((name, seen.value) for name, seen in asymmetry.items() if seen is not None),
        pixel_size=size,
    )


def _middle(grey: Array) -> Array:
    side = math.isqrt(_MOST_PIXELS)
    top, left = (max(0, (n - side) // 2) for n in grey.shape)
    return grey[top : top + side, left : left + side]


def _rounding(grey: Array) -> float:
    """Return the variance that rounding to the image's grey levels makes, of 4096 levels at most.

    So an exact image in floating point counts as exact, and not as one with a noise of 1e-7.
    """
    # A part of the pixels shows how far levels are apart; all would have to be sorted.
    levels = np.unique(grey.ravel()[:: max(1, grey.size // 4096)])
    if len(levels) < 2:
        return 0.0
    return max(float(np.diff(levels).min()), float(np.ptp(levels)) / 4096) ** 2 / 12


def _usual(levels: Array) -> float:
    return math.sqrt(float((levels**2).mean()))


def _distorted(vectors: Array, distortion: float) -> Array:
    """Return the covariance of (ax, ay, bx, by) by a drift of random direction while lines are scanned."""
    along = np.zeros((4, 2))
    for vector in (0, 1):
        along[2 * vector, 0] = along[2 * vector + 1, 1] = vectors[vector, 1]
    return np.asarray(along @ along.T * distortion**2 / 2)


def _conventional(vectors: Array, covariance: Array, label: int) -> tuple[list[float], list[float]]:
    """Return a, b, gamma of the conventional cell and their standard errors."""
    combine = np.eye(2)
    if label == CENTERED:
        # The rhombus is made of the two vectors of most equal lengths.
        u, v, w = (float(np.hypot(*vector)) for vector in (*vectors, vectors.sum(axis=0)))
        combine = np.array([[1.0, 1.0], [1.0, -1.0]] if v - u < w - v else [[1.0, 0.0], [1.0, 2.0]])
    lengths = np.hypot(*(combine @ vectors).T)
    if lengths[0] > lengths[1]:
        combine = combine[::-1]
    p, q = combine @ vectors
    if p @ q > 0:
        q, combine = -q, combine * [[1.0], [-1.0]]
    a, b = float(np.hypot(*p)), float(np.hypot(*q))
    turned = math.copysign(1.0, float(p[0] * q[1] - p[1] * q[0]))
    # Derivatives by (px, py, qx, qy): lengths change along the vectors, the angle across them.
    slope = np.zeros((3, 4))
    slope[0, :2], slope[1, 2:] = p / a, q / b
    slope[2] = turned * np.array([p[1] / a**2, -p[0] / a**2, -q[1] / b**2, q[0] / b**2])
    slope = slope @ np.kron(combine, np.eye(2))
    errors = np.sqrt(np.einsum("ij,jk,ik->i", slope, covariance, slope).clip(0))
    gamma = math.degrees(math.acos(max(-1.0, float(p @ q) / (a * b))))
    return [a, b, gamma], [float(errors[0]), float(errors[1]), math.degrees(float(errors[2]))]


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
