"""The embedded monolayers are what their table says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from atomvision_hub.structures import check_crystal, classify_lattice, flat_layer, load_structures
from atomvision_hub.structures.record import LATTICES
from atomvision_hub.structures.reference import _TABLES, Monolayer, _table, _value, monolayers

LINES = monolayers()
#: Shortest bond over the sum of covalent radii: from metal-oxygen double bonds to ionic halides.
BONDS = (0.72, 1.25)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.id)
def test_every_line_is_true(line: Monolayer) -> None:
    atoms = load_structures("reference")[line.id]
    check_crystal(atoms)
    flat = flat_layer(atoms)
    label = classify_lattice(flat)
    assert (label.lattice, label.projected) == (line.lattice, line.projected)
    assert np.ptp(flat.positions[:, 2]) == pytest.approx(line.thickness, abs=0.005)
    i, j, distance = neighbor_list("ijd", flat, 4.5)
    ratio = distance / (covalent_radii[flat.numbers[i]] + covalent_radii[flat.numbers[j]])
    nearest = [ratio[i == index].min() for index in range(len(flat))]
    assert min(nearest) > BONDS[0]
    assert max(nearest) < BONDS[1]


def test_the_table_is_small_and_large_enough() -> None:
    assert len(LINES) >= 80
    assert len({line.id for line in LINES}) == len(LINES)
    classes = Counter(line.lattice for line in LINES)
    assert all(classes[name] >= 4 for name in LATTICES), classes
    assert sum(len(_table(name)) for name in _TABLES) < 100_000


def test_monolayers_whose_projection_has_another_lattice() -> None:
    # Layers whose halves differ by a shift of half a cell look centred from above.
    differing = {line.id for line in LINES if line.projected != line.lattice}
    assert all(line.projected == "centered_rectangular" for line in LINES if line.id in differing)
    assert {"black-P", "black-As", "GeS", "GeSe", "SnS", "SnSe", "VOCl", "CrSBr", "TiS3"} <= differing


@pytest.mark.parametrize(
    "material_id",
    ["graphene", "h-BN", "MoS2", "WSe2", "TiS2-1T", "FeTe", "FeSe", "black-P", "SnS", "ReS2"],
)
def test_the_well_known_ones_are_there(material_id: str) -> None:
    assert material_id in load_structures("reference")


def test_provenance_of_each() -> None:
    crystals = load_structures("reference")
    atoms = crystals["black-P"]
    assert "Rundqvist" in atoms.info["citation"]
    assert "doi:10.1107/S0365110X65004140" in atoms.info["citation"]
    assert atoms.info["material_id"] == atoms.info["source_id"] == "black-P"
    assert atoms.info["source"] == "reference"
    assert "doi:10.1038/s41597-019-0097-3" in crystals.sources[0].citation


def test_geometry_of_molybdenum_disulfide() -> None:
    atoms = load_structures("reference")["MoS2"]
    distances = atoms.get_all_distances(mic=True)
    assert distances[0, 1] == pytest.approx(2.42, abs=0.02)
    assert distances[1, 2] == pytest.approx(3.14, abs=0.01)
    assert atoms.positions[1, :2] == pytest.approx(atoms.positions[2, :2])


@pytest.mark.parametrize(
    ("word", "value"),
    [("1/3", 1 / 3), ("-h", -1.5), ("1/2-y", 0.3), ("0.25", 0.25), (0, 0.0), ("y+1/4", 0.45)],
)
def test_coordinates_are_sums(word: str | float, value: float) -> None:
    assert _value(word, {"h": 1.5, "y": 0.2}) == pytest.approx(value)


@pytest.mark.parametrize("word", ["", "2*y", "y y", "__import__('os')"])
def test_other_coordinates_are_refused(word: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        _value(word, {"y": 0.2})
