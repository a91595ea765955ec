"""The segmenter's training script: learning, resuming, two processes, folders of masks, what it leaves."""

from __future__ import annotations

import importlib.util
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

from atomvision_hub.data.build import BuildOptions
from atomvision_hub.data.builders import load_builder
from atomvision_hub.engine.run import RunFolder
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models import Segmenter

Segment = Callable[..., None]


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    """The training script as a module."""
    spec = importlib.util.spec_from_file_location(
        "train_segmenter_under_test", repository / "training" / "train_segmenter.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def segment(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Segment:
    """Run the script with arguments in this process."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_segmenter.py", *map(str, arguments)])
        script.main()

    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty embedded crystals under random poses, images of 64 x 64 pixels."""
    root = tmp_path_factory.mktemp("data")
    lines = ["description: Small images for tests", "shape: [64, 64]", "pixel_size: 0.1", "z_exponent: 1.7"]
    lines += ["psf: gaussian", "sigma: 0.5", "mask_radius: 0.5", "bits: 8", "random_pose: true", "poses: 1"]
    (root / "small.yaml").write_text("\n".join(lines), encoding="utf-8")
    options = BuildOptions(
        dataset="stem2d",
        sources=["reference"],
        out=root / "stem2d",
        configs=[str(root / "small.yaml")],
        limit=60,
    )
    load_builder("stem2d").build(options)
    return root / "stem2d"


LOOP = [
    "training.epochs=3",
    "training.batch_size=6",
    "training.crop=32",
    "training.ema_decay=0.5",
    "training.robustness_rows=2",
    "training.judge_at=[0, 1000]",
]
NETWORK = ["model.depth=3", "model.decoder_channels=[8, 8, 8]"]


def arguments(dataset: Path, output: Path, *more: object) -> list[object]:
    data = [f"data.path={dataset}", "data.config=small"]
    return ["--set", *data, *LOOP, *NETWORK, "--output-dir", output, *more]


def epochs(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(script: ModuleType, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("run") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments(dataset, folder))])
        script.main()
    return folder


def test_run_leaves_a_model_repository(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "curves.png",
        "doses.png",
        "examples.png",
        "facts.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "training_config.yaml",
    }
    facts = json.loads((finished / "facts.json").read_text())
    rows = facts["data"]["splits"]["test"]
    test = facts["metrics"]["test"]
    assert test["pixel_accuracy"]["n"] == test["iou"]["n"] == rows
    assert test["pixel_accuracy"]["paper"] == 0.93
    assert 0.5 < test["pixel_accuracy"]["baselines"]["always background"] < 0.95
    assert 0.2 < test["iou"]["baselines"]["Otsu threshold"] < 0.8
    assert facts["data"]["pixel_size"] == [0.09, 0.112]
    assert facts["data"]["field_of_view"] == [2.88, 3.584]
    tables = {table["title"]: table for table in facts["tables"]}
    assert [row[0] for row in tables["Dose"]["rows"]] == ["noise-free", "100000", "5000", "500", "50", "20"]
    assert [row[0] for row in tables["Radius of the disks"]["rows"]] == ["0.35", "0.5", "0.7"]
    assert [row[0] for row in tables["Missing atoms"]["rows"]] == ["0 %", "1 %", "3 %", "10 %"]
    assert [row[0] for row in tables["Pixel size"]["rows"]] == ["0.05", "0.07", "0.1", "0.14", "0.2"]
    assert len(tables["Rotation"]["rows"]) == 4
    assert len(tables["What limits it: the contrast of atoms"]["rows"]) == 5
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-segmentation" in card
    assert "Training started from scratch" in card
    assert str(finished.parent) not in card + json.dumps(facts)


def test_the_saved_model_gives_the_reported_scores(finished: Path, dataset: Path) -> None:
    from datasets import load_dataset

    model = Segmenter.from_pretrained(finished)
    assert model.known["mask_radii"] == [0.5, 0.35, 0.7]
    hits = pixels = both = either = 0
    for row in load_dataset(str(dataset), "small", split="test"):
        image = torch.from_numpy(np.array(row["image"]))[None, None].float() / 255
        called = (model.predict(image)[0, 0] >= model.threshold).numpy()
        truth = np.array(row["mask"]) > 0
        hits, pixels = hits + (called == truth).sum(), pixels + truth.size
        both, either = both + (called & truth).sum(), either + (called | truth).sum()
    test = json.loads((finished / "facts.json").read_text())["metrics"]["test"]
    assert test["pixel_accuracy"]["value"] == pytest.approx(hits / pixels, abs=1e-3)
    assert test["iou"]["value"] == pytest.approx(both / either, abs=1e-3)


