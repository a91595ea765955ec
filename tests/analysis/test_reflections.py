"""Planes of crystals: spacings, extinctions, families, names."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub import load_structures
from atomvision_hub.analysis import PHASES, AnalysisError, known_phase, reflections
from atomvision_hub.analysis.reflections import conventional


def _names(atoms: Atoms, finest: float) -> dict[tuple[int, int, int], float]:
    return {plane.hkl: plane.d for plane in reflections(atoms, finest)}


def test_gold() -> None:
    """Face-centred: all odd or all even; spacings and multiplicities of the text book."""
    planes = reflections(bulk("Au", "fcc", a=4.0786, cubic=True), 1.1)
    assert [plane.hkl for plane in planes] == [(1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1), (2, 2, 2)]
    assert [plane.d for plane in planes] == pytest.approx([2.3548, 2.0393, 1.4420, 1.2297, 1.1774], abs=1e-3)
    assert [len(plane.members) for plane in planes] == [8, 6, 12, 24, 8]
    assert all(plane.strength == pytest.approx(1) for plane in planes)


@pytest.mark.parametrize("symbol", ["Au", "Si", "Fe"])
def test_primitive_cells_and_supercells_have_the_conventional_names(symbol: str) -> None:
    primitive, cubic = bulk(symbol), bulk(symbol, cubic=True)
    skewed = make_supercell(cubic, [[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    expected = _names(cubic, 1.0)
    for atoms in (primitive, skewed):
        found = _names(atoms, 1.0)
        assert list(found) == list(expected)
        assert list(found.values()) == pytest.approx(list(expected.values()))


def test_extinctions() -> None:
    """Diamond: no {200}; body-centred: h + k + l even; magnetite: no {200}; SnS (Pnma): no (100), (001)."""
    assert (2, 0, 0) not in _names(bulk("Si", cubic=True), 1.0)
    assert all(sum(hkl) % 2 == 0 for hkl in _names(bulk("Fe", cubic=True), 0.7))
    assert (2, 0, 0) not in _names(PHASES["Fe3O4"](), 1.5)
    assert {(1, 0, 0), (0, 0, 1), (3, 0, 0)}.isdisjoint(_names(PHASES["SnS"](), 1.5))


@pytest.mark.parametrize(
    ("name", "formula", "units", "density"),
    [
        ("Fe3O4", "Fe3O4", 8, 5.20),
        ("Rh", "Rh", 4, 12.4),
        ("SnS", "SSn", 4, 5.17),
        ("Au", "Au", 4, 19.3),
        ("Pt", "Pt", 4, 21.4),
        ("Si", "Si", 8, 2.33),
        ("SrTiO3", "O3SrTi", 1, 5.12),
    ],
)
def test_known_phases_have_their_density(name: str, formula: str, units: int, density: float) -> None:
    atoms = known_phase(name)
    assert atoms is not None
    assert atoms.symbols.formula.reduce()[0].format("hill") == atoms.symbols.formula.__class__(
        formula
    ).format("hill")
    assert atoms.symbols.formula.reduce()[1] == units
    assert atoms.get_masses().sum() / atoms.cell.volume * 1.66054 == pytest.approx(density, rel=0.01)
    distances = atoms.get_all_distances(mic=True)
    assert distances[distances > 0].min() > 1.8


def test_all_known_phases_are_tested_above() -> None:
    assert set(PHASES) == {"Fe3O4", "Rh", "SnS", "Au", "Pt", "Si", "SrTiO3"}
    assert known_phase("Xy") is None


def test_layer_has_planes_hk0_only() -> None:
    from atomvision_hub.structures import flat_layer

    planes = reflections(flat_layer(load_structures("reference")["MoS2"]), 1.5)
    assert [(plane.hkl, len(plane.members)) for plane in planes] == [((1, 0, 0), 6), ((1, 1, 0), 6)]
    assert planes[0].d == pytest.approx(3.196 * np.sqrt(3) / 2)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    lengths=st.tuples(*[st.floats(3, 7)] * 3),
    angles=st.tuples(*[st.floats(75, 105)] * 3),
    shift=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_laws(lengths: tuple[float, ...], angles: tuple[float, ...], shift: tuple[float, ...]) -> None:
    """Of any crystal: sorted by spacing, Friedel pairs together, unchanged when the atoms are shifted."""
    atoms = Atoms("MoS2", [(0.1, 0.2, 0.3), (0.55, 0.6, 0.1), (0.2, 0.85, 0.7)], cell=[1, 1, 1], pbc=True)
    atoms.set_cell([*lengths, *angles], scale_atoms=True)
    planes = reflections(atoms, 1.5)
    assert [plane.d for plane in planes] == sorted((plane.d for plane in planes), reverse=True)
    for plane in planes:
        assert {tuple(-index for index in hkl) for hkl in plane.members} == set(plane.members)
    moved = atoms.copy()
    moved.positions += np.array(shift) @ np.asarray(atoms.cell)
    again = reflections(moved, 1.5)
    assert [plane.d for plane in again] == pytest.approx([plane.d for plane in planes])
    assert [plane.strength for plane in again] == pytest.approx(
        [plane.strength for plane in planes], abs=1e-9
    )


def test_directions_are_named_by_family() -> None:
    lattice = conventional(bulk("Au", cubic=True))
    assert lattice.direction((0, -1, 0)) == (1, 0, 0)
    assert lattice.direction((1, 0, -1)) == (1, 1, 0)
    assert lattice.family((-1, 1, 1))[0] == (1, 1, 1)


@pytest.mark.parametrize(
    ("atoms", "finest", "message"),
    [
        (Atoms("H"), 1.0, "no crystal: it needs atoms and a cell"),
        (Atoms(cell=[3, 3, 3], pbc=True), 1.0, "no crystal"),
        (bulk("Au"), 0.01, "too many planes down to 0.01 Å; raise min_spacing"),
    ],
)
def test_errors(atoms: Atoms, finest: float, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        reflections(atoms, finest)
