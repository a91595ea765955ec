"""Training of autoencoders: learning, resuming, two processes, what it leaves behind, the sweep."""

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
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from atomvision_hub.engine.config import load_config
from atomvision_hub.engine.run import RunFolder
from atomvision_hub.engine.tasks import autoencoder as task
from atomvision_hub.engine.tasks.autoencoder_report import mean_interval
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models import Autoencoder, VariationalAutoencoder
from atomvision_hub.models.autoencoder import Coded

NETWORK = ["model.size=16", "model.width=8", "model.blocks=1", "model.latent=8"]
LOOP = ["training.epochs=3", "training.batch_size=12", "training.ema_decay=0.9", "training.save_every=2"]
Main = Callable[..., None]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def main(repository: Path) -> Main:
    """The training script with arguments, in this process."""
    script = load(repository / "training" / "train_autoencoder.py")

    def run(*arguments: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train", *map(str, arguments)])
            script.main()

    return run


def arguments(images: Path, output: Path, *more: object) -> list[object]:
    folders = ["--train-dir", images / "train", "--test-dir", images / "test"]
    return [*folders, "--set", *NETWORK, *LOOP, "--output-dir", output, *more]


def epochs(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def facts_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "facts.json").read_text())
    return found


@pytest.fixture(scope="module")
def finished(main: Main, image_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("run") / "latent-0008"
    main(*arguments(image_folders, folder))
    return folder


@pytest.fixture(scope="module")
def variational(main: Main, image_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variational run in one process."""
    folder = tmp_path_factory.mktemp("run") / "vae"
    main(*arguments(image_folders, folder, "--set", "model.variational=true", "training.kl_warmup=0.5"))
    return folder


def test_run_leaves_a_model_repository(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "README.md",
        "config.json",
        "curves.png",
        "facts.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "reconstructions.png",
        "training_config.yaml",
    }
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-feature-extraction" in card
    assert "16 x 16 pixels become 8 numbers" in card
    facts = json.loads((finished / "facts.json").read_text())
    assert facts["kind"] == "autoencoder"
    assert facts["data"]["splits"] == {"test": 21, "train": 43, "validation": 5}
    assert set(facts["metrics"]["test"]["mse"]["baselines"]) == {"mean image", "DCT", "PCA"}
    assert [one["title"] for one in facts["tables"]] == ["Error over a rotation", "Error over the pixel size"]
    assert str(finished.parent) not in card + json.dumps(facts)


def test_reported_error_is_that_of_the_saved_model(finished: Path, image_folders: Path) -> None:
    """Measured again through the public road: files, `prepare`, `reconstruct`."""
    model = Autoencoder.from_pretrained(finished)
    errors = []
    with torch.inference_mode():
        for path in sorted((image_folders / "test").rglob("*.png")):
            image = np.asarray(Image.open(path).convert("L"))
            given = model.prepare(torch.from_numpy(image.copy())[None, None].float() / 255)
            errors.append(float((model.reconstruct(given) - given).square().mean()))
    reported = json.loads((finished / "facts.json").read_text())["metrics"]["test"]["mse"]
    assert np.mean(errors) == pytest.approx(reported["value"], rel=1e-4)
    assert reported["interval"][0] < reported["value"] < reported["interval"][1]
    assert reported["n"] == len(errors)


def test_variational_run_reports_its_bound_and_draws(variational: Path) -> None:
    facts = json.loads((variational / "facts.json").read_text())
    test = facts["metrics"]["test"]
    assert facts["kind"] == "vae"
    assert (variational / "samples.png").is_file()
    assert {"elbo", "kl_divergence", "active_units", "mse"} <= set(test)
    # Chosen among the epochs after the divergence has grown in, by the bound.
    full = [entry for entry in epochs(variational) if entry["epoch"] >= 2]
    assert facts["best_epoch"] == min(full, key=lambda entry: entry["validation_loss"])["epoch"]
    model = VariationalAutoencoder.from_pretrained(variational)
    chosen = epochs(variational)[facts["best_epoch"] - 1]
    # With the best variance of a pixel the bound is a function of that and of the divergence alone.
    bound = -0.5 * (1 + np.log(2 * np.pi * float(model.pixel_variance)))
    bound -= chosen["validation_divergence"] / model.size**2
    assert -chosen["validation_loss"] == pytest.approx(bound, rel=1e-4)


def test_resumed_run_equals_uninterrupted(
    main: Main, finished: Path, image_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in epoch 3, after the checkpoint of epoch 2."""
    folder, log = tmp_path / "model", RunFolder.log

    def interrupt(self: RunFolder, values: dict[str, float]) -> None:
        log(self, values)
        if values["epoch"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(*arguments(image_folders, folder))
    monkeypatch.setattr(RunFolder, "log", log)
    with pytest.raises(UsageError, match=r"model\.latent=8, not 4"):
        main(*arguments(image_folders, folder, "--resume", "--set", "model.latent=4"))
    main(*arguments(image_folders, folder, "--resume"))
    same = ("epoch", "loss", "validation_loss")
    assert [[e[k] for k in same] for e in epochs(folder)] == [[e[k] for k in same] for e in epochs(finished)]
    ours, theirs = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_give_the_same_losses_and_count_no_row_twice(
    variational: Path, image_folders: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    # On CPU accelerate starts two real processes only this way.
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    launch += " --mixed_precision no --dynamo_backend no --main_process_port 0"
    command = [sys.executable, *launch.split(), str(repository / "training" / "train_autoencoder.py")]
    more = ["--set", "model.variational=true", "training.kl_warmup=0.5"]
    done = subprocess.run(
        [*command, *map(str, arguments(image_folders, folder, *more))],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts, alone = (json.loads((run / "facts.json").read_text()) for run in (folder, variational))
    assert "2 processes" in facts["hardware"]
    for ours, theirs in zip(epochs(folder), epochs(variational), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-3)
    for name in ("mse", "elbo"):
        ours, theirs = facts["metrics"]["test"][name], alone["metrics"]["test"][name]
        assert ours["n"] == theirs["n"] == 21
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-3)


def test_beats_linear_codes_of_waves(main: Main, tmp_path: Path) -> None:
    """Gratings of any direction, step and phase: three numbers tell them, and no few components do."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:16, :16]
    for part, count in (("train", 300), ("test", 60)):
        (tmp_path / part).mkdir()
        for index in range(count):
            angle, period, phase = generator.uniform([0, 5, 0], [np.pi, 9, 6.28])
            along = columns * np.cos(angle) + rows * np.sin(angle)
            wave = 128 + 100 * np.cos(2 * np.pi * along / period + phase)
            Image.fromarray(np.rint(wave).astype(np.uint8)).save(tmp_path / part / f"{index:03d}.png")
    loop = ["training.epochs=40", "training.batch_size=30", "training.learning_rate=0.004"]
    more = ["training.augment=none", "training.ema_decay=0.95", "training.save_every=40"]
    network = ["model.size=16", "model.width=16", "model.blocks=1", "model.latent=8"]
    folders = ["--train-dir", tmp_path / "train", "--test-dir", tmp_path / "test"]
    main(*folders, "--set", *network, *loop, *more, "--output-dir", tmp_path / "model")
    test = json.loads((tmp_path / "model" / "facts.json").read_text())["metrics"]["test"]
    assert test["mse"]["value"] < 0.8 * min(test["mse"]["baselines"].values())
    assert test["better_than_the_strongest_baseline"]["value"] > 0.7


def test_test_folder_is_opened_after_training(main: Main, image_folders: Path, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "images"
    shutil.copytree(image_folders, copied)
    (copied / "test" / "wide" / "00.png").write_bytes(b"no image")
    with pytest.raises(AtomVisionError, match=r"00\.png cannot be read as an image"):
        main(*arguments(copied, tmp_path / "model"))
    assert len(epochs(tmp_path / "model")) == 3


def test_sweep_compares_runs_by_their_facts(
    main: Main, finished: Path, image_folders: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two finished runs: nothing is trained again; table and picture also go into a card."""
    sweep = load(repository / "benchmarks" / "autoencoder_sweep.py")
    main(*arguments(image_folders, finished.parent / "latent-0004", "--set", "model.latent=4"))
    words = ["--out", finished.parent, "--latents", 8, 4, "--card", finished]
    monkeypatch.setattr(sys, "argv", ["sweep", *map(str, words)])
    sweep.main()
    rows = json.loads((finished.parent / "sweep.json").read_text())
    facts = json.loads((finished / "facts.json").read_text())
    assert [row["latent"] for row in rows] == [4, 8]
    assert rows[1]["network"] == facts["metrics"]["test"]["mse"]["value"]
    for row in rows:
        lowest = min("network", "PCA", "DCT", "mean image", key=lambda name: row[name])
        assert row["best"] == lowest
    assert facts["tables"][0]["title"] == "Error over the length of the code"
    assert "![Test error over the length" in (finished / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["sweep", "--out", str(finished.parent), "--latents", "2"])
    with pytest.raises(UsageError, match="nothing trained yet for"):
        sweep.main()


def test_tiny_twin_and_configurations(repository: Path) -> None:
    for name in ("autoencoder", "autoencoder_vae"):
        config = load_config(repository / "training" / "configs" / f"{name}.yaml", [], task.AutoencoderConfig)
        tiny = config.tiny()
        assert (tiny.training.epochs, tiny.model.size) == (2, 32)
        assert tiny.model.variational == config.model.variational


def test_batches_repeat_and_average_areas() -> None:
    """Without augmentation a batch is the images averaged over areas; an epoch is the same each time."""
    images = torch.randint(0, 256, (5, 1, 64, 64), dtype=torch.uint8)
    training = task.AutoencoderTraining(batch_size=5, augment="none")
    network = task.ModelConfig(size=16, latent=3, variational=True)
    batches = task.Batches(images, network, training, Accelerator(cpu=True))
    (first, noise), (again, same) = (next(batches.epoch(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(noise, same)
    assert noise.shape == (5, 3)
    wanted = task.reduce(images, 16)
    # In another order.
    order = [int((one - wanted).abs().mean((1, 2, 3)).argmin()) for one in first]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert torch.allclose(first, wanted[order], atol=1e-5)
    assert not torch.equal(next(batches.epoch(2))[0], first)


def test_divergence_and_its_weight() -> None:
    """Against torch's own divergence; the weight grows in linearly and stays."""
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(
        normal(mean, (0.5 * log_variance).exp()), normal(0.0, torch.ones(4, 3))
    ).sum(1)
    ours = task.divergence(Coded(torch.zeros(0), mean, log_variance))
    assert torch.allclose(ours, theirs, atol=1e-5)
    config = task.AutoencoderTraining(epochs=10, beta=2.0, kl_warmup=0.4)
    assert [task.kl_weight(epoch, config) for epoch in (1, 2, 4, 10)] == [0.5, 1.0, 2.0, 2.0]
    assert task.kl_weight(1, task.AutoencoderTraining(kl_warmup=0)) == 1


def test_bound_is_that_of_a_linear_gaussian_model() -> None:
    """With the exact posterior of p(x|z) = N(w z, s²) the bound is the log density of N(0, w w' + s²)."""
    torch.manual_seed(0)
    pixels, variance = 64, 0.04
    direction = torch.randn(pixels, 1) * 0.1

    class Linear(VariationalAutoencoder):
        """One number along one direction."""

        kind = "vae"

        def distribution(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            precision = 1 + (direction.T @ direction) / variance
            mean = images.flatten(1) @ direction / variance / precision
            return mean, -precision.log().expand_as(mean)

        def decode(self, codes: torch.Tensor) -> torch.Tensor:
            return (codes @ direction.T).view(-1, 1, 8, 8)

    from atomvision_hub.models import base

    base._CLASSES["vae"] = VariationalAutoencoder  # the subclass above took its place
    model = Linear(latent=1, size=8, width=8, blocks=1)
    images = (torch.randn(3000, 1) @ direction.T + variance**0.5 * torch.randn(3000, pixels)).view(
        -1, 1, 8, 8
    )
    scores = task.score_rows(model, images, Accelerator(cpu=True), seed=0)
    density = torch.distributions.MultivariateNormal(
        torch.zeros(pixels), direction @ direction.T + variance * torch.eye(pixels)
    )
    exact = float(density.log_prob(images.flatten(1)).mean()) / pixels
    assert float(task.elbo(scores, variance, pixels).mean()) == pytest.approx(exact, abs=2e-3)


def test_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = mean_interval(values)
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    # Ten equal values a group are one observation.
    grouped = mean_interval(np.repeat(values[:40], 10), np.repeat(np.arange(40), 10).tolist())
    assert grouped[1] - grouped[0] == pytest.approx(2 * 1.96 * values[:40].std() / 40**0.5, rel=0.15)
