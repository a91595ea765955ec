"""The lines that cards of datasets tell people to type, on tiny builds of all four."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from blocks import blocks
from prepared import scan

from atomvision_hub.data import BuildOptions, load_builder

#: Sources and configs of the builds; configs of stem2d are those that its card speaks of.
BUILDS: dict[str, dict[str, Any]] = {
    "stem2d": {"sources": ("reference",), "configs": ("default", "typical", "structures", "defects")},
    "stm2d": {"sources": ("reference",)},
    "arxiv_figures": {"sources": ("query:all:STM",), "tiny": False},
    "experimental_tem": {"sources": ("scans",)},
}


@pytest.fixture
def card(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, articles: Any
) -> tuple[Path, dict[str, str]]:
    """Folder of a tiny build, and the blocks in Python of its card in their order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATOMVISION_CACHE", str(tmp_path / "cache"))
    for name, value in articles.environment.items():
        monkeypatch.setenv(name, value)
    scan(tmp_path / "scans" / "scan.tif")
    folder = tmp_path / request.param
    load_builder(request.param).build(
        BuildOptions(dataset=request.param, out=folder, **({"tiny": True} | BUILDS[request.param]))
    )
    found = [block.code for block in blocks(folder / "README.md") if block.language == "python"]
    assert len(found) >= 2, f"the card of {request.param} does not say how it is used"
    return folder, {f"{request.param}, block {number}": code for number, code in enumerate(found)}


def _first(rows: Any) -> dict[str, Any]:
    return next(iter(part[0] for part in rows.values() if len(part)))


def _run(code: str, place: str, names: dict[str, Any]) -> None:
    exec(compile(code, place, "exec"), names)


def _loaded(folder: Path, code: str) -> str:
    """Return the first block with the folder in the place of the Hub id, as the card allows."""
    code, count = re.subn(
        r'load_dataset\("[^"]+", ("\w+"), revision="vX.Y.Z"\)', rf'load_dataset("{folder}", \1)', code
    )
    assert count == 1
    return code


@pytest.mark.slow
@pytest.mark.parametrize("card", ["stm2d", "arxiv_figures", "experimental_tem"], indirect=True)
def test_the_lines_of_a_dataset_card_run(card: tuple[Path, dict[str, str]]) -> None:
    folder, (first, *others) = card[0], card[1].items()
    names: dict[str, Any] = {"np": np}
    _run(_loaded(folder, first[1]), first[0], names)
    names["row"] = _first(names["rows"])
    for place, code in others:
        # Of the few articles on loopback those with free images are in another split.
        _run(code.replace('free["train"]', 'free["validation"]'), place, names)


@pytest.mark.slow
@pytest.mark.parametrize("card", ["stem2d"], indirect=True)
def test_the_lines_of_the_card_of_stem2d_make_its_images_again(card: tuple[Path, dict[str, str]]) -> None:
    from atomvision_hub.data import load_dataset

    folder, items = card[0], list(card[1].items())
    (at, first), (scaling, intensity), (repeating, again), (damaging, damaged) = items
    names: dict[str, Any] = {"np": np}
    _run(_loaded(folder, first), at, names)
    names["row"] = _first(names["rows"])
    _run(intensity, scaling, names)
    structures = [row for part in load_dataset(str(folder), "structures").values() for row in part]
    for config in ("typical", "defects"):
        names["row"] = row = _first(load_dataset(str(folder), config))
        names["structure"] = next(one for one in structures if one["material_id"] == row["material_id"])
        if config == "typical":
            _run(again, repeating, names)
            np.testing.assert_array_equal(names["frame"].image, np.asarray(row["image"]))
        else:
            before = len(names["crystal"])
            _run(damaged, damaging, names)
            assert len(names["crystal"]) > before
