"""Columns of atoms in an image: found, fitted, measured."""

from __future__ import annotations

from atomvision_hub.analysis.atoms.detect import (
    COLUMN_WIDTH,
    RESOLVABLE_DISTANCE,
    RESOLVABLE_PEAK,
    detect_atoms,
)
from atomvision_hub.analysis.atoms.table import AtomTable

__all__ = ["COLUMN_WIDTH", "RESOLVABLE_DISTANCE", "RESOLVABLE_PEAK", "AtomTable", "detect_atoms"]