def test_resumed_run_equals_uninterrupted(
    segment: Segment, finished: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    log = RunFolder.log

    def interrupt(self: RunFolder, values: dict[str, float]) -> None:
        log(self, values)
        if values["epoch"] == 2:
            raise KeyboardInterrupt  # after the line of epoch 2, before its checkpoint

    monkeypatch.setattr(RunFolder, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        segment(*arguments(dataset, folder))
    monkeypatch.setattr(RunFolder, "log", log)
    segment(*arguments(dataset, folder, "--resume"))
    assert [entry["loss"] for entry in epochs(folder)] == [entry["loss"] for entry in epochs(finished)]
    ours, theirs = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_learn_from_the_same_images_and_count_no_row_twice(
    finished: Path, dataset: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    # On CPU accelerate starts two real processes only this way.
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    launch += " --mixed_precision no --dynamo_backend no --main_process_port 0"
    script = repository / "training" / "train_segmenter.py"
    done = subprocess.run(
        [sys.executable, *launch.split(), str(script), *map(str, arguments(dataset, folder))],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts, alone = (json.loads((run / "facts.json").read_text()) for run in (folder, finished))
    assert "2 processes" in facts["hardware"]
    # Batch norm sees half of each batch, so losses agree roughly only; batches themselves are compared in
    # tests/engine/test_segmenter_task.py.
    for ours, theirs in zip(epochs(folder), epochs(finished), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.1)
    ours, theirs = (run["metrics"]["test"]["pixel_accuracy"] for run in (facts, alone))
    assert ours["n"] == theirs["n"]
    # What does not depend on the weights is counted alike: the peer, and the share of background.
    assert ours["baselines"] == theirs["baselines"]


def write_pairs(folder: Path, count: int, seed: int) -> None:
    """Bright noisy disks with their masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    for index in range(count):
        centres = generator.uniform(4, 60, (6, 2))
        distance = np.min([np.hypot(rows - y, columns - x) for y, x in centres], axis=0)
        levels = 40 + 150 * (distance < 6) + generator.normal(0, 10, (64, 64))
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{index}.png")
        Image.fromarray((255 * (distance < 6)).astype(np.uint8)).save(folder / "masks" / f"{index}.png")


def test_learns_from_folders_of_images_and_masks(segment: Segment, tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 14, 0)
    write_pairs(tmp_path / "test", 4, 1)
    folders = ["--train-dir", tmp_path / "train", "--test-dir", tmp_path / "test"]
    loop = ["training.epochs=12", "training.batch_size=6", "training.crop=64", "training.learning_rate=0.01"]
    loop += ["training.loss=bce_dice", "training.background=0", "training.zoom=[0.9, 1.0]"]
    segment(*folders, "--set", *loop, *NETWORK, "--output-dir", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "facts.json").read_text())
    assert facts["data"]["splits"] == {"test": 4, "train": 13, "validation": 1}
    assert facts["data"]["pixel_size"] is None
    test = facts["metrics"]["test"]
    assert set(test) == {"pixel_accuracy", "iou"}
    assert "paper" not in test["pixel_accuracy"]
    assert test["iou"]["value"] > 0.7
    assert facts["tables"] == []
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "Trained on the images of one user's folders" in card
    assert Segmenter.from_pretrained(tmp_path / "model").known["mask_radii"] == []


def test_test_rows_are_opened_after_training(segment: Segment, tmp_path: Path) -> None:
    """A test image that cannot be decoded stops the run only when training is over."""
    write_pairs(tmp_path / "train", 6, 0)
    write_pairs(tmp_path / "test", 2, 1)
    (tmp_path / "test" / "images" / "0.png").write_bytes(b"no image")
    folders = ["--train-dir", tmp_path / "train", "--test-dir", tmp_path / "test"]
    with pytest.raises(AtomVisionError, match=r"0\.png cannot be read as an image"):
        segment(*folders, "--tiny", "--output-dir", tmp_path / "model")
    assert len(epochs(tmp_path / "model")) == 2
