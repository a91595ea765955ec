"""The super-resolution script: two optimisers, resuming, two processes, what it leaves behind."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from atomvision_hub.data.build import BuildOptions
from atomvision_hub.data.builders import load_builder
from atomvision_hub.engine.run import RunFolder
from atomvision_hub.engine.tasks import srgan
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models import SuperResolution
from atomvision_hub.models.perceptual import make_features

Train = Callable[..., None]

NETWORK = ["model.channels=8", "model.blocks=1", "model.discriminator_channels=4"]
LOOP = [
    "training.epochs=3",
    "training.pretrain_epochs=1",
    "training.batch_size=12",
    "training.crop=32",
    "training.learning_rate=0.001",
    "training.adversarial=0.01",
    "training.ema_decay=0.9",
    "training.dose_rows=2",
]


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_srgan_test", repository / "training/train_srgan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Train:
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_srgan.py", *map(str, arguments)])
        script.main()

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a content loss that has seen nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    state = make_features("vgg16", 4).state_dict()
    save_file({f"features.{name}": value for name, value in state.items()}, path)
    return path


def arguments(images: Path, weights: Path, output: Path, *more: object) -> list[object]:
    data = [f"data.content_weights={weights}", "training.content=vgg16:4", "data.pixel_size=0.25"]
    kind = ["training.degradation=physical", "training.dose=[100,1000]"]
    folders = ["--train-dir", images / "train", "--test-dir", images / "test"]
    return [*folders, "--set", *NETWORK, *LOOP, *data, *kind, "--output-dir", output, *more]


def epochs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(
    script: ModuleType, image_folders: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run in one process, on folders of images, with noise, a discriminator and a content loss."""
    folder = tmp_path_factory.mktemp("run") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments(image_folders, weights, folder))])
        script.main()
    return folder


def test_run_leaves_a_model_repository(finished: Path, weights: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "README.md",
        "config.json",
        "curves.png",
        "examples.png",
        "facts.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "training_config.yaml",
    }
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-to-image" in card
    assert "SuperResolution.from_pretrained" in card
    facts = json.loads((finished / "facts.json").read_text())
    assert facts["data"]["splits"] == {"test": 21, "train": 43, "validation": 5}
    test = facts["metrics"]["test"]
    assert test["psnr"]["n"] == test["missing_atoms"]["n"] == 21
    assert set(test["psnr"]["baselines"]) >= {"bicubic", "lanczos"}
    methods, doses = facts["tables"]
    assert [row[0] for row in methods["rows"]][-2:] == ["this network", "high resolution"]
    assert {row[0] for row in doses["rows"]} == {"50", "150", "500", "1500", "5000"}
    notes = " ".join(facts["notes"])
    assert "vgg16.safetensors, SHA-256" in notes
    assert "Nobody tells the true atoms" in notes
    # No path of this machine, and no weights of the content loss, in what is published.
    assert str(weights.parent) not in card + json.dumps(facts)
    names = load_file(finished / "model.safetensors")
    assert not any("features" in name for name in names)


def test_epochs_with_and_without_adversary(finished: Path) -> None:
    first, *rest = epochs(finished)
    assert first["discriminator_loss"] is None
    assert all(entry["discriminator_loss"] > 0 for entry in rest)
    assert len({entry["discriminator_loss"] for entry in rest}) == 2  # it learns
    facts = json.loads((finished / "facts.json").read_text())
    assert facts["best_epoch"] > 1
    assert facts["metrics"]["validation"]["content"] == min(entry["content"] for entry in rest)


