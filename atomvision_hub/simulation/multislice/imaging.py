"""Multislice STEM images in the same frames as those of the convolution approximation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.arguments import finite, image_shape, pair, pixel_sizes
from atomvision_hub.simulation.frame import CrystalFrame
from atomvision_hub.simulation.multislice.scan import PeriodScan, scan_period
from atomvision_hub.simulation.multislice.settings import Multislice
from atomvision_hub.simulation.projection import Pose, pose, project

if TYPE_CHECKING:
    from ase import Atoms

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MultisliceFrame(CrystalFrame):
    """A multislice image with its calibration, its targets and all that was chosen to make it.

    The image is the share of the beam that the detector collects, 0 to 1.

    Attributes
    ----------
    source_size
        Full width at half maximum of the electron source's image, Å.
    scan
        The period that the image was made of.
    """

    source_size: float
    scan: PeriodScan

    def parameters(self) -> dict[str, Any]:
        """Return what made the image, by name: its pose, the source, and the facts of the scan."""
        return {
            "pixel_size": np.array(self.pixel_size),
            "rotation": self.rotation,
            "shift": np.array(self.shift),
            "mask_radius": self.mask_radius,
            "multislice": {**self.scan.facts, "source_size": self.source_size},
        }


def simulate_multislice(
    atoms: Atoms,
    *,
    shape: tuple[int, int] = (256, 256),
    pixel_size: float | Sequence[float] | npt.NDArray[np.float64] = 0.1,
    rotation: float = 0.0,
    shift: Sequence[float] | npt.NDArray[np.float64] = (0.0, 0.0),
    center: tuple[float, float] | None = None,
    settings: Multislice | None = None,
    source_size: float = 0.0,
    mask_radius: float = 0.5,
    seed: int = 0,
    scan: PeriodScan | None = None,
) -> MultisliceFrame:
    """Simulate a STEM image of a crystal by multislice with frozen phonons.

    One period of the crystal is scanned (seconds to minutes on one core) and repeated over the view by its
    Fourier series, which is exact: the signal of a detector holds no frequency above twice the aperture. So
    rotation, shift and pixel size cost no new calculation when `scan` is handed over.

    Parameters
    ----------
    atoms
        Crystal that is periodic along two vectors in the xy plane, the beam along z, whole along z: a layer,
        or a slab of as many cells as the specimen is thick.
    shape, pixel_size, rotation, shift, center, mask_radius
        As of `simulate_stem`.
    settings
        Microscope and accuracy.
    source_size
        Full width at half maximum of the electron source's image, Å.
    seed
        Of the thermal displacements.
    scan
        What `scan_period` returned for the same crystal: nothing is calculated then.

    Raises
    ------
    MissingExtraError
        Where abTEM is not installed.
    UsageError
        When an argument makes no sense.
    CrystalError
        When the crystal has no atoms or is too large.
    """
    rows, columns = image_shape(shape)
    size = pixel_sizes(pixel_size)
    shift = pair("shift", shift, "Å (x, y)")
    if not finite(rotation):
        raise UsageError(f"rotation must be a finite number, not {rotation!r}")
    for name, value, least in (("mask_radius", mask_radius, 1e-9), ("source_size", source_size, 0.0)):
        if not (finite(value) and value >= least):
            raise UsageError(f"{name} must be a positive length in Å, not {value!r}")
    crystal = project(atoms, center=center)
    place = pose((rows, columns), size, float(rotation), shift)
    scan = scan or scan_period(atoms, settings, seed=seed)
    middle = np.zeros(2) if center is None else np.asarray(center, dtype=np.float64)
    return MultisliceFrame(
        image=_repeated(scan, source_size, (rows, columns), place, middle),
        pixel_size=size,
        rotation=float(rotation),
        shift=shift,
        mask_radius=float(np.float32(mask_radius)),
        source_size=float(source_size),
        scan=scan,
        _projection=crystal,
        _pose=place,
    )


def _repeated(
    scan: PeriodScan, source_size: float, shape: tuple[int, int], place: Pose, middle: Floats
) -> npt.NDArray[np.float32]:
    """Return the signal at the pixel centres."""
    frequencies, coefficients = scan.series(source_size)
    # Pixel -> coordinates in multiples of the cell: first + column * right + row * down.
    right, down = back = np.linalg.inv(place.matrix) @ (to_cell := np.linalg.inv(scan.cell))
    first = middle @ to_cell - place.origin @ back
    across = np.exp(2j * np.pi * np.outer(frequencies @ right, np.arange(shape[1])))
    along = np.exp(2j * np.pi * np.outer(frequencies @ down, np.arange(shape[0])))
    across *= (coefficients * np.exp(2j * np.pi * frequencies @ first))[:, None]
    image = along.T.real @ across.real - along.T.imag @ across.imag
    # A series through finitely many thermal configurations may dip below the dark of a hollow.
    return np.asarray(image.clip(min=0.0), dtype=np.float32)
