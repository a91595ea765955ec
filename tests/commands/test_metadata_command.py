"""`atomvision metadata`: template, extract, validate, schema; exit codes 0 ok, 1 problems, 2 usage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from atomvision_hub.cli import app
from atomvision_hub.microscopy.metadata import field_table, read_sidecar


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["metadata", *map(str, words)], prog_name="atomvision")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scan.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return path


def test_template_is_printed_or_written(tmp_path: Path) -> None:
    out = tmp_path / "scan.png.yaml"
    printed, written = _run("template"), _run("template", "--out", out)
    assert (printed.exit_code, written.exit_code) == (0, 0)
    assert out.read_text(encoding="utf-8") == printed.output
    again = _run("template", "--out", out)
    assert again.exit_code == 2
    assert "exists; take another name" in again.output


def test_examples(tmp_path: Path) -> None:
    path = tmp_path / "Fe3O4.yaml"
    path.write_text(_run("template", "--example", "fe3o4").output, encoding="utf-8")
    assert read_sidecar(path).get("sample.material") == "magnetite"
    wrong = _run("template", "--example", "NaCl")
    assert wrong.exit_code == 2
    assert "no example 'NaCl'; there are Fe3O4, Rh, SnS" in wrong.output


def test_extract_completes_with_the_yaml_beside(picture: Path) -> None:
    picture.with_suffix(".yaml").write_text("sample: {formula: Rh}\nacquisition: {pixel_size: [0.2, 0.2]}\n")
    told = _run("extract", picture)
    assert told.exit_code == 0
    assert "  formula: Rh  # sidecar: scan.yaml" in told.output
    assert "derived: pixel size times rows and columns" in told.output
    bare = json.loads(_run("extract", picture, "--format", "json", "--no-sidecars").output)
    assert bare["sample"]["formula"] is None
    assert bare["provenance"]["shape"] == [8, 8]


def test_extract_goes_on_after_a_file_that_is_none(picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert _run("extract", broken).exit_code == 1
    told = _run("extract", broken, picture)
    assert told.exit_code == 3
    assert "error: " in told.output
    assert "broken.png" in told.output
    assert "file: scan.png" in told.output


def test_validate(picture: Path, tmp_path: Path) -> None:
    """Folders, YAML files and images; every problem a line with file, line and field."""
    sidecar = tmp_path / "scan.yaml"
    sidecar.write_text("sample:\n  formula: Rh\n")
    assert _run("validate", tmp_path).output == "1 file(s) valid\n"
    assert _run("validate", picture).exit_code == 0
    sidecar.write_text("sample:\n  formula: Xy\n  facets: 1\n")
    for target in (tmp_path, sidecar, picture):
        told = _run("validate", target)
        assert told.exit_code == 1
        assert f"problem: {sidecar}:2: sample.formula ('Xy') is no chemical formula" in told.output
        assert f"problem: {sidecar}:3: sample.facets is unknown; did you mean facet?" in told.output
        assert "error: 2 problem(s) in 1 file(s)" in told.output


def test_names_that_are_not_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "scan.yml").write_text("sample: {formula: Rh}\n")
    told = _run("validate", tmp_path)
    assert told.exit_code == 1
    assert "scan.yml: is not read; end its name in .yaml" in told.output


def test_validate_with_nothing_to_check(tmp_path: Path) -> None:
    told = _run("validate", tmp_path)
    assert told.exit_code == 2
    assert "no YAML file found there" in told.output
    assert _run("validate", tmp_path / "nowhere").exit_code == 2


def test_schema() -> None:
    assert json.loads(_run("schema").output)["title"] == "AtomVision image metadata 1.0"
    assert _run("schema", "--markdown").output == field_table()


def test_contradictions_are_notes(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    image = tmp_path / "scan.dm3"
    image.symlink_to(shared_data / "microscopy" / "test_STEM_image.dm3")
    (tmp_path / "scan.yaml").write_text("instrument: {voltage: 80}\n")
    told = _run("validate", image)
    assert told.exit_code == 0
    assert "instrument.voltage: sidecar: scan.yaml says 80.0" in told.output
