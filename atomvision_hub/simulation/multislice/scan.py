"""One period of a crystal, scanned by multislice: the whole image follows from it.

The detected signal as a function of the probe's position holds no frequency above ``2 semi_angle /
wavelength``: a probe position enters the exit wave as a sum of plane waves within the aperture, the detector
sees its square. So a period needs a few probe positions only, and the Fourier series through them gives the
signal everywhere. Positions that a symmetry of the crystal maps onto each other
have the same signal (averaged over thermal motion): one of each kind is calculated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import spglib
from ase import Atoms
from scipy.fft import next_fast_len

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.simulation.acquisition.probe import wavelength
from atomvision_hub.simulation.multislice import engine
from atomvision_hub.simulation.multislice.settings import ANTIALIAS, Multislice
from atomvision_hub.simulation.projection import reduce_basis, rotation_matrix

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

#: Thickness of the last slice, Å: behind it nothing scatters, and no detector sees it.
_LAST = 1.0
#: A box whose seam displaces the crystal by less than this (Å) is as good as a perfect one.
_SEAM = 0.02
#: Å within which a symmetry of the crystal must hold.
_SYMMETRY = 5e-3
#: Atoms in the box; more would take hours.
_MOST_ATOMS = 20_000
#: How much finer than needed the grid may be to fit a symmetry.
_FINER = 6


@dataclass(frozen=True, eq=False)
class PeriodScan:
    """The detector's signal over one period of a crystal.

    Attributes
    ----------
    values
        Share of the beam, 0 to 1, (n, m), at ``origin + i / n * cell[0] + j / m * cell[1]``.
    cell
        Period, (2, 2) rows, Å.
    origin
        Position (x, y) of the first value in the crystal, Å.
    limit
        Highest frequency in the signal, 1/Å.
    facts
        Settings, version, grid, and what it cost: JSON values.
    """

    values: Floats
    cell: Floats
    origin: Floats
    limit: float
    facts: dict[str, Any]

    def series(self, source_size: float = 0.0) -> tuple[Floats, npt.NDArray[np.complex128]]:
        """Return the Fourier series of the signal.

        Parameters
        ----------
        source_size
            Full width at half maximum of the electron source's image, Å, with which the signal is blurred.

        Returns
        -------
        frequencies, coefficients
            (k, 2) in multiples of the reciprocal cell, and (k,): the signal at a point with coordinates f in
            multiples of the cell is ``sum coefficients * exp(2 pi i frequencies @ f)``.
        """
        counts = self.values.shape
        h = np.stack(
            np.meshgrid(*(np.rint(np.fft.fftfreq(n) * n) for n in counts), indexing="ij"), axis=-1
        ).reshape(-1, 2)
        reciprocal = np.linalg.inv(self.cell).T
        length = np.linalg.norm(h @ reciprocal, axis=1)
        kept = length <= self.limit * (1 + 1e-9)
        shifted = np.exp(-2j * np.pi * h @ (self.origin @ np.linalg.inv(self.cell)))
        values = (np.fft.fft2(self.values) / self.values.size).ravel() * shifted
        sigma = source_size / math.sqrt(8 * math.log(2))
        return h[kept], (values * np.exp(-2 * (np.pi * sigma * length) ** 2))[kept]


def scan_period(atoms: Atoms, settings: Multislice | None = None, *, seed: int = 0) -> PeriodScan:
    """Calculate the signal of an annular detector over one period of a crystal.

    Parameters
    ----------
    atoms
        Crystal that is periodic along two vectors in the xy plane and whole along the beam (z): a layer, or a
        slab of as many cells as the specimen is thick.
    settings
        Microscope and accuracy.
    seed
        Of the thermal displacements.

    Raises
    ------
    MissingExtraError
        Where abTEM is not installed.
    UsageError
        When the crystal is not periodic along two vectors in the image plane.
    CrystalError
        With step ``"multislice"`` when it is too large.
    """
    settings = settings or Multislice()
    version = engine.abtem_version()
    cell = _period(atoms)
    # The rim of the aperture is as soft as a box is small.
    limit = 2e-3 * settings.semi_angle / wavelength(settings.voltage) + 1 / settings.box
    counts, origin, orbit = _positions(atoms, cell, limit)
    box = _Box.around(cell, settings)
    if box.cells * len(atoms) > _MOST_ATOMS:
        raise CrystalError(f"{box.cells * len(atoms):,} atoms in the box; too many", step="multislice")
    first = np.unique(orbit)
    shares = np.stack(np.divmod(first, counts[1]), axis=1) / counts + origin @ np.linalg.inv(cell)
    heights, slices = _planes(atoms.positions[:, 2], settings.slice_thickness)
    generator = np.random.default_rng(seed)
    specimen = box.filled(atoms, heights, sum(slices))
    spread = np.array([_displacement(settings, symbol) for symbol in specimen.get_chemical_symbols()])
    signals = engine.annular_signal(
        (_displaced(specimen, spread, generator) for _ in range(settings.phonons)),
        box.place(shares - np.floor(shares)),
        box.grid,
        slices,
        float(np.ptp(atoms.positions[:, 2])) / 2 - settings.defocus,
        settings,
    )
    mean = signals.mean(axis=0)
    noise = signals.std(axis=0, ddof=1).mean() / math.sqrt(len(signals)) if len(signals) > 1 else 0.0
    facts = {
        "engine": version,
        **settings.model_dump(mode="json"),
        "seed": seed,
        "potential": "Lobato, infinite projection",
        "grid": list(box.grid),
        "box_size": [round(side, 4) for side in box.sides],
        "slices": len(slices),
        "probe_positions": len(first),
        "seam": round(box.seam, 4),
        # Standard error of the mean over the phonon configurations, relative to the mean signal.
        "standard_error": round(float(noise / mean.mean()), 5),
    }
    values = mean[np.searchsorted(first, orbit)].reshape(counts)
    return PeriodScan(values, cell, origin, limit, facts)


def _period(atoms: Atoms) -> Floats:
    """Return the shortest two vectors that repeat the crystal in the image plane."""
    vectors = np.asarray(atoms.cell.array, dtype=np.float64)[np.asarray(atoms.pbc)][:2]
    if len(vectors) < 2 or np.abs(vectors[:, 2]).max() > 1e-6 or abs(np.linalg.det(vectors[:, :2])) < 1e-3:
        raise UsageError(
            "multislice images need a crystal that is periodic along two vectors in the xy plane; "
            "turn it so, or put a particle into a large periodic cell"
        )
    cell = reduce_basis(vectors[:, :2])
    return np.array([cell[0], cell[1] * math.copysign(1.0, np.linalg.det(cell))])


def _displacement(settings: Multislice, symbol: str) -> float:
    if not isinstance(settings.displacement, dict):
        return settings.displacement
    if symbol not in settings.displacement:
        raise UsageError(f"displacement names no value for {symbol}; add one, in Å")
    return settings.displacement[symbol]


def _displaced(specimen: Atoms, spread: Floats, generator: np.random.Generator) -> Atoms:
    moved = specimen.copy()
    # Along the beam displacements do next to nothing: they change the phase between planes by hundredths.
    moved.positions[:, :2] += generator.normal(size=(len(specimen), 2)) * spread[:, None]
    moved.wrap(pbc=(True, True, False))
    return moved


def _planes(z: Floats, apart: float) -> tuple[Floats, tuple[float, ...]]:
    """Return where in the box every atom goes (the middle of its slice), and the thickness of the slices.

    Slices are as thick as the distances between the atoms' planes, whatever these are: equal slices would
    move planes to where slices begin, and their interference with them.
    """
    order = np.argsort(z, kind="stable")
    plane, lowest = np.zeros(len(z), dtype=np.intp), z[order[0]]
    for before, atom in pairwise(order.tolist()):
        new = z[atom] - lowest > apart
        plane[atom] = plane[before] + new
        lowest = z[atom] if new else lowest
    means = np.array([z[plane == number].mean() for number in range(plane.max() + 1)])
    slices = np.append(np.diff(means), _LAST)
    middles = np.cumsum(slices) - slices / 2
    return middles[plane], tuple(slices.tolist())


# --- where to put the probe --------------------------------------------------------------------------------


def _positions(atoms: Atoms, cell: Floats, limit: float) -> tuple[tuple[int, int], Floats, Whole]:
    """Return the counts of probe positions along the period, the first one, and the kind of each.

    Of all grids that are fine enough the one with the fewest kinds is taken.
    """
    lengths = np.linalg.norm(cell, axis=1)
    fewest = [2 * math.floor(limit * length) + 1 for length in lengths]
    turns, shifts = _symmetries(atoms, cell)
    origins = np.vstack([np.zeros(2), atoms.positions[:, :2] @ np.linalg.inv(cell)])
    # A centre of symmetry need not be an atom: half of a translation that goes with a half turn is one.
    origins = np.vstack([origins, shifts[(turns == -np.eye(2)).all(axis=(1, 2))] / 2])
    best: tuple[int, tuple[int, int], Floats, Whole] | None = None
    for extra in product(range(_FINER), repeat=2):
        counts = fewest[0] + extra[0], fewest[1] + extra[1]
        for origin in origins:
            orbit = _kinds(counts, origin, turns, shifts)
            kinds = len(np.unique(orbit))
            if best is None or kinds < best[0]:
                best = kinds, counts, origin @ cell, orbit
    assert best is not None
    return best[1:]


def _symmetries(atoms: Atoms, cell: Floats) -> tuple[Floats, Floats]:
    """Return the symmetries that keep the beam's direction, (n, 2, 2) and (n, 2), in shares of the cell."""
    height = float(np.ptp(atoms.positions[:, 2])) + 20.0
    lattice = np.zeros((3, 3))
    lattice[:2, :2], lattice[2, 2] = cell, height
    scaled = atoms.positions @ np.linalg.inv(lattice)
    found = spglib.get_symmetry((lattice, scaled, atoms.numbers), symprec=_SYMMETRY)
    if found is None:
        return np.eye(2)[None], np.zeros((1, 2))
    turns, shifts = found["rotations"].astype(float), found["translations"]
    along = (turns[:, 2, 2] == 1) & ~turns[:, 2, :2].any(axis=1) & ~turns[:, :2, 2].any(axis=1)
    along &= np.abs(shifts[:, 2] - np.rint(shifts[:, 2])) * height < 2 * _SYMMETRY
    return turns[along][:, :2, :2], shifts[along][:, :2]


