"""Super-resolution: how low resolution is made, and pairs of low and high resolution for training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional

from atomvision_hub.engine.augment import sample
from atomvision_hub.engine.data import Rows
from atomvision_hub.engine.loop import batch_indices, share, steps_per_epoch
from atomvision_hub.engine.tasks.srgan.config import Degradation, SrganConfig, SrganTraining
from atomvision_hub.engine.tasks.srgan.views import Views, decode_views, spread_rows
from atomvision_hub.errors import UsageError
from atomvision_hub.models.super_resolution import SCALE


class Degrade:
    """Makes low resolution of high resolution on the device.

    Bicubic is the reduction of Pillow and torchvision (with antialiasing), rounded to 8 bit like a saved
    image. Physical: the intensities of 4 x 4 pixels add up, as when pixels are binned; the number of
    electrons is drawn (Poisson), at a mean dose over the view. The grey scale is that of the truth (electrons
    over those expected between grey 0 and 1, background subtracted), so that no scale has to be guessed;
    noise may leave 0..1.
    """

    def __init__(self, kind: Degradation) -> None:
        self.kind = kind

    def __call__(
        self,
        truth: torch.Tensor,
        background: torch.Tensor,
        mean: torch.Tensor,
        area: torch.Tensor,
        dose: torch.Tensor,
        generator: torch.Generator | None,
    ) -> torch.Tensor:
        """Return images [batch, 1, row / 4, column / 4] of `truth` [batch, 1, row, column] (grey 0..1).

        Parameters
        ----------
        background, mean, area, dose
            Of every image, [batch]: intensity of grey 0 and mean intensity of the whole view (both over the
            intensity of the grey scale), area of a pixel (Å²), electrons per Å².
        generator
            Of the device.
        """
        if self.kind == "bicubic":
            low = functional.interpolate(
                truth, scale_factor=1 / SCALE, mode="bicubic", align_corners=False, antialias=True
            )
            return low.clamp(0, 1).mul(255).round().div(255)
        background, mean, area, dose = (one[:, None, None, None] for one in (background, mean, area, dose))
        binned = functional.avg_pool2d(truth, SCALE)
        gain = dose * area * SCALE**2 / mean  # electrons of a binned pixel at grey 1 above the background
        electrons = torch.poisson((binned + background).clamp(min=0) * gain, generator=generator)
        return electrons / gain - background


class Prepared:
    """A split on the device, with all that `Degrade` wants to know of its rows."""

    def __init__(self, views: Views, config: SrganTraining, device: torch.device) -> None:
        if config.degradation == "physical" and not np.isfinite(views.area).all():
            raise UsageError(
                "a dose needs the pixel size, which these images do not tell; set data.pixel_size (Å/px), or "
                "training.degradation=bicubic"
            )
        self.images = torch.from_numpy(views.images).to(device)
        self.background = torch.from_numpy(views.background).float().to(device)
        mean = views.images.mean(axis=(1, 2, 3)) / 255 + views.background
        self.mean = torch.from_numpy(np.maximum(mean, 1e-6)).float().to(device)
        self.area = torch.from_numpy(views.area).float().to(device)
        self.degrade = Degrade(config.degradation)

    def __len__(self) -> int:
        return len(self.images)

    def low(
        self, rows: torch.Tensor, truth: torch.Tensor, dose: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return low-resolution images of `truth`, which shows (parts of) `rows`."""
        known = (self.background[rows], self.mean[rows], self.area[rows])
        return self.degrade(truth, *known, dose, generator)


def prepare(
    rows: Rows, side: int, config: SrganConfig, device: torch.device, most: int | None = None
) -> Prepared:
    """Decode a split, or `most` evenly spaced rows of it, and put it on the device."""
    views = decode_views(rows, side, config.data.pixel_size)
    if most is not None:
        views = views.rows(spread_rows(len(views), most))
    return Prepared(views, config.training, device)


def draw_doses(count: int, config: SrganTraining, generator: torch.Generator) -> torch.Tensor:
    """Draw doses, log-uniform, electrons per Å² [count], on the CPU."""
    low, high = (math.log(value) for value in config.dose)
    return torch.exp(low + (high - low) * torch.rand(count, generator=generator))


def draw_crops(count: int, part: float, generator: torch.Generator) -> torch.Tensor:
    """Draw transforms for `engine.augment.sample`: crops of one size, anywhere, at any angle, some mirrored.

    Parameters
    ----------
    count
        How many.
    part
        Side of the crop over the side of the image. Above 1/sqrt(2) only angles at which it fits are drawn.

    Returns
    -------
    torch.Tensor
        Shape (count, 2, 3), on the CPU; pixels keep their size.
    """
    uniform = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    barred = math.acos(min(1.0, 1 / (part * math.sqrt(2))))
    angle = (2 * uniform[:, 0] - 1) * (math.pi / 4 - barred) + (4 * uniform[:, 1]).floor() * math.pi / 2
    cosine, sine = torch.cos(angle), torch.sin(angle)
    room = (1 - part * (cosine.abs() + sine.abs())).clamp(min=0)
    mirror = 1 - 2 * (uniform[:, 2] < 0.5).double()
    transform = torch.empty(count, 2, 3, dtype=torch.float64)
    transform[:, 0, 0], transform[:, 0, 1] = part * cosine * mirror, -part * sine
    transform[:, 1, 0], transform[:, 1, 1] = part * sine * mirror, part * cosine
    transform[:, :, 2] = (2 * uniform[:, 3:5] - 1) * room[:, None]
    return transform.float()


class Batches:
    """Pairs of low and high resolution of one epoch, the same for any number of processes.

    Every image gives one crop an epoch, turned, shifted by parts of a pixel and mirrored on the device
    (bilinear: columns are ten pixels wide, it hardly blurs them). Noise is drawn for the whole batch on every
    process, which then takes its share.

    Parameters
    ----------
    data
        The training split.
    """

    def __init__(self, data: Prepared, config: SrganTraining, accelerator: Accelerator) -> None:
        self.data, self.config, self.accelerator = data, config, accelerator

    def __len__(self) -> int:
        return steps_per_epoch(len(self.data), self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield low [batch, 1, crop / 4, crop / 4] and high resolution [batch, 1, crop, crop], grey 0..1."""
        config, device, data = self.config, self.accelerator.device, self.data
        mine = share(config.batch_size, self.accelerator)
        noise = torch.Generator(device)
        part = config.crop / data.images.shape[-1]
        for rows, generator in batch_indices(len(data), config, epoch, self.accelerator, whole=True):
            transforms = draw_crops(config.batch_size, part, generator).to(device, non_blocking=True)
            doses = draw_doses(config.batch_size, config, generator).to(device, non_blocking=True)
            noise.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            picked = torch.from_numpy(rows).to(device, non_blocking=True)
            truth = sample(data.images[picked].float().div_(255), transforms, config.crop)
            yield data.low(picked, truth, doses, noise)[mine], truth[mine]
