"""Real monolayers that come with the package, as tables of facts.

``tables/prototypes.yaml`` says where the atoms of a structure type sit, ``tables/monolayers.csv`` gives for
each material its type, elements, cell, free parameters and origin, ``tables/origins.yaml`` what to cite.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

import ase
import numpy as np
import yaml

from atomvision_hub.errors import UsageError
from atomvision_hub.structures.formula import reduced_formula
from atomvision_hub.structures.sources import SourceInfo

_TABLES = ("monolayers.csv", "prototypes.yaml", "origins.yaml")
#: Empty height (Å) in the cells of the monolayers.
VACUUM = 20.0
_TERM = re.compile(r"([+-]?)(\d+/\d+|\d+\.?\d*|\.\d+|[a-z]\w*)")
_LICENCE = "facts cited from the publication named as citation; table: MIT"


@dataclass(frozen=True, slots=True)
class Monolayer:
    """One line of ``monolayers.csv``.

    Parameters
    ----------
    id, name
        Short id such as ``"MoS2-1T"``, and what people call it.
    prototype
        Entry of ``prototypes.yaml``.
    elements
        Symbols for the letters A, B, ... of the prototype.
    a, b, gamma
        Cell in Å and degrees; `a` lies along x.
    parameters
        Values of the prototype's free parameters: fractions of the cell in the plane, Å along z.
    lattice, projected
        Expected classes of the crystal and of its projection.
    thickness
        Expected distance between the outermost atomic planes in Å.
    origin
        Entry of ``origins.yaml``.
    """

    id: str
    name: str
    prototype: str
    elements: tuple[str, ...]
    a: float
    b: float
    gamma: float
    parameters: Mapping[str, float]
    lattice: str
    projected: str
    thickness: float
    origin: str


class ReferenceSource:
    """The embedded monolayers.

    Parameters
    ----------
    chosen
        Ids of some of them, in this order; by default all.

    Raises
    ------
    UsageError
        When there is none of that id.
    """

    name = "reference"

    def __init__(self, chosen: Sequence[str] | None = None) -> None:
        known = {monolayer.id: monolayer for monolayer in monolayers()}
        chosen = list(known) if chosen is None else [identifier.strip() for identifier in chosen]
        if unknown := [identifier for identifier in chosen if identifier not in known]:
            raise UsageError(
                f"no embedded monolayer {unknown[0]!r}; list(load_structures('reference')) gives their ids"
            )
        self._monolayers = {identifier: known[identifier] for identifier in chosen}
        self.ids = tuple(self._monolayers)

    def info(self) -> SourceInfo:
        """Return the provenance of the tables."""
        digest = hashlib.sha256(b"".join(_table(name).encode() for name in _TABLES)).hexdigest()
        return SourceInfo(
            "reference",
            f"{len(self.ids)} real monolayers embedded in atomvision-hub, as tables of cited facts",
            "; ".join(sorted({_citation(monolayer.origin) for monolayer in self._monolayers.values()})),
            _LICENCE,
            "",
            digest,
        )

    def provenance(self, source_id: str) -> tuple[str, str]:
        """Return what to cite for one monolayer."""
        return _citation(self._monolayers[source_id].origin), _LICENCE

    def formula(self, source_id: str) -> str:
        """Return the reduced formula."""
        return reduced_formula(self.atoms(source_id).numbers.tolist())

    def atoms(self, source_id: str) -> ase.Atoms:
        """Build one monolayer."""
        return build_monolayer(self._monolayers[source_id])


def monolayers() -> list[Monolayer]:
    """Return the lines of ``monolayers.csv``."""
    rows = csv.DictReader(line for line in _table("monolayers.csv").splitlines() if not line.startswith("#"))
    return [
        Monolayer(
            id=row["id"],
            name=row["name"],
            prototype=row["prototype"],
            elements=tuple(row["elements"].split()),
            a=float(row["a"]),
            b=float(row["b"] or row["a"]),
            gamma=float(row["gamma"]),
            parameters={
                key: float(value) for key, value in (pair.split("=") for pair in row["parameters"].split())
            },
            lattice=row["lattice"],
            projected=row["projected"] or row["lattice"],
            thickness=float(row["thickness"]),
            origin=row["origin"],
        )
        for row in rows
    ]


def build_monolayer(monolayer: Monolayer) -> ase.Atoms:
    """Return the crystal of one line of the table: in the xy plane, mid-plane in the middle of the cell."""
    sites = _prototypes()[monolayer.prototype]["sites"]
    symbols = dict(zip("ABCDEFGH", monolayer.elements, strict=False))
    gamma = np.radians(monolayer.gamma)
    plane = np.array([[monolayer.a, 0.0], [monolayer.b * np.cos(gamma), monolayer.b * np.sin(gamma)]])
    plane[np.abs(plane) < 1e-12] = 0.0
    values = np.array([[_value(word, monolayer.parameters) for word in site[1:]] for site in sites])
    positions = np.column_stack((values[:, :2] @ plane, values[:, 2]))
    low, high = positions[:, 2].min(), positions[:, 2].max()
    height = high - low + VACUUM
    positions[:, 2] += height / 2 - (low + high) / 2
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = plane, height
    return ase.Atoms(
        [symbols[site[0]] for site in sites], positions=positions, cell=cell, pbc=(True, True, False)
    )


def _value(word: str | float, parameters: Mapping[str, float]) -> float:
    """Return the value of a coordinate: a sum of numbers, fractions and parameters, such as ``1/2-y``."""
    text = str(word).replace(" ", "")
    total, end = 0.0, 0
    for term in _TERM.finditer(text):
        if term.start() != end:
            break
        end = term.end()
        sign, what = (-1.0 if term[1] == "-" else 1.0), term[2]
        total += sign * (parameters[what] if what[0].isalpha() else float(Fraction(what)))
    if end != len(text) or not text:
        raise ValueError(f"coordinate {word!r} is not a sum of numbers and parameters")
    return total


def _citation(origin: str) -> str:
    entry = _origins()[origin]
    return f"{entry['citation']}, doi:{entry['doi']}"


@cache
def _table(name: str) -> str:
    return files("atomvision_hub.structures").joinpath("tables", name).read_text(encoding="utf-8")


@cache
def _prototypes() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_table("prototypes.yaml"))
    return loaded


@cache
def _origins() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_table("origins.yaml"))
    return loaded
