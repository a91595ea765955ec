"""`atomvision doctor` names what is missing and how to get it, and never a secret."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
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
    assert "HF_TOKEN: set (environment)" in result.output
    assert "verysecret" not in result.output
    assert f"cache: {tmp_path / 'cache'} (not made yet; " in result.output


def test_every_extra_of_users_is_told(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"test", "dev", "docs"}


def _json(*arguments: str) -> tuple[int, dict[str, Any], str]:
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    assert result.stdout.count("\n") == 1
    return result.exit_code, json.loads(result.stdout), result.stderr


def test_machines_get_all_of_it_and_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("ATOMVISION_CONTACT", "someone@example.org")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cache = tmp_path / "cache"
    (cache / "volumes").mkdir(parents=True)
    (cache / "volumes" / "a.npz").write_bytes(b"0" * 1234)
    monkeypatch.setenv("ATOMVISION_CACHE", str(cache))
    code, told, messages = _json()
    assert (code, messages) == (0, "")
    assert told["credentials"] == {"arxiv_contact": True, "hub_token": "environment"}
    assert not {"hf_verysecret", "someone@example.org"} & set(json.dumps(told).split('"'))
    assert "HF_HUB_OFFLINE" in told["offline"]
    assert told["caches"]["atomvision"]["bytes"] == 1234
    assert told["caches"]["atomvision"]["writable"]
    assert told["devices"][0]["kind"] == "cpu"
    assert told["libraries"]["torch"] == importlib.metadata.version("torch")
    assert set(told["extras"]) == set(EXTRAS)
    assert told["problems"] == []


def test_what_every_command_needs_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def old_pillow(name: str) -> str:
        if name == "typer":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "pillow" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", old_pillow)
    # As with a build of torchvision for another torch: its import fails.
    monkeypatch.setitem(sys.modules, "torchvision", None)
    code, told, messages = _json()
    assert code == 1
    problems = "\n".join(told["problems"])
    assert "typer is not installed; pip install 'typer>=" in problems
    assert "pillow 1.0 is not >=" in problems
    assert "PyTorch does not work (" in problems
    assert "install torch and torchvision together" in problems
    assert messages.count("problem: ") == len(told["problems"]) == 3
    assert told["devices"] == []
