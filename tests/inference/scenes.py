"""Images as microscopes and people make them: a lattice of known parameters, and what spoils it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomvision_hub import load_structures, simulate_stem

Image = npt.NDArray[np.float64]

SIDE, PIXEL = 512, 0.15


def crystal(name: str = "MoS2", rotation: float = 17, side: int = SIDE, pixel_size: float = PIXEL) -> Image:
    """Noise-free columns, 0 to 1."""
    frame = simulate_stem(
        load_structures("reference")[name], shape=(side, side), pixel_size=pixel_size, rotation=rotation
    )
    image = frame.image.astype(np.float64)
    return (image - image.min()) / np.ptp(image)


def counted(image: Image, counts: float = 30, seed: int = 1) -> Image:
    """Poisson counts, `counts` at the brightest column over a ground of one."""
    return np.random.default_rng(seed).poisson(np.clip(image, 0, None) * counts + 1).astype(np.float64)


def _grid(side: int = SIDE) -> tuple[Image, Image]:
    y, x = np.mgrid[:side, :side] / side
    return x, y


def _amorphous() -> Image:
    speckle = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(SIDE, SIDE)), 3.0)
    return np.asarray(0.4 + 0.15 * speckle / speckle.std())


def _shifted(image: Image, along_x: Image) -> Image:
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    return np.asarray(ndimage.map_coordinates(image, [y, x + along_x], order=1, mode="reflect"))


def scale_bar(image: Image) -> Image:
    """A black box with a white bar, burnt in."""
    counts = counted(image)
    counts[460:497, 25:205] = 0
    counts[476:486, 35:195] = 1.2 * counts.max()
    return counts


def banner(image: Image) -> Image:
    """A strip below the image with something like text."""
    counts = counted(image)
    counts[-64:] = 0
    counts[-51:-36, ::7] = counts.max()
    return counts


def vignette(image: Image) -> Image:
    x, y = _grid()
    fall = np.exp(-4 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    return counted(fall * (image + 2))


def steps(image: Image) -> Image:
    """Three thicknesses."""
    x, _ = _grid()
    return counted(image * (1 + (x > 0.33) + 1.5 * (x > 0.66)))


def vacuum(image: Image) -> Image:
    x, _ = _grid()
    return counted(np.where(x < 0.5, 0, image))


def amorphous_border(image: Image) -> Image:
    x, y = _grid()
    return counted(np.where((x > 0.65) | (y < 0.2), _amorphous(), image))


def amorphous_layer(image: Image) -> Image:
    return counted(0.6 * image + _amorphous())


def inverted(image: Image) -> Image:
    return counted(1 - image)


def hot_pixels(image: Image) -> Image:
    counts = counted(image)
    counts.flat[np.random.default_rng(2).integers(0, counts.size, 60)] = 1e4
    return counts


def sheared(image: Image) -> Image:
    """Drift of 3 %."""
    _, y = _grid()
    return counted(_shifted(image, 0.03 * SIDE * (y - 0.5)))


def bent(image: Image) -> Image:
    _, y = _grid()
    return counted(_shifted(image, 3 * np.sin(2 * np.pi * y)))


def jittered(image: Image) -> Image:
    return counted(_shifted(image, np.random.default_rng(3).normal(0, 0.8, (SIDE, 1)) + np.zeros((1, SIDE))))


#: What must not change the answer, and how far (relative) it may move it.
HARD: dict[str, tuple[Callable[[Image], Image], float]] = {
    "scale bar": (scale_bar, 0.003),
    "banner": (banner, 0.003),
    "vignette": (vignette, 0.003),
    "three thicknesses": (steps, 0.01),
    "vacuum on one side": (vacuum, 0.003),
    "amorphous border": (amorphous_border, 0.005),
    "amorphous layer": (amorphous_layer, 0.005),
    "inverted contrast": (inverted, 0.003),
    "hot pixels": (hot_pixels, 0.003),
    "drift": (sheared, 0.03),
    "bent": (bent, 0.03),
    "jitter": (jittered, 0.003),
}


def grains(image: Image) -> Image:
    """A second grain, rotated by 23 degrees, on the left half."""
    x, _ = _grid()
    return counted(np.where(x < 0.5, crystal(rotation=40), image))


def phases(image: Image) -> Image:
    """Graphene beside the other crystal."""
    x, _ = _grid()
    return counted(np.where(x < 0.5, image, crystal("graphene", 3)))


def fringes(_image: Image) -> Image:
    x, y = _grid()
    return counted(0.5 + 0.3 * np.sin(2 * np.pi * (40 * x + 13 * y)))


def noise(_image: Image) -> Image:
    return counted(np.ones((SIDE, SIDE)))


def amorphous(_image: Image) -> Image:
    return counted(_amorphous())
