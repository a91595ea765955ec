"""Super-resolution: configuration, how low resolution is made, batches, losses, what a microscopist asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from pydantic import Field, model_validator
from torch.nn import functional

from atomvision_hub.engine.augment import sample
from atomvision_hub.engine.config import DataConfig, LoopConfig, RunConfig, Section
from atomvision_hub.engine.data import Rows, Source, open_image
from atomvision_hub.engine.loop import batch_indices, gather_rows, share, steps_per_epoch
from atomvision_hub.engine.tasks import srgan_report as report
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models.perceptual import Content
from atomvision_hub.models.super_resolution import SCALE

#: Columns of a dataset of simulated images that tell intensities and where the atoms are.
KEPT = ("atoms", "intensity_scale", "intensity_offset", "z_exponent")

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


@dataclass(frozen=True)
class Views:
    """The central squares of a split, with what their grey levels mean.

    Attributes
    ----------
    images
        uint8 [n, 1, side, side].
    background
        Intensity of grey level 0 over the intensity between grey levels 0 and 1 (255), [n].
    area
        Of a high-resolution pixel, Å², [n]; NaN where it is not known.
    left, top
        Where the square begins in the image, px, [n].
    """

    images: npt.NDArray[np.uint8]
    background: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, picked: npt.NDArray[np.int64]) -> Views:
        """Return some of the rows."""
        return Views(*(getattr(self, one.name)[picked] for one in fields(self)))


def decode_views(rows: Rows, side: int, pixel_size: float | None = None) -> Views:
    """Decode the central `side` x `side` pixels of every image of a split as grey levels, never resampled.

    Raises
    ------
    AtomVisionError
        When an image is smaller.
    """
    images = np.empty((len(rows), 1, side, side), np.uint8)
    corners = np.empty((len(rows), 2), np.int64)
    for index, encoded in enumerate(rows.encoded()):
        image = open_image(encoded).convert("L")
        if min(image.size) < side:
            where = encoded if isinstance(encoded, Path) else f"row {index}"
            raise AtomVisionError(
                f"{where} has {image.height} x {image.width} px, fewer than training.view={side}; "
                "leave it out, or set a smaller view (a multiple of 16)"
            )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        images[index, 0] = np.asarray(image.crop((left, top, left + side, top + side)))
        corners[index] = left, top
    columns, count = rows.columns, len(rows)
    scale = 255 * np.asarray(columns.get("intensity_scale", np.ones(count)), dtype=float)
    offset = np.asarray(columns.get("intensity_offset", np.zeros(count)), dtype=float)
    unknown = [(pixel_size or math.nan,) * 2] * count
    sizes = np.asarray(columns.get("pixel_size", unknown), dtype=float)
    # A black image has no scale.
    background = offset / np.where(scale > 0, scale, 1.0)
    return Views(images, background, sizes.prod(1), corners[:, 0], corners[:, 1])


def view_side(source: Source, config: SrganTraining) -> int:
    """Return the side of the views: that of the configuration, or as much as the smallest training image has.

    Raises
    ------
    UsageError
        When crops would not fit, or a dose is asked of images without pixel size.
    """
    smallest = min(min(open_image(encoded).size) for encoded in source.splits["train"].encoded())
    side = min(config.view, smallest // 16 * 16)
    if config.crop > side:
        raise UsageError(
            f"training.crop={config.crop} does not fit views of {side} px (the smallest training image has "
            f"{smallest} px); set training.crop={max(side, 32)} or less"
        )
    return side


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


def prepare(rows: Rows, side: int, config: SrganConfig, device: torch.device) -> Prepared:
    """Decode a split and put it on the device."""
    return Prepared(decode_views(rows, side, config.data.pixel_size), config.training, device)


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


class Judge:
    """Low-resolution images of a split, made once with fixed noise, and the answers of networks to them.

    Parameters
    ----------
    data
        The split.
    seed
        Of doses and noise.
    dose
        One dose for all rows instead of the configuration's range.
    """

    def __init__(
        self,
        data: Prepared,
        config: SrganTraining,
        accelerator: Accelerator,
        *,
        seed: int,
        dose: float | None = None,
        batch_size: int = 32,
    ) -> None:
        self.data, self.accelerator, self.batch_size = data, accelerator, batch_size
        device = accelerator.device
        generator = torch.Generator().manual_seed(seed)
        self.doses = draw_doses(len(data), config, generator)
        if dose is not None:
            self.doses.fill_(dose)
        noise = torch.Generator(device).manual_seed(seed)
        low = []
        for start in range(0, len(data), batch_size):
            rows = torch.arange(start, min(start + batch_size, len(data)), device=device)
            low.append(data.low(rows, self._truth(rows), self.doses[rows.cpu()].to(device), noise))
        self.images = torch.cat(low)

    def _truth(self, rows: torch.Tensor) -> torch.Tensor:
        return self.data.images[rows].float().div(255)

    def scores(self, model: torch.nn.Module, content: Content) -> dict[str, float]:
        """Return the mean PSNR (dB) and content loss of a network's answers."""

        def both(picked: npt.NDArray[np.int64]) -> torch.Tensor:
            rows = torch.from_numpy(picked).to(self.accelerator.device)
            with self.accelerator.autocast():
                made, truth = answer(model, self.images[rows]), self._truth(rows)
                return torch.stack([psnr(made, truth), content(made, truth)], dim=1)

        means = self._gather(model, both).double().mean(0).tolist()
        return {"psnr": means[0], "content": means[1]}

    def answers(self, model: torch.nn.Module) -> npt.NDArray[np.float32]:
        """Return a network's answers in single precision, grey 0..1 [n, row, column], on every process."""

        def one(picked: npt.NDArray[np.int64]) -> torch.Tensor:
            rows = torch.from_numpy(picked).to(self.accelerator.device)
            return answer(model, self.images[rows])[:, 0].clamp(0, 1)

        return self._gather(model, one).numpy()

    def low(self) -> npt.NDArray[np.float32]:
        """Return the low-resolution images [n, row, column]."""
        return self.images[:, 0].cpu().numpy()

    def truth(self) -> npt.NDArray[np.float32]:
        """Return the high-resolution images [n, row, column], grey 0..1."""
        return self.data.images[:, 0].float().div(255).cpu().numpy()

    def _gather(self, model: torch.nn.Module, function: Any) -> torch.Tensor:
        was_training = model.training
        model.eval()
        found = gather_rows(function, len(self.data), self.accelerator, self.batch_size)
        model.train(was_training)
        return found


