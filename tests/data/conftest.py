"""The toy dataset of `toy_builders/`, and folders made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atomvision_hub.data import BuildOptions, BuildReport, load_builder

TOY = Path(__file__).parent / "toy_builders" / "toy.py"


@pytest.fixture(scope="session")
def toy_script() -> Path:
    return TOY


@pytest.fixture(scope="session")
def toy() -> Any:
    """The module of the toy builder."""
    return load_builder(str(TOY))


@pytest.fixture
def build_toy(toy: Any, tmp_path: Path) -> Callable[..., BuildReport]:
    """Build 60 toy inputs into ``tmp_path/NAME``."""

    def build(name: str = "toy", count: int = 60, **options: Any) -> BuildReport:
        return toy.build(BuildOptions(dataset="toy", sources=[str(count)], out=tmp_path / name, **options))

    return build


@pytest.fixture(scope="session")
def checksums() -> Callable[[Path], dict[str, str]]:
    """Path -> SHA-256 of every file of a folder, hidden ones included."""

    def of(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return of
