"""Material columns: complete, of the declared types, and true for real materials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomvision_hub.errors import CrystalError
from atomvision_hub.structures import (
    check_crystal,
    classify_lattice,
    flat_layer,
    load_structures,
    material_columns,
    prototype_label,
)
from atomvision_hub.structures.formula import anonymous_formula, reduced_formula
from atomvision_hub.structures.record import LATTICES, MaterialColumns


def test_columns_are_those_of_the_record() -> None:
    crystals = load_structures("reference")
    for material_id in ("graphene", "black-P", "ReS2", "SiP", "FeTe"):
        flat = flat_layer(crystals[material_id])
        row = MaterialColumns(**material_columns(flat))
        label = classify_lattice(flat)
        assert row.material_id == material_id
        assert row.formula == crystals.formula(material_id)
        assert LATTICES[row.lattice] == label.lattice
        assert LATTICES[row.lattice_projected] == label.projected
        assert LATTICES[row.lattice_legacy] == label.legacy
        assert (row.a, row.b, row.gamma) == (label.cell.a, label.cell.b, label.cell.gamma)
        assert row.lattice_margin == label.margin > 0
        assert row.prototype == prototype_label(flat)


@pytest.mark.parametrize(
    ("material_id", "label"),
    [
        ("graphene", "A-80-2"), ("h-BN", "AB-78-1-1"), ("MoS2", "AB2-78-1-2"), ("WSe2", "AB2-78-1-2"),
        ("TiS2-1T", "AB2-72-1-2"), ("black-P", "A-42-4"), ("SnS", "AB-32-2-2"), ("FeSe", "AB-64-2-2"),
        ("ReS2", "AB2-2-2+2-2+2+2+2"),
    ],
)  # fmt: skip
def test_prototypes(material_id: str, label: str) -> None:
    assert prototype_label(flat_layer(load_structures("reference")[material_id])) == label


def test_formulas() -> None:
    assert reduced_formula([16, 42, 16]) == "MoS2"
    assert reduced_formula([8, 8, 8, 8, 6, 6]) == "CO2"
    assert reduced_formula([82, 8]) == "PbO"
    assert reduced_formula([6, 6]) == "C"
    assert anonymous_formula([16, 42, 16]) == "AB2"
    assert anonymous_formula([16, 42, 16, 16, 16, 42]) == "AB2"


def test_figures_of_2dmatpedia(shared_data: Path) -> None:
    """All 4,780 materials are labelled or refused; the figures that the cards quote."""
    crystals = load_structures("jarvis:twod_matpd", store_dir=shared_data / "structures" / "jarvis")
    labels, refused = [], []
    for material_id in crystals:
        atoms = crystals[material_id]
        check_crystal(atoms)
        try:
            flat = flat_layer(atoms)
        except CrystalError as problem:
            refused.append(problem.step)
            continue
        label = classify_lattice(flat)
        labels.append([LATTICES.index(name) for name in (label.lattice, label.legacy, label.projected)])
    table = np.array(labels)
    assert len(table) + len(refused) == 4780
    assert len(refused) < 80
    assert set(refused) == {"two-dimensional"}
    lattice, legacy, projected = table.T
    assert 0.20 < (legacy != lattice).mean() < 0.25
    assert 0.06 < (projected != lattice).mean() < 0.08
    ceiling = [
        sum(np.bincount(legacy[known == k]).max() for k in range(5)) / len(table)
        for known in (lattice, projected)
    ]
    assert ceiling == pytest.approx([0.83, 0.78], abs=0.015)
