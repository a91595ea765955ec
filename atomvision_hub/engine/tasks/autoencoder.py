"""Autoencoders: configuration, batches, losses, scores of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from atomvision_hub.engine.augment import draw_transforms, sample
from atomvision_hub.engine.config import Fraction, LoopConfig, RunConfig, Section
from atomvision_hub.engine.data import Rows, decode_for_training
from atomvision_hub.engine.loop import batch_indices, gather_rows, share, steps_per_epoch
from atomvision_hub.models.autoencoder import Autoencoder, Coded, VariationalAutoencoder, area_average

#: Training images up to this size, in bytes, stay on the device.
_DEVICE_LIMIT = 8 * 2**30
#: A training image may be so much finer than the network's input: nothing is aliased when it is turned.
_FINER = 4


class ModelConfig(Section):
    """The network.

    Parameters
    ----------
    variational
        Whether the code is a normal distribution, from which new images can be drawn.
    latent, size, width, blocks
        See `Autoencoder`.
    """

    variational: bool = False
    latent: int = Field(256, ge=1)
    size: int = Field(64, ge=8, multiple_of=8)
    width: int = Field(64, ge=8, multiple_of=8)
    blocks: int = Field(2, ge=1)


class AutoencoderTraining(LoopConfig):
    """The loop.

    Parameters
    ----------
    augment, crop_min
        Random similarity transforms and the smallest crop they take, relative to the view; see
        `engine.augment`.
    beta, kl_warmup
        Weight of the Kullback-Leibler divergence of a variational code, 1 for the evidence lower bound, and
        the part of the epochs over which it grows from 0.
    save_every
        Epochs between two checkpoints.
    """

    epochs: int = Field(200, ge=1)
    batch_size: int = Field(128, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    ema_decay: Fraction = 0.995
    augment: Literal["none", "shift_mirror", "pose"] = "pose"
    crop_min: float = Field(0.85, gt=0, le=1)
    beta: float = Field(1.0, ge=0)
    kl_warmup: Fraction = 0.2
    save_every: int = Field(10, ge=1)


class AutoencoderConfig(RunConfig):
    """Everything that decides the result of `training/train_autoencoder.py`."""

    task_name: ClassVar[str] = "autoencoder"

    model: ModelConfig = ModelConfig()
    training: AutoencoderTraining = AutoencoderTraining()

    def tiny(self) -> Self:
        """Return the tiny twin: a toy network, two epochs, a few dozen rows of each split."""
        toy = {"size": 32, "width": 8, "blocks": 1, "latent": min(16, self.model.latent)}
        short = {"epochs": 2, "batch_size": 16, "ema_decay": min(0.9, self.training.ema_decay)}
        return self.model_copy(
            update={
                "model": self.model.model_copy(update=toy),
                "training": self.training.model_copy(update=short),
            }
        )


def decode_grey(rows: Rows, size: int, scratch: Path) -> Tensor:
    """Return central squares of images, uint8 [n, 1, side, side]; side is at most `_FINER` times `size`."""
    images = decode_for_training(rows, size * _FINER // 2, scratch).images
    if images.shape[1] > 1:
        images = np.rint(images.mean(axis=1, keepdims=True)).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(images))


def reduce(images: Tensor, size: int) -> Tensor:
    """Return uint8 images [n, 1, side, side] as the network sees them: grey levels 0..1, area-averaged."""
    parts = [area_average(part.float() / 255, size) for part in torch.split(images, 512)]
    return torch.cat(parts)


def make_model(config: ModelConfig, images: Tensor, known: dict[str, Any]) -> Autoencoder:
    """Return an untrained network, normalised by training images of `reduce`."""
    kind = VariationalAutoencoder if config.variational else Autoencoder
    arguments = config.model_dump(exclude={"variational"})
    mean, std = (round(float(value), 6) for value in (images.mean(), images.std()))
    return kind(**arguments, mean=mean, std=max(std, 1e-3), known=known)


class Batches:
    """Augmented training batches of one epoch, the same for any number of processes.

    Parameters
    ----------
    images
        Of `decode_grey`; they go to the device once where they fit.
    config
        The network.
    """

    def __init__(
        self, images: Tensor, config: ModelConfig, training: AutoencoderTraining, accelerator: Accelerator
    ) -> None:
        fits = images.numel() <= _DEVICE_LIMIT
        self.images = images.to(accelerator.device) if fits else images
        self.size, self.latent = config.size, config.latent if config.variational else 0
        self.config, self.accelerator = training, accelerator

    def __len__(self) -> int:
        return steps_per_epoch(len(self.images), self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [batch, 1, size, size] and noise of the code [batch, latent], on the device.

        The code of a plain autoencoder has no noise: latent is 0.
        """
        config, device = self.config, self.accelerator.device
        mine = share(config.batch_size, self.accelerator)
        for rows, generator in batch_indices(len(self.images), config, epoch, self.accelerator):
            transforms = draw_transforms(config.batch_size, config.augment, config.crop_min, generator)
            noise = torch.randn(config.batch_size, self.latent, generator=generator)[mine]
            picked = self.images[torch.from_numpy(rows).to(self.images.device)].to(device)
            # Twice as many points, then means of four: the average over areas that `reduce` takes.
            fine = sample(picked.float() / 255, transforms[mine], 2 * self.size)
            yield functional.avg_pool2d(fine, 2), noise.to(device)


