"""Reading the YAML configs of a dataset."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from atomvision_hub.data.interface import BuilderConfig
from atomvision_hub.errors import UsageError

Config = TypeVar("Config", bound=BuilderConfig)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def read_config(name: str, folder: Path, model: type[Config]) -> tuple[str, Config]:
    """Return name and content of a config.

    Parameters
    ----------
    name
        Name of a file in `folder`, without suffix, or the path of a YAML file.
    folder
        Where the configs of the dataset lie.
    model
        What a config must be.

    Raises
    ------
    UsageError
        When there is no such config or it is not valid; a misspelt key is answered with the nearest one.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.yaml"))) or "none"
        raise UsageError(f"there is no config {name!r}; there are: {known}; or give the path of a .yaml file")
    if not _NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: a config is named by letters, digits, - and _; rename the file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is not YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold `key: value` lines")
    try:
        return path.stem, model.model_validate(content)
    except ValidationError as problem:
        raise UsageError(f"{path}: {explain(problem, model)}") from None


def explain(problem: ValidationError, model: type[BuilderConfig]) -> str:
    """Return the first fault of a config as one line."""
    first = problem.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "the config"
    if first["type"] != "extra_forbidden":
        return f"{key}: {first['msg'].removeprefix('Value error, ')}"
    known = sorted(model.model_fields)
    nearest = difflib.get_close_matches(key, known, n=1)
    return f"there is no key {key!r}; " + (
        f"did you mean {nearest[0]!r}?" if nearest else f"there are: {', '.join(known)}"
    )
