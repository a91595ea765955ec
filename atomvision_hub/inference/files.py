"""Reading an image from wherever it comes, with limits."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models.images import grey_levels, to_8bit

_FORMATS = ("PNG", "TIFF", "JPEG")
#: Smallest side that shows anything of a lattice.
_SMALLEST_SIDE = 16


def read_image(image: str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic]) -> Image.Image:
    """Return an image in mode ``L`` or ``RGB``.

    Raises
    ------
    AtomVisionError
        When the file is missing, of another kind, damaged or too large, or the array is no image.
    """
    if isinstance(image, np.ndarray):
        opened = _from_array(image)
    elif isinstance(image, Image.Image):
        opened = to_8bit(image)
    else:
        opened = _from_file(Path(image))
    if min(opened.size) < _SMALLEST_SIDE:
        raise AtomVisionError(
            f"the image has {opened.height} x {opened.width} pixels; it needs {_SMALLEST_SIDE} a side"
        )
    return opened


def _from_array(values: npt.NDArray[np.generic]) -> Image.Image:
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8):
        raise AtomVisionError(
            "an image is [row, column], or 8-bit [row, column, 3]; "
            f"this array has shape {values.shape}, {values.dtype}"
        )
    if values.size == 0:
        raise AtomVisionError(f"the array has shape {values.shape}: no pixels")
    return Image.fromarray(values if values.dtype == np.uint8 else grey_levels(values))


def _from_file(path: Path) -> Image.Image:
    if not path.is_file():
        raise AtomVisionError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                return to_8bit(image)
    except UnidentifiedImageError:
        raise AtomVisionError(f"{path} is no image of a kind read here ({', '.join(_FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise AtomVisionError(f"{path} has more than {limit} pixels; cut out a part of it first") from None
    except AtomVisionError as problem:
        raise AtomVisionError(f"{path}: {problem}") from None
    except (OSError, SyntaxError, ValueError) as problem:
        raise AtomVisionError(f"{path} is damaged: {problem}") from None
