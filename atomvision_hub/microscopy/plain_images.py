"""PNG and JPEG: pixels without calibration."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from atomvision_hub.microscopy.frame import MicroscopyError, Signal, check_size, plain

#: Channels of a JPEG of a grey image differ by rounding alone.
_GREY_TOLERANCE = 3


def read(path: Path) -> list[Signal]:
    """Return the one picture of a PNG or JPEG file; its print resolution is never taken as calibration."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=["PNG", "JPEG"]) as picture:
                check_size((picture.height, picture.width), len(picture.getbands()) * 4)
                text = {str(k): plain(v) for k, v in getattr(picture, "text", {}).items()}
                _check_depth(path)
                data = _grey(picture)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise MicroscopyError(
                f"{path.name} unfolds to more than {Image.MAX_IMAGE_PIXELS} pixels; crop or bin it first",
                step="size",
            ) from None
        except UnidentifiedImageError:
            raise MicroscopyError(f"{path.name} is not a sound PNG or JPEG file") from None
    notes = ["a lossy JPEG: intensities are not as measured"] if path.suffix.lower() != ".png" else []
    original: dict[str, Any] = {"original_metadata": {"text": text} if text else {}, "metadata": {}}
    return [Signal(data, None, original=original, notes=tuple(notes))]


def _check_depth(path: Path) -> None:
    """Refuse what Pillow would silently halve: PNG with 16 bits in several channels."""
    with path.open("rb") as stream:
        start = stream.read(26)
    depth, colour = start[24:]
    if start[1:4] == b"PNG" and depth == 16 and colour != 0:
        raise MicroscopyError(
            "has 16 bits in several channels, of which half would be lost; save it as 16-bit grey levels",
            step="content",
        )


def _grey(picture: Image.Image) -> npt.NDArray[Any]:
    if picture.mode in ("P", "PA", "LA", "CMYK", "YCbCr"):
        picture = picture.convert("RGBA" if "A" in picture.mode or "transparency" in picture.info else "RGB")
    data = np.asarray(picture)
    return one_channel(data) if data.ndim == 3 else data


def one_channel(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the grey levels of a picture [row, column, channel] whose colour channels are all alike.

    Raises
    ------
    MicroscopyError
        For a picture in colours.
    """
    colours = data[..., :3] if data.shape[-1] >= 3 else data[..., :1]
    first = colours[..., 0].astype(np.float64)
    if any(np.abs(colours[..., i] - first).max() > _GREY_TOLERANCE for i in range(1, colours.shape[-1])):
        raise MicroscopyError(
            "is a picture in colours, not measured intensities; export the image of the detector",
            step="content",
        )
    return np.ascontiguousarray(colours[..., min(1, colours.shape[-1] - 1)])
