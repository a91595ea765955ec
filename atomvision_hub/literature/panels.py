"""The panels of a compound figure: boxes by its gutters, letters and texts by its caption."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[int, int, int, int]

TOLERANCE: Final = 14  # grey levels that a gutter may differ from white or black (JPEG)
RINGING: Final = 44  # grey levels by which JPEG may ring around a panel: less is not part of it
DIRT: Final = 0.003  # share of a line of a gutter that may differ more
SMALLEST: Final = 0.07  # least width and height of a panel, as a share of the figure's
LARGEST_SIDE: Final = 1600  # larger figures are thinned out before they are searched
DENSE: Final = 0.8  # least share of a panel that is not background where no letter says that it is one


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
    boxes: tuple[Box, ...]
    captions: tuple[str, ...]


def split_panels(image: Image.Image | npt.NDArray[Any], caption: str) -> Panels:
    """Split a figure into its panels along white or black gutters.

    The caption says how many panels there are. Cuts are made along the widest gutters first, until there are
    as many boxes as letters; letters go to boxes in reading order. Where the gutters do not give that number,
    or the caption names no letters, only boxes full of image (not of white, as plots are) are parted, without
    letters; else the figure stays whole. A colour bar or an axis label goes with the panel across the
    narrower gutter.

    Parameters
    ----------
    image
        PIL image, or array [row, column] or [row, column, channel]; 8 bits, else scaled to its range.
    caption
        Caption of the whole figure.
    """
    grey = to_grey(image)
    rows, columns = grey.shape
    step = max(1, -(-max(grey.shape) // LARGEST_SIDE))
    thin = grey[::step, ::step]
    texts = split_caption(caption)
    for background in (255, 0) if texts else ():
        levels = np.abs(thin.astype(np.int16) - background)
        for tolerance in (TOLERANCE, RINGING):
            boxes = _cut(levels, tolerance, len(texts))
            if len(boxes) == len(texts):
                return _answer(boxes, grey.shape, step, texts, caption)
    # Dark lines cross many a micrograph: without a number to confirm them, black gutters count for nothing.
    levels = 255 - thin.astype(np.int16)
    boxes = _cut(levels, TOLERANCE, None)
    if len(boxes) > 1 and all(_filled(levels > TOLERANCE, box) >= DENSE for box in boxes):
        return _answer(boxes, grey.shape, step, {}, caption)
    return Panels(("",), ((0, 0, columns, rows),), (caption,))


def _answer(
    boxes: list[Box], shape: tuple[int, ...], step: int, texts: dict[str, str], caption: str
) -> Panels:
    """Return boxes at full size in reading order, with letters and texts where there are any."""
    rows, columns = shape
    scaled = tuple(
        (left * step, top * step, min(right * step, columns), min(bottom * step, rows))
        for left, top, right, bottom in reading_order(boxes)
    )
    if not texts:
        return Panels(("",) * len(scaled), scaled, (caption,) * len(scaled))
    return Panels(tuple(texts), scaled, tuple(texts.values()))


def to_grey(image: Image.Image | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return a PIL image (transparent parts on white) or an array as 8-bit grey levels [row, column]."""
    if isinstance(image, Image.Image):
        if image.mode in {"RGBA", "LA", "PA", "P"}:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        elif image.mode[0] in "IF":
            return to_grey(np.asarray(image))
        return np.asarray(image.convert("L"))
    array = np.asarray(image)
    if array.ndim == 3:
        array = array[..., :3].mean(axis=-1) if array.dtype != np.uint8 else _luminance(array)
    if array.dtype == np.uint8:
        return array
    values = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    return ((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)


def _luminance(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """ITU-R BT.601 weights, as Pillow's; one and two channels (grey, alpha) keep their first."""
    if array.shape[-1] < 3:
        return array[..., 0]
    grey: npt.NDArray[np.float64] = array[..., :3] @ np.array([0.299, 0.587, 0.114])
    return grey.round().astype(np.uint8)


def _trim(levels: npt.NDArray[np.int16], box: Box) -> Box | None:
    """Shrink a box to what is not background, ringing left out; None where nothing is."""
    left, top, right, bottom = box
    part = levels[top:bottom, left:right]
    for limit in (RINGING, TOLERANCE):
        content = part > limit
        across, down = np.flatnonzero(content.any(axis=0)), np.flatnonzero(content.any(axis=1))
        if across.size:
            return (
                left + int(across[0]),
                top + int(down[0]),
                left + int(across[-1]) + 1,
                top + int(down[-1]) + 1,
            )
    return None


def _filled(content: npt.NDArray[np.bool_], box: Box) -> float:
    left, top, right, bottom = box
    return float(content[top:bottom, left:right].mean())


def _gutter(
    levels: npt.NDArray[np.int16], tolerance: int, box: Box, least: tuple[float, float]
) -> tuple[int, Box, Box] | None:
    """Return width of the widest gutter through a box and the two boxes it parts, or None."""
    left, top, right, bottom = box
    content = levels[top:bottom, left:right] > tolerance
    best: tuple[int, Box, Box] | None = None
    for axis in (0, 1):  # 0: horizontal gutters, which win ties, as figures are read in rows
        clear = content.mean(axis=1 - axis) <= DIRT
        edges = np.flatnonzero(np.diff(np.concatenate(([False], clear, [False])).astype(np.int8)))
        for start, end in edges.reshape(-1, 2).tolist():
            if end - start < 2 or (best and end - start <= best[0]):
                continue
            if axis == 0:
                halves = (left, top, right, top + start), (left, top + end, right, bottom)
            else:
                halves = (left, top, left + start, bottom), (left + end, top, right, bottom)
            first, second = _trim(levels, halves[0]), _trim(levels, halves[1])
            if (
                first
                and second
                and all(t[2] - t[0] >= least[0] and t[3] - t[1] >= least[1] for t in (first, second))
            ):
                best = (end - start, first, second)
    return best


def _cut(levels: npt.NDArray[np.int16], tolerance: int, number: int | None) -> list[Box]:
    """Cut along the widest gutters first, into `number` boxes, or as far as gutters go."""
    rows, columns = levels.shape
    whole = _trim(levels, (0, 0, columns, rows))
    if whole is None:
        return []
    least = SMALLEST * (whole[2] - whole[0]), SMALLEST * (whole[3] - whole[1])
    boxes = {whole: _gutter(levels, tolerance, whole, least)}
    while len(boxes) < (number or 100):
        cut = max(((gutter[0], box) for box, gutter in boxes.items() if gutter), default=None)
        if cut is None:
            break
        gutter = boxes.pop(cut[1])
        assert gutter is not None
        boxes |= {half: _gutter(levels, tolerance, half, least) for half in gutter[1:]}
    return list(boxes)


def reading_order(boxes: list[Box]) -> list[Box]:
    """Order boxes by rows where a horizontal line parts them, else by columns, else by their corners."""
    if len(boxes) < 2:
        return boxes
    for axis in (1, 0):
        ordered = sorted(boxes, key=lambda box: box[axis])
        reach = ordered[0][axis + 2]
        for index, box in enumerate(ordered[1:], start=1):
            if box[axis] >= reach:
                return reading_order(ordered[:index]) + reading_order(ordered[index:])
            reach = max(reach, box[axis + 2])
    return sorted(boxes, key=lambda box: (box[1], box[0]))


_LIST = r"[a-zA-Z](?: ?(?:,|-|&|and|, and|to) ?[a-zA-Z]){0,11}"
_STYLES: Final = (
    re.compile(rf"\(({_LIST})\)"),
    re.compile(rf"(?<![\w(.-])({_LIST})\)"),
    re.compile(rf"(?:^|(?<=[.;:] ))({_LIST})[.,:] (?=\S)"),
    re.compile(r"(?:^|(?<=[.;:] ))([a-z](?: ?(?:,|-|and) ?[a-z]){0,11}) (?=[A-Z0-9])"),
)
_HEAD: Final = re.compile(r"^(?:(?i:figure|fig)[ .]{1,2})?(?:S ?)?\d{0,3} ?[.:|]? ?")
_CONNECTIVE: Final = re.compile(r"[\s,;:.&-]*(?:and|or|to)?[\s,;:.-]*")
_SEPARATOR: Final = re.compile(r",? and |, ?| ?& ?")


def split_caption(caption: str) -> dict[str, str]:
    """Return letter -> text of the panels that a caption names, in order; empty for fewer than two.

    Understood are ``(a)``, ``a)``, ``a.``, ``a,`` and ``a Text`` in either case, lists and ranges (``(b,
    c)``, ``(d-f)``), before the text they mark or behind it. Letters must run from a without a gap.
    """
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", " ".join(caption[:20_000].split()))
    text = _HEAD.sub("", text, count=1)
    best: list[tuple[tuple[str, ...], int, int]] = []
    for style in _STYLES:
        marks = _marks(style, text)
        if sum(len(letters) for letters, _, _ in marks) > sum(len(letters) for letters, _, _ in best):
            best = marks
    if sum(len(letters) for letters, _, _ in best) < 2:
        return {}
    behind = not text[best[-1][2] :].strip(" .,;:") and bool(text[: best[0][1]].strip(" .,;:"))
    texts: dict[str, str] = {}
    waiting: list[str] = []
    starts = [0] + [end for _, _, end in best]
    for index, (letters, start, end) in enumerate(best):
        until = best[index + 1][1] if index + 1 < len(best) else len(text)
        part = text[starts[index] : start] if behind else text[end:until]
        waiting += letters
        if behind or not _CONNECTIVE.fullmatch(part):
            if _CONNECTIVE.fullmatch(part) and texts:
                part = list(texts.values())[-1]
            texts |= dict.fromkeys(waiting, part.strip(" ,;:"))
            waiting = []
    texts |= dict.fromkeys(waiting, "")
    return texts


def _marks(style: re.Pattern[str], text: str) -> list[tuple[tuple[str, ...], int, int]]:
    """Return the marks of one style whose letters continue the alphabet: (letters, start, end)."""
    marks: list[tuple[tuple[str, ...], int, int]] = []
    expected = ord("a")
    for match in style.finditer(text):
        letters = _letters(match.group(1).lower())
        if letters and ord(letters[0]) == expected:
            marks.append((letters, match.start(), match.end()))
            expected = ord(letters[-1]) + 1
    return marks


def _letters(words: str) -> tuple[str, ...]:
    """Return the letters of a list or range, empty where they do not follow one another."""
    found: list[str] = []
    for part in _SEPARATOR.split(re.sub(r" ?(?:-| to ) ?", "-", words)):
        first, last = part.strip()[:1], part.strip()[-1:]
        found += [chr(code) for code in range(ord(first), ord(last) + 1)] if first and last else []
    follows = all(ord(b) - ord(a) == 1 for a, b in pairwise(found))
    return tuple(found) if follows else ()
