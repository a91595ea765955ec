"""The dataset stm2d: from shipped volumes, volumes of other codes, published images and the surrogate."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from ase.calculators.vasp import VaspChargeDensity
from PIL import Image

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.data import BuildOptions, BuildReport, load_builder, validate_folder
from atomvision_hub.data.finish import read_rejections
from atomvision_hub.errors import AtomVisionError, MissingExtraError, UsageError
from atomvision_hub.simulation import gpaw_engine, jarvis_stm, stm_library
from atomvision_hub.simulation.stm import simulate_stm
from atomvision_hub.simulation.stm.record import MODES
from atomvision_hub.simulation.stm_recipe import Recipe
from atomvision_hub.structures import flat_layer

SHIPPED = ("graphene", "h-BN", "MoS2", "NbSe2", "FeTe", "black-P", "SnS", "gray-As")


def build(out: Path, *sources: Path | str, **options: Any) -> BuildReport:
    settings = {"dataset": "stm2d", "sources": tuple(map(str, sources)), "out": out, **options}
    return load_builder("stm2d").build(BuildOptions(**{"cache_dir": out.parent / "cache", **settings}))


def rows_of(folder: Path, config: str) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob(f"data/{config}/*")) for row in pq.read_table(path).to_pylist()
    ]


def pixels(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))


def values(row: dict[str, Any]) -> np.ndarray:
    return row["intensity_offset"] + row["intensity_scale"] * pixels(row).astype(float)


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some reference crystals as files: found by their atoms, whatever they are called."""
    folder = tmp_path_factory.mktemp("stm2d") / "crystals"
    folder.mkdir()
    reference = load_structures("reference")
    for index, name in enumerate(SHIPPED):
        ase.io.write(folder / f"crystal-{index}.vasp", reference[name], format="vasp", direct=True)
    return folder


@pytest.fixture(scope="module")
def tiny(crystals: Path) -> BuildReport:
    return build(crystals.parent / "tiny", crystals, configs=("default", "raw16", "rotated"), tiny=True)


def test_default_has_both_biases_and_modes_of_computed_states(tiny: BuildReport) -> None:
    assert tiny.rejected == {}
    assert validate_folder(tiny.folder) == []
    rows = rows_of(tiny.folder, "default")
    assert len(rows) == 4 * len(SHIPPED)
    for material in {row["material_id"] for row in rows}:
        kinds = {(row["bias"], row["mode"]) for row in rows if row["material_id"] == material}
        assert kinds == {(bias, mode) for bias in (0.5, -0.5) for mode in (0, 1)}
    for row in rows:
        assert row["engine"] == "gpaw"
        assert not row["surrogate"]
        assert row["unit"] == ("Å" if MODES[row["mode"]] == "constant_current" else "e/Å^3")
        settings = json.loads(row["engine_parameters"])
        assert settings["spin_treatment"] == "paired"
        assert settings["cutoff"] == 350.0
        assert row["window_high"] - row["window_low"] == pytest.approx(0.5)
        assert (row["window_low"] >= 0) == (row["bias"] > 0)
        gapped = settings["gap"] > 0.1
        assert (min(abs(row["window_low"]), abs(row["window_high"])) > 0.02) == gapped


def test_rows_can_be_made_again_from_what_they_tell(tiny: BuildReport, crystals: Path) -> None:
    structures = load_structures(crystals)
    for row in rows_of(tiny.folder, "rotated")[::3]:
        layer = flat_layer(structures[row["material_id"]])
        density = stm_library.local_densities(layer, (row["bias"],), row["bias_reference"])[0]
        frame = simulate_stm(
            density,
            mode=MODES[row["mode"]],
            height=row["height"],
            shape=(64, 64),
            pixel_size=tuple(row["pixel_size"]),
            rotation=row["rotation"],
            shift=tuple(row["shift"]),
        )
        assert np.abs(values(row) - frame.image).max() <= 0.51 * row["intensity_scale"] + 1e-9


def test_sixteen_bits_say_the_same_more_finely(tiny: BuildReport) -> None:
    for coarse, fine in zip(rows_of(tiny.folder, "default"), rows_of(tiny.folder, "raw16"), strict=True):
        assert (coarse["id"], pixels(fine).dtype) == (fine["id"], np.uint16)
        assert np.abs(values(coarse) - values(fine)).max() <= 0.51 * coarse["intensity_scale"]


def test_stm_and_stem_of_a_crystal_lie_on_each_other(tiny: BuildReport, crystals: Path) -> None:
    structures = load_structures(crystals)
    row = next(
        row for row in rows_of(tiny.folder, "default") if row["formula"] == "FeTe" and row["mode"] == 0
    )
    stem = simulate_stem(flat_layer(structures[row["material_id"]]), shape=(64, 64), pixel_size=0.1)
    top = stem.atoms["number"] == 52
    high = top & (stem.atoms["z"] > np.median(stem.atoms["z"]))
    inside = high & (np.abs(stem.atoms["x"] - 31.5) < 28) & (np.abs(stem.atoms["y"] - 31.5) < 28)
    image = values(row)
    at_atoms = [
        image[round(y), round(x)] for x, y in zip(*(stem.atoms[c][inside] for c in "xy"), strict=True)
    ]
    assert at_atoms
    assert min(at_atoms) > 0.9 * image.max()


