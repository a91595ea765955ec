"""Steps of every training script beside a plain PyTorch loop of the same network, batches and seed.

    OMP_NUM_THREADS=2 python benchmarks/bench_training.py --out benchmarks/results/training-DATE.json

The script itself runs. Its stream of batches is wrapped: after every block of steps the script has to
wait while the plain loop (no accelerate, nothing of this package but network, loss and batches) takes
as many steps of its own on the same batches. So both meet the same load of the machine. The overhead is
the median over the blocks of the script's time divided by that of the plain loop, less one.

Without --data a dataset of the embedded crystals is built first.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import importlib.util
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import accelerate
import torch
from _machine import machine_facts
from timm.utils import ModelEmaV3
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
#: What makes a step of a full-size network short enough for two cores; --full leaves it out.
SMALL: dict[str, list[str]] = {
    "classifier": [
        "model.architecture=resnet10t",
        "model.args={channels: [32, 64, 128, 256]}",
        "model.input_size=96",
        "training.ema_decay=0.99",
    ],
    "segmenter": ["training.batch_size=8"],
    "alignn": ["training.batch_size=16", "training.doses=[]"],
    "srgan": ["training.batch_size=4", "model.blocks=4", "model.channels=32"],
    "autoencoder": ["training.batch_size=64"],
}
ALWAYS: dict[str, list[str]] = {"srgan": ["training.pretrain_epochs=0", "training.content=pixels"]}
TASKS = tuple(SMALL)


class _EnoughError(BaseException):
    """Ends a script when all blocks are timed."""


def main() -> None:
    """Time the scripts one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--data", type=Path, help="stem2d folder with the config 'rotated'")
    parser.add_argument("--blocks", type=int, default=12, help="of the script and of the plain loop, each")
    parser.add_argument("--steps", type=int, default=6, help="in a block")
    parser.add_argument(
        "--full", action="store_true", help="networks and batches of the default configurations"
    )
    parser.add_argument("--out", type=Path, help="where to write the figures (JSON)")
    given = parser.parse_args()
    results: dict[str, Any] = {"machine": machine_facts(), "device": _device(), "tasks": {}}
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or _build(Path(folder) / "data")
        for task in given.tasks:
            options = ALWAYS.get(task, []) + ([] if given.full else SMALL[task])
            found = measure(task, data, Path(folder) / task, options, given.blocks, given.steps)
            results["tasks"][task] = found
            print(
                f"{task}: {found['median_overhead']:+.1%} in {given.blocks} blocks of {given.steps} steps "
                f"({1000 * found['plain_seconds_a_step']:.1f} ms a step in the plain loop)",
                flush=True,
            )
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _build(folder: Path) -> Path:
    from atomvision_hub.data.build import BuildOptions
    from atomvision_hub.data.builders import load_builder

    options = BuildOptions(dataset="stem2d", sources=["reference"], out=folder, configs=["rotated"])
    load_builder("stem2d").build(options)
    return folder


