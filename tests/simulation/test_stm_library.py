"""Stored densities of states: small, exact enough, and found by content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest

from atomvision_hub import load_structures
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.simulation import gpaw_engine, stm_library
from atomvision_hub.simulation.gpaw_engine import StateDensity, Window
from atomvision_hub.simulation.stm import simulate_stm
from atomvision_hub.simulation.stm_recipe import Recipe, calculated_cell
from atomvision_hub.structures import flat_layer

REFERENCE = load_structures("reference")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMVISION_CACHE", str(tmp_path))


def states_of(atoms: ase.Atoms, biases: Sequence[float] = (0.5, -0.5), **_: Any) -> StateDensity:
    """Return s orbitals with a bias-dependent share of every atom, as if they had been calculated."""
    layer = calculated_cell(atoms, Recipe())
    shape = (16, 16, 72)
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    windows = []
    for bias in biases:
        values = np.zeros(shape)
        for index, position in enumerate(layer.get_scaled_positions(wrap=False)):
            apart = points - position
            apart[..., :2] -= np.rint(apart[..., :2])
            distance = np.linalg.norm(apart @ layer.cell.array, axis=-1)
            values += (1 + index * (bias > 0)) * np.exp(-2.0 * distance)
        windows += [Window(bias, kind, min(0, bias), max(0, bias), values) for kind in ("band_edge", "fermi")]
    facts = {"engine": "gpaw", "gap": 0.0, "seconds": 12.3, **Recipe().parameters()}
    return StateDensity(layer, tuple(windows), facts)


def test_packed_images_agree_with_the_calculated_ones() -> None:
    states = states_of(REFERENCE["MoS2"])
    content = stm_library.pack(states)
    packed = stm_library.unpack(content, flat_layer(REFERENCE["MoS2"]), (0.5, -0.5), "band_edge")
    assert packed is not None
    full = [gpaw_engine.full_density(states, window) for window in states.windows[::2]]
    for first, second in zip(full, packed, strict=True):
        assert first.bias == second.bias
        for mode in ("constant_height", "constant_current"):
            a, b = (simulate_stm(d, mode=mode, shape=(96, 96)).image.astype(float) for d in (first, second))
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9999
            assert np.abs(a - b).max() < 0.01 * np.abs(a).max()


def test_the_same_states_give_the_same_bytes() -> None:
    first, second = (stm_library.pack(states_of(REFERENCE["h-BN"])) for _ in range(2))
    assert first == second
    assert b"seconds" not in zipfile.ZipFile(io.BytesIO(first)).read("header.npy")


def test_what_is_shipped_is_small_plain_and_of_the_reference_crystals() -> None:
    files = sorted(stm_library.SHIPPED.glob("*.npz"))
    assert len(files) >= 40
    assert sum(file.stat().st_size for file in files) < 5e6
    for file in files:
        name = file.stem.split("-", 2)[2]
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype != object for key in arrays.files)
        found = stm_library.unpack(file.read_bytes(), flat_layer(REFERENCE[name]), (0.5, -0.5), "band_edge")
        assert found is not None, f"{file.name} is not {name}"
        assert [density.bias for density in found] == [0.5, -0.5]
        for density in found:
            assert density.heights[0] < -0.5
            assert density.heights[-1] > 5.0
            assert density.parameters["engine"] == "gpaw"


def test_a_volume_belongs_to_its_crystal_not_to_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def compute(atoms: ase.Atoms, **options: Any) -> StateDensity:
        called.append(atoms.get_chemical_formula())
        return states_of(atoms, **options)

    monkeypatch.setattr(gpaw_engine, "state_density", compute)
    graphene = REFERENCE["graphene"]
    renamed = graphene.copy()
    renamed.info = {"material_id": "something else"}
    renamed.positions[:, 2] += 1.0  # height in the cell means nothing
    stm_library.local_densities(renamed, (0.5, -0.5))
    assert called == []
    stretched = graphene.copy()
    stretched.set_cell(graphene.cell.array * [[1.01], [1.01], [1]], scale_atoms=True)
    stretched.info = dict(graphene.info)
    stm_library.local_densities(stretched, (0.5, -0.5))
    stm_library.local_densities(graphene, (0.5,), recipe=Recipe(cutoff=400))
    stm_library.local_densities(graphene, (0.3,))
    assert called == ["C2", "C2", "C2"]


def test_what_was_computed_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def compute(atoms: ase.Atoms, **options: Any) -> StateDensity:
        called.append(options["recipe"])
        return states_of(atoms, **options)

    monkeypatch.setattr(gpaw_engine, "state_density", compute)
    options: dict[str, Any] = {"cache": tmp_path / "kept", "shipped": None}
    first = stm_library.local_densities(REFERENCE["NbSe2"], (0.5, -0.5), **options)
    again = stm_library.local_densities(REFERENCE["NbSe2"], (-0.5,), "fermi", **options)
    assert len(called) == 1
    assert again[0].bias_reference == "fermi"
    assert np.array_equal(first[1].values, again[0].values)
    stm_library.local_densities(REFERENCE["TaSe2"], (0.5, -0.5), **options)
    stm_library.local_densities(REFERENCE["NbSe2"], (0.5, -0.5), recipe=Recipe(k_length=20), **options)
    assert len(called) == 3
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 3


def test_one_ground_state_serves_both_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def compute(atoms: ase.Atoms, **options: Any) -> StateDensity:
        called.append(options["biases"])
        return states_of(atoms, **options)

    monkeypatch.setattr(gpaw_engine, "state_density", compute)
    for bias in (0.25, -0.25):
        frame = simulate_stm(REFERENCE["graphene"], bias=bias, engine="gpaw", shape=(8, 8))
        assert frame.bias == bias
    assert called == [(0.25, -0.25)]
    assert len(list((tmp_path / "stm").iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", b"not an archive at all"])
def test_damaged_files_are_told_in_one_line(tmp_path: Path, damage: bytes) -> None:
    layer = flat_layer(REFERENCE["graphene"])
    path = tmp_path / f"{stm_library.file_stem(layer, Recipe())}-0.npz"
    path.write_bytes(damage)
    with pytest.raises(AtomVisionError, match=r"-0\.npz: damaged volume .*delete the file") as caught:
        stm_library.local_densities(REFERENCE["graphene"], (0.5,), cache=tmp_path, shipped=None)
    assert "\n" not in str(caught.value)


def test_pickled_content_is_never_opened(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, header=np.array([{"format": 1}], dtype=object))
    with pytest.raises(AtomVisionError, match="damaged volume"):
        stm_library.unpack(stream.getvalue(), flat_layer(REFERENCE["graphene"]), (0.5,), "band_edge")


def test_what_is_not_stored_is_not_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpaw_engine, "state_density", None)
    crystals = load_structures("reference")
    found = stm_library.stored_densities(crystals["MoS2"], [-0.5], cache=tmp_path)
    assert found is not None
    assert found[0].bias == -0.5
    strange = crystals["MoS2"].copy()
    strange.positions[0, 2] += 0.2
    assert stm_library.stored_densities(strange, [-0.5], cache=tmp_path) is None
