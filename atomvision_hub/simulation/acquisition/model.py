"""An acquisition: the steps from the ideal image to the recorded one, seeded, as data."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.steps import (
    STEPS,
    Detector,
    Digitise,
    Dose,
    Drift,
    Frame,
    LineJitter,
    Scan,
    SourceSize,
    Step,
    Tilt,
)
from atomvision_hub.simulation.arguments import image_shape, pixel_sizes
from atomvision_hub.simulation.stem import StemFrame, simulate_stem
from atomvision_hub.simulation.targets import Table, disk_mask

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Acquisition:
    """What happens to an image on its way through the microscope.

    Parameters
    ----------
    steps
        At most one of each kind, in any order; they act in the order of the instrument.

    Raises
    ------
    UsageError
        When a kind of step is there twice.
    """

    steps: tuple[Step, ...] = ()

    PRESETS: ClassVar[dict[str, tuple[Step, ...]]] = {
        "ideal": (),
        "good": (Dose(electrons=5000.0),),
        "typical": (
            SourceSize(fwhm=0.8),
            Drift(fraction=0.01),
            LineJitter(rms=0.1),
            Dose(electrons=500.0),
            Digitise(bits=8),
        ),
        "poor": (Dose(electrons=50.0),),
    }

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"an acquisition has one step of a kind; {', '.join(twice)} is there twice")
        object.__setattr__(self, "steps", tuple(sorted(self.steps, key=lambda step: step.rank)))

    @classmethod
    def preset(cls, name: str) -> Acquisition:
        """Return a preset: ``ideal``, or by detected electrons ``good``, ``typical``, ``poor``."""
        if name not in cls.PRESETS:
            raise UsageError(f"there is no preset {name!r}; there are: {', '.join(cls.PRESETS)}")
        return cls(cls.PRESETS[name])

    def with_steps(self, *steps: Step) -> Acquisition:
        """Return an acquisition with these steps added, each in the place of one of its kind."""
        new = {step.name for step in steps}
        return Acquisition(tuple(step for step in self.steps if step.name not in new) + steps)

    def without(self, *names: str) -> Acquisition:
        """Return an acquisition without the steps of these names; the others draw the same numbers."""
        return Acquisition(tuple(step for step in self.steps if step.name not in names))

    def step(self, name: str) -> Step:
        """Return the step of a name, with its default (mostly without effect) where there is none."""
        return next((step for step in self.steps if step.name == name), STEPS[name]())

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the steps as JSON values."""
        return [step.to_dict() for step in self.steps]

    @classmethod
    def from_dict(cls, content: Sequence[Mapping[str, Any]]) -> Acquisition:
        """Return the acquisition of `to_dict`.

        Raises
        ------
        UsageError
            When a step or a parameter is unknown.
        """
        steps = []
        for entry in content:
            values = dict(entry)
            kind = STEPS.get(str(values.pop("step", None)))
            if kind is None or kind is Scan:
                known = ", ".join(name for name, one in STEPS.items() if one is not Scan)
                raise UsageError(f"there is no step {entry.get('step')!r}; there are: {known}")
            known_values = {one.name for one in fields(kind)}
            if unknown := sorted(set(values) - known_values):
                raise UsageError(f"step {kind.name} has no {unknown[0]}; it has: {', '.join(known_values)}")
            steps.append(kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}))
        return cls(tuple(steps))

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return how far outside the view, in Å, the steps look."""
        return sum(step.reach(field_of_view) for step in self.steps)


PRESETS = tuple(Acquisition.PRESETS)


@dataclass(frozen=True)
class Acquired:
    """A recorded image.

    Attributes
    ----------
    image
        Float32 [row, column]: what the last step leaves (intensity, electrons, counts or grey levels).
    pixel_size
        Å/px along (rows, columns), as the operator believes it.
    acquisition, seed
        What made it: the same input, acquisition and seed give the same bits.
    displacement
        Where the beam stood instead of on the pixel, Å (x, y) [row, column, 2], or None.
    notes
        What the steps chose: direction of the drift, electrons per intensity, scale of grey levels.
    """

    image: npt.NDArray[np.float32]
    pixel_size: tuple[float, float]
    acquisition: Acquisition
    seed: int
    displacement: Array | None
    notes: dict[str, float]

    def move(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return where points (px) of the ideal image lie in the recorded one.

        The beam stood at ``p + D(p)`` when pixel p was recorded, so a point q shows up where ``p + D(p) = q``;
        found by fixed-point iteration, to a thousandth of a pixel for what scanning does.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        if self.displacement is None:
            return x.copy(), y.copy()
        rows, columns = self.image.shape
        found_x, found_y = x.copy(), y.copy()
        for _ in range(12):
            row, column = np.clip(found_y, 0, rows - 1), np.clip(found_x, 0, columns - 1)
            top, left = np.minimum(row.astype(int), rows - 2), np.minimum(column.astype(int), columns - 2)
            v, u = (row - top)[..., None], (column - left)[..., None]
            field = self.displacement
            there = (1 - v) * ((1 - u) * field[top, left] + u * field[top, left + 1])
            there += v * ((1 - u) * field[top + 1, left] + u * field[top + 1, left + 1])
            found_x = x - there[..., 0] / self.pixel_size[1]
            found_y = y - there[..., 1] / self.pixel_size[0]
        return found_x, found_y

    def parameters(self) -> dict[str, Any]:
        """Return seed, steps and notes as JSON values."""
        return {"seed": self.seed, "steps": self.acquisition.to_dict(), "notes": dict(self.notes)}


@dataclass(frozen=True)
class RecordedFrame:
    """A recorded image of a crystal with targets that moved along.

    Attributes
    ----------
    ideal
        The frame without any effect, same pose and view.
    recorded
        The image with what made it.
    """

    ideal: StemFrame
    recorded: Acquired

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """The recorded image, float32 [row, column]."""
        return self.recorded.image

    @cached_property
    def atoms(self) -> Table:
        """Table of the atoms as `StemFrame.atoms`, at the places where the recorded image shows them."""
        table = self.ideal.atoms.copy()
        table["x"], table["y"] = self.recorded.move(table["x"], table["y"])
        rows, columns = self.image.shape
        x, y = table["x"], table["y"]
        table["visible"] = (x >= -0.5) & (x < columns - 0.5) & (y >= -0.5) & (y < rows - 0.5)
        return table

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Whether a pixel's centre is within the mask radius of an atom, bool [row, column]."""
        table, frame = self.atoms, self.ideal
        return disk_mask(table["x"], table["y"], frame.image.shape, frame.pixel_size, frame.mask_radius)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the ideal image and, as ``acquisition``, those of the recording."""
        return self.ideal.parameters() | {"acquisition": self.recorded.parameters()}


def acquire(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float],
    acquisition: Acquisition | str,
    *,
    seed: int,
    margin: tuple[int, int] = (0, 0),
) -> Acquired:
    """Record an ideal image.

    Parameters
    ----------
    image
        Intensities [row, column], not negative.
    pixel_size
        Å/px, one number or (row, column).
    acquisition
        An acquisition, or the name of a preset.
    seed
        Each step draws from a stream of its own, of seed and name, so that leaving out one does not change
        the others.
    margin
        Pixels (rows, columns) at each side that are cut off: what lies outside the view, for drift and blur.
        Without it the edges are repeated outwards.

    Raises
    ------
    UsageError
        When the image is no finite two-dimensional array, or a step cannot act on it.
    """
    chosen = Acquisition.preset(acquisition) if isinstance(acquisition, str) else acquisition
    values = np.asarray(image, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise UsageError(f"an image to record is a finite array [row, column], not {values.shape}")
    if any(2 * side >= n for side, n in zip(margin, values.shape, strict=True)):
        raise UsageError(f"a margin of {margin} px leaves nothing of an image of {values.shape}")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UsageError(f"the seed must be a whole number from 0, not {seed!r}")
    frame = Frame(values, pixel_sizes(pixel_size), margin)
    for step in sorted((*chosen.steps, Scan()), key=lambda one: one.rank):
        stream = np.random.SeedSequence(int(seed), spawn_key=(zlib.crc32(step.name.encode()),))
        frame = step(frame, np.random.Generator(np.random.PCG64(stream)))
    return Acquired(
        frame.image.astype(np.float32), frame.pixel_size, chosen, int(seed), frame.displacement, frame.notes
    )


def record_stem(
    crystal: Atoms,
    acquisition: Acquisition | str,
    *,
    seed: int,
    shape: tuple[int, int] = (256, 256),
    pixel_size: float | tuple[float, float] = 0.1,
    **options: Any,
) -> RecordedFrame:
    """Simulate a STEM image of a crystal and record it.

    Parameters
    ----------
    crystal
        As of `simulate_stem`; a tilt turns it in space first, about its projected middle.
    acquisition, seed
        As of `acquire`.
    shape, pixel_size, options
        Arguments of `simulate_stem`.
    """
    chosen = Acquisition.preset(acquisition) if isinstance(acquisition, str) else acquisition
    rows, columns = image_shape(shape)
    sizes = pixel_sizes(pixel_size)
    tilt = chosen.step("tilt")
    assert isinstance(tilt, Tilt)
    if any(tilt.angles):
        crystal = tilted(crystal, tilt.angles)
    ideal = simulate_stem(crystal, shape=(rows, columns), pixel_size=sizes, **options)
    reach = chosen.reach((rows * sizes[0], columns * sizes[1]))
    margin = (int(np.ceil(reach / sizes[0])), int(np.ceil(reach / sizes[1])))
    wide = ideal.image
    if any(margin):
        # The centre stays where it is, so the middle of the wide image is the ideal one.
        larger = (rows + 2 * margin[0], columns + 2 * margin[1])
        wide = simulate_stem(crystal, shape=larger, pixel_size=sizes, **options).image
    recorded = acquire(wide, sizes, chosen.without("tilt"), seed=seed, margin=margin)
    return RecordedFrame(ideal, replace(recorded, acquisition=chosen))


def tilted(crystal: Atoms, angles: tuple[float, float]) -> Atoms:
    """Return a crystal seen along a direction that is off z by `angles` (degrees about x, then y).

    A layer stays a layer: its lattice vectors are foreshortened and its atoms move by height times the
    tangent, which is what the beam's projection shows (exact for a parallel projection).
    """
    a, b = np.radians(angles)
    if not (abs(angles[0]) < 80 and abs(angles[1]) < 80):
        raise UsageError(f"a tilt of {angles} degrees leaves no top view; stay below 80")
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn = turn_y @ turn_x
    turned = crystal.copy()
    turned.set_cell(np.asarray(crystal.cell) @ turn.T, scale_atoms=False)
    turned.set_positions(crystal.get_positions() @ turn.T)
    return turned


__all__ = [
    "PRESETS",
    "Acquired",
    "Acquisition",
    "Detector",
    "RecordedFrame",
    "acquire",
    "record_stem",
    "tilted",
]
