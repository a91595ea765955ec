"""An acquisition: the steps from the ideal image to the recorded one, seeded, as data."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.presets import PRESETS
from atomvision_hub.simulation.acquisition.steps import STEPS, Detector, Frame, Scan, Step, Tilt
from atomvision_hub.simulation.arguments import image_shape, pixel_sizes
from atomvision_hub.simulation.projection import rotation_matrix
from atomvision_hub.simulation.stem import StemFrame, simulate_stem
from atomvision_hub.simulation.targets import Table, disk_mask

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[np.float64]
#: Pixels beyond which an interpolating cubic spline has forgotten its edge (0.27 a pixel).
_SPLINE = 6


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

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"an acquisition has one step of a kind; {', '.join(twice)} is there twice")
        object.__setattr__(self, "steps", tuple(sorted(self.steps, key=lambda step: step.rank)))

    @classmethod
    def preset(cls, name: str) -> Acquisition:
        """Return a preset: ``ideal``, or by detected electrons ``good``, ``typical``, ``poor``."""
        if name not in PRESETS:
            raise UsageError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
        return cls(PRESETS[name])

    @classmethod
    def of(cls, given: Acquisition | str) -> Acquisition:
        """Return an acquisition as it is, or the preset of a name."""
        return cls.preset(given) if isinstance(given, str) else given

    def with_steps(self, *steps: Step) -> Acquisition:
        """Return an acquisition with these steps added, each in the place of one of its kind."""
        new = {step.name for step in steps}
        return Acquisition(tuple(step for step in self.steps if step.name not in new) + steps)

    def without(self, *names: str) -> Acquisition:
        """Return an acquisition without the steps of these names; the others draw the same numbers."""
        return Acquisition(tuple(step for step in self.steps if step.name not in names))

    def step(self, name: str) -> Step | None:
        """Return the step of a name, or None where there is none."""
        return next((step for step in self.steps if step.name == name), None)

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
            if not isinstance(entry, Mapping) or str(entry.get("step")) not in STEPS:
                named = entry.get("step") if isinstance(entry, Mapping) else entry
                raise UsageError(f"there is no step {named!r}; there are: {', '.join(STEPS)}")
            values = dict(entry)
            kind = STEPS[str(values.pop("step"))]
            known = [one.name for one in fields(kind)]
            if unknown := sorted(set(values) - set(known)):
                raise UsageError(f"step {kind.name} has no {unknown[0]}; it has: {', '.join(known)}")
            if kind.name == "dose" and not values:
                raise UsageError("step dose needs electrons, detected per Å²")
            steps.append(kind(**values))
        return cls(tuple(steps))

    @property
    def unit(self) -> str:
        """Unit of the recorded values, before they become grey levels."""
        detector = self.step("detector")
        if isinstance(detector, Detector) and detector != Detector():
            return "counts/px"
        return "electrons/px" if self.step("dose") else "Z^n/Å²"

    @property
    def variance(self) -> float:
        """By how much an atom's image grows: mean square of all blurs along one axis, Å²."""
        return sum(step.variance for step in self.steps)

    def reach(self, field_of_view: tuple[float, float]) -> float:
        """Return how far outside the view, in Å, the steps look."""
        return sum(step.reach(field_of_view) for step in self.steps)