def _kinds(counts: tuple[int, int], origin: Floats, turns: Floats, shifts: Floats) -> Whole:
    """Return for every position of a grid the first one of its kind, flattened."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), axis=-1).reshape(-1, 2)
    points = grid / counts + origin
    kind: Whole = np.arange(len(points))
    for turn, shift in zip(turns, shifts, strict=True):
        image = (points @ turn.T + shift - origin) * counts
        whole = np.rint(image)
        # A symmetry that does not map the grid onto itself tells nothing about it.
        if np.abs(image - whole).max() < 1e-3 * min(counts):
            index = whole.astype(np.int64) % counts
            kind = np.minimum(kind, index[:, 0] * counts[1] + index[:, 1])
    return kind


# --- the box around the probe ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Box:
    """A right-angled box of whole cells, the crystal turned so that its shortest period lies along x.

    Attributes
    ----------
    turned
        The period in the box's frame, (2, 2).
    repeats
        Cells along the two vectors of the period.
    seam
        By how much (Å) the crystal is displaced where the box repeats along y: zero unless the lattice is
        oblique. The probe is half a box away from there.
    grid
        Points along x and y.
    """

    cell: Floats
    turned: Floats
    repeats: tuple[int, int]
    seam: float
    grid: tuple[int, int]

    @classmethod
    def around(cls, cell: Floats, settings: Multislice) -> _Box:
        """Return the smallest box of whole cells that `settings` allow."""
        turn = rotation_matrix(-math.degrees(math.atan2(cell[0, 1], cell[0, 0])))
        turned = cell @ turn.T
        turned[0, 1] = 0.0
        width, (offset, step) = turned[0, 0], turned[1]
        along = math.ceil(settings.box / width)
        fewest = math.ceil(settings.box / step)
        seams = {}
        for rows in range(fewest, 2 * fewest + 1):
            rest = rows * offset / width
            seams[rows] = abs(rest - round(rest)) * width
            if seams[rows] < _SEAM:
                break
        across = min(seams, key=lambda rows: seams[rows])
        wave = wavelength(settings.voltage)
        finest = ANTIALIAS / 2 * wave / (1e-3 * settings.outer * settings.margin)
        sides = along * width, across * step
        points = next_fast_len(math.ceil(sides[0] / finest)), next_fast_len(math.ceil(sides[1] / finest))
        return cls(cell, turned, (along, across), seams[across], points)

    @property
    def cells(self) -> int:
        """How many cells are in the box."""
        return self.repeats[0] * self.repeats[1]

    @property
    def sides(self) -> tuple[float, float]:
        """Width and length, Å."""
        return self.repeats[0] * float(self.turned[0, 0]), self.repeats[1] * float(self.turned[1, 1])

    def filled(self, atoms: Atoms, heights: Floats, height: float) -> Atoms:
        """Return the crystal in a box of this height, its atoms at `heights`."""
        shares = atoms.positions[:, :2] @ np.linalg.inv(self.cell)
        shares -= np.floor(shares)
        multiples = np.stack(
            np.meshgrid(*(np.arange(n) for n in self.repeats), indexing="ij"), axis=-1
        ).reshape(-1, 1, 2)
        flat = ((multiples + shares) @ self.turned).reshape(-1, 2)
        box = Atoms(
            np.tile(atoms.numbers, self.cells),
            np.column_stack([flat, np.tile(heights, self.cells)]),
            cell=[*self.sides, height],
            pbc=True,
        )
        box.wrap(pbc=(True, True, False))
        return box

    def place(self, shares: Floats) -> Floats:
        """Return points of a period (multiples of the cell) in the middle of the box, wrapped into it."""
        middle = np.array([self.repeats[0] // 2, self.repeats[1] // 2])
        return np.asarray(((shares + middle) @ self.turned) % np.array(self.sides))
