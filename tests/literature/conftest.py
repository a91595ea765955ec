"""arXiv on the loopback interface, and fetchers that talk to it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.sites import Sites

SERVICES = {"api": "api", "html": "html", "ar5iv": "ar5iv", "oai": "oai", "eprint": "e-print"}


@dataclass(frozen=True)
class Loopback:
    """The running server as tests see it."""

    url: str

    @property
    def sites(self) -> Sites:
        return Sites(**{name: f"{self.url}/{path}" for name, path in SERVICES.items()})

    @property
    def environment(self) -> dict[str, str]:
        return {f"ATOMVISION_ARXIV_{name.upper()}": f"{self.url}/{path}" for name, path in SERVICES.items()}

    def fault(self, path: str, kind: str, **more: Any) -> None:
        """Let the next requests to a path fail: kind ``status``, ``cut`` or ``empty``."""
        self._post("fault", {"path": path, "kind": kind, **more})

    def requests(self, path: str = "") -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/__test__/requests") as answer:
            return [one for one in json.load(answer)[0] if path in one["path"]]

    def most_at_once(self) -> int:
        with urllib.request.urlopen(f"{self.url}/__test__/requests") as answer:
            return int(json.load(answer)[1])

    def forget(self) -> None:
        self._post("reset", None)

    def _post(self, name: str, content: Any) -> None:
        body = json.dumps(content).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/__test__/{name}", body)).close()


def serve(shared: Path | None) -> Iterator[Loopback]:
    command = [sys.executable, "-m", "server", *(["--shared", str(shared)] if shared else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    try:
        assert process.stdout is not None
        yield Loopback(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def _arxiv() -> Iterator[Loopback]:
    yield from serve(None)


@pytest.fixture
def arxiv_server(_arxiv: Loopback) -> Loopback:
    """The server with articles of our own writing; no faults, no requests yet."""
    _arxiv.forget()
    return _arxiv


@pytest.fixture(scope="session")
def real_server(shared_data: Path) -> Iterator[Loopback]:
    """The server that also replays real feeds and pages."""
    yield from serve(shared_data / "literature")


@pytest.fixture
def fetcher(arxiv_server: Loopback, tmp_path: Path) -> Fetcher:
    """A fetcher with an empty cache."""
    return Fetcher(tmp_path / "cache", arxiv_server.sites)


@pytest.fixture
def slow_fetcher(arxiv_server: Loopback, tmp_path: Path) -> tuple[Callable[..., Fetcher], list[float]]:
    """A maker of fetchers that note their pauses instead of waiting."""
    pauses: list[float] = []
    return lambda **more: Fetcher(tmp_path / "cache", arxiv_server.sites, sleep=pauses.append, **more), pauses
