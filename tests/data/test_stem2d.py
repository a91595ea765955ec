from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.build
import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.data import BuildOptions, BuildReport, load_builder, split_of, validate_folder
from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition import from_record, record_stem

CONFIGS = ("default", "raw16", "rotated", "structures", "typical")
#: Columns that are arguments of `simulate_stem` and `record_stem`.
POSE = ("pixel_size", "rotation", "shift", "z_exponent", "psf", "mask_radius")


def build(out: Path, *sources: str, **options: Any) -> BuildReport:
    options = {"dataset": "stem2d", "sources": sources or ("reference",), "out": out, **options}
    return load_builder("stem2d").build(BuildOptions(**options))


def rows_of(folder: Path, config: str) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob(f"data/{config}/*")) for row in pq.read_table(path).to_pylist()
    ]


def pixels(value: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value["bytes"])))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build(tmp_path_factory.mktemp("stem2d") / "tiny", configs=CONFIGS, tiny=True)


def test_tiny_is_small_valid_and_has_all_splits(tiny: BuildReport) -> None:
    assert tiny.rejected == {}
    for config in CONFIGS:
        assert tiny.rows[config] == {"train": 6, "validation": 2, "test": 4}
    assert validate_folder(tiny.folder) == []
    assert sum(path.stat().st_size for path in tiny.folder.rglob("*")) < 2e6


def test_compositions_decide_the_split(tiny: BuildReport) -> None:
    for config in CONFIGS:
        for path in tiny.folder.glob(f"data/{config}/*"):
            formulas = pq.read_table(path, columns=["formula"])["formula"].to_pylist()
            assert {split_of(formula) for formula in formulas} == {path.name.split("-")[0]}


@pytest.mark.parametrize("config", ["default", "raw16", "rotated"])
def test_every_row_can_be_rendered_again(tiny: BuildReport, config: str) -> None:
    crystals = {row["id"]: row for row in rows_of(tiny.folder, "structures")}
    for row in rows_of(tiny.folder, config):
        layer = layer_of(crystals[row["material_id"]])
        frame = simulate_stem(layer, shape=(64, 64), **{name: row[name] for name in POSE})
        grey = pixels(row["image"])
        intensity = row["intensity_offset"] + row["intensity_scale"] * grey.astype(float)
        assert np.abs(intensity - frame.image).max() <= 0.51 * row["intensity_scale"] + 1e-4
        assert np.array_equal(pixels(row["mask"]) > 0, frame.mask)
        assert set(np.unique(pixels(row["mask"]))) <= {0, 255}
        for name in frame.atoms.dtype.names:
            assert np.allclose(row["atoms"][name], frame.atoms[name], atol=1e-4)


def layer_of(structure: dict[str, Any]) -> ase.Atoms:
    return ase.Atoms(
        numbers=structure["numbers"],
        positions=structure["positions"],
        cell=structure["cell"],
        pbc=(True, True, False),
    )


def test_every_recorded_image_can_be_made_again_bit_for_bit(tiny: BuildReport) -> None:
    crystals = {row["id"]: row for row in rows_of(tiny.folder, "structures")}
    rows = rows_of(tiny.folder, "typical")
    for row in rows:
        acquisition, seed = from_record(row["acquisition"])
        frame = record_stem(
            layer_of(crystals[row["material_id"]]),
            acquisition,
            seed=seed,
            shape=(64, 64),
            **{name: row[name] for name in POSE},
        )
        assert np.array_equal(pixels(row["image"]), frame.image)
        assert np.array_equal(pixels(row["mask"]) > 0, frame.mask)
        for name in frame.atoms.dtype.names:
            assert np.array_equal(row["atoms"][name], frame.atoms[name])
    assert len({from_record(row["acquisition"])[1] for row in rows}) == len(rows)
    # 500 electrons per Å² on pixels of 0.1 Å: 5 a pixel, and grey levels that tell them.
    for row in rows:
        electrons = row["intensity_offset"] + row["intensity_scale"] * pixels(row["image"]).astype(float)
        assert row["unit"] == "electrons/px"
        assert electrons.mean() == pytest.approx(5, abs=0.2)
    # The pose is that of the config without an acquisition.
    rotated = {row["id"]: row for row in rows_of(tiny.folder, "rotated")}
    assert all(row["rotation"] == rotated[row["id"]]["rotation"] for row in rows)


def test_configs_without_an_acquisition_have_no_trace_of_it(tiny: BuildReport) -> None:
    for config in ("default", "rotated"):
        assert not {"acquisition", "unit"} & set(rows_of(tiny.folder, config)[0])
    manifest = json.loads((tiny.folder / "manifest.json").read_text())
    assert "acquisition" not in manifest["configs"]["default"]["parameters"]
    assert manifest["configs"]["typical"]["parameters"]["acquisition"] == "typical"


