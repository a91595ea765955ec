"""Batches of rendered images for a training loop, made by worker processes or in the loop's own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atomvision_hub.engine.config import LoopConfig
from atomvision_hub.engine.loop import batch_indices, share, steps_per_epoch
from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.cpu import make_images
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.engine.rendering.draws import draw


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


class RenderedCrystals:
    """Rendered batches of one epoch, the same for any number of processes and workers.

    Parameters
    ----------
    crystals
        What is drawn; those that are too large for the views are left out (`crystals.left_out`).
    render
        How.
    config
        Batch size and seed of the loop.
    accelerator
        Device and share of this process.
    workers
        Processes that render ahead of the loop; 0 renders in the loop.
    """

    def __init__(
        self,
        crystals: CrystalSet,
        render: RenderConfig,
        config: LoopConfig,
        accelerator: Accelerator,
        *,
        workers: int = 0,
    ) -> None:
        self.crystals = crystals.in_view(min(render.shape) * render.pixel_size[1], render.periods)
        self.render, self.config, self.accelerator, self.workers = render, config, accelerator, workers

    def __len__(self) -> int:
        return steps_per_epoch(len(self.crystals) * self.render.views, self.config)

    def epoch(self, epoch: int) -> Iterator[RenderedBatch]:
        """Yield the batches of an epoch."""
        count = self.config.batch_size
        mine, device = share(count, self.accelerator), self.accelerator.device
        rows = batch_indices(
            len(self.crystals) * self.render.views, self.config, epoch, self.accelerator, whole=True
        )
        which = np.stack([batch % len(self.crystals) for batch, _ in rows])[:, mine]
        steps = _Steps(self.crystals, self.render, self.config.seed, epoch, which, mine, count)
        options: dict[str, Any] = {}
        if self.workers:
            options = {"multiprocessing_context": "forkserver", "prefetch_factor": 2}
        loader = DataLoader(steps, batch_size=None, num_workers=self.workers, **options)
        for images, labels, sizes in loader:
            yield RenderedBatch(
                _grey(images.to(device, non_blocking=True)),
                labels.to(device, non_blocking=True),
                sizes.to(device, non_blocking=True),
            )


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _grey(images: Tensor) -> Tensor:
    return (images.float() / 255 if images.dtype == torch.uint8 else images)[:, None]


class _Steps(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The batches of one process in an epoch, by number."""

    def __init__(
        self,
        crystals: CrystalSet,
        render: RenderConfig,
        seed: int,
        epoch: int,
        which: npt.NDArray[np.int64],
        mine: slice,
        batch_size: int,
    ) -> None:
        self.crystals, self.render, self.seed, self.epoch = crystals, render, seed, epoch
        self.which, self.mine, self.batch_size = which, mine, batch_size

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.mine]
        which = self.which[step]
        draws = draw(self.crystals, self.render, self.seed, self.epoch, places, which)
        with _controller().limit(limits=1, user_api="blas"):
            # Small products: more threads would wait for each other.
            images = make_images(self.crystals, self.render, draws)
        return (
            torch.from_numpy(images),
            torch.from_numpy(self.crystals.labels[which]),
            torch.from_numpy(draws.pixel_size).float(),
        )
