"""Reports: one file that needs nothing else, and in which nothing that comes from outside is ever run."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.analysis import Probe
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.inference import Analysis, analyze
from atomvision_hub.reports import analysis_report, training_report
from atomvision_hub.reports.page import cell, shown
from atomvision_hub.reports.training import write_training_report

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>\u202egnp.exe\n{{ 7*7 }}.dm4"


class Page(HTMLParser):
    """What a browser would load or run, and the text that people read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    simulated = simulate_stem(
        load_structures("reference")["MoS2"], shape=(180, 200), pixel_size=0.12, rotation=9
    )
    return (
        np.random.default_rng(0).poisson(simulated.image / simulated.image.max() * 80 + 2).astype(np.float32)
    )


@pytest.fixture(scope="module")
def result(image: np.ndarray) -> Analysis:
    return analyze(image, pixel_size=0.12, segmenter="none")


def self_contained(text: str) -> Page:
    page = Page(text)
    assert page.links == [link for link in page.links if link.startswith("data:image/png;base64,")]
    assert not page.handlers
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(page.tags)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import", text)
    return page


def test_analysis_tells_what_was_found(result: Analysis, image: np.ndarray) -> None:
    page = self_contained(analysis_report(result, image))
    assert page.tags.count("img") == 2
    found = result.parameters
    assert found is not None
    assert f"Hexagonal lattice (probability {found.probabilities['hexagonal']:.2f})" in page.text
    assert f"a = {found.a:.4g} ± {found.a_error:.2g} Å" in page.text
    assert "all lengths ± 5 % for the pixel size" in page.text
    assert f"{len(result.atoms):,}" in page.text
    assert "Motif" in page.text
    for peak in result.spectrum.peaks[:3]:
        assert f"{peak.d:.4f}" in page.text
    for warning in result.warnings:
        assert " ".join(warning.split()) in page.text
    # The same answer, the same bytes.
    assert analysis_report(result, image) == analysis_report(result, image)


def test_fitted_columns_are_told(result: Analysis, image: np.ndarray) -> None:
    assert "times the noise" not in analysis_report(result, image)
    probe = Probe(((0.9, 4.0), (0.1, 9.0)))
    page = analysis_report(dataclasses.replace(result, residual=1.04, profile=probe), image)
    assert "fitted to all pixels at once, which leaves 1.04 times the noise" in page
    assert "90% of the height σ = " in page


def test_no_lattice_is_told_with_its_reason() -> None:
    noise = np.random.default_rng(1).normal(100, 5, (128, 128))
    answer = analyze(noise, segmenter="none")
    page = self_contained(analysis_report(answer))
    assert "img" not in page.tags
    assert f"No lattice: {answer.no_lattice}." in page.text


def test_hostile_names_are_text(result: Analysis, image: np.ndarray) -> None:
    hostile = dataclasses.replace(
        result,
        file=HOSTILE,
        name=HOSTILE,
        kind=HOSTILE,
        warnings=(HOSTILE,),
        models={"segmenter": {"name": HOSTILE, "sha256": HOSTILE, "revision": None}},
    )
    text = analysis_report(hostile, image)
    page = self_contained(text)
    assert page.tags.count("img") == 2
    assert "<script>alert('x')</script>" in page.text  # as text, to the letter
    assert "\u202e" not in text
    assert "{{ 7*7 }}" in page.text


def test_text_of_cells() -> None:
    assert shown("a\tb\x00c") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert [cell(value) for value in (None, "", True, 0.123456, [1, 2.5], {"a": 1}, [])] == [
        "–",
        "–",
        "yes",
        "0.1235",
        "1, 2.5",
        "a 1",
        "–",
    ]


@pytest.mark.parametrize("name", ["atom-segmenter", "lattice-classifier-small", "alignn", "srgan", "vae"])
def test_report_of_every_kind_of_run(name: str, repository: Path) -> None:
    folder = repository / "model_cards" / name
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    page = self_contained(training_report(folder))
    assert facts["model_name"] in page.text
    assert facts["hardware"] in page.text
    assert f"{facts['parameters']:,}" in page.text
    assert page.tags.count("img") >= 1
    for package, version in facts["environment"].items():
        assert f"{package} {version}" in page.text
    for title in (table["title"] for table in facts.get("tables", ())):
        assert title in page.text
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert cell(last["loss"] if "loss" in last else last["epoch"]) in page.text


def test_a_run_with_facts_alone(repository: Path, tmp_path: Path) -> None:
    """No curves, no metrics, no YAML: the configuration of the facts, and no pictures."""
    content = (repository / "model_cards/alignn/facts.json").read_text(encoding="utf-8")
    (tmp_path / "facts.json").write_text(content.replace('"model_name": "', '"model_name": "<b>&'))
    path = write_training_report(tmp_path)
    page = self_contained(path.read_text(encoding="utf-8"))
    assert path.name == "report.html"
    assert "img" not in page.tags
    assert "b" not in page.tags
    assert "<b>&" in page.text
    assert "Configuration" in page.text


def test_unfinished_runs_have_no_report(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(AtomVisionError, match=r"no facts\.json"):
        training_report(tmp_path)
    shutil.copy(repository / "model_cards/alignn/facts.json", tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_text())
    del facts["hardware"]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(AtomVisionError, match="hardware"):
        training_report(tmp_path)
