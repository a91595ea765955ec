"""Pieces of every training loop: devices, batches, schedule, exact evaluation over several processes."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LambdaLR

from atomvision_hub.engine.config import LoopConfig
from atomvision_hub.errors import MissingExtraError, UsageError


def make_accelerator(config: LoopConfig, folder: str) -> Accelerator:
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


def steps_per_epoch(rows: int, config: LoopConfig) -> int:
    """Return the number of full batches; a last smaller one is left out (other rows each epoch)."""
    return max(1, rows // config.batch_size)


def share(batch_size: int, accelerator: Accelerator) -> slice:
    """Return the part of every global batch that this process takes."""
    mine = batch_size // accelerator.num_processes
    return slice(accelerator.process_index * mine, (accelerator.process_index + 1) * mine)


def batch_indices(
    rows: int, config: LoopConfig, epoch: int, accelerator: Accelerator, *, whole: bool = False
) -> Iterator[tuple[npt.NDArray[np.int64], torch.Generator]]:
    """Yield the rows of this process for every step of an epoch, and the epoch's source of randomness.

    Order and everything drawn from the generator follow from seed and epoch alone, so that an interrupted run
    repeats them and the number of processes does not matter: draw for all of ``config.batch_size`` rows, then
    take this process's `share`. With `whole` every process gets the rows of the whole batch, for noise
    that is drawn on the device for all of them.
    """
    # Dropout and the like: another stream on each process.
    set_seed(config.seed * 100_003 + epoch * 101 + accelerator.process_index)
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    order = torch.randperm(rows, generator=generator).numpy()
    mine = slice(None) if whole else share(config.batch_size, accelerator)
    for step in range(steps_per_epoch(rows, config)):
        # Fewer rows than a batch: they are repeated.
        batch = np.resize(order[step * config.batch_size :][: config.batch_size], config.batch_size)
        yield batch[mine], generator


@torch.inference_mode()
def gather_rows(
    function: Callable[[npt.NDArray[np.int64]], torch.Tensor],
    rows: int,
    accelerator: Accelerator,
    batch_size: int = 64,
) -> torch.Tensor:
    """Return `function` of every row, once each and in order, on every process, on the CPU.

    Each process takes one run of consecutive rows; the shorter last one repeats its end, and the repetitions
    are cut off after gathering. No row is counted twice.

    Parameters
    ----------
    function
        Rows -> tensor [rows, ...] on the device.
    rows
        How many there are.
    batch_size
        Rows of one call.
    """
    part = math.ceil(rows / accelerator.num_processes)
    mine = np.minimum(np.arange(part) + accelerator.process_index * part, rows - 1)
    found = [function(mine[start : start + batch_size]) for start in range(0, part, batch_size)]
    gathered: torch.Tensor = accelerator.gather(torch.cat(found))
    return gathered[:rows].cpu()


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


def weight_groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: no weight decay for biases and norms."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    return [
        {"params": [value for value in parameters if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
    ]
