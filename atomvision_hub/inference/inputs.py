"""What `analyze` is given: one image of a file or an array, its scale, its grey levels; what it refuses."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import AnalysisError
from atomvision_hub.analysis.atoms import COLUMN_WIDTH
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.result import Calibration
from atomvision_hub.microscopy import MicroscopeImage, metadata, read_images

Contrast = Literal["auto", "bright", "dark"]
Values = npt.NDArray[np.float32]

#: Fewest pixels a side, and across a column (its full width at half maximum is 1.18 Å).
SMALLEST_SIDE, ACROSS = 16, 2.0
#: Coarsest pixel size that shows columns, and smallest view that shows a lattice, Å.
COARSEST, SMALLEST_VIEW = 2 * math.sqrt(2 * math.log(2)) * COLUMN_WIDTH / ACROSS, 6.0
#: Up to so many times coarser pixels still show lattices, whose columns are two pixels or more apart.
LATTICE_ONLY = 1.3
#: Stands for the file of an array.
ARRAY = Path()

_BRIGHT_FIELD = re.compile(r"(^|[^a-z])(a?bf|bright.?field)([^a-z]|$)", re.IGNORECASE)


def chosen_image(
    image: str | os.PathLike[str] | MicroscopeImage | npt.NDArray[Any], index: int | None
) -> MicroscopeImage:
    """Return the image that is meant: an array, or one of a file (the first usable one)."""
    if isinstance(image, MicroscopeImage):
        return image
    if isinstance(image, np.ndarray):
        if image.ndim != 2 or image.dtype.kind not in "uifb":
            raise UsageError(
                f"an image is [row, column] of real numbers; this array is {image.shape}, {image.dtype}"
            )
        return MicroscopeImage(image, None, "array", 0, ARRAY, "", "")
    images = read_images(Path(image))
    if index is None:
        return first_usable(images)
    if not 0 <= index < len(images):
        raise UsageError(f"{image} has {len(images)} image(s); index counts from 0, {index} is none of them")
    return images[index]


def first_usable(images: list[MicroscopeImage]) -> MicroscopeImage:
    """Return the first image that is no diffraction pattern and not uniform; the first if all are."""
    for image in images:
        if image.kind != "diffraction" and image.data.min() != image.data.max():
            return image
    return images[0]


def given_size(pixel_size: float | tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a pixel size that the caller gave, Å/px along (rows, columns)."""
    if pixel_size is None:
        return None
    pair = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2)
    if not (np.isfinite(pair).all() and (pair > 0).all()):
        raise UsageError(f"the pixel size must be a positive number of Å/px, not {pixel_size}")
    return float(pair[0]), float(pair[1])


def calibration_of(image: MicroscopeImage, given: tuple[float, float] | None) -> Calibration:
    """Return the scale: what the user says counts before a YAML beside the image, that before the file."""
    if given is not None:
        return Calibration(pixel_size=given, source="given")
    if image.file == ARRAY:
        return Calibration(pixel_size=None, source="none")
    told = metadata.complete(metadata.extract(image), metadata.find_sidecars(image.file))
    size = told.acquisition.pixel_size
    if size is None:
        return Calibration(pixel_size=None, source="none")
    source: Literal["file", "sidecar"] = "file" if image.pixel_size == size else "sidecar"
    return Calibration(pixel_size=(float(size[0]), float(size[1])), source=source)


def refuse(image: MicroscopeImage, calibration: Calibration) -> None:
    """Raise where no atoms can be told, with the reason."""
    if image.kind == "diffraction":
        raise AnalysisError("a diffraction pattern shows no atoms; give an image")
    rows, columns = image.data.shape
    if min(rows, columns) < SMALLEST_SIDE:
        raise AnalysisError(f"{rows} x {columns} pixels show no lattice; it needs {SMALLEST_SIDE} a side")
    if image.data.min() == image.data.max():
        raise AnalysisError("all pixels have the same value; nothing was measured")
    size = calibration.pixel_size
    if size is None:
        return
    # Tunnelling microscopes show surfaces whose cells are many atoms wide.
    if max(size) > LATTICE_ONLY * COARSEST and image.kind != "stm":
        across = 2 * math.sqrt(2 * math.log(2)) * COLUMN_WIDTH / max(size)
        raise AnalysisError(
            f"{max(size):.3g} Å/px is too coarse: a column of atoms would be {across:.2g} px wide; "
            f"{COARSEST:.2g} Å/px or finer shows atoms"
        )
    view = min(rows * size[0], columns * size[1])
    if view < SMALLEST_VIEW:
        raise AnalysisError(
            f"the image shows {view:.2g} Å; a lattice needs {SMALLEST_VIEW:g} Å or more: take a wider view"
        )


def sound_values(data: npt.NDArray[Any]) -> tuple[Values, int]:
    """Return float32 values, and how many were not finite and are now the median."""
    finite = np.isfinite(data)
    bad = int(data.size - np.count_nonzero(finite))
    sound = data[finite] if bad else data
    low, span = float(sound.min()), float(sound.max()) - float(sound.min())
    if span == 0:
        raise AnalysisError("all pixels have the same value; nothing was measured")
    values = data.astype(np.float64)
    if bad:
        values[~finite] = float(np.median(sound))
    # Currents of 1e-10 A and heights of 1e-9 m keep their digits when scaled in double precision.
    if span < 1e-3 or max(abs(low), span) > 1e6:
        return ((values - low) / span).astype(np.float32), bad
    return values.astype(np.float32), bad


def is_bright_field(image: MicroscopeImage) -> bool:
    """Return whether the name of a detector says that atoms are dark."""
    return image.kind in (None, "stem") and _BRIGHT_FIELD.search(image.name) is not None