def from_record(text: str) -> tuple[Acquisition, int]:
    """Return acquisition and seed of a row's column ``acquisition``, arguments of `record_stem`.

    Raises
    ------
    UsageError
        When the text is not what `Acquired.parameters` gives, as JSON.
    """
    try:
        content = json.loads(text)
        steps, seed = content["steps"], int(content["seed"])
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"an acquisition is JSON with steps and seed, not {text[:40]!r}") from None
    return Acquisition.from_dict(steps), seed


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

    def move(self, x: npt.ArrayLike, y: npt.ArrayLike, width: float = 0.0) -> tuple[Array, Array]:
        """Return where points (px) of the ideal image lie in the recorded one.

        The beam stood at ``p + D(p)`` when pixel p was recorded, so a point q shows up where
        ``p + D(p) = q``; found by fixed-point iteration, which converges as long as the beam runs forwards.

        Parameters
        ----------
        x, y
            Column and row coordinates.
        width
            Each scan line has an offset of its own, and what is wider than a line shows their mean, here
            weighted by a Gaussian of this standard deviation, Å; 0 takes the line of the point alone.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        if self.displacement is None:
            return x.copy(), y.copy()
        # What distorts a scan displaces lines as a whole and pixels within all lines alike.
        lines, along = self.displacement[:, 0], self.displacement[0] - self.displacement[0, 0]
        if width:
            sigma = width / self.pixel_size[0]
            reach = min(int(np.ceil(4 * sigma)), len(lines) - 1)
            # Extended point-symmetrically at the ends, so that a steady drift stays as it is.
            long = np.pad(lines, [(reach, reach), (0, 0)], mode="reflect", reflect_type="odd")
            lines = ndimage.gaussian_filter1d(long, sigma, axis=0, radius=reach)[reach : len(long) - reach]
        rows, columns = np.arange(len(lines)), np.arange(len(along))
        found_x, found_y = x, y
        for _ in range(60):
            dx, dy = (
                np.interp(found_y, rows, lines[:, axis]) + np.interp(found_x, columns, along[:, axis])
                for axis in (0, 1)
            )
            before = np.stack([found_x, found_y])
            found_x, found_y = x - dx / self.pixel_size[1], y - dy / self.pixel_size[0]
            change = np.abs(np.stack([found_x, found_y]) - before).max(initial=0)
            if change < 1e-6:
                break
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
        The frame without any effect but the tilt, same pose and view.
    recorded
        The image with what made it.
    wide
        The ideal frame with a margin at all sides, from which things drift into the view.
    margin
        Its width, pixels (rows, columns).
    heights
        Of a tilted layer, cluster or wire: z by the index of the atom before the tilt, Å.
    """

    ideal: StemFrame
    recorded: Acquired
    wide: StemFrame
    margin: tuple[int, int]
    heights: Array | None = None

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """The recorded image, float32 [row, column]."""
        return self.recorded.image

    @cached_property
    def atoms(self) -> Table:
        """Table of the atoms as `StemFrame.atoms`, at the places where the recorded image shows them.

        Under jitter an atom's place is where a least-squares fit of a Gaussian finds it: the mean over its
        scan lines, weighted by the square of what each shows of it. Of a tilted layer `z` is the height
        before the tilt.
        """
        moved = self.recorded.displacement is not None
        table = (self.wide if moved else self.ideal).atoms.copy()
        if self.heights is not None:
            table["z"] = self.heights[table["index"]]
        return self._moved(table) if moved else table

    def _moved(self, table: Table) -> Table:
        x, y = table["x"].astype(float) - self.margin[1], table["y"].astype(float) - self.margin[0]
        # As wide as a Gaussian of the same height; its square is narrower by the root of two.
        variance = 1 / (2 * np.pi * self.ideal.psf.peak) + self.recorded.acquisition.variance
        table["x"], table["y"] = self.recorded.move(x, y, float(np.sqrt(variance / 2)))
        (rows, columns), (dy, dx) = self.image.shape, self.ideal.pixel_size
        x, y, radius = table["x"], table["y"], self.ideal.mask_radius
        table["visible"] = (x >= -0.5) & (x < columns - 0.5) & (y >= -0.5) & (y < rows - 0.5)
        across, down = 0.5 + radius / dx, 0.5 + radius / dy
        near = (x >= -across) & (x < columns - 1 + across) & (y >= -down) & (y < rows - 1 + down)
        table = np.compress(near, table)
        # Columns are numbered in the order of their first atoms, as before.
        _, first, which = np.unique(table["column"], return_index=True, return_inverse=True)
        table["column"] = np.argsort(np.argsort(first))[which]
        return table

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Whether a pixel's centre is within the mask radius of an atom, bool [row, column]."""
        if self.recorded.displacement is None:
            return self.ideal.mask
        rows, columns = self.image.shape
        table, frame = self.atoms, self.ideal
        return disk_mask(table["x"], table["y"], (rows, columns), frame.pixel_size, frame.mask_radius)

    def parameters(self) -> dict[str, Any]:
        """Return the columns of a `RecordedStemRow` that say how the image was made, by name."""
        told = json.dumps(self.recorded.parameters(), allow_nan=False)
        return self.ideal.parameters() | {"acquisition": told}


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
    chosen = Acquisition.of(acquisition)
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
    pixel_size: float | Sequence[float] | npt.NDArray[np.float64] = 0.1,
    **options: Any,
) -> RecordedFrame:
    """Simulate a STEM image of a crystal and record it.

    Parameters
    ----------
    crystal
        As of `simulate_stem`; a tilt turns it in space first, about the middle of its height.
    acquisition, seed
        As of `acquire`.
    shape, pixel_size, options
        Arguments of `simulate_stem`.
    """
    chosen = Acquisition.of(acquisition)
    rows, columns = image_shape(shape)
    sizes = pixel_sizes(pixel_size)
    tilt, heights = chosen.step("tilt"), None
    if isinstance(tilt, Tilt) and any(tilt.angles):
        # A slab is cut anew after the tilt; of everything else an atom's height is known by its index.
        heights = crystal.get_positions()[:, 2] if options.get("thickness") is None else None
        crystal = tilted(
            crystal, tilt.angles, rotation=options.get("rotation", 0.0), center=options.get("center")
        )
    frame = wide = simulate_stem(crystal, shape=(rows, columns), pixel_size=sizes, **options)
    reach, margin = chosen.reach((rows * sizes[0], columns * sizes[1])), (0, 0)
    if reach:
        margin = (int(np.ceil(reach / sizes[0])) + _SPLINE, int(np.ceil(reach / sizes[1])) + _SPLINE)
        # The centre stays where it is, so the middle of the wide image is the ideal one.
        larger = (rows + 2 * margin[0], columns + 2 * margin[1])
        wide = simulate_stem(crystal, shape=larger, pixel_size=sizes, **options)
    recorded = acquire(wide.image, sizes, chosen.without("tilt"), seed=seed, margin=margin)
    return RecordedFrame(frame, replace(recorded, acquisition=chosen), wide, margin, heights)


