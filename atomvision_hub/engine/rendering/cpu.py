"""Images of draws, one after the other on a core: NumPy, everything in the second-level cache."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.engine.rendering.draws import Draws
from atomvision_hub.simulation.poisson import poisson
from atomvision_hub.simulation.projection import Pose, points_in_view, pose
from atomvision_hub.simulation.psf import GAUSSIAN_REACH, GaussianPSF
from atomvision_hub.simulation.render import Image, render
from atomvision_hub.simulation.scanned import render_scanned


@functools.lru_cache(maxsize=64)
def _profile(sigma: float) -> GaussianPSF:
    return GaussianPSF(sigma)


def make_images(crystals: CrystalSet, config: RenderConfig, draws: Draws) -> npt.NDArray[np.uint8] | Image:
    """Return images (batch, rows, columns): grey levels uint8, or float32 0..1 where `config.bits` is 0."""
    kind = np.uint8 if config.bits else np.float32
    images = np.empty((len(draws), *config.shape), dtype=kind)
    for index in range(len(draws)):
        image = recorded(expected(crystals, config, draws, index), draws, index)
        # As `to_grey`, without its copies.
        low, high = image.min(), image.max()
        image -= low
        image *= np.float32((255 if config.bits else 1) / max(float(high - low), 1e-30))
        if config.bits:
            image += np.float32(0.5)
        images[index] = image
    return images


def where(crystals: CrystalSet, config: RenderConfig, draws: Draws, index: int) -> Pose:
    """Return the map from Å to the pixels of an image."""
    size = float(draws.pixel_size[index])
    x, y = draws.shift[index].tolist()
    placed = pose(config.shape, (size, size), float(draws.rotation[index]), (x, y))
    if not draws.mirror[index]:
        return placed
    middle = (config.shape[1] - 1) / 2
    flip = np.array([-1.0, 1.0])
    return Pose(placed.matrix * flip, (placed.origin - [middle, 0]) * flip + [middle, 0])


def expected(crystals: CrystalSet, config: RenderConfig, draws: Draws, index: int) -> Image:
    """Return the intensity of an image before electrons are counted, float32 [row, column], Z**n/Å²."""
    crystal = crystals.crystals[draws.crystal[index]]
    size, sigma = float(draws.pixel_size[index]), float(draws.sigma[index])
    lines = None if draws.lines is None else draws.lines[index]
    reach = GAUSSIAN_REACH * sigma / size
    margin = (reach, reach)
    if lines is not None:
        x, y = (np.abs(lines).max(axis=0) / size).tolist()
        margin = (reach + y, reach + x + 2)
    place = where(crystals, config, draws, index)
    view = points_in_view(crystal.points, crystal.projection, place, config.shape, margin)
    atoms = crystal.projection.numbers.astype(np.float64) ** draws.z_exponent[index]
    weights = np.asarray(np.bincount(crystal.sites, atoms), dtype=np.float64)[view.index]
    if lines is None:
        image = render(view.x, view.y, weights, _profile(sigma), config.shape, (size, size))
    else:
        image = render_scanned(view.x, view.y, weights, sigma, config.shape, (size, size), lines)
    if draws.background is not None:
        rows, columns = config.shape
        level, slope_x, slope_y = draws.background[index].tolist()
        y_part, x_part = (np.arange(n) / (n - 1) - 0.5 for n in (rows, columns))
        plane = (level + slope_x * x_part + slope_y * y_part[:, None]).astype(np.float32)
        np.maximum(plane, 0, out=plane)
        plane *= image.mean()
        image += plane
    return image


def recorded(image: Image, draws: Draws, index: int) -> Image:
    """Return an image after electrons were counted; the same one where its dose is infinite."""
    dose, size = float(draws.dose[index]), float(draws.pixel_size[index])
    mean = float(image.mean())
    if math.isinf(dose) or not mean > 0:
        return image
    np.maximum(image, 0, out=image)
    image *= np.float32(dose * size**2 / mean)
    generator = np.random.Generator(np.random.SFC64(int(draws.key[index])))
    return poisson(image, generator)
