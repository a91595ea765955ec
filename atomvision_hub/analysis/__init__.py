"""Image -> atoms -> graph -> lattice: arrays in, typed results out; no files, no torch."""

from atomvision_hub.analysis.atoms import AtomTable, detect_atoms
from atomvision_hub.analysis.column_model import ColumnFit, Probe, fit_columns
from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.graphs import AtomGraph, LineGraph, bond_angle_histogram, radius_graph
from atomvision_hub.analysis.lattice_fit import LatticeFit, fit_lattice
from atomvision_hub.analysis.matching import Facet, Matches, Zone, match_spacings
from atomvision_hub.analysis.phases import PHASES, known_phase
from atomvision_hub.analysis.reflections import Reflection, reflections
from atomvision_hub.analysis.spacings import Spacing, Spacings, lattice_spacings

__all__ = [
    "PHASES",
    "AnalysisError",
    "AtomGraph",
    "AtomTable",
    "ColumnFit",
    "Facet",
    "LatticeFit",
    "LineGraph",
    "Matches",
    "Probe",
    "Reflection",
    "Spacing",
    "Spacings",
    "Zone",
    "bond_angle_histogram",
    "detect_atoms",
    "fit_columns",
    "fit_lattice",
    "known_phase",
    "lattice_spacings",
    "match_spacings",
    "radius_graph",
    "reflections",
]
