"""The configs of stem2d that are about crystals: defects, and random ones."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atomvision_hub import simulate_stem
from atomvision_hub.data import BuildOptions, BuildReport, load_builder, validate_folder
from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition import from_record, record_stem
from atomvision_hub.structures.defects import KINDS, VACANCY, apply_defects
from atomvision_hub.structures.record import LATTICES

POSE = ("pixel_size", "rotation", "shift", "z_exponent", "psf", "mask_radius")
MATERIAL = ("lattice", "lattice_projected", "formula", "prototype", "a", "b", "gamma")


def build(out: Path, source: str = "reference", **options: Any) -> BuildReport:
    return load_builder("stem2d").build(BuildOptions(dataset="stem2d", sources=[source], out=out, **options))


def rows_of(folder: Path, config: str) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob(f"data/{config}/*")) for row in pq.read_table(path).to_pylist()
    ]


def pixels(value: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value["bytes"])))


def defective(row: dict[str, Any], structure: dict[str, Any]) -> tuple[ase.Atoms, np.ndarray]:
    """The crystal of a row, from what the dataset holds, and the sites of its atoms."""
    atoms = ase.Atoms(
        numbers=structure["numbers"],
        positions=structure["positions"],
        cell=structure["cell"],
        pbc=(True, True, False),
    )
    vacant = np.array(row["defects"]["site"], dtype=int)[np.array(row["defects"]["after"]) == 0]
    sites = np.delete(np.arange(len(atoms) * math.prod(row["supercell"])), vacant)
    return apply_defects(atoms, row["supercell"], row["defects"]), sites


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    folder = tmp_path_factory.mktemp("variety")
    lines = "random_pose: true\nposes: 2\ndefects: {vacancies: [0.05, 0.1], antisites: [0.02, 0.04]}\n"
    steps = "[{step: dose, electrons: 2000}, {step: drift, fraction: 0.05}, {step: digitise, bits: 8}]"
    (folder / "noisy.yaml").write_text(f"description: Defects, recorded\n{lines}acquisition: {steps}\n")
    configs = ["defects", "structures", "rotated", str(folder / "noisy.yaml")]
    return build(folder / "tiny", configs=configs, tiny=True)


def test_a_folder_with_defects_is_valid(tiny: BuildReport) -> None:
    assert tiny.rejected == {}
    assert tiny.rows["defects"] == {"train": 6, "validation": 2, "test": 4}
    assert tiny.rows["noisy"] == {"train": 12, "validation": 4, "test": 8}
    assert validate_folder(tiny.folder) == []
    assert sum(path.stat().st_size for path in tiny.folder.rglob("*")) < 2e6
    card = (tiny.folder / "README.md").read_text()
    assert "defects.kind" in card
    assert ", ".join(KINDS) in card


def test_labels_and_pose_are_those_of_the_pristine_crystal(tiny: BuildReport) -> None:
    pristine = {row["id"]: row for row in rows_of(tiny.folder, "rotated")}
    for row in rows_of(tiny.folder, "defects"):
        assert {name: row[name] for name in MATERIAL} == {
            name: pristine[row["id"]][name] for name in MATERIAL
        }
        assert (row["rotation"], row["shift"]) == (
            pristine[row["id"]]["rotation"],
            pristine[row["id"]]["shift"],
        )


def test_every_row_with_defects_can_be_rendered_again(tiny: BuildReport) -> None:
    crystals = {row["id"]: row for row in rows_of(tiny.folder, "structures")}
    total = 0
    for row in rows_of(tiny.folder, "defects"):
        atoms, sites = defective(row, crystals[row["material_id"]])
        frame = simulate_stem(atoms, shape=(64, 64), **{name: row[name] for name in POSE})
        grey = pixels(row["image"]).astype(float)
        intensity = row["intensity_offset"] + row["intensity_scale"] * grey
        assert np.abs(intensity - frame.image).max() <= 0.51 * row["intensity_scale"] + 1e-4
        assert np.array_equal(pixels(row["mask"]) > 0, frame.mask)
        for name in ("x", "y", "z", "number", "visible"):
            assert np.allclose(row["atoms"][name], frame.atoms[name], atol=1e-4)
        assert row["atoms"]["index"] == sites[frame.atoms["index"]].tolist()
        total += sum(row["defects"]["visible"])
    assert total > 0


def test_recorded_rows_with_defects_can_be_made_again(tiny: BuildReport) -> None:
    crystals = {row["id"]: row for row in rows_of(tiny.folder, "structures")}
    rows = rows_of(tiny.folder, "noisy")
    for row in rows:
        atoms, _ = defective(row, crystals[row["material_id"]])
        acquisition, seed = from_record(row["acquisition"])
        options = {name: row[name] for name in POSE}
        frame = record_stem(atoms, acquisition, seed=seed, shape=(64, 64), **options)
        assert np.array_equal(pixels(row["image"]), frame.image)
        assert np.array_equal(pixels(row["mask"]) > 0, frame.mask)
    # The poses of one material have different defects.
    first, second = (
        next(row["defects"]["site"] for row in rows if row["id"].endswith(end)) for end in ("@0", "@1")
    )
    assert first != second


def test_defects_lie_where_the_image_shows_them(tiny: BuildReport) -> None:
    """Also in a drifting scan: a replaced atom is in the table of atoms, a vacant site is not."""
    for config in ("defects", "noisy"):
        for row in rows_of(tiny.folder, config):
            table, atoms = row["defects"], row["atoms"]
            place = dict(zip(atoms["index"], zip(atoms["x"], atoms["y"], strict=True), strict=True))
            for k, site in enumerate(table["site"]):
                if table["kind"][k] == VACANCY:
                    assert site not in place
                elif table["visible"][k]:
                    assert place[site] == pytest.approx((table["x"][k], table["y"][k]), abs=1e-3)
                inside = -0.5 <= table["x"][k] < 63.5 and -0.5 <= table["y"][k] < 63.5
                assert inside == table["visible"][k]


def test_no_defect_is_seen_twice(tmp_path: Path) -> None:
    """At full size the supercell is larger than the view: each site is there once."""
    report = build(tmp_path / "out", configs=["defects"], limit=4)
    for row in rows_of(report.folder, "defects"):
        assert len(set(row["atoms"]["index"])) == len(row["atoms"]["index"])
        assert len(set(row["defects"]["site"])) == len(row["defects"]["site"])
        # 1 to 5 % vacancies, up to 3 % and 2 % of the others.
        share = sum(row["defects"]["visible"]) / sum(row["atoms"]["visible"])
        assert 0 < share < 0.2
    first = build(tmp_path / "again", configs=["defects"], limit=4)
    assert rows_of(first.folder, "defects") == rows_of(report.folder, "defects")


def test_a_defect_that_does_not_fit_is_found(tiny: BuildReport) -> None:
    builder = load_builder("stem2d").BUILDER
    config = builder.config_model(description="as tiny", shape=(64, 64), defects={"vacancies": [0.01, 0.05]})
    table = pq.read_table(next(tiny.folder.glob("data/defects/train*")))
    assert list(builder.check(table, config)) == []
    rows = table.to_pylist()
    row = next(row for row in rows if True in row["defects"]["visible"])
    row["defects"]["after"][row["defects"]["visible"].index(True)] = 99
    problems = list(builder.check(table.from_pylist(rows, schema=table.schema), config))
    assert len(problems) == 1
    assert "does not fit the atom table" in problems[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "defects: {vacancies: [0.1, 0.9]}",
            r"defects.vacancies.1: Input should be less than or equal to 0.3",
        ),
        ("defects: {holes: [0, 0.1]}", "there is no key 'defects.holes'"),
        ("defects: {vacancies: 0.1}", "defects.vacancies: Input should be a valid tuple"),
    ],
)
def test_wrong_defects(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"description: Mine\n{lines}\n")
    with pytest.raises(UsageError, match=message):
        build(tmp_path / "out", configs=[str(tmp_path / "mine.yaml")], tiny=True)


def test_random_crystals_make_a_dataset(tmp_path: Path) -> None:
    pytest.importorskip("pyxtal", reason="the extra [synthetic] is not installed")
    report = build(tmp_path / "out", "synthetic:40,seed=4", configs=["synthetic"])
    assert report.rejected == {}
    assert validate_folder(report.folder) == []
    rows = rows_of(report.folder, "synthetic")
    assert sorted(row["material_id"] for row in rows) == sorted(f"synth-4-{n}" for n in range(40))
    for row in rows:
        assert row["lattice_projected"] == int(row["material_id"].split("-")[-1]) % len(LATTICES)
    card = (report.folder / "README.md").read_text()
    assert "random crystals of the 80 layer groups" in card
    # Any crystal is what it is in a build of fewer.
    few = {
        row["id"]: row
        for row in rows_of(
            build(tmp_path / "few", "synthetic:9,seed=4", configs=["synthetic"]).folder, "synthetic"
        )
    }
    for row in rows:
        if row["id"] in few:
            assert row == few[row["id"]]
    assert len(few) == 9
