"""Steps of the scan: where the beam stands instead of on the pixel, and the recording there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.steps.base import Array, Frame, Step, not_negative


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
    fraction: float = not_negative(0.0)

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
    rms: float = not_negative(0.0)

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
    lag: float = not_negative(0.0)
    settling: float = not_negative(0.03)

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
