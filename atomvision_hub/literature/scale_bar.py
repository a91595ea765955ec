"""The scale bar drawn into a micrograph: a value or nothing, never a guess.

A bar is a solid bright or dark rectangle, long and thin, near the upper or lower edge, with a number and
a unit above, below or beside it. The text is read by Tesseract (optional extra ``[ocr]``) three times,
from its grey levels in two sizes and in black and white. Unless two readings give a usual length, the
same, and none another, and unless all bars of the image agree on the pixel size, there is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from atomvision_hub.errors import MissingExtraError
from atomvision_hub.literature.panels import Box, to_grey

EDGE_BAND: Final = 0.3  # bars lie in the upper or lower part of this height
CONTRAST: Final = 60  # least difference of grey levels between a bar and what is above and below it
LARGEST: Final = 4096  # larger images are not searched
MOST: Final = 8  # more bars than this are a pattern, more lines of text beside one a legend
GLYPHS: Final = 40  # more spots than this beside a bar are a pattern, not a text
AGREEING: Final = 2  # readings, of three
SURE: Final = 20.0  # least confidence of Tesseract, of 100
AGREEMENT: Final = 0.02  # relative difference of pixel sizes that still agree

# pm and mm are left out: they are what a reader makes of µm and nm, and no micrograph here needs them.
_UNITS: Final = {"nm": 10.0, "µm": 1e4, "μm": 1e4, "um": 1e4, "Å": 1.0, "A": 1.0}
_MANTISSAS: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 7.5, 8.0, 9.0)
_TEXT: Final = re.compile(r"((?:[1-9]\d{0,3}|0)(?:[.,]\d{1,2})?) ?(nm|[µμu]m|Å|A)")


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar that was read with certainty.

    Attributes
    ----------
    length
        What the text beside the bar says, in Å.
    pixels
        Length of the bar in pixels of the image, to a fraction of a pixel.
    text
        The text as read, such as ``"5 nm"``.
    box
        (left, top, right, bottom) of the bar in pixels, right and bottom exclusive.
    """

    length: float
    pixels: float
    text: str
    box: Box

    @property
    def pixel_size(self) -> float:
        """Å per pixel."""
        return self.length / self.pixels


def read_scale_bar(image: Image.Image | npt.NDArray[Any]) -> ScaleBar | None:
    """Return the scale bar of a micrograph, or None where there is none that can be read with certainty.

    Parameters
    ----------
    image
        PIL image, or array [row, column] or [row, column, channel], of one panel.

    Raises
    ------
    MissingExtraError
        Without the extra ``[ocr]`` or the program ``tesseract``.
    """
    _engine()
    grey = to_grey(image)
    if not 32 <= min(grey.shape) <= max(grey.shape) <= LARGEST:
        return None
    candidates = list(islice(_bars(grey), MOST + 1))
    if len(candidates) > MOST:
        return None
    found = [bar for candidate in candidates if (bar := _read(grey, candidate)) is not None]
    sizes = [bar.pixel_size for bar in found]
    if not found or max(sizes) > (1 + AGREEMENT) * min(sizes):
        return None
    return found[0]


@dataclass(frozen=True)
class _Bar:
    box: Box
    bright: bool
    level: float
    pixels: float


def _bars(grey: npt.NDArray[np.uint8]) -> Iterator[_Bar]:
    """Yield solid long thin rectangles near the upper or lower edge, from below."""
    rows, columns = grey.shape
    for bright in (True, False):
        mask = grey >= 215 if bright else grey <= 40
        labels, _ = ndimage.label(mask)
        places, large = ndimage.find_objects(labels), np.bincount(labels.ravel())[1:] >= 28
        for index in reversed(np.flatnonzero(large).tolist()):
            place = places[index]
            top, bottom, left, right = place[0].start, place[0].stop, place[1].start, place[1].stop
            width, height = right - left, bottom - top
            middle = (top + bottom) / 2 / rows
            if not (max(16, 0.04 * columns) <= width <= 0.9 * columns and 2 <= height <= 0.08 * rows):
                continue
            if width < 4 * height or EDGE_BAND < middle < 1 - EDGE_BAND or top == 0 or bottom == rows:
                continue
            if (labels[place] == index + 1).mean() < 0.9:
                continue
            bar = _measured(grey, (left, top, right, bottom), bright)
            if bar is not None:
                yield bar


