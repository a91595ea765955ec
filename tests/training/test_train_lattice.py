"""Training the lattice network on crystals of a dataset: what it leaves, resuming, held-out crystals."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from atomvision_hub.data.build import BuildOptions
from atomvision_hub.data.builders import load_builder
from atomvision_hub.engine.run import RunFolder
from atomvision_hub.errors import UsageError

TINY = ["--tiny", "--set", "training.views=2"]


@pytest.fixture(scope="module")
def lattice_script(repository: Path) -> ModuleType:
    path = repository / "training" / "train_lattice.py"
    spec = importlib.util.spec_from_file_location("train_lattice_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embedded crystals, without images."""
    folder = tmp_path_factory.mktemp("data") / "stem2d"
    options = BuildOptions(
        dataset="stem2d", sources=["reference"], out=folder, configs=["structures"], limit=40
    )
    load_builder("stem2d").build(options)
    return folder


@pytest.fixture(scope="module")
def run(lattice_script: ModuleType) -> Callable[..., None]:
    def start(*arguments: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train_lattice.py", *map(str, arguments)])
            lattice_script.main()

    return start


@pytest.fixture(scope="module")
def finished(run: Callable[..., None], crystals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    run(*TINY, f"data.path={crystals}", "--output-dir", folder)
    return folder


def test_run_leaves_a_model_that_the_pipeline_runs(finished: Path) -> None:
    from transformers import pipeline

    names = {path.name for path in finished.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "facts.json",
    } <= names
    assert "checkpoints" not in names
    facts = json.loads((finished / "facts.json").read_text())
    assert facts["kind"] == "lattice"
    assert facts["training_seconds"] > 0
    test = facts["metrics"]["test"]
    assert test["accuracy_ideal"]["n"] == test["accuracy_typical"]["n"] > 0
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "import atomvision_hub.models.lattice_network" in card
    assert "pipeline_tag: image-classification" in card
    assert str(finished.parent) not in card + json.dumps(facts)
    classify = pipeline("image-classification", model=str(finished))
    assert classify.model.config.id2label[0] == "hexagonal"


def test_resumed_run_equals_uninterrupted(
    run: Callable[..., None],
    finished: Path,
    crystals: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "model"
    given = [*TINY, f"data.path={crystals}", "--output-dir", folder]
    log = RunFolder.log

    def interrupt(self: RunFolder, values: dict[str, float]) -> None:
        log(self, values)
        if values["epoch"] == 2:
            raise KeyboardInterrupt  # after the line of epoch 2, before its checkpoint

    monkeypatch.setattr(RunFolder, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(*given)
    monkeypatch.setattr(RunFolder, "log", log)
    seen = {path.name: path.stat().st_mtime_ns for path in folder.glob("checkpoints/seen-*")}
    assert not any("test" in name for name in seen)  # closed until training is over
    run(*given, "--resume")
    ours, theirs = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_without_data_it_says_what_is_missing(run: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no data: --set data\.path=FOLDER"):
        run("--tiny", "--output-dir", tmp_path / "model")
