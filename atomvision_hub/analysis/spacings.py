"""Lattice spacings from the Fourier transform of an image (as in figure 11 of the AtomVision paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.spectrum import Peak, Spectrum, background, quantile_of_noise

_FALSE_ALARMS = 1e-3
_STREAK = 4.0
_NEAR = 10.0
_FINEST = 0.6
_MOST_PIXELS = 2**25


@dataclass(frozen=True)
class Spacing:
    """One set of lattice planes.

    Parameters
    ----------
    d
        Spacing in Å; in pixels where the image is not calibrated.
    uncertainty
        Standard uncertainty of `d` from noise and unevenness of the lattice, without calibration.
    calibration_uncertainty
        Part of `d` that the pixel size leaves open: all spacings of an image share its relative value.
    angle
        Direction of the planes' normal in degrees, 0 to 180, from +x (along columns) towards +y (down).
    angle_uncertainty
        Standard uncertainty of `angle`.
    vector
        1/Å (row, column); 1/px where the image is not calibrated.
    intensity
        Power of the wave, 1 for the strongest.
    snr
        Power of the peak over that of the noise beside it.
    unevenness
        1 where the lattice is even within the noise; above, how many times more its phase strays.
    """

    d: float
    uncertainty: float
    calibration_uncertainty: float
    angle: float
    angle_uncertainty: float
    vector: tuple[float, float]
    intensity: float
    snr: float
    unevenness: float

    @property
    def total_uncertainty(self) -> float:
        """Standard uncertainty of `d` with calibration."""
        return float(np.hypot(self.uncertainty, self.calibration_uncertainty))


@dataclass(frozen=True)
class Spacings:
    """The lattice planes that an image shows, strongest first; empty where it shows none.

    Parameters
    ----------
    peaks
        One a set of planes: of the two peaks at +q and -q one.
    pixel_size
        Å/px (row, column); `None` where the image is not calibrated.
    shape
        Rows and columns of the image.
    relative_calibration_uncertainty
        Standard uncertainty of the pixel size over the pixel size, as it was given.
    """

    peaks: tuple[Spacing, ...]
    pixel_size: tuple[float, float] | None
    shape: tuple[int, int]
    relative_calibration_uncertainty: float

    @property
    def unit(self) -> str:
        """Unit of lengths: ``"Å"``, or ``"px"`` without calibration."""
        return "px" if self.pixel_size is None else "Å"

    def to_dict(self) -> dict[str, Any]:
        """Return all in plain types, lengths in `unit`, for JSON."""
        return {
            "unit": self.unit,
            "pixel_size": self.pixel_size,
            "shape": self.shape,
            "relative_calibration_uncertainty": self.relative_calibration_uncertainty,
            "spacings": [
                {**peak.__dict__, "total_uncertainty": peak.total_uncertainty} for peak in self.peaks
            ],
        }


def lattice_spacings(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float] | None,
    *,
    calibration_uncertainty: float = 0.02,
    max_peaks: int = 12,
    max_spacing: float | None = None,
    min_spacing: float | None = None,
) -> Spacings:
    """Return the lattice planes that an image shows, with honest uncertainties.

    Maxima of the power spectrum under a Hann window that stand above what noise of the same power would show
    once in a thousand images; each refined on the continuous spectrum, its wave taken out before the next is
    sought. Streaks of edges and scan lines are passed over.

    Parameters
    ----------
    image
        Grey levels [row, column], at least 16 pixels a side; pixels that are not finite count as the mean.
    pixel_size
        Å/px, one number or (row, column); `None` gives lengths in pixels.
    calibration_uncertainty
        Relative standard uncertainty of the pixel size. Instrument files do not state it; 2 % is usual for a
        microscope that was not calibrated on a standard on the same day.
    max_peaks
        At most so many sets of planes.
    max_spacing, min_spacing
        Spacings to look for, in the unit of the result. By default up to a quarter of the shorter side, and
        down to two pixels or 0.6 Å, below which an image shows frequencies of the instrument and no lattice.

    Raises
    ------
    AnalysisError
        For what is no image, and for a pixel size that is no positive number.
    """
    grey = _grey(image)
    size = _sizes(pixel_size)
    spectrum = Spectrum(grey)
    scale = np.array(size if size is not None else (1.0, 1.0))
    if min_spacing is None and size is not None:
        min_spacing = _FINEST
    wanted = _wanted(spectrum, scale, max_spacing, min_spacing)
    waves = [
        _spacing(peak, scale, calibration_uncertainty if size else 0.0)
        for peak in _peaks(spectrum, wanted, max_peaks)
    ]
    strongest = max((power for _, power in waves), default=1.0)
    ranked = sorted(waves, key=lambda wave: -wave[1])
    peaks = tuple(Spacing(**{**facts, "intensity": power / strongest}) for facts, power in ranked)
    return Spacings(peaks, size, spectrum.shape, calibration_uncertainty if size else 0.0)


def _grey(image: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        numbers = np.asarray(image)
        grey = numbers.real.astype(np.float64)
        if np.iscomplexobj(numbers):
            raise TypeError
    except (TypeError, ValueError):
        raise AnalysisError("the image is no array of numbers; give grey levels [row, column]") from None
    if grey.size > _MOST_PIXELS:
        raise AnalysisError(f"the image has {grey.size:,} pixels, more than {_MOST_PIXELS:,}; crop or bin it")
    if grey.ndim != 2 or min(grey.shape) < 16:
        told = " x ".join(map(str, grey.shape))
        raise AnalysisError(f"the image is {told}; give grey levels [row, column], at least 16 x 16")
    finite = np.isfinite(grey)
    if not finite.any():
        raise AnalysisError("the image has no finite pixel")
    return np.where(finite, grey, grey[finite].mean())


def _sizes(pixel_size: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if pixel_size is None:
        return None
    sizes = np.broadcast_to(np.asarray(pixel_size, dtype=float), (2,))
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise AnalysisError(f"pixel_size is {pixel_size}; give Å/px above 0, one number or (row, column)")
    return float(sizes[0]), float(sizes[1])


def _wanted(
    spectrum: Spectrum, scale: npt.NDArray[np.float64], longest: float | None, shortest: float | None
) -> npt.NDArray[np.bool_]:
    """Return where peaks are sought: one of each pair +q, -q, four periods in view at least."""
    rows, columns = spectrum.shape
    y, x = spectrum.row_bins[:, None], spectrum.column_bins[None]
    q = np.hypot(y / rows / scale[0], x / columns / scale[1])
    longest = float((scale * spectrum.shape).min() / 4) if longest is None else longest
    half = (x > 0) | (y > 0)
    inside = (np.abs(y) < rows / 2 - 1) & (x < columns / 2 - 1)
    wanted = half & inside & (q >= 1 / longest)
    return np.asarray(wanted if shortest is None else wanted & (q <= 1 / shortest))


def _peaks(spectrum: Spectrum, wanted: npt.NDArray[np.bool_], limit: int) -> list[Peak]:
    """Return refined peaks, taking out one wave after the other."""
    # Power of shapes rises towards the origin, where few pixels tell how much of it is chance.
    threshold = quantile_of_noise(spectrum.shape, _FALSE_ALARMS) * (
        1 + (_NEAR / np.maximum(spectrum.radius, 1)) ** 2
    )
    wanted = wanted.copy()
    least = threshold * spectrum.noise
    seen = np.where(wanted & (spectrum.power >= least), spectrum.power, 0)
    found: list[Peak] = []
    for _ in range(8 * limit):
        row, column = (int(index) for index in np.unravel_index(int(np.argmax(seen)), seen.shape))
        if seen[row, column] == 0 or len(found) == limit:
            break
        # What is left beside a peak is its own shape: a small crystal, a bent lattice.
        _leave_out(wanted, row, column, 3 + 0.05 * spectrum.radius[row, column])
        noise = float(spectrum.noise[row, column])
        peak = None
        if not _is_streak(spectrum, row, column):
            peak = spectrum.refine((row, column), noise, uneven=False)
        if peak is None or peak.power < least[row, column]:
            seen[~wanted] = 0
            continue
        found.append(peak)
        spectrum.subtract(peak)
        seen = np.where(wanted & (spectrum.power >= least), spectrum.power, 0)
    # Without the waves the noise is known better: close to the origin a ring is hardly more than its peaks.
    floor = background(spectrum.power, spectrum.radius, spectrum.floor)
    return [again for peak in found if (again := _refined_alone(spectrum, peak, floor))]


def _leave_out(wanted: npt.NDArray[np.bool_], row: int, column: int, distance: float) -> None:
    """Leave out what is near a bin; rows go round."""
    reach = int(distance) + 1
    offsets = np.arange(-reach, reach + 1)
    columns = column + offsets
    columns = columns[(columns >= 0) & (columns < wanted.shape[1])]
    near = np.hypot(offsets[:, None], (columns - column)[None]) <= distance
    block = np.ix_((row + offsets) % len(wanted), columns)
    wanted[block] &= ~near


def _refined_alone(spectrum: Spectrum, peak: Peak, noise: npt.NDArray[np.float64]) -> Peak | None:
    """Return a peak refined once more where all other waves are out of the image."""
    rows, columns = spectrum.shape
    row, column = round(peak.frequency[0] * rows) % rows, round(peak.frequency[1] * columns)
    if column < 0:
        row, column = -row % rows, -column
    spectrum.add(peak)
    again = spectrum.refine((row, column), float(noise[row, column]))
    spectrum.add(peak if again is None else again, -1)
    return again


def _is_streak(spectrum: Spectrum, row: int, column: int) -> bool:
    """Tell whether a maximum lies on a ridge through the origin, as edges and scan lines make it."""
    here = np.array([spectrum.row_bins[row], spectrum.column_bins[column]])
    length = float(np.linalg.norm(here))
    offsets = np.arange(4, max(13, int(0.25 * length)))
    points = here + np.concatenate([-offsets, offsets])[:, None] * here / length
    rows, columns = spectrum.shape
    inside = (np.abs(points[:, 0]) < rows / 2 - 1) & (points[:, 1] < columns / 2 - 1) & (points[:, 1] >= 0)
    y, x = np.rint(points[inside]).astype(int).T
    ridge = float(np.median(spectrum.power[y % rows, x])) if len(y) > 3 else 0.0
    return ridge * _STREAK > float(spectrum.power[row, column])


def _spacing(peak: Peak, scale: npt.NDArray[np.float64], calibration: float) -> tuple[dict[str, Any], float]:
    """Return what `Spacing` needs of a peak, and the power of its wave."""
    q = peak.frequency / scale
    covariance = peak.covariance / np.outer(scale, scale)
    length = float(np.linalg.norm(q))
    along, across = q / length, np.array([-q[1], q[0]]) / length
    d = 1 / length
    facts = {
        "d": d,
        "uncertainty": float(d**2 * np.sqrt(along @ covariance @ along)),
        "calibration_uncertainty": d * calibration,
        "angle": float(np.degrees(np.arctan2(q[0], q[1])) % 180),
        "angle_uncertainty": float(np.degrees(np.sqrt(across @ covariance @ across) / length)),
        "vector": (float(q[0]), float(q[1])),
        "snr": peak.power / peak.noise,
        "unevenness": peak.unevenness,
    }
    return facts, float(abs(peak.amplitude) ** 2)
