"""Super-resolution: the pixels of a split, and what their grey levels mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atomvision_hub.engine.data import Rows, Source, open_image
from atomvision_hub.engine.tasks.srgan.config import SrganTraining
from atomvision_hub.errors import AtomVisionError, UsageError

#: Columns of a dataset of simulated images that tell intensities and where the atoms are.
KEPT = ("atoms", "intensity_scale", "intensity_offset", "z_exponent")


@dataclass(frozen=True)
class Views:
    """The central squares of a split, with what their grey levels mean.

    Attributes
    ----------
    images
        uint8 [n, 1, side, side].
    background
        Intensity of grey level 0 over the intensity between grey levels 0 and 1 (255), [n].
    area
        Of a high-resolution pixel, Å², [n]; NaN where it is not known.
    left, top
        Where the square begins in the image, px, [n].
    """

    images: npt.NDArray[np.uint8]
    background: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, picked: npt.NDArray[np.int64]) -> Views:
        """Return some of the rows."""
        return Views(*(getattr(self, one.name)[picked] for one in fields(self)))


def decode_views(rows: Rows, side: int, pixel_size: float | None = None) -> Views:
    """Decode the central `side` x `side` pixels of every image of a split as grey levels, never resampled.

    Raises
    ------
    AtomVisionError
        When an image is smaller.
    """
    images = np.empty((len(rows), 1, side, side), np.uint8)
    corners = np.empty((len(rows), 2), np.int64)
    for index, encoded in enumerate(rows.encoded()):
        image = open_image(encoded).convert("L")
        if min(image.size) < side:
            where = encoded if isinstance(encoded, Path) else f"row {index}"
            raise AtomVisionError(
                f"{where} has {image.height} x {image.width} px, fewer than training.view={side}; "
                "leave it out, or set a smaller view (a multiple of 16)"
            )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        images[index, 0] = np.asarray(image.crop((left, top, left + side, top + side)))
        corners[index] = left, top
    columns, count = rows.columns, len(rows)
    scale = 255 * np.asarray(columns.get("intensity_scale", np.ones(count)), dtype=float)
    offset = np.asarray(columns.get("intensity_offset", np.zeros(count)), dtype=float)
    unknown = [(pixel_size or math.nan,) * 2] * count
    sizes = np.asarray(columns.get("pixel_size", unknown), dtype=float)
    # A black image has no scale.
    background = offset / np.where(scale > 0, scale, 1.0)
    return Views(images, background, sizes.prod(1), corners[:, 0], corners[:, 1])


def view_side(source: Source, config: SrganTraining) -> int:
    """Return the side of the views: that of the configuration, or as much as the smallest training image has.

    Raises
    ------
    UsageError
        When crops would not fit, or a dose is asked of images without pixel size.
    """
    smallest = min(min(open_image(encoded).size) for encoded in source.splits["train"].encoded())
    side = min(config.view, smallest // 16 * 16)
    if config.crop > side:
        raise UsageError(
            f"training.crop={config.crop} does not fit views of {side} px (the smallest training image has "
            f"{smallest} px); set training.crop={max(side, 32)} or less"
        )
    return side


def spread_rows(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return `wanted` rows of `count`, evenly spaced, all of them if there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))
