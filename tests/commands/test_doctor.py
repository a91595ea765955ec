"""`atomvision doctor` names what is missing and how to get it, and never a secret."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from atomvision_hub.cli import app
from atomvision_hub.commands.doctor import EXTRAS


def test_it_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec

    def without_gpaw(name: str, *rest: Any) -> Any:
        return None if name == "gpaw" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_gpaw)
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("ATOMVISION_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "missing: gpaw" in result.output
    assert "pip install 'atomvision-hub[stm]'" in result.output
    assert "HF_TOKEN: set" in result.output
    assert "verysecret" not in result.output
    assert f"cache: {tmp_path / 'cache'} (not made yet)" in result.output


def test_every_extra_of_users_is_told(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"test", "dev"}
