"""What `analyze` answers: frozen dataclasses that become JSON and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import AtomGraph, AtomTable, Probe
from atomvision_hub.inference.lattice_result import LatticeParameters, PowerSpectrum, Region
from atomvision_hub.inference.lattice_result import rounded as _figures
from atomvision_hub.inference.motif import Motif
from atomvision_hub.inference.repeats import Cell

#: Version of the JSON layout.
SCHEMA = 2
#: Columns of the CSV of the power spectrum's peaks.
PEAK_COLUMNS = ("h", "k", "x", "y", "error", "d", "d_error", "intensity", "snr", "distance")
#: Columns of the CSV and keys of ``atoms`` in the JSON.
ATOM_COLUMNS = (
    "x",
    "y",
    "x_angstrom",
    "y_angstrom",
    "radius",
    "amplitude",
    "max",
    "min",
    "mean",
    "confidence",
    "probability",
    "edge",
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The scale of an image.

    Parameters
    ----------
    pixel_size
        Å/px (row, column), or ``None``.
    source
        ``"given"`` by the user, told by the ``"file"``, by a ``"sidecar"`` YAML beside it, or ``"none"``.
    apparent
        For an uncalibrated image, the Å/px at which its columns would be as wide as columns of atoms are
        (standard deviation 0.5 Å): what the models were shown it at. A guess that no length is told in.
    """

    pixel_size: tuple[float, float] | None
    source: Literal["given", "file", "sidecar", "none"]
    apparent: float | None = None

    @property
    def unit(self) -> str:
        """Unit of lengths: ``"Å"`` or ``"px"``."""
        return "px" if self.pixel_size is None else "Å"


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """What the graph of the columns tells; lengths in `unit`.

    Parameters
    ----------
    nodes, edges
        Number of columns and of pairs nearer than `cutoff`.
    cutoff
        Longest edge: 4 Å as in the AtomVision paper; 1.6 typical nearest distances where that is more, and
        without calibration.
    nearest_distance, nearest_spread
        Median distance to the nearest column, and half the range of the middle 68 %; of columns off the
        edge. ``None`` with less than two columns.
    coordination
        Number of neighbours within 1.25 nearest distances -> number of columns off the edge.
    order
        Share of columns that have another one at the commonest displacement, 0..1: near 1 in a crystal,
        below about 0.4 where columns lie at random; ``None`` with fewer than 12 columns off the edge.
    bond_angles
        Shares of bond-angle cosines in 200 equal bins over -1..1; empty without angles.
    unit
        ``"Å"`` or ``"px"``.
    """

    nodes: int
    edges: int
    cutoff: float
    nearest_distance: float | None
    nearest_spread: float | None
    coordination: dict[int, int]
    order: float | None
    bond_angles: tuple[float, ...]
    unit: str


