"""The same crystal under several names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import CrystalError
from atomvision_hub.structures.layer import flat_layer, is_flat
from atomvision_hub.structures.sources import Structures

Floats = npt.NDArray[np.float64]

#: Neighbours that the fingerprint looks at.
NEIGHBOURS = 40
#: Fingerprints that differ nowhere by more than this (Å) belong to one crystal. Relaxations of one material
#: by different functionals differ by more, and stay apart.
TOLERANCE = 0.02
#: Layers that differ by more than this in the logarithm of the area an atom, or in thickness (Å), are not the
#: same: a first, cheap look before fingerprints are made.
AREA_RATIO = 0.05
THICKNESS = 0.3


def duplicates(structures: Structures, ids: Sequence[str], tolerance: float = TOLERANCE) -> dict[str, str]:
    """Return which materials are others over again.

    Two materials are the same when their reduced formulas agree and so do their `fingerprint`. Cell, origin,
    rotation, mirror image, order of the atoms, vacuum and name do not matter. Only formulas that occur more
    than once are looked at. Materials that are not usable layers are never duplicates.

    Parameters
    ----------
    structures
        Crystals from `load_structures`.
    ids
        Materials to compare, in the order in which they are to be kept.
    tolerance
        Largest difference of any number of the fingerprints, in Å.

    Returns
    -------
    dict
        Id of the duplicate -> id of the first material that it repeats.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for material_id in ids:
        try:
            groups[structures.formula(material_id)].append(material_id)
        except CrystalError:
            continue
    found: dict[str, str] = {}
    for members in groups.values():
        kept: list[tuple[str, Floats]] = []
        for material_id, layer in _alike(structures, members):
            try:
                print_ = fingerprint(layer)
            except np.linalg.LinAlgError:
                continue
            for other, known in kept:
                if np.abs(known - print_).max() <= tolerance:
                    found[material_id] = other
                    break
            else:
                kept.append((material_id, print_))
    return found


def _alike(structures: Structures, members: Sequence[str]) -> list[tuple[str, ase.Atoms]]:
    """Return the layers that could repeat another of `members`: about its area an atom and its thickness.

    Much cheaper than fingerprints; those of layers beyond these bounds would differ by more than a tolerance.
    """
    if len(members) == 1:
        return []
    layers = []
    for material_id in members:
        try:
            layers.append((material_id, flat_layer(structures[material_id])))
        except CrystalError:
            continue
    if len(layers) < 2:
        return []
    area = np.log([abs(np.linalg.det(layer.cell.array[:2, :2])) / len(layer) for _, layer in layers])
    thickness = np.array([np.ptp(layer.positions[:, 2]) for _, layer in layers])
    near = np.abs(area[:, None] - area) <= AREA_RATIO
    near &= np.abs(thickness[:, None] - thickness) <= THICKNESS
    return [entry for entry, others in zip(layers, near.sum(axis=1), strict=True) if others > 1]


def fingerprint(atoms: ase.Atoms, neighbours: int = NEIGHBOURS) -> Floats:
    """Return numbers that are equal for equal layers, whatever their cell, and close for close ones.

    For each pair of elements: the distances from an atom of the first to its nearest atoms of the second,
    averaged over the atoms of the first. This is the average minimum distance of Widdowson, Mosca, Pulido,
    Kurlin & Cooper (MATCH 87, 529 (2022), doi:10.46793/match.87-3.529W), resolved by element. Elements are in
    the order of their atomic numbers. Mirror images have equal fingerprints.

    Parameters
    ----------
    atoms
        Two-dimensional crystal.
    neighbours
        Distances a pair of elements.

    Returns
    -------
    numpy.ndarray
        Shape (elements * elements * neighbours,), in Å.
    """
    from scipy.spatial import cKDTree

    flat = atoms if is_flat(atoms) else flat_layer(atoms)
    numbers, positions = flat.numbers, flat.positions
    counts = Counter(numbers.tolist())
    images = _disk(flat.cell.array[:2, :2], positions, min(counts.values()), neighbours)
    parts = []
    for second in sorted(counts):
        cloud = (positions[numbers == second][:, None, :] + images).reshape(-1, 3)
        distances, _ = cKDTree(cloud).query(positions, k=neighbours + 1)
        for first in sorted(counts):
            mine = distances[numbers == first]
            # Without the atom itself.
            parts.append((mine[:, 1:] if first == second else mine[:, :-1]).mean(axis=0))
    return np.concatenate(parts)


def _disk(cell: Floats, positions: Floats, rarest: int, neighbours: int) -> Floats:
    """Return lattice vectors, shape (k, 3), among which every atom finds its neighbours of every element."""
    (a, b), (c, d) = cell.tolist()
    area = abs(a * d - b * c)
    extent = np.ptp(positions, axis=0)
    # A disk that holds `neighbours` + 1 atoms of the rarest kind for certain: its area beside its rim of one
    # cell, seen from anywhere in the cell.
    rim = float(np.linalg.norm(cell, axis=1).sum() + np.linalg.norm(extent[:2]))
    radius = np.sqrt((neighbours + 2) * area / (np.pi * rarest)) + rim
    radius = float(np.hypot(radius, extent[2]))
    reach = radius + rim
    spans = [int(np.ceil(reach * np.hypot(*row) / area)) for row in ((c, d), (a, b))]
    grid = np.mgrid[-spans[0] : spans[0] + 1, -spans[1] : spans[1] + 1].reshape(2, -1).T
    vectors = np.zeros((len(grid), 3))
    vectors[:, :2] = grid @ cell
    return vectors[np.hypot(vectors[:, 0], vectors[:, 1]) <= reach]
