"""The same crystal under another name, cell, origin or orientation is found; its neighbours are not."""

from __future__ import annotations

from pathlib import Path

import ase
import pytest
from ase.io import write

from atomvision_hub.structures import duplicates, flat_layer, load_structures


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Copies of reference monolayers in disguise, and others that only look alike."""
    crystals = load_structures("reference")
    copy = crystals["MoS2"].repeat((2, 1, 1))
    copy.rotate(31, "z", rotate_cell=True)
    copy.positions += (0.4, 0.9, 3.0)
    copy.pbc = True
    copy.wrap()
    write(tmp_path / "disguised.cif", copy)
    thick = crystals["ReS2"].copy()
    thick.set_cell(thick.cell.array * (1, -1, 1))
    thick.positions *= (1, -1, 1)
    thick.cell[2, 2] += 7
    thick.pbc = True
    write(tmp_path / "mirrored.vasp", thick)
    strained = crystals["MoS2"].copy()
    strained.set_cell(strained.cell.array * 1.03, scale_atoms=True)
    strained.pbc = True
    write(tmp_path / "strained.cif", strained)
    (tmp_path / "unreadable.cif").write_text("")
    write(tmp_path / "wire.vasp", ase.Atoms("C", positions=[(0, 0, 0)], cell=[1.5, 15, 15], pbc=True))
    return tmp_path


def test_duplicates_across_sources(twins: Path) -> None:
    crystals = load_structures(["reference", twins])
    found = duplicates(crystals, list(crystals))
    assert found == {"disguised": "MoS2", "mirrored": "ReS2"}


def test_the_first_in_order_is_kept(twins: Path) -> None:
    crystals = load_structures(["reference", twins])
    assert duplicates(crystals, ["disguised", "WS2", "MoS2"]) == {"MoS2": "disguised"}


def test_polymorphs_and_other_elements_stay() -> None:
    crystals = load_structures("reference")
    assert duplicates(crystals, list(crystals)) == {}


def test_reference_is_found_again_in_the_database_it_cites(shared_data: Path) -> None:
    crystals = load_structures(
        ["reference", "jarvis:twod_matpd"], store_dir=shared_data / "structures" / "jarvis", limit=900
    )
    ids = list(crystals)
    again = duplicates(crystals, ids)
    cited = {key for key, kept in again.items() if crystals.source_of(kept)[0] == "reference"}
    assert len(cited) > 8
    for key, kept in again.items():
        assert crystals.formula(key) == crystals.formula(kept)
        assert len(flat_layer(crystals[key])) > 0