def test_windows_from_the_fermi_level_leave_insulators_out(crystals: Path, tmp_path: Path) -> None:
    report = build(tmp_path / "fermi", crystals, configs=("fermi",), tiny=True)
    rows = rows_of(report.folder, "fermi")
    assert {row["bias_reference"] for row in rows} == {"fermi"}
    assert all(0.0 in (row["window_low"], row["window_high"]) for row in rows)
    assert {"C", "NbSe2", "FeTe"} <= {row["formula"] for row in rows}
    reasons = {entry.reason for entry in read_rejections(report.folder)}
    assert any("no states within the window" in reason for reason in reasons)
    assert "BN" not in {row["formula"] for row in rows}


def test_heights_that_no_volume_reaches_are_rejected(crystals: Path, tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text("description: Far away\nheight: 6.5\nmodes: [constant_height]\n")
    with pytest.raises(AtomVisionError, match=rf"all inputs were rejected \(image {len(SHIPPED)}\)"):
        build(tmp_path / "far", crystals, configs=(str(tmp_path / "far.yaml"),), tiny=True)
    assert "height 6.5 Å is outside" in read_rejections(tmp_path / "far")[0].reason


def test_what_is_not_shipped_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise MissingExtraError("real STM images need GPAW: pip install 'atomvision-hub[stm]'")

    monkeypatch.setattr(gpaw_engine, "gpaw_version", missing)
    folder = tmp_path / "crystals"
    folder.mkdir()
    stretched = load_structures("reference")["graphene"]
    ase.io.write(folder / "graphene.vasp", stretched, format="vasp", direct=True)
    stretched.set_cell(stretched.cell.array * [[1.02], [1.02], [1]], scale_atoms=True)
    ase.io.write(folder / "stretched.vasp", stretched, format="vasp", direct=True)
    report = build(tmp_path / "out", folder, tiny=True)
    assert report.rejected == {"engine": 1}
    [rejection] = read_rejections(report.folder)
    assert rejection.id == "stretched"
    assert "atomvision-hub[stm]" in rejection.reason


@pytest.mark.slow
def test_what_is_computed_once_is_found_again(crystals: Path, tmp_path: Path) -> None:
    pytest.importorskip("gpaw", reason="GPAW is not installed: CC=g++ pip install 'atomvision-hub[stm]'")
    (tmp_path / "coarse.yaml").write_text(
        "description: A coarse calculation\n"
        "recipe: {cutoff: 250, k_length: 7, vacuum: 6, fewest_states: 0, empty_bands: 4}\n"
    )
    options = {"configs": (str(tmp_path / "coarse.yaml"),), "tiny": True}
    graphene = crystals / "crystal-0.vasp"
    first = build(tmp_path / "first", graphene, **options)
    assert first.rejected == {}
    [volume] = (tmp_path / "cache" / "stm").glob("C-*.npz")
    written = volume.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpaw_engine, "state_density", None)  # would fail if it were called
        again = build(tmp_path / "again", graphene, **options)
    assert volume.stat().st_mtime_ns == written
    for path in sorted(first.folder.glob("data/**/*.parquet")):
        assert path.read_bytes() == (again.folder / path.relative_to(first.folder)).read_bytes()
    [settings] = {row["engine_parameters"] for row in rows_of(first.folder, "coarse")}
    assert json.loads(settings)["k_points"] == [3, 3]


def test_the_bytes_do_not_depend_on_the_number_of_workers(tiny: BuildReport, crystals: Path) -> None:
    names = ("default", "raw16", "rotated")
    out = tiny.folder.parent / "two"
    two = build(out, crystals, configs=names, tiny=True, num_proc=2)
    for path in sorted(tiny.folder.glob("data/**/*.parquet")):
        assert path.read_bytes() == (two.folder / path.relative_to(tiny.folder)).read_bytes()


def test_surrogates_are_marked_everywhere_and_never_mixed(crystals: Path, tmp_path: Path) -> None:
    report = build(tmp_path / "shapes", crystals, configs=("surrogate",), tiny=True)
    rows = rows_of(report.folder, "surrogate")
    assert len(rows) == 2 * len(SHIPPED)
    for row in rows:
        assert row["surrogate"]
        assert row["engine"] == "surrogate"
        assert row["bias"] is row["window_low"] is row["bias_reference"] is None
        assert "surrogate" in row["id"]
    card = (report.folder / "README.md").read_text()
    assert "`surrogate` is a geometric surrogate**" in card
    assert load_builder("stm2d").BUILDER.caption(rows[0]).startswith("SURROGATE")
    both = build(tmp_path / "both", crystals, configs=("default", "surrogate"), tiny=True)
    assert not any(row["surrogate"] for row in rows_of(both.folder, "default"))
    assert validate_folder(both.folder) == []


def test_the_default_card_has_no_surrogate(tiny: BuildReport) -> None:
    card = (tiny.folder / "README.md").read_text()
    assert "geometric surrogate" not in card
    assert "Tersoff" in card
    assert "| gpaw |" in card


