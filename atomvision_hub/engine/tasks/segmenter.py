"""Segmenters: configuration, data, batches, loss, what their answers are counted in."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from atomvision_hub.engine.augment import draw_transforms
from atomvision_hub.engine.config import DataConfig, Fraction, LoopConfig, RunConfig, Section
from atomvision_hub.engine.data import Rows, Source, open_image, open_source
from atomvision_hub.engine.loop import batch_indices, gather_rows, share, steps_per_epoch
from atomvision_hub.engine.scenes import Chance, Conditions, Scenes, draw
from atomvision_hub.errors import UsageError
from atomvision_hub.models.views import USUAL, VIEWS

Positive = Annotated[float, Field(gt=0)]
View = Annotated[str, Field(pattern=f"^({VIEWS})$")]
#: Columns of a dataset that images, masks and vacancies are made of.
COLUMNS = ("atoms", "intensity_scale", "intensity_offset", "z_exponent", "psf")
#: Probabilities are counted in so many bins, so that a threshold can be chosen afterwards.
BINS = 100
#: Pixels that one call of the network gets in an evaluation.
_PIXELS = 24 * 256 * 256


class SegmenterData(DataConfig):
    """Images with atoms, or folders with ``images/`` and ``masks/``.

    Parameters
    ----------
    mask_radius
        Radius of an atom's disk in Å. The masks of folders are what they are.
    more_radii
        Further radii, learned beside it by the same network.
    """

    config: str | None = "rotated"
    mask_radius: Positive = 0.5
    more_radii: tuple[Positive, ...] = (0.35, 0.7)

    @property
    def radii(self) -> tuple[float, ...]:
        """All radii, that of the model's first answer in front."""
        return (self.mask_radius, *self.more_radii)


class SegmenterModel(Section):
    """The network.

    Parameters
    ----------
    encoder, depth, decoder_channels, views, stride
        As of `models.segmenter.Segmenter`.
    encoder_weights
        ``imagenet`` (published ones, from the network), a safetensors file, or null for a start from scratch.
    start
        Folder or Hub id of a trained segmenter of the same shape to go on from, instead.
    """

    encoder: str = "tu-efficientnet_lite0"
    depth: int = Field(4, ge=3, le=5)
    decoder_channels: tuple[int, ...] = (128, 80, 40, 16)
    views: tuple[View, ...] = USUAL
    stride: Literal[1, 2, 4] = 1
    encoder_weights: str | None = None
    start: str | None = None


