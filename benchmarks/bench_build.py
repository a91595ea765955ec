"""What a build costs, step by step, beside the published way to make such a dataset.

    python benchmarks/bench_build.py [--source reference] [--store-dir DIR] [--limit N] [--out FILE.json]

In one run, on one thread: the whole `stem2d` build in the `default` config, with the time of every step; the
published pipeline (jarvis-tools' STEMConv, a JPEG by matplotlib), written anew, on a sample of the same
crystals; and the PNG encoders on the images that were built.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from _machine import machine_facts
from PIL import Image

from atomvision_hub._files import write_json
from atomvision_hub.data import BuildOptions, BuildReport, crystals, load_builder, plan, shards
from atomvision_hub.data import build as engine
from atomvision_hub.data.png import encode_png

#: Steps that issue A's limit of 1.0 ms a row leaves out.
FREE = ("encode image", "encode mask", "write shards")
#: Done once, whatever the number of rows.
ONCE = ("imports", "card and manifest")


# Processor time of this process: what the work costs, also on a machine that is busy with other things.
now = time.process_time


class Clock:
    """Seconds by step; what a step calls is not counted twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        started = now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = now() - started
            self.seconds[name] += elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Replace a function by itself with a clock."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.step(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, timed)


def timed_build(options: BuildOptions, clock: Clock) -> BuildReport:
    """Build with a clock in every step."""
    with clock.step("imports"):
        stem2d: Any = load_builder("stem2d")
        import datasets  # noqa: F401 - the card needs it
        from datasets.info import DatasetInfosDict  # noqa: F401
        from jarvis.db import figshare  # noqa: F401

        from atomvision_hub.structures import Structures
    clock.watch(crystals, "load_structures", "open source")
    clock.watch(Structures, "__getitem__", "parse")
    clock.watch(stem2d, "check_crystal", "check")
    clock.watch(stem2d, "flat_layer", "check")
    clock.watch(stem2d, "material_columns", "labels")
    clock.watch(crystals, "duplicates", "duplicates")
    clock.watch(stem2d, "simulate_stem", "render")
    clock.watch(stem2d, "to_grey", "render")

    encode = stem2d.encode_png

    def encode_and_tell(image: npt.NDArray[Any]) -> bytes:
        with clock.step("encode mask" if image.dtype == np.bool_ else "encode image"):
            return bytes(encode(image))

    stem2d.encode_png = encode_and_tell
    row = stem2d.stem_row

    def row_with_targets(identifier: str, frame: Any, *rest: Any) -> Any:
        with clock.step("mask and atoms"):
            assert frame.mask.shape == frame.image.shape
            assert len(frame.atoms)
        with clock.step("rows"):
            return row(identifier, frame, *rest)

    stem2d.stem_row = row_with_targets
    clock.watch(shards, "table_of", "write shards")
    clock.watch(pq.ParquetWriter, "write_table", "write shards")
    clock.watch(shards, "sha256_file", "write shards")
    clock.watch(plan, "split_of", "plan")
    clock.watch(engine, "finish", "card and manifest")  # as the engine calls it
    with clock.step("engine"):
        report: BuildReport = stem2d.build(options)
    return report


def published(crystals: list[Any], folder: Path) -> float:
    """Return seconds per image of the published pipeline: STEMConv, then a figure saved as JPEG."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from jarvis.analysis.stem.convolution_apprx import STEMConv
    from jarvis.core.atoms import Atoms

    started = now()
    for number, crystal in enumerate(crystals):
        atoms = Atoms(
            lattice_mat=crystal.cell.array,
            coords=crystal.get_scaled_positions(),
            elements=crystal.get_chemical_symbols(),
            cartesian=False,
        )
        image = STEMConv(output_size=[256, 256]).simulate_surface(atoms, px_scale=0.1, eps=0.6)[0]
        plt.imshow(image, interpolation="gaussian", cmap="gray")
        plt.axis("off")
        plt.savefig(folder / f"{number}.jpg")
        plt.close()
    return (now() - started) / len(crystals)


def encoders() -> dict[str, Callable[[npt.NDArray[Any]], bytes]]:
    """Return the encoders to compare; OpenCV's only where it is installed."""

    def pillow(image: npt.NDArray[Any], **options: Any) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", **options)
        return stream.getvalue()

    found: dict[str, Callable[[npt.NDArray[Any]], bytes]] = {
        "Pillow, default": pillow,
        "Pillow, level 1": functools.partial(pillow, compress_level=1),
        "Pillow, level 1, RLE": functools.partial(pillow, compress_level=1, compress_type=3),
        "ours (libdeflate, up filter; masks unfiltered)": encode_png,
    }
    try:
        import cv2
    except ImportError:
        return found
    cv2.setNumThreads(1)

    def opencv(image: npt.NDArray[Any], options: list[int]) -> bytes:
        return bytes(cv2.imencode(".png", image, options)[1].tobytes())

    level, strategy = cv2.IMWRITE_PNG_COMPRESSION, cv2.IMWRITE_PNG_STRATEGY
    for name, options in {
        "OpenCV, default": [],
        "OpenCV, level 1, filtered": [level, 1, strategy, cv2.IMWRITE_PNG_STRATEGY_FILTERED],
        "OpenCV, level 1, RLE": [level, 1, strategy, cv2.IMWRITE_PNG_STRATEGY_RLE],
        "OpenCV, level 3": [level, 3],
    }.items():
        found[name] = functools.partial(opencv, options=options)
    return found


