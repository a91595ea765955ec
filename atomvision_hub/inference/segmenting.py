"""A segmenter asked about an image of any size and scale: which peaks are atoms."""

from __future__ import annotations

import functools
import itertools
import math
import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import AtomTable
from atomvision_hub.inference.identity import identity
from atomvision_hub.inference.inputs import Values
from atomvision_hub.inference.lattice_views import NONE
from atomvision_hub.models.pretrained import DEFAULT_SEGMENTER, pretrained_folder

if TYPE_CHECKING:
    from atomvision_hub.models.segmenter import Segmenter

_TILE, _HALO = 896, 64  # px of the segmenter's scale: what one pass keeps, and what it sees around it
_MOST_PIXELS = 2**26  # at the segmenter's scale
_COARSER = 3.0  # how much coarser than learned an image may be for the segmenter


@functools.lru_cache(maxsize=2)
def _load_segmenter(model: str) -> Segmenter:
    from atomvision_hub.models.segmenter import Segmenter

    return Segmenter.from_pretrained(model)


def open_segmenter(
    model: str | os.PathLike[str] | None, models: dict[str, dict[str, str | None]], warnings: list[str]
) -> Segmenter | None:
    """Return the segmenter by name, the one that ships by default, or None where there is none to ask."""
    if str(model) == NONE:
        return None
    if model is None:
        folder = pretrained_folder(DEFAULT_SEGMENTER)
        if not folder.is_dir():
            warnings.append("no segmenter ships with this version: all peaks above the noise count as atoms")
            return None
        model = folder
    network = _load_segmenter(str(model))
    models["segmenter"] = identity(str(model))
    return network


def atom_probability(
    network: Segmenter, grey: npt.NDArray[np.uint8], scale: tuple[float, float], warnings: list[str]
) -> Values | None:
    """Return the segmenter's probability of "atom" for every pixel of the image, or None where it must pass.

    The image is resampled to square pixels of a size that the network learned (area means where it gets
    coarser), shown in overlapping tiles, and the answer is brought back to the pixels of the file.
    """
    import torch
    from torch.nn.functional import interpolate

    low, high = network.known.get("pixel_size") or (0.1, 0.1)
    if max(scale) > _COARSER * high:
        warnings.append(
            f"the segmenter learned {low:g} to {high:g} Å/px and was not asked at {max(scale):.2g}: "
            "all peaks above the noise count as atoms"
        )
        return None
    target = float(np.clip(math.sqrt(scale[0] * scale[1]), low, high))
    shape = tuple(max(1, round(n * size / target)) for n, size in zip(grey.shape, scale, strict=True))
    if shape[0] * shape[1] > _MOST_PIXELS:
        warnings.append(
            f"at the segmenter's {target:g} Å/px the image has {shape[0] * shape[1] / 1e6:.0f} megapixels; "
            "it was not asked, all peaks above the noise count as atoms; crop the image"
        )
        return None
    image = torch.from_numpy(grey).float()[None, None] / 255
    if shape != grey.shape:
        image = interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)
    answer = torch.zeros_like(image)
    with torch.inference_mode():
        for rows in _tiles(shape[0]):
            for columns in _tiles(shape[1]):
                (top, bottom, first, last), (left, right, start, end) = rows, columns
                part = network.predict(image[:, :, top:bottom, left:right])
                answer[:, :, first:last, start:end] = part[
                    :, :, first - top : last - top, start - left : end - left
                ]
        if shape != grey.shape:
            answer = interpolate(answer, grey.shape, mode="bilinear", antialias=True, align_corners=False)
    result: Values = answer[0, 0].numpy()
    return result


def _tiles(length: int) -> list[tuple[int, int, int, int]]:
    """Return (seen from, seen to, kept from, kept to) of equal tiles along an axis."""
    count = max(1, math.ceil((length - 2 * _HALO) / _TILE))
    ends = [round(length * number / count) for number in range(count + 1)]
    return [
        (max(0, first - _HALO), min(length, last + _HALO), first, last)
        for first, last in itertools.pairwise(ends)
    ]


def judged(peaks: AtomTable, inside: npt.NDArray[np.bool_], warnings: list[str]) -> AtomTable:
    """Return the peaks that the segmenter takes for atoms."""
    left_out = int(len(peaks) - inside.sum())
    if left_out > 0.2 * len(peaks):
        warnings.append(
            f"the segmenter took {left_out} of {len(peaks)} peaks for no atoms; "
            "look at the picture, and try --segmenter none"
        )
    return peaks.select(inside)
