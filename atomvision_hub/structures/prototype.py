"""Structure prototypes: which materials share their atomic arrangement."""

from __future__ import annotations

import os
from collections import Counter

import ase
import numpy as np

from atomvision_hub.structures.formula import anonymous_formula

#: Atoms may be off their symmetric places by this much (Å).
SYMMETRY_PRECISION = 0.05
# spglib tells on stderr when it has to tighten its precision, which it then does.
os.environ.setdefault("SPGLIB_WARNING", "OFF")


def prototype_label(atoms: ase.Atoms) -> str:
    """Return the prototype of a flat layer, such as ``"AB2-78-1-2"`` for 2H MoS2.

    Anonymous formula, number of the layer group (International Tables E: 78 is p-6m2), and for each element
    the numbers of symmetry-equivalent atoms in a primitive cell, sets of one element joined by ``+``. Wyckoff
    letters would depend on the choice of the origin; this label does not.

    Parameters
    ----------
    atoms
        Layer from `flat_layer`.
    """
    import spglib

    numbers = atoms.numbers.tolist()
    formula = anonymous_formula(numbers)
    cell = atoms.cell.array
    fractions = atoms.positions @ np.linalg.inv(cell)
    dataset = spglib.get_symmetry_layerdataset(
        (cell, fractions, numbers), aperiodic_dir=2, symprec=SYMMETRY_PRECISION
    )
    if dataset is None:
        group, orbits, copies = 1, range(len(numbers)), 1
    else:
        group, orbits = dataset.number, dataset.crystallographic_orbits.tolist()
        copies = len(numbers) // (int(dataset.mapping_to_primitive.max()) + 1)
    sizes: dict[int, list[int]] = {}
    for (number, _), size in Counter(zip(numbers, orbits, strict=True)).items():
        sizes.setdefault(number, []).append(size // copies)
    words = sorted((sum(counts), sorted(counts)) for counts in sizes.values())
    return "-".join([formula, str(group), *("+".join(map(str, counts)) for _, counts in words)])
