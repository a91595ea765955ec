from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atomvision_hub.data import BuildOptions, BuildReport, load_builder, validate_folder
from atomvision_hub.errors import MissingExtraError, UsageError
from atomvision_hub.microscopy import write_demo_file
from atomvision_hub.microscopy.metadata import Metadata
from atomvision_hub.microscopy.view import decode_raw, to_view

CONFIGS = ("default", "calibrated")


def build(out: Path, *sources: Path, **options: Any) -> BuildReport:
    options = {"dataset": "experimental_tem", "sources": [str(s) for s in sources], "out": out, **options}
    return load_builder("experimental_tem").build(BuildOptions(**options))


def rows_of(folder: Path, config: str = "default") -> dict[str, dict[str, Any]]:
    paths = sorted(folder.glob(f"data/{config}/*"))
    return {row["id"]: row for path in paths for row in pq.read_table(path).to_pylist()}


def rejected(folder: Path) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(folder / "rejected.parquet").to_pylist()
    return {row["id"]: (row["step"], row["reason"]) for row in rows}


def lattice(seed: int, dtype: str = "uint16") -> np.ndarray:
    """Image of a lattice with noise, different for every seed."""
    rows, columns = np.mgrid[:48, :64]
    waves = 2 + np.sin(rows / (2 + seed % 5)) + np.cos(columns / 3)
    return np.random.default_rng(seed).poisson(200 * waves).astype(dtype)


