"""Intensity of an aberrated electron probe."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError


def wavelength(voltage: float) -> float:
    """Return the relativistic wavelength of electrons in Å.

    ``h c / sqrt(V (2 m c² + V))`` with h c = 12.3984 keV Å and m c² = 510.999 keV (CODATA 2018).

    Parameters
    ----------
    voltage
        kV.
    """
    if not voltage > 0:
        raise UsageError(f"the voltage must be positive, in kV, not {voltage!r}")
    return float(12.398419843 / np.sqrt((2 * 510.99895 + voltage) * voltage))


def probe_intensity(
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    *,
    voltage: float,
    semi_angle: float,
    defocus: float = 0.0,
    astigmatism: float = 0.0,
    astigmatism_angle: float = 0.0,
    spherical: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Return the intensity of a probe, centred on pixel (0, 0) of a periodic frame, with sum 1.

    ``|FT[A(k) exp(-i chi(k))]|²`` with an aperture A of radius ``semi_angle / wavelength`` and::

        chi = pi lambda k² (C1 + A1 cos 2(phi - phi_A)) + pi/2 C3 lambda³ k⁴

    as in E. J. Kirkland, Advanced Computing in Electron Microscopy, Springer 2010, chapters 2 and 3, who
    writes -defocus for C1: a positive C1 is overfocus. Without aberrations it is the Airy pattern.

    Parameters
    ----------
    shape
        Rows and columns.
    pixel_size
        Å/px along (rows, columns).
    voltage, semi_angle
        kV, mrad.
    defocus, astigmatism, astigmatism_angle, spherical
        C1 and A1 in Å, degrees, C3 in mm.

    Raises
    ------
    UsageError
        When the pixels are too coarse for the probe.
    """
    length = wavelength(voltage)
    largest = 1e-3 * semi_angle / length
    # The intensity holds frequencies up to twice the aperture.
    if 2 * largest > 0.5 / max(pixel_size):
        raise UsageError(
            f"a probe of {semi_angle:g} mrad at {voltage:g} kV needs pixels of {0.25 / largest:.3g} Å "
            f"or finer, not {max(pixel_size):g}"
        )
    ky, kx = (np.fft.fftfreq(n, step) for n, step in zip(shape, pixel_size, strict=True))
    k2 = np.asarray(ky[:, None] ** 2 + kx[None, :] ** 2)
    angle = np.arctan2(ky[:, None], kx[None, :]) - np.radians(astigmatism_angle)
    chi = np.pi * length * k2 * (defocus + astigmatism * np.cos(2 * angle))
    chi += 0.5 * np.pi * (1e7 * spherical) * length**3 * k2**2
    # The rim of the aperture is softened by a pixel of reciprocal space: no steps with the frame's size.
    rim = 1 / max(n * step for n, step in zip(shape, pixel_size, strict=True))
    aperture = np.clip(0.5 + (largest - np.sqrt(k2)) / rim, 0, 1)
    wave = np.fft.ifft2(aperture * np.exp(-1j * chi))
    intensity = wave.real**2 + wave.imag**2
    return np.asarray(intensity / intensity.sum())