def tilted(
    crystal: Atoms,
    angles: tuple[float, float],
    *,
    rotation: float = 0.0,
    center: tuple[float, float] | None = None,
) -> Atoms:
    """Return a crystal turned in space by `angles` (degrees) about the x, then the y axis of the image.

    The middle of its height stays where it is, at the point `center` (x, y) that the image shows in its
    centre. For a parallel projection this is exact: lattice vectors foreshorten, atoms move by their height
    times the sine.

    Parameters
    ----------
    rotation
        Turn of the crystal within the image, degrees, which `simulate_stem` makes afterwards.
    """
    if not max(abs(angle) for angle in angles) < 80:
        raise UsageError(f"a tilt of {angles} degrees leaves no top view; stay below 80")
    a, b = np.radians(angles)
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    within = np.eye(3)
    within[:2, :2] = rotation_matrix(rotation)
    turn = within.T @ turn_y @ turn_x @ within
    positions = crystal.get_positions()
    pivot = np.array([*(center or (0.0, 0.0)), (positions[:, 2].min() + positions[:, 2].max()) / 2])
    turned = crystal.copy()
    turned.set_cell(np.asarray(crystal.cell) @ turn.T, scale_atoms=False)
    turned.set_positions((positions - pivot) @ turn.T + pivot)
    return turned
