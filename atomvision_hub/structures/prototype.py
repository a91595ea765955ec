"""Structure prototypes: which materials share their atomic arrangement."""

from __future__ import annotations

import ase
import numpy as np

from atomvision_hub.structures.formula import anonymous_formula

#: Atoms may be off their symmetric places by this much (Å).
SYMMETRY_PRECISION = 0.05


def prototype_label(atoms: ase.Atoms) -> str:
    """Return the prototype of a flat layer, such as ``"AB2-187-bi"`` for 2H MoS2.

    Anonymous formula, space group of the layer in vacuum, Wyckoff letters (those of one element together).

    Parameters
    ----------
    atoms
        Layer from `flat_layer`.
    """
    import spglib

    cell = atoms.cell.array.copy()
    # The space group must not depend on the vacuum: a height that no symmetry can mistake for an edge.
    positions = atoms.positions
    cell[2, 2] = 2.0 * (np.ptp(positions[:, 2]) + np.abs(cell[:2, :2]).sum()) + 11.0
    fractions = positions @ np.linalg.inv(cell)
    dataset = spglib.get_symmetry_dataset((cell, fractions, atoms.numbers), symprec=SYMMETRY_PRECISION)
    formula = anonymous_formula(atoms.numbers.tolist())
    if dataset is None:
        return f"{formula}-1"
    letters: dict[int, set[tuple[int, str]]] = {}
    for number, orbit, letter in zip(
        atoms.numbers.tolist(), dataset.crystallographic_orbits.tolist(), dataset.wyckoffs, strict=True
    ):
        letters.setdefault(number, set()).add((orbit, letter))
    words = sorted("".join(sorted(letter for _, letter in orbits)) for orbits in letters.values())
    return f"{formula}-{dataset.number}-{''.join(words)}"
