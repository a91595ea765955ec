"""Crystals: where they come from, which of them are usable, and what lattice they have."""

from __future__ import annotations

from atomvision_hub.structures.classify import LatticeClassification, classify_lattice
from atomvision_hub.structures.columns import material_columns
from atomvision_hub.structures.duplicates import duplicates
from atomvision_hub.structures.layer import flat_layer
from atomvision_hub.structures.prototype import prototype_label
from atomvision_hub.structures.sources import SourceInfo, Structures, load_structures
from atomvision_hub.structures.validity import check_crystal
from atomvision_hub.structures.volumes import Volume, read_volume

__all__ = [
    "LatticeClassification",
    "SourceInfo",
    "Structures",
    "Volume",
    "check_crystal",
    "classify_lattice",
    "duplicates",
    "flat_layer",
    "load_structures",
    "material_columns",
    "prototype_label",
    "read_volume",
]
