"""What steps have in common: the image on its way, and a step with its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.arguments import finite

Array = npt.NDArray[np.float64]


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


def not_negative(default: Any) -> Any:
    """Return a field of a step whose value must be 0 or more."""
    return field(default=default, metadata={"positive": True})
