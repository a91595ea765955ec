"""Images as sums of columns, on a lattice where there is one: columns nearer than their width told apart."""

from __future__ import annotations

from atomvision_hub.analysis.column_model.answer import MOST_LEFT, ColumnFit
from atomvision_hub.analysis.column_model.fit import fit_columns
from atomvision_hub.analysis.column_model.probe import Probe

__all__ = ["MOST_LEFT", "ColumnFit", "Probe", "fit_columns"]