def test_model_repeats_the_reported_figures(finished: Path, image_folders: Path) -> None:
    """From the folder alone, by the door that users take."""
    model = SuperResolution.from_pretrained(finished)
    assert model.known["degradation"] == "physical"
    config = srgan.SrganConfig.model_validate(
        {
            "training": {"degradation": "physical", "dose": [100, 1000], "view": 64, "crop": 32},
            "data": {"pixel_size": 0.25},
        }
    )
    from accelerate import Accelerator

    from atomvision_hub.engine.config import DataConfig
    from atomvision_hub.engine.data import open_source

    source = open_source(
        DataConfig(train_dir=image_folders / "train", test_dir=image_folders / "test"), seed=0
    )
    data = srgan.prepare(source.splits["test"], 64, config, torch.device("cpu"))
    judge = srgan.Judge(data, config.training, Accelerator(), seed=1)
    psnr = []
    for low, truth in zip(judge.low(), judge.truth(), strict=True):
        found = model.upscale(low, pixel_size=1.0)
        assert found.pixel_size == (0.25, 0.25)
        psnr.append(-10 * np.log10(np.mean((np.clip(found.image, 0, 1) - truth) ** 2)))
    reported = json.loads((finished / "facts.json").read_text())["metrics"]["test"]["psnr"]["value"]
    assert np.mean(psnr) == pytest.approx(reported, abs=1e-3)


