"""Peaks of the power spectrum with their indices on the fitted lattice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import Spacing, lattice_spacings
from atomvision_hub.inference.lattice_result import LatticeParameters, PowerSpectrum, SpectrumPeak

Array = npt.NDArray[np.float64]

#: Most peaks that are told.
MOST_PEAKS = 24
#: Most pixels a side of what is transformed: more periods than distortions let add up.
_SIDE = 640
#: How far a peak may be from a point of the lattice: bins, part of its own length, and part of the way to the
#: next point, all of which a distorted lattice stays within.
_BINS, _RELATIVE, _BETWEEN = 1.0, 0.04, 0.3
#: Peaks within so many degrees of one line are fringes of one set of planes.
_ONE_LINE = 4.0


def power_spectrum(
    values: npt.NDArray[Any],
    pixel_size: tuple[float, float] | None,
    lattice: LatticeParameters | None,
) -> PowerSpectrum:
    """Return the peaks of the power spectrum of the middle of what the lattice was fitted to.

    Parameters
    ----------
    values
        Finite grey levels [row, column].
    pixel_size
        Å/px (row, column); ``None`` gives 1/px.
    lattice
        Where it was fitted, and how the peaks are indexed; without it the middle, and no indices.
    """
    rows, columns = values.shape
    left, top, width, height = (0, 0, columns, rows) if lattice is None else lattice.box
    wide, high = min(width, _SIDE), min(height, _SIDE)
    box = left + (width - wide) // 2, top + (height - high) // 2, wide, high
    part = values[box[1] : box[1] + high, box[0] : box[0] + wide]
    scale = np.array((1.0, 1.0) if pixel_size is None else pixel_size)
    longest = float((scale * part.shape).min()) / 2.5
    found = lattice_spacings(part, pixel_size, max_peaks=MOST_PEAKS, max_spacing=longest)
    resolution = float(1 / (scale[1] * wide)), float(1 / (scale[0] * high))
    basis = None if lattice is None else np.array(lattice.vectors)
    return PowerSpectrum(
        peaks=tuple(_indexed(peak, basis, resolution, lattice) for peak in found.peaks),
        box=box,
        unit=found.unit,
        resolution=resolution,
    )


def _indexed(
    peak: Spacing,
    basis: Array | None,
    resolution: tuple[float, float],
    lattice: LatticeParameters | None,
) -> SpectrumPeak:
    y, x = peak.vector
    h = k = distance = None
    if basis is not None and lattice is not None:
        place = np.array([x, y])
        whole = np.rint(basis @ place)
        if lattice.lattice == "centered_rectangular" and whole.sum() % 2:
            whole = _allowed(basis @ place, whole)
        # Rows of the inverse transpose are the reciprocal vectors.
        reciprocal = np.linalg.inv(basis).T
        distance = float(np.hypot(*(place - whole @ reciprocal)))
        length = float(np.hypot(x, y))
        reach = max(_BINS * max(resolution), _RELATIVE * length)
        between = _BETWEEN * float(np.hypot(*reciprocal.T).min())
        if whole.any() and distance <= min(reach, between):
            h, k = (int(n) for n in whole)
            if h < 0 or (h == 0 and k < 0):
                h, k, x, y = -h, -k, -x, -y
    return SpectrumPeak(
        h=h,
        k=k,
        x=x,
        y=y,
        error=peak.uncertainty / peak.d**2,
        d=peak.d,
        d_error=peak.uncertainty,
        intensity=peak.intensity,
        snr=peak.snr,
        distance=distance,
    )


def _allowed(place: Array, whole: Array) -> Array:
    """Return the nearest indices with an even sum: a centred lattice has no others."""
    left = place - whole
    axis = int(np.abs(left).argmax())
    step = np.zeros(2)
    step[axis] = 1.0 if left[axis] >= 0 else -1.0
    return np.asarray(whole + step)


def fringes(spectrum: PowerSpectrum) -> float | None:
    """Return the spacing of the strongest planes if all peaks lie on one line through the origin."""
    if not spectrum.peaks:
        return None
    angles = np.array([np.arctan2(peak.y, peak.x) for peak in spectrum.peaks])
    apart = np.angle(np.exp(2j * (angles - angles[0]))) / 2
    return spectrum.peaks[0].d if bool((np.abs(np.degrees(apart)) <= _ONE_LINE).all()) else None
