"""What rendering training images costs beside decoding them, and whether a training loop waits for it.

    python benchmarks/bench_rendering.py --data build/stem2d [--images N] [--steps N] [--seed N]
        [--workers N ...] [--network NAME --side N] [--batch N] [--pace RATE ...]
        [--out benchmarks/results/rendering-DATE.json]

On one thread, turn by turn, in processor time: Pillow decodes the PNGs of the config ``rotated`` (256 x 256
pixels of 0.1 Å, random poses), and the crystals of the same rows are rendered in such views, and in views of
random pixel size, ideal and recorded. Then images per second that arrive from 0, 1 and 2 worker processes,
and the share of a training loop (`resnet10t` of the shipped classifier, 96 x 96; others by `--network` and
`--side`) that is spent waiting for batches, and its rate beside that of the same loop on one batch that lies
on the device. With CUDA the same for batches made on the GPU beside the step before (0 workers), and how long
the GPU has nothing to do between the steps, by its own events.

--pace: how long a device that takes so many images (`--side` pixels) a second would have nothing to do with
the same workers; its computing is a sleep, as a processor may while a GPU computes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import time
from collections.abc import Iterable
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from _machine import interleaved, machine_facts
from accelerate import Accelerator
from PIL import Image

from atomvision_hub._files import write_json
from atomvision_hub.engine.config import LoopConfig
from atomvision_hub.engine.rendering import CrystalSet, RenderConfig, RenderedBatch, RenderedCrystals
from atomvision_hub.engine.rendering.cpu import make_images
from atomvision_hub.engine.rendering.draws import draw
from atomvision_hub.engine.tasks.classifier import normalise
from atomvision_hub.models.classifier import make_classifier

VIEWS: dict[str, dict[str, Any]] = {
    "0.1 Å/px": {"pixel_size": (0.1, 0.1), "periods": 0},
    "0.05-0.25 Å/px": {"pixel_size": (0.05, 0.25), "periods": 3},
}
ACQUISITIONS = ("ideal", "good", "typical", "poor", "random")
#: The shipped classifier is narrower than the network of its name.
SMALL = {"resnet10t": {"channels": [32, 64, 128, 256]}}


def costs(data: Path, crystals: CrystalSet, count: int, seed: int, repeats: int) -> dict[str, Any]:
    """Return milliseconds an image of decoding and of rendering, both to uint8 arrays."""
    file = sorted((data / "data" / "rotated").glob("train-*.parquet"))[0]
    rows = pq.read_table(file, columns=["image", "material_id"]).slice(0, count).to_pylist()
    where = {name: index for index, name in enumerate(crystals.ids)}
    encoded = [row["image"]["bytes"] for row in rows]
    same = np.array([where[row["material_id"]] for row in rows if row["material_id"] in where])
    assert len(same) == len(rows), "the configs rotated and structures belong to different builds"

    def decode() -> None:
        for png in encoded:
            np.asarray(Image.open(io.BytesIO(png)))

    timers: dict[str, Any] = {"decode PNG": decode}
    counts = {"decode PNG": len(encoded)}
    for view, values in VIEWS.items():
        for acquisition in ACQUISITIONS:
            render = RenderConfig(acquisition=acquisition, **values)
            seen = crystals.in_view(min(render.shape) * render.pixel_size[1], render.periods)
            number = {name: index for index, name in enumerate(seen.ids)}
            which = np.array([number[crystals.ids[i]] for i in same if crystals.ids[i] in number])

            def make(
                seen: CrystalSet = seen, render: RenderConfig = render, which: np.ndarray = which
            ) -> None:
                make_images(seen, render, draw(seen, render, seed, 1, np.arange(len(which)), which))

            timers[f"{acquisition}, {view}"], counts[f"{acquisition}, {view}"] = make, len(which)
    times = interleaved(timers, repeats)
    per_image = {name: 1e3 * value["cpu_median"] / counts[name] for name, value in times.items()}
    return {
        "images": len(encoded),
        "milliseconds_per_image": per_image,
        "times_decoding": {name: value / per_image["decode PNG"] for name, value in per_image.items()},
        "images_per_processor_second": {name: 1e3 / value for name, value in per_image.items()},
    }


def batches(crystals: CrystalSet, workers: int, side: int, options: argparse.Namespace) -> RenderedCrystals:
    """Return batches recorded as `typical`, enough of them in an epoch."""
    size = 0.1 * 256 / side
    views = 1 + (options.steps + 4) * options.batch // len(crystals)
    render = RenderConfig(
        acquisition="typical",
        shape=(side, side),
        pixel_size=(size, size),
        periods=1,
        workers=workers,
        views=views,
    )
    loop = LoopConfig(batch_size=options.batch, seed=options.seed)
    return RenderedCrystals(crystals, render, loop, Accelerator())


def flow(made: RenderedCrystals, steps: int) -> dict[str, float]:
    """Return how many images a second arrive when nobody does anything with them."""
    arriving = made.epoch(1)
    next(arriving)  # workers start
    began = time.perf_counter()
    count = sum(len(batch.images) for batch in islice(arriving, steps))
    return {"images_per_second": count / (time.perf_counter() - began)}


def training(made: RenderedCrystals, steps: int, network: str) -> dict[str, Any]:
    """Return how a training loop on rendered batches does beside one on a batch that lies on the device."""
    torch.manual_seed(0)
    side, args = made.render.shape[0], SMALL.get(network, {})
    model = make_classifier(architecture=network, args=args, input_size=side, labels=list("abcde"))
    model = model.to(made.accelerator.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    arriving = made.epoch(1)
    held = next(arriving)
    loop(model, optimizer, repeat(held, 3))  # what is chosen and reserved in the first steps is no waiting
    loop(model, optimizer, islice(arriving, 2))
    alone = [loop(model, optimizer, repeat(held, steps))]
    result: dict[str, Any] = loop(model, optimizer, islice(arriving, steps))
    alone.append(loop(model, optimizer, repeat(held, steps)))
    result["held_batch"] = {name: float(np.mean([one[name] for one in alone])) for name in alone[0]}
    return result


def loop(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[RenderedBatch]
) -> dict[str, float]:
    """Train on batches and return the rate, the share of the time that it waited, and what a GPU idled."""
    cuda = next(model.parameters()).is_cuda
    if cuda:
        torch.cuda.synchronize()
    iterator, waited, count = iter(batches), 0.0, 0
    events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    began = time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(iterator, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        if cuda:
            events.append((_event(), _event()))
            events[-1][0].record()
        logits = model(normalise(batch.images, 0.25, 0.25)).logits
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, batch.labels))
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            events[-1][1].record()
        count += len(batch.images)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    result = {"images_per_second": count / seconds, "waiting_share": waited / seconds}
    if cuda:
        busy = sum(before.elapsed_time(after) for before, after in events) / 1e3
        result["gpu_idle_share"] = 1 - busy / seconds
    return result


def paced(made: RenderedCrystals, steps: int, rate: float) -> float:
    """Return which part of the time a device that takes `rate` images a second has nothing to do.

    Work is handed over as to a GPU: while the device computes a batch, the loop asks for the next one.
    """
    arriving, each = made.epoch(1), made.config.batch_size / rate
    for _ in islice(arriving, 3):  # workers start and fill what they may prepare
        time.sleep(each)
    next(arriving)
    began = time.perf_counter()
    done, idle = began + each, 0.0
    for _ in range(steps):
        next(arriving)
        now = time.perf_counter()
        idle += max(0.0, now - done)
        time.sleep(max(0.0, done - now))
        done = max(now, done) + each
    return idle / (done - began)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="stem2d dataset: structures and rotated")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="batches in each flow and loop")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--network", default="resnet10t", help="timm network of the training loop")
    parser.add_argument("--side", type=int, default=96, help="its input, px")
    parser.add_argument("--batch", type=int, default=32, help="images of a batch")
    parser.add_argument("--pace", type=float, nargs="*", default=[], help="images/s of a device elsewhere")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crystals = CrystalSet.open(options.data, "train")
    found = costs(options.data, crystals, options.images, options.seed, options.repeats)
    print(f"{found['images']} images, one thread, processor time")
    for name, value in found["milliseconds_per_image"].items():
        print(f"{name:28s} {value:7.3f} ms   {found['times_decoding'][name]:5.2f} x decoding")
    flows: dict[str, Any] = {}
    for workers in options.workers:
        told: dict[str, Any] = flow(batches(crystals, workers, 256, options), options.steps)
        told["training"] = training(
            batches(crystals, workers, options.side, options), options.steps, options.network
        )
        told["paced_idle_share"] = {
            f"{rate:g}": paced(batches(crystals, workers, options.side, options), options.steps, rate)
            for rate in options.pace
        }
        flows[str(workers)] = told
        loops = told["training"]
        idle = f", the GPU idles {100 * loops['gpu_idle_share']:.1f} %" if "gpu_idle_share" in loops else ""
        print(
            f"{workers} workers: {told['images_per_second']:,.0f} images/s of 256 x 256, typical; training "
            f"at {loops['images_per_second']:,.0f} images/s waits {100 * loops['waiting_share']:.1f} % of it"
            f"{idle}; on one batch that lies there {loops['held_batch']['images_per_second']:,.0f}"
        )
        for rate, share in told["paced_idle_share"].items():
            print(f"    a device that takes {rate} images/s would be idle {100 * share:.1f} %")
    result = {
        "machine": machine_facts(),
        "seed": options.seed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cost": found,
        "network": f"{options.network}, {options.side} x {options.side}, batches of {options.batch}",
        "workers": flows,
    }
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