@pytest.fixture(scope="module")
def microscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people keep it: several specimens, sidecars, a plain picture, copies, strangers."""
    folder = tmp_path_factory.mktemp("images") / "microscope"
    for number in range(12):
        specimen = f"grid-{number // 3}"
        place = folder / "session 1" / f"Fe3O4 (no. {number}).tif"
        values = {"sample.name": specimen, "acquisition.mode": "tem", "acquisition.detector": "OneView"}
        write_demo_file(place, lattice(number), (0.25, 0.25), values)
    (folder / "session 1" / "metadata.yaml").write_text(
        "sample: {formula: Fe3O4}\npeople: {licence: CC-BY-4.0, operator_orcid: 0000-0002-1825-0097}\n"
    )
    loose = folder / "loose"
    write_demo_file(loose / "frame_1.tif", lattice(50, "float32"), (0.5, 0.4))
    (folder / "Rh.png").parent.mkdir(exist_ok=True)
    Image.fromarray((lattice(60) // 8).astype(np.uint8)).save(folder / "Rh.png")
    Image.fromarray((lattice(61) // 8).astype(np.uint8)).save(folder / "SnS.png")
    (folder / "SnS.png.yaml").write_text("acquisition:\n  pixel_size: [0.3, 0.3]\nsample: {formula: SnS}\n")
    shutil.copy(loose / "frame_1.tif", loose / "copy.tif")
    write_demo_file(loose / "bad.tif", lattice(70), (0.2, 0.2))
    (loose / "bad.tif.yaml").write_text("sample:\n  formula: Xx2\n")
    (loose / "notes.txt").write_text("Monday: astigmatism again")
    (loose / "broken.tif").write_bytes((loose / "frame_1.tif").read_bytes()[:-500])
    (folder / ".hidden.tif").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def built(microscope: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build(tmp_path_factory.mktemp("experimental") / "out", microscope, configs=CONFIGS)


def test_valid_and_complete(built: BuildReport) -> None:
    assert validate_folder(built.folder) == []
    assert len(rows_of(built.folder)) == 12 + 1 + 2
    assert set(rows_of(built.folder)) - set(rows_of(built.folder, "calibrated")) == {"Rh.png"}
    card = (built.folder / "README.md").read_text()
    assert "by a hash of the specimen" in card
    assert "| Fe3O4 |" in card
    assert "| CC-BY-4.0 |" in card


def test_rejects_have_their_reasons(built: BuildReport) -> None:
    found = rejected(built.folder)
    assert {name: step for name, (step, _) in found.items()} == {
        "loose-bad.tif": "metadata",
        "loose-broken.tif": "read",
        "loose-frame_1.tif": "duplicate",
        "loose-notes.txt": "format",
        "Rh.png": "calibration",
    }
    assert found["loose-bad.tif"][1].startswith(
        "bad.tif.yaml:2: sample.formula ('Xx2') is no chemical formula"
    )
    assert found["Rh.png"][1] == (
        "Rh.png has no real-space image with a pixel size; write it into a YAML beside it"
    )
    assert "loose-copy.tif, which is kept" in found["loose-frame_1.tif"][1]


def test_raw_and_view(built: BuildReport) -> None:
    rows = rows_of(built.folder)
    for number in range(12):
        row = rows[f"session_1-Fe3O4_no._{number}_.tif"]
        raw = decode_raw(row["raw"])
        assert np.array_equal(raw, lattice(number))
        assert (row["dtype"], row["shape"]) == ("uint16", [48, 64])
        view = to_view(raw)
        assert (row["view_low"], row["view_high"], row["clipped"]) == (view.low, view.high, view.clipped)
    assert decode_raw(rows["loose-copy.tif"]["raw"]).dtype == np.float32


def test_calibration_and_metadata(built: BuildReport) -> None:
    rows = rows_of(built.folder)
    iron = rows["session_1-Fe3O4_no._0_.tif"]
    assert (iron["formula"], iron["mode"], iron["detector"]) == ("Fe3O4", "tem", "OneView")
    assert (iron["licence"], iron["operator_orcid"]) == ("CC-BY-4.0", "0000-0002-1825-0097")
    assert iron["pixel_size"] == pytest.approx([0.25, 0.25])
    assert iron["field_of_view"] == pytest.approx([12.0, 16.0])
    metadata = Metadata.model_validate_json(iron["metadata"])
    assert metadata.sources["sample.formula"] == "folder: metadata.yaml"
    assert metadata.sources["sample.name"] == "sidecar: Fe3O4 (no. 0).tif.yaml"
    assert metadata.provenance.file == "Fe3O4 (no. 0).tif"
    assert iron["calibration_source"] == "reader: pixel size"
    uneven = rows["loose-copy.tif"]
    assert uneven["pixel_size"] == pytest.approx([0.5, 0.4])
    assert uneven["notes"] == ["rows and columns have different pixel sizes"]
    by_hand = rows["SnS.png"]
    assert (by_hand["calibrated"], by_hand["calibration_source"]) == (True, "sidecar: SnS.png.yaml")
    assert (by_hand["pixel_size"], by_hand["notes"]) == ([0.3, 0.3], [])
    unknown = rows["Rh.png"]
    assert (unknown["calibrated"], unknown["pixel_size"], unknown["field_of_view"]) == (False, None, None)
    assert unknown["notes"] == ["not calibrated: the file tells no pixel size"]
    # No folder of this machine is in any text.
    assert not any(
        str(built.folder.parent.parent) in str(value) for row in rows.values() for value in row.values()
    )


def test_specimens_keep_together(built: BuildReport) -> None:
    where: dict[str, set[str]] = {}
    for path in built.folder.glob("data/default/*"):
        for specimen in pq.read_table(path, columns=["specimen"])["specimen"].to_pylist():
            where.setdefault(specimen, set()).add(path.name.split("-")[0])
    assert set(where) == {"grid-0", "grid-1", "grid-2", "grid-3", "loose", "Rh", "SnS"}
    assert all(len(splits) == 1 for splits in where.values())


def test_same_bytes_with_two_workers(built: BuildReport, microscope: Path, tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("description: small shards\nitems_per_shard: 4\n")
    options = {"configs": [str(tmp_path / "default.yaml")]}
    one = build(tmp_path / "one", microscope, **options)
    two = build(tmp_path / "two", microscope, num_proc=2, **options)
    assert one.shards_written > 2
    for path in sorted(p for p in one.folder.rglob("*") if p.is_file() and ".build" not in p.parts):
        assert path.read_bytes() == (two.folder / path.relative_to(one.folder)).read_bytes(), path.name


def test_sidecars_are_part_of_the_source(microscope: Path, tmp_path: Path) -> None:
    """A changed YAML is another input: an old folder is not gone on with."""
    folder = shutil.copytree(microscope, tmp_path / "images")
    first = json.loads((build(tmp_path / "one", folder).folder / "manifest.json").read_text())
    (folder / "SnS.png.yaml").write_text("acquisition:\n  pixel_size: [0.31, 0.31]\n")
    second = json.loads((build(tmp_path / "two", folder).folder / "manifest.json").read_text())
    assert first["sources"][0]["version"] != second["sources"][0]["version"]


def test_stacks(tmp_path: Path) -> None:
    import tifffile

    stack = np.stack([lattice(seed) for seed in range(5)])
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, stack, imagej=True, resolution=(40, 40), metadata={"unit": "nm", "axes": "TYX"})
    (tmp_path / "few.yaml").write_text("description: Two frames\nmax_frames: 2\n")
    report = build(tmp_path / "out", path, configs=["default", str(tmp_path / "few.yaml")])
    rows = rows_of(report.folder)
    assert list(rows) == [f"movie.tif@{n}" for n in range(5)]
    assert [(row["frame"], row["frames"], row["index"]) for row in rows.values()] == [
        (n, 5, n) for n in range(5)
    ]
    few = rows_of(report.folder, "few")
    assert list(few) == ["movie.tif@0", "movie.tif@1"]
    assert few["movie.tif@1"]["notes"] == ["the first 2 of 5 frames of its stack are here"]


def test_spoilt_rows_are_found(built: BuildReport) -> None:
    builder = load_builder("experimental_tem").BUILDER
    config = builder.config_model(description="as default")
    table = pq.read_table(next(built.folder.glob("data/default/train*")))
    assert list(builder.check(table, config)) == []
    index = table.column_names.index("raw")
    other = table.set_column(
        index, "raw", table["raw"].combine_chunks().take([*list(range(1, len(table))), 0])
    )
    assert any("the image is not the view of its raw" in problem for problem in builder.check(other, config))
    index = table.column_names.index("metadata")
    empty = table.set_column(index, "metadata", [["{}x"] * len(table)])
    assert "its metadata do not follow the schema" in next(builder.check(empty, config))


def test_several_sources_with_equal_names(tmp_path: Path) -> None:
    for number, folder in enumerate(("monday", "tuesday")):
        write_demo_file(tmp_path / folder / "scan.tif", lattice(number), (0.1, 0.1))
    rows = rows_of(build(tmp_path / "out", tmp_path / "monday", tmp_path / "tuesday").folder)
    assert set(rows) == {"scan.tif", "scan.tif+2"}


def test_wrong_source(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="nowhere: no such file or folder; give a folder of instrument files"
    ):
        build(tmp_path / "out", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nothing to build from"):
        build(tmp_path / "out", tmp_path / "empty")


def test_missing_extra_stops_the_build_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", None)
    (tmp_path / "a.dm3").write_bytes(b"\0\0\0\x03" + bytes(64))
    with pytest.raises(MissingExtraError, match=r"^a\.dm3 needs rosettasciio; pip install 'atomvision-hub\["):
        build(tmp_path / "out", tmp_path)


def test_emi_takes_its_ser_files_along(tmp_path: Path) -> None:
    place = load_builder("experimental_tem").Files
    header = b"II\x97\x01\x20\x02" + struct.pack("<6i", 0x4122, 0x4142, 0, 0, 60, 1)
    for name, content in {"a.emi": b"JK", "a_1.ser": header, "a_2.ser": header, "b_1.ser": header}.items():
        (tmp_path / name).write_bytes(content)
    assert set(place([str(tmp_path)]).places) == {"a.emi", "b_1.ser"}


def test_command(repository: Path, microscope: Path, tmp_path: Path) -> None:
    script = repository / "dataset_builders" / "experimental_tem.py"
    command = [
        sys.executable,
        str(script),
        "--source",
        str(microscope),
        "--out",
        str(tmp_path / "out"),
        "--tiny",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stderr
    assert validate_folder(tmp_path / "out") == []


def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("rsciio")
    pytest.importorskip("h5py")
    sources = [shared_data / "microscopy", shared_data / "stm" / "instrument"]
    report = build(tmp_path / "out", *sources)
    assert validate_folder(report.folder) == []
    assert sum(report.rows["default"].values()) == 34
    found = rejected(report.folder)
    assert found["08_carbon.dm3"] == ("content", "08_carbon.dm3 holds a spectrum (EELS), not an image")
    rows = rows_of(report.folder)
    gold = rows["Au_nanoparticle_HAADF.emd"]
    assert (gold["mode"], gold["voltage"], gold["instrument"]) == ("stem", 300.0, "Titan")
    assert gold["pixel_size"] == pytest.approx([0.07498401, 0.07498401])
    scan = rows["STM_nanonis_generic_4_5.sxm@0"]
    assert (scan["mode"], scan["bias"], scan["setpoint"]) == ("stm", 0.05, 0.5)
    pattern = rows["test_diffraction_pattern.dm3"]
    assert (pattern["mode"], pattern["pixel_size"], pattern["calibrated"]) == ("diffraction", None, True)
    assert pattern["reciprocal_pixel_size"] == pytest.approx([0.01744329, 0.01744329])
    assert rows["Acquisition_18.emd"]["specimen"] == "STO laser cut"


def test_names_that_only_a_file_tells_are_dropped() -> None:
    """Nobody asked the operator; who writes a name beside an image wants it there."""
    script: Any = load_builder("experimental_tem")
    without_operator = script.without_operator
    values = {"people.operator": "Jane Doe", "sample.formula": "Fe3O4"}
    from_file = Metadata.of(
        values, {"people.operator": "file: user.name", "sample.formula": "sidecar: a.yaml"}, ("odd",)
    )
    dropped = without_operator(from_file)
    assert dropped.people.operator is None
    assert dropped.sample.formula == "Fe3O4"
    assert dropped.notes == ("odd",)
    written = Metadata.of(values, dict.fromkeys(values, "sidecar: a.yaml"))
    assert without_operator(written) is written
