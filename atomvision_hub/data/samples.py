"""The example picture of a card: images, beside each the same with mask and atoms where there are some."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from ase.data import chemical_symbols
from PIL import Image, ImageDraw, ImageFont

#: Side of a tile and height of a caption, in pixels of the picture.
TILE, CAPTION = 256, 24
#: Rows shown, and how many of them side by side.
SAMPLES, ACROSS = 6, 2

_GAP, _SEAM = 10, 2
_MASK_TINT = np.array([70, 130, 240], dtype=np.float64)
# Light colours that stay apart for colour-blind eyes; an element takes the next one of the picture.
_COLOURS = ("#ffb000", "#fe6100", "#dc267f", "#40d0a0", "#c0a0ff", "#f0f060", "#60c8ff", "#ff9ab0")


def pick_rows(path: Path, label: str | None, count: int = SAMPLES) -> list[dict[str, Any]]:
    """Return rows of a shard that have an image, one of each class in turn."""
    with pq.ParquetFile(path) as file:
        total = file.metadata.num_rows
        order: list[int] = list(range(total))
        if label is not None:
            classes = file.read(columns=[label]).column(label).to_pylist()
            seen: dict[int, int] = {}
            turn = []
            for value in classes:
                seen[value] = seen.get(value, 0) + 1
                turn.append((seen[value], value))
            order.sort(key=lambda index: turn[index])
        rows: list[dict[str, Any]] = []
        opened: tuple[int, Any] | None = None
        starts = np.cumsum([0] + [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
        for index in order:
            if len(rows) == count:
                break
            group = int(np.searchsorted(starts, index, side="right")) - 1
            if opened is None or opened[0] != group:  # one at a time: images are large
                opened = group, file.read_row_group(group)
            row = opened[1].slice(index - int(starts[group]), 1).to_pylist()[0]
            if row["image"] is not None:
                rows.append(row)
    return rows


def draw_samples(rows: Sequence[Mapping[str, Any]], caption: Callable[[Mapping[str, Any]], str]) -> bytes:
    """Return a PNG of rows: the image and, where the rows have them, the same with mask and atoms.

    Parameters
    ----------
    rows
        With a column ``image`` and, where the dataset has them, ``mask`` and ``atoms``.
    caption
        One short line for a row.
    """
    targets = any(row.get("mask") is not None or row.get("atoms") is not None for row in rows)
    across = ACROSS if targets else 2 * ACROSS - 1
    step = (2 * TILE + _SEAM if targets else TILE) + _GAP
    width = across * step + _GAP
    lines = -(-len(rows) // across)
    picture = Image.new("RGB", (width, lines * (TILE + CAPTION) + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    colours: dict[int, str] = {}
    for place, row in enumerate(rows):
        x = _GAP + place % across * step
        y = place // across * (TILE + CAPTION) + CAPTION
        draw.text((x, y - 18), caption(row), fill="black", font=font)
        image = _rgb(row["image"]["bytes"])
        picture.paste(_tile(image), (x, y))
        if not targets:
            continue
        picture.paste(_overlay(image, row, colours), (x + TILE + _SEAM, y))
        left = x + TILE + _SEAM
        for number in sorted(set((row.get("atoms") or {"number": ()})["number"])):
            draw.ellipse((left, y - 14, left + 8, y - 6), fill=colours[number], outline="black")
            draw.text((left + 12, y - 18), chemical_symbols[number], fill="black", font=font)
            left += 36
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _rgb(encoded: bytes) -> npt.NDArray[np.float64]:
    image = Image.open(io.BytesIO(encoded))
    if image.mode not in ("1", "L", "I", "I;16", "F"):
        return np.asarray(image.convert("RGB"), dtype=np.float64)
    values = np.asarray(image, dtype=np.float64)
    return np.repeat(np.multiply(values, 255 / max(float(values.max()), 1.0))[..., None], 3, axis=2)


def _tile(rgb: npt.NDArray[np.float64]) -> Image.Image:
    """Return an array as a tile: padded to a square, never squashed."""
    image = Image.fromarray(rgb.astype(np.uint8))
    factor = TILE / max(image.size)
    size = tuple(max(1, round(length * factor)) for length in image.size)
    tile = Image.new("RGB", (TILE, TILE), "white")
    tile.paste(image.resize((size[0], size[1]), Image.Resampling.BICUBIC if factor != 1 else None), (0, 0))
    return tile


def _overlay(image: npt.NDArray[np.float64], row: Mapping[str, Any], colours: dict[int, str]) -> Image.Image:
    rgb = image.copy()
    if row.get("mask") is not None:
        inside = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) > 0
        rgb[inside] = 0.45 * rgb[inside] + 0.55 * _MASK_TINT
    tile = _tile(rgb)
    atoms = row.get("atoms")
    if atoms is not None:
        draw = ImageDraw.Draw(tile)
        factor = TILE / max(image.shape)
        # The heaviest last: it is what a column shows.
        for x, y, number in sorted(
            zip(atoms["x"], atoms["y"], atoms["number"], strict=True), key=lambda a: a[2]
        ):
            colour = colours.setdefault(number, _COLOURS[len(colours) % len(_COLOURS)])
            centre_x, centre_y = (x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5
            draw.ellipse((centre_x - 2, centre_y - 2, centre_x + 2, centre_y + 2), fill=colour)
    return tile
