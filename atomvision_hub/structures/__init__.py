"""Crystals: where they come from, which are usable, what lattice they have, what can be done to them."""

from __future__ import annotations

from atomvision_hub.structures.bilayers import twisted_bilayer, twisted_patch
from atomvision_hub.structures.boundaries import edge, grain_boundary
from atomvision_hub.structures.classify import LatticeClassification, classify_lattice
from atomvision_hub.structures.columns import material_columns
from atomvision_hub.structures.defects import DefectiveCrystal, add_defects, apply_defects, find_defects
from atomvision_hub.structures.duplicates import duplicates
from atomvision_hub.structures.layer import flat_layer
from atomvision_hub.structures.prototype import prototype_label
from atomvision_hub.structures.sources import SourceInfo, Structures, load_structures
from atomvision_hub.structures.strain import strained
from atomvision_hub.structures.validity import check_crystal
from atomvision_hub.structures.volumes import Volume, read_volume

__all__ = [
    "DefectiveCrystal",
    "LatticeClassification",
    "SourceInfo",
    "Structures",
    "Volume",
    "add_defects",
    "apply_defects",
    "check_crystal",
    "classify_lattice",
    "duplicates",
    "edge",
    "find_defects",
    "flat_layer",
    "grain_boundary",
    "load_structures",
    "material_columns",
    "prototype_label",
    "read_volume",
    "strained",
    "twisted_bilayer",
    "twisted_patch",
]
