"""Configuration of a training run: YAML, overrides, one line for a misspelt key."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from atomvision_hub._files import write_text
from atomvision_hub.errors import UsageError

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of a configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """Where the images come from: a dataset (`path`), or two folders of images.

    Parameters
    ----------
    path, config, revision, label
        Dataset folder or Hub id, its config, tag on the Hub, and the column with the class, if any.
    train_dir, test_dir, validation_fraction
        Folders of images, in class folders where the task has classes; validation is carved from the first,
        stratified and seeded.
    """

    path: str | None = None
    config: str | None = None
    revision: str | None = None
    label: str | None = None
    train_dir: Path | None = None
    test_dir: Path | None = None
    validation_fraction: float = Field(0.1, gt=0, lt=1)


class LabelledData(DataConfig):
    """Images with a class."""

    label: str = "lattice_projected"


class LoopConfig(Section):
    """What every training loop has.

    Parameters
    ----------
    batch_size
        Rows of one step over all processes.
    learning_rate, warmup
        Peak rate of the cosine schedule and the part of all steps that leads up to it.
    ema_decay
        Decay of an exponential moving average of the weights; 0 for none.
    """

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup: Fraction = 0.1
    ema_decay: Fraction = 0.0
    seed: int = Field(0, ge=0)
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    trackers: tuple[Literal["tensorboard", "trackio"], ...] = ()

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare no as false.
        return "no" if value is False else value


class RunConfig(Section):
    """Everything that decides the result of a training script; one subclass a task.

    Parameters
    ----------
    data, model, training
        Sections of the YAML file; subclasses narrow their types.
    """

    #: ``training/train_<task_name>.py``; its default configuration and output folder have the same name.
    task_name: ClassVar[str]

    data: DataConfig = DataConfig()
    model: Section = Section()
    training: LoopConfig = LoopConfig()

    def tiny(self) -> Self:
        """Return the tiny twin: a toy network, two epochs, a few dozen rows of each split."""
        raise NotImplementedError


C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Options:
    """What the command line says beside the configuration."""

    output_dir: Path
    resume: bool
    tiny: bool
    push_to: str | None
    tag: str | None


def parse_arguments(
    model: type[C], description: str, arguments: Sequence[str] | None = None
) -> tuple[C, Options]:
    """Read the command line of a training script and the YAML file it names.

    Raises
    ------
    UsageError
        When a key or value is wrong; the line names the nearest known key.
    """
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    add, task = parser.add_argument, model.task_name
    add("--config", default=task, help="YAML file, or the name of one in training/configs")
    add("--set", action="append", default=[], nargs="+", metavar="KEY=VALUE", help="e.g. training.epochs=5")
    add("--output-dir", type=Path, default=Path("runs", task), help="folder of the run and its model")
    add("--train-dir", type=Path, help="images of your own, instead of a dataset")
    add("--test-dir", type=Path, help="the same for the final test")
    add("--tiny", action="store_true", help="a toy network on a few rows, in seconds")
    add("--resume", action="store_true", help="go on with an interrupted run in --output-dir")
    add("--push-to", metavar="ORG/NAME", help="publish the finished model on the Hub; needs --tag")
    add("--tag", metavar="vX.Y.Z", help="version to publish")
    given = parser.parse_args(arguments)
    if bool(given.push_to) != bool(given.tag):
        raise UsageError("--push-to and --tag belong together: --push-to ORG/NAME --tag vX.Y.Z")
    overrides = [item for group in given.set for item in group]
    config = load_config(find_config(given.config, task), overrides, model)
    folders = {name: getattr(given, name) for name in ("train_dir", "test_dir")}
    if any(folders.values()):
        config = config.model_copy(update={"data": config.data.model_copy(update=folders)})
    if given.tiny:
        config = config.tiny()
    return config, Options(given.output_dir, given.resume, given.tiny, given.push_to, given.tag)


def find_config(name: str, task: str = "") -> Path:
    """Return the path of a configuration: a file, or the name of one beside the training scripts."""
    from atomvision_hub.engine.launch import scripts_folder

    path = Path(name)
    if path.is_file():
        return path
    folder = scripts_folder() / "configs"
    known = sorted(entry.stem for entry in folder.glob(f"{task}*.yaml"))
    if name in known:
        return folder / f"{name}.yaml"
    raise UsageError(f"there is no configuration {name}; give a YAML file or one of: {', '.join(known)}")


def load_config(path: Path, overrides: Sequence[str], model: type[C]) -> C:
    """Read a YAML file as a `model` and apply overrides ``section.key=value`` (values are YAML)."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is no YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold sections (data, model, training), not {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    return validate_config(content, str(path), model)


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


def validate_config(content: dict[str, Any], where: str, model: type[C]) -> C:
    """Check a configuration that was read from `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [name for name in _known_keys(model) if name.count(".") == place.count(".")]
            near = difflib.get_close_matches(place, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
            raise UsageError(f"{where}: there is no key {place}; {hint}") from None
        raise UsageError(f"{where}: {place}: {first['msg']}, not {first['input']!r}") from None


def _known_keys(model: type[RunConfig]) -> list[str]:
    keys = []
    for section, field in model.model_fields.items():
        keys.append(section)
        annotation: Any = field.annotation
        keys += [f"{section}.{name}" for name in annotation.model_fields]
    return keys


def save_config(config: RunConfig, path: Path) -> None:
    """Write a configuration such that `load_config` gives it back."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
