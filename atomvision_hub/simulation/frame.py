"""What every simulated image of a crystal carries: calibration, pose, table of atoms, masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from atomvision_hub.simulation.projection import Pose, Projection, points_in_view
from atomvision_hub.simulation.targets import ATOM_DTYPE, Table, disk_mask, overlap_columns


@dataclass(frozen=True, kw_only=True)
class CrystalFrame:
    """An image of a crystal in a known pose, with its targets.

    Attributes
    ----------
    image
        Intensity, float32 [row, column], row 0 at the top.
    atoms
        Table of the atoms whose mask disk touches the image: `x` (column) and `y` (row) in pixels, `z` in Å,
        `number`, `index` in the crystal, `column` (atoms with equal values overlap in projection: single
        linkage within 0.05 Å), `visible` (the centre lies inside the image).
    mask
        Whether a pixel's centre is within `mask_radius` of an atom, bool [row, column].
    pixel_size
        Å per pixel along (rows, columns).
    rotation
        Turn of the crystal from +x towards +y, in degrees.
    shift
        Shift of the crystal (x, y), in Å.
    mask_radius
        Radius of the mask's disks, in Å.
    """

    image: npt.NDArray[np.float32]
    pixel_size: tuple[float, float]
    rotation: float
    shift: tuple[float, float]
    mask_radius: float
    _projection: Projection
    _pose: Pose

    # Table and mask are made when asked for: rendering alone does not pay for them.
    @cached_property
    def atoms(self) -> Table:
        """Table of the atoms whose mask disk touches the image."""
        (height, width), (dy, dx), radius = self.image.shape, self.pixel_size, self.mask_radius
        crystal = self._projection
        view = points_in_view(
            crystal.points, crystal, self._pose, (height, width), (radius / dy, radius / dx)
        )
        table = np.empty(len(view.index), dtype=ATOM_DTYPE)
        table["x"], table["y"] = view.x, view.y
        table["z"] = crystal.heights[view.index] if view.z is None else view.z
        table["number"], table["index"] = crystal.numbers[view.index], view.index
        table["column"] = overlap_columns(view.x * dx, view.y * dy)
        x, y = table["x"], table["y"]
        table["visible"] = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        return table

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Whether a pixel's centre is within `mask_radius` of an atom, bool [row, column]."""
        return self._disks(self.atoms)

    def mask_of(self, number: int) -> npt.NDArray[np.bool_]:
        """Return the mask of one element, given by its atomic number, bool [row, column]."""
        return self._disks(self.atoms[self.atoms["number"] == number])

    def element_mask(self) -> npt.NDArray[np.uint8]:
        """Return the atomic number at every pixel, 0 for background; the heaviest where disks overlap."""
        elements = np.zeros(self.image.shape, dtype=np.uint8)
        for number in np.unique(self.atoms["number"]):
            elements[self.mask_of(number)] = number
        return elements

    def _disks(self, atoms: Table) -> npt.NDArray[np.bool_]:
        # Atoms on top of each other have one disk; pairs of float32 compare quickest as whole numbers.
        pairs = np.column_stack([atoms["x"], atoms["y"]]).view(np.int64)
        x, y = np.unique(pairs).view(np.float32).reshape(-1, 2).T
        rows, columns = self.image.shape
        return disk_mask(x, y, (rows, columns), self.pixel_size, self.mask_radius)
