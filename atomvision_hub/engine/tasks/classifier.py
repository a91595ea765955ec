"""Lattice classifiers: configuration, batches, loss, answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from pydantic import Field

from atomvision_hub.engine.augment import draw_transforms, sample
from atomvision_hub.engine.config import Fraction, LabelledData, LoopConfig, RunConfig, Section
from atomvision_hub.engine.data import Images
from atomvision_hub.engine.loop import batch_indices, gather_rows, share, steps_per_epoch
from atomvision_hub.engine.rendering import CrystalSet, RenderConfig, RenderedCrystals
from atomvision_hub.errors import UsageError


class ModelConfig(Section):
    """The network and its preprocessing, which travels with the weights.

    Parameters
    ----------
    architecture, args
        Any timm model, and keyword arguments for it.
    pretrained
        Start from timm's published weights (needs a network or a filled cache).
    input_size
        Rows and columns of the network's input, px.
    crop_pct
        Side of the central crop relative to the shorter side of the image.
    mean, std
        Of grey levels scaled to 0..1, applied to all three channels.
    """

    architecture: str = "densenet121"
    args: dict[str, Any] = Field({})
    pretrained: bool = False
    input_size: int = Field(128, ge=16)
    crop_pct: float = Field(1.0, gt=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: float = 0.25
    std: float = Field(0.25, gt=0)


class ClassifierTraining(LoopConfig):
    """The loop.

    Parameters
    ----------
    augment
        ``"none"``; ``"shift_mirror"``: crops and mirrors without rotation, as in the paper;
        ``"pose"``: rotations too.
    crop_min
        Smallest side of a random crop relative to the whole view.
    select_by
        What validation picks the checkpoint by.
    """

    label_smoothing: Fraction = 0.0
    class_balanced: bool = False
    augment: Literal["none", "shift_mirror", "pose"] = "pose"
    crop_min: float = Field(0.6, gt=0, le=1)
    select_by: Literal["macro_f1", "accuracy"] = "macro_f1"


class ClassifierData(LabelledData):
    """Images with a class.

    Parameters
    ----------
    render
        Train on images rendered anew in every epoch from the crystals of the dataset (its config
        ``structures``), as the section ``render`` says, instead of its images. Validation and test images
        remain those of the dataset.
    """

    render: bool = False


class ClassifierConfig(RunConfig):
    """Everything that decides the result of `training/train_classifier.py`.

    Parameters
    ----------
    render
        What rendered images are (`data.render`); their shape is the network's input.
    """

    task_name: ClassVar[str] = "classifier"

    data: ClassifierData = ClassifierData()
    model: ModelConfig = ModelConfig()
    training: ClassifierTraining = ClassifierTraining()
    render: RenderConfig = RenderConfig(pixel_size=(0.1, 0.3), periods=2)

    def tiny(self) -> Self:
        """Return the tiny twin: a toy network, two epochs, a few dozen rows of each split."""
        return self.model_copy(
            update={
                "model": self.model.model_copy(
                    update={"architecture": "test_resnet", "args": {}, "pretrained": False, "input_size": 32}
                ),
                "training": self.training.model_copy(update={"epochs": 2, "batch_size": 16}),
            }
        )


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

    def __init__(self, data: Images, size: int, config: ClassifierTraining, accelerator: Accelerator) -> None:
        self.data, self.size, self.config, self.accelerator = data, size, config, accelerator
        self.labels = data.labels

    def __len__(self) -> int:
        return steps_per_epoch(len(self.data), self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images, float 0..1 [batch, channel, row, column], and labels, both on the device."""
        config, accelerator = self.config, self.accelerator
        mine = share(config.batch_size, accelerator)
        for rows, generator in batch_indices(len(self.data), config, epoch, accelerator):
            transforms = draw_transforms(config.batch_size, config.augment, config.crop_min, generator)
            images = _to_device(self.data.images[rows], accelerator.device)
            labels = torch.from_numpy(self.data.labels[rows]).to(accelerator.device)
            yield sample(images, transforms[mine], self.size), labels


class Rendered:
    """Batches as those of `Batches`, of crystals that are rendered while training.

    Parameters
    ----------
    config
        The dataset whose training crystals are drawn, and how.
    limit
        At most so many crystals are read.

    Raises
    ------
    UsageError
        When the label is another than the lattice that an image shows, or the data has no crystals.
    """

    def __init__(
        self, config: ClassifierConfig, accelerator: Accelerator, *, limit: int | None = None
    ) -> None:
        data, side = config.data, config.model.input_size
        if data.path is None or data.label != "lattice_projected":
            raise UsageError(
                "data.render draws the crystals of a stem2d dataset with their label lattice_projected; "
                "set data.path and data.label, or data.render=false"
            )
        render = RenderConfig.model_validate(config.render.model_dump() | {"shape": (side, side)})
        crystals = CrystalSet.open(
            data.path, "train", revision=data.revision, margin=render.margin, limit=limit
        )
        self.made = RenderedCrystals(crystals, render, config.training, accelerator)
        self.labels = self.made.crystals.labels
        self.calibration = {
            "pixel_size": list(render.pixel_size),
            "field_of_view": [side * size for size in render.pixel_size],
        }

    def __len__(self) -> int:
        return len(self.made)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images, float 0..1 [batch, 1, row, column], and labels, both on the device."""
        for images, labels, _ in self.made.epoch(epoch):
            yield images, labels


def _to_device(images: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True).float().div_(255)


def normalise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Return images 0..1 as the network wants them: normalised, three channels (a view for grey ones)."""
    return ((images - mean) / std).expand(-1, 3, -1, -1)


class Loss(torch.nn.Module):
    """Cross-entropy, a plain mean over the batch, so that it does not depend on the number of processes.

    Parameters
    ----------
    labels
        Of the training rows.
    """

    def __init__(self, labels: npt.NDArray[np.int64], classes: int, config: ClassifierTraining) -> None:
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


def predict_rows(
    model: torch.nn.Module,
    data: Images,
    mean: float,
    std: float,
    accelerator: Accelerator,
    batch_size: int = 64,
) -> torch.Tensor:
    """Return the class probabilities of every row, once each and in order, on every process."""
    was_training = model.training
    model.eval()

    def chances(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        images = _to_device(data.images[rows], accelerator.device)
        found: torch.Tensor = model(normalise(images, mean, std)).logits
        return found.float().softmax(-1)

    found = gather_rows(chances, len(data), accelerator, batch_size)
    model.train(was_training)
    return found


def mean_log_loss(chances: torch.Tensor, labels: npt.NDArray[np.int64]) -> float:
    """Return the mean negative logarithm of the true class's probability."""
    picked = chances[torch.arange(len(labels)), torch.from_numpy(labels)]
    return float(-picked.clamp(min=1e-12).log().mean())