def _measured(grey: npt.NDArray[np.uint8], box: Box, bright: bool) -> _Bar | None:
    """Return a bar with its length between half levels; None where it does not stand out on all sides."""
    left, top, right, bottom = box
    rows, columns = grey.shape
    reach = 3
    if left < reach + 1 or right > columns - reach - 1 or top < reach or bottom > rows - reach:
        return None
    inside = grey[top:bottom, left + 1 : right - 1].astype(np.float64)
    level = float(np.median(inside))
    sides = grey[top - reach, left:right], grey[bottom + reach - 1, left:right]
    sign = 1 if bright else -1
    if inside.std() > 12 or any(
        np.mean(sign * (level - side.astype(float)) < CONTRAST) > 0.1 for side in sides
    ):
        return None
    profile = grey[top:bottom, left - reach : right + reach].astype(np.float64).mean(axis=0)
    ends = []
    for outward in (profile[: reach + 2][::-1], profile[-reach - 2 :]):
        ground = float(outward[-2:].mean())
        if sign * (level - ground) < CONTRAST:
            return None
        # Pixels at the end count by the share that is covered: two inside, less what they lack, two outside.
        covered = np.clip((outward - ground) / (level - ground), 0, 1)
        ends.append(float(covered[:2].sum() - 2 + covered[2 : reach + 1].sum()))
    return _Bar(box, bright, level, right - left + sum(ends))


def _read(grey: npt.NDArray[np.uint8], bar: _Bar) -> ScaleBar | None:
    """Read the text beside a bar in three ways; None unless two give the same length, and none another."""
    left, top, right, bottom = bar.box
    rows, columns = grey.shape
    reach = max(5 * (bottom - top), round(0.14 * rows), 24)
    aside = max(round(0.6 * (right - left)), 3 * reach)
    window = max(0, left - aside), max(0, top - reach), min(columns, right + aside), min(rows, bottom + reach)
    glyphs = _glyphs(grey, bar, window)
    readings = []
    for box in islice(_lines(glyphs), MOST):
        pointed = _has_point(glyphs, box)
        lengths: list[tuple[float, str]] = []
        for index, picture in enumerate(_pictures(grey, bar, box)):
            if index == AGREEING and not lengths:
                break
            text = _ocr(picture)
            length = _length(text)
            if length is not None and pointed == bool(re.search(r"[.,]\d", text)):
                lengths.append((length, text))
        if len(lengths) >= AGREEING and len({length for length, _ in lengths}) == 1:
            readings.append(lengths[0])
    if len({length for length, _ in readings}) != 1:
        return None
    length, text = readings[0]
    return ScaleBar(length, bar.pixels, " ".join(text.split()), bar.box)


def _glyphs(grey: npt.NDArray[np.uint8], bar: _Bar, window: Box) -> npt.NDArray[np.int64]:
    """Return boxes [spot, (left, top, right, bottom)] of spots of the bar's colour that may be letters."""
    left, top, right, bottom = window
    part = grey[top:bottom, left:right].astype(np.float64)
    half = (bar.level + float(np.median(part))) / 2
    mask = part > half if bar.bright else part < half
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    tallest = 0.2 * grey.shape[0]
    boxes = []
    for place in ndimage.find_objects(labels):
        box = (place[1].start + left, place[0].start + top, place[1].stop + left, place[0].stop + top)
        width, height = box[2] - box[0], box[3] - box[1]
        touches = box[0] == left or box[1] == top or box[2] == right or box[3] == bottom
        overlaps = box[0] < bar.box[2] and box[2] > bar.box[0] and box[1] < bar.box[3] and box[3] > bar.box[1]
        if not (touches or overlaps or height > tallest or width > 3 * height + 4):
            boxes.append(box)
    return np.array(boxes, np.int64).reshape(-1, 4)


def _lines(glyphs: npt.NDArray[np.int64]) -> Iterator[Box]:
    """Yield frames of at least two spots of letter height that stand close together in one line."""
    rest = sorted((glyph.tolist() for glyph in glyphs if glyph[3] - glyph[1] >= 7), key=lambda box: box[0])
    if len(rest) > GLYPHS:
        return
    while rest:
        line = [rest.pop(0)]
        for glyph in list(rest):
            last, height = line[-1], glyph[3] - glyph[1]
            smaller, taller = sorted((last[3] - last[1], height))
            overlap = min(last[3], glyph[3]) - max(last[1], glyph[1])
            if overlap >= 0.5 * smaller and glyph[0] - last[2] <= 1.2 * taller:
                line.append(glyph)
                rest.remove(glyph)
        if len(line) >= 2:
            left, top, right, bottom = zip(*line, strict=True)
            yield min(left), min(top), max(right), max(bottom)


def _has_point(glyphs: npt.NDArray[np.int64], line: Box) -> bool:
    """Whether a small spot stands low in a line: readings that say otherwise about the point are wrong."""
    left, top, right, bottom = line
    height = bottom - top
    sides = np.minimum(glyphs[:, 3] - glyphs[:, 1], glyphs[:, 2] - glyphs[:, 0])
    small = (
        (sides >= (2 if height >= 14 else 1))
        & (glyphs[:, 3] - glyphs[:, 1] <= 0.35 * height)
        & (glyphs[:, 2] - glyphs[:, 0] <= 0.5 * height)
    )
    within = (glyphs[:, 0] > left) & (glyphs[:, 2] < right) & (glyphs[:, 3] <= bottom + 0.3 * height)
    return bool((small & within & (glyphs[:, 1] >= top + 0.4 * height)).any())


