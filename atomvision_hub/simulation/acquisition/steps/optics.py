"""Steps of the electron optics: the probe and the size of its source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from atomvision_hub.simulation.acquisition.probe import probe_intensity, wavelength
from atomvision_hub.simulation.acquisition.steps.base import Frame, Step, not_negative
from atomvision_hub.simulation.acquisition.steps.filters import blurred, filtered

#: Standard deviation of a Gaussian of full width at half maximum 1.
FWHM_TO_SIGMA = float(1 / (2 * np.sqrt(2 * np.log(2))))


@dataclass(frozen=True, kw_only=True)
class Probe(Step):
    """A real probe: incoherent imaging, the image is convolved with the probe's intensity.

    Give `simulate_stem` a narrow profile of the atoms then (``sigma=0.1``), else the width counts twice.

    Parameters
    ----------
    voltage
        kV.
    semi_angle
        Convergence semi-angle, mrad; 0 is no probe.
    defocus, astigmatism, astigmatism_angle
        C1 (Å, negative is underfocus), twofold astigmatism A1 (Å) and its direction (degrees, from x to y).
    spherical
        C3, mm.
    """

    name = "probe"
    rank = 2
    voltage: float = 300.0
    semi_angle: float = not_negative(0.0)
    defocus: float = 0.0
    astigmatism: float = not_negative(0.0)
    astigmatism_angle: float = 0.0
    spherical: float = 0.0

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return the radius of geometric blur and of the Airy rings that hold 98 % of the intensity."""
        if self.semi_angle == 0:
            return 0.0
        return self._blur + 5 * wavelength(self.voltage) / (1e-3 * self.semi_angle)

    @property
    def _blur(self) -> float:
        """Radius of the disk that geometrical optics gives, Å."""
        angle = 1e-3 * self.semi_angle
        return angle * (abs(self.defocus) + self.astigmatism) + 1e7 * abs(self.spherical) * angle**3

    @property
    def variance(self) -> float:
        """Of a Gaussian as high as the Airy pattern, and of the disk of geometrical optics."""
        if self.semi_angle == 0:
            return 0.0
        airy = (wavelength(self.voltage) / (1e-3 * self.semi_angle)) ** 2 / (2 * np.pi**2)
        return float(airy + self._blur**2 / 4)

    def transfer(self, shape: tuple[int, int], pixel_size: tuple[float, float]) -> npt.NDArray[np.complex128]:
        """Return the optical transfer function of a periodic frame, as `rfft2` orders it."""
        kernel = probe_intensity(
            shape,
            pixel_size,
            voltage=self.voltage,
            semi_angle=self.semi_angle,
            defocus=self.defocus,
            astigmatism=self.astigmatism,
            astigmatism_angle=self.astigmatism_angle,
            spherical=self.spherical,
        )
        return np.asarray(fft.rfft2(kernel))

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Convolve with the probe's intensity."""
        if self.semi_angle == 0:
            return frame
        reach = self.reach(frame.field_of_view)
        return filtered(frame, reach, lambda shape: self.transfer(shape, frame.pixel_size))


@dataclass(frozen=True, kw_only=True)
class SourceSize(Step):
    """Finite size of the electron source: its demagnified image blurs the scan (Gaussian).

    Parameters
    ----------
    fwhm
        Full width at half maximum, Å.
    """

    name = "source_size"
    rank = 3
    fwhm: float = not_negative(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return five standard deviations."""
        return 5 * self.fwhm * FWHM_TO_SIGMA

    @property
    def variance(self) -> float:
        """Of the Gaussian."""
        return (self.fwhm * FWHM_TO_SIGMA) ** 2

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Blur."""
        return blurred(frame, self.fwhm * FWHM_TO_SIGMA)
