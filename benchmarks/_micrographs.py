"""Images as microscopists have them, each with its right answer: crystals, and things that are none.

Every scene comes in numbered variants: another crystal, turn, pixel size, dose and seed. Even variants are
for tuning, odd ones are held out.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from ase import Atoms
from ase.build import bulk, surface
from scipy import ndimage
from scipy.spatial import cKDTree

from atomvision_hub import classify_lattice, load_structures
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.acquisition import (
    Acquisition,
    Background,
    Contamination,
    Dose,
    Drift,
    Flyback,
    LineJitter,
    SourceSize,
    Step,
    acquire,
    record_stem,
)
from atomvision_hub.simulation.acquisition.model import tilted
from atomvision_hub.structures.lattice import reduce_basis

Image = npt.NDArray[Any]
Array = npt.NDArray[np.float64]

#: What may be answered: the lattice and nothing else; the lattice, or that it cannot be told; no lattice.
LATTICE, EITHER, NOTHING = "lattice", "either", "nothing"

TYPICAL: tuple[Step, ...] = Acquisition.preset("typical").steps


@dataclass(frozen=True)
class Scene:
    """An image, the pixel size that its owner believes in, and the truth.

    Parameters
    ----------
    image
        Grey levels [row, column].
    true_size
        Å/px.
    lattices
        Reduced bases, rows (x, y) in Å, up to a turn: each is a right answer. Empty where there is none.
    expected
        `LATTICE`, `EITHER` or `NOTHING`.
    told
        The pixel size in the file over the true one; ``None`` without calibration.
    kind
        Of the microscope, as a file would tell.
    """

    image: Image
    true_size: float
    lattices: tuple[Array, ...] = ()
    expected: str = LATTICE
    told: float | None = 1.0
    kind: Literal["stem", "tem", "stm"] | None = None

    @property
    def pixel_size(self) -> float | None:
        """Å/px as the file tells."""
        return None if self.told is None else self.told * self.true_size


class Draw:
    """What a variant draws from."""

    def __init__(self, kind: str, variant: int) -> None:
        self.variant = variant
        self.rng = np.random.default_rng([variant, zlib.crc32(kind.encode())])

    def pick(self, *choices: Any) -> Any:
        """Return one of some choices, in turn."""
        return choices[self.variant % len(choices)]

    def between(self, low: float, high: float) -> float:
        """Return a number, logarithmically between two."""
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high))))

    def turn(self) -> float:
        """Return an angle in degrees."""
        return float(self.rng.uniform(0, 180))

    def seed(self) -> int:
        """Return a seed for an acquisition."""
        return int(self.rng.integers(2**31))


# Crystals along an axis --------------------------------------------------------------------------------


def _perovskite(a: float, names: tuple[str, str, str] = ("Sr", "Ti", "O")) -> Atoms:
    from ase.spacegroup import crystal

    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    return crystal(names, sites, spacegroup=221, cellpar=[a] * 3 + [90] * 3)


def _along(atoms: Atoms, axis: tuple[int, int, int]) -> Atoms:
    """Return one period of a cubic crystal along an axis, the beam along z."""
    slab = surface(atoms, axis, 2, periodic=True)
    slab.pbc = (True, True, False)
    return slab


def _gallium_nitride() -> Atoms:
    """GaN along [11-20]."""
    cell = bulk("GaN", "wurtzite", a=3.189, c=5.185, orthorhombic=True)
    order = [1, 2, 0]
    turned = Atoms(cell.numbers, cell.positions[:, order], cell=np.diag(cell.cell.lengths()[order]))
    turned.pbc = (True, True, False)
    return turned


BULK: dict[str, Callable[[], Atoms]] = {
    "SrTiO3 [100]": lambda: _along(_perovskite(3.905), (0, 0, 1)),
    "LaAlO3 [100]": lambda: _along(_perovskite(3.79, ("La", "Al", "O")), (0, 0, 1)),
    "SrTiO3 [110]": lambda: _along(_perovskite(3.905), (1, 1, 0)),
    "BaTiO3 [110]": lambda: _along(_perovskite(4.0, ("Ba", "Ti", "O")), (1, 1, 0)),
    "Si [110]": lambda: _along(bulk("Si", cubic=True), (1, 1, 0)),
    "GaAs [110]": lambda: _along(bulk("GaAs", "zincblende", a=5.653, cubic=True), (1, 1, 0)),
    "Au [110]": lambda: _along(bulk("Au", cubic=True), (1, 1, 0)),
    "Pt [110]": lambda: _along(bulk("Pt", cubic=True), (1, 1, 0)),
    "MgO [100]": lambda: _along(bulk("MgO", "rocksalt", a=4.212, cubic=True), (0, 0, 1)),
    "CdTe [110]": lambda: _along(bulk("CdTe", "zincblende", a=6.482, cubic=True), (1, 1, 0)),
    "GaN [11-20]": _gallium_nitride,
}


@cache
def crystal(name: str) -> Atoms:
    """Return a crystal by its formula, or its formula and axis."""
    return BULK[name]() if name in BULK else load_structures("reference")[name]


@cache
def lattice(name: str) -> Array:
    """Return the reduced basis of the plane lattice of its columns, Å."""
    found = classify_lattice(crystal(name)).projected_cell
    return np.array(found.reduced, dtype=float).reshape(2, 2)


def record(
    name: str,
    draw: Draw,
    steps: Sequence[Step] = TYPICAL,
    *,
    shape: tuple[int, int] = (512, 512),
    size: float = 0.12,
    rotation: float | None = None,
    atoms: Atoms | None = None,
) -> Array:
    """Return a recorded image of a crystal."""
    found = record_stem(
        crystal(name) if atoms is None else atoms,
        Acquisition(steps=tuple(steps)),
        seed=draw.seed(),
        shape=shape,
        pixel_size=size,
        rotation=draw.turn() if rotation is None else rotation,
    )
    return np.asarray(found.image, dtype=float)


def _dose(draw: Draw, low: float, high: float) -> tuple[Step, ...]:
    return (
        SourceSize(fwhm=0.8),
        Drift(fraction=0.01),
        LineJitter(rms=0.1),
        Dose(electrons=draw.between(low, high)),
    )


def _even(image: Array) -> Array:
    return np.asarray((image - image.min()) / np.ptp(image))


def _grid(shape: tuple[int, ...]) -> tuple[Array, Array]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return x / shape[1], y / shape[0]


def _speckle(draw: Draw, shape: tuple[int, int], sigma: float) -> Array:
    field_ = ndimage.gaussian_filter(draw.rng.normal(size=shape), sigma)
    return np.asarray(field_ / field_.std())


# Scenes ------------------------------------------------------------------------------------------------

CRYSTALS = (
    "SrTiO3 [100]", "Si [110]", "MoS2", "GaN [11-20]", "Au [110]", "graphene", "LaAlO3 [100]", "GaAs [110]",
    "WSe2", "BaTiO3 [110]", "Pt [110]", "h-BN", "ReS2", "CrSBr", "SrTiO3 [110]", "PdS2", "MgO [100]", "NbSe2",
)  # fmt: skip


def _size(name: str, draw: Draw) -> float:
    """Return a pixel size as people choose it: four pixels or more between columns."""
    shortest = float(np.hypot(*lattice(name)[0]))
    return min(draw.between(0.08, 0.2), shortest / 14)


def haadf(draw: Draw) -> Scene:
    """One crystal, one scan."""
    name = draw.pick(*CRYSTALS)
    size = _size(name, draw)
    side = draw.pick(512, 384, 768, 512, 1024)
    shape = (side, draw.pick(side, side * 3 // 4, side))
    return Scene(record(name, draw, _dose(draw, 300, 3000), shape=shape, size=size), size, (lattice(name),))


def low_dose(draw: Draw) -> Scene:
    """Scan that spares the specimen: 30 to 100 detected electrons per Å²."""
    name = draw.pick(
        "SrTiO3 [100]", "MoS2", "Si [110]", "WSe2", "graphene", "Au [110]", "h-BN", "LaAlO3 [100]"
    )
    size = _size(name, draw)
    return Scene(record(name, draw, _dose(draw, 30, 100), size=size), size, (lattice(name),))


def distorted(draw: Draw) -> Scene:
    """Drift of 3 to 5 %, strong jitter, flyback."""
    name = draw.pick(*CRYSTALS[::-1])
    size = _size(name, draw)
    steps = (
        SourceSize(fwhm=0.8),
        Drift(fraction=draw.between(0.03, 0.05)),
        LineJitter(rms=draw.between(0.1, 0.25)),
        Flyback(lag=0.8), Dose(electrons=draw.between(300, 2000)),
    )  # fmt: skip
    return Scene(record(name, draw, steps, size=size), size, (lattice(name),))


def uneven(draw: Draw) -> Scene:
    """Film of carbon, a slope, a wedge."""
    name = draw.pick("Si [110]", "graphene", "SrTiO3 [100]", "MoS2", "GaN [11-20]", "WSe2")
    size = _size(name, draw)
    steps = (
        *_dose(draw, 500, 2000), Contamination(level=draw.between(0.5, 2), size=draw.between(6, 20)),
        Background(level=1.0, slope=(1.0, -0.6)),
    )  # fmt: skip
    return Scene(record(name, draw, steps, size=size), size, (lattice(name),))


def misled(draw: Draw) -> Scene:
    """No calibration, or one that is off by 5 to 10 %."""
    name = draw.pick(*CRYSTALS[3:], "MoS2")
    size = _size(name, draw)
    told = draw.pick(None, 0.93, None, 1.08, 1.05, None)
    return Scene(record(name, draw, _dose(draw, 300, 3000), size=size), size, (lattice(name),), told=told)


def inverted(draw: Draw) -> Scene:
    """Bright field: dark columns on a bright ground."""
    name = draw.pick("SrTiO3 [100]", "MoS2", "GaAs [110]", "WSe2", "SrTiO3 [110]", "NbSe2")
    size = _size(name, draw)
    counts = record(name, draw, _dose(draw, 1000, 5000), size=size)
    return Scene(1.3 * counts.max() - counts, size, (lattice(name),), kind="stem")


def phase_contrast(draw: Draw) -> Scene:
    """High-resolution TEM of a thin crystal under amorphous carbon, weak-phase object, 200 kV."""
    name = draw.pick("Si [110]", "Au [110]", "GaN [11-20]", "graphene", "MgO [100]", "MoS2")
    size, side = 0.2, 640
    thin = simulate_stem(
        crystal(name), shape=(side, side), pixel_size=size, rotation=draw.turn(), z_exponent=0.8, sigma=0.3
    ).image
    phase = _even(thin.astype(float)) + 0.25 * _speckle(draw, (side, side), 3.0)
    q = np.hypot(np.fft.fftfreq(side, size)[:, None], np.fft.fftfreq(side, size)[None])
    wave, aberration, focus = 0.0251, draw.pick(0.01e7, 1.2e7), draw.pick(-60.0, -640.0)
    chi = math.pi * wave * q**2 * (focus + 0.5 * aberration * wave**2 * q**2)
    transfer = np.sin(chi) * np.exp(-((q / draw.pick(0.9, 0.55)) ** 4))
    contrast = np.fft.ifft2(np.fft.fft2(phase) * transfer).real
    counts = draw.rng.poisson(
        np.clip(1 + 0.15 * contrast / contrast.std(), 0.05, None) * draw.between(20, 100)
    )
    return Scene(counts, size, (lattice(name),), kind="tem")


def annotated(draw: Draw) -> Scene:
    """Eight bits as in a paper: a scale bar, letters, a frame, rounded by JPEG."""
    name = draw.pick("MoS2", "SrTiO3 [100]", "Si [110]", "graphene", "GaN [11-20]", "LaAlO3 [100]")
    size, side = _size(name, draw), 500
    grey = record(name, draw, _dose(draw, 500, 2000), shape=(side, side), size=size)
    low, high = np.percentile(grey, (0.5, 99.5))
    picture = PIL.Image.fromarray(np.uint8(np.clip((grey - low) / (high - low), 0, 1) * 255))
    pen = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(size=34)
    pen.rectangle((side - 170, side - 40, side - 30, side - 28), fill=255)
    pen.text((side - 140, side - 88), "2 nm", fill=255, font=font)
    pen.text((14, 8), draw.pick("(a)", "HAADF"), fill=draw.pick(255, 0), font=font)
    if draw.variant % 4 > 1:
        pen.rectangle((0, 0, side - 1, side - 1), outline=255, width=4)
        pen.rectangle((140, 190, 330, 350), outline=255, width=2)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return Scene(np.asarray(PIL.Image.open(file)), size, (lattice(name),), told=draw.pick(1.0, None))


def spoilt(draw: Draw) -> Scene:
    """Pixels that are hot, dead, negative or not finite; values of any size."""
    name = draw.pick("MoS2", "SrTiO3 [100]", "GaAs [110]", "WSe2")
    size = _size(name, draw)
    grey = record(name, draw, _dose(draw, 500, 2000), size=size)
    at = draw.rng.integers(grey.size, size=200)
    grey.flat[at] = draw.pick(50, -50, 1000, 1e5) * grey.max()
    if draw.variant % 2:
        grey[: grey.shape[0] // 5] = np.nan
    return Scene((grey * draw.pick(1e-12, 1.0, 1e9, -1.0)).astype(np.float32), size, (lattice(name),))


def coarse(draw: Draw) -> Scene:
    """Large view: two to four pixels from column to column."""
    name = draw.pick("SrTiO3 [100]", "MoS2", "LaAlO3 [100]", "NbSe2", "BaTiO3 [110]", "GaN [11-20]")
    size = draw.between(0.4, 0.75)
    side = 1024
    grey = record(name, draw, _dose(draw, 300, 2000), shape=(side, side), size=size)
    return Scene(grey, size, (lattice(name),))


def magnified(draw: Draw) -> Scene:
    """Four to seven periods in view, in fine pixels."""
    name = draw.pick("SrTiO3 [100]", "MoS2", "Si [110]", "graphene", "PdS2", "GaN [11-20]")
    longest = float(np.hypot(*lattice(name)[1]))
    side = draw.pick(512, 1024)
    size = draw.between(4.5, 7) * longest / side
    return Scene(
        record(name, draw, _dose(draw, 500, 5000), shape=(side, side), size=size), size, (lattice(name),)
    )


def too_near(draw: Draw) -> Scene:
    """Fewer than three periods."""
    name = draw.pick("SrTiO3 [100]", "MoS2", "Si [110]", "ReS2")
    longest = float(np.hypot(*lattice(name)[1]))
    size = draw.between(1.6, 2.6) * longest / 384
    grey = record(name, draw, _dose(draw, 1000, 5000), shape=(384, 384), size=size)
    return Scene(grey, size, (lattice(name),), EITHER)


def particle(draw: Draw) -> Scene:
    """Particle on carbon: half of the view, a third of it, a tenth."""
    name = draw.pick("Au [110]", "Pt [110]", "CdTe [110]", "SrTiO3 [100]")
    radius = draw.pick(0.38, 0.3, 0.12, 0.22, 0.15)
    size, side = 0.11, 768
    x, y = _grid((side, side))
    way = np.hypot(x - draw.rng.uniform(0.4, 0.6), y - draw.rng.uniform(0.4, 0.6)) / radius
    round_ = np.sqrt(np.clip(1 - way**2, 0, None))
    columns = simulate_stem(crystal(name), shape=(side, side), pixel_size=size, rotation=draw.turn()).image
    ideal = (
        round_ * _even(columns.astype(float)) + 0.25 * round_ + 0.12 + 0.03 * _speckle(draw, (side, side), 8)
    )
    grey = acquire(
        np.clip(ideal, 0, None), size, Acquisition(steps=_dose(draw, 500, 2000)), seed=draw.seed()
    ).image
    return Scene(grey, size, (lattice(name),), LATTICE if radius > 0.25 else EITHER)


def two_grains(draw: Draw) -> Scene:
    """Boundary between two grains of one crystal."""
    name = draw.pick("MoS2", "SrTiO3 [100]", "Au [110]", "graphene")
    size, turn = _size(name, draw), draw.turn()
    one, other = (
        record(name, draw, _dose(draw, 1000, 1000), size=size, rotation=turn + angle)
        for angle in (0, draw.between(7, 25))
    )
    x, y = _grid(one.shape)
    return Scene(np.where(x + 0.3 * y < draw.pick(0.65, 0.5, 0.75), one, other), size, (lattice(name),))


def many_grains(draw: Draw) -> Scene:
    """Grains of a few nanometres at all angles."""
    name = draw.pick("graphene", "Pt [110]", "MoS2", "Au [110]")
    size, side = 0.12, 768
    points = draw.rng.uniform(0, side, (draw.pick(9, 25), 2))
    y, x = np.mgrid[:side, :side]
    nearest = cKDTree(points).query(np.stack([y, x], axis=-1))[1]
    image = np.zeros((side, side))
    for grain in range(len(points)):
        turned = record(name, draw, _dose(draw, 1000, 1000), shape=(side, side), size=size)
        image = np.where(nearest == grain, turned, image)
    return Scene(image, size, (lattice(name),), EITHER)


def twisted(draw: Draw) -> Scene:
    """Two layers, one turned: a moiré is no lattice of the crystal, and one of the layers is an answer."""
    name = draw.pick("graphene", "MoS2", "h-BN", "WSe2")
    size, turn = _size(name, draw), draw.turn()
    angle = draw.between(3, 25)
    layers = [
        simulate_stem(crystal(name), shape=(512, 512), pixel_size=size, rotation=turn + extra).image
        for extra in (0, angle)
    ]
    grey = acquire(
        layers[0] + layers[1], size, Acquisition(steps=_dose(draw, 1000, 3000)), seed=draw.seed()
    ).image
    return Scene(grey, size, (lattice(name), lattice(name) / (2 * math.sin(math.radians(angle) / 2))), EITHER)


def two_phases(draw: Draw) -> Scene:
    """Two crystals side by side: either of them, or that there are two."""
    first, second = draw.pick(
        ("SrTiO3 [100]", "MgO [100]"), ("MoS2", "graphene"), ("SrTiO3 [110]", "Au [110]"), ("WSe2", "FeSe")
    )
    size = 0.12
    one, other = (_even(record(name, draw, _dose(draw, 1000, 1000), size=size)) for name in (first, second))
    x, _ = _grid(one.shape)
    image = np.where(x < draw.pick(0.5, 0.7, 0.4), one, other)
    return Scene(image, size, (lattice(first), lattice(second)), EITHER)


def tilted_layer(draw: Draw) -> Scene:
    """Layer of which the beam sees a projection: 15 to 30 degrees off."""
    name = draw.pick("graphene", "MoS2", "h-BN", "WSe2")
    size, turn = _size(name, draw), draw.turn()
    atoms = tilted(crystal(name), (draw.between(15, 30), draw.between(3, 20)), rotation=turn)
    grey = record(name, draw, _dose(draw, 1000, 3000), size=size, rotation=turn, atoms=atoms)
    seen = np.array(reduce_basis(np.asarray(atoms.cell)[:2, :2])).reshape(2, 2)
    return Scene(grey, size, (seen,))


def defective(draw: Draw) -> Scene:
    """Every tenth column is absent or brighter."""
    name = draw.pick("WSe2", "SrTiO3 [100]", "graphene", "NbSe2")
    size = _size(name, draw)
    atoms = crystal(name).repeat((60, 60, 1))
    atoms.pbc = False
    chance = draw.rng.uniform(size=len(atoms))
    atoms.numbers[chance < 0.04] = draw.pick(34, 56, 14, 42)
    del atoms[np.flatnonzero(chance > 0.94)]
    return Scene(record(name, draw, _dose(draw, 500, 2000), size=size, atoms=atoms), size, (lattice(name),))


def _waves(
    vectors: Array, side: int, size: float, powers: Sequence[tuple[float, float]], turn: float
) -> Array:
    """Return waves of the shortest reciprocal vectors of a hexagonal or square lattice."""
    y, x = np.mgrid[:side, :side] * size
    angle = math.radians(turn)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    first, second = np.linalg.inv(vectors).T
    stars = [first, second, first - second] if vectors[0] @ vectors[1] > 0.1 else [first, second]
    return np.asarray(
        sum(
            height * np.cos(2 * math.pi * (n * q[0] * u + n * q[1] * v))
            for n, height in powers
            for q in stars
        )
    )


def tunnelling(draw: Draw) -> Scene:
    """Heights in metres of graphite or a 7 x 7 surface: a slope, steps between lines, few pixels an atom."""
    side = draw.pick(256, 512)
    if draw.variant % 4 < 2:
        edge, size = 2.461, draw.between(0.12, 0.3)
        basis = np.array([[edge, 0], [edge / 2, edge * math.sqrt(3) / 2]])
        surface_ = _waves(basis, side, size, [(1, 1.0), (2, 0.15)], draw.turn())
    else:
        edge, size = 26.88, draw.between(0.8, 1.2)
        basis = np.array([[edge, 0], [edge / 2, edge * math.sqrt(3) / 2]])
        # Twelve adatoms of the dimer-adatom-stacking-fault model, in the two halves of the cell.
        sevenths = [
            (1, 2),
            (2, 1),
            (4, 2),
            (2, 4),
            (2, 2),
            (1, 4),
            (4, 1),
            (6, 5),
            (5, 6),
            (3, 5),
            (5, 3),
            (5, 5),
        ]
        places = (np.array(sevenths) - 0.0) / 7 @ basis
        layer = Atoms("Si12", np.c_[places, np.zeros(12)], cell=[[*basis[0], 0], [*basis[1], 0], [0, 0, 20]])
        layer.pbc = (True, True, False)
        surface_ = simulate_stem(
            layer, shape=(side, side), pixel_size=size, rotation=draw.turn(), sigma=2.2
        ).image.astype(float)
    x, y = _grid((side, side))
    lines = draw.rng.normal(0, 0.15, (side, 1)) + 0.02 * draw.rng.normal(size=(side, side))
    heights = _even(surface_) + 3 * x - 2 * y + lines + 0.05 * draw.rng.normal(size=(side, side))
    return Scene(
        (heights * 3e-11).astype(np.float32), size, (np.array(reduce_basis(basis)).reshape(2, 2),), kind="stm"
    )


def stripes(draw: Draw) -> Scene:
    """Fringes of one set of planes."""
    x, y = _grid((512, 512))
    wave = 1 + np.cos(2 * math.pi * (draw.between(20, 60) * x + draw.between(5, 40) * y))
    return Scene(draw.rng.poisson(20 * wave + 5), 0.12, (), NOTHING)


def amorphous(draw: Draw) -> Scene:
    """Carbon, in phase contrast or as a film; noise alone; single atoms."""
    shape = (512, 512)
    match draw.variant % 4:
        case 0:
            image: Image = draw.rng.poisson(30 * np.clip(1 + 0.2 * _speckle(draw, shape, 2.5), 0, None))
        case 1:
            rings = ndimage.gaussian_filter(draw.rng.normal(size=shape), 1.5)
            image = rings - ndimage.gaussian_filter(rings, 3.5) + 0.01 * draw.rng.normal(size=shape)
        case 2:
            image = draw.rng.poisson(draw.between(0.05, 20), shape)
        case _:
            atoms = np.zeros(shape)
            atoms.flat[draw.rng.integers(atoms.size, size=150)] = 100
            image = draw.rng.poisson(20 * ndimage.gaussian_filter(atoms, 5) + 3)
    return Scene(image, 0.12, (), NOTHING)


def pattern(draw: Draw) -> Scene:
    """Diffraction pattern that calls itself nothing: spots around a bright beam."""
    side, basis = 512, lattice(draw.pick("MoS2", "SrTiO3 [100]", "Si [110]", "Au [110]"))
    reciprocal = np.linalg.inv(basis).T
    image = np.zeros((side, side))
    turn = math.radians(draw.turn())
    turned = reciprocal @ [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    for h in range(-9, 10):
        for k in range(-9, 10):
            x, y = (h, k) @ turned * 140 + side / 2
            length = float(np.hypot(*((h, k) @ reciprocal)))
            if 0 <= x < side and 0 <= y < side:
                image[int(y), int(x)] = math.exp(-3.5 * length) * draw.rng.uniform(0.4, 1) if h or k else 60
    spots = ndimage.gaussian_filter(image, 2.5)
    grey = draw.rng.poisson(4000 * spots / spots.max() * 40 + 1)
    return Scene(np.minimum(grey, 20000), 0.05, (), EITHER, told=None)


def photograph(draw: Draw) -> Scene:
    """Pictures of scikit-image (bricks, grass, coins, text, people), told to be 0.1 Å/px, or nothing."""
    from skimage import data

    names = (
        "camera", "brick", "grass", "gravel", "coins", "text", "page", "moon", "cell", "clock",
        "retina", "hubble_deep_field", "chelsea", "coffee", "horse", "immunohistochemistry",
    )  # fmt: skip
    picture = np.asarray(getattr(data, names[draw.variant // 2 % len(names)])(), dtype=float)
    grey = picture[..., :3].mean(axis=-1) if picture.ndim == 3 else picture
    return Scene(grey[:512, :512], 0.1, (), NOTHING, told=draw.pick(1.0, None))


#: Scene, and how many variants.
SCENES: dict[str, tuple[Callable[[Draw], Scene], int]] = {
    "HAADF, one scan": (haadf, 18),
    "30 to 100 electrons per Å²": (low_dose, 8),
    "distorted scans": (distorted, 12),
    "carbon, slopes": (uneven, 6),
    "pixel size absent or off": (misled, 8),
    "bright field": (inverted, 6),
    "HRTEM": (phase_contrast, 6),
    "annotated JPEG": (annotated, 6),
    "hot, dead, missing pixels": (spoilt, 4),
    "2 to 4 px a column": (coarse, 6),
    "4 to 7 periods": (magnified, 6),
    "fewer than 3 periods": (too_near, 4),
    "a particle": (particle, 10),
    "two grains": (two_grains, 6),
    "many grains": (many_grains, 4),
    "twisted layers": (twisted, 4),
    "two phases": (two_phases, 4),
    "tilted layer": (tilted_layer, 4),
    "defects": (defective, 4),
    "STM": (tunnelling, 8),
    "fringes": (stripes, 2),
    "amorphous, noise, single atoms": (amorphous, 8),
    "diffraction pattern as a picture": (pattern, 4),
    "photographs, textures": (photograph, 32),
}


def scene(kind: str, variant: int) -> Scene:
    """Return a variant of a scene; the same each time."""
    return SCENES[kind][0](Draw(kind, variant))