def _pictures(grey: npt.NDArray[np.uint8], bar: _Bar, box: Box) -> Iterator[Image.Image]:
    """Yield a line of text as black on white: grey levels in two sizes, then black and white.

    The frame is wider than the line by a letter: a first digit that was no spot of the bar's colour
    must not be cut off. A line that reaches beyond its frame all the same is not read.
    """
    left, top, right, bottom = box
    height = bottom - top
    above = round(0.6 * height)
    rows, columns = grey.shape
    frame = (
        max(0, left - height),
        max(0, top - above),
        min(columns, right + height),
        min(rows, bottom + above),
    )
    part = grey[frame[1] : frame[3], frame[0] : frame[2]].astype(np.float64)
    if bar.box[0] < frame[2] and bar.box[2] > frame[0]:  # the bar itself is no letter
        part[max(0, bar.box[1] - 2 - frame[1]) : max(0, bar.box[3] + 2 - frame[1])] = np.median(part)
    dark = 255 - part if bar.bright else part
    ink = 255 - bar.level if bar.bright else bar.level
    paper = float(np.median(dark))
    _clear_margins(dark, paper - 0.15 * (paper - ink), paper, left - frame[0], right - frame[0])
    if not _clear_border(dark, (ink + paper) / 2, paper, height):
        return
    stretched = np.clip((dark - ink) / max(1.0, paper - ink), 0, 1) * 255
    for tall, sharp in ((40, False), (56, False), (48, True)):
        size = (round(part.shape[1] * tall / height), round(part.shape[0] * tall / height))
        picture = Image.fromarray(stretched.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        framed = Image.new("L", (size[0] + 40, size[1] + 40), 255)
        framed.paste(picture.point(lambda level: 255 if level > 128 else 0) if sharp else picture, (20, 20))
        yield framed


def _clear_margins(dark: npt.NDArray[np.float64], limit: float, paper: float, left: int, right: int) -> None:
    """Blank out, in place, columns beside a line where a box has ended: its edge would be read as a one."""
    beyond = np.flatnonzero(np.median(dark, axis=0) < limit)
    if (before := beyond[beyond < left - 1]).size:
        dark[:, : before[-1] + 3] = paper
    if (after := beyond[beyond > right]).size:
        dark[:, max(0, after[0] - 2) :] = paper


def _clear_border(dark: npt.NDArray[np.float64], half: float, paper: float, height: int) -> bool:
    """Blank out, in place, edges of a box that cross a frame; False where a letter is cut by the border."""
    labels, _ = ndimage.label(dark < half, structure=np.ones((3, 3)))
    for index, place in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = place[0].stop - place[0].start, place[1].stop - place[1].start
        inside = place[0].start > 0 and place[0].stop < dark.shape[0]
        if inside and place[1].start > 0 and place[1].stop < dark.shape[1]:
            continue
        if tall == dark.shape[0] or wide == dark.shape[1]:
            dark[ndimage.binary_dilation(labels == index, iterations=2)] = paper
        elif tall >= 0.4 * height:
            return False
    return True


def _length(text: str) -> float | None:
    """Return a length in Å where the text is nothing but a usual number with its unit."""
    text = re.sub(r"^[lI](?= ?(?:nm|Å|A|um)$)", "1", text.strip(" ."))  # a lone one reads like that
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    number = float(match.group(1).replace(",", "."))
    if number <= 0:
        return None
    mantissa = number / 10 ** np.floor(np.log10(number))
    if not np.isclose(mantissa, _MANTISSAS).any():
        return None
    return number * _UNITS[match.group(2)]


@cache
def _engine() -> Any:
    try:
        import pytesseract

        pytesseract.get_tesseract_version()
    except ImportError:
        raise MissingExtraError(
            "reading scale bars needs pytesseract: pip install 'atomvision-hub[ocr]'"
        ) from None
    except pytesseract.TesseractNotFoundError:
        raise MissingExtraError(
            "reading scale bars needs the program tesseract beside pip install 'atomvision-hub[ocr]': "
            "install it with your system's packages (tesseract-ocr)"
        ) from None
    return pytesseract


def _ocr(picture: Image.Image) -> str:
    """Read one line of text; empty where Tesseract itself is not sure or fails."""
    engine = _engine()
    try:
        words = engine.image_to_data(
            picture, config="--psm 7 --dpi 300", output_type=engine.Output.DICT, timeout=10
        )
    except (RuntimeError, engine.TesseractError):
        return ""
    sure = [
        (text, float(confidence))
        for text, confidence in zip(words["text"], words["conf"], strict=True)
        if text.strip()
    ]
    if not sure or min(confidence for _, confidence in sure) < SURE:
        return ""
    return " ".join(text for text, _ in sure)
