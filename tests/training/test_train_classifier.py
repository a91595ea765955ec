"""The training script: learning, resuming, two processes, what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from atomvision_hub.engine.run import RunFolder
from atomvision_hub.errors import AtomVisionError, UsageError

Train = Callable[..., None]

# A vision transformer without batch statistics: its losses must not depend on the number of processes.
NETWORK = ["model.architecture=test_vit", "model.args={img_size: 32}", "model.input_size=32"]
LOOP = [
    "training.epochs=3",
    "training.batch_size=12",
    "training.learning_rate=0.001",
    "training.ema_decay=0.9",
]


def arguments(images: Path, output: Path, *more: object) -> list[object]:
    folders = ["--train-dir", images / "train", "--test-dir", images / "test"]
    return [*folders, "--set", *NETWORK, *LOOP, "--output-dir", output, *more]


def epochs(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(script: ModuleType, image_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("run") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments(image_folders, folder))])
        script.main()
    return folder


def test_run_leaves_a_model_repository(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "confusion.png",
        "curves.png",
        "facts.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "training_config.yaml",
    }
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-classification" in card
    facts = json.loads((finished / "facts.json").read_text())
    assert facts["data"]["classes"] == ["square", "stripes", "wide"]
    assert facts["data"]["splits"] == {"test": 21, "train": 42, "validation": 6}
    assert facts["metrics"]["test"]["accuracy"]["n"] == 21
    assert str(finished.parent) not in card + json.dumps(facts)


def test_pipeline_gives_the_reported_accuracy(finished: Path, image_folders: Path) -> None:
    from transformers import AutoModelForImageClassification, pipeline

    model = AutoModelForImageClassification.from_pretrained(finished)
    assert model.config.id2label == {0: "square", 1: "stripes", 2: "wide"}
    ask = pipeline("image-classification", model=str(finished))
    files = sorted((image_folders / "test").rglob("*.png"))
    hits = [ask(str(path))[0]["label"] == path.parent.name for path in files]
    reported = json.loads((finished / "facts.json").read_text())["metrics"]["test"]["accuracy"]
    assert np.mean(hits) == pytest.approx(reported["value"])


def test_resumed_run_equals_uninterrupted(
    train: Train, finished: Path, image_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    log = RunFolder.log

    def interrupt(self: RunFolder, values: dict[str, float]) -> None:
        log(self, values)
        if values["epoch"] == 2:
            raise KeyboardInterrupt  # after the line of epoch 2, before its checkpoint

    monkeypatch.setattr(RunFolder, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(*arguments(image_folders, folder))
    monkeypatch.setattr(RunFolder, "log", log)
    with pytest.raises(UsageError, match="add --resume to go on"):
        train(*arguments(image_folders, folder))
    with pytest.raises(UsageError, match=r"training\.batch_size=12, not 6"):
        train(*arguments(image_folders, folder, "--resume", "--set", "training.batch_size=6"))
    train(*arguments(image_folders, folder, "--resume"))
    assert [entry["loss"] for entry in epochs(folder)] == [entry["loss"] for entry in epochs(finished)]
    ours, theirs = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_give_the_same_losses_and_count_no_row_twice(
    finished: Path, image_folders: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    # On CPU accelerate starts two real processes only this way.
    launch = (
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    )
    script = repository / "training" / "train_classifier.py"
    command = [
        sys.executable,
        *launch.split(),
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
        str(script),
    ]
    done = subprocess.run(
        [*command, *map(str, arguments(image_folders, folder))],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts, alone = (json.loads((run / "facts.json").read_text()) for run in (folder, finished))
    assert "2 processes" in facts["hardware"]
    for ours, theirs in zip(epochs(folder), epochs(finished), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-5)
    # 21 test rows on two processes: one repeats a row, which must not be counted.
    assert facts["metrics"]["test"]["accuracy"]["n"] == 21
    assert facts["metrics"]["test"]["confusion"] == alone["metrics"]["test"]["confusion"]


def test_learns_the_difference(train: Train, image_folders: Path, tmp_path: Path) -> None:
    network = ["model.architecture=test_resnet", "model.input_size=32", "training.epochs=15"]
    loop = ["training.batch_size=14", "training.learning_rate=0.005", "training.augment=shift_mirror"]
    folders = ["--train-dir", image_folders / "train", "--test-dir", image_folders / "test"]
    more = ["training.class_balanced=true", "training.trackers=[tensorboard]", "training.crop_min=0.9"]
    train(*folders, "--set", *network, *loop, *more, "--output-dir", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "facts.json").read_text())
    assert facts["metrics"]["test"]["accuracy"]["value"] >= 0.9
    assert facts["metrics"]["test"]["accuracy"]["interval"][0] > 0.5
    assert list((tmp_path / "model").rglob("events.out.tfevents*"))


def test_test_folder_is_opened_after_training(
    train: Train, image_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: ModuleType
) -> None:
    """A test image that cannot be decoded stops the run only when training is over."""
    import shutil

    copied = tmp_path / "images"
    shutil.copytree(image_folders, copied)
    (copied / "test" / "wide" / "00.png").write_bytes(b"no image")
    with pytest.raises(AtomVisionError, match=r"00\.png cannot be read as an image"):
        train(*arguments(copied, tmp_path / "model"))
    assert len(epochs(tmp_path / "model")) == 3
    # Mended, the run only has to be tested.
    Image.new("L", (64, 64)).save(copied / "test" / "wide" / "00.png")
    train(*arguments(copied, tmp_path / "model", "--resume"))
    assert len(epochs(tmp_path / "model")) == 3
    assert (tmp_path / "model" / "model.safetensors").is_file()
