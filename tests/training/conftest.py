"""Tiny image folders, and the training script in this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

# Threads that wait for each other cost more than they bring on networks this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Lattice vectors (px) of the three classes.
CELLS = {
    "square": [[7, 0], [0, 7]],
    "stripes": [[7, 0], [0, 40]],
    "wide": [[13, 0], [0, 13]],
}


def wave_lattice(cell: list[list[float]], side: tuple[int, int], phase: np.ndarray) -> np.ndarray:
    """8-bit image of two plane waves."""
    rows, columns = np.mgrid[: side[0], : side[1]]
    reciprocal = 2 * np.pi * np.linalg.inv(np.array(cell, float)).T
    waves = sum(np.cos(columns * k[0] + rows * k[1] + p) for k, p in zip(reciprocal, phase, strict=True))
    return np.rint((waves + 2) * 63).astype(np.uint8)


@pytest.fixture(scope="session")
def image_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train/ and test/ with three classes, 16 and 7 images each, not all of one shape."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 7)):
        for name, cell in CELLS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                side = (64, 64) if index % 3 else (64, 90)
                values = wave_lattice(cell, side, generator.uniform(0, 6.28, 2))
                Image.fromarray(values).save(folder / f"{index:02d}.png")
    return root


@pytest.fixture(scope="session")
def script(repository: Path) -> ModuleType:
    """The training script as a module."""
    path = repository / "training" / "train_classifier.py"
    spec = importlib.util.spec_from_file_location("train_classifier_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the script with arguments in this process."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_classifier.py", *map(str, arguments)])
        script.main()

    return run
