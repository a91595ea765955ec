"""Crystals with the label of what their images show, ready to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from ase import Atoms

from atomvision_hub.data import load_dataset
from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.simulation.projection import Array, Projection, project
from atomvision_hub.structures import flat_layer, load_structures
from atomvision_hub.structures.classify import lattice_fits
from atomvision_hub.structures.layer import is_flat


@dataclass(frozen=True, slots=True)
class DrawnCrystal:
    """One crystal as the renderer wants it.

    Attributes
    ----------
    projection
        The crystal on the image plane.
    points, sites
        Distinct points of the projection, (n, 2) in Å, and for every atom which of them it lies on.
    longest
        Length of the longer reduced lattice vector that an image shows, Å.
    """

    projection: Projection
    points: Array
    sites: npt.NDArray[np.int64]
    longest: float


@dataclass(frozen=True)
class CrystalSet:
    """Crystals, their labels, and which were left out.

    Attributes
    ----------
    ids, groups
        Name and reduced formula of each crystal.
    crystals
        Ready to be drawn.
    labels
        Class of the lattice that an image shows (`structures.LATTICES`), int64 (n,).
    margins
        No change of the lattice vectors that adds up to less (Å) changes the class, (n,).
    left_out
        Ids that are not among them, with the reason.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    crystals: tuple[DrawnCrystal, ...]
    labels: npt.NDArray[np.int64]
    margins: Array
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, crystals: Mapping[str, Atoms], *, margin: float = 0.0) -> Self:
        """Return crystals of any mapping, such as ``load_structures("synthetic:1000")``.

        Parameters
        ----------
        crystals
            Two-dimensional crystals by id.
        margin
            Smallest margin (Å) of a label; crystals with less are left out.

        Raises
        ------
        UsageError
            When no crystal is left.
        """
        return cls._made(_each(crystals), margin, "the mapping")

    @classmethod
    def open(
        cls,
        source: str | Path,
        split: str | None = None,
        *,
        revision: str | None = None,
        margin: float = 0.0,
        limit: int | None = None,
    ) -> Self:
        """Return the crystals of a split of a stem2d dataset, or of any source of structures.

        Parameters
        ----------
        source
            Folder of a stem2d dataset (its config ``structures``), its Hub id with a `revision`, or what
            `load_structures` understands: ``"reference"``, ``"synthetic:1000"``, files of structures.
        split
            ``"train"``, ``"validation"`` or ``"test"`` of a dataset; sources have none.
        revision
            Tag of a dataset on the Hub.
        margin
            As of `of`.
        limit
            At most so many crystals are read.
        """
        if revision is None and not (Path(source) / "manifest.json").is_file():
            if split is not None:
                raise UsageError(
                    f"{source} has no splits; leave out split={split!r} or give a dataset folder"
                )
            return cls._made(_each(load_structures(str(source), limit=limit)), margin, str(source))
        if split is None:
            raise UsageError(f"{source} is a dataset: say which split, train, validation or test")
        return cls._made(_rows(source, split, revision, limit), margin, f"{source}, {split}")

    @classmethod
    def _made(
        cls, crystals: Iterable[tuple[str, str, Atoms | CrystalError]], margin: float, where: str
    ) -> Self:
        ids, groups, drawn, labels, margins = [], [], [], [], []
        left_out: dict[str, str] = {}
        for identifier, group, atoms in crystals:
            if isinstance(atoms, CrystalError):
                left_out[identifier] = atoms.reason
                continue
            try:
                flat = atoms if is_flat(atoms) else flat_layer(atoms)
                seen = lattice_fits(flat)[1]
                projection = project(flat)
            except CrystalError as problem:
                left_out[identifier] = problem.reason
                continue
            if seen.margin < margin:
                left_out[identifier] = f"label margin {seen.margin:.4f} Å is below {margin:g} Å"
                continue
            points, sites = projection.overlapping()
            longest = float(np.hypot(*seen.cell.reduced.T).max())
            ids.append(identifier)
            groups.append(group)
            drawn.append(DrawnCrystal(projection, points, sites, longest))
            labels.append(seen.label)
            margins.append(seen.margin)
        if not ids:
            first = next(iter(left_out.items()), None)
            why = f"; {first[0]}: {first[1]}" if first else ""
            raise UsageError(f"{where} has no crystal to draw{why}")
        return cls(
            tuple(ids),
            tuple(groups),
            tuple(drawn),
            np.array(labels, dtype=np.int64),
            np.array(margins),
            left_out,
        )

    def in_view(self, side: float, periods: float) -> Self:
        """Return the crystals of which so many periods fit into a view of `side` Å; the others are listed."""
        fits = np.array([periods * crystal.longest <= side for crystal in self.crystals])
        if not fits.any():
            raise UsageError(
                f"no crystal shows {periods:g} periods in {side:g} Å; allow larger pixels, or fewer periods"
            )
        out = {
            self.ids[i]: f"{periods:g} periods of {self.crystals[i].longest:.2f} Å are more than {side:g} Å"
            for i in np.flatnonzero(~fits)
        }
        keep = np.flatnonzero(fits)
        return type(self)(
            tuple(self.ids[i] for i in keep),
            tuple(self.groups[i] for i in keep),
            tuple(self.crystals[i] for i in keep),
            self.labels[keep],
            self.margins[keep],
            {**self.left_out, **out},
        )


def _each(crystals: Mapping[str, Atoms]) -> Iterable[tuple[str, str, Atoms | CrystalError]]:
    for identifier in crystals:
        try:
            atoms = crystals[identifier]
        except CrystalError as problem:
            yield identifier, "", problem
            continue
        yield identifier, atoms.get_chemical_formula(empirical=True), atoms


def _rows(
    source: str | Path, split: str, revision: str | None, limit: int | None
) -> Iterable[tuple[str, str, Atoms | CrystalError]]:
    table = load_dataset(str(source), "structures", revision=revision, split=split)
    table = table.select_columns(["id", "formula", "cell", "numbers", "positions"])
    for row in table.select(range(min(limit, len(table)))) if limit is not None else table:
        atoms = Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=(True, True, False))
        yield row["id"], row["formula"], atoms
