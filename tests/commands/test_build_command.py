"""`atomvision build`: what the options become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from atomvision_hub.cli import app
from atomvision_hub.data import BuildOptions, BuildReport


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BuildOptions]:
    """Stand in for the builders; gives the options that reach them."""
    options: list[BuildOptions] = []

    class Builder:
        @staticmethod
        def build(wanted: BuildOptions) -> BuildReport:
            options.append(wanted)
            return BuildReport(
                folder=wanted.out, rows={"default": {"train": 1}}, rejected={"html": 2}, seconds=0.1
            )

    monkeypatch.setattr("atomvision_hub.data.builders.load_builder", lambda name: Builder)
    return options


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["build", *arguments])


def test_articles_are_sources(asked: list[BuildOptions]) -> None:
    result = run(
        *("arxiv_figures", "--out", "figures", "--query", "abs:STM", "--ids", "mine.txt"),
        *("--feed", "one.xml", "--feed", "two.xml", "--jarvis-arxiv", "--source", "ids:more.txt"),
        *("--cache-dir", "kept", "--store-dir", "jarvis", "--limit", "7"),
    )
    assert result.exit_code == 3  # done, with rejects
    assert "rejected: html 2" in result.output
    assert list(asked[0].sources) == [
        "ids:more.txt",
        "query:abs:STM",
        "ids:mine.txt",
        "feed:one.xml",
        "feed:two.xml",
        "jarvis:arxiv",
    ]
    assert asked[0].cache_dir == Path("kept")
    assert asked[0].store_dir == Path("jarvis")
    assert asked[0].limit == 7


def test_a_cluster_and_the_cache(asked: list[BuildOptions], tmp_path: Path) -> None:
    run("stem2d", "--source", "reference", "--out", "x", "--dask", "tcp://127.0.0.1:8786")
    assert asked[0].dask == "tcp://127.0.0.1:8786"
    folder = BuildOptions(dataset="stm2d", sources=[], out=tmp_path, cache_dir=tmp_path / "kept").cache("stm")
    assert folder == tmp_path / "kept" / "stm"
    assert folder.is_dir()


def test_the_cache_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMVISION_CACHE", str(tmp_path / "everywhere"))
    options = BuildOptions(dataset="stm2d", sources=[], out=tmp_path)
    assert options.cache("arxiv") == tmp_path / "everywhere" / "arxiv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stem2d",), "nothing to build stem2d from; give --source"),
        (("stem2d", "--query", "abs:STM"), "are for arxiv_figures, not for stem2d"),
    ],
)
def test_wrong_usage(asked: list[BuildOptions], arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments, "--out", "x")
    assert result.exit_code == 2
    assert message in result.output
    assert not asked
