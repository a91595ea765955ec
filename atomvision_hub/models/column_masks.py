"""What a segmenter's answer gains from the columns that explain an image: their disks, where both agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from atomvision_hub.analysis.column_model import MOST_LEFT, ColumnFit, fit_columns
from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]

#: Overlap (intersection over union) of the disks and the network's own mask below which the network is right,
#: in images with noise and in those with none but rounding. Where noise hides columns the fit has too few and
#: the network does not; columns that are wider than 0.5 Å look like pairs, whose disks overlap with single
#: ones by less than a half. Chosen on training images of seven doses: 0.1 more or less hardly matters.
AGREEMENT, AGREEMENT_WITHOUT_NOISE = 0.6, 0.5

_ROUNDING = 2 / 12**0.5 / 255  # twice the noise of rounding to 8 bits, relative to the range of grey levels
_EDGE = 0.5  # pixels from an outline at which a pixel counts as sure


def with_columns(
    probability: Array, image: Array, pixel_size: float, radius: float, threshold: float
) -> Array:
    """Return the probability of "atom" from the disks of fitted columns, or as it was.

    Parameters
    ----------
    probability
        The network's, [row, column].
    image
        Grey levels of the same shape.
    pixel_size
        Å/px.
    radius
        Of an atom's disk, Å.
    threshold
        Probability above which a pixel counts as atom. It becomes that of a disk's outline.

    Returns
    -------
    ndarray
        `probability` itself where columns do not explain the image, where it is too large or its pixels too
        coarse for a fit (`fit_columns`), and where disks and network do not agree.
    """
    try:
        fit = fit_columns(image, pixel_size)
    except AnalysisError:  # too large or too small an image, pixels too coarse
        return probability
    if fit is None or fit.ratio > MOST_LEFT:
        return probability
    depth = radius / pixel_size - _distances(fit, (image.shape[0], image.shape[1]))
    inside, own = depth >= 0, probability >= threshold
    noisy = fit.noise > _ROUNDING * float(np.ptp(image))
    if (inside & own).sum() < (AGREEMENT if noisy else AGREEMENT_WITHOUT_NOISE) * (inside | own).sum():
        return probability
    share = np.clip(depth / _EDGE, -1, 1)
    return np.asarray(threshold + np.where(share < 0, threshold, 1 - threshold) * share)


def _distances(fit: ColumnFit, shape: tuple[int, int]) -> Array:
    """Return the distance of every pixel from the nearest column, px."""
    row, column = np.mgrid[: shape[0], : shape[1]].reshape(2, -1)
    found, _ = cKDTree(np.stack([fit.x, fit.y], 1)).query(np.stack([column, row], 1))
    return np.asarray(found.reshape(shape))
