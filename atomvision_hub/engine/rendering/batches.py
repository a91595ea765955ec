"""Batches of rendered images for a training loop: by worker processes, in the loop's own, or on its GPU."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from atomvision_hub.engine.config import LoopConfig
from atomvision_hub.engine.loop import batch_indices, share, steps_per_epoch
from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.cpu import make_images
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.engine.rendering.device import DeviceRenderer
from atomvision_hub.engine.rendering.draws import Draws, draw

#: Pixels that the device makes at once: the memory of a batch of 32 images of 256 x 256.
_PIXELS_AT_ONCE = 2**21


class RenderedBatch(NamedTuple):
    """A batch on the device.

    Attributes
    ----------
    images
        Float32 0..1, [batch, 1, row, column].
    labels
        Class of the lattice, int64 [batch].
    pixel_size
        Å/px, float32 [batch].
    """

    images: Tensor
    labels: Tensor
    pixel_size: Tensor


class _Task(NamedTuple):
    """What a process makes of one step: which places of the epoch, and the crystal of each."""

    epoch: int
    places: npt.NDArray[np.int64]
    crystals: npt.NDArray[np.int64]


class RenderedCrystals:
    """Rendered batches of an epoch, the same for any number of processes and workers.

    Parameters
    ----------
    crystals
        What is drawn; those that are too large for any view are left out and listed in
        ``self.crystals.left_out``.
    render
        How.
    config
        Batch size and seed of the loop.
    accelerator
        Device and share of this process.
    on_device
        Whether batches are made by torch on the device; by default on a GPU without `workers`.

    Raises
    ------
    UsageError
        When no crystal is left.
    """

    def __init__(
        self,
        crystals: CrystalSet,
        render: RenderConfig,
        config: LoopConfig,
        accelerator: Accelerator,
        *,
        on_device: bool | None = None,
    ) -> None:
        self.crystals = crystals.in_view(min(render.shape) * render.pixel_size[1], render.periods)
        self.render, self.config, self.accelerator = render, config, accelerator
        if on_device is None:
            on_device = accelerator.device.type == "cuda" and render.workers == 0
        self._renderer = DeviceRenderer(self.crystals, render, accelerator.device) if on_device else None
        self._tasks = _Tasks()
        self._loader: DataLoader[tuple[Tensor, Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return steps_per_epoch(len(self.crystals) * self.render.views, self.config)

    def epoch(self, epoch: int) -> Iterator[RenderedBatch]:
        """Yield the batches of an epoch."""
        count, rows = self.config.batch_size, len(self.crystals) * self.render.views
        mine = share(count, self.accelerator)
        order = batch_indices(rows, self.config, epoch, self.accelerator)
        tasks = [
            _Task(epoch, np.arange(step * count, (step + 1) * count)[mine], chosen % len(self.crystals))
            for step, (chosen, _) in enumerate(order)
        ]
        return self._on_device(tasks) if self._renderer is not None else self._by_workers(tasks)

    def _by_workers(self, tasks: list[_Task]) -> Iterator[RenderedBatch]:
        if self._loader is None:
            self._loader = _loader(_Steps(self.crystals, self.render, self.config.seed), self._tasks)
        self._tasks.now = tasks
        device = self.accelerator.device
        for made in self._loader:
            images, labels, sizes = (one.to(device, non_blocking=True) for one in made)
            yield RenderedBatch(_as_float(images)[:, None], labels, sizes)

    def _on_device(self, tasks: list[_Task]) -> Iterator[RenderedBatch]:
        """Make batches by a thread on a stream of its own while the loop's steps before them are running.

        Making one batch starts about a thousand small kernels and waits for sizes that the device computes:
        several batches at once cost the processor as much as one, and a thread's waiting is not the loop's.
        """
        device, beside = self.accelerator.device, None
        if device.type == "cuda":
            beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        several = max(1, _PIXELS_AT_ONCE // (self.config.batch_size * math.prod(self.render.shape)))
        # The first alone, so that the loop begins early.
        groups = [tasks[:1], *(tasks[at : at + several] for at in range(1, len(tasks), several))]
        with ThreadPoolExecutor(1, thread_name_prefix="rendering") as thread:
            coming = deque(thread.submit(self._made, group, beside) for group in groups[:2])
            for group in [*groups[2:], None, None]:
                if not coming:
                    return
                batches, ready = coming.popleft().result()
                if group is not None:
                    coming.append(thread.submit(self._made, group, beside))
                if ready is not None:
                    current = torch.cuda.current_stream(device)
                    current.wait_event(ready)
                    for tensor in batches[0]:
                        tensor.record_stream(current)  # of all batches: they share its memory
                yield from batches

    def _made(
        self, tasks: list[_Task], stream: torch.cuda.Stream | None
    ) -> tuple[list[RenderedBatch], torch.cuda.Event | None]:
        """Return batches, and what tells that the device has made them."""
        assert self._renderer is not None
        crystals = np.concatenate([task.crystals for task in tasks])
        places = np.concatenate([task.places for task in tasks])
        draws = draw(self.crystals, self.render, self.config.seed, tasks[0].epoch, places, crystals)
        device = self.accelerator.device
        with torch.cuda.stream(stream):
            made = (
                self._renderer.make(draws)[:, None],
                torch.from_numpy(self.crystals.labels[crystals]).to(device),
                torch.from_numpy(draws.pixel_size).float().to(device),
            )
            ready = None if stream is None else stream.record_event()
        parts = (torch.split(one, [len(task.crystals) for task in tasks]) for one in made)
        return [RenderedBatch(*batch) for batch in zip(*parts, strict=True)], ready


def _as_float(images: Tensor) -> Tensor:
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


class _Tasks(Sampler[_Task]):
    """The tasks of the epoch that is asked for, so that one loader and its workers serve all epochs."""

    def __init__(self) -> None:
        self.now: list[_Task] = []

    def __iter__(self) -> Iterator[_Task]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


class _Steps(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images, labels and pixel sizes of a task."""

    def __init__(self, crystals: CrystalSet, render: RenderConfig, seed: int) -> None:
        self.crystals, self.render, self.seed = crystals, render, seed

    def __getitem__(self, task: _Task) -> tuple[Tensor, Tensor, Tensor]:
        draws = draw(self.crystals, self.render, self.seed, task.epoch, task.places, task.crystals)
        return (
            torch.from_numpy(render_quietly(self.crystals, self.render, draws)),
            torch.from_numpy(self.crystals.labels[task.crystals]),
            torch.from_numpy(draws.pixel_size).float(),
        )


def render_quietly(crystals: CrystalSet, render: RenderConfig, draws: Draws) -> npt.NDArray[Any]:
    """Return `make_images` on one thread: products are small, and more threads would wait for each other."""
    with _controller().limit(limits=1, user_api="blas"):
        return make_images(crystals, render, draws)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _loader(steps: _Steps, tasks: _Tasks) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    workers = steps.render.workers
    if not workers:
        return DataLoader(steps, batch_size=None, sampler=tasks)
    # Not forked from this process, which may hold a GPU and threads.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(["atomvision_hub.engine.rendering.batches"])
    return DataLoader(
        steps,
        batch_size=None,
        sampler=tasks,
        num_workers=workers,
        multiprocessing_context=context,
        worker_init_fn=_begin,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4,
    )


def _begin(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if hasattr(os, "nice"):
        os.nice(5)  # the process that feeds a GPU comes first