def _script(task: str) -> ModuleType:
    path = ROOT / "training" / f"train_{task}.py"
    specification = importlib.util.spec_from_file_location(f"train_{task}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def measure(task: str, data: Path, out: Path, options: list[str], blocks: int, steps: int) -> dict[str, Any]:
    """Return the times of one script and its plain twin, block by block, in seconds."""
    script = _script(task)
    batches_class = importlib.import_module(f"atomvision_hub.engine.tasks.{task}").Batches
    times: dict[str, list[float]] = {"script": [], "plain": []}
    prepared: list[tuple[Any, ...]] = []
    prepare, epoch = accelerate.Accelerator.prepare, batches_class.epoch

    def remember(self: Any, *objects: Any, **more: Any) -> Any:
        if not prepared:
            prepared.append(
                (*(copy.deepcopy(one) for one in objects if isinstance(one, torch.nn.Module)), self)
            )
        return prepare(self, *objects, **more)

    def wrapped(self: Any, number: int) -> Iterator[Any]:
        *networks, accelerator = prepared[0]
        bf16 = accelerator.mixed_precision == "bf16"
        twin = PLAIN[task](networks, self.config, bf16, len(self))
        ours, theirs = _endless(epoch, self, number), _endless(epoch, self, number)
        for block in range(-1, blocks):  # the first warms both up
            began = time.perf_counter()
            for _ in range(steps):
                yield next(ours)
            _wait()
            middle = time.perf_counter()
            for _ in range(steps):
                twin(next(theirs))
            _wait()
            if block >= 0:
                times["script"].append(middle - began)
                times["plain"].append(time.perf_counter() - middle)
        raise _EnoughError

    arguments = ["train", "--output-dir", str(out), "--config", task, "--set", f"data.path={data}"]
    arguments += ["data.config=rotated", *options]
    before = sys.argv
    accelerate.Accelerator.prepare, batches_class.epoch, sys.argv = remember, wrapped, arguments
    try:
        with contextlib.suppress(_EnoughError), contextlib.redirect_stderr(io.StringIO()):
            script.main()
    finally:
        accelerate.Accelerator.prepare, batches_class.epoch, sys.argv = prepare, epoch, before
    ratios = [a / b for a, b in zip(times["script"], times["plain"], strict=True)]
    if len(ratios) != blocks:
        raise SystemExit(f"{task}: only {len(ratios)} of {blocks} blocks were timed")
    return {
        "median_overhead": statistics.median(ratios) - 1,
        "overheads": [ratio - 1 for ratio in ratios],
        "blocks": blocks,
        "steps": steps,
        "plain_seconds_a_step": statistics.median(times["plain"]) / steps,
        "script_seconds": times["script"],
        "plain_seconds": times["plain"],
        "options": options,
    }


def _endless(epoch: Callable[..., Iterator[Any]], batches: Any, number: int) -> Iterator[Any]:
    while True:
        yield from epoch(batches, number)
        number += 1


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Plain:
    """One optimiser, clipping, schedule and average of weights, by hand."""

    clip = 5.0

    def __init__(self, networks: list[torch.nn.Module], config: Any, bf16: bool, steps: int) -> None:
        self.network, self.config = networks[0].train(), config
        self.autocast = torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16, bf16)
        values = [value for value in self.network.parameters() if value.requires_grad]
        self.optimizer = self._optimizer(values)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + step / steps))
        self.average = ModelEmaV3(self.network, decay=config.ema_decay) if config.ema_decay else None

    def _optimizer(self, values: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(values, lr=config.learning_rate, weight_decay=config.weight_decay)

    def _loss(self, batch: Any) -> torch.Tensor:
        raise NotImplementedError

    def __call__(self, batch: Any) -> None:
        """Take a step."""
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network)


class PlainClassifier(Plain):
    """The loss of `train_classifier.py`."""

    def _loss(self, batch: Any) -> torch.Tensor:
        images, labels = batch
        with self.autocast:
            logits = self.network(((images - 0.25) / 0.25).expand(-1, 3, -1, -1)).logits
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)


class PlainSegmenter(Plain):
    """The loss of `train_segmenter.py`."""

    def _loss(self, batch: Any) -> torch.Tensor:
        images, masks = batch
        with self.autocast:
            logits = self.network(images, every=True)
        return functional.binary_cross_entropy_with_logits(logits.float(), masks.float())


class PlainAlignn(Plain):
    """The loss of `train_alignn.py`."""

    def _loss(self, batch: Any) -> torch.Tensor:
        graphs, labels = batch
        with self.autocast:
            logits = self.network(graphs)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)


class PlainAutoencoder(Plain):
    """The loss of `train_autoencoder.py`."""

    clip = 1.0

    def _optimizer(self, values: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(values, lr=self.config.learning_rate)

    def _loss(self, batch: Any) -> torch.Tensor:
        images, _ = batch
        with self.autocast:
            found = self.network(images)
        return functional.mse_loss(found.float(), images)


class PlainSrgan(Plain):
    """Two networks, two optimisers; the content is the pixels themselves."""

    def __init__(self, networks: list[torch.nn.Module], config: Any, bf16: bool, steps: int) -> None:
        super().__init__(networks, config, bf16, steps)
        self.critic = networks[1].train()
        self.learn = torch.optim.Adam(self.critic.parameters(), lr=config.learning_rate)

    def _optimizer(self, values: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(values, lr=self.config.learning_rate)

    def __call__(self, batch: Any) -> None:
        """Take a step."""
        low, truth = batch
        bce = functional.binary_cross_entropy_with_logits
        with self.autocast:
            made = self.network(low)
            self.critic.requires_grad_(False)
            opinion = self.critic(made, low).float()
            self.critic.requires_grad_(True)
            loss = functional.mse_loss(made.float(), truth)
            loss = loss + self.config.adversarial * bce(opinion, torch.ones_like(opinion))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with self.autocast:
            both = torch.cat([truth, made.detach()])
            true, false = self.critic(both, torch.cat([low, low])).float().chunk(2)
            caught = bce(true, torch.ones_like(true)) + bce(false, torch.zeros_like(false))
        caught.backward()  # type: ignore[no-untyped-call]
        self.learn.step()
        self.learn.zero_grad()
        if self.average is not None:
            self.average.update(self.network)


PLAIN: dict[str, type[Plain]] = {
    "classifier": PlainClassifier,
    "segmenter": PlainSegmenter,
    "alignn": PlainAlignn,
    "srgan": PlainSrgan,
    "autoencoder": PlainAutoencoder,
}

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
