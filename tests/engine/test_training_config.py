"""Configuration: overrides, one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomvision_hub.engine.config import find_config, load_config, parse_arguments, save_config
from atomvision_hub.engine.launch import launch, scripts_folder
from atomvision_hub.engine.tasks import config_model
from atomvision_hub.engine.tasks.classifier import ClassifierConfig
from atomvision_hub.errors import UsageError


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text("model:\n  architecture: resnet18\n", encoding="utf-8")
    return path


def test_overrides_beat_the_file(written: Path) -> None:
    config = load_config(
        written,
        ["training.learning_rate=1e-4", "model.args={img_size: 32}", "data.path=a b"],
        ClassifierConfig,
    )
    assert config.training.learning_rate == 1e-4
    assert config.model.args == {"img_size": 32}
    assert config.model.architecture == "resnet18"
    assert config.data.path == "a b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=5", r"there is no key training\.epoch; did you mean training\.epochs\?"),
        ("modell.args={}", r"there is no key modell; did you mean model\?"),
        ("training.epochs=many", r"training\.epochs: .*integer.*'many'"),
        ("training.augment=flip", r"training\.augment: .*'shift_mirror'.*'flip'"),
        ("epochs=5", r"--set wants SECTION\.KEY=VALUE"),
        ("training.epochs", r"--set wants SECTION\.KEY=VALUE"),
        ("model.architecture.name=x", "architecture is a value, it has no keys"),
    ],
)
def test_mistakes_are_one_line(written: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_config(written, [override], ClassifierConfig)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [("a: [", "is no YAML"), ("- 1", "must hold sections")])
def test_broken_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_config(path, [], ClassifierConfig)


def test_saved_configuration_comes_back(written: Path, tmp_path: Path) -> None:
    config = load_config(written, ["training.trackers=[tensorboard]", "data.train_dir=x"], ClassifierConfig)
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml", [], ClassifierConfig) == config


def test_every_shipped_configuration_is_valid() -> None:
    for path in sorted((scripts_folder() / "configs").glob("*.yaml")):
        task = path.stem.partition("_")[0]
        load_config(find_config(path.stem, task), [], config_model(task))


def test_command_line() -> None:
    config, options = parse_arguments(
        ClassifierConfig, "", ["--config", "classifier_small", "--tiny", "--train-dir", "a=b"]
    )
    assert config.model.architecture == "test_resnet"
    assert config.data.train_dir == Path("a=b")
    assert options.tiny
    with pytest.raises(UsageError, match="give a YAML file or one of: classifier"):
        parse_arguments(ClassifierConfig, "", ["--config", "clasifier"])
    with pytest.raises(UsageError, match="--push-to and --tag belong together"):
        parse_arguments(ClassifierConfig, "", ["--push-to", "a/b"])


def test_launching_an_unknown_task() -> None:
    with pytest.raises(UsageError, match=r"there is no training task 'painter'; there are: .*classifier"):
        launch("painter", [])


def test_launch_passes_the_exit_code_and_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert launch("classifier", ["--output-dir", str(tmp_path / "run"), "--set", "training.epocs=1"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1].endswith("there is no key training.epocs; did you mean training.epochs?")
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "run").exists()
