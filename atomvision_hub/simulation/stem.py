"""STEM images of crystals in the convolution approximation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.arguments import finite, image_shape, pair, pixel_sizes
from atomvision_hub.simulation.frame import CrystalFrame
from atomvision_hub.simulation.projection import points_in_view, pose, project
from atomvision_hub.simulation.psf import RadialPSF, as_psf
from atomvision_hub.simulation.render import render

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, kw_only=True)
class StemFrame(CrystalFrame):
    """A simulated image with its calibration, its targets and all that was chosen to make it.

    The image is in Z**z_exponent per Å².

    Attributes
    ----------
    z_exponent
        Exponent of the atomic number.
    psf
        Point-spread function.
    """

    z_exponent: float
    psf: RadialPSF

    def parameters(self) -> dict[str, Any]:
        """Return the columns of a `StemRow` that say how the image was made, by name.

        They are arguments of `simulate_stem`: ``simulate_stem(atoms, shape=..., **frame.parameters())`` gives
        the same image.
        """
        return {
            "pixel_size": np.array(self.pixel_size),
            "rotation": self.rotation,
            "shift": np.array(self.shift),
            "z_exponent": self.z_exponent,
            "psf": str(self.psf),
            "mask_radius": self.mask_radius,
        }


def simulate_stem(
    atoms: Atoms,
    *,
    shape: tuple[int, int] = (256, 256),
    pixel_size: float | Sequence[float] | npt.NDArray[np.float64] = 0.1,
    rotation: float = 0.0,
    shift: Sequence[float] | npt.NDArray[np.float64] = (0.0, 0.0),
    center: tuple[float, float] | None = None,
    thickness: float | None = None,
    z_exponent: float = 1.7,
    psf: str | RadialPSF | Callable[[npt.NDArray[np.float64]], npt.ArrayLike] = "gaussian",
    sigma: float = 0.5,
    mask_radius: float = 0.5,
) -> StemFrame:
    """Simulate a STEM image (HAADF contrast) in the convolution approximation.

    The projected crystal is convolved with the intensity profile of the probe::

        I(r) = sum over atoms of  Z**z_exponent * psf(|r - r_atom|)

    evaluated at the pixel centres with exact atom positions; every atom counts, overlapping ones add, and
    atoms outside the image contribute as far as the point-spread function reaches. As the psf is normalised,
    the integral of I over a period of the crystal is its sum of Z**z_exponent. No channelling, no thermal or
    detector effects.

    Parameters
    ----------
    atoms
        Any crystal or cluster, the beam along z; it repeats where ``atoms.pbc`` says so.
    shape
        Rows and columns.
    pixel_size
        Å per pixel, one number or (row, column).
    rotation
        Turn of the crystal about the image centre in degrees, from +x (columns) towards +y (rows, downwards).
    shift
        Shift (x, y) of the crystal after the turn, in Å.
    center
        Cartesian point (x, y), in Å, that an unshifted image shows in its centre, which is the pixel
        ``((columns - 1) / 2, (rows - 1) / 2)``. By default the origin along periodic directions and the
        middle of the bounding box along others, so that the image does not depend on the choice of the cell.
    thickness
        For crystals that repeat along all three cell vectors: the atoms with ``0 <= z < thickness`` (Å). By
        default one period along the third vector.
    z_exponent
        Exponent of the atomic number: 2 for pure Rutherford scattering, 1.6 to 1.9 for annular detectors.
    psf
        ``"gaussian"`` of width `sigma`, ``"jarvis"``, a text that `parse_psf` reads, a `RadialPSF`, or a
        function of the radius (Å). All are scaled to an integral of one.
    sigma
        Standard deviation of the ``"gaussian"``, in Å.
    mask_radius
        Radius of the disks of `StemFrame.mask`, in Å.

    Raises
    ------
    UsageError
        When an argument makes no sense.
    CrystalError
        When there are no atoms, or positions are not finite.

    References
    ----------
    Exponent 1.7 and convolution approximation: K. Choudhary et al., AtomVision, J. Chem. Inf. Model. 2023,
    doi 10.1021/acs.jcim.2c01533. Background: E. J. Kirkland, Advanced Computing in Electron Microscopy,
    Springer 2010; incoherent imaging: S. J. Pennycook and D. E. Jesson, Phys. Rev. Lett. 64, 938 (1990).
    """
    rows, columns = image_shape(shape)
    size = pixel_sizes(pixel_size)
    shift = pair("shift", shift, "Å (x, y)")
    for name, value in (("rotation", rotation), ("z_exponent", z_exponent), ("mask_radius", mask_radius)):
        if not finite(value):
            raise UsageError(f"{name} must be a finite number, not {value!r}")
    if mask_radius <= 0:
        raise UsageError(f"mask_radius must be positive, in Å, not {mask_radius!r}")
    profile = as_psf(psf, sigma)
    crystal = project(atoms, center=center, thickness=thickness)
    place = pose((rows, columns), size, float(rotation), shift)
    points, which = crystal.overlapping()
    margin = profile.reach / size[0], profile.reach / size[1]
    view = points_in_view(points, crystal, place, (rows, columns), margin)
    atom_weights = crystal.numbers.astype(np.float64) ** z_exponent
    weights = np.asarray(np.bincount(which, atom_weights), dtype=np.float64)[view.index]
    return StemFrame(
        image=render(view.x, view.y, weights, profile, (rows, columns), size),
        pixel_size=size,
        rotation=float(rotation),
        shift=shift,
        z_exponent=float(z_exponent),
        psf=profile,
        # As a row stores it, so that the mask follows from the row to the last pixel.
        mask_radius=float(np.float32(mask_radius)),
        _projection=crystal,
        _pose=place,
    )
