"""Effects of a microscope on an image, each a small step with its physical parameters and units.

A step takes a `Frame` and a source of randomness and returns the frame that it leaves. Steps whose strength
is zero return the frame they were given, so that an acquisition without effects is the ideal image to the
bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.probe import probe_intensity, wavelength
from atomvision_hub.simulation.arguments import finite

Array = npt.NDArray[np.float64]
#: Standard deviation of a Gaussian of full width at half maximum 1.
FWHM_TO_SIGMA = float(1 / (2 * np.sqrt(2 * np.log(2))))
#: Plane waves that make up a film of contamination.
FILM_WAVES = 256
#: More electrons a pixel than this are no counting statistics any more, and none that can be drawn.
_MOST_ELECTRONS = 1e15


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
        Values that a step chose and that are needed to understand the image, such as the scale of levels.
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

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Å along (rows, columns) of the part that is recorded."""
        rows, columns = self.image[self.inner].shape
        return rows * self.pixel_size[0], columns * self.pixel_size[1]


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
            value = getattr(self, one.name)
            pair = "tuple" in str(one.type)
            values = list(value) if isinstance(value, (tuple, list)) else [value]
            if isinstance(value, (tuple, list)) != pair or len(values) != (2 if pair else 1):
                wanted = "two numbers" if pair else "one number"
                raise UsageError(f"{self.name}: {one.name} must be {wanted}, not {value!r}")
            if not all(finite(number) for number in values):
                raise UsageError(f"{self.name}: {one.name} must be finite, not {value!r}")
            if one.metadata.get("positive") and min(values) < 0:
                raise UsageError(f"{self.name}: {one.name} must not be negative, not {value!r}")
            # Plain numbers, so that steps compare and go to JSON whatever they were made from.
            plain = [int(n) if one.type == "int" and n == int(n) else float(n) for n in values]
            object.__setattr__(self, one.name, tuple(plain) if pair else plain[0])

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

    @property
    def variance(self) -> float:
        """By how much an atom's image grows: mean square of the blur along one axis, Å²."""
        return 0.0

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Return the frame after this step."""
        raise NotImplementedError


def _positive(default: Any) -> Any:
    return field(default=default, metadata={"positive": True})


def _filtered(frame: Frame, reach: float, transfer: Callable[[tuple[int, int]], npt.NDArray[Any]]) -> Frame:
    """Multiply the spectrum of an image, repeated outwards at its edges as far as the filter reaches (Å).

    `transfer` takes a shape and returns the factors in the order of `scipy.fft.rfft2`.
    """
    image, sizes = frame.image, frame.pixel_size
    pad = [int(np.ceil(reach / step)) for step in sizes]
    (rows, columns), (top, left) = image.shape, pad
    shape = (
        fft.next_fast_len(rows + 2 * top, real=True),
        fft.next_fast_len(columns + 2 * left, real=True),
    )
    sides = [(top, shape[0] - rows - top), (left, shape[1] - columns - left)]
    spectrum = fft.rfft2(np.pad(image, sides, mode="edge")) * transfer(shape)
    full = fft.irfft2(spectrum, shape)[top : top + rows, left : left + columns]
    # No filter here makes anything negative: what is, is rounding or the ringing of single bright pixels.
    return replace(frame, image=np.maximum(full, min(0.0, float(image.min()))))


def _blurred(frame: Frame, sigma: float) -> Frame:
    """Convolve with a Gaussian: its transfer function is exact also where it is narrower than a pixel."""
    if sigma == 0:
        return frame

    def transfer(shape: tuple[int, int]) -> Array:
        ky = fft.fftfreq(shape[0], frame.pixel_size[0])[:, None]
        kx = fft.rfftfreq(shape[1], frame.pixel_size[1])
        return np.asarray(np.exp(-2 * (np.pi * sigma) ** 2 * (ky**2 + kx**2)))

    return _filtered(frame, 5 * sigma, transfer)


@dataclass(frozen=True, kw_only=True)
class Tilt(Step):
    """Tilt of the specimen about the axes of the image; acts on the crystal, so only `record_stem` knows it.

    Parameters
    ----------
    angles
        Degrees about the image's (x, y) axes: columns of atoms become lines, distances foreshorten.
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
        Root mean square displacement along one axis, Å; the Debye-Waller factor is B = 8 pi² rms². One number
        for all elements; B of 0.2 to 0.8 Å², usual at room temperature, is 0.05 to 0.1 Å.
    """

    name = "vibration"
    rank = 1
    rms: float = _positive(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return five widths."""
        return 5 * self.rms

    @property
    def variance(self) -> float:
        """Of the Gaussian."""
        return self.rms**2

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
        Convergence semi-angle, mrad; 0 is no probe.
    defocus, astigmatism, astigmatism_angle
        C1 (Å, negative is underfocus), twofold astigmatism A1 (Å) and its direction (degrees, from x to y).
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
        return _filtered(frame, reach, lambda shape: self.transfer(shape, frame.pixel_size))


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
        return 5 * self.fwhm * FWHM_TO_SIGMA

    @property
    def variance(self) -> float:
        """Of the Gaussian."""
        return (self.fwhm * FWHM_TO_SIGMA) ** 2

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Blur."""
        return _blurred(frame, self.fwhm * FWHM_TO_SIGMA)


@dataclass(frozen=True, kw_only=True)
class Contamination(Step):
    """A film of amorphous carbon and the like on the specimen: a smooth, random, positive addition.

    Its thickness is ``max(0, 1 + g / 2)`` with a Gaussian random field g of variance 1 and autocorrelation
    ``exp(-r² / 2 size²)``, made of plane waves.

    Parameters
    ----------
    level
        Mean of the addition relative to the mean of the image.
    size
        Correlation length of the thickness, Å.
    """

    name = "contamination"
    rank = 4
    level: float = _positive(0.0)
    size: float = _positive(10.0)

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Add the film."""
        if self.level == 0:
            return frame
        if self.size == 0:
            raise UsageError("contamination: size must be positive, in Å")
        # Waves in the coordinates of the view: the film does not depend on how wide the margin is.
        waves = generator.standard_normal((2, FILM_WAVES)) / self.size
        phases = generator.uniform(0, 2 * np.pi, FILM_WAVES)
        y, x = (
            (np.arange(n) - (n - 1) / 2) * step
            for n, step in zip(frame.image.shape, frame.pixel_size, strict=True)
        )
        along_rows = np.exp(1j * (y[:, None] * waves[1] + phases))
        along_columns = np.exp(1j * (waves[0][:, None] * x))
        thickness = np.maximum(
            1 + 0.5 * np.sqrt(2 / FILM_WAVES) * np.asarray(along_rows @ along_columns).real, 0
        )
        mean = float(frame.image[frame.inner].mean())
        scale = self.level * mean / max(float(thickness[frame.inner].mean()), 1e-12)
        return replace(frame, image=frame.image + scale * thickness)


