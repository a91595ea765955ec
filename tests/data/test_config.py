from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atomvision_hub.data.config import read_config
from atomvision_hub.errors import UsageError


def test_named_config(toy: Any, toy_script: Path) -> None:
    name, config = read_config("wide", toy_script.parent / "configs" / "toy", toy.ToyConfig)
    assert name == "wide"
    assert (config.side, config.items_per_shard) == (24, 16)


def test_config_of_ones_own(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("description: Mine\nside: 5\n")
    name, config = read_config(str(path), Path("nowhere"), toy.ToyConfig)
    assert (name, config.side) == ("mine", 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "description: D\nsdie: 5\n", "a.yaml: there is no key 'sdie'; did you mean 'side'?"),
        ("a.yaml", "description: D\nqqqq: 5\n", "no key 'qqqq'; there are: delay, description"),
        ("a.yaml", "description: D\nside: wide\n", "side: Input should be a valid integer"),
        ("a.yaml", "side: 5\n", "description: Field required"),
        ("a.yaml", "a: [\n", "is not YAML"),
        ("a.yaml", "- 1\n", "must hold `key: value` lines"),
        ("a.yaml", "!!python/object/apply:os.system [id]\n", "is not YAML"),
        ("my config.yaml", "description: D\n", "named by letters, digits, - and _"),
    ],
)
def test_faults_are_one_line(toy: Any, tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as caught:
        read_config(str(tmp_path / name), tmp_path, toy.ToyConfig)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_config_names_those_there_are(toy: Any, toy_script: Path) -> None:
    with pytest.raises(UsageError, match="no config 'defualt'; there are: default, wide"):
        read_config("defualt", toy_script.parent / "configs" / "toy", toy.ToyConfig)
