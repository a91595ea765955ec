"""What is not a crystal is refused with its reason."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import graphene, mx2

from atomvision_hub.errors import CrystalError
from atomvision_hub.structures import check_crystal, classify_lattice, load_structures


def periodic(symbols: str, positions: object, cell: object) -> ase.Atoms:
    return ase.Atoms(symbols, positions=positions, cell=cell, pbc=True)


CUBE = [4.0, 4.0, 20.0]

BROKEN = {
    "no atoms": (ase.Atoms(cell=CUBE, pbc=True), "no atoms"),
    "nan position": (periodic("C", [(np.nan, 0, 0)], CUBE), "positions are not finite"),
    "infinite cell": (periodic("C", [(0, 0, 0)], [np.inf, 4, 4]), "cell vectors are not finite"),
    "dummy element": (periodic("X", [(0, 0, 0)], CUBE), "unknown element 'X'"),
    "no cell": (ase.Atoms("C2", positions=[(0, 0, 0), (0, 0, 1.4)]), "not periodic"),
    "zero vector": (periodic("C", [(0, 0, 0)], [4, 4, 0]), "no volume"),
    "collinear vectors": (periodic("C", [(0, 0, 0)], [(4, 0, 0), (8, 0, 0), (0, 0, 9)]), "no volume"),
    "nearly flat cell": (periodic("C", [(0, 0, 0)], [(4, 0, 0), (4, 0.01, 0), (0, 0, 9)]), "flat"),
    "same place": (periodic("CC", [(0, 0, 0), (0, 0, 0)], CUBE), r"atoms 0 and 1 \(C and C\) overlap: 0.000"),
    "too close": (periodic("WS", [(0, 0, 0), (0, 0, 1.0)], CUBE), "overlap: 1.000 Å"),
    "over the boundary": (periodic("WS", [(0.1, 0, 0), (3.9, 0, 0)], CUBE), "overlap: 0.200 Å"),
    "own image": (periodic("W", [(0, 0, 0)], [1.0, 4, 20]), r"atoms 0 and 0 \(W and W\) overlap"),
    "own image in a skewed cell": (
        periodic("W", [(0, 0, 0)], [(4, 0, 0), (7.9, 1.0, 0), (0, 0, 20)]),
        "overlap: 1.005",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_structures_are_refused(name: str) -> None:
    atoms, message = BROKEN[name]
    with pytest.raises(CrystalError, match=message) as caught:
        check_crystal(atoms)
    assert caught.value.step == "crystal"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "atoms",
    [
        graphene(vacuum=8),
        mx2("MoS2", vacuum=8),
        ase.Atoms("H2", positions=[(0, 0, 0), (0, 0, 0.74)], cell=CUBE, pbc=True),
        ase.Atoms("C", positions=[(0, 0, 0)], cell=[(2.4, 0, 0), (24.1, 2.4, 0), (0, 0, 9)], pbc=True),
    ],
    ids=lambda atoms: atoms.get_chemical_formula(),
)
def test_real_structures_pass(atoms: ase.Atoms) -> None:
    check_crystal(atoms)


def test_cell_vectors_of_open_directions_may_be_absent() -> None:
    sheet = graphene()
    assert not sheet.cell.array[2].any()
    check_crystal(sheet)


def test_all_reference_monolayers_pass() -> None:
    for atoms in load_structures("reference").values():
        check_crystal(atoms)


def test_large_cells_are_checked_and_labelled_in_little_memory() -> None:
    sheet = mx2("MoS2", vacuum=8).repeat((40, 40, 1))
    check_crystal(sheet)
    label = classify_lattice(sheet)
    assert label.lattice == "hexagonal"
    assert label.cell.a == pytest.approx(3.18)
    sheet.positions[7] = sheet.positions[1234] + (0.3, 0, 0)
    with pytest.raises(CrystalError, match=r"overlap: 0\.300 Å"):
        check_crystal(sheet)
