"""What the shell offers at the Tab key: names of datasets, configs, crystals; no science, quick imports."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import typer

#: Sources of crystals that have a name; files and folders the shell completes itself.
_SOURCES = (
    "reference",
    "synthetic:1000",
    "jarvis:dft_2d",
    "jarvis:c2db",
    "jarvis:twod_matpd",
    "jarvis:alex_pbe_2d_all",
)
#: `analysis.PHASES`, whose import takes a second; a test holds them together.
_PHASES = ("Au", "Fe3O4", "Pt", "Rh", "Si", "SnS", "SrTiO3")


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in sorted(names) if name.startswith(incomplete)]


def _folder(kind: str) -> Path:
    """Return where the scripts of a kind lie, in a checkout as in an installed copy."""
    from atomvision_hub.engine.launch import scripts_folder

    return scripts_folder().parent / kind


def _configs(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.yaml")]


def datasets(incomplete: str) -> list[str]:
    """Return the datasets that can be built."""
    return _starting((path.stem for path in _folder("dataset_builders").glob("[!_]*.py")), incomplete)


def dataset_configs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the configs of the dataset that the line names (by name, or as a built folder), or of all."""
    # While an option has no value yet, the parser leaves what it could not place in `args`.
    named = context.params.get("dataset") or next(iter(context.args), "")
    built = Path(str(named)) / "data"
    if named and built.is_dir():
        return _starting((path.name for path in built.glob("*/")), incomplete)
    folder = _folder("dataset_builders") / "configs"
    chosen = folder / str(named)
    folders = [chosen] if named and chosen.is_dir() else sorted(folder.glob("*/"))
    return _starting({name for one in folders for name in _configs(one)}, incomplete)


def sources(incomplete: str) -> list[str]:
    """Return the sources of crystals that have a name."""
    return _starting(_SOURCES, incomplete)


def crystals(incomplete: str) -> list[str]:
    """Return the embedded monolayers."""
    # The table itself: the room of structures costs a quarter of a second to import.
    table = files("atomvision_hub.structures") / "tables" / "monolayers.csv"
    with table.open(encoding="utf-8") as stream:
        lines = (line for line in stream if not line.startswith("#"))
        return _starting((row["id"] for row in csv.DictReader(lines)), incomplete)


def phases(incomplete: str) -> list[str]:
    """Return the crystals that spacings are compared with by name."""
    return _starting({*_PHASES, *crystals("")}, incomplete)


def tasks(incomplete: str) -> list[str]:
    """Return what can be trained."""
    scripts = _folder("training").glob("train_*.py")
    return _starting((path.stem.removeprefix("train_") for path in scripts), incomplete)


def training_options(context: typer.Context, incomplete: str) -> list[str]:
    """Return the configs of the task after ``--config``; the other options are the script's own."""
    given = [*(context.params.get("options") or ()), *context.args]
    task = context.params.get("task")
    if not given or given[-1] != "--config":
        return []
    names = _configs(_folder("training") / "configs")
    return _starting((name for name in names if name.startswith(str(task or ""))), incomplete)


def splits(incomplete: str) -> list[str]:
    """Return the splits of our datasets."""
    return _starting(("train", "validation", "test"), incomplete)
