"""The scale bar drawn into a micrograph: a value or nothing, never a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar that was read with certainty.

    Attributes
    ----------
    length
        What the text beside the bar says, in Å.
    pixels
        Length of the bar in pixels of the image.
    text
        The text as read, such as ``"5 nm"``.
    box
        (left, top, right, bottom) of the bar in pixels, right and bottom exclusive.
    """

    length: float
    pixels: float
    text: str
    box: tuple[int, int, int, int]

    @property
    def pixel_size(self) -> float:
        """Å per pixel."""
        return self.length / self.pixels


def read_scale_bar(image: npt.NDArray[Any] | Any) -> ScaleBar | None:
    """Return the scale bar of an image (PIL image or array), or None. Not written yet: always None."""
    del image
    return None
