"""Maps of many images: t-SNE of any features, and how far such a map can be believed.

Two figures go with every map. Trustworthiness (Venna and Kaski 2001, doi 10.1007/3-540-44668-0_68) tells
whether neighbours on the map are neighbours among the features. Label agreement tells whether neighbours are
of one class: the mean share of a point's nearest neighbours with its label, beside the share by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]
#: Numbers a feature vector is reduced to before t-SNE, by principal components, as its authors do.
_REDUCED = 50
#: Fewest points of which neighbours can be told.
_FEWEST = 5


@dataclass(frozen=True)
class Agreement:
    """How often neighbours have one label.

    Attributes
    ----------
    value
        Mean share of the `k` nearest other points that have a point's label.
    chance
        Its expectation when labels are dealt out at random.
    n, k
        Points, neighbours.
    """

    value: float
    chance: float
    n: int
    k: int


@dataclass(frozen=True)
class EmbeddedMap:
    """A two-dimensional map of feature vectors.

    Attributes
    ----------
    points
        [n, 2].
    trustworthiness
        Of neighbours on the map, 0..1; 0.5 is what chance gives of many points.
    before, after
        Label agreement among the features and on the map; None without labels.
    k
        Neighbours of all three figures.
    """

    points: Array
    trustworthiness: float
    before: Agreement | None
    after: Agreement | None
    k: int


def embed(
    features: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    perplexity: float = 30.0,
    k: int = 10,
    seed: int = 0,
) -> EmbeddedMap:
    """Map feature vectors to the plane by t-SNE (van der Maaten and Hinton 2008, JMLR 9, 2579).

    Parameters
    ----------
    features
        [n, d]; vectors longer than 50 are reduced to 50 principal components for t-SNE alone.
    labels
        Classes, [n].
    perplexity
        Effective number of neighbours; taken down to a third of the points where those are few.
    k
        Neighbours of the figures; taken down likewise.
    seed
        Of t-SNE.

    Returns
    -------
    EmbeddedMap

    Raises
    ------
    AnalysisError
        When there are fewer than 5 vectors, or they are not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    values = _checked(features)
    count = len(values)
    k = min(k, max(1, (count - 1) // 2 - 1))
    reduced = values
    if values.shape[1] > _REDUCED:
        reduced = PCA(min(_REDUCED, count), svd_solver="full", random_state=seed).fit_transform(values)
    perplexity = min(perplexity, (count - 1) / 3)
    # Deterministic start; one scale for all features keeps the start as small as t-SNE wants it.
    start = "pca" if reduced.shape[1] >= 2 and np.ptp(reduced) > 0 else "random"
    points: Array = TSNE(
        perplexity=perplexity, init=start, learning_rate="auto", random_state=seed
    ).fit_transform(reduced.astype(np.float64))
    points = np.asarray(points, dtype=np.float64)
    given = None if labels is None else np.asarray(labels)
    return EmbeddedMap(
        points=points,
        trustworthiness=float(trustworthiness(values, points, n_neighbors=k)),
        before=None if given is None else label_agreement(values, given, k=k),
        after=None if given is None else label_agreement(points, given, k=k),
        k=k,
    )


def label_agreement(features: npt.ArrayLike, labels: npt.ArrayLike, *, k: int = 10) -> Agreement:
    """Return the mean share of a vector's `k` nearest others (Euclidean) that have its label.

    Parameters
    ----------
    features
        [n, d].
    labels
        Classes, [n].
    k
        Neighbours, fewer than n.

    Raises
    ------
    AnalysisError
        When shapes do not fit.
    """
    from sklearn.neighbors import NearestNeighbors

    values, given = _checked(features), np.asarray(labels)
    count = len(values)
    if given.shape != (count,):
        raise AnalysisError(f"{count} vectors need {count} labels, not an array of {given.shape}")
    if not 1 <= k < count:
        raise AnalysisError(f"of {count} points k must lie between 1 and {count - 1}, not {k}")
    _, near = NearestNeighbors(n_neighbors=k + 1).fit(values).kneighbors(values)
    # The point itself is usually the first; of equal points another may come before it.
    itself = near == np.arange(count)[:, None]
    itself[~itself.any(axis=1), -1] = True
    others = near[~itself].reshape(count, k)
    share = float((given[others] == given[:, None]).mean())
    sizes = np.unique(given, return_counts=True)[1]
    chance = float((sizes * (sizes - 1)).sum() / (count * (count - 1)))
    return Agreement(share, chance, count, k)


def _checked(features: npt.ArrayLike) -> npt.NDArray[Any]:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < _FEWEST or not values.shape[1]:
        raise AnalysisError(f"a map needs {_FEWEST} or more vectors [n, d], not an array of {values.shape}")
    if not np.isfinite(values).all():
        raise AnalysisError("the feature vectors hold values that are not finite")
    return values
