"""One flat layer out of whatever the source wrote."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk, graphene, molecule, mx2, nanotube

from atomvision_hub.errors import CrystalError
from atomvision_hub.structures import flat_layer, load_structures


def mos2() -> ase.Atoms:
    atoms = mx2("MoS2", a=3.16, thickness=3.17, vacuum=9)
    atoms.pbc = True
    return atoms


def test_a_flat_layer_is_left_alone_in_its_plane() -> None:
    atoms = mos2()
    flat = flat_layer(atoms)
    assert np.array_equal(flat.cell.array[:2, :2], atoms.cell.array[:2, :2])
    assert flat.positions[:, :2] == pytest.approx(atoms.positions[:, :2])
    assert flat.pbc.tolist() == [True, True, False]
    z = flat.positions[:, 2]
    assert (z.min() + z.max()) / 2 == pytest.approx(flat.cell[2, 2] / 2)


def test_a_layer_split_over_the_boundary_is_made_whole() -> None:
    atoms = mos2()
    atoms.positions[:, 2] -= atoms.positions[0, 2]  # Mo on the boundary, one S at the far end
    atoms.wrap()
    assert np.ptp(atoms.positions[:, 2]) > 10
    assert np.ptp(flat_layer(atoms).positions[:, 2]) == pytest.approx(3.17)


def test_tilted_third_vector_keeps_the_crystal() -> None:
    atoms = mos2()
    cell = atoms.cell.array.copy()
    cell[2] += 0.37 * cell[0] + 1.61 * cell[1]
    tilted = ase.Atoms(atoms.numbers, positions=atoms.positions, cell=cell, pbc=True)
    tilted.positions[:, 2] += 11
    tilted.wrap()
    flat = flat_layer(tilted)
    assert flat.cell.array[2, :2] == pytest.approx([0, 0])
    assert np.sort(flat.get_all_distances(mic=True), axis=None) == pytest.approx(
        np.sort(atoms.get_all_distances(mic=True), axis=None)
    )


def test_vacuum_without_a_cell_vector() -> None:
    flat = flat_layer(graphene())
    assert flat.cell[2, 2] == pytest.approx(20.0)


def test_the_input_is_not_changed() -> None:
    atoms = mos2()
    before = atoms.copy()
    flat_layer(atoms)
    assert atoms == before
    assert atoms.info == before.info


BILAYER = mos2()
BILAYER.extend(ase.Atoms(BILAYER.numbers, positions=BILAYER.positions + np.array([0, 0, 6.2])))
BILAYER.cell[2, 2] += 6.2


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (bulk("Cu", cubic=True), "the widest gap is 1.8 Å.*bulk"),
        (bulk("NaCl", "rocksalt", a=5.64), "bulk"),
        (BILAYER, r"not one layer: parts 3\.\d Å apart without a bond"),
        (
            ase.Atoms("CO", positions=[(6, 6, 6), (6, 6, 7.1)], cell=[12, 12, 12], pbc=True),
            "vacuum along 3 directions .molecule",
        ),
        (nanotube(6, 0, length=1, vacuum=8), "vacuum along 2 directions .wire"),
    ],
    ids=["metal", "salt", "bilayer", "molecule", "nanotube"],
)
def test_what_is_not_a_layer_is_refused(atoms: ase.Atoms, message: str) -> None:
    with pytest.raises(CrystalError, match=message) as caught:
        flat_layer(atoms)
    assert caught.value.step == "two-dimensional"


def test_a_free_molecule_has_no_plane() -> None:
    with pytest.raises(CrystalError, match="3 directions"):
        flat_layer(molecule("H2O", vacuum=6))


def test_real_layers_with_large_gaps_between_bonded_planes_pass() -> None:
    # Bismuth oxyhalides: the halogen stands 1.5 Å and more above the bismuth, its bonds are 3 Å long.
    flat_layer(load_structures("reference")["BiOI"])
