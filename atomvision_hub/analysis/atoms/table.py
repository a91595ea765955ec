"""Columns of atoms as a table: what the image shows at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from atomvision_hub.analysis.atoms.pixels import Array


@dataclass(frozen=True)
class AtomTable:
    """Columns of atoms found in an image, one entry each, ordered by row, then column.

    Attributes
    ----------
    x, y
        Centre along columns and rows, in pixels; pixel centres are integers.
    radius
        Half width at half maximum of the column's profile, in pixels.
    max, min, mean
        Grey levels of the image within `radius` of the centre.
    amplitude
        Height of the fitted Gaussian above the background, in grey levels.
    confidence
        0..1 from amplitude over its standard error in the noise around it, s: ``Phi((s - 9) / 1.5)`` with the
        normal distribution's Phi. The highest peak of an image of pure noise reaches s = 8.5 (measured), so a
        confidence above one half hardly comes from noise. Without noise it is 1.
    edge
        Whether the centre lies within two radii of the image's edge, where a part of the profile is missing.
    shape
        Rows and columns of the image.
    pixel_size
        Å/px along (rows, columns), or None.
    width
        Common standard deviation of the profiles, in pixels (rows, columns).
    """

    x: Array
    y: Array
    radius: Array
    max: Array
    min: Array
    mean: Array
    amplitude: Array
    confidence: Array
    edge: npt.NDArray[np.bool_]
    shape: tuple[int, int]
    pixel_size: tuple[float, float] | None
    width: tuple[float, float]

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"AtomTable({len(self)} columns in {rows} x {columns} px)"

    def positions(self) -> Array:
        """Return the centres (x, y) in Å, or in pixels where no pixel size is known, shape (n, 2)."""
        dy, dx = self.pixel_size or (1.0, 1.0)
        return np.stack([self.x * dx, self.y * dy], axis=1)

    def select(self, keep: npt.NDArray[Any]) -> AtomTable:
        """Return the columns of a boolean or index array."""
        arrays = ("x", "y", "radius", "max", "min", "mean", "amplitude", "confidence", "edge")
        return AtomTable(
            **{name: getattr(self, name)[keep] for name in arrays},
            shape=self.shape,
            pixel_size=self.pixel_size,
            width=self.width,
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the per-column values as JSON-ready lists."""
        arrays = ("x", "y", "radius", "max", "min", "mean", "amplitude", "confidence", "edge")
        return {name: getattr(self, name).tolist() for name in arrays}


def measured(
    image: npt.NDArray[np.float32],
    peaks: tuple[Array, Array, Array, Array],
    sigma: tuple[float, float],
    pixel_size: tuple[float, float] | None,
    mask: npt.NDArray[Any] | None = None,
) -> AtomTable:
    """Return the table of fitted peaks.

    Parameters
    ----------
    image
        Grey levels [row, column].
    peaks
        Centres x and y (px, inside the image), heights above the background and their standard errors.
    sigma
        Standard deviation of their profiles, px (rows, columns).
    pixel_size
        Å/px (rows, columns), or None.
    mask
        Probability of "atom"; peaks outside of it are left out.
    """
    order = np.lexsort(peaks[:2])
    x, y, height, error = (values[order] for values in peaks)
    if mask is not None and len(x):
        inside = np.asarray(mask, dtype=float)[np.rint(y).astype(int), np.rint(x).astype(int)] >= 0.5
        x, y, height, error = x[inside], y[inside], height[inside], error[inside]
    rows, columns = image.shape
    half = np.sqrt(2 * np.log(2))  # half width at half maximum of a Gaussian, in standard deviations
    reach = [half * side for side in sigma]
    v, u = (np.arange(-int(side) - 1, int(side) + 2) for side in reach)
    row, column = np.rint(y).astype(np.intp)[:, None] + v, np.rint(x).astype(np.intp)[:, None] + u
    q = np.square((row - y[:, None]) / reach[0]).astype(np.float32)
    p = np.square((column - x[:, None]) / reach[1]).astype(np.float32)
    q[(row < 0) | (row >= rows)] = p[(column < 0) | (column >= columns)] = np.inf
    near = q[:, :, None] + p[:, None, :] <= 1
    # At least the pixel of the centre, however narrow the columns.
    near[:, len(v) // 2, len(u) // 2] = True
    row, column = np.minimum(np.maximum(row, 0), rows - 1), np.minimum(np.maximum(column, 0), columns - 1)
    found = image.ravel().take(row[:, :, None] * columns + column[:, None, :])
    weight = near.astype(np.float32)
    number = np.einsum("nvu->n", weight)
    score = np.divide(height, error, out=np.full(len(x), np.inf), where=error > 0)
    edge = (x < 2 * reach[1]) | (x > columns - 1 - 2 * reach[1])
    edge |= (y < 2 * reach[0]) | (y > rows - 1 - 2 * reach[0])
    return AtomTable(
        x=x,
        y=y,
        radius=np.full(len(x), float(np.sqrt(reach[0] * reach[1]))),
        max=np.where(near, found, np.float32(-np.inf)).max(axis=(1, 2), initial=-np.inf).astype(float),
        min=np.where(near, found, np.float32(np.inf)).min(axis=(1, 2), initial=np.inf).astype(float),
        mean=np.einsum("nvu,nvu->n", weight, found).astype(float) / np.maximum(number, 1),
        amplitude=height.astype(float),
        confidence=special.ndtr((score - 9) / 1.5),
        edge=edge,
        shape=(rows, columns),
        pixel_size=pixel_size,
        width=sigma,
    )
