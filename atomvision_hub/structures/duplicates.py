"""The same crystal under several names."""

from __future__ import annotations

import contextlib
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
#: Neighbours of a first look: its numbers are among those of the whole fingerprint, at a fraction of its
#: cost.
FIRST = 4
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
        candidates = _nearby(_alike(structures, members), FIRST, tolerance)
        for material_id, _, print_ in _nearby([entry[:2] for entry in candidates], NEIGHBOURS, tolerance):
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


def _nearby(
    layers: Sequence[tuple[str, ase.Atoms]], neighbours: int, tolerance: float
) -> list[tuple[str, ase.Atoms, Floats]]:
    """Return the layers whose fingerprint of so many neighbours is within `tolerance` of another one's."""
    if len(layers) < 2:
        return []
    found = []
    for material_id, layer in layers:
        with contextlib.suppress(np.linalg.LinAlgError):
            found.append((material_id, layer, fingerprint(layer, neighbours)))
    prints = np.array([entry[2] for entry in found])
    return [entry for entry in found if (np.abs(prints - entry[2]).max(axis=1) <= tolerance).sum() > 1]


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
    flat = atoms if is_flat(atoms) else flat_layer(atoms)
    numbers, positions, cell = flat.numbers, flat.positions, flat.cell.array[:2, :2]
    species = sorted(Counter(numbers.tolist()).items())
    extent = float(np.linalg.norm(np.ptp(positions[:, :2], axis=0)))
    area = abs(float(np.linalg.det(cell)))
    # As far as a disk with so many atoms of the rarest kind reaches on average; more where that is too
    # little.
    reach = 1.2 * np.sqrt((neighbours + 2) * area / (np.pi * min(n for _, n in species))) + extent
    while True:
        distances = _distances(
            numbers, positions, _disk(cell, reach), [number for number, _ in species], neighbours
        )
        # All atoms this near are there: their lattice vectors are no longer than `reach`.
        farthest = float(distances.max())
        if farthest <= reach - extent:
            break
        reach = farthest + extent + 1e-6 if np.isfinite(farthest) else 1.5 * reach
    parts = []
    for index, (second, _) in enumerate(species):
        for first, _ in species:
            mine = distances[index, numbers == first]
            # Without the atom itself.
            parts.append((mine[:, 1:] if first == second else mine[:, :-1]).mean(axis=0))
    return np.concatenate(parts)


def _distances(
    numbers: npt.NDArray[np.int64], positions: Floats, images: Floats, species: Sequence[int], neighbours: int
) -> Floats:
    """Return the distances of every atom to its nearest atoms, itself included: [species, atom, nearest]."""
    from scipy.spatial import cKDTree

    found = []
    for number in species:
        cloud = (positions[numbers == number][:, None, :] + images).reshape(-1, 3)
        found.append(cKDTree(cloud).query(positions, k=neighbours + 1)[0])
    return np.array(found)


def _disk(cell: Floats, radius: float) -> Floats:
    """Return all lattice vectors up to a length, shape (k, 3)."""
    (a, b), (c, d) = cell.tolist()
    area = abs(a * d - b * c)
    spans = [int(np.ceil(radius * np.hypot(*row) / area)) for row in ((c, d), (a, b))]
    grid = np.mgrid[-spans[0] : spans[0] + 1, -spans[1] : spans[1] + 1].reshape(2, -1).T
    vectors = np.zeros((len(grid), 3))
    vectors[:, :2] = grid @ cell
    return vectors[np.hypot(vectors[:, 0], vectors[:, 1]) <= radius]
