"""Pieces of the training loop: batches, schedule, loss, exact evaluation over several processes."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LambdaLR

from atomvision_hub.engine.augment import draw_transforms, sample
from atomvision_hub.engine.config import TrainingConfig
from atomvision_hub.engine.data import Images
from atomvision_hub.errors import MissingExtraError, UsageError


def make_accelerator(config: TrainingConfig, folder: str) -> Accelerator:
    """Return the accelerator: devices as `accelerate launch` says, bf16 where a GPU has it, all cores."""
    precision: str = config.mixed_precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    for tracker in config.trackers:
        if importlib.util.find_spec(tracker) is None:
            remedy = f"pip install 'atomvision-hub[{tracker}]'"
            raise MissingExtraError(f"{tracker} is not installed; {remedy}, or leave out training.trackers")
    accelerator = Accelerator(
        mixed_precision=precision, log_with=list(config.trackers) or None, project_dir=folder
    )
    if accelerator.device.type == "cpu":
        wanted = os.environ.get("OMP_NUM_THREADS") if accelerator.num_processes == 1 else None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(int(wanted) if wanted else max(1, cores // accelerator.num_processes))
    if config.batch_size % accelerator.num_processes:
        raise UsageError(
            f"training.batch_size={config.batch_size} cannot be shared by {accelerator.num_processes} "
            "processes; choose a multiple"
        )
    return accelerator


def steps_per_epoch(rows: int, config: TrainingConfig) -> int:
    """Return the number of full batches; a last smaller one is left out (other rows each epoch)."""
    return max(1, rows // config.batch_size)


class Batches:
    """Augmented training batches of one epoch, the same for any number of processes.

    Order and augmentation follow from seed and epoch alone, so an interrupted run repeats them. Each process
    takes its slice of every global batch.

    Parameters
    ----------
    data
        Decoded training images.
    size
        Side of the network's input, px.
    """

    def __init__(self, data: Images, size: int, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.data, self.size, self.config, self.accelerator = data, size, config, accelerator

    def __len__(self) -> int:
        return steps_per_epoch(len(self.data), self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images, float 0..1 [batch, channel, row, column], and labels, both on the device."""
        config, accelerator = self.config, self.accelerator
        # Dropout and the like: another stream on each process.
        set_seed(config.seed * 100_003 + epoch * 101 + accelerator.process_index)
        generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
        order = torch.randperm(len(self.data), generator=generator).numpy()
        for step in range(len(self)):
            # Fewer rows than a batch: they are repeated.
            batch = np.resize(order[step * config.batch_size :][: config.batch_size], config.batch_size)
            transforms = draw_transforms(config.batch_size, config.augment, config.crop_min, generator)
            share = config.batch_size // accelerator.num_processes
            mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
            images = _to_device(self.data.images[batch[mine]], accelerator.device)
            labels = torch.from_numpy(self.data.labels[batch[mine]]).to(accelerator.device)
            yield sample(images, transforms[mine], self.size), labels


def _to_device(images: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True).float().div_(255)


def normalise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Return images 0..1 as the network wants them: normalised, three channels (a view for grey ones)."""
    return ((images - mean) / std).expand(-1, 3, -1, -1)


def schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a linear warm-up over a part of all `steps`, followed by half a cosine down to zero."""
    first = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / first
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - first) / max(1, steps - first))))

    return LambdaLR(optimizer, factor)


class Loss(torch.nn.Module):
    """Cross-entropy, a plain mean over the batch, so that it does not depend on the number of processes.

    Parameters
    ----------
    labels
        Of the training rows.
    """

    def __init__(self, labels: npt.NDArray[np.int64], classes: int, config: TrainingConfig) -> None:
        super().__init__()
        self.smoothing = config.label_smoothing
        counts = np.bincount(labels, minlength=classes)
        balanced = counts.sum() / np.maximum(counts, 1) / max(1, int((counts > 0).sum()))
        self.weights = torch.tensor(
            balanced if config.class_balanced else np.ones(classes), dtype=torch.float32
        )

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean of the weighted losses."""
        losses = torch.nn.functional.cross_entropy(
            logits.float(), labels, reduction="none", label_smoothing=self.smoothing
        )
        return (losses * self.weights.to(losses.device)[labels]).mean()


def weight_groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: no weight decay for biases and norms."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    return [
        {"params": [value for value in parameters if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.inference_mode()
def predict_rows(
    model: torch.nn.Module,
    data: Images,
    mean: float,
    std: float,
    accelerator: Accelerator,
    batch_size: int = 64,
) -> torch.Tensor:
    """Return the class probabilities of every row, once each and in order, on every process.

    Each process takes one run of consecutive rows; the shorter last one repeats its end, and the repetitions
    are cut off after gathering. No row is counted twice.
    """
    was_training = model.training
    model.eval()
    share = math.ceil(len(data) / accelerator.num_processes)
    rows = np.minimum(np.arange(share) + accelerator.process_index * share, len(data) - 1)
    found = []
    for start in range(0, share, batch_size):
        images = _to_device(data.images[rows[start : start + batch_size]], accelerator.device)
        found.append(model(normalise(images, mean, std)).logits.float().softmax(-1))
    gathered: torch.Tensor = accelerator.gather(torch.cat(found))
    model.train(was_training)
    return gathered[: len(data)].cpu()


def mean_log_loss(chances: torch.Tensor, labels: npt.NDArray[np.int64]) -> float:
    """Return the mean negative logarithm of the true class's probability."""
    picked = chances[torch.arange(len(labels)), torch.from_numpy(labels)]
    return float(-picked.clamp(min=1e-12).log().mean())
