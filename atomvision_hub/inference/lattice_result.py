"""What `analyze` tells about the lattice and the power spectrum: frozen dataclasses that become JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Pair = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle of the image whose lattice was fitted on its own.

    Parameters
    ----------
    left, top, width, height
        In pixels of the file.
    lattice, a, b, gamma
        Class and conventional cell as in `LatticeParameters`; ``None`` where no lattice fits.
    vectors
        Reduced basis ((x, y), (x, y)) in the unit of the image.
    score
        0 to 1: the share of its waves that the lattice explains.
    grain
        Number of the grain from 1: regions of one number share lattice and orientation. 0 without lattice.
    """

    left: int
    top: int
    width: int
    height: int
    lattice: str | None
    a: float | None
    b: float | None
    gamma: float | None
    vectors: tuple[Pair, Pair] | None
    score: float
    grain: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        values = {
            name: rounded(value) if isinstance(value, float) else value
            for name, value in self.__dict__.items()
        }
        values["vectors"] = (
            None if self.vectors is None else [list(map(rounded, row)) for row in self.vectors]
        )
        return values


@dataclass(frozen=True, kw_only=True)
class LatticeParameters:
    """The lattice that fits the image, with what is known about its errors.

    Errors are standard errors. They hold the noise of the image, the distortion that scans are assumed to
    have, and the scatter between parts of the image where several were measured; the calibration, which
    scales all lengths alike, stands apart.

    Parameters
    ----------
    lattice, probabilities
        Class, and class -> probability.
    a, b, gamma
        Conventional cell as measured, not made symmetric: edges a <= b in `unit`, angle in degrees from 90.
    a_error, b_error, gamma_error
        Standard errors without that of the calibration.
    calibration_error
        Relative standard error of the pixel size that is assumed; ``None`` without calibration.
    distortion
        Relative distortion of the scan that is assumed.
    scatter
        Standard deviations of a, b, gamma between parts of the image; ``None`` where fewer than three
        could be measured.
    unit
        ``"Å"`` or ``"px"``.
    vectors
        Edges of the conventional cell ((ax, ay), (bx, by)) in `unit`; x along columns, y down along rows.
    vectors_px
        The same in pixels of the file.
    origin
        (x, y) in pixels of a corner of a cell near the middle of what was fitted.
    periods
        How often a and b fit into what was fitted.
    score
        0 to 1: the share of the image's waves that the lattice explains.
    margin
        Smallest change of the vectors, in `unit`, that would change the class; 0 where the class needs
        the distortion.
    source
        ``"image"``: all of it; ``"middle"`` of a large image; ``"regions"``: where those that agree lie.
    box
        (left, top, width, height) of what was fitted, in pixels.
    """

    lattice: str
    probabilities: dict[str, float]
    a: float
    b: float
    gamma: float
    a_error: float
    b_error: float
    gamma_error: float
    calibration_error: float | None
    distortion: float
    scatter: tuple[float, float, float] | None
    unit: str
    vectors: tuple[Pair, Pair]
    vectors_px: tuple[Pair, Pair]
    origin: Pair
    periods: Pair
    score: float
    margin: float
    source: Literal["image", "middle", "regions"]
    box: tuple[int, int, int, int]

    @property
    def total_errors(self) -> tuple[float, float, float]:
        """Standard errors of a, b, gamma with that of the calibration, which changes no angle."""
        share = self.calibration_error or 0.0
        return (
            math.hypot(self.a_error, share * self.a),
            math.hypot(self.b_error, share * self.b),
            self.gamma_error,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON-ready values, with `total_errors`."""
        values: dict[str, Any] = plain(self.__dict__)
        return values | {"total_errors": [rounded(value) for value in self.total_errors]}


@dataclass(frozen=True, kw_only=True)
class SpectrumPeak:
    """A peak of the power spectrum; of +q and -q one.

    Parameters
    ----------
    h, k
        Indices on the conventional cell; ``None`` where no point of the fitted lattice is near, or none
        was fitted.
    x, y
        Position, 1/`unit`; x along columns, y along rows, downwards.
    error
        Standard error of the position, 1/`unit`, from noise and unevenness of the lattice.
    d, d_error
        Spacing and its standard error without calibration, in `unit`.
    intensity
        Power of the wave, 1 for the strongest.
    snr
        Power of the peak over that of the noise beside it.
    distance
        From the nearest point of the fitted lattice, 1/`unit`.
    """

    h: int | None
    k: int | None
    x: float
    y: float
    error: float
    d: float
    d_error: float
    intensity: float
    snr: float
    distance: float | None

    @property
    def label(self) -> str:
        """Indices as text, such as ``"1 -2"``, or nothing."""
        return "" if self.h is None else f"{self.h} {self.k}"


@dataclass(frozen=True, kw_only=True)
class PowerSpectrum:
    """Peaks of the power spectrum, strongest first.

    Parameters
    ----------
    peaks
        Those that noise would show in fewer than one of a thousand images, up to 24.
    box
        (left, top, width, height) of the part of the image, in pixels.
    unit
        Of lengths, ``"Å"`` or ``"px"``; positions are in 1/`unit`.
    resolution
        Size of a bin (x, y), 1/`unit`.
    """

    peaks: tuple[SpectrumPeak, ...]
    box: tuple[int, int, int, int]
    unit: str
    resolution: Pair

    @property
    def indexed(self) -> int:
        """How many peaks belong to the fitted lattice."""
        return sum(peak.h is not None for peak in self.peaks)

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON-ready values."""
        return {
            "unit": f"1/{self.unit}",
            "box": list(self.box),
            "resolution": [rounded(value) for value in self.resolution],
            "indexed": self.indexed,
            "peaks": [plain(peak.__dict__) for peak in self.peaks],
        }


def rounded(value: float | None, digits: int = 6) -> float | None:
    """Return a number with so many figures."""
    return None if value is None else float(f"{value:.{digits}g}")


def plain(value: Any) -> Any:
    """Return mappings, sequences and numbers as JSON has them, numbers with six figures."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    return rounded(value) if isinstance(value, float) else value
