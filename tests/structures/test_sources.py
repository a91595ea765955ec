"""Sources: lazy, joined, with provenance; one clear line for every mistake."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import ase
import pytest
from ase.build import graphene, mx2
from ase.io import write

from atomvision_hub.errors import AtomVisionError, CrystalError, NetworkNeededError, UsageError
from atomvision_hub.structures import check_crystal, flat_layer, load_structures

JARVIS_FILE = "d2-12-12-2022.json.zip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Structure files of several formats, one of them broken, among other files."""
    root = tmp_path / "crystals"
    (root / "sub").mkdir(parents=True)
    sheet, layer = graphene(vacuum=8), mx2("MoS2", vacuum=8)
    sheet.pbc = layer.pbc = True
    write(root / "b.cif", sheet)
    write(root / "a.vasp", layer)
    write(root / "POSCAR_layer", layer, format="vasp")
    write(root / "many.xyz", [sheet, layer, sheet], format="extxyz")
    write(root / "sub" / "c d.json", layer)
    write(root / "rows.db", sheet)
    write(root / "rows.db", layer, append=True)
    (root / "broken.cif").write_text("data_x\n_cell_length_a oops\n")
    (root / "README.md").write_text("not a crystal")
    (root / "script.py").write_text("raise SystemExit('must not run')")
    (root / ".hidden.cif").write_text("")
    return root


def jarvis_store(path: Path, entries: list[dict[str, object]], name: str = JARVIS_FILE) -> Path:
    with zipfile.ZipFile(path / name, "w") as archive:
        archive.writestr(name.removesuffix(".zip"), json.dumps(entries))
    return path


def jarvis_entry(jid: str, elements: list[str], a: float = 3.0) -> dict[str, object]:
    coords = [[0.1 * k, 0.5 * k, 0.5] for k in range(len(elements))]
    cell = [[a, 0, 0], [0, a, 0], [0, 0, 20]]
    atoms = {"lattice_mat": cell, "coords": coords, "elements": elements, "cartesian": False}
    return {"jid": jid, "atoms": atoms | {"abc": [a, a, 20.0], "angles": [90.0, 90.0, 90.0]}}


def test_a_folder_in_sorted_order_with_its_broken_file(folder: Path) -> None:
    crystals = load_structures(folder)
    assert list(crystals) == [
        "POSCAR_layer", "a", "b", "broken", "many-1", "many-2", "many-3", "rows-1", "rows-2", "sub-c-d",
    ]  # fmt: skip
    assert crystals.formula("many-2") == "MoS2"
    assert crystals["rows-2"].get_chemical_formula() == "MoS2"
    assert crystals.source_of("sub-c-d") == ("files:crystals", "sub/c d")
    with pytest.raises(CrystalError, match=r"broken\.cif cannot be read") as caught:
        crystals["broken"]
    assert caught.value.step == "read"
    with pytest.raises(KeyError):
        crystals["absent"]


def test_files_give_bare_crystals_with_provenance(folder: Path) -> None:
    for name in ("a", "b", "many-1", "rows-1"):
        atoms = load_structures(folder)[name]
        assert atoms.calc is None
        assert atoms.info["material_id"] == name
        assert atoms.info["licence"]
        check_crystal(atoms)
        flat_layer(atoms)


def test_equal_calls_give_equal_structures_also_in_another_process(folder: Path) -> None:
    crystals = load_structures([folder, "reference"], limit=14)
    assert len(crystals) == 14
    again = pickle.loads(pickle.dumps(crystals))
    assert list(again) == list(crystals)
    assert again.sources == crystals.sources
    assert len(pickle.dumps(crystals)) < 1000


def test_version_of_files_follows_their_content(folder: Path) -> None:
    before = load_structures(folder).sources[0].version_or_sha256
    (folder / "b.cif").write_bytes((folder / "b.cif").read_bytes() + b"\n")
    assert load_structures(folder).sources[0].version_or_sha256 != before


def test_joined_sources_keep_ids_unique() -> None:
    crystals = load_structures(["reference", "reference"])
    assert len(crystals) == 2 * len(load_structures("reference"))
    assert crystals["graphene-2"].info["source_id"] == "graphene"
    assert "graphene-2" in crystals


def test_formula_is_that_of_the_atoms() -> None:
    crystals = load_structures("reference")
    assert {key: crystals.formula(key) for key in ("black-P", "PbO", "CrSBr", "AlOH3")} == {
        "black-P": "P", "PbO": "PbO", "CrSBr": "CrSBr", "AlOH3": "Al(OH)3".replace("(OH)3", "H3O3"),
    }  # fmt: skip


