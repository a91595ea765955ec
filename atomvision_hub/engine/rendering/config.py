"""What may be drawn for an image: pose, pixel size, probe, and how it is recorded."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from atomvision_hub.engine.config import Section


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    low, high = pair
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
        raise ValueError(f"a range is [lowest, highest], finite and not negative, not {list(pair)}")
    return pair


def _positive(pair: tuple[float, float]) -> tuple[float, float]:
    if _ordered(pair)[0] <= 0:
        raise ValueError(f"a range that is drawn log-uniformly starts above zero, not {list(pair)}")
    return pair


#: Lowest and highest value.
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
#: The same above zero, drawn log-uniformly.
LogRange = Annotated[tuple[float, float], AfterValidator(_positive)]
Share = Annotated[float, Field(ge=0, le=1)]


class RandomAcquisition(Section):
    """Bounds between which an acquisition is drawn for every image; with equal bounds nothing is drawn.

    Parameters
    ----------
    dose
        Detected electrons per Å², log-uniform.
    noise_free
        Share of images without counting noise.
    source_size
        Full width at half maximum of the source, Å.
    vibration
        Root mean square displacement of the atoms along one axis, Å.
    drift
        Way from the first line to the last relative to the longer side of the view; its direction is random.
    line_jitter
        Standard deviation of the start of a line, Å.
    background
        Mean of a background relative to the mean of the image.
    slope
        Rise of the background along x and along y over the view, relative to the mean of the image.
    """

    dose: LogRange = (50.0, 5000.0)
    noise_free: Share = 0.05
    source_size: Range = (0.0, 1.2)
    vibration: Range = (0.0, 0.1)
    drift: Range = (0.0, 0.02)
    line_jitter: Range = (0.0, 0.15)
    background: Range = (0.0, 0.5)
    slope: Range = (0.0, 0.3)


class RenderConfig(Section):
    """What an image may be.

    Parameters
    ----------
    shape
        Rows and columns.
    pixel_size
        Å/px, drawn log-uniformly between these, as far as `periods` are in view.
    periods
        So many of the longer reduced lattice vector fit into the shorter side at least; crystals for which no
        pixel size does are left out and listed.
    rotate, shift, mirror
        Whether poses are drawn: the turn over the circle, the shift over a cell of the crystal.
    z_exponent, sigma
        Of the contrast, and the width of an atom (Å).
    acquisition
        ``"ideal"``, ``"good"``, ``"typical"``, ``"poor"`` as presets, or ``"random"`` between the bounds of
        `random`.
    random
        Bounds for ``"random"``.
    bits
        Grey levels of an image: 8, or 0 for none.
    views
        Images of each crystal in an epoch.
    margin
        Smallest margin (Å) of a label; crystals with less are not drawn.
    workers
        Processes that render ahead of the loop; 0 renders in the loop's own, or on its GPU.
    """

    shape: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = (256, 256)
    pixel_size: LogRange = (0.05, 0.25)
    periods: float = Field(3.0, ge=0)
    rotate: bool = True
    shift: bool = True
    mirror: bool = True
    z_exponent: Range = (1.7, 1.7)
    sigma: LogRange = (0.5, 0.5)
    acquisition: Literal["ideal", "good", "typical", "poor", "random"] = "ideal"
    random: RandomAcquisition = RandomAcquisition()
    bits: Literal[0, 8] = 8
    views: int = Field(1, ge=1)
    margin: float = Field(0.0, ge=0)
    workers: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        # Narrower atoms are not sampled any more: splines do not follow them, and they fall between pixels.
        if self.sigma[0] < 1.2 * self.pixel_size[1]:
            raise ValueError(
                f"atoms of sigma {self.sigma[0]:g} Å are too narrow for pixels of {self.pixel_size[1]:g} Å; "
                "a pixel may be 0.83 sigma wide at most"
            )
        return self
