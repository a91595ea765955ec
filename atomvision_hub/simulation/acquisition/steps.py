"""Effects of a microscope on an image, each a small step with its physical parameters and units.

A step takes a `Frame` and a source of randomness and returns the frame that it leaves. Steps whose parameters
are zero return the frame they were given, so that an acquisition without effects is the ideal image to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.probe import probe_intensity
from atomvision_hub.simulation.arguments import finite

Array = npt.NDArray[np.float64]
_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))  # of a Gaussian: from full width at half maximum


@dataclass(frozen=True)
class Frame:
    """An image on its way through the microscope.

    Attributes
    ----------
    image
        Float64 [row, column]: Z**n/Å² up to the dose, then electrons a pixel, then counts of the detector.
    pixel_size
        Å/px along (rows, columns).
    margin
        Pixels (rows, columns) at each side that are cut off in the end; what drifts in comes from there.
    displacement
        Where the beam stands instead of on the pixel, Å (x, y) [row, column, 2]; None before any distortion.
    notes
        Values that a step chose and that are needed to understand the image, such as the scale of grey levels.
    """

    image: Array
    pixel_size: tuple[float, float]
    margin: tuple[int, int] = (0, 0)
    displacement: Array | None = None
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def inner(self) -> tuple[slice, slice]:
        """The part that is recorded."""
        rows, columns = self.image.shape
        return slice(self.margin[0], rows - self.margin[0]), slice(self.margin[1], columns - self.margin[1])


@dataclass(frozen=True, kw_only=True)
class Step:
    """Base of all steps.

    Attributes
    ----------
    name
        In recorded parameters and as the key of the step's own stream of random numbers.
    rank
        Place in the instrument: smaller comes first.
    """

    name: ClassVar[str]
    rank: ClassVar[int]

    def __post_init__(self) -> None:
        for one in fields(self):
            values = np.atleast_1d(getattr(self, one.name))
            if not all(finite(value.item()) for value in values):
                raise UsageError(f"{self.name}: {one.name} must be finite, not {getattr(self, one.name)!r}")
            if one.metadata.get("positive") and (values < 0).any():
                raise UsageError(
                    f"{self.name}: {one.name} must not be negative, not {getattr(self, one.name)!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return name and parameters as JSON values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"step": self.name} | {
            key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
        }

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return how far outside the view, in Å, the step may look."""
        del field_of_view
        return 0.0

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Return the frame after this step."""
        raise NotImplementedError


def _positive(default: Any) -> Any:
    return field(default=default, metadata={"positive": True})


def _blurred(frame: Frame, sigma: float) -> Frame:
    if sigma == 0:
        return frame
    widths = [sigma / step for step in frame.pixel_size]
    return replace(frame, image=ndimage.gaussian_filter(frame.image, widths, mode="nearest", truncate=5))


@dataclass(frozen=True, kw_only=True)
class Tilt(Step):
    """Tilt of the specimen about the axes of the image; acts on the crystal, so only `record_stem` knows it.

    Parameters
    ----------
    angles
        Degrees about the (x, y) axes: columns become lines, as `record_stem` turns the crystal in space.
    """

    name = "tilt"
    rank = 0
    angles: tuple[float, float] = (0.0, 0.0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Refuse: an image has no depth."""
        del generator
        if any(self.angles):
            raise UsageError("tilt acts on a crystal, not on an image; use record_stem instead of acquire")
        return frame