def test_a_partly_occupied_crystal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alloy.cif").write_text(
        "data_alloy\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 20\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n"
        "_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n"
        "_atom_site_fract_z\n_atom_site_occupancy\nMo1 Mo 0 0 0.5 0.6\nW1 W 0 0 0.5 0.4\n"
    )
    with pytest.raises(CrystalError, match="partly occupied"):
        load_structures(tmp_path)["alloy"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic:many", "source 'synthetic:many' is not understood; write synthetic:N or"),
        ("jarvis:qm9", "there is no source 'jarvis:qm9'; there are: jarvis:dft_2d"),
        ("no/such/file.cif", "unknown source 'no/such/file.cif': no such file or folder"),
        ([], "no source given"),
        (["reference", "referense"], "unknown source 'referense'"),
    ],
)
def test_wrong_sources(source: str | list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_structures(source)
    assert "\n" not in str(caught.value)


def test_empty_and_unsupported_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no structures"):
        load_structures(tmp_path)
    for name in ("notes.md", "evil.py", "old.pickle", "old.pckl"):
        (tmp_path / name).write_text("x")
        with pytest.raises(UsageError, match=r"not a structure file.*known are \.cif"):
            load_structures(tmp_path / name)
    with pytest.raises(UsageError, match="limit must be at least 1"):
        load_structures("reference", limit=0)


def test_jarvis_entries(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entries = [
        jarvis_entry("JVASP-1", ["Mo", "S"]),
        jarvis_entry("JVASP-2", ["Q", "S"]),
        {"jid": "JVASP-3", "atoms": "na"},
        jarvis_entry("JVASP-1", ["W"]),
    ]
    crystals = load_structures("jarvis:dft_2d", store_dir=jarvis_store(tmp_path, entries))
    assert list(crystals) == ["JVASP-1", "JVASP-2", "JVASP-3", "JVASP-1-2"]
    atoms = crystals["JVASP-1"]
    assert isinstance(atoms, ase.Atoms)
    assert atoms.positions[1] == pytest.approx([0.3, 1.5, 10.0])
    assert crystals.formula("JVASP-1") == "MoS"
    with pytest.raises(CrystalError, match="JVASP-2 has an unknown element or key 'Q'"):
        crystals["JVASP-2"]
    with pytest.raises(CrystalError, match="JVASP-3 has no atoms") as caught:
        crystals.formula("JVASP-3")
    assert caught.value.step == "read"
    assert "doi:10.1038/s41524-020-00440-1" in crystals.sources[0].citation
    assert len(crystals.sources[0].version_or_sha256) == 64
    assert capfd.readouterr().out == ""


def test_a_broken_jarvis_file_is_named(tmp_path: Path) -> None:
    (tmp_path / JARVIS_FILE).write_bytes(b"<html>502 Bad Gateway</html>")
    with pytest.raises(AtomVisionError, match=rf"{JARVIS_FILE} is not the file of jarvis:dft_2d .*delete it"):
        load_structures("jarvis:dft_2d", store_dir=tmp_path)


def test_without_network_the_message_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    store = tmp_path / "store"
    with pytest.raises(NetworkNeededError, match=f"put twodmatpd.json.zip into {store}") as caught:
        load_structures("jarvis:twod_matpd", store_dir=store)
    assert "\n" not in str(caught.value)
    assert list(store.iterdir()) == []


def test_a_download_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests
    from jarvis.db import figshare

    def torn(dataset: str, store_dir: str) -> None:
        Path(store_dir, JARVIS_FILE).write_bytes(b"PK\x03\x04 half of a file")
        raise requests.ConnectionError("cut")

    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    monkeypatch.setattr(figshare, "data", torn)
    with pytest.raises(NetworkNeededError, match="could not be downloaded"):
        load_structures("jarvis:dft_2d", store_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_succeeds_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests
    from jarvis.db import figshare

    def arrives(dataset: str, store_dir: str) -> list[dict[str, object]]:
        entries = [jarvis_entry("JVASP-7", ["C"])]
        jarvis_store(Path(store_dir), entries)
        return entries

    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    monkeypatch.setattr(figshare, "data", arrives)
    assert list(load_structures("jarvis:dft_2d", store_dir=tmp_path)) == ["JVASP-7"]
    assert [path.name for path in tmp_path.iterdir()] == [JARVIS_FILE]


def test_the_room_is_light() -> None:
    code = (
        "import sys, atomvision_hub.structures as s; s.load_structures('reference')['graphene'];"
        "heavy = ('jarvis', 'matplotlib', 'spglib', 'torch', 'requests', 'scipy.spatial');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_files_and_databases(shared_data: Path) -> None:
    crystals = load_structures(
        [shared_data / "structures" / "c2db_bn.db", shared_data / "structures" / "defects"]
    )
    assert len(crystals) == 28  # reading all CIFs takes ASE a while
    assert crystals.formula("c2db_bn") == "BN"
    for material_id in list(crystals)[:6]:
        atoms = crystals[material_id]
        check_crystal(atoms)
        flat_layer(atoms)
