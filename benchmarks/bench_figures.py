"""How well panels and scale bars of figures are found.

    python benchmarks/bench_figures.py [--images N] [--data FOLDER] [--out FILE]

Panels: composites of noisy micrographs with known boxes and letters as JPEG of quality 80, one to twelve
panels, white or black gutters of 3 to 25 pixels; a composite counts when all boxes are found within 2
pixels, and a single panel when it stays whole. Scale bars: micrographs with a bar drawn in seven fonts,
several sizes, both polarities, with and without a box, half of them as JPEG; right is within 2 %. FOLDER
holds real microscope files without any text (`microscopy` of the shared test data): every bar found
there is a false one, and none may be split.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from _machine import machine_facts
from PIL import Image, ImageDraw, ImageFont

from atomvision_hub._files import write_json
from atomvision_hub.literature.panels import Box, split_panels
from atomvision_hub.literature.scale_bar import read_scale_bar

FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
FONT_NAMES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "STIXGeneral",
    "STIXGeneralBol",
    "DejaVuSansMono",
    "cmr10",
)
LENGTHS = (0.5, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 25, 50, 100, 150, 200, 500)
UNITS = {"nm": 10.0, "Å": 1.0, "µm": 1e4}


def micrograph(random: np.random.Generator, rows: int, columns: int, ground: float) -> Image.Image:
    """Columns of atoms with noise."""
    y, x = np.mgrid[:rows, :columns]
    values = (
        ground
        + 25 * np.sin(x / 7) * np.sin(y / 9)
        + random.uniform(0, 30) * random.standard_normal((rows, columns))
    )
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def barred(seed: int) -> tuple[Image.Image, float, str]:
    """Return a micrograph with a scale bar, its pixel size in Å and its unit."""
    random = np.random.default_rng(seed)
    rows, columns, ground = (
        int(random.integers(250, 1100)),
        int(random.integers(300, 1200)),
        random.uniform(30, 200),
    )
    picture = micrograph(random, rows, columns, ground)
    draw, colour = ImageDraw.Draw(picture), 255 if ground < 130 else 0
    length, unit = float(random.choice(LENGTHS)), str(random.choice(["nm", "nm", "nm", "Å", "µm"]))
    text = f"{length:g}{random.choice(['', ' '])}{unit}"
    font = ImageFont.truetype(
        str(FONTS / f"{random.choice(FONT_NAMES)}.ttf"), int(random.integers(14, max(15, rows // 12)))
    )
    pixels, thick = (
        int(random.integers(max(40, columns // 16), columns // 3)),
        int(random.integers(3, max(4, rows // 50))),
    )
    wide, tall = (int(side) for side in draw.textbbox((0, 0), text, font=font)[2:])
    left, top = int(random.choice([15, columns - pixels - 15])), rows - thick - int(random.integers(10, 25))
    if random.random() < 0.25:
        draw.rectangle((left - 10, top - tall - 20, left + max(pixels, wide) + 10, rows - 2), 255 - colour)
    draw.rectangle((left, top, left + pixels - 1, top + thick - 1), colour)
    start = min(max(2, left + (pixels - wide) // 2), columns - wide - 3)
    draw.text((start, top - tall - 6), text, colour, font=font)
    if random.random() < 0.5:
        picture = jpeg(picture, int(random.integers(75, 95)))
    return picture, length * UNITS[unit] / pixels, unit


def composite(seed: int) -> tuple[Image.Image, str, list[Box]]:
    """Return a compound figure, its caption and the boxes of its panels."""
    random = np.random.default_rng(seed)
    gutter, height = int(random.integers(3, 26)), int(random.integers(120, 300))
    rows = [
        [int(random.integers(120, 300)) for _ in range(random.integers(1, 5))]
        for _ in range(random.integers(1, 4))
    ]
    width = max(sum(row) + gutter * (len(row) + 1) for row in rows)
    background = int(random.choice([0, 255]))
    figure = Image.new("L", (width + 20, len(rows) * (height + gutter) + gutter), background)
    boxes = []
    for index, row in enumerate(rows):
        left, top = gutter, gutter + index * (height + gutter)
        for wide in row:
            figure.paste(micrograph(random, height, wide, random.uniform(70, 180)), (left, top))
            boxes.append((left, top, left + wide, top + height))
            left += wide + gutter
    caption = " ".join(f"({chr(ord('a') + index)}) Image {index}." for index in range(len(boxes)))
    return jpeg(figure, 80), caption, boxes


def wilson(hits: int, trials: int, z: float = 1.959964) -> dict[str, Any]:
    """Share of hits with its 95 % interval (Wilson 1927, J. Am. Stat. Assoc. 22, 209)."""
    share = hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    bounds = {"low": round(max(0.0, middle - half), 4), "high": round(min(1.0, middle + half), 4)}
    return {"hits": hits, "of": trials, "value": round(share, 4), **bounds}


def panel_scores(images: int) -> dict[str, Any]:
    right = 0
    kinds: Counter[str] = Counter()
    started = time.process_time()
    for seed in range(images):
        figure, caption, boxes = composite(seed)
        found = split_panels(figure, caption)
        same = len(found.boxes) == len(boxes) and all(
            len(boxes) == 1 or np.abs(np.subtract(a, b)).max() <= 2
            for a, b in zip(found.boxes, boxes, strict=True)
        )
        right += same
        kinds["right" if same else "whole" if len(found.boxes) == 1 else "other boxes"] += 1
    return {
        "all_boxes_right": wilson(right, images),
        "outcomes": dict(kinds),
        "seconds_per_figure": round((time.process_time() - started) / images, 4),
    }


def bar_scores(images: int) -> dict[str, Any]:
    outcomes: dict[str, Counter[str]] = {unit: Counter() for unit in UNITS}
    wrong = []
    started = time.perf_counter()
    for seed in range(images):
        picture, pixel_size, unit = barred(seed)
        found = read_scale_bar(picture)
        right = found is not None and abs(found.pixel_size / pixel_size - 1) <= 0.02
        outcomes[unit]["right" if right else "none" if found is None else "wrong"] += 1
        if found is not None and not right:
            wrong.append(
                {"seed": seed, "text": found.text, "pixels": found.pixels, "true_pixel_size": pixel_size}
            )
    total = sum(outcomes.values(), Counter())
    return {
        "read": wilson(total["right"], images),
        "wrong_of_answers": wilson(total["wrong"], total["right"] + total["wrong"]),
        "by_unit": {unit: dict(counts) for unit, counts in outcomes.items()},
        "wrong": wrong,
        "wall_seconds_per_image": round((time.perf_counter() - started) / images, 2),
    }


def real_images(folder: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Two-dimensional images of microscope files that rosettasciio or Pillow reads."""
    from rsciio import IO_PLUGINS

    readers = {suffix: plugin["api"] for plugin in IO_PLUGINS for suffix in plugin["file_extensions"]}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in {".csv", ".emi", ""} or not path.is_file():
            continue
        try:
            module = __import__(readers[path.suffix.lower()[1:]], fromlist=["file_reader"])
            signals = module.file_reader(str(path))
        except Exception as error:  # noqa: BLE001 - other files are not the matter here
            print(f"skipped {path.name}: {type(error).__name__}")
            continue
        for index, signal in enumerate(signals):
            data = np.asarray(signal["data"])
            if data.ndim >= 2 and min(data.shape[-2:]) >= 64 and data.dtype.kind in "uif":
                yield f"{path.name}[{index}]", data.reshape(-1, *data.shape[-2:])[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = machine_facts()
    result: dict[str, Any] = {
        "panels": panel_scores(options.images),
        "scale_bars": bar_scores(options.images),
        "machine": machine,
    }
    if options.data:
        images = dict(real_images(options.data))
        found = {name: read_scale_bar(data) for name, data in images.items()}
        result["real_images_without_bar"] = {
            "split_without_cause": [
                n for n, data in images.items() if len(split_panels(data, "An image.").boxes) > 1
            ],
            "images": sorted(found),
            "false_bars": {name: bar.text for name, bar in found.items() if bar is not None},
        }
    out = options.out or Path(__file__).parent / "results" / f"figures-{machine['date'][:10]}.json"
    write_json(out, result)
    print({name: part for name, part in result.items() if name != "machine"})
    print(f"written to {out}")


if __name__ == "__main__":
    main()