def kl_weight(epoch: int, config: AutoencoderTraining) -> float:
    """Return the weight of the divergence in an epoch, counted from 1."""
    return config.beta * min(1.0, epoch / max(1.0, config.kl_warmup * config.epochs))


def divergence(coded: Coded) -> Tensor:
    """Return the Kullback-Leibler divergence of the codes from the standard normal one, nats [batch]."""
    mean, log_variance = coded.mean.float(), coded.log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def loss_of(
    model: nn.Module, images: Tensor, noise: Tensor, weight: float, variance: float | None
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch and its mean squared error.

    The loss of a variational autoencoder is the negative evidence lower bound (with `weight` before the
    divergence), scaled such that its first term is the mean squared error.

    Parameters
    ----------
    model
        Any autoencoder, maybe wrapped.
    images, noise
        Of `Batches`.
    weight
        Of `kl_weight`.
    variance
        Of a pixel around the decoded one, for a variational autoencoder; None for a plain one.
    """
    if variance is None:
        error = functional.mse_loss(model(images).float(), images)
        return error, error
    coded = model(images, noise)
    error = functional.mse_loss(coded.reconstruction.float(), images)
    pixels = images.shape[-1] ** 2
    return error + 2 * variance * weight * divergence(coded).mean() / pixels, error


def score_rows(model: Autoencoder, images: Tensor, accelerator: Accelerator, seed: int) -> dict[str, Tensor]:
    """Return what is known of every row, once each and in order, on every process.

    Parameters
    ----------
    images
        Of `reduce`, on the CPU.
    seed
        Of the one draw of the code that a variational autoencoder is judged with.

    Returns
    -------
    dict
        ``error``: mean squared error of the reconstruction, clipped to 0..1. Of a variational autoencoder
        also ``drawn``, the error with a drawn code, not clipped, and ``divergence`` (nats).
    """
    was_training = model.training
    model.eval()
    latent = model.latent if isinstance(model, VariationalAutoencoder) else 0
    noise = torch.randn(len(images), latent, generator=torch.Generator().manual_seed(seed))

    def scores(rows: npt.NDArray[np.int64]) -> Tensor:
        given = images[rows].to(accelerator.device)
        error = (model.reconstruct(given).float() - given).square().mean((1, 2, 3))
        if not isinstance(model, VariationalAutoencoder):
            return error[:, None]
        coded = model(given, noise[rows].to(accelerator.device))
        drawn = (coded.reconstruction.float() - given).square().mean((1, 2, 3))
        return torch.stack([error, drawn, divergence(coded)], 1)

    found: Tensor = gather_rows(scores, len(images), accelerator, batch_size=256)
    model.train(was_training)
    names = ("error", "drawn", "divergence")[: found.shape[1]]
    return dict(zip(names, found.T, strict=True))


def elbo(scores: dict[str, Tensor], variance: float, pixels: int) -> Tensor:
    """Return the evidence lower bound of every row of `score_rows`, in nats a pixel.

    Parameters
    ----------
    variance
        Of a pixel around the decoded one.
    pixels
        Of an image.
    """
    likelihood = -0.5 * (scores["drawn"].double() / variance + math.log(2 * math.pi * variance))
    return likelihood - scores["divergence"].double() / pixels


def judge(model: Autoencoder, scores: dict[str, Tensor]) -> dict[str, float]:
    """Return what an epoch is judged by first, then more means of `score_rows` of the validation rows.

    The pixel variance of a variational autoencoder is set to what suits these rows best: the mean squared
    error with drawn codes.
    """
    error = float(scores["error"].double().mean())
    if not isinstance(model, VariationalAutoencoder):
        return {"validation_loss": error}
    variance = max(float(scores["drawn"].double().mean()), 1e-8)
    model.pixel_variance.fill_(variance)
    bound = float(elbo(scores, variance, model.size**2).mean())
    apart = float(scores["divergence"].double().mean())
    return {"validation_loss": -bound, "validation_mse": error, "validation_divergence": apart}