def test_resumed_run_equals_uninterrupted(
    train: Train,
    finished: Path,
    image_folders: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, log = tmp_path / "model", RunFolder.log

    def interrupt(self: RunFolder, values: dict[str, float]) -> None:
        log(self, values)
        if values["epoch"] == 3:
            raise KeyboardInterrupt  # both optimisers have moved since the checkpoint of epoch 2

    monkeypatch.setattr(RunFolder, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(*arguments(image_folders, weights, folder))
    monkeypatch.setattr(RunFolder, "log", log)
    with pytest.raises(UsageError, match="add --resume to go on"):
        train(*arguments(image_folders, weights, folder))
    with pytest.raises(UsageError, match=r"training\.adversarial=0\.01, not 0\.1"):
        train(*arguments(image_folders, weights, folder, "--resume", "--set", "training.adversarial=0.1"))
    train(*arguments(image_folders, weights, folder, "--resume"))
    for ours, theirs in zip(epochs(folder), epochs(finished), strict=True):
        assert {**ours, "images_per_second": 0} == {**theirs, "images_per_second": 0}
    ours, theirs = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_give_the_same_losses_and_count_no_row_twice(
    finished: Path, image_folders: Path, weights: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    # On CPU accelerate starts two real processes only this way.
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    launch += " --mixed_precision no --dynamo_backend no --main_process_port 0"
    script = repository / "training" / "train_srgan.py"
    done = subprocess.run(
        [sys.executable, *launch.split(), script, *map(str, arguments(image_folders, weights, folder))],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts, alone = (json.loads((run / "facts.json").read_text()) for run in (folder, finished))
    assert "2 processes" in facts["hardware"]
    for ours, theirs in zip(epochs(folder), epochs(finished), strict=True):
        for name in ("loss", "discriminator_loss", "psnr", "content"):
            # Within rounding: an average over two halves is no average over the whole to the last bit.
            assert ours[name] == (theirs[name] and pytest.approx(theirs[name], rel=1e-3))
    test, reference = (one["metrics"]["test"]["psnr"] for one in (facts, alone))
    assert test["n"] == 21
    assert test["value"] == pytest.approx(reference["value"], abs=0.01)


def test_runs_are_put_side_by_side(
    finished: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    path = repository / "benchmarks" / "compare_srgan.py"
    spec = importlib.util.spec_from_file_location("compare_srgan_test", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folders = [tmp_path / name for name in ("gan", "deeper", "mse")]
    changes: list[dict[str, Any]] = [{}, {"content": "vgg16:9"}, {"content": "pixels", "pretrain_epochs": 3}]
    for folder, change in zip(folders, changes, strict=True):
        shutil.copytree(finished, folder)
        facts = json.loads((folder / "facts.json").read_text())
        facts["config"]["training"] |= change
        (folder / "facts.json").write_text(json.dumps(facts))
    monkeypatch.setattr(sys, "argv", ["compare_srgan.py", *map(str, folders), "--pictures"])
    script.main()
    facts = json.loads((folders[0] / "facts.json").read_text())
    script.main()
    assert json.loads((folders[0] / "facts.json").read_text()) == facts
    before = len(json.loads((finished / "facts.json").read_text())["tables"])
    methods, layers = facts["tables"][before:]
    named = ["adversary and vgg16:4", "adversary and vgg16:9", "squared error alone"]
    assert [row[0] for row in methods["rows"]][-4:] == [*named, "high resolution"]
    assert [row[0] for row in layers["rows"]] == ["vgg16:4", "vgg16:9"]
    card = (folders[0] / "README.md").read_text(encoding="utf-8")
    assert "Layer of the content loss: physical low resolution" in card
    assert "(comparison.png)" in card
    with Image.open(folders[0] / "comparison.png") as picture:
        assert min(picture.size) > 300
    other = json.loads((folders[1] / "facts.json").read_text())
    other["data"]["manifest_sha256"] = "0" * 64
    (folders[1] / "facts.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit):
        script.main()
    with pytest.raises(UsageError, match=r"deeper was tested on other data than .*gan \(manifest_sha256"):
        script.read_runs(folders)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "stem2d"
    options = BuildOptions(dataset="stem2d", sources=["reference"], out=folder, configs=["default"], limit=30)
    load_builder("stem2d").build(options)
    return folder


def test_learns_to_beat_interpolation_and_knows_the_atoms(
    train: Train, dataset: Path, tmp_path: Path
) -> None:
    """By squared error alone, on the paper's protocol, on a dataset with atom tables."""
    network = ["model.channels=8", "model.blocks=1", "training.crop=96", "training.view=128"]
    loop = ["training.epochs=25", "training.pretrain_epochs=25", "training.batch_size=6"]
    rate = ["training.pretrain_learning_rate=0.005", "data.config=default", "training.ema_decay=0"]
    more = ["--set", f"data.path={dataset}", *network, *loop, *rate]
    train("--config", "srgan_mse", *more, "--output-dir", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "facts.json").read_text())
    test = facts["metrics"]["test"]
    assert test["psnr"]["value"] > max(test["psnr"]["baselines"].values()) + 1
    assert test["psnr"]["groups"] == facts["data"]["splits"]["test"]
    floor = facts["tables"][0]["rows"][-1]
    assert floor[0] == "high resolution"
    assert floor[3] < 5  # atoms missing in true images, %
    assert test["position_error"]["value"] < 0.1
    assert facts["model_name"] == "super-resolution-bicubic-mse"
    known = SuperResolution.from_pretrained(tmp_path / "model").known
    assert known["pixel_size"] == [0.4, 0.4]
    assert known["field_of_view"] == [19.2, 25.6]


def test_mistakes_come_before_training(
    train: Train, image_folders: Path, weights: Path, tmp_path: Path
) -> None:
    call = arguments(image_folders, weights, tmp_path / "model", "--set")
    with pytest.raises(UsageError, match=r"training\.crop=96 does not fit views of 64 px"):
        train(*call, "training.crop=96")
    with pytest.raises(UsageError, match="there is no file"):
        train(*call, f"data.content_weights={tmp_path / 'no.safetensors'}")
    assert not (tmp_path / "model" / "training_config.yaml").exists()


def test_test_folder_is_opened_after_training(
    train: Train, image_folders: Path, weights: Path, tmp_path: Path
) -> None:
    import shutil

    copied = tmp_path / "images"
    shutil.copytree(image_folders, copied)
    broken = copied / "test" / "wide" / "00.png"
    broken.write_bytes(b"no image")
    short = ["--set", "training.epochs=1", "training.pretrain_epochs=0"]
    with pytest.raises(AtomVisionError, match=r"00\.png cannot be read as an image"):
        train(*arguments(copied, weights, tmp_path / "model", *short))
    assert len(epochs(tmp_path / "model")) == 1
    Image.new("L", (64, 64)).save(broken)
    train(*arguments(copied, weights, tmp_path / "model", *short, "--resume"))
    assert (tmp_path / "model" / "model.safetensors").is_file()
