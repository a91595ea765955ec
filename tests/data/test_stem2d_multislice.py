"""The config `multislice` of stem2d: pairs of images in one pose, with a stand-in for abTEM."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from PIL import Image

from atomvision_hub import load_dataset, load_structures, simulate_stem
from atomvision_hub.data import BuildOptions, BuildReport, load_builder, validate_folder
from atomvision_hub.errors import MissingExtraError, UsageError
from atomvision_hub.simulation.multislice import engine
from atomvision_hub.structures import flat_layer

NAMES = ("graphene", "MoS2", "WSe2", "SnS")


def convolution(boxes: Any, positions: np.ndarray, *_: Any) -> np.ndarray:
    """A signal that is known: 1e-6 Z^1.7 of a Gaussian of 0.5 Å around every atom at rest."""
    box = next(iter(boxes))
    sides = box.cell.lengths()[:2]
    away = positions[:, None] - box.positions[None, :, :2]
    away -= np.rint(away / sides) * sides
    gauss = np.exp(-(away**2).sum(-1) / 0.5) / (0.5 * np.pi)
    return 1e-6 * (gauss @ box.numbers.astype(float) ** 1.7)[None]


def build(out: Path, config: str = "multislice", **options: Any) -> BuildReport:
    chosen = f"reference:{','.join(NAMES)}"
    options = {"dataset": "stem2d", "sources": (chosen,), "out": out, "configs": (config,), **options}
    return load_builder("stem2d").build(BuildOptions(**options))


@pytest.fixture
def still(tmp_path: Path) -> str:
    """The config with atoms at rest, so that the stand-in has nothing random."""
    path = tmp_path / "pairs.yaml"
    path.write_text(
        "description: Pairs\nshape: [64, 64]\nbits: 16\nrandom_pose: true\nitems_per_shard: 4\n"
        "multislice: {phonons: 1, displacement: 0.0}\n"
    )
    return str(path)


def pixels(value: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value["bytes"]))).astype(float)


def test_both_images_of_a_row_show_the_same_view(
    tmp_path: Path, still: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "annular_signal", convolution)
    monkeypatch.setattr(engine, "abtem_version", lambda: "stand-in")
    report = build(tmp_path / "out", still, cache_dir=tmp_path / "cache")
    assert report.rejected == {}
    assert validate_folder(report.folder) == []
    rows = [row for path in report.folder.glob("data/pairs/*") for row in pq.read_table(path).to_pylist()]
    assert sorted(row["material_id"] for row in rows) == sorted(NAMES)
    crystals = load_structures("reference")
    for row in rows:
        first = row["intensity_offset"] + row["intensity_scale"] * pixels(row["image"])
        second = row["multislice_offset"] + row["multislice_scale"] * pixels(row["multislice_image"])
        assert np.abs(1e6 * second - first).max() < 1e-3 * first.max()
        facts = json.loads(row["multislice"])
        assert (facts["engine"], facts["phonons"], facts["source_size"]) == ("stand-in", 1, 0.0)
        pose = {name: row[name] for name in ("pixel_size", "rotation", "shift", "z_exponent", "psf")}
        frame = simulate_stem(flat_layer(crystals[row["material_id"]]), shape=(64, 64), **pose)
        assert np.abs(frame.image - first).max() <= 0.51 * row["intensity_scale"] + 1e-4
    card = (report.folder / "README.md").read_text(encoding="utf-8")
    assert "multislice with frozen phonons (abTEM)" in card
    assert "Multislice images: thermal displacements are independent" in card
    loaded = load_dataset(report.folder, "pairs")
    assert loaded["train"][0]["multislice_image"].size == (64, 64)
    # Scans are kept: another build needs no engine.
    monkeypatch.setattr(engine, "annular_signal", None)
    assert build(tmp_path / "again", still, cache_dir=tmp_path / "cache").rows == report.rows


def test_without_abtem_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise MissingExtraError("multislice images need abTEM: pip install 'atomvision-hub[multislice]'")

    monkeypatch.setattr(engine, "abtem_version", absent)
    with pytest.raises(MissingExtraError, match="need abTEM"):
        build(tmp_path / "out", cache_dir=tmp_path / "cache", tiny=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("acquisition: typical", "no defects, no acquisition"),
        ("defects: {vacancies: [0.01, 0.02]}", "no defects, no acquisition"),
        ("content: structures", "no defects, no acquisition"),
    ],
)
def test_what_pairs_cannot_be_combined_with(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"description: Mine\nmultislice: {{}}\n{line}\n")
    with pytest.raises(UsageError, match=message):
        build(tmp_path / "out", str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("description: Mine\nsource_size: 0.8\n")
    with pytest.raises(UsageError, match="source_size belongs to multislice images"):
        build(tmp_path / "out", str(tmp_path / "mine.yaml"))


def test_some_of_the_embedded_monolayers_can_be_chosen() -> None:
    assert list(load_structures("reference:WSe2, graphene")) == ["WSe2", "graphene"]
    chosen: Atoms = load_structures(["reference:MoS2"])["MoS2"]
    assert chosen.info["source"] == "reference"
    with pytest.raises(UsageError, match="no embedded monolayer 'WSe3'"):
        load_structures("reference:WSe3")