@dataclass(frozen=True, kw_only=True)
class Background(Step):
    """A background that rises over the frame, as of a support or a wedge.

    Parameters
    ----------
    level
        Mean of the addition relative to the mean of the image.
    slope
        Rise from one side of the recorded frame to the other along (x, y), relative to the mean of the image;
        the background ends at zero, below which it would fall where the slopes are more than twice the level.
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
        Way from the first line to the last, relative to the longer side of the view; its direction is random.
    """

    name = "drift"
    rank = 6
    fraction: float = _positive(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return half the way: nothing has moved in the middle of the frame."""
        return self.fraction * max(field_of_view) / 2

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Move the beam relative to the specimen, against the drift."""
        if self.fraction == 0:
            return frame
        angle = generator.uniform(0, 2 * np.pi)
        way = self.fraction * max(frame.field_of_view)
        time = _time(frame)[0][:, None] - 0.5
        moved = _displaced(frame, -way * np.cos(angle) * time, -way * np.sin(angle) * time)
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
    """A line starts before the beam is back from the end of the last one: it still stands too far right.

    Parameters
    ----------
    lag
        How far, at the first pixel, Å.
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
        self.check(frame.field_of_view[1])
        late = self.lag * np.exp(-_time(frame)[1] / self.settling)
        return _displaced(frame, late[None, :], np.zeros((1, 1)))

    def check(self, width: float) -> None:
        """Refuse a beam that is still flying back, not forwards, when the line (Å) begins.

        Raises
        ------
        UsageError
            When it does.
        """
        if self.lag >= self.settling * width:
            raise UsageError(
                f"flyback: a lag of {self.lag:g} Å must be less than settling times the width of the view, "
                f"{self.settling * width:.3g} Å; else the beam runs backwards"
            )


@dataclass(frozen=True, kw_only=True)
class Scan(Step):
    """The recording itself: the image at the places where the beam stood, without the margin.

    Always there, so not in `STEPS`; resamples once for all distortions, by cubic splines.
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
    """Electrons arrive one by one: Poisson statistics. Leave the step out for an image without noise.

    Parameters
    ----------
    electrons
        Detected electrons per Å², mean over the frame. Of the incident ones a detector sees a part: divide by
        its collection efficiency (see `presets`) to get the incident dose.
    """

    name = "dose"
    rank = 10
    electrons: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.electrons <= 0:
            raise UsageError(
                f"dose: electrons must be positive, not {self.electrons!r}; leave the step out for no noise"
            )

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Turn intensity into electrons a pixel."""
        mean = float(frame.image.mean())
        if not mean > 0:
            raise UsageError(
                "dose: the image holds no intensity (its mean is not positive), nothing to detect"
            )
        scale = self.electrons * frame.pixel_size[0] * frame.pixel_size[1] / mean
        expected = np.maximum(frame.image, 0) * scale
        if (most := float(expected.max())) > _MOST_ELECTRONS:
            raise UsageError(f"dose: {most:.0e} electrons in a pixel cannot be counted; leave the step out")
        notes = frame.notes | {"electrons_per_intensity": scale}
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
        Of a grey level, at most 16; 0 keeps the numbers as they are.
    """

    name = "digitise"
    rank = 12
    bits: int = _positive(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits > 16 or self.bits != int(self.bits):
            raise UsageError(f"digitise: bits must be a whole number up to 16, not {self.bits!r}")

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Round to whole grey levels 0 .. 2**bits - 1; `notes` tell scale and offset."""
        if self.bits == 0:
            return frame
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
        Dose,
        Detector,
        Digitise,
    )
}
