"""The script of the graph classifier: learning, resuming, two processes, what it leaves behind."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from atomvision_hub.data.build import BuildOptions
from atomvision_hub.data.builders import load_builder
from atomvision_hub.engine.run import RunFolder
from atomvision_hub.engine.tasks import alignn as task
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models.alignn import Alignn, GraphStore, TorchGraph
from atomvision_hub.models.graphs import Graphs, GraphSettings, graph_of_image, read_levels

Train = Callable[..., None]

CELLS: dict[str, list[list[float]]] = {
    "hexagonal": [[8, 0], [-4, 6.93]],
    "rectangular": [[7, 0], [0, 11]],
    "square": [[8, 0], [0, 8]],
}
NETWORK = ["model.hidden=12", "model.embedding=12", "model.bins=16", "model.layers=1", "graph.columns=40"]
LOOP = [
    "training.epochs=3",
    "training.batch_size=12",
    "training.learning_rate=0.001",
    "training.ema_decay=0.8",
]


def picture(cell: list[list[float]], generator: np.random.Generator, side: int = 56) -> np.ndarray:
    """8-bit image of a lattice of Gaussians, turned at random."""
    angle = generator.uniform(0, 2 * np.pi)
    turned = np.array(cell) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    steps = np.stack(np.meshgrid(np.arange(-20, 21), np.arange(-20, 21)), -1).reshape(-1, 2)
    places = (steps + generator.uniform(0, 1, 2)) @ turned + side / 2
    places = places[(np.abs(places - side / 2) < side).all(1)]
    axis = np.arange(side)
    x, y = (np.exp(-0.5 * ((axis - places[:, k, None]) / 1.6) ** 2) for k in (0, 1))
    values = y.T @ x
    levels: np.ndarray = np.rint(values * (250 / values.max())).astype(np.uint8)
    return levels


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train/ and test/ with three lattices, 14 and 7 images each."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for part, count in (("train", 14), ("test", 7)):
        for name, cell in CELLS.items():
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(picture(cell, generator)).save(root / part / name / f"{index:02d}.png")
    return root


@pytest.fixture(scope="module")
def alignn_script(repository: Path) -> ModuleType:
    path = repository / "training" / "train_alignn.py"
    spec = importlib.util.spec_from_file_location("train_alignn_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train_alignn(alignn_script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Train:
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_alignn.py", *map(str, arguments)])
        alignn_script.main()

    return run


def arguments(images: Path, output: Path, *more: object) -> list[object]:
    folders = ["--train-dir", images / "train", "--test-dir", images / "test"]
    return [*folders, "--set", *NETWORK, *LOOP, "--output-dir", output, *more]


def epochs(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(alignn_script: ModuleType, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("run") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments(pictures, folder))])
        alignn_script.main()
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
    assert "pipeline_tag: graph-ml" in card
    assert "repeats join columns whose surroundings look the same, up to 14 Å" in card
    facts = json.loads((finished / "facts.json").read_text())
    assert facts["kind"] == "alignn"
    assert facts["metrics"]["test"]["accuracy"]["n"] == 21
    assert facts["metrics"]["test"]["accuracy"]["baselines"] == {"majority class": pytest.approx(1 / 3)}
    assert "Graphs of 42 images were made" in facts["notes"][0]
    assert str(finished.parent) not in card + json.dumps(facts)


def test_loaded_model_gives_the_reported_accuracy(finished: Path, pictures: Path) -> None:
    model = Alignn.from_pretrained(finished)
    files = sorted((pictures / "test").rglob("*.png"))
    found = [graph_of_image(read_levels(path), None, model.graph_settings) for path in files]
    with torch.inference_mode():
        classes = [model.known["labels"][index] for index in model(TorchGraph.of(found)).argmax(-1)]
    hits = [name == path.parent.name for name, path in zip(classes, files, strict=True)]
    reported = json.loads((finished / "facts.json").read_text())["metrics"]["test"]["accuracy"]
    assert np.mean(hits) == pytest.approx(reported["value"])


def test_resumed_run_equals_uninterrupted(
    train_alignn: Train, finished: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    log, make = RunFolder.log, task.make_graphs
    made: list[str] = []

    def interrupt(self: RunFolder, values: dict[str, float]) -> None:
        log(self, values)
        if values["epoch"] == 2:
            raise KeyboardInterrupt  # after the line of epoch 2, before its checkpoint

    def noted(rows: object, settings: object, title: str, *more: object, **options: object) -> object:
        made.append(title)
        return make(rows, settings, title, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(task, "make_graphs", noted)
    monkeypatch.setattr(RunFolder, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_alignn(*arguments(pictures, folder))
    monkeypatch.setattr(RunFolder, "log", log)
    assert made == ["graphs-train", "graphs-validation"]
    train_alignn(*arguments(pictures, folder, "--resume"))
    # Graphs are made once, those of the test images after training.
    assert made == ["graphs-train", "graphs-validation", "graphs-test"]
    assert [entry["loss"] for entry in epochs(folder)] == [entry["loss"] for entry in epochs(finished)]
    ours, theirs = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_give_the_same_losses_and_count_no_row_twice(
    finished: Path, pictures: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    # On CPU accelerate starts two real processes only this way.
    launch = (
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
        "--dynamo_backend no --main_process_port 0"
    )
    script = repository / "training" / "train_alignn.py"
    done = subprocess.run(
        [sys.executable, *launch.split(), str(script), *map(str, arguments(pictures, folder))],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts, alone = (json.loads((run / "facts.json").read_text()) for run in (folder, finished))
    assert "2 processes" in facts["hardware"]
    for ours, theirs in zip(epochs(folder), epochs(finished), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-4)
    # 21 test rows on two processes: one repeats a row, which must not be counted.
    assert facts["metrics"]["test"]["accuracy"]["n"] == 21
    assert facts["metrics"]["test"]["accuracy"] == alone["metrics"]["test"]["accuracy"]


def test_processes_share_the_batches_of_one(pictures: Path) -> None:
    files = sorted((pictures / "train").rglob("*.png"))
    graphs = [graph_of_image(read_levels(path), None, GraphSettings(columns=40)) for path in files]
    store = GraphStore(Graphs.join(graphs), torch.device("cpu"))
    labels = np.arange(len(files)) // 14
    settings = task.AlignnTraining(batch_size=12)

    def batches(index: int, count: int) -> list[tuple[TorchGraph, torch.Tensor]]:
        process = SimpleNamespace(process_index=index, num_processes=count)
        return list(task.Batches(store, labels, settings, cast("Any", process)).epoch(3))

    alone, first, second = batches(0, 1), batches(0, 2), batches(1, 2)
    assert len(alone) == 3
    for (graph, classes), (one, its), (other, theirs) in zip(alone, first, second, strict=True):
        assert torch.equal(classes, torch.cat([its, theirs]))
        for name in ("features", "lengths", "cosines", "mismatch"):
            parts = [getattr(one, name), getattr(other, name)]
            assert torch.equal(getattr(graph, name), torch.cat(parts))


def test_learns_the_difference(train_alignn: Train, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    train_alignn(*arguments(pictures, folder, "--set", "training.epochs=12", "training.learning_rate=0.01"))
    accuracy = json.loads((folder / "facts.json").read_text())["metrics"]["test"]["accuracy"]
    assert accuracy["value"] >= 0.9


def test_test_folder_is_opened_after_training(train_alignn: Train, pictures: Path, tmp_path: Path) -> None:
    """A test image that cannot be decoded stops the run only when training is over."""
    import shutil

    copied = tmp_path / "pictures"
    shutil.copytree(pictures, copied)
    (copied / "test" / "square" / "00.png").write_bytes(b"no image")
    with pytest.raises(AtomVisionError, match=r"00\.png cannot be read as an image"):
        train_alignn(*arguments(copied, tmp_path / "model"))
    assert len(epochs(tmp_path / "model")) == 3
    # Mended, the run only has to be tested; an image without columns is an answer too.
    Image.new("L", (56, 56)).save(copied / "test" / "square" / "00.png")
    train_alignn(*arguments(copied, tmp_path / "model", "--resume"))
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_dataset_with_noise_and_robustness(train_alignn: Train, tmp_path: Path) -> None:
    data = tmp_path / "stem2d"
    options = BuildOptions(dataset="stem2d", sources=["reference"], out=data, configs=["default"], limit=40)
    load_builder("stem2d").build(options)
    label = ["data.label=lattice_legacy", f"data.path={data}"]
    loop = ["training.epochs=1", "training.doses=[500]", "training.batch_size=8"]
    train_alignn("--config", "alignn", "--set", *label, *NETWORK, *loop, "--output-dir", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "facts.json").read_text())
    accuracy = facts["metrics"]["test"]["accuracy"]
    assert set(accuracy["baselines"]) == {
        "majority class",
        "best guess from true lattice",
        "best guess from true lattice_projected",
    }
    assert accuracy["paper"] == 0.78
    classes, robustness = facts["tables"]
    assert len(classes["rows"]) == 5
    titles = [row[0] for row in robustness["rows"]]
    assert titles[:2] == ["as it is", "dose 5000 electrons/Å²"]
    assert "pixel size 0.2 Å" in titles
    assert "10 % of the columns missing" in titles
    assert any("how the source wrote down the cell" in note for note in facts["notes"])
    assert Alignn.from_pretrained(tmp_path / "model").known["pixel_size"] == [0.1, 0.1]
