"""The real builder and the command line against the Hub: build, push, load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPO = "atomvision/stem2d"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny twin of stem2d, with two configs, as the command line builds it."""
    folder = tmp_path_factory.mktemp("built") / "stem2d"
    command = ["build", "stem2d", "--source", "reference", "--tiny", "--out", folder]
    command += ["--config", "default", "--config", "structures"]
    done = subprocess.run(
        [sys.executable, "-m", "atomvision_hub.cli", *command], capture_output=True, text=True
    )
    assert done.returncode in (0, 3), done.stderr
    return folder


@pytest.fixture
def atomvision(client_environment: Any, tmp_path: Path) -> Command:
    """Return a function that runs a command as a user would, with a token in the environment."""

    def run(*arguments: object, token: str | None = "hf_alicewrites") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "atomvision_hub.cli", *map(str, arguments)],
            env=client_environment(tmp_path / "home", token),
            capture_output=True,
            text=True,
            timeout=280,
        )

    return run


def test_build_push_load(hub: Any, atomvision: Command, built: Path, in_subprocess: Any, api: Any) -> None:
    done = atomvision("push", built, "--repo-id", REPO, "--tag", "v1.0.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"published {REPO} v1.0.0 (commit ")
    assert done.stdout.strip().endswith(f"{hub.url}/datasets/{REPO}/tree/v1.0.0")
    assert not done.stderr
    assert "hf_" not in done.stdout

    remote = set(api().list_repo_files(REPO, repo_type="dataset"))
    local = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    assert remote - {".gitattributes"} == local

    answer = in_subprocess(f"""
    import datasets
    from atomvision_hub.data import load_dataset
    def rows(dataset):
        return {{split: [str(row) for row in plain(rows)] for split, rows in dataset.items()}}
    def plain(rows):
        for name, feature in list(rows.features.items()):
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows
    for config in ("default", "structures"):
        folder = rows(datasets.load_dataset({str(built)!r}, config))
        remote = rows(datasets.load_dataset({REPO!r}, config, revision="v1.0.0"))
        ours = rows(load_dataset({REPO!r}, config))
        answer[config] = {{split: len(rows) for split, rows in remote.items()}}
        answer[config + " alike"] = ours == folder and [len(r) for r in remote.values()] == [
            len(r) for r in folder.values()
        ]
    image = datasets.load_dataset({REPO!r}, "default", split="train")[0]["image"]
    answer["image"] = [image.mode, *image.size]
    """)
    for config in ("default", "structures"):
        assert answer[config] == {"train": 6, "validation": 2, "test": 4}
        assert answer[f"{config} alike"]
    assert answer["image"][0] == "L"


def test_push_fails_in_one_line(atomvision: Command, versions: tuple[Path, Path]) -> None:
    def push(folder: Path, tag: str = "v1.0.0", **options: Any) -> tuple[int, str]:
        done = atomvision("push", folder, "--repo-id", REPO, "--tag", tag, **options)
        assert not done.stdout or done.returncode == 0
        assert "hf_" not in done.stderr
        return done.returncode, done.stderr

    first, second = versions
    assert push(first) == (0, "")
    for (code, line), expected in (
        (push(second), (1, f"error: {REPO} v1.0.0 is already published with another content")),
        (push(second, "1.1"), (2, "error: '1.1' is no version; write vX.Y.Z, such as v1.0.0")),
        (push(second, "v1.1.0", token="hf_neverissued"), (1, "error: http://127.0.0.1")),
        (push(second, "v1.1.0", token="hf_alicereads"), (1, "error: the token may not write to")),
        (push(second, "v1.1.0", token=None), (1, "error: publishing needs a token")),
    ):
        assert code == expected[0]
        assert line.startswith(expected[1])
        assert line.count("\n") == 1
