"""Super-resolution: everything that decides the result of a training."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from atomvision_hub.engine.config import DataConfig, LoopConfig, RunConfig, Section

Degradation = Literal["bicubic", "physical"]


class SrganData(DataConfig):
    """Images without classes, and the weights of the content loss.

    Parameters
    ----------
    content_weights
        safetensors file for ``training.content``; torchvision's weights are downloaded without one.
    atoms
        Whether the dataset tells positions and intensities of its atoms (columns ``atoms``,
        ``intensity_scale``, ...), as ``stem2d`` does. Otherwise the atoms found in the high-resolution image
        count as the true ones, and grey level 0 as no electrons.
    pixel_size
        Å/px of images that do not tell theirs, such as those of folders; without it atoms are not scored.
    """

    content_weights: Path | None = None
    atoms: bool = True
    pixel_size: float | None = Field(None, gt=0)


class SrganModel(Section):
    """The networks.

    Parameters
    ----------
    channels, blocks
        Of the generator.
    discriminator_channels
        Of the discriminator's first layer.
    """

    channels: int = Field(64, ge=1)
    blocks: int = Field(16, ge=1)
    discriminator_channels: int = Field(32, ge=1)


class SrganTraining(LoopConfig):
    """The loop: the generator alone by mean squared error, then against the discriminator.

    Parameters
    ----------
    learning_rate
        Of both Adam optimisers in the adversarial phase: constant, falling to 0 over its last quarter.
    pretrain_epochs, pretrain_learning_rate
        First epochs by mean squared error of the pixels alone; the rate falls from its peak along half a
        cosine to `learning_rate`. As many as `epochs`: a generator without adversary.
    content
        ``vgg19:4``, ``vgg16:N`` or ``pixels``, see `models.perceptual`.
    adversarial
        Weight of the adversarial loss beside the content loss.
    degradation
        How low resolution is made: ``"bicubic"`` reduces the image as in the paper; ``"physical"`` adds up
        the electrons of 4 x 4 pixels and draws their number (Poisson).
    dose
        Smallest and largest mean of detected electrons per Å², log-uniform.
    crop
        Side of the high-resolution crops in training, px, a multiple of 16.
    view
        Largest side that is kept of an image (the central square), px.
    select_by
        What validation picks the epoch by, after the first phase: least content loss, or highest PSNR.
    validation_rows
        Validation rows, evenly spaced, that judge every epoch, 410 in stem2d of 2DMatPedia.
    atom_rows, dose_rows
        Test rows in which atoms are sought, evenly spaced, and rows for the table over dose.
    """

    epochs: int = Field(70, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(8e-5, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    pretrain_epochs: int = Field(20, ge=0)
    pretrain_learning_rate: float = Field(4e-4, gt=0)
    content: str = "vgg19:4"
    adversarial: float = Field(1e-3, ge=0)
    degradation: Degradation = "bicubic"
    dose: tuple[float, float] = (50.0, 5000.0)
    crop: int = Field(128, ge=32, multiple_of=16)
    view: int = Field(256, ge=32, multiple_of=16)
    select_by: Literal["content", "psnr"] = "content"
    validation_rows: int = Field(1000, ge=1)
    atom_rows: int = Field(400, ge=1)
    dose_rows: int = Field(120, ge=1)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not 0 < self.dose[0] <= self.dose[1]:
            raise ValueError("dose must be two positive numbers, the smaller one first")
        if self.pretrain_epochs > self.epochs:
            raise ValueError("pretrain_epochs is a part of epochs, it cannot be larger")
        return self


class SrganConfig(RunConfig):
    """Everything that decides the result of `training/train_srgan.py`."""

    task_name: ClassVar[str] = "srgan"

    data: SrganData = SrganData()
    model: SrganModel = SrganModel()
    training: SrganTraining = SrganTraining()

    def tiny(self) -> Self:
        """Return the tiny twin: toy networks, two epochs, content on the pixels, a few dozen rows."""
        small = {"epochs": 2, "pretrain_epochs": min(1, self.training.pretrain_epochs), "batch_size": 8}
        if self.training.pretrain_epochs == self.training.epochs:
            small["pretrain_epochs"] = 2
        rest = {"content": "pixels", "crop": 32, "atom_rows": 8, "dose_rows": 4, "ema_decay": 0.0}
        return self.model_copy(
            update={
                "model": SrganModel(channels=8, blocks=2, discriminator_channels=4),
                "training": self.training.model_copy(update=small | rest),
            }
        )


def model_name(config: SrganTraining) -> str:
    """Return what to call the model."""
    kind = "mse" if config.pretrain_epochs == config.epochs else "gan"
    return f"super-resolution-{config.degradation}-{kind}"
