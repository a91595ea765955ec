"""Steps of the detection: electrons are counted, amplified and turned into grey levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.steps.base import Frame, Step, not_negative

#: More electrons a pixel than this are no counting statistics any more, and none that can be drawn.
_MOST_ELECTRONS = 1e15


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
    gain: float = not_negative(1.0)
    offset: float = 0.0
    noise: float = not_negative(0.0)

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
    bits: int = not_negative(0)

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
