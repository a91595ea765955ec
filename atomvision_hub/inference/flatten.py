"""An image without its slow changes: thickness, vignettes, vacuum beside a crystal, hot pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float64]

#: Standard deviation of the mean that counts as ground, relative to the shorter side of the image.
GROUND = 1 / 16
#: Percent of the pixels at each end that are cut off before, and how far (times the 99th percentile) after.
_CLIP, _FAR = 0.1, 2.0
#: Smallest local contrast that is brought up to the typical one, relative to it: vacuum stays weak.
_WEAKEST = 0.3


def flattened(values: npt.NDArray[np.number], least: float = 0.0) -> Array:
    """Return an image whose mean is zero and whose contrast is even all over.

    A Gaussian mean is subtracted, and what is left is divided by its local root mean square. Both are over a
    sixteenth of the shorter side, much more than columns of atoms are apart.

    Parameters
    ----------
    values
        Finite grey levels [row, column].
    least
        Smallest standard deviation of the Gaussian mean in pixels: in a view of few columns a sixteenth of
        the side would be less than a column.
    """
    low, high = np.percentile(values, (_CLIP, 100 - _CLIP), method="nearest")
    if low == high:
        low, high = values.min(), values.max()
    even = np.clip(values, low, high).astype(np.float64)
    sigma = max(GROUND * min(even.shape), least)
    even -= blurred(even, sigma)
    limit = _FAR * float(np.percentile(np.abs(even), 99))
    if limit > 0:
        np.clip(even, -limit, limit, out=even)
    contrast = np.sqrt(np.maximum(blurred(even**2, sigma), 0))
    typical = float(np.median(contrast))
    return np.asarray(even / np.maximum(contrast, _WEAKEST * typical)) if typical > 0 else even


def blurred(values: Array, sigma: float) -> Array:
    """Return the Gaussian mean, from blocks of a quarter of its width where that is several pixels."""
    step = max(1, int(sigma / 4))
    rows, columns = values.shape
    padded = np.pad(values, [(0, -n % step) for n in values.shape], mode="edge")
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).mean(axis=(1, 3))
    coarse = ndimage.gaussian_filter(blocks, sigma / step, mode="nearest", truncate=3)
    if step == 1:
        return np.asarray(coarse)
    fine = ndimage.zoom(coarse, step, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[:rows, :columns])
