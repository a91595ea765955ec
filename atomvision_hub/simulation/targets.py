"""What a model should find in an image: the table of its atoms, the columns they form, and masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Table = np.ndarray[tuple[int], np.dtype[np.void]]
Mask = npt.NDArray[np.bool_]

#: Fields of the atom table, those of `AtomColumns`.
ATOM_DTYPE = np.dtype(
    [
        ("x", np.float32),
        ("y", np.float32),
        ("z", np.float32),
        ("number", np.uint8),
        ("index", np.int32),
        ("column", np.int32),
        ("visible", np.bool_),
    ]
)

#: Atoms whose projections are closer than this, in Å, belong to one column.
COLUMN_DISTANCE = 0.05


def overlap_columns(
    x: npt.ArrayLike, y: npt.ArrayLike, distance: float = COLUMN_DISTANCE
) -> npt.NDArray[np.int32]:
    """Return which atoms overlap in projection.

    Single linkage: atoms closer than `distance` share a column, and so do atoms joined by a chain of such
    neighbours.

    Parameters
    ----------
    x, y
        Positions in the image plane, (n,), in the unit of `distance` (Å).
    distance
        Largest distance of neighbours.

    Returns
    -------
    int32 array (n,) of column numbers, counted from zero in the order of the first atom of each.
    """
    px, py = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    label = np.arange(len(px), dtype=np.int32)
    first, second = _close_pairs(px, py, distance)
    while np.any(label[first] != label[second]):
        lower = np.minimum(label[first], label[second])
        np.minimum.at(label, first, lower)
        np.minimum.at(label, second, lower)
        label = label[label]
    # Labels are indices of first atoms: numbering those that stand for themselves keeps the order.
    number = np.cumsum(label == np.arange(len(label)), dtype=np.int32) - np.int32(1)
    return number[label]


def _close_pairs(x: Array, y: Array, distance: float) -> tuple[Indices, Indices]:
    """Return the pairs of points within `distance`: compare each with those that follow it in one direction.

    The direction is oblique to lattices that lie along the axes, so few points follow closely.
    """
    along = x + 0.6180339887 * y
    order = np.argsort(along)
    along, reach = along[order], distance * 1.1756  # the length of (1, 0.618...), rounded up
    x, y = x[order], y[order]
    near, pairs = np.arange(len(x)), []
    for lag in range(1, len(x)):
        near = near[: np.searchsorted(near, len(x) - lag)]
        near = near[along[near + lag] - along[near] <= reach]
        if len(near) == 0:
            break
        close = np.hypot(x[near + lag] - x[near], y[near + lag] - y[near]) <= distance
        pairs.append((near[close], near[close] + lag))
    first, second = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=np.intp)
    return order[first], order[second]


def disk_mask(
    x: npt.ArrayLike, y: npt.ArrayLike, shape: tuple[int, int], pixel_size: tuple[float, float], radius: float
) -> Mask:
    """Return the pixels whose centre lies within `radius` of an atom.

    A pixel belongs to the disk of an atom when ``((row - y) / ry)² + ((column - x) / rx)² <= 1`` with
    ``ry = radius / pixel_size[0]`` and ``rx = radius / pixel_size[1]``.

    Parameters
    ----------
    x, y
        Column and row coordinates of the atoms in pixels, (n,).
    shape
        Rows and columns.
    pixel_size
        Pixel size along rows and columns, in Å/px.
    radius
        Radius of the disks, in Å.
    """
    ry, rx = radius / pixel_size[0], radius / pixel_size[1]
    half_y, half_x = int(ry + 0.5), int(rx + 0.5)  # reach of a disk from the pixel nearest its centre
    height, width = shape
    px, py = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    row, column = np.rint(py), np.rint(px)
    # Disks are drawn on a canvas with room for whole disks around the image; others cannot touch it.
    near = (row >= -half_y) & (row < height + half_y) & (column >= -half_x) & (column < width + half_x)
    if not near.all():
        px, py, row, column = px[near], py[near], row[near], column[near]
    stride = width + 4 * half_x
    canvas = np.zeros((height + 4 * half_y) * stride, dtype=np.bool_)
    dy, dx = np.arange(-half_y, half_y + 1)[:, None], np.arange(-half_x, half_x + 1)[:, None]
    # Atoms run along the last axis, the longest: short inner loops would take three times as long.
    rows_squared = np.square((row - py + dy) / ry)
    columns_squared = np.square((column - px + dx) / rx)
    inside = rows_squared[:, None] + columns_squared <= 1
    corner = ((row + 2 * half_y) * stride + column + 2 * half_x).astype(np.int64)
    pixels = corner + (dy * stride + dx.T)[:, :, None]
    canvas[pixels[inside]] = True
    return canvas.reshape(-1, stride)[
        2 * half_y : 2 * half_y + height, 2 * half_x : 2 * half_x + width
    ].copy()
