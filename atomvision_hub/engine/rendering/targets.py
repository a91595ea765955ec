"""Masks and atoms that belong to rendered images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.cpu import where
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.engine.rendering.draws import Draws
from atomvision_hub.simulation.acquisition import Acquired, Acquisition
from atomvision_hub.simulation.projection import points_in_view
from atomvision_hub.simulation.targets import disk_mask


def image_targets(
    crystals: CrystalSet, config: RenderConfig, draws: Draws, index: int, radius: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Return the mask of an image and its atoms, at the places where the recorded image shows them.

    Parameters
    ----------
    crystals, config, draws, index
        What made the image.
    radius
        Of the disks, Å.

    Returns
    -------
    mask, atoms
        Bool [row, column], and x, y (px) and atomic number of every atom whose disk touches the image,
        (n, 3); atoms on top of each other are listed each.
    """
    projection = crystals.crystals[draws.crystal[index]].projection
    size = float(draws.pixel_size[index])
    lines = None if draws.lines is None else draws.lines[index]
    reach = radius if lines is None else radius + float(np.abs(lines).max())
    view = points_in_view(
        projection.points,
        projection,
        where(crystals, config, draws, index),
        config.shape,
        (reach / size, reach / size),
    )
    x, y = view.x, view.y
    if lines is not None:
        beam = np.broadcast_to(lines[:, None, :], (*config.shape, 2))
        blank = np.empty((0, 0), dtype=np.float32)
        # An atom's place is the mean over its lines, as in `RecordedFrame.atoms`.
        width = float(draws.sigma[index]) / math.sqrt(2)
        x, y = Acquired(blank, (size, size), Acquisition(), 0, beam, {}).move(x, y, width)
    rows, columns = config.shape
    near = (x > -0.5 - radius / size) & (x < columns - 0.5 + radius / size)
    near &= (y > -0.5 - radius / size) & (y < rows - 0.5 + radius / size)
    x, y = x[near].astype(np.float32), y[near].astype(np.float32)
    mask = disk_mask(x, y, config.shape, (size, size), radius)
    numbers = projection.numbers[view.index[near]]
    return mask, np.stack([x, y, numbers.astype(np.float32)], axis=1)