def known_facts(source: Source, config: SrganTraining, side: int) -> dict[str, Any]:
    """Return what travels with the weights: pixel size and field of view of the input, degradation."""
    known: dict[str, Any] = dict(source.calibration(config.crop / side))
    if known:
        known["pixel_size"] = [round(SCALE * value, 9) for value in known["pixel_size"]]
    known |= {"scale": SCALE, "degradation": config.degradation}
    return known | ({"dose": list(config.dose)} if config.degradation == "physical" else {})


def model_name(config: SrganTraining) -> str:
    """Return what to call the model."""
    kind = "mse" if config.pretrain_epochs == config.epochs else "gan"
    return f"super-resolution-{config.degradation}-{kind}"


@dataclass(frozen=True)
class Report:
    """Figures on the test rows, and pictures of some of them."""

    metrics: dict[str, dict[str, Any]]
    tables: list[dict[str, Any]]
    notes: list[str]
    examples: list[tuple[str, dict[str, npt.NDArray[np.float32]]]]
    pixel_size: float | None

    def facts(self, chosen: Mapping[str, Any], origin: str, config: SrganTraining) -> dict[str, Any]:
        """Return what the card adds to the facts of every run, for the `chosen` epoch.

        `origin` says where the content loss has its weights from.
        """
        mse = config.pretrain_epochs == config.epochs
        loss = (
            "Trained by mean squared error alone, without adversary."
            if mse
            else f"Content loss `{config.content}` ({origin}), adversarial loss weighted "
            f"{config.adversarial:g}, after {config.pretrain_epochs} epochs by mean squared error."
        )
        captions = {
            "curves.png": "Validation over the epochs; grey: by mean squared error alone.",
            "examples.png": "Test images as they were tested: low resolution, enlargements, truth.",
        }
        return {
            "metrics": {
                "validation": {name: chosen[name] for name in ("psnr", "content")},
                "test": self.metrics,
            },
            "tables": self.tables,
            "figures": [{"file": file, "caption": caption} for file, caption in captions.items()],
            "notes": [loss, *self.notes],
        }

    def in_words(self) -> str:
        """Return the main figures in one line."""
        units = {"dB": " dB", "Å": " Å", "1": ""}
        return ", ".join(
            f"{name.replace('_', ' ')} {figure['value']:.4g}{units[figure['unit']]}"
            for name, figure in self.metrics.items()
            if figure["value"] is not None
        )


