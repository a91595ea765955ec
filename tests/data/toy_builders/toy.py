"""A dataset of made-up stripes: what the engine is tested with, whatever the other rooms do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atomvision_hub.data import build as engine
from atomvision_hub.data.png import encode_png
from atomvision_hub.errors import CrystalError
from atomvision_hub.records import Column, Record

CLASSES = ("few", "many")


class Point(Record):
    x: Annotated[npt.NDArray[np.float32], Column("float32", "Position", "px", (None,))]
    y: Annotated[npt.NDArray[np.float32], Column("float32", "Position", "px", (None,))]


class ToyRow(Record):
    id: Annotated[str, Column("string", "Identifier")]
    image: Annotated[bytes, Column("image", "Stripes")]
    stripes: Annotated[int, Column("class_label", "How many stripes", names=CLASSES)]
    size: Annotated[npt.NDArray[np.float64], Column("float64", "Pixel size", "Å/px", (2,))]
    points: Point


class ToyConfig(engine.BuilderConfig):
    side: int = 16
    delay: float = 0.0
    refuse_all: bool = False
    hold_after: int = 0
    release: str = ""


_asked = 0


def hold(config: ToyConfig) -> None:
    """Make no more than `hold_after` rows in a process until the file `release` is there."""
    global _asked
    _asked += 1
    while config.release and _asked > config.hold_after and not Path(config.release).exists():
        time.sleep(0.01)


class Numbers(engine.Inputs):
    def __init__(self, count: int) -> None:
        self.count = count

    def items(self) -> Iterator[engine.Item | engine.Rejection]:
        for number in range(self.count):
            yield engine.Item(f"n{number:04d}", f"group{number // 2}", "numbers")

    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {"n0005": "n0003"} if "n0005" in ids else {}

    def source_of(self, identifier: str) -> str:
        return "numbers"

    def sources(self) -> list[engine.SourceFacts]:
        return [
            engine.SourceFacts(
                name="numbers",
                description="The natural numbers.",
                citation="Peano 1889",
                licence="none",
                url="",
                version=str(self.count),
            )
        ]


class Toy(engine.DatasetBuilder):
    name = "toy"
    script = Path(__file__)
    config_model = ToyConfig
    card: ClassVar[engine.CardText] = engine.CardText(
        title="Toy",
        licence="cc0-1.0",
        licence_note="Nobody's.",
        template="dataset.md.j2",
        tags=("toy",),
        task_categories=("image-classification",),
        bibtex=("@misc{toy}",),
        label_columns=("stripes",),
        classes=CLASSES,
    )

    def record(self, config: ToyConfig) -> type[Record]:
        return ToyRow

    def open(self, options: engine.BuildOptions) -> Numbers:
        return Numbers(min(int(options.sources[0]), options.limit or 10**6))

    def rows(self, inputs: Numbers, identifier: str, config: ToyConfig, seed: int) -> list[Record]:
        number = int(identifier[1:])
        time.sleep(config.delay)
        hold(config)
        if config.side == -666:  # what the kernel does when memory runs out
            os.kill(os.getpid(), signal.SIGKILL)
        if number % 10 == 7 or config.refuse_all:
            raise CrystalError("sevens are unlucky", step="luck")
        image = np.zeros((config.side, config.side), np.uint8)
        image[:: 2 + (number + seed) % 3] = 200
        points = np.arange(number % 4, dtype=np.float32)
        row = ToyRow(
            id=identifier,
            image=encode_png(image),
            stripes=number % 2,
            size=np.array([0.1, 0.2]),
            points=Point(x=points, y=points + 1),
        )
        return [row]

    def check(self, table: pa.Table, config: Any) -> Iterator[str]:
        for identifier, label in zip(table["id"].to_pylist(), table["stripes"].to_pylist(), strict=True):
            if label != int(identifier[1:]) % 2:
                yield f"row {identifier}: wrong number of stripes"


BUILDER = Toy()


def build(options: engine.BuildOptions) -> engine.BuildReport:
    return engine.run_build(BUILDER, options)
