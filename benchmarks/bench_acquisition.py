"""How many images a second are recorded by the acquisition presets, by NumPy and by torch; and a picture.

    python benchmarks/bench_acquisition.py [--repeats N] [--out benchmarks/results/acquisition-DATE.json]
    python benchmarks/bench_acquisition.py --picture docs/images/acquisition.png

The view is 256 x 256 pixels of 0.1 Å of MoS2. NumPy: `record_stem` with rendering, atom table and mask, one
image at a time, all presets turn by turn. Torch: `acquire_batch` on a batch of ideal images that
lie on the device, on one thread of the CPU or on the GPU if there is one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _machine import interleaved, machine_facts

from atomvision_hub._files import write_bytes, write_json
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.acquisition import (
    PRESETS,
    Acquisition,
    Contamination,
    Drift,
    Flyback,
    LineJitter,
    Probe,
    record_stem,
)
from atomvision_hub.structures import load_structures

SHAPE, PIXEL_SIZE = (256, 256), 0.1
BATCH = {"cpu": 16, "cuda": 256}


def numpy_times(repeats: int) -> dict[str, dict[str, float]]:
    """Return seconds an image by preset, targets included."""
    crystal = load_structures("reference")["MoS2"]

    def recorded(preset: str) -> Callable[[], None]:
        def call() -> None:
            frame = record_stem(crystal, preset, seed=0, shape=SHAPE, pixel_size=PIXEL_SIZE)
            assert len(frame.atoms) > 0
            assert frame.mask.any()

        return call

    times: dict[str, dict[str, float]] = interleaved({name: recorded(name) for name in PRESETS}, repeats)
    return times


def torch_rates(repeats: int) -> dict[str, Any]:
    """Return images per second by preset."""
    import torch

    from atomvision_hub.simulation.torch.acquisition import acquire_batch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=SHAPE, pixel_size=PIXEL_SIZE)
    batch = torch.from_numpy(frame.image).to(device).repeat(BATCH[device], 1, 1)
    generator = torch.Generator(device).manual_seed(0)
    rates, processor = {}, {}
    for preset in [name for name, steps in PRESETS.items() if steps]:
        seconds, used = [], []
        for _ in range(repeats + 2):
            if device == "cuda":
                torch.cuda.synchronize()
            started, before = time.perf_counter(), time.process_time()
            acquire_batch(batch, PIXEL_SIZE, preset, generator=generator)
            if device == "cuda":
                torch.cuda.synchronize()
            used.append(time.process_time() - before)
            seconds.append(time.perf_counter() - started)
        rates[preset] = BATCH[device] / statistics.median(seconds[2:])
        processor[preset] = BATCH[device] / statistics.median(used[2:])
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread",
        "batch": BATCH[device],
        "images_per_second": rates,
        "images_per_processor_second": processor,
    }


def picture() -> bytes:
    """Return MoS2 and graphene, ideal and as recorded, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    astigmatic = Probe(voltage=200, semi_angle=22, defocus=20, astigmatism=25, astigmatism_angle=60)
    scan = (Drift(fraction=0.1), LineJitter(rms=0.1), Flyback(lag=0.8, settling=0.1))
    columns: list[tuple[str, Acquisition, dict[str, Any]]] = [
        ("ideal", Acquisition.preset("ideal"), {}),
        ("defocus, astigmatism", Acquisition((astigmatic,)), {"sigma": 0.15}),
        ("contamination", Acquisition((Contamination(level=0.6, size=4),)), {}),
        ("drift, jitter, flyback", Acquisition(scan), {}),
        ("good: 5,000 e/Å²", Acquisition.preset("good"), {}),
        ("typical: 500 e/Å²", Acquisition.preset("typical"), {}),
        ("poor: 50 e/Å²", Acquisition.preset("poor"), {}),
    ]
    crystals, side = load_structures("reference"), 120
    inches = side / 100
    figure = plt.figure(figsize=(7 * (inches + 0.06), 2 * (inches + 0.06) + 0.2), dpi=100)
    for k, (title, acquisition, options) in enumerate(columns):
        for row, name in enumerate(("MoS2", "graphene")):
            frame = record_stem(
                crystals[name], acquisition, seed=3, shape=(side, side), rotation=9, **options
            )
            left, bottom = k * (inches + 0.06), (1 - row) * (inches + 0.06)
            width, height = figure.get_size_inches()
            axes = figure.add_axes((left / width, bottom / height, inches / width, inches / height))
            axes.imshow(frame.image, cmap="gray", interpolation="nearest")
            axes.axis("off")
            if row == 0:
                axes.set_title(title, fontsize=7, pad=3)
    stream = io.BytesIO()
    figure.savefig(stream)
    plt.close(figure)
    small = io.BytesIO()
    Image.open(stream).convert("L").quantize(48).save(small, "PNG", optimize=True)
    return small.getvalue()


def main() -> None:
    """Time, print and write; or draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="turns")
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--picture", type=Path, help="draw only, into this PNG")
    options = parser.parse_args()
    if options.picture:
        write_bytes(options.picture, picture())
        return
    seconds = numpy_times(options.repeats)
    result = {
        "machine": machine_facts(),
        "view": {"crystal": "MoS2 monolayer", "shape": list(SHAPE), "pixel_size": PIXEL_SIZE},
        "presets": {name: Acquisition.preset(name).to_dict() for name in PRESETS},
        "numpy_seconds_per_image": seconds,
        "torch": torch_rates(max(3, options.repeats // 3)),
    }
    print(f"{result['machine']['cpu']}, one thread, {result['machine']['date']}\n")
    for name, times in seconds.items():
        wall, cpu = times["median"], times["cpu_median"]
        print(f"{name:10s} record_stem {wall * 1e3:7.2f} ms, {cpu * 1e3:7.2f} ms of processor time")
    print(f"\nacquire_batch, {result['torch']['device']}, batches of {result['torch']['batch']}:")
    for name, rate in result["torch"]["images_per_second"].items():
        per_cpu = result["torch"]["images_per_processor_second"][name]
        print(f"{name:10s} {rate:12,.0f} images/s, {per_cpu:,.0f} by processor time")
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