def test_report(
    model: torch.nn.Module,
    source: Source,
    config: SrganConfig,
    side: int,
    validation: Judge,
    accelerator: Accelerator,
) -> Report | None:
    """Open the test rows and judge the network and simple methods on them.

    Every process has to call it (they share the network's work); all but the main one get None.
    """
    settings, rows = config.training, source.splits["test"]
    views = decode_views(rows, side, config.data.pixel_size)
    data = Prepared(views, settings, accelerator.device)
    judge = Judge(data, settings, accelerator, seed=settings.seed + 1)
    answers = judge.answers(model)
    picked = report.spread_rows(len(rows), settings.dose_rows)
    doses = DOSES if settings.degradation == "physical" else ()
    part = Prepared(views.rows(picked), settings, accelerator.device)
    dosed = [Judge(part, settings, accelerator, seed=settings.seed + 2, dose=dose) for dose in doses]
    dose_answers = [one.answers(model) for one in dosed]
    if not accelerator.is_main_process:
        return None

    name = "this_network"
    smoothing = 0.0
    if settings.degradation == "physical":
        # What noise calls for before any interpolation; its width is chosen on validation images.
        few = report.spread_rows(len(validation.data), 64)
        smoothing = report.choose_smoothing(validation.low()[few], validation.truth()[few])
    scenes = _scenes(rows, views, judge.truth(), config)
    sought = report.spread_rows(len(rows), settings.atom_rows)
    scenes = [
        scene if index in set(sought.tolist()) else report.Scene(scene.truth)
        for index, scene in enumerate(scenes)
    ]
    methods = {
        "high_resolution": judge.truth(),
        **report.simple_methods(judge.low(), smoothing),
        name: answers,
    }
    scores = report.judge_images(methods, scenes)
    groups = np.array(rows.columns["material_id"]) if "material_id" in rows.columns else None
    floor = scores.pop("high_resolution")
    table = report.method_rows(scores)
    floor_row = report.method_rows({"high resolution": floor})[0]
    table.append([floor_row[0], None, None, *floor_row[3:]])
    tables = [
        {
            "title": "Methods",
            "columns": list(report.METHOD_COLUMNS),
            "rows": table,
            "note": _methods_note(settings, len(rows), len(sought), smoothing),
        }
    ]
    if dosed:
        tried: dict[str, npt.NDArray[np.float32]] = {}
        for dose, one, made in zip(doses, dosed, dose_answers, strict=True):
            tried |= {
                f"{dose:g}|{method}": images
                for method, images in {**report.simple_methods(one.low(), smoothing), name: made}.items()
                if method != "lanczos"
            }
        judged = report.judge_images(tried, _scenes(rows, views, judge.truth(), config, picked))
        dose_rows = [[*str(row[0]).split("|"), *row[1:]] for row in report.method_rows(judged)]
        tables.append(
            {
                "title": "Over dose",
                "columns": ["dose (e/Å²)", *report.METHOD_COLUMNS],
                "rows": dose_rows,
                "note": f"{len(picked)} of the test images at one dose each.",
            }
        )
    shown = [int(row) for row in report.spread_rows(len(rows), 5)[1:-1]] or [0]
    names = rows.columns.get(
        "material_id", rows.columns.get("id", [f"image {row}" for row in range(len(rows))])
    )
    low, truth = judge.low(), judge.truth()
    examples = []
    for row in shown:
        title = str(names[row])
        if settings.degradation == "physical":
            title += f"\n{float(judge.doses[row]):.0f} e/Å²"
        pictures = {"low resolution": low[row], "bicubic": methods["bicubic"][row]}
        examples.append((title, pictures | {"this network": answers[row], "truth": truth[row]}))
    size = math.sqrt(float(views.area[0]))
    return Report(
        metrics=report.metric_facts(scores, name, groups),
        tables=tables,
        notes=_notes(config, bool(np.isfinite(views.area).all()), "atoms" in rows.columns),
        examples=examples,
        pixel_size=size if math.isfinite(size) else None,
    )


