"""Random crystals: the same for ever, balanced, of their layer groups, with bonds like real ones."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import ase
import numpy as np
import pytest
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from atomvision_hub.errors import MissingExtraError, UsageError
from atomvision_hub.structures import check_crystal, classify_lattice, flat_layer, load_structures
from atomvision_hub.structures.layer_groups import layer_group
from atomvision_hub.structures.record import LATTICES
from atomvision_hub.structures.synthetic import SyntheticOptions, groups_of, synthetic_crystal

pytest.importorskip("pyxtal", reason="the extra [synthetic] is not installed")
MORE_SYMMETRIC = {
    "hexagonal": (),
    "square": (),
    "rectangular": ("hexagonal", "square"),
    "centered_rectangular": ("hexagonal", "square"),
    "oblique": ("hexagonal", "square", "rectangular", "centered_rectangular"),
}


@cache
def crystal(index: int, options: SyntheticOptions = SyntheticOptions()) -> ase.Atoms:  # noqa: B008 - frozen
    return synthetic_crystal(index, options)


def positions(index: int) -> bytes:
    return synthetic_crystal(index).positions.tobytes()


def test_the_same_crystal_for_any_number_order_and_process() -> None:
    few, many = load_structures("synthetic:7"), load_structures("synthetic:40")
    assert list(few) == [f"synth-0-{index}" for index in range(7)]
    for index in (6, 0, 3):
        first, second = few[f"synth-0-{index}"], many[f"synth-0-{index}"]
        assert first.positions.tobytes() == second.positions.tobytes() == positions(index)
        assert (first.numbers == second.numbers).all()
        assert first.cell.array.tobytes() == second.cell.array.tobytes()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(positions, 6).result() == positions(6)
    assert synthetic_crystal(6, SyntheticOptions(seed=1)).positions.tobytes() != positions(6)


def test_what_the_source_gives_cannot_be_spoilt() -> None:
    crystals = load_structures("synthetic:3")
    crystals["synth-0-2"].positions += 1.0
    assert crystals["synth-0-2"].positions.tobytes() == positions(2)
    info = crystals["synth-0-2"].info
    assert (info["source"], info["source_id"]) == ("synthetic", "synth-0-2")
    assert "10.1016/j.cpc.2020.107810" in info["citation"]


def test_provenance_names_all_that_the_crystals_depend_on() -> None:
    version = load_structures("synthetic:5,seed=3,pseudo=0.5").sources[0].version_or_sha256
    assert version.startswith("recipe 1, PyXtal ")
    assert version.endswith("seed 3, pseudo 0.5, margin 0.1, displacement 0.1")
    assert list(load_structures("synthetic:5,seed=3"))[4] == "synth-3-4"


def test_lattices_are_balanced_and_true() -> None:
    for index in range(60):
        atoms = crystal(index)
        check_crystal(atoms)
        assert classify_lattice(flat_layer(atoms)).projected == LATTICES[index % 5]


def test_every_layer_group_has_its_class_and_takes_its_turn() -> None:
    assert sorted(number for label in range(5) for number in groups_of(label)) == list(range(1, 81))
    # Seen from above, pmmn (46) is centred, and cmme (48) repeats after half of both its edges.
    assert 46 in groups_of(LATTICES.index("centered_rectangular"))
    assert 48 in groups_of(LATTICES.index("rectangular"))
    options = SyntheticOptions(pseudo=0.0)
    hexagonal = [crystal(index, options).info["layer_group"] for index in range(0, 80, 5)]
    assert tuple(hexagonal) == groups_of(0)


@pytest.mark.parametrize("number", range(1, 81))
def test_the_tables_are_those_that_spglib_finds(number: int) -> None:
    """A crystal of two general orbits has exactly the symmetry of the group, told by another library."""
    import spglib

    group = layer_group(number)
    cell = {
        "oblique": np.array([[5.1, 0.0], [-1.3, 6.7]]),
        "rectangular": np.diag([5.1, 6.7]),
        "square": np.diag([5.3, 5.3]),
        "hexagonal": 5.3 * np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)]]),
    }[group.system]
    general = group.orbits[-1]
    points = np.array([[0.137, 0.291, 0.9], [0.419, 0.083, 2.3]])
    placed = general.place(points)
    whole = np.zeros((3, 3))
    whole[:2, :2], whole[2, 2] = cell, 25.0
    atoms = placed.reshape(-1, 3) / [1.0, 1.0, 25.0]
    numbers = np.repeat([6, 7], general.multiplicity)
    found = spglib.get_symmetry_layerdataset((whole, atoms, numbers), aperiodic_dir=2, symprec=1e-3)
    assert found.number == number


def test_bonds_are_like_real_ones() -> None:
    shortest, coordination, area = [], [], []
    for index in range(60):
        atoms = crystal(index)
        i, j, distances = neighbor_list("ijd", atoms, 4.0 / 1.2 * covalent_radii[atoms.numbers])
        ratios = distances / (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])
        shortest.append(ratios.min())
        nearest = np.full(len(atoms), np.inf)
        np.minimum.at(nearest, i, ratios)
        assert nearest.max() <= 1.351  # no atom by itself
        coordination.append((ratios < 1.3).sum() / len(atoms))
        radius = covalent_radii[atoms.numbers].mean()
        area.append(abs(np.linalg.det(atoms.cell.array[:2, :2])) / len(atoms) / radius**2)
    assert min(shortest) >= 0.85
    # 2DMatPedia: medians 0.95, 4.4 and 2.5.
    assert np.median(shortest) == pytest.approx(0.95, abs=0.05)
    assert 3.0 < np.median(coordination) < 6.0
    assert 2.0 < np.median(area) < 4.0


def test_pseudosymmetry_is_as_strong_as_asked() -> None:
    options = SyntheticOptions(pseudo=1.0, margin=0.08, displacement=0.12)
    kinds = Counter()
    for index in range(40):
        atoms = crystal(index, options)
        kind = atoms.info["pseudosymmetry"]
        kinds[kind] += 1
        found = classify_lattice(atoms)
        distances = dict(found.projected_alternatives)
        nearest = min((distances[name] for name in MORE_SYMMETRIC[found.projected]), default=np.inf)
        if kind == "metric":
            assert 0.08 - 1e-6 <= nearest <= 0.16 + 1e-6
        else:
            assert nearest >= 0.16
            # Displacements are all that keeps the crystal from repeating sooner.
            area = found.projected_cell.reduced
            undone = classify_lattice(atoms, tolerance=0.5).projected_cell.reduced
            assert abs(np.linalg.det(undone)) <= abs(np.linalg.det(area)) / 2 + 1e-6
    assert set(kinds) == {"metric", "superlattice"}


def test_without_pseudosymmetry_every_lattice_is_clear() -> None:
    options = SyntheticOptions(pseudo=0.0, margin=0.12)
    for index in range(25):
        atoms = crystal(index, options)
        assert atoms.info["pseudosymmetry"] == ""
        found = classify_lattice(atoms)
        distances = dict(found.projected_alternatives)
        assert all(distances[name] >= 0.24 for name in MORE_SYMMETRIC[found.projected])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic:0", "N must be between 1 and 1,000,000"),
        ("synthetic:5,sead=1", "is not understood; write synthetic:N or synthetic:N,seed=0"),
        ("synthetic:5,margin=wide", "is not understood"),
        ("synthetic:5,pseudo=2", "pseudo must be between 0.0 and 1.0, not 2.0"),
        ("synthetic:5,margin=0.01", "margin must be between 0.06 and 0.2"),
    ],
)
def test_wrong_sources(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_structures(source)
    assert "\n" not in str(caught.value)


def test_without_pyxtal_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyxtal", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'atomvision-hub\[synthetic\]'") as caught:
        load_structures("synthetic:5")
    assert "\n" not in str(caught.value)
