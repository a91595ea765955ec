"""A Hub on the loopback interface, clients that talk to it, and datasets and models to publish."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

WRITE, READ, OTHER, WRONG = "hf_alicewrites", "hf_alicereads", "hf_mallory", "hf_neverissued"
REPO = "atomvision/stem2d"


@dataclass(frozen=True)
class Hub:
    """The running server as tests see it."""

    url: str

    def fault(self, **fault: Any) -> None:
        httpx.post(f"{self.url}/__test__/faults", json=fault).raise_for_status()

    def requests(self, method: str = "", path: str = "") -> list[dict[str, Any]]:
        """Return the requests so far whose method and path contain these words."""
        found = httpx.get(f"{self.url}/__test__/requests").json()
        return [one for one in found if method in one["method"] and path in one["path"]]

    def forget(self, *, repositories: bool = False) -> None:
        """Drop pending faults and the record of requests, and on demand all repositories."""
        httpx.post(f"{self.url}/__test__/reset", params={"repositories": "1"} if repositories else {})


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    # Small pages and parts, so that listings are read page by page and shards are uploaded in parts.
    command = [
        sys.executable,
        "-m",
        "server",
        "--folder",
        folder,
        "--page-size",
        "3",
        "--part-size",
        "100000",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    try:
        assert process.stdout is not None
        yield Hub(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def hub(_server: Hub) -> Hub:
    """The server, empty."""
    _server.forget(repositories=True)
    return _server


@pytest.fixture
def api(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str | None], Any]:
    """Return a maker of in-process clients for a token; pauses between attempts are short."""
    from huggingface_hub import HfApi, constants

    from atomvision_hub.data import _hub

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(_hub, "PAUSES", (0.01, 0.02, 0.04))
    return lambda token=WRITE: HfApi(endpoint=hub.url, token=token)


Answer = dict[str, Any]


@pytest.fixture
def client_environment(hub: Hub) -> Callable[[Path, str | None], dict[str, str]]:
    """Return a function that makes the environment of a client, with nothing of ours but the search path."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LANG")}

    def environment(home: Path, token: str | None) -> dict[str, str]:
        return kept | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            **({"HF_TOKEN": token} if token else {}),
        }

    return environment


@pytest.fixture
def in_subprocess(client_environment: Any, tmp_path: Path) -> Callable[..., Answer]:
    """Return a function that runs Python code against the Hub in a fresh process and returns its `answer`.

    The clients read their environment at import, hence a process of its own. ``cache`` names the folder of
    the client's cache: a new one sees nothing that earlier clients loaded.
    """

    def run(code: str, *, token: str | None = None, cache: str = "cache", **environment: str) -> Answer:
        ending = "\nimport json as _json\nprint('ANSWER ' + _json.dumps(answer))\n"
        program = "answer = {}\n" + textwrap.dedent(code) + ending
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=client_environment(tmp_path / cache, token) | environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        last = done.stdout.strip().splitlines()[-1]
        answer: Answer = json.loads(last.removeprefix("ANSWER "))
        return answer | {"stderr": done.stderr}

    return run


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions of one dataset folder; the second has fewer, other shards."""
    root = tmp_path_factory.mktemp("datasets")
    return (
        write_dataset(root / "first", shards=3, seed=1),
        write_dataset(root / "second", shards=2, seed=2),
    )


def write_dataset(folder: Path, *, shards: int, seed: int, schema_version: int = 1) -> Path:
    """Write a folder after the contract of dataset folders: data, card, manifest."""
    import datasets
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    image = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    plain = datasets.Features({"id": datasets.Value("string"), "z": datasets.Value("float32")})
    files = {}
    for config, features in (("default", image), ("structures", plain)):
        for split, total in (("train", shards), ("test", 1)):
            for index in range(total):
                name = f"data/{config}/{split}-{index:05d}-of-{total:05d}.parquet"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                rows = [_row(rng, f"{split}-{index}-{number}", config) for number in range(10)]
                table = datasets.Dataset.from_list(rows, features=features)
                pq.write_table(table.with_format("arrow")[:], folder / name)
                files[name] = {"rows": len(rows)}
    (folder / "README.md").write_text(_card(image, plain), encoding="utf-8")
    (folder / ".build").mkdir()
    (folder / ".build/state.json").write_text("{}")
    (folder / "stray.part").write_text("half a file")
    for name, facts in files.items():
        content = (folder / name).read_bytes()
        facts |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}  # type: ignore[dict-item]
    manifest = {"schema_version": schema_version, "dataset": "stem2d", "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True))
    return folder


def _row(rng: np.random.Generator, identifier: str, config: str) -> dict[str, Any]:
    if config == "default":
        return {"id": identifier, "image": rng.integers(0, 255, (128, 128), dtype=np.uint8)}
    return {"id": identifier, "z": rng.random()}


def _card(image: Any, plain: Any) -> str:
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}-*"} for split in ("train", "test")],
        }
        for name in ("default", "structures")
    ]
    # `datasets` writes the YAML form of features.
    infos = [
        {"config_name": name, "features": features._to_yaml_list()}
        for name, features in (("default", image), ("structures", plain))
    ]
    metadata = {"license": "cc-by-4.0", "configs": configs, "dataset_info": infos}
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# A small dataset\n"
