"""The Hub of `tests/hub` and the arXiv of `tests/literature`, both on loopback, for pages that ask them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from block_runs import environment
from forks import Forks

_TESTS = Path(__file__).resolve().parents[1]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_fixtures", _TESTS / name / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_HUB, _ARXIV = _load("hub"), _load("literature")
_server = _HUB._server
hub = _HUB.hub
api = _HUB.api


@pytest.fixture(scope="session")
def articles() -> Iterator[Any]:
    """The arXiv."""
    yield from _ARXIV.serve(None)


@pytest.fixture(scope="session")
def _variables(_server: Any, articles: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        "HF_ENDPOINT": _server.url,
        "HF_TOKEN": str(_HUB.WRITE),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path_factory.mktemp("hf-home")),
        **articles.environment,
    }


@pytest.fixture
def loopback(hub: Any, _variables: dict[str, str]) -> dict[str, str]:
    """Variables that lead to both, with a token that may write; the Hub is empty."""
    return _variables


@pytest.fixture(scope="session")
def forks(_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """The process that commands are forks of."""
    running = Forks(environment(tmp_path_factory.mktemp("home"), **_variables))
    yield running
    running.close()


@pytest.fixture
def published_model(hub: Any, api: Any) -> None:
    """The model that a page fetches."""
    from atomvision_hub.models.pretrained import pretrained_folder

    client, repo = api(_HUB.WRITE), "atomvision/lattice-classifier"
    client.create_repo(repo)
    client.upload_folder(repo_id=repo, folder_path=pretrained_folder("lattice-classifier-small"))
    client.create_tag(repo, tag="v1.0.0")
