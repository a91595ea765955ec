"""One flat layer out of a crystal: vacuum along z, in one piece."""

from __future__ import annotations

import math

import ase
import numpy as np
import numpy.typing as npt
from ase.data import covalent_radii

from atomvision_hub.errors import CrystalError
from atomvision_hub.structures.legacy import remember_source_cell, source_parameters
from atomvision_hub.structures.validity import complete_cell

Floats = npt.NDArray[np.float64]

#: An empty slab at least this thick (Å, between planes of atomic centres) is vacuum; gaps between the layers
#: of bulk crystals stay below it.
MIN_VACUUM = 5.0
#: Two parts of a structure are bonded when an atom pair is closer than this multiple of its covalent radii.
BOND_RATIO = 1.35
#: Height (Å) of the cell of layers that came without one, beyond their thickness.
_DEFAULT_VACUUM = 20.0
_FLAT = 1e-6  # Å out of the xy plane that are rounding


def flat_layer(atoms: ase.Atoms) -> ase.Atoms:
    """Return a two-dimensional crystal as one whole layer with its vacuum along z.

    The vacuum is found from the atoms: it may lie along any cell vector, which may be tilted, and the layer
    may be split over the boundary of the cell. In-plane vectors that lie in the xy plane already are kept as
    they are; others are turned into it by the smallest rotation. The layer is put in the middle of the cell's
    height.

    Parameters
    ----------
    atoms
        Crystal that passes `check_crystal`; not changed.

    Returns
    -------
    ase.Atoms
        Periodic along its first two vectors, the third is (0, 0, height). The legacy label stays
        that of the cell as it was given.

    Raises
    ------
    CrystalError
        With step ``"two-dimensional"`` when there is no vacuum (bulk), vacuum along several directions
        (wires, molecules), or more than one layer.
    """
    cell, periodic = atoms.cell.array, atoms.pbc
    basis = complete_cell(cell, periodic)
    inverse = np.linalg.inv(basis)
    fractions = atoms.positions @ inverse
    heights = 1.0 / np.sqrt((inverse**2).sum(axis=0))
    axis, start = _vacuum(fractions, heights, periodic)
    first, second = ((1, 2), (2, 0), (0, 1))[axis]
    if periodic[axis]:
        # Cut in the vacuum, not through the layer.
        fractions[:, axis] = (fractions[:, axis] - start) % 1.0
    positions = fractions @ basis
    u, v = basis[first], basis[second]
    if max(abs(u[2]), abs(v[2])) > _FLAT or axis != 2:
        turn = _turn(u, v)
        positions, u, v = positions @ turn, u @ turn, v @ turn
    z = positions[:, 2]
    low, high = float(z.min()), float(z.max())
    if periodic[axis]:
        height = float(heights[axis])
    else:
        height = max(float(np.linalg.norm(cell[axis])), high - low + _DEFAULT_VACUUM)
    positions[:, 2] += height / 2 - (low + high) / 2
    _refuse_several_layers(atoms.numbers, positions, np.array((u[:2], v[:2])))
    flat = ase.Atoms(
        numbers=atoms.numbers,
        positions=positions,
        cell=np.array(((u[0], u[1], 0.0), (v[0], v[1], 0.0), (0.0, 0.0, height))),
        pbc=(True, True, False),
        info=atoms.info,
    )
    remember_source_cell(flat, source_parameters(atoms))
    return flat


def _vacuum(fractions: Floats, heights: Floats, periodic: npt.NDArray[np.bool_]) -> tuple[int, float]:
    """Return the axis of the vacuum and the fraction along it at which the layer begins."""
    along = np.sort(fractions % 1.0, axis=0)
    gaps = np.empty_like(along)
    np.subtract(along[1:], along[:-1], out=gaps[:-1])
    gaps[-1] = along[0] + 1.0 - along[-1]
    last = gaps.argmax(axis=0).tolist()
    starts, widest = {}, 0.0
    for axis in range(3):
        if not periodic[axis]:
            starts[axis] = 0.0
            continue
        gap = float(gaps[last[axis], axis])
        width = gap * float(heights[axis])
        widest = max(widest, width)
        if width >= MIN_VACUUM:
            starts[axis] = float(along[last[axis], axis]) + gap / 2
    if not starts:
        raise CrystalError(
            f"not two-dimensional: the widest gap is {widest:.1f} Å, vacuum needs {MIN_VACUUM:g} Å (bulk?)",
            step="two-dimensional",
        )
    if len(starts) > 1:
        kind = "molecule or cluster" if len(starts) == 3 else "wire"
        raise CrystalError(
            f"not two-dimensional: vacuum along {len(starts)} directions ({kind})", step="two-dimensional"
        )
    return next(iter(starts.items()))


def _turn(u: Floats, v: Floats) -> Floats:
    """Return the matrix (for rows) of the smallest rotation that lays the plane of u and v into xy."""
    (ux, uy, uz), (vx, vy, vz) = u.tolist(), v.tolist()
    normal = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
    length = math.copysign(math.hypot(*normal), normal[2])
    x, y, z = (component / length for component in normal)
    w = 1.0 + z
    return np.array(((1 - x * x / w, -x * y / w, x), (-x * y / w, 1 - y * y / w, y), (-x, -y, z)))


def _refuse_several_layers(numbers: npt.NDArray[np.int64], positions: Floats, vectors: Floats) -> None:
    """Raise when a gap within the layer is bridged by no bond."""
    order = positions[:, 2].argsort()
    z = positions[order, 2]
    radii = covalent_radii[numbers[order]]
    gaps = z[1:] - z[:-1]
    # Bonds are at least this long, so smaller gaps need no look.
    shortest = BOND_RATIO * 2 * radii.min()
    if len(z) == 1 or gaps.max() <= shortest:
        return
    candidates = np.flatnonzero(gaps > shortest)
    inverse = np.linalg.inv(vectors)
    reach = BOND_RATIO * 2 * float(radii.max())
    spans = [math.ceil(reach * length) for length in np.sqrt((inverse**2).sum(axis=0)).tolist()]
    images = (
        np.mgrid[-spans[0] : spans[0] + 1, -spans[1] : spans[1] + 1].reshape(2, -1).T.astype(float) @ vectors
    )
    for gap in candidates.tolist():
        below, above = order[: gap + 1], order[gap + 1 :]
        offset = positions[below][:, None] - positions[above][None]
        flat = offset[..., :2] - np.rint(offset[..., :2] @ inverse) @ vectors
        squares = ((flat[:, :, None] + images) ** 2).sum(axis=-1).min(axis=-1) + offset[..., 2] ** 2
        bonds = BOND_RATIO * (radii[: gap + 1, None] + radii[None, gap + 1 :])
        if not (squares <= bonds**2).any():
            raise CrystalError(
                f"not one layer: parts {z[gap + 1] - z[gap]:.1f} Å apart without a bond",
                step="two-dimensional",
            )


def is_flat(atoms: ase.Atoms) -> bool:
    """Whether `atoms` comes from `flat_layer`: periodic in the xy plane only, third vector along z."""
    periodic, cell = atoms.pbc, atoms.cell.array
    return bool(
        periodic[0] and periodic[1] and not periodic[2] and not cell[:2, 2].any() and not cell[2, :2].any()
    )
