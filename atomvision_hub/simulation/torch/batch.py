"""Crystals of different size in one batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.projection import Array, Projection, project

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, slots=True)
class CrystalBatch:
    """Projected crystals, padded to the largest.

    Attributes
    ----------
    positions
        Points on the image plane relative to the one that an unshifted image shows in its centre,
        (batch, atoms, 2), in Å.
    numbers
        Atomic numbers, (batch, atoms), 0 where padded.
    occupancies
        Factor of each atom's weight, (batch, atoms).
    translations
        Vectors that repeat the atoms, (batch, 2, 2) in Å, rows; zero where nothing repeats.
    """

    positions: Tensor
    numbers: Tensor
    occupancies: Tensor
    translations: Tensor

    @classmethod
    def from_atoms(
        cls,
        crystals: Sequence[Atoms],
        *,
        join_overlapping: bool = False,
        device: torch.device | str | None = None,
    ) -> CrystalBatch:
        """Return crystals as a batch, each seen as `simulate_stem` sees it.

        Parameters
        ----------
        crystals
            Crystals or clusters, the beam along z.
        join_overlapping
            Whether atoms of one element on top of each other become one atom of their joint occupancy:
            quicker (by a third for MoS2), but the atoms no longer correspond to those of the crystal.
        device
            Where the tensors go.

        Raises
        ------
        UsageError
            When there are no crystals.
        CrystalError
            When one of them cannot be used.
        """
        if not crystals:
            raise UsageError("a batch needs at least one crystal; the list is empty")
        flat = [_flatten(project(atoms), join=join_overlapping) for atoms in crystals]
        most = max(len(numbers) for _, numbers, _, _ in flat)
        positions, numbers = np.zeros((len(flat), most, 2)), np.zeros((len(flat), most), dtype=np.int64)
        occupancies, translations = np.zeros((len(flat), most)), np.zeros((len(flat), 2, 2))
        for i, (points, elements, counts, steps) in enumerate(flat):
            positions[i, : len(points)], numbers[i, : len(points)] = points, elements
            occupancies[i, : len(points)], translations[i, : len(steps)] = counts, steps
        arrays = (positions, numbers, occupancies, translations)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def to(self, device: torch.device | str) -> CrystalBatch:
        """Return the batch on another device."""
        tensors = (self.positions, self.numbers, self.occupancies, self.translations)
        return CrystalBatch(*(tensor.to(device) for tensor in tensors))

    def __len__(self) -> int:
        return len(self.numbers)


def _flatten(crystal: Projection, *, join: bool) -> tuple[Array, npt.NDArray[np.int64], Array, Array]:
    """Return points, numbers, occupancies and translations of one crystal."""
    if not join:
        return crystal.points, crystal.numbers, np.ones(len(crystal.numbers)), crystal.translations
    points, which = crystal.overlapping()
    sites, counts = np.unique(np.stack([which, crystal.numbers]), axis=1, return_counts=True)
    return points[sites[0]], sites[1], counts.astype(np.float64), crystal.translations
