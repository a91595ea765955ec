"""Super-resolution: losses, learning rates, and how a network is asked."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from atomvision_hub.engine.tasks.srgan.config import SrganTraining


def rate(step: int, first: int, total: int, config: SrganTraining) -> float:
    """Return the learning rate of a step; the first phase has `first` of the `total` steps."""
    if step < first:
        warm = max(1, round(config.warmup * first))
        peak, last = config.pretrain_learning_rate, config.learning_rate
        if step < warm:
            return peak * (step + 1) / warm
        return last + 0.5 * (peak - last) * (1 + math.cos(math.pi * (step - warm) / max(1, first - warm)))
    left = (total - step) / max(1, total - first)
    return config.learning_rate * min(1.0, 4 * left)


def set_rate(value: float, *optimizers: torch.optim.Optimizer) -> None:
    """Give all parameters of optimizers one learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = value


def answer(model: torch.nn.Module, low: torch.Tensor) -> torch.Tensor:
    """Return a network's answer to images whose noise may leave 0..1; it knows no grey scale."""
    least = low.amin((1, 2, 3), keepdim=True)
    span = (low.amax((1, 2, 3), keepdim=True) - least).clamp(min=1e-6)
    found: torch.Tensor = model((low - least) / span)
    return found.float() * span + least


def fooled(logits: torch.Tensor) -> torch.Tensor:
    """Return the generator's adversarial loss, -log D."""
    return functional.softplus(-logits.float()).mean()


def caught(true: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Return the discriminator's loss: the mean of -log D (true images) and -log(1 - D) (made ones)."""
    return 0.5 * (functional.softplus(-true.float()).mean() + functional.softplus(made.float()).mean())


def psnr(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio of every image in dB, for grey levels 0..1 [batch]."""
    error = (images.float().clamp(0, 1) - truth.float()).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=1e-10).log10()
