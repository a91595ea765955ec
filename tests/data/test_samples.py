"""The example picture: rows with an image, in colour or grey, with targets or without."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from atomvision_hub.data.features import table_of
from atomvision_hub.data.png import encode_png
from atomvision_hub.data.samples import TILE, draw_samples, pick_rows
from atomvision_hub.records import Column, Record


class Linked(Record):
    id: Annotated[str, Column("string", "Identifier")]
    image: Annotated[bytes | None, Column("image", "Picture, or a link alone", nullable=True)]


def coloured(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(stream, "PNG")
    return stream.getvalue()


def test_rows_without_an_image_are_passed_over(tmp_path: Path) -> None:
    images = [None, None, coloured("red"), None, encode_png(np.full((8, 8), 99, np.uint16))]
    rows = [Linked(id=f"r{number}", image=image) for number, image in enumerate(images)]
    pq.write_table(table_of(Linked, rows), tmp_path / "rows.parquet", row_group_size=2)
    assert [row["id"] for row in pick_rows(tmp_path / "rows.parquet", None)] == ["r2", "r4"]
    assert [row["id"] for row in pick_rows(tmp_path / "rows.parquet", None, 1)] == ["r2"]


def test_colours_survive_and_images_without_targets_stand_alone() -> None:
    rows = [{"image": {"bytes": coloured("red")}}, {"image": {"bytes": coloured("blue")}}]
    picture = Image.open(io.BytesIO(draw_samples(rows, lambda row: "")))
    assert picture.width < 4 * TILE
    pixels = {picture.getpixel((x, 40)) for x in range(picture.width)}
    assert {(255, 0, 0), (0, 0, 255)} <= pixels
