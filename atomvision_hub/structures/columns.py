"""All material columns of a dataset row, from one flat layer."""

from __future__ import annotations

from typing import Any

import ase

from atomvision_hub.structures.classify import lattice_fits
from atomvision_hub.structures.formula import reduced_formula
from atomvision_hub.structures.legacy import legacy_class, source_parameters
from atomvision_hub.structures.prototype import prototype_label


def material_columns(atoms: ase.Atoms) -> dict[str, Any]:
    """Return the fields of `MaterialColumns` for one crystal.

    Parameters
    ----------
    atoms
        Layer from `flat_layer`, with the provenance that `load_structures` puts into ``atoms.info``.
    """
    crystal, projected = lattice_fits(atoms)
    info = atoms.info
    return {
        "material_id": info.get("material_id", ""),
        "formula": reduced_formula(atoms.numbers.tolist()),
        "prototype": prototype_label(atoms),
        "source": info.get("source", ""),
        "source_id": info.get("source_id", ""),
        "lattice": crystal.label,
        "lattice_legacy": legacy_class(*source_parameters(atoms)),
        "lattice_projected": projected.label,
        "lattice_margin": crystal.margin,
        "lattice_projected_margin": projected.margin,
        "a": crystal.cell.a,
        "b": crystal.cell.b,
        "gamma": crystal.cell.gamma,
        "projected_a": projected.cell.a,
        "projected_b": projected.cell.b,
        "projected_gamma": projected.cell.gamma,
    }
