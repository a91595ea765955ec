"""The paper's label, equal to that of jarvis-tools on every cell."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import ase
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomvision_hub.structures import classify_lattice, flat_layer, load_structures
from atomvision_hub.structures.legacy import cell_parameters, legacy_class, source_parameters
from atomvision_hub.structures.record import LATTICES

#: jarvis-tools' names, in the order of `LATTICES`.
THEIRS = ("hexagonal", "square", "rectangle", "rhombus", "parallelogram")
number = st.floats(-8, 8, allow_nan=False)
vector = st.tuples(number, number, st.sampled_from([0.0, 0.0, 0.3]))


def jarvis_label(cell: np.ndarray) -> int:
    from jarvis.core.atoms import Atoms
    from jarvis.core.lattice import get_2d_lattice

    atoms = Atoms(lattice_mat=cell.tolist(), coords=[[0, 0, 0]], elements=["C"])
    name, label = get_2d_lattice(atoms.to_dict())
    assert THEIRS[label] == name
    return int(label)


@given(u=vector, v=vector)
@settings(deadline=None, derandomize=True, max_examples=120)
def test_equal_on_random_cells(u: tuple[float, ...], v: tuple[float, ...]) -> None:
    cell = np.array([u, v, (0.0, 0.0, 20.0)])
    if min(np.linalg.norm(cell[:2], axis=1)) < 0.1:
        return
    assert legacy_class(*cell_parameters(cell)) == jarvis_label(cell)


@given(
    a=st.floats(2.0, 9.0),
    stretch=st.sampled_from([0.0, 0.0, 4e-3, 5e-3, 6e-3, 1e-2]),
    gamma=st.sampled_from([60.0, 90.0, 120.0, 75.0]),
    bend=st.sampled_from([0.0, 0.0, 4e-3, 5e-3, 6e-3]),
)
@example(a=4.145, stretch=4e-6, gamma=120.0, bend=0.0)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_equal_on_cells_at_the_edge_of_the_rounding(
    a: float, stretch: float, gamma: float, bend: float
) -> None:
    angle = np.radians(gamma + bend)
    b = a + stretch
    cell = np.array([(a, 0, 0), (b * np.cos(angle), b * np.sin(angle), 0), (0, 0, 18.0)])
    assert legacy_class(*cell_parameters(cell)) == jarvis_label(cell)


def test_equal_on_all_real_cells_as_stored_and_as_computed(shared_data: Path) -> None:
    from jarvis.core.lattice import get_2d_lattice

    folder = shared_data / "structures" / "jarvis"
    with zipfile.ZipFile(folder / "twodmatpd.json.zip") as archive:
        entries = {e["material_id"]: e["atoms"] for e in json.loads(archive.read("twodmatpd.json"))}
    crystals = load_structures("jarvis:twod_matpd", store_dir=folder)
    assert len(crystals) == len(entries) == 4780
    for material_id, entry in entries.items():
        stored = get_2d_lattice(entry)[1]
        assert legacy_class(*source_parameters(crystals[material_id])) == stored, material_id
        computed = jarvis_label(np.array(entry["lattice_mat"]))
        assert legacy_class(*cell_parameters(entry["lattice_mat"])) == computed, material_id


def test_the_label_is_of_the_cell_as_the_source_wrote_it() -> None:
    # A square lattice written as a long rectangle is a rectangle to the paper, before and after flattening.
    atoms = ase.Atoms("C2", positions=[(0, 0, 0), (2, 0, 0)], cell=[4, 2, 20], pbc=True)
    assert classify_lattice(atoms).legacy == "rectangular"
    assert classify_lattice(flat_layer(atoms)).legacy == "rectangular"
    assert classify_lattice(atoms).lattice == "square"
    # Vacuum along the first vector: the rule looks at the first two vectors all the same.
    turned = ase.Atoms("C", positions=[(0, 0, 0)], cell=[20, 2, 2], pbc=True)
    assert classify_lattice(flat_layer(turned)).legacy == "rectangular"
    assert classify_lattice(turned).lattice == "square"


def test_a_changed_cell_forgets_what_its_source_said() -> None:
    atoms = flat_layer(ase.Atoms("C", positions=[(0, 0, 0)], cell=[2, 2, 20], pbc=True))
    assert classify_lattice(atoms).legacy == "square"
    assert classify_lattice(atoms.repeat((2, 1, 1))).legacy == "rectangular"


@pytest.mark.parametrize(
    ("a", "b", "gamma", "label"), [(3, 3, 60, 0), (3, 3, 90, 1), (3, 4, 90, 2), (3, 3, 80, 3), (3, 4, 80, 4)]
)
def test_the_rule(a: float, b: float, gamma: float, label: int) -> None:
    assert legacy_class(a, b, gamma) == label
    assert LATTICES[label]
