"""Configuration of a training run: YAML, overrides, one line for a misspelt key."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atomvision_hub._files import write_text
from atomvision_hub.errors import UsageError

Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Where the images come from: a dataset (`path`), or two folders with one subfolder a class.

    Parameters
    ----------
    path, config, revision, label
        Dataset folder or Hub id, its config, tag on the Hub, and the column with the class.
    train_dir, test_dir, validation_fraction
        Folders of images in class folders; validation is carved from the first, stratified and seeded.
    """

    path: str | None = None
    config: str | None = None
    revision: str | None = None
    label: str = "lattice_projected"
    train_dir: Path | None = None
    test_dir: Path | None = None
    validation_fraction: float = Field(0.1, gt=0, lt=1)


class ModelConfig(_Section):
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
    args: dict[str, Any] = {}
    pretrained: bool = False
    input_size: int = Field(128, ge=16)
    crop_pct: float = Field(1.0, gt=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: float = 0.25
    std: float = Field(0.25, gt=0)


class TrainingConfig(_Section):
    """The loop.

    Parameters
    ----------
    batch_size
        Images of one step over all processes.
    learning_rate, warmup
        Peak rate of the cosine schedule and the part of all steps that leads up to it.
    augment
        ``"none"``; ``"shift_mirror"``: crops and mirrors without rotation, as in the paper;
        ``"pose"``: rotations too.
    crop_min
        Smallest side of a random crop relative to the whole view.
    select_by
        What validation picks the checkpoint by.
    ema_decay
        Decay of an exponential moving average of the weights; 0 for none.
    """

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup: Fraction = 0.1
    label_smoothing: Fraction = 0.0
    class_balanced: bool = False
    ema_decay: Fraction = 0.0
    augment: Literal["none", "shift_mirror", "pose"] = "pose"
    crop_min: float = Field(0.6, gt=0, le=1)
    select_by: Literal["macro_f1", "accuracy"] = "macro_f1"
    seed: int = Field(0, ge=0)
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    trackers: tuple[Literal["tensorboard", "trackio"], ...] = ()


class ClassifierConfig(_Section):
    """Everything that decides the result of `training/train_classifier.py`."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    def tiny(self) -> ClassifierConfig:
        """Return the tiny twin: a toy network, two epochs, a few dozen rows of each split."""
        return self.model_copy(
            update={
                "model": self.model.model_copy(
                    update={"architecture": "test_resnet", "args": {}, "pretrained": False, "input_size": 32}
                ),
                "training": self.training.model_copy(update={"epochs": 2, "batch_size": 16}),
            }
        )


@dataclass(frozen=True)
class Options:
    """What the command line says beside the configuration."""

    output_dir: Path
    resume: bool
    tiny: bool
    push_to: str | None
    tag: str | None


def parse_arguments(arguments: Sequence[str] | None, description: str) -> tuple[ClassifierConfig, Options]:
    """Read the command line of a training script and the YAML file it names.

    Raises
    ------
    UsageError
        When a key or value is wrong; the line names the nearest known key.
    """
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    add = parser.add_argument
    add("--config", default="classifier", help="YAML file, or the name of one in training/configs")
    add("--set", action="append", default=[], nargs="+", metavar="KEY=VALUE", help="e.g. training.epochs=5")
    add("--output-dir", type=Path, default=Path("runs/classifier"), help="folder of the run and its model")
    add("--train-dir", type=Path, help="images in class folders, instead of a dataset")
    add("--test-dir", type=Path, help="the same for the final test")
    add("--tiny", action="store_true", help="a toy network on a few rows, in seconds")
    add("--resume", action="store_true", help="go on with an interrupted run in --output-dir")
    add("--push-to", metavar="ORG/NAME", help="publish the finished model on the Hub; needs --tag")
    add("--tag", metavar="vX.Y.Z", help="version to publish")
    given = parser.parse_args(arguments)
    if bool(given.push_to) != bool(given.tag):
        raise UsageError("--push-to and --tag belong together: --push-to ORG/NAME --tag vX.Y.Z")
    overrides = [item for group in given.set for item in group]
    config = load_config(find_config(given.config), overrides)
    folders = {name: getattr(given, name) for name in ("train_dir", "test_dir")}
    if any(folders.values()):
        config = config.model_copy(update={"data": config.data.model_copy(update=folders)})
    if given.tiny:
        config = config.tiny()
    return config, Options(given.output_dir, given.resume, given.tiny, given.push_to, given.tag)


def find_config(name: str) -> Path:
    """Return the path of a configuration: a file, or the name of one beside the training scripts."""
    from atomvision_hub.engine.launch import scripts_folder

    path = Path(name)
    if path.is_file():
        return path
    folder = scripts_folder() / "configs"
    known = sorted(entry.stem for entry in folder.glob("*.yaml"))
    if name in known:
        return folder / f"{name}.yaml"
    raise UsageError(f"there is no configuration {name}; give a YAML file or one of: {', '.join(known)}")


def load_config(path: Path, overrides: Sequence[str] = ()) -> ClassifierConfig:
    """Read a YAML file and apply overrides ``section.key=value`` (values are YAML)."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is no YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold sections (data, model, training), not {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    return validate_config(content, str(path))


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *sections, name = key.split(".")
    if not separator or not sections:
        raise UsageError(f"--set wants SECTION.KEY=VALUE such as training.epochs=5, not {override!r}")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {override}: {section} is a value, it has no keys")
    try:
        content[name] = yaml.safe_load(text)
    except yaml.YAMLError:
        content[name] = text
    # YAML 1.1 reads 1e-3 as a string; pydantic makes a number of it where one is wanted.


def validate_config(content: dict[str, Any], where: str) -> ClassifierConfig:
    """Check a configuration that was read from `where`."""
    try:
        return ClassifierConfig.model_validate(content)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [name for name in _known_keys() if name.count(".") == place.count(".")]
            near = difflib.get_close_matches(place, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
            raise UsageError(f"{where}: there is no key {place}; {hint}") from None
        raise UsageError(f"{where}: {place}: {first['msg']}, not {first['input']!r}") from None


def _known_keys() -> list[str]:
    keys = []
    for section, field in ClassifierConfig.model_fields.items():
        keys.append(section)
        annotation = field.annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        keys += [f"{section}.{name}" for name in annotation.model_fields]
    return keys


def save_config(config: ClassifierConfig, path: Path) -> None:
    """Write a configuration such that `load_config` gives it back."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