def write_parchg(path: Path, atoms: ase.Atoms) -> None:
    """Write a decaying density above every atom in VASP's format."""
    shape = (12, 12, 60)
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    grid = np.zeros(shape)
    for position in atoms.get_scaled_positions():
        apart = points - position
        apart -= np.rint(apart)
        grid += np.exp(-2.0 * np.linalg.norm(apart @ atoms.cell.array, axis=-1))
    file = VaspChargeDensity(None)
    file.atoms, file.chg = [atoms], [grid]
    file.write(str(path), format="chgcar")


def test_volumes_of_other_codes_with_their_notes(tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    (folder / "no-bias").mkdir(parents=True)
    atoms = load_structures("reference")["graphene"]
    atoms.info = {}
    atoms.pbc = True
    for name in ("PARCHG.up", "PARCHG.down", "no-bias/PARCHG", "PARCHG.wrong"):
        write_parchg(folder / name, atoms)
    (folder / "PARCHG.up.yaml").write_text("bias: 0.3\nwindow: [0.0, 0.3]\nengine: VASP 6.4\n")
    (folder / "PARCHG.down.yaml").write_text("bias: -0.2\nbias_reference: band_edge\n")
    (folder / "PARCHG.wrong.yaml").write_text("bias: much\n")
    (folder / "PARCHG.cut").write_text("graphene\n1.0\n")
    report = build(tmp_path / "out", folder, configs=("volumes",))
    assert report.rejected == {"read": 1, "volume": 2}
    reasons = {entry.id: entry.reason for entry in read_rejections(report.folder)}
    assert "write 'bias: 0.5' (V) into PARCHG.yaml beside it" in reasons["no-bias-PARCHG"]
    assert "PARCHG.wrong.yaml is not valid" in reasons["PARCHG.wrong"]
    rows = rows_of(report.folder, "volumes")
    assert {(row["source_id"], row["bias"], row["bias_reference"], row["engine"]) for row in rows} == {
        ("PARCHG.up", 0.3, "fermi", "VASP 6.4"),
        ("PARCHG.down", -0.2, "band_edge", "volume"),
    }
    assert validate_folder(report.folder) == []
    (tmp_path / "biased.yaml").write_text("description: All at 1 V\ncontent: volumes\nbias: 1.0\n")
    again = build(tmp_path / "again", folder / "no-bias", configs=(str(tmp_path / "biased.yaml"),), limit=1)
    assert {row["bias"] for row in rows_of(again.folder, "biased")} == {1.0}


def test_published_images_stay_as_they_are(tmp_path: Path) -> None:
    images = {}
    archive, lattices = (tmp_path / name for name in jarvis_stm.FILES)
    with zipfile.ZipFile(archive, "w") as opened:
        for index in range(12):
            for sign in ("pos", "neg"):
                stream = io.BytesIO()
                noise = np.random.default_rng(index).integers(0, 255, (8, 9, 3), dtype=np.uint8)
                Image.fromarray(noise).save(stream, "JPEG")
                images[f"JVASP-{index}-{'positive' if sign == 'pos' else 'negative'}"] = stream.getvalue()
                opened.writestr(f"STM/JVASP-{index}_{sign}.jpg", stream.getvalue())
    lattices.write_text(json.dumps({f"JVASP-{index}": "hexagonal" for index in range(11)}))
    report = build(tmp_path / "out", "jarvis:stm", configs=("published",), store_dir=tmp_path)
    rows = rows_of(report.folder, "published")
    assert {row["id"]: row["image"]["bytes"] for row in rows} == images
    assert [row["lattice_published"] for row in rows if row["material_id"] == "JVASP-11"] == [None, None]
    assert "published JARVIS-STM images unchanged" in (report.folder / "README.md").read_text()
    assert validate_folder(report.folder) == []


def test_sources_and_configs_must_fit(crystals: Path, tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(UsageError, match="this config is for volumes, the source gives crystals"):
        build(tmp_path / "a", crystals, configs=("volumes",))
    cubes = shared_data / "stm" / "volumes"
    with pytest.raises(UsageError, match="the source gives volumes: use --config volumes"):
        build(tmp_path / "b", cubes)
    with pytest.raises(UsageError, match="sources of several kinds"):
        build(tmp_path / "c", crystals, cubes)


def test_real_volumes_of_another_code(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("description: PySCF\ncontent: volumes\nbias: -0.5\nheight: 1.5\n")
    report = build(tmp_path / "out", shared_data / "stm" / "volumes", configs=(str(tmp_path / "v.yaml"),))
    assert {row["formula"] for row in rows_of(report.folder, "v")} == {"C", "BN"}
    assert validate_folder(report.folder) == []


def test_the_configs_show_the_recipe_that_is_shipped() -> None:
    builder = load_builder("stm2d").BUILDER
    for path in sorted((builder.script.parent / "configs" / "stm2d").glob("*.yaml")):
        config = builder.config_model.model_validate(yaml.safe_load(path.read_text()))
        assert config.recipe == Recipe()
