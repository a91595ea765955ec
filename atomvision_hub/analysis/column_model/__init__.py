"""Images as sums of columns, on a lattice where there is one: columns nearer than their width told apart."""

from __future__ import annotations

from atomvision_hub.analysis.column_model.fit import MOST_LEFT, ColumnFit, fit_columns

__all__ = ["MOST_LEFT", "ColumnFit", "fit_columns"]