#: Doses of the table, electrons per Å².
DOSES = (50.0, 150.0, 500.0, 1500.0, 5000.0)


def _scenes(
    rows: Rows,
    views: Views,
    truth: npt.NDArray[np.float32],
    config: SrganConfig,
    picked: npt.NDArray[np.int64] | None = None,
) -> list[report.Scene]:
    scenes = []
    for index in range(len(rows)) if picked is None else picked.tolist():
        size = (
            rows.columns["pixel_size"][index]
            if "pixel_size" in rows.columns
            else [config.data.pixel_size] * 2
        )
        if None in size:
            scenes.append(report.Scene(truth[index]))
            continue
        steps = (float(size[0] or 0), float(size[1] or 0))
        if "atoms" in rows.columns:
            corner = (int(views.left[index]), int(views.top[index]))
            exponent = float(rows.columns["z_exponent"][index])
            shape = truth[index].shape
            columns = report.columns_of_row(rows.columns["atoms"][index], shape, steps, exponent, corner)
        else:
            columns = report.columns_found(truth[index], steps)
        scenes.append(report.Scene(truth[index], columns, steps))
    return scenes


def _methods_note(config: SrganTraining, rows: int, sought: int, smoothing: float) -> str:
    how = (
        "Low resolution by bicubic reduction to a quarter, 8 bit."
        if config.degradation == "bicubic"
        else "Low resolution by adding up 4 x 4 pixels and drawing the number of electrons, "
        f"{config.dose[0]:g} to {config.dose[1]:g} detected electrons per Å² (log-uniform, fixed seed)."
    )
    smooth = f" Smoothed: by a Gaussian of {smoothing:g} px, chosen on validation images."
    if not smoothing:
        lowers = " Smoothing before the interpolation lowers the mean PSNR of validation images at any width."
        smooth = lowers if config.degradation == "physical" else ""
    return (
        f"{how}{smooth} PSNR and SSIM on {rows} images, atoms on {sought}. Atoms are sought by "
        "`detect_atoms`; what it finds in the true images is the row of the high resolution."
    )


def _notes(config: SrganConfig, calibrated: bool, told: bool) -> list[str]:
    notes = []
    if config.training.degradation == "bicubic":
        notes.append(
            "Without noise an image of columns ten pixels wide loses little when it is reduced to a quarter: "
            "plain interpolation is hard to beat here, and this is no measure of use on micrographs."
        )
    else:
        notes.append("The dose is the only noise it knows: no drift, scan distortion or amorphous support.")
    if not calibrated:
        notes.append("The images tell no pixel size: atoms were not scored.")
    elif not told:
        notes.append("Nobody tells the true atoms: those found in the high-resolution images count as true.")
    return notes
