"""Sets of classes that hold the true one as often as promised, from any classifier's probabilities.

Split conformal prediction: on materials that the classifier has not seen, how improbable it finds the true
class says how improbable a class may be and yet belong to the set. Whatever the probabilities are worth, such
sets hold the true class with the promised chance on images of the same kind as those of the calibration:
V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); least ambiguous sets:
M. Sadinle, J. Lei, L. Wasserman, J. Am. Stat. Assoc. 114, 223 (2019), doi 10.1080/01621459.2017.1395341.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ConformalSets:
    """A calibrated rule for sets of classes, see `calibrate_sets`.

    Parameters
    ----------
    level
        Promised share of images whose set holds the true class.
    threshold
        Probability from which on a class is in the set. The most probable class always is.
    """

    level: float
    threshold: float

    def members(self, probabilities: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which classes are in the sets of images, shape (n, classes) as the probabilities."""
        p = _table(probabilities)
        return np.asarray((p >= self.threshold) | (p == p.max(axis=1, keepdims=True)))


def calibrate_sets(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    level: float,
    groups: npt.ArrayLike | None = None,
) -> ConformalSets:
    """Return the rule that holds the true class with a chance of `level` on images like these.

    Parameters
    ----------
    probabilities
        Of the classes, shape (n, classes): images that did not train the classifier.
    labels
        True classes, (n,).
    level
        Between 0 and 1.
    groups
        What images belong together, such as the composition, (n,): poses of a material are no independent
        observations, so each group counts once (R. Dunn, L. Wasserman, A. Ramdas, J. Am. Stat. Assoc. 118,
        2491 (2023), doi 10.1080/01621459.2022.2060112, pooled distribution functions).

    Raises
    ------
    AnalysisError
        Without images, and for a level outside (0, 1).
    """
    p, truth = _table(probabilities), np.asarray(labels, dtype=int)
    if not 0 < level < 1:
        raise AnalysisError(f"level is {level}; give the share of sets that hold the true class, as 0.95")
    if not len(p) or truth.shape != (len(p),):
        raise AnalysisError(f"{len(p)} rows of probabilities and {truth.size} labels; give one label a row")
    own = p[np.arange(len(p)), truth]
    named = np.arange(len(p)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.bincount(named)
    # One more observation, the image to come, could be worse than all of these.
    wanted = math.ceil(level * (len(counts) + 1) - 1e-9)
    if wanted > len(counts):
        return ConformalSets(level, 0.0)
    order = np.argsort(-own, kind="stable")
    reached = np.cumsum(1 / counts[named[order]])
    place = int(np.searchsorted(reached, wanted - 1e-9))
    return ConformalSets(level, float(own[order][min(place, len(p) - 1)]))


def calibration_error(probabilities: npt.ArrayLike, right: npt.ArrayLike, bins: int = 10) -> float:
    """Return the expected calibration error: by how much confidence and share of right answers differ.

    Mean over bins of the largest probability, weighted by the images in them: C. Guo, G. Pleiss, Y. Sun,
    K. Weinberger, Proc. Mach. Learn. Res. 70, 1321 (2017), arXiv:1706.04599.

    Parameters
    ----------
    probabilities
        Shape (n, classes).
    right
        Whether the answers are right, (n,).
    bins
        Of equal width, from 0 to 1.

    Raises
    ------
    AnalysisError
        Without images.
    """
    confidence, hits = _table(probabilities).max(axis=1), np.asarray(right, dtype=float)
    if not len(hits) or hits.shape != confidence.shape:
        raise AnalysisError(
            f"{len(confidence)} rows of probabilities and {hits.size} answers; give one a row"
        )
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))


def _table(probabilities: npt.ArrayLike) -> Array:
    p = np.asarray(probabilities, dtype=float)
    if p.ndim != 2 or not np.isfinite(p).all():
        raise AnalysisError(f"probabilities are an array {p.shape}; give finite numbers (images, classes)")
    return p
