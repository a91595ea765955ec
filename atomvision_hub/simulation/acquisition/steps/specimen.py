"""Steps of the specimen: it is tilted, vibrates, is dirty and does not lie on nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.steps.base import Frame, Step, not_negative
from atomvision_hub.simulation.acquisition.steps.filters import blurred

#: Plane waves that make up a film of contamination.
FILM_WAVES = 256


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
    rms: float = not_negative(0.0)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return five widths."""
        return 5 * self.rms

    @property
    def variance(self) -> float:
        """Of the Gaussian."""
        return self.rms**2

    def __call__(self, frame: Frame, generator: np.random.Generator) -> Frame:
        """Blur."""
        return blurred(frame, self.rms)


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
    level: float = not_negative(0.0)
    size: float = not_negative(10.0)

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
    level: float = not_negative(0.0)
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