def test_an_acquisition_of_steps(tmp_path: Path) -> None:
    steps = (
        "[{step: dose, electrons: 3000}, {step: detector, gain: 5, offset: 20}, {step: digitise, bits: 12}]"
    )
    (tmp_path / "mine.yaml").write_text(f"description: Mine\nacquisition: {steps}\n")
    report = build(tmp_path / "out", configs=[str(tmp_path / "mine.yaml")], tiny=True)
    assert validate_folder(report.folder) == []
    row = rows_of(report.folder, "mine")[0]
    counts = row["intensity_offset"] + row["intensity_scale"] * pixels(row["image"]).astype(float)
    assert pixels(row["image"]).max() == 4095
    assert counts.mean() == pytest.approx(20 + 5 * 30, rel=0.02)
    assert row["unit"] == "counts/px"
    (tmp_path / "mine.yaml").write_text("description: Mine\nacquisition: perfect\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: acquisition: there is no preset 'perfect'"):
        build(tmp_path / "other", configs=[str(tmp_path / "mine.yaml")], tiny=True)


def test_raw16_has_the_same_intensities_finer(tiny: BuildReport) -> None:
    for coarse, fine in zip(rows_of(tiny.folder, "default"), rows_of(tiny.folder, "raw16"), strict=True):
        assert pixels(fine["image"]).dtype == np.uint16
        assert pixels(fine["image"]).max() > 255
        first = coarse["intensity_offset"] + coarse["intensity_scale"] * pixels(coarse["image"]).astype(float)
        second = fine["intensity_offset"] + fine["intensity_scale"] * pixels(fine["image"]).astype(float)
        assert np.abs(first - second).max() <= 0.51 * coarse["intensity_scale"]


def test_poses_are_random_and_repeatable(tiny: BuildReport, tmp_path: Path) -> None:
    rotations = [row["rotation"] for row in rows_of(tiny.folder, "rotated")]
    assert len({round(rotation) for rotation in rotations}) > 8
    (tmp_path / "poses.yaml").write_text("description: Three poses\nrandom_pose: true\nposes: 3\n")
    options = {"configs": [str(tmp_path / "poses.yaml")], "tiny": True}
    report = build(tmp_path / "first", **options)
    assert report.rows == {"poses": {"train": 18, "validation": 6, "test": 12}}
    rows = rows_of(report.folder, "poses")
    assert len({row["id"] for row in rows}) == 36
    assert rows[0]["id"] == rows[0]["material_id"] + "@0"
    # The first pose of several is the only pose of one: adding poses changes nothing that was there.
    first = {row["material_id"]: row for row in rows if row["id"].endswith("@0")}
    assert all(first[row["id"]]["rotation"] == row["rotation"] for row in rows_of(tiny.folder, "rotated"))
    other = rows_of(build(tmp_path / "other", seed=1, **options).folder, "poses")
    assert not {row["rotation"] for row in rows} & {row["rotation"] for row in other}
    assert validate_folder(report.folder) == []


def test_rejects_are_told_apart(tmp_path: Path) -> None:
    crystals = load_structures("reference")
    folder = tmp_path / "crystals"
    folder.mkdir()
    ase.io.write(folder / "super.cif", crystals["MoS2"] * (2, 1, 1))
    ase.io.write(folder / "bulk.cif", ase.build.bulk("Cu", cubic=True))
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a here\n")
    report = build(tmp_path / "out", "reference", str(folder))
    assert report.rejected == {"duplicate": 1, "read": 1, "two-dimensional": 1}
    rejected = {row["step"]: row for row in pq.read_table(report.folder / "rejected.parquet").to_pylist()}
    assert rejected["duplicate"]["reason"] == "the same as MoS2, which is kept"
    assert "bulk" in rejected["two-dimensional"]["id"]
    assert sum(report.rows["default"].values()) == len(crystals)
    assert validate_folder(report.folder) == []
    card = (report.folder / "README.md").read_text()
    assert "(duplicate 1, read 1, two-dimensional 1)" in card
    assert str(tmp_path) not in card


def test_a_mask_that_does_not_fit_is_found(tiny: BuildReport) -> None:
    builder = load_builder("stem2d").BUILDER
    config = builder.config_model(description="as tiny", shape=(64, 64))
    table = pq.read_table(next(tiny.folder.glob("data/default/train*")))
    assert list(builder.check(table, config)) == []
    index = table.column_names.index("mask")
    spoilt = table.set_column(index, "mask", table["image"])
    problems = list(builder.check(spoilt, config))
    assert len(problems) == table.num_rows
    assert problems[0].endswith("the mask does not fit the atom table")


def test_misspelt_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("description: Mine\npixelsize: 0.2\n")
    with pytest.raises(UsageError, match=r"no key 'pixelsize'; did you mean 'pixel_size'\?"):
        build(tmp_path / "out", configs=[str(tmp_path / "mine.yaml")])
    assert not (tmp_path / "out").exists()


def test_script_door(repository: Path, tmp_path: Path) -> None:
    script = repository / "dataset_builders" / "stem2d.py"
    command = [sys.executable, str(script), "--source", "reference", "--out", str(tmp_path / "out"), "--tiny"]
    result = subprocess.run([*command, "--num-proc", "2"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "train 6, validation 2, test 4 rows" in result.stdout


def test_all_real_materials_are_accounted_for(shared_data: Path, tmp_path: Path) -> None:
    store = shared_data / "structures" / "jarvis"
    report = build(tmp_path / "out", "jarvis:twod_matpd", store_dir=store, configs=["structures"], limit=300)
    assert sum(report.rows["structures"].values()) + sum(report.rejected.values()) == 300
    assert validate_folder(report.folder) == []