@dataclass(frozen=True, kw_only=True)
class LatticeClass:
    """The two-dimensional Bravais lattice according to a classifier.

    Parameters
    ----------
    label
        Most probable class.
    probabilities
        Class -> probability, mean over the views.
    model
        Name of the model.
    views
        How many parts of the image were shown to it.
    agreement
        Share of the views whose own most probable class is `label`.
    """

    label: str
    probabilities: dict[str, float]
    model: str
    views: int
    agreement: float

    @property
    def probability(self) -> float:
        """Probability of `label`."""
        return self.probabilities[self.label]


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """What is known of an image before its columns are judged; the `Analysis` says the same of it.

    Parameters
    ----------
    calibration
        Scale and where it comes from.
    lattice
        Class of the lattice that fits the image, or ``None``.
    parameters
        That lattice; its `origin` is not yet at a column.
    no_lattice
        Why `parameters` is ``None``.
    """

    calibration: Calibration
    lattice: LatticeClass | None
    parameters: LatticeParameters | None
    no_lattice: str | None


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Atoms, graph and lattice class of one image.

    Parameters
    ----------
    file, sha256
        Name of the file and its checksum; ``None`` for arrays.
    index, name, kind
        Number of the image in its file from 0, its detector or channel, and kind (``"stem"``, ...) if known.
    frame, frames
        Place in its stack and length of the stack.
    shape
        Rows and columns.
    calibration
        Scale and where it comes from.
    contrast
        Whether columns are ``"bright"`` or ``"dark"``.
    atoms
        Columns in pixels of the image as it is in the file.
    probability
        The segmenter's probability at each column; ``None`` without segmenter.
    residual
        What fitted columns leave of the image, root mean square over its noise; ``None`` where `atoms` are
        peaks.
    profile
        Of fitted columns, in pixels: what probe, source and motion of the atoms make of one.
    graph
        Summary of the graph.
    bonds
        The graph itself (in `graph`'s unit); not part of the JSON.
    cell
        Cell that the columns repeat on, measured from their positions and heights; ``None`` where less than
        60 % repeat.
    lattice
        Class of lattice according to the classifier, or ``None`` where none could be told; `warnings` says
        why.
    parameters
        Lattice that fits the image, with errors; ``None`` where none does, or parts show several.
    no_lattice
        Why `parameters` is ``None``.
    motif
        What repeats on that lattice, averaged over all cells; ``None`` where columns do not follow it.
    regions
        All parts of the image that were fitted on their own.
    spectrum
        Peaks of the power spectrum, with indices where there are `parameters`.
    models
        Role -> name and checksum of what was used.
    version
        Version of this package.
    warnings
        What to keep in mind, one line each.
    """

    file: str | None
    sha256: str | None
    index: int
    name: str
    kind: str | None
    frame: int
    frames: int
    shape: tuple[int, int]
    calibration: Calibration
    contrast: Literal["bright", "dark"]
    atoms: AtomTable
    probability: npt.NDArray[np.float32] | None
    residual: float | None = None
    profile: Probe | None = None
    graph: GraphSummary
    bonds: AtomGraph = field(repr=False)
    cell: Cell | None
    lattice: LatticeClass | None
    parameters: LatticeParameters | None
    no_lattice: str | None
    motif: Motif | None
    regions: tuple[Region, ...]
    spectrum: PowerSpectrum
    models: dict[str, dict[str, str | None]]
    version: str
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        of = "" if self.file is None else f" of {self.file}"
        told = "no lattice" if self.lattice is None else f"{self.lattice.label} lattice"
        return f"Analysis({len(self.atoms)} columns{of}, {told}; .atoms, .parameters, .to_dict(), ...)"

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of atoms, one list for each of `ATOM_COLUMNS`; what is not known is ``None``."""
        atoms, unknown = self.atoms, [None] * len(self.atoms)
        angstrom = np.round(atoms.positions(), 4) if atoms.pixel_size is not None else None
        return {
            "x": np.round(atoms.x, 3).tolist(),
            "y": np.round(atoms.y, 3).tolist(),
            "x_angstrom": unknown if angstrom is None else angstrom[:, 0].tolist(),
            "y_angstrom": unknown if angstrom is None else angstrom[:, 1].tolist(),
            "radius": np.round(atoms.radius, 3).tolist(),
            **{name: _short(getattr(atoms, name)) for name in ("amplitude", "max", "min", "mean")},
            "confidence": np.round(atoms.confidence, 4).tolist(),
            "probability": unknown if self.probability is None else _short(self.probability, 4),
            "edge": atoms.edge.tolist(),
        }

    def gaussians(self) -> list[tuple[float, float]]:
        """Return height and standard deviation of each Gaussian of a fitted column, in `graph`'s unit."""
        size = self.calibration.pixel_size
        scale = 1.0 if size is None else size[0]
        return [] if self.profile is None else list(self.profile.scaled(scale).parts)

    def _fitted(self) -> dict[str, Any] | None:
        if self.residual is None:
            return None
        profile = [
            {"height": _figures(height), "sigma": _figures(width)} for height, width in self.gaussians()
        ]
        return {"residual": _figures(self.residual), "profile": profile, "unit": self.graph.unit}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values.

        ``atoms`` holds one list for each of `ATOM_COLUMNS`: ``x``, ``y``, ``radius`` in pixels of the image
        as it is in the file (x along columns, centres of pixels at integers), ``x_angstrom``, ``y_angstrom``.
        """
        graph, scale = self.graph, self.calibration
        return {
            "schema": SCHEMA,
            "file": self.file,
            "sha256": self.sha256,
            "image": {
                "index": self.index,
                "name": self.name,
                "kind": self.kind,
                "frame": self.frame,
                "frames": self.frames,
                "rows": self.shape[0],
                "columns": self.shape[1],
                "contrast": self.contrast,
            },
            "calibration": {
                "calibrated": scale.pixel_size is not None,
                "pixel_size": None if scale.pixel_size is None else list(scale.pixel_size),
                "source": scale.source,
                "apparent_pixel_size": scale.apparent,
                "unit": scale.unit,
            },
            "atoms": {"count": len(self.atoms), **self.columns()},
            "fitted": self._fitted(),
            "graph": {
                "nodes": graph.nodes,
                "edges": graph.edges,
                "cutoff": _figures(graph.cutoff),
                "unit": graph.unit,
                "nearest_distance": _figures(graph.nearest_distance),
                "nearest_spread": _figures(graph.nearest_spread),
                "coordination": {str(count): atoms for count, atoms in graph.coordination.items()},
                "order": _figures(graph.order),
                "bond_angle_cosines": [round(share, 6) for share in graph.bond_angles],
            },
            "cell": None
            if self.cell is None
            else {
                "a": _figures(self.cell.a),
                "b": _figures(self.cell.b),
                "gamma": _figures(self.cell.gamma),
                "unit": self.cell.unit,
                "lattice": self.cell.lattice,
                "repeats": _figures(self.cell.repeats),
            },
            "lattice": None
            if self.lattice is None
            else {
                "label": self.lattice.label,
                "probability": _figures(self.lattice.probability),
                "probabilities": {name: _figures(p) for name, p in self.lattice.probabilities.items()},
                "model": self.lattice.model,
                "views": self.lattice.views,
                "agreement": _figures(self.lattice.agreement),
            },
            "lattice_parameters": None if self.parameters is None else self.parameters.to_dict(),
            "no_lattice": self.no_lattice,
            "motif": None if self.motif is None else self.motif.to_dict(),
            "regions": [region.to_dict() for region in self.regions],
            "spectrum": self.spectrum.to_dict(),
            "warnings": list(self.warnings),
            "models": self.models,
            "version": self.version,
        }

    def to_csv(self) -> str:
        """Return the columns of atoms as CSV with a header; what is not known is left empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(ATOM_COLUMNS)
        columns = self.columns()
        columns["edge"] = [int(value) for value in columns["edge"]]
        writer.writerows(zip(*(columns[name] for name in ATOM_COLUMNS), strict=True))
        return stream.getvalue()

    def peaks_csv(self) -> str:
        """Return the peaks of the power spectrum as CSV with a header; no indices where none fit."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(PEAK_COLUMNS)
        for peak in self.spectrum.peaks:
            values = (getattr(peak, name) for name in PEAK_COLUMNS)
            writer.writerow([_figures(v) if isinstance(v, float) else v for v in values])
        return stream.getvalue()


def _short(values: npt.NDArray[Any], digits: int = 6) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
