"""Finding the dataset builders: the very same scripts in a checkout and in an installed copy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from atomvision_hub.data.build import BuildOptions, BuildReport, DatasetBuilder
from atomvision_hub.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]
#: Where the scripts lie: inside the wheel, else beside the package in a checkout.
_FOLDERS = (_PACKAGE / "_scripts" / "dataset_builders", _PACKAGE.parent / "dataset_builders")


class BuilderModule(Protocol):
    """What a script in ``dataset_builders/`` offers."""

    BUILDER: DatasetBuilder

    def build(self, options: BuildOptions) -> BuildReport:
        """Build the dataset."""


def available_builders() -> dict[str, Path]:
    """Return the builders by name, with the script of each."""
    for folder in _FOLDERS:
        scripts = {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}
        if scripts:
            return scripts
    return {}


def load_builder(name: str) -> BuilderModule:
    """Return the module of a builder.

    Parameters
    ----------
    name
        Name of a script in ``dataset_builders/``, or the path of a script of one's own (``*.py``).

    Raises
    ------
    UsageError
        When there is no such builder.
    """
    known = available_builders()
    path = Path(name).resolve() if name.endswith(".py") else known.get(name)
    if path is None or not path.is_file():
        raise UsageError(f"there is no dataset builder {name!r}; there are: {', '.join(known) or 'none'}")
    return cast("BuilderModule", _load(path))


def _load(path: Path) -> ModuleType:
    # Registered under a name of its own, so that classes of the script are found again when unpickled.
    name = f"_atomvision_builder_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