def compare_encoders(folder: Path, count: int = 60) -> dict[str, Any]:
    """Return milliseconds and bytes an image, for images and masks that were built."""
    path = next(iter(sorted(folder.glob("data/default/train-*.parquet"))))
    table = pq.read_table(path, columns=["image", "mask"])
    step = max(1, table.num_rows // count)
    results: dict[str, Any] = {}
    for column in ("image", "mask"):
        images = [
            np.asarray(Image.open(io.BytesIO(value["bytes"])))
            for value in table[column].to_pylist()[::step][:count]
        ]
        # A mask is encoded from bool by ours, as in a build, and from 0/255 by the others.
        ours = [image > 0 for image in images] if column == "mask" else images
        times: defaultdict[str, list[float]] = defaultdict(list)
        sizes: dict[str, float] = {}
        for _ in range(5):
            for name, encode in encoders().items():
                data = ours if name.startswith("ours") else images
                started = now()
                encoded = [encode(image) for image in data]
                times[name].append((now() - started) / len(data))
                sizes[name] = statistics.fmean(map(len, encoded))
        base = sizes["Pillow, default"]
        results[column] = {
            name: {
                "ms": round(1e3 * statistics.median(times[name]), 3),
                "bytes": round(sizes[name]),
                "bytes_to_pillow_default": round(sizes[name] / base, 3),
            }
            for name in sizes
        }
    return results


def peak_memory(options: BuildOptions, limit: int | None) -> dict[str, Any]:
    """Return the peak memory (MB) and rows of a build in a fresh process."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--memory-of", out, "--source", *options.sources]
        command += ["--store-dir", str(options.store_dir)] if options.store_dir else []
        command += ["--limit", str(limit)] if limit else []
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="reference")
    parser.add_argument("--store-dir", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--published", type=int, default=24, help="images of the published pipeline")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/build-DATE.json")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    def options(out: Path, limit: int | None) -> BuildOptions:
        return BuildOptions(
            dataset="stem2d", sources=[arguments.source], out=out, limit=limit, store_dir=arguments.store_dir
        )

    if arguments.memory_of:
        report = load_builder("stem2d").build(options(arguments.memory_of, arguments.limit))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rows": sum(report.rows["default"].values()), "peak_mb": round(peak)}))
        return

    from atomvision_hub import load_structures

    crystals = load_structures([arguments.source], store_dir=arguments.store_dir)
    ids = list(crystals)
    sample = [crystals[name] for name in ids[:: max(1, len(ids) // arguments.published)]][
        : arguments.published
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        published(sample[:2], folder)  # warm-up: imports and fonts
        before = published(sample, folder)
        clock = Clock()
        started = now()
        report = timed_build(options(folder / "stem2d", arguments.limit), clock)
        total = now() - started
        after = published(sample, folder)
        rows = sum(report.rows["default"].values())
        per_row = {step: round(1e3 * s / rows, 4) for step, s in sorted(clock.seconds.items())}
        theirs = 1e3 * (before + after) / 2
        measured = sum(s for step, s in clock.seconds.items() if step not in ONCE)
        result = {
            "machine": machine_facts(),
            "command": " ".join(["python benchmarks/bench_build.py", *sys.argv[1:]]),
            "clock": "processor time of this process",
            "source": arguments.source,
            "rows": rows,
            "rejected": report.rejected,
            "ms_per_row": per_row,
            "once_seconds": {step: round(clock.seconds[step], 2) for step in ONCE},
            "ms_per_row_without_encoding_and_writing": round(
                sum(ms for step, ms in per_row.items() if step not in FREE + ONCE), 3
            ),
            "ms_per_row_total": round(1e3 * measured / rows, 3),
            "ms_per_row_total_with_once": round(1e3 * total / rows, 3),
            "published_ms_per_image": {"before": round(1e3 * before, 2), "after": round(1e3 * after, 2)},
            "times_faster_than_published": round(theirs / (1e3 * total / rows), 1),
            "encoders": compare_encoders(folder / "stem2d"),
            "bytes_per_row": round(
                sum(path.stat().st_size for path in folder.glob("stem2d/data/default/*")) / rows
            ),
        }
    quarter = max(1, (arguments.limit or len(ids)) // 4)
    result["memory"] = {
        "quarter": peak_memory(options(Path(), None), quarter),
        "all": peak_memory(options(Path(), None), arguments.limit),
    }
    out = arguments.out or Path(__file__).parent / "results" / f"build-{time.strftime('%Y-%m-%d')}.json"
    write_json(out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