class SegmenterTraining(LoopConfig):
    """The loop, and how training images are recorded.

    Parameters
    ----------
    crop
        Side of a training image, px, a multiple of 32; less where the data has smaller images.
    zoom
        Smallest and largest pixel size of a training image relative to the data's; the middle of the range
        comes most often. Less where the view is too small for it.
    dose
        Smallest and largest dose in electrons/Å², equally frequent in each decade. Folders of images are
        taken as they are, their noise is their own.
    noise_free
        Share of training images without noise.
    background
        Largest background relative to the mean intensity; half of all images have one.
    vacancies
        Largest share of the atoms that is taken out; from half of all images.
    loss
        ``bce`` as in the paper, ``focal``, ``dice``, or ``bce_dice``, the sum of two.
    judge_at
        Doses at which validation picks the checkpoint (mean IoU over them) and the threshold; 0: noise-free.
    validation_rows, robustness_rows
        At most so many rows for each epoch's validation, and for the tables of robustness in the end.
    """

    crop: int = Field(128, ge=32, multiple_of=32)
    zoom: tuple[Positive, Positive] = (0.5, 2.0)
    dose: tuple[Positive, Positive] = (20.0, 1e5)
    noise_free: float = Field(0.4, ge=0, le=1)
    background: float = Field(0.5, ge=0)
    vacancies: Fraction = 0.1
    loss: Literal["bce", "focal", "dice", "bce_dice"] = "bce"
    judge_at: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.0, 500.0), min_length=1)
    validation_rows: int = Field(128, ge=1)
    robustness_rows: int = Field(300, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in ("zoom", "dose"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [smallest, largest], not {[low, high]}")
        return self


class SegmenterConfig(RunConfig):
    """Everything that decides the result of `training/train_segmenter.py`."""

    task_name: ClassVar[str] = "segmenter"

    data: SegmenterData = SegmenterData()
    model: SegmenterModel = SegmenterModel()
    training: SegmenterTraining = SegmenterTraining()

    def tiny(self) -> Self:
        """Return the tiny twin: a narrow decoder, no pretrained weights, two epochs, a few dozen rows."""
        small = {"encoder_weights": None, "start": None, "depth": 3, "decoder_channels": (16, 16, 8)}
        loop = {"epochs": 2, "batch_size": 8, "crop": 64, "validation_rows": 4, "robustness_rows": 2}
        return self.model_copy(
            update={
                "model": self.model.model_copy(update=small),
                "training": self.training.model_copy(update=loop),
            }
        )


def open_scenes(config: SegmenterData, *, seed: int, limit: int | None) -> Source:
    """Open a dataset with atoms, or two folders with ``images/`` and ``masks/`` of equal names.

    Raises
    ------
    UsageError
        When an image has no mask, or one of another shape (found when it is read), and as of `open_source`.
    """
    if config.train_dir is None or config.test_dir is None:
        return open_source(config, seed=seed, limit=limit, keep=COLUMNS)
    for folder in (config.train_dir, config.test_dir):
        for part in ("images", "masks"):
            if not (folder / part).is_dir():
                raise UsageError(f"{folder} has no folder {part}; it needs images/ and masks/ of equal names")
    images = {name: getattr(config, name) / "images" for name in ("train_dir", "test_dir")}
    source = open_source(config.model_copy(update=images), seed=seed, limit=limit)
    digest = hashlib.sha256(source.facts["manifest_sha256"].encode())
    for name, rows in source.splits.items():
        files = [_mask_file(path) for path in rows.encoded() if isinstance(path, Path)]
        for path in files:
            digest.update(path.read_bytes())
        masks = _Masks(list(rows.encoded()), files)
        source.splits[name] = Rows(rows.encoded, rows.labels, rows.columns | {"mask": masks})
    source.facts["dataset"] = f"{config.train_dir.resolve().name} + {config.test_dir.resolve().name}"
    source.facts["manifest_sha256"] = digest.hexdigest()
    return source


def _mask_file(image: Path) -> Path:
    """Return the mask of an image: its path in ``masks/``, with any suffix."""
    folder = next(parent for parent in image.parents if parent.name == "images")
    wanted = folder.parent / "masks" / image.relative_to(folder)
    if wanted.is_file():
        return wanted
    found = sorted(wanted.parent.glob(f"{wanted.stem}.*"))
    if len(found) != 1:
        raise UsageError(f"{image} has {len(found) or 'no'} masks {wanted.with_suffix('.*')}; it needs one")
    return found[0]


class _Masks(list[Any]):
    """Bool arrays of mask files, read when asked for: what is brighter than half the brightest is atom."""

    def __init__(self, images: Sequence[bytes | Path], files: Sequence[Path]) -> None:
        super().__init__(zip(images, files, strict=True))

    def __getitem__(self, index: Any) -> Any:
        image, path = super().__getitem__(index)
        levels = np.asarray(open_image(path).convert("L"))
        shape = open_image(image).size[::-1]
        if levels.shape != shape:
            raise UsageError(f"{path} has {levels.shape} pixels, its image {shape}; they must agree")
        return levels > levels.max() / 2


def smallest_side(rows: Rows) -> int:
    """Return the smallest number of rows or columns of any image."""
    sizes = []
    for encoded in rows.encoded():
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            sizes.append(min(image.size))
    return min(sizes)


@dataclass(frozen=True)
class Crops:
    """What a training image shows: its side in px, and pixel sizes relative to the data's."""

    side: int
    zoom: tuple[float, float]

    @classmethod
    def fit(cls, side: int, config: SegmenterTraining) -> Crops:
        """Return the configured crops, smaller where images of `side` pixels do not allow them."""
        crop = min(config.crop, side // 32 * 32)
        if crop == 0:
            raise UsageError(f"images of {side} pixels are too small to learn from; at least 32 are needed")
        largest = min(config.zoom[1], side / crop)
        return cls(crop, (min(config.zoom[0], largest), largest))

    def calibration(self, source: Source) -> dict[str, list[float]]:
        """Return what a model that learned from these crops knows: pixel sizes (Å/px) and views (Å)."""
        known = source.calibration(1)
        if not known:
            return {}
        sizes = [known["pixel_size"][end] * self.zoom[end] for end in (0, 1)]
        return {
            "pixel_size": [round(size, 6) for size in sizes],
            "field_of_view": [round(self.side * size, 6) for size in sizes],
        }


class Batches:
    """Training batches of one epoch, recorded anew on the device, the same for any number of processes.

    Parameters
    ----------
    scenes
        Decoded square training images.
    crops
        What a training image shows.
    radii
        Of the masks, Å.
    """

    def __init__(
        self,
        scenes: Scenes,
        crops: Crops,
        radii: Sequence[float],
        config: SegmenterTraining,
        accelerator: Accelerator,
    ) -> None:
        self.scenes, self.crops, self.radii = scenes, crops, tuple(radii)
        self.config, self.accelerator = config, accelerator

    def __len__(self) -> int:
        return steps_per_epoch(len(self.scenes), self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float 0..1 [batch, 1, row, column], and masks, bool [batch, radius, row, column]."""
        config, accelerator, scenes = self.config, self.accelerator, self.scenes
        count, side, device = config.batch_size, self.crops.side, accelerator.device
        mine = share(count, accelerator)
        simulated = scenes.atoms is not None
        noise = torch.Generator(device).manual_seed(config.seed * 100_003 + epoch)
        for rows, generator in batch_indices(len(scenes), config, epoch, accelerator):
            low, high = (math.log(value) for value in self.crops.zoom)
            uniform = torch.rand(count, 2, generator=generator, dtype=torch.float64)
            zoom = torch.exp(low + (high - low) * uniform.mean(1))
            part = (zoom * side / scenes.shape[0]).clamp(max=1)
            transforms = draw_transforms(count, "pose", 1.0, generator, side=part)[mine]
            conditions = self._conditions(generator, simulated)
            # Drawn for the whole batch on every process: what an image gets depends on its place alone.
            chance = Chance(
                torch.rand(count, side, side, generator=noise, device=device)[mine] if simulated else None,
                torch.rand(count, scenes.atoms.shape[1], generator=noise, device=device)[mine]
                if scenes.atoms is not None and config.vacancies
                else None,
            )
            drawn = draw(scenes, rows, transforms, (side, side), conditions, chance, self.radii)
            yield drawn.images, drawn.masks

    def _conditions(self, generator: torch.Generator, simulated: bool) -> Conditions:
        config, accelerator = self.config, self.accelerator
        mine = share(config.batch_size, accelerator)
        chance = torch.rand(config.batch_size, 8, generator=generator)[mine].to(accelerator.device).T
        low, high = (math.log(value) for value in config.dose)
        dose = torch.exp(low + (high - low) * chance[1])
        if not simulated:
            dose = torch.full_like(dose, math.inf)
        background = (chance[2] < 0.5) * chance[3] * config.background
        # A slope that never takes more than the background is: intensities stay positive.
        slope = (chance[4:6] - 0.5) * background
        return Conditions(
            torch.where(chance[0] < config.noise_free, math.inf, dose),
            background,
            slope.T,
            (chance[6] < 0.5) * chance[7] * config.vacancies,
        )


class Loss(torch.nn.Module):
    """Mean over pixels, masks and images, so that it does not depend on the number of processes."""

    def __init__(self, kind: Literal["bce", "focal", "dice", "bce_dice"]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of logits [batch, radius, row, column], in float32."""
        logits, truth = logits.float(), masks.float()
        loss = torch.zeros((), device=logits.device)
        if self.kind != "dice":
            each = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            if self.kind == "focal":
                # T.-Y. Lin et al., doi 10.1109/ICCV.2017.324: what is right already counts little (gamma 2).
                each = each * (1 - torch.exp(-each)).square()
            loss = loss + each.mean()
        if self.kind in ("dice", "bce_dice"):
            chance = logits.sigmoid()
            both, sums = (chance * truth).sum((2, 3)), (chance + truth).sum((2, 3))
            loss = loss + (1 - (2 * both + 1) / (sums + 1)).mean()
        return loss


@dataclass(frozen=True)
class Condition:
    """How test images are recorded: dose (electrons/Å², infinite: noise-free), zoom, turn, missing atoms."""

    dose: float = math.inf
    zoom: float = 1.0
    degrees: float = 0.0
    missing: float = 0.0

    def view(self, shape: tuple[int, int]) -> tuple[Tensor | None, tuple[int, int]]:
        """Return transform and shape of the largest view of an image; None where it stays as it is."""
        if self.zoom == 1 and self.degrees == 0:
            return None, shape
        angle = math.radians(self.degrees)
        fits = 1 / (abs(math.cos(angle)) + abs(math.sin(angle)))
        side = min(shape[0], math.floor(fits * shape[0] / self.zoom))
        part = side * self.zoom / shape[0]
        turn = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
        return torch.tensor([turn]) * part, (side, side)


def count_answers(
    model: torch.nn.Module,
    scenes: Sequence[Scenes],
    radii: Sequence[float],
    condition: Condition,
    accelerator: Accelerator,
    *,
    seed: int = 0,
    rows: int | None = None,
) -> Tensor:
    """Return how often which probability was answered: counts of pixels in bins of the probability.

    Parameters
    ----------
    model
        Images -> logits, all masks with ``every=True``.
    scenes
        Decoded rows, a group for each shape.
    radii
        Of the masks.
    condition
        How the images are recorded; noise follows from `seed` and the row's number.
    rows
        Only the first so many of every group.

    Returns
    -------
    Tensor
        int64 [row, mask, truth (0 background, 1 atom), bin], in the order of the split.
    """
    was_training = model.training
    model.eval()
    found, order = [], []
    for group in scenes:
        count = len(group) if rows is None else min(rows, len(group))

        def answer(places: npt.NDArray[np.int64], group: Scenes = group) -> Tensor:
            images, masks, _ = record(group, places, radii, condition, seed)
            chances = model(images, every=True).float().sigmoid()
            return histograms(chances, masks)

        shape = condition.view(group.shape)[1]
        batch = max(1, _PIXELS // (shape[0] * shape[1]))
        found.append(gather_rows(answer, count, accelerator, batch))
        order.append(group.rows[:count])
    model.train(was_training)
    return torch.cat(found)[torch.from_numpy(np.argsort(np.concatenate(order)))]


def record(
    group: Scenes,
    places: npt.NDArray[np.int64],
    radii: Sequence[float],
    condition: Condition,
    seed: int,
    *,
    contrast: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images, masks and, if asked for, contrasts (`scenes.Drawn`) of test rows under a condition."""
    device = group.images.device
    transform, shape = condition.view(group.shape)
    generators = [
        torch.Generator(device).manual_seed(seed * 1_000_003 + int(group.rows[place])) for place in places
    ]

    def numbers(*size: int) -> Tensor:
        return torch.stack([torch.rand(size, generator=g, device=device) for g in generators])

    chance = Chance(
        None if math.isinf(condition.dose) else numbers(*shape),
        numbers(group.atoms.shape[1]) if condition.missing and group.atoms is not None else None,
    )
    conditions = Conditions.same(len(places), device, dose=condition.dose, missing=condition.missing)
    transforms = None if transform is None else transform.expand(len(places), -1, -1)
    drawn = draw(group, places, transforms, shape, conditions, chance, radii, contrast=contrast)
    return drawn.images, drawn.masks, drawn.contrast


def histograms(chances: Tensor, masks: Tensor) -> Tensor:
    """Return counts [batch, mask, truth, bin] of probabilities [batch, mask, row, column]."""
    batch, kinds = chances.shape[:2]
    bins = (chances * BINS).long().clamp(0, BINS - 1) + BINS * masks.long()
    first = torch.arange(batch * kinds, device=chances.device).view(batch, kinds, 1, 1) * (2 * BINS)
    counts = torch.bincount((bins + first).flatten(), minlength=batch * kinds * 2 * BINS)
    return counts.view(batch, kinds, 2, BINS)


def outcomes(counts: Tensor, threshold: float) -> npt.NDArray[np.float64]:
    """Return true positives, false positives, false negatives, true negatives [row, mask, 4]."""
    cut = round(threshold * BINS)
    above, below = counts[..., cut:].sum(-1), counts[..., :cut].sum(-1)
    found = torch.stack([above[..., 1], above[..., 0], below[..., 1], below[..., 0]], -1)
    return found.numpy().astype(np.float64)


def iou(found: npt.NDArray[np.float64]) -> float:
    """Return intersection over union of outcomes [row, 4], all pixels together; 1 without any atom."""
    hits, false, missed, _ = found.sum(0)
    union = hits + false + missed
    return float(hits / union) if union else 1.0


def accuracy(found: npt.NDArray[np.float64]) -> float:
    """Return the share of pixels that are right."""
    return float((found[:, 0] + found[:, 3]).sum() / found.sum())


def log_loss(counts: Tensor) -> float:
    """Return the mean negative logarithm of the truth's probability, from the middles of the bins."""
    middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    total = counts.sum((0, 1)).double()
    return float(-(total[1] @ middle.log() + total[0] @ (1 - middle).log()) / total.sum())


def validation_conditions(config: SegmenterTraining, *, simulated: bool) -> dict[str, Condition]:
    """Return under which conditions validation looks at its rows, by the name of their IoU."""
    if not simulated:
        return {"iou": Condition()}
    names = {0.0: "iou_noise_free"}
    return {names.get(dose, f"iou_{dose:g}"): Condition(dose or math.inf) for dose in config.judge_at}


def validation_scores(counts: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the threshold that suits counts (of `count_answers`, by name of their IoU) best, and scores."""
    threshold = best_threshold(list(counts.values()))
    found = {name: outcomes(each, threshold)[:, 0] for name, each in counts.items()}
    return {
        "validation_loss": sum(log_loss(each) for each in counts.values()) / len(counts),
        "pixel_accuracy": accuracy(next(iter(found.values()))),
        **{name: iou(each) for name, each in found.items()},
        "threshold": threshold,
    }


def best_threshold(counts: Sequence[Tensor]) -> float:
    """Return the threshold with the largest mean IoU of the first mask over several conditions."""
    thresholds = [step / BINS for step in range(10, 91)]
    means = [np.mean([iou(outcomes(each, cut)[:, 0]) for each in counts]) for cut in thresholds]
    return thresholds[int(np.argmax(means))]
