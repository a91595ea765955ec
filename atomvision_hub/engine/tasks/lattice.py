"""The lattice network: configuration, what it is told of rendered images, batches, scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from atomvision_hub._files import atomic_path, sha256_file
from atomvision_hub.data.progress import Steps, say
from atomvision_hub.engine.config import DataConfig, Fraction, LoopConfig, RunConfig, Section
from atomvision_hub.engine.loop import batch_indices, gather_rows, steps_per_epoch
from atomvision_hub.engine.metrics import evaluate, majority_baseline, proportion
from atomvision_hub.engine.rendering import CrystalSet, RenderConfig
from atomvision_hub.engine.rendering.cpu import make_images
from atomvision_hub.engine.rendering.draws import draw
from atomvision_hub.errors import UsageError
from atomvision_hub.models.lattice_network import LatticeNetwork
from atomvision_hub.models.translations import Translations, find_translations
from atomvision_hub.structures.record import LATTICES

#: How images of a split are recorded, in the order of `SeenSplit.recorded`.
RECORDED = ("ideal", "typical")
#: Images whose candidates are found at once, and that are written to one file.
_AT_ONCE, _PART = 16, 1024
_SPLITS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}


class LatticeData(DataConfig):
    """A folder of stem2d with its config ``structures``; the label is that of the projected columns."""

    label: Literal["lattice_projected"] = "lattice_projected"


class LatticeModel(Section):
    """The network; see `models.lattice_network.LatticeConfig`."""

    candidates: int = Field(40, ge=4)
    spanning: int = Field(20, ge=2)
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    pair_width: int = Field(48, ge=8)


class LatticeTraining(LoopConfig):
    """The loop.

    Parameters
    ----------
    views
        Poses of every training crystal, each rendered once.
    noisy
        Share of the training images that are recorded as `render.random` says; the others are ideal.
    held_out_views
        Poses of every crystal of the validation and test splits, each both ideal and ``typical``.
    margin
        Crystals whose label has a smaller margin (Å) teach nothing.
    lost_max
        Largest share of candidates that is hidden at random.
    """

    batch_size: int = Field(64, ge=1)
    views: int = Field(16, ge=1)
    noisy: float = Field(0.4, ge=0, le=1)
    held_out_views: int = Field(1, ge=1)
    margin: float = Field(0.01, ge=0)
    lost_max: Fraction = 0.1
    label_smoothing: Fraction = 0.02


class LatticeRunConfig(RunConfig):
    """Everything that decides the result of `training/train_lattice.py`."""

    task_name: ClassVar[str] = "lattice"

    data: LatticeData = LatticeData()
    model: LatticeModel = LatticeModel()
    training: LatticeTraining = LatticeTraining()
    render: RenderConfig = RenderConfig(acquisition="random")

    def tiny(self) -> Self:
        """Return the tiny twin: a toy network, two epochs, one small view of a few dozen crystals."""
        small = {"candidates": 12, "spanning": 6, "width": 16, "layers": 1, "heads": 2, "pair_width": 8}
        return self.model_copy(
            update={
                "model": self.model.model_copy(update=small),
                "training": self.training.model_copy(update={"epochs": 2, "batch_size": 16, "views": 1}),
                "render": self.render.model_copy(update={"shape": (96, 96), "periods": 1.5}),
            }
        )


@dataclass(frozen=True)
class SeenSplit:
    """What the network is told of the images of a split.

    Parameters
    ----------
    translations
        Candidates, one set an image, on the CPU.
    labels, margins
        Of the crystals' projected lattices; margins in Å.
    groups
        Reduced formulas.
    recorded
        Index of `RECORDED` an image; of training images 1 stands for any that is not ideal.
    seconds
        That rendering and looking took, whenever that was.
    """

    translations: Translations
    labels: npt.NDArray[np.int64]
    margins: npt.NDArray[np.float64]
    groups: npt.NDArray[np.str_]
    recorded: npt.NDArray[np.int64]
    seconds: float

    def __len__(self) -> int:
        return len(self.labels)


def see_split(
    config: LatticeRunConfig, split: str, folder: Path, accelerator: Accelerator, *, limit: int | None = None
) -> SeenSplit:
    """Render a split and find the candidates of its images; finished parts are taken from `folder`.

    Parameters
    ----------
    folder
        Beside the checkpoints, which go when the run is finished. Each process makes its share of the parts.
    limit
        Use at most so many crystals.

    Raises
    ------
    UsageError
        When the configuration names no dataset.
    """
    settings, training = config.training, split == "train"
    if config.data.path is None:
        raise UsageError("no data: --set data.path=FOLDER, a stem2d dataset with its config structures")
    crystals = CrystalSet.open(
        config.data.path, split, margin=settings.margin if training else 0.0, limit=limit
    )
    crystals = crystals.in_view(min(config.render.shape) * config.render.pixel_size[1], config.render.periods)
    count = len(crystals) * (settings.views if training else settings.held_out_views * len(RECORDED))
    places = np.arange(count)
    which = places % len(crystals)
    turn = places // len(crystals)  # number of the view
    if training:
        recorded = (np.random.default_rng([settings.seed, 7]).random(count) < settings.noisy).astype(np.int64)
        kinds = [config.render.model_copy(update={"acquisition": "ideal"}), config.render]
    else:
        recorded = turn % len(RECORDED)
        kinds = [config.render.model_copy(update={"acquisition": name}) for name in RECORDED]
    parts = [places[start : start + _PART] for start in range(0, count, _PART)]
    files = [folder / f"seen-{split}-{number:03d}.safetensors" for number in range(len(parts))]
    began, made = time.perf_counter(), 0
    with Steps(f"candidates, {split}", count, "images") as step:
        for number, (part, file) in enumerate(zip(parts, files, strict=True)):
            if number % accelerator.num_processes == accelerator.process_index and not file.is_file():
                found: list[Translations] = []
                started = time.perf_counter()
                for start in range(0, len(part), _AT_ONCE):
                    chosen = part[start : start + _AT_ONCE]
                    found.append(
                        _see(
                            crystals,
                            kinds,
                            recorded,
                            chosen,
                            which,
                            settings.seed,
                            split,
                            config,
                            accelerator,
                        )
                    )
                _save(_joined(found), file, time.perf_counter() - started)
                made += len(part)
            for _ in part:
                step()
    accelerator.wait_for_everyone()
    if made and accelerator.is_main_process:
        rate = made / (time.perf_counter() - began)
        say(f"{split}: {made:,} images rendered and seen, {rate:,.0f} a second")
    return SeenSplit(
        translations=_joined([Translations(**load_file(file)) for file in files]),
        labels=crystals.labels[which],
        margins=crystals.margins[which],
        groups=np.array(crystals.groups)[which],
        recorded=recorded,
        seconds=sum(_seconds(file) for file in files) / accelerator.num_processes,
    )


def _see(
    crystals: CrystalSet,
    kinds: list[RenderConfig],
    recorded: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
    seed: int,
    split: str,
    config: LatticeRunConfig,
    accelerator: Accelerator,
) -> Translations:
    images = np.empty((len(places), *config.render.shape), dtype=np.float32)
    for kind, render in enumerate(kinds):
        rows = np.flatnonzero(recorded[places] == kind)
        if len(rows):
            draws = draw(crystals, render, seed, _SPLITS[split], places[rows], which[places[rows]])
            images[rows] = make_images(crystals, render, draws)
    found = find_translations(torch.from_numpy(images).to(accelerator.device), config.model.candidates)
    return found.to("cpu")


def _joined(parts: list[Translations]) -> Translations:
    return Translations(*(torch.cat([getattr(one, name) for one in parts]) for name in _FIELDS))


_FIELDS = ("vectors", "features", "valid", "image")


def _save(found: Translations, file: Path, seconds: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(found, name).contiguous() for name in _FIELDS}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata={"seconds": f"{seconds:.1f}"})


def _seconds(file: Path) -> float:
    with safe_open(file, framework="pt") as opened:
        return float((opened.metadata() or {}).get("seconds", 0.0))


class Batches:
    """Training batches of one epoch, the same for any number of processes.

    Parameters
    ----------
    seen
        The training split.
    """

    def __init__(self, seen: SeenSplit, config: LatticeTraining, accelerator: Accelerator) -> None:
        self.seen, self.config, self.accelerator = seen, config, accelerator
        self.labels = torch.from_numpy(seen.labels)

    def __len__(self) -> int:
        return steps_per_epoch(len(self.seen), self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[Translations, torch.Tensor]]:
        """Yield candidates and labels, both on the device."""
        device, config = self.accelerator.device, self.config
        for rows, generator in batch_indices(len(self.seen), config, epoch, self.accelerator, whole=True):
            count = config.batch_size // self.accelerator.num_processes
            mine = slice(self.accelerator.process_index * count, (self.accelerator.process_index + 1) * count)
            hidden = config.lost_max * torch.rand(config.batch_size, 1, generator=generator)
            kept = torch.rand(config.batch_size, self.seen.translations.valid.shape[1], generator=generator)
            chosen = torch.from_numpy(rows[mine])
            found = self.seen.translations[chosen]
            valid = found.valid & (kept[mine] >= hidden[mine])
            yield (
                Translations(found.vectors, found.features, valid, found.image).to(device),
                self.labels[chosen].to(device),
            )


class Trained(torch.nn.Module):
    """The network as the loop calls it: with candidates that were found before, instead of images."""

    def __init__(self, network: LatticeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, found: Translations) -> torch.Tensor:
        """Return logits (batch, classes)."""
        return self.network.judge_translations(found)


def predict_split(
    network: LatticeNetwork, seen: SeenSplit, accelerator: Accelerator, batch_size: int = 256
) -> torch.Tensor:
    """Return the class probabilities of every image, once each and in order, on every process."""
    was_training = network.training
    network.eval()

    def chances(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        found = seen.translations[torch.from_numpy(rows)].to(accelerator.device)
        return network.judge_translations(found).float().softmax(-1)

    found = gather_rows(chances, len(seen), accelerator, batch_size)
    network.train(was_training)
    return found


def scores(seen: SeenSplit, chances: torch.Tensor, least: float) -> dict[str, dict[str, Any]]:
    """Return `metrics.evaluate` of each way of recording, of labels with a margin of at least `least` Å."""
    said = chances.argmax(-1).numpy()
    found = {}
    for kind, name in enumerate(RECORDED):
        rows = (seen.recorded == kind) & (seen.margins >= least)
        found[name] = evaluate(seen.labels[rows], said[rows], LATTICES, seen.groups[rows])
    return found


def data_facts(config: LatticeRunConfig, splits: dict[str, SeenSplit]) -> dict[str, Any]:
    """Return what a card says about the data; counts are of images."""
    assert config.data.path is not None
    manifest = Path(config.data.path) / "manifest.json"
    low, high = config.render.pixel_size
    side = min(config.render.shape)
    return {
        "dataset": "stem2d",
        "config": "structures",
        "label": config.data.label,
        "revision": config.data.revision,
        "manifest_sha256": sha256_file(manifest) if manifest.is_file() else None,
        "splits": {name: len(split) for name, split in splits.items()},
        "classes": list(LATTICES),
        "pixel_size": [low, high],
        "field_of_view": [round(side * low, 6), round(side * high, 6)],
    }


def card_facts(train: SeenSplit, test: SeenSplit, chances: torch.Tensor, least: float) -> dict[str, Any]:
    """Return the test figures of the card: each way of recording, recalls, labels too close to call."""
    said = chances.argmax(-1).numpy()
    results: dict[str, Any] = {}
    rows: list[list[Any]] = [[name.replace("_", " ")] for name in LATTICES]
    for name, found in scores(test, chances, least).items():
        kind = RECORDED.index(name)
        clear = (test.recorded == kind) & (test.margins >= least)
        majority = majority_baseline(train.labels, test.labels[clear], test.groups[clear])
        accuracy = found["accuracy"]
        results[f"accuracy_{name}"] = {
            "value": accuracy["value"],
            "unit": "1",
            "n": accuracy["n"],
            "interval": accuracy["interval"],
            "groups": len(np.unique(test.groups[clear])),
            "baselines": {"most_frequent_class": majority["value"]},
        }
        results[f"macro_f1_{name}"] = {
            "value": found["macro_f1"]["value"],
            "unit": "1",
            "n": accuracy["n"],
        }
        close = (test.recorded == kind) & (test.margins < least)
        unclear = proportion(said[close] == test.labels[close], test.groups[close])
        results[f"accuracy_{name}_small_margins"] = {
            "value": unclear["value"],
            "unit": "1",
            "n": unclear["n"],
            "note": f"materials whose lattice is nearer than {least:g} Å to another class",
        }
        for row, lattice in zip(rows, LATTICES, strict=True):
            row.append(_percent(found["per_class"][lattice]["recall"]["value"]))
    table = {
        "title": "Recall of each class",
        "columns": ["class", *RECORDED],
        "rows": rows,
        "note": f"Percent of the images of materials with a margin of at least {least:g} Å.",
    }
    return {"test": results, "tables": [table]}


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)
