"""`atomvision spacings`: measure, compare with a crystal, draw."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from PIL import Image
from typer.testing import CliRunner, Result

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.cli import app


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["spacings", *map(str, words)], prog_name="atomvision")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MoS2 at 0.1 Å/px, as a plain PNG, which carries no pixel size."""
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(200, 240), pixel_size=0.1, rotation=13)
    path = tmp_path_factory.mktemp("spacings") / "mos2.png"
    Image.fromarray((255 * frame.image / frame.image.max()).astype(np.uint8)).save(path)
    return path


def test_with_a_reference_crystal(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "spacings.png"
    told = _run(picture, "--pixel-size", 0.1, "--structure", "MoS2", "--picture", out)
    assert told.exit_code == 0
    assert "seen along [001]" in told.output
    assert "2.768" in told.output
    drawn = Image.open(io.BytesIO(out.read_bytes()))
    assert (drawn.format, drawn.width > 1000) == ("PNG", True)


def test_json(picture: Path) -> None:
    told = json.loads(_run(picture, "--pixel-size", 0.1, "--structure", "MoS2", "--json").output)
    assert told["spacings"][0]["d"] == pytest.approx(2.768, abs=0.01)
    assert told["facets"][0][0]["hkl"] == [1, 0, 0]
    assert told["zones"][0]["axis"] == [0, 0, 1]
    assert "facets" not in json.loads(_run(picture, "--json").output)


def test_uncalibrated(picture: Path) -> None:
    """Answered in pixels; the crystal has to wait for a pixel size."""
    told = _run(picture, "--structure", "MoS2")
    assert told.exit_code == 0
    assert "d (px)" in told.output
    assert "has no pixel size; give --pixel-size" in told.output


def test_structure_from_a_file_and_from_the_tables(picture: Path, tmp_path: Path) -> None:
    write(tmp_path / "gold.cif", bulk("Au", cubic=True))
    for structure in (tmp_path / "gold.cif", "Au"):
        told = _run(picture, "--pixel-size", 0.1, "--structure", structure)
        assert told.exit_code == 0
        assert "no direction of view of this crystal explains" in told.output


def test_crop(picture: Path) -> None:
    assert _run(picture, "--crop", "0,0,150,150", "--pixel-size", 0.1).exit_code == 0
    for crop, message in (
        ("0,0,900,9", "lies outside the image of 200 x 240 pixels"),
        ("a", "write ROW,COLUMN"),
    ):
        told = _run(picture, "--crop", crop)
        assert told.exit_code == 2
        assert message in told.output


def test_nothing_periodic(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    told = _run(tmp_path / "noise.png", "--picture", tmp_path / "drawn.png")
    assert told.exit_code == 0
    assert told.output.splitlines()[1:] == ["no lattice planes found"]
    assert (tmp_path / "drawn.png").stat().st_size > 5000


def test_usage_errors(picture: Path) -> None:
    for words, message in (
        (("--structure", "Nowhere"), "no crystal 'Nowhere'"),
        (("--index", "3"), "has 1 image(s); --index counts from 0"),
    ):
        told = _run(picture, *words)
        assert told.exit_code == 2
        assert message in told.output


def test_diffraction_patterns_are_refused(shared_data: Path) -> None:
    pytest.importorskip("rsciio")
    told = _run(shared_data / "microscopy" / "test_diffraction_pattern.dm3")
    assert told.exit_code == 2
    assert "holds a diffraction pattern" in told.output


def test_the_yaml_beside_the_image_counts(tmp_path: Path, picture: Path) -> None:
    """Its pixel size is used, and its formula names the crystal."""
    image = tmp_path / "scan.png"
    image.write_bytes(picture.read_bytes())
    (tmp_path / "scan.yaml").write_text("sample: {formula: Au}\nacquisition: {pixel_size: [0.1, 0.1]}\n")
    told = _run(image)
    assert "0.1 Å/px (sidecar: scan.yaml)" in told.output
    assert "  2.76" in told.output
    assert json.loads(_run(image, "--json").output)["structure"] == "Au"
    assert "0.2 Å/px (--pixel-size)" in _run(image, "--pixel-size", 0.2).output