@dataclass(frozen=True, kw_only=True)
class Vibration(Step):
    """Thermal vibration: the time-averaged atom is its image convolved with a Gaussian (Debye-Waller).

    Parameters
    ----------
    rms
        Root mean square displacement along one axis, Å: B = 8 pi² rms² (Kirkland 2010, sec. 5.5 and app. C).
        One number for all elements; 0.05 to 0.1 Å at room temperature.
    """

    name = "vibration"
    rank = 1
    rms: float = _positive(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return five widths."""
        return 5 * self.rms

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Blur."""
        return _blurred(frame, self.rms)


@dataclass(frozen=True, kw_only=True)
class Probe(Step):
    """A real probe: incoherent imaging, the image is convolved with the probe's intensity.

    Give `simulate_stem` a narrow profile of the atoms then (``sigma=0.1``), else the width counts twice.

    Parameters
    ----------
    voltage
        kV.
    semi_angle
        Convergence semi-angle, mrad.
    defocus, astigmatism, astigmatism_angle
        C1 (Å, negative is underfocus), twofold astigmatism A1 (Å) and its direction (degrees).
    spherical
        C3, mm.
    """

    name = "probe"
    rank = 2
    voltage: float = 300.0
    semi_angle: float = _positive(0.0)
    defocus: float = 0.0
    astigmatism: float = _positive(0.0)
    astigmatism_angle: float = 0.0
    spherical: float = 0.0

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return where next to nothing of the probe is left: geometric blur and some Airy rings."""
        if self.semi_angle == 0:
            return 0.0
        angle = 1e-3 * self.semi_angle
        blur = angle * (abs(self.defocus) + self.astigmatism) + 1e7 * abs(self.spherical) * angle**3
        return float(blur + 5 * 12.4 / np.sqrt(1e3 * self.voltage) / angle / 10 + 1)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Convolve with the probe's intensity."""
        if self.semi_angle == 0:
            return frame
        image, sizes = frame.image, frame.pixel_size
        pad = [int(np.ceil(self.reach((0, 0)) / step)) for step in sizes]
        padded = np.pad(image, [(pad[0], pad[0]), (pad[1], pad[1])], mode="edge")
        kernel = probe_intensity(
            padded.shape,
            sizes,
            voltage=self.voltage,
            semi_angle=self.semi_angle,
            defocus=self.defocus,
            astigmatism=self.astigmatism,
            astigmatism_angle=self.astigmatism_angle,
            spherical=self.spherical,
        )
        full = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(kernel), padded.shape)
        rows, columns = image.shape
        # The kernel is nowhere negative: what is, is rounding.
        found = np.maximum(full[pad[0] : pad[0] + rows, pad[1] : pad[1] + columns], min(0.0, image.min()))
        return replace(frame, image=found)


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
    fwhm: float = _positive(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return five standard deviations."""
        return float(5 * self.fwhm * _TO_SIGMA)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Blur."""
        return _blurred(frame, float(self.fwhm * _TO_SIGMA))


@dataclass(frozen=True, kw_only=True)
class Contamination(Step):
    """A film of amorphous carbon and the like: a smooth, random, positive addition.

    Parameters
    ----------
    level
        Mean of the addition relative to the mean of the image.
    size
        Correlation length of its thickness, Å.
    """

    name = "contamination"
    rank = 4
    level: float = _positive(0.0)
    size: float = _positive(10.0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Add the film."""
        if self.level == 0:
            return frame
        noise = generator.standard_normal(frame.image.shape)
        smooth = ndimage.gaussian_filter(noise, [self.size / step for step in frame.pixel_size], mode="wrap")
        thickness = np.maximum(1 + 0.5 * smooth / max(float(smooth.std()), 1e-12), 0)
        thickness /= thickness[frame.inner].mean()
        return replace(frame, image=frame.image + self.level * frame.image[frame.inner].mean() * thickness)


@dataclass(frozen=True, kw_only=True)
class Background(Step):
    """A background that rises over the frame, as of a support or a wedge.

    Parameters
    ----------
    level
        Mean of the addition relative to the mean of the image.
    slope
        Rise from one side of the recorded frame to the other along (x, y), relative to the mean of the image;
        nowhere below zero.
    """

    name = "background"
    rank = 5
    level: float = _positive(0.0)
    slope: tuple[float, float] = (0.0, 0.0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Add the plane."""
        if self.level == 0 and not any(self.slope):
            return frame
        y, x = (
            (np.arange(n) - (n - 1) / 2) / max(1, n - 2 * m - 1)
            for n, m in zip(frame.image.shape, frame.margin, strict=True)
        )
        plane = self.level + self.slope[0] * x[None, :] + self.slope[1] * y[:, None]
        return replace(frame, image=frame.image + frame.image[frame.inner].mean() * np.maximum(plane, 0))


def _displaced(frame: Frame, x: Array, y: Array) -> Frame:
    before = frame.displacement if frame.displacement is not None else np.zeros((*frame.image.shape, 2))
    shape = frame.image.shape
    after = before + np.stack([np.broadcast_to(x, shape), np.broadcast_to(y, shape)], axis=-1)
    return replace(frame, displacement=after)


def _time(frame: Frame) -> tuple[Array, Array]:
    """Return the time of each pixel, 0..1 over the recorded frame: of its line, and within the line."""
    (rows, columns), (top, left) = frame.image.shape, frame.margin
    line = (np.arange(rows) - top) / max(1, rows - 2 * top - 1)
    within = (np.arange(columns) - left) / max(1, columns - 2 * left - 1)
    return np.clip(line, 0, 1), np.clip(within, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Drift(Step):
    """The specimen drifts at a constant speed while it is scanned line by line.

    Parameters
    ----------
    fraction
        Way over the whole frame, relative to the longer side of the view; its direction is random.
    """

    name = "drift"
    rank = 6
    fraction: float = _positive(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return the whole way."""
        return self.fraction * max(field_of_view)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Move the beam against the drift, relative to the specimen; nothing moves in the middle of the frame."""
        if self.fraction == 0:
            return frame
        angle = generator.uniform(0, 2 * np.pi)
        inner = frame.image[frame.inner].shape
        way = self.fraction * max(n * step for n, step in zip(inner, frame.pixel_size, strict=True))
        time = _time(frame)[0][:, None] - 0.5
        moved = _displaced(frame, way * np.cos(angle) * time, way * np.sin(angle) * time)
        return replace(moved, notes=frame.notes | {"drift_direction": float(np.degrees(angle))})


@dataclass(frozen=True, kw_only=True)
class LineJitter(Step):
    """Every scan line starts a little off, along x, independently (electronics, stray fields, sound).

    Parameters
    ----------
    rms
        Standard deviation, Å.
    """

    name = "line_jitter"
    rank = 7
    rms: float = _positive(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return five standard deviations."""
        return 5 * self.rms

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Draw an offset for every recorded line."""
        if self.rms == 0:
            return frame
        offsets = np.zeros(frame.image.shape[0])
        inner = frame.inner[0]
        offsets[inner] = self.rms * generator.standard_normal(len(offsets[inner]))
        return _displaced(frame, offsets[:, None], np.zeros((1, 1)))


@dataclass(frozen=True, kw_only=True)
class Flyback(Step):
    """After the jump back to the start of a line the beam lags behind and catches up exponentially.

    Parameters
    ----------
    lag
        How far it lags behind at the first pixel, Å.
    settling
        Part of the line after which 1/e of the lag is left.
    """

    name = "flyback"
    rank = 8
    lag: float = _positive(0.0)
    settling: float = _positive(0.03)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return the lag."""
        return self.lag

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Displace the start of every line."""
        if self.lag == 0:
            return frame
        if self.settling == 0:
            raise UsageError("flyback: settling must be positive, a part of the line")
        late = self.lag * np.exp(-_time(frame)[1] / self.settling)
        return _displaced(frame, -late[None, :], np.zeros((1, 1)))


@dataclass(frozen=True, kw_only=True)
class Scan(Step):
    """The recording itself: the image at the places where the beam stood, without the margin.

    Always there; resamples once for all distortions, by cubic splines.
    """

    name = "scan"
    rank = 9

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Sample and cut."""
        image = frame.image
        if frame.displacement is not None:
            rows, columns = np.indices(image.shape, dtype=float)
            (dy, dx), (x, y) = frame.pixel_size, np.moveaxis(frame.displacement, -1, 0)
            place = np.stack([rows + y / dy, columns + x / dx])[(slice(None), *frame.inner)]
            # Cubic splines overshoot by parts in a thousand; an intensity is not negative.
            sampled = ndimage.map_coordinates(image, place, order=3, mode="nearest")
            image = np.maximum(sampled, min(0.0, float(image.min())))
            displacement: Array | None = frame.displacement[frame.inner]
        else:
            image, displacement = image[frame.inner], None
        return replace(frame, image=image, margin=(0, 0), displacement=displacement)


@dataclass(frozen=True, kw_only=True)
class Dose(Step):
    """Electrons arrive one by one: Poisson statistics.

    Parameters
    ----------
    electrons
        Detected electrons per Å², mean over the frame. Of the incident ones a detector sees a part: divide by
        its collection efficiency (a few percent for HAADF of a monolayer) to get the incident dose.
    """

    name = "dose"
    rank = 10
    electrons: float = _positive(0.0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Turn intensity into electrons a pixel."""
        if self.electrons == 0:
            return frame
        mean = float(frame.image.mean())
        if not mean > 0:
            raise UsageError(
                "dose: the image holds no intensity (its mean is not positive), nothing to detect"
            )
        area = frame.pixel_size[0] * frame.pixel_size[1]
        expected = np.maximum(frame.image, 0) * (self.electrons * area / mean)
        notes = frame.notes | {"electrons_per_intensity": self.electrons * area / mean}
        return replace(frame, image=generator.poisson(expected).astype(np.float64), notes=notes)


@dataclass(frozen=True, kw_only=True)
class Detector(Step):
    """Gain, offset and readout noise of the detector's chain.

    Parameters
    ----------
    gain
        Counts an electron.
    offset
        Counts without any electron.
    noise
        Standard deviation of the readout, counts.
    """

    name = "detector"
    rank = 11
    gain: float = _positive(1.0)
    offset: float = 0.0
    noise: float = _positive(0.0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Amplify."""
        if self.gain == 1 and self.offset == 0 and self.noise == 0:
            return frame
        image = self.gain * frame.image + self.offset
        if self.noise:
            image = image + self.noise * generator.standard_normal(image.shape)
        return replace(frame, image=image)


@dataclass(frozen=True, kw_only=True)
class Digitise(Step):
    """Finite bit depth: the range of the frame is divided into equal steps, as acquisition software does.

    Parameters
    ----------
    bits
        Of a grey level; 0 keeps the numbers as they are.
    """

    name = "digitise"
    rank = 12
    bits: int = _positive(0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Round to whole grey levels 0 .. 2**bits - 1; `notes` tell scale and offset."""
        if self.bits == 0:
            return frame
        if self.bits > 32 or self.bits != int(self.bits):
            raise UsageError(f"digitise: bits must be a whole number up to 32, not {self.bits!r}")
        low, high = float(frame.image.min()), float(frame.image.max())
        scale = (high - low) / (2**self.bits - 1) or 1.0
        notes = frame.notes | {"level_scale": scale, "level_offset": low}
        return replace(frame, image=np.rint((frame.image - low) / scale), notes=notes)


#: All steps by name, in the order of the instrument.
STEPS: dict[str, type[Step]] = {
    kind.name: kind
    for kind in (
        Tilt,
        Vibration,
        Probe,
        SourceSize,
        Contamination,
        Background,
        Drift,
        LineJitter,
        Flyback,
        Scan,
        Dose,
        Detector,
        Digitise,
    )
}
