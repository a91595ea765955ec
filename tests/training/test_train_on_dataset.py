"""The training script on a built dataset: ceilings of labels, new prototypes, calibration, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atomvision_hub.data.build import BuildOptions
from atomvision_hub.data.builders import load_builder
from atomvision_hub.errors import UsageError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All embedded crystals, default config, images of 64 x 64."""
    folder = tmp_path_factory.mktemp("data") / "stem2d"
    # The limit keeps it quick; tiny alone takes too few crystals to fill three splits.
    configs = ["default", "structures"]
    options = BuildOptions(dataset="stem2d", sources=["reference"], out=folder, configs=configs, limit=60)
    load_builder("stem2d").build(options)
    return folder


def test_legacy_labels_have_a_ceiling(train: Callable[..., None], dataset: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    label = ["data.label=lattice_legacy", f"data.path={dataset}"]
    train("--config", "classifier_legacy", "--tiny", "--set", *label, "--output-dir", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "facts.json").read_text())
    test = facts["metrics"]["test"]
    assert set(test["ceilings"]) == {"lattice", "lattice_projected"}
    assert test["ceilings"]["lattice"]["n"] == test["accuracy"]["n"] == facts["data"]["splits"]["test"]
    assert test["new_prototypes"]["accuracy"]["n"] <= test["accuracy"]["n"]
    assert facts["data"]["dataset"] == "stem2d"
    assert facts["tiny"]
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "best guess of `lattice_legacy` from the true `lattice`" in card
    assert "A tiny twin" in card
    known = AutoConfig.from_pretrained(tmp_path / "model").atomvision
    assert known == {"pixel_size": [0.1, 0.1], "field_of_view": [15.36, 25.6]}


def test_images_are_rendered_while_training(
    train: Callable[..., None], dataset: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    data = [f"data.path={dataset}", "data.config=default"]
    train("--config", "classifier_rendered", "--tiny", "--set", *data, "--output-dir", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "facts.json").read_text())
    assert facts["metrics"]["test"]["accuracy"]["n"] == facts["data"]["splits"]["test"]
    known = AutoConfig.from_pretrained(tmp_path / "model").atomvision
    assert known["pixel_size"] == [0.15, 0.3]
    assert known["field_of_view"] == pytest.approx([32 * 0.15, 32 * 0.3])
    with pytest.raises(UsageError, match="label lattice_projected; set"):
        train("--set", *data, "data.render=true", "data.label=lattice", "--output-dir", tmp_path / "other")


def test_wrong_columns_are_named(train: Callable[..., None], dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no class column 'formula'; it has: lattice, lattice_legacy"):
        train("--set", f"data.path={dataset}", "data.label=formula", "--output-dir", tmp_path / "model")
    assert not (tmp_path / "model" / "training_config.yaml").exists()


@pytest.mark.slow
def test_interrupted_from_the_keyboard_is_one_line(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    network = ["model.architecture=test_resnet", "model.input_size=32", "training.epochs=1000"]
    settings = ["--set", f"data.path={dataset}", *network, "--output-dir", str(folder)]
    call = "from atomvision_hub.engine.launch import launch; sys.exit(launch('classifier', sys.argv[1:]))"
    code = f"import sys; {call}"
    # Its own session: the signal must reach the whole family, as from a terminal, but not the tests.
    running = subprocess.Popen(
        [sys.executable, "-c", code, *settings],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 200
    while not (folder / "checkpoints" / "state.json").is_file() and time.monotonic() < until:
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "the same command with --resume goes on after the last finished epoch" in errors
    assert "Traceback" not in errors
