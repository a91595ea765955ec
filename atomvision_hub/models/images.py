"""Images as a network gets them: 8-bit grey or colour, whatever the file held."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from atomvision_hub.errors import AtomVisionError

#: Modes of Pillow that hold one value a pixel.
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})


def to_8bit(image: Image.Image) -> Image.Image:
    """Return an image in mode ``L`` or ``RGB``.

    16-bit, 32-bit and float values are scaled from their smallest to their largest value: Pillow's own
    conversion to RGB would clip them at 255. 8-bit images keep their values.

    Raises
    ------
    AtomVisionError
        When float values are not finite.
    """
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(grey_levels(np.asarray(image)))
    return image.convert("L" if image.mode in GREY_MODES else "RGB")


def grey_levels(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scale an array [row, column] to 0..255, from its smallest to its largest value."""
    numbers: npt.NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if not np.isfinite([low, high]).all():
        raise AtomVisionError("the image holds values that are not finite; replace them first")
    span = high - low
    scaled = (numbers - low) * (255 / span) if span > 0 else np.zeros_like(numbers)
    return np.rint(scaled).astype(np.uint8)
