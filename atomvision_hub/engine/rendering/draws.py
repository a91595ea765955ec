"""What is drawn for an image, from nothing but the seed, the epoch and the image's place in it.

Random numbers are a hash of a key and a counter: an image is the same whichever process or worker makes it,
in whatever batch and after whatever interruption, and no two places share a key.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from atomvision_hub.engine.rendering.config import RandomAcquisition, RenderConfig
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.simulation.acquisition import Acquisition, Dose, Drift, LineJitter, SourceSize
from atomvision_hub.simulation.acquisition.steps import FWHM_TO_SIGMA

Array = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(values: Keys) -> Keys:
    """Return the output function of SplitMix64 (Steele, Lea, Flood 2014), a bijection."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def image_keys(seed: int, epoch: int, places: npt.NDArray[np.int64]) -> Keys:
    """Return the key of every image of an epoch: different places have different ones."""
    start = np.array([seed, epoch], dtype=np.uint64)
    with np.errstate(over="ignore"):
        origin = _mixed(_mixed(start[:1] + _STEP) ^ (start[1:] * np.uint64(0xD1342543DE82EF95) + _STEP))
        return _mixed(origin + (places.astype(np.uint64) + np.uint64(1)) * _STEP)


def uniform(keys: Keys, stream: int, count: int) -> Array:
    """Return numbers strictly between 0 and 1, (keys, count), of one of the streams of each key."""
    with np.errstate(over="ignore"):
        origin = _mixed(keys ^ _mixed(np.array([stream + 1], dtype=np.uint64) * _STEP))
        values = _mixed(origin[:, None] + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * _STEP)
    return ((values >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


@dataclass(frozen=True)
class Draws:
    """One number (or row) an image.

    Attributes
    ----------
    key
        Of the image; seeds its counting noise.
    crystal
        Index of the crystal.
    pixel_size
        Å/px.
    rotation, mirror, shift
        Degrees, whether columns are reversed, and Å (x, y), (batch, 2), of the crystal.
    z_exponent, sigma
        Of the contrast; width of an atom with everything that blurs it, Å.
    dose
        Detected electrons per Å², infinite without noise.
    lines
        Where the beam stands instead of on the pixel, Å (x, y), a line, (batch, rows, 2).
    background
        Level, and slopes along x and y, relative to the mean of the image, (batch, 3).
    """

    key: Keys
    crystal: npt.NDArray[np.int64]
    pixel_size: Array
    rotation: Array
    mirror: npt.NDArray[np.bool_]
    shift: Array
    z_exponent: Array
    sigma: Array
    dose: Array
    lines: Array | None
    background: Array | None

    def __len__(self) -> int:
        return len(self.key)

    def part(self, which: slice) -> Draws:
        """Return some of the images."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        chosen: dict[str, Any] = {
            name: None if value is None else value[which] for name, value in values.items()
        }
        return Draws(**chosen)


def bounds(config: RenderConfig) -> RandomAcquisition:
    """Return what an acquisition is drawn from; a preset is drawn from a single point.

    Steps that the presets do not have are zero in them; a preset with any other step is refused.
    """
    if config.acquisition == "random":
        return config.random
    preset = Acquisition.preset(config.acquisition)
    values: dict[str, tuple[float, float]] = dict.fromkeys(
        ("source_size", "vibration", "drift", "line_jitter", "background", "slope"), (0.0, 0.0)
    )
    noise_free = 1.0
    for step in preset.steps:
        if isinstance(step, Dose):
            values["dose"], noise_free = (step.electrons, step.electrons), 0.0
        elif isinstance(step, SourceSize):
            values["source_size"] = (step.fwhm, step.fwhm)
        elif isinstance(step, Drift):
            values["drift"] = (step.fraction, step.fraction)
        elif isinstance(step, LineJitter):
            values["line_jitter"] = (step.rms, step.rms)
        elif step.name != "digitise":
            raise NotImplementedError(f"step {step.name} of a preset cannot be drawn for every image")
    return RandomAcquisition(noise_free=noise_free, **values)


def draw(
    crystals: CrystalSet,
    config: RenderConfig,
    seed: int,
    epoch: int,
    places: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
) -> Draws:
    """Draw everything about images.

    Parameters
    ----------
    crystals, config
        Of what, between which bounds.
    seed, epoch, places
        Which images of an epoch.
    which
        Index of the crystal of each.
    """
    keys = image_keys(seed, epoch, places)
    pose, record = uniform(keys, 0, 8), uniform(keys, 1, 12)
    side = min(config.shape)
    chosen = [crystals.crystals[i] for i in which]
    longest = np.array([one.longest for one in chosen])
    low = np.maximum(config.pixel_size[0], config.periods * longest / side)
    size = np.exp(np.log(low) + pose[:, 0] * np.log(config.pixel_size[1] / low))
    cells = np.array([one.projection.translations for one in chosen])
    turn = 360 * pose[:, 1] * config.rotate
    shift = np.einsum("bi,bij->bj", pose[:, 2:4] - 0.5, cells) * config.shift
    limits = bounds(config)
    source, vibration, drift, jitter, level = (
        low + (high - low) * record[:, k]
        for k, (low, high) in enumerate(
            (limits.source_size, limits.vibration, limits.drift, limits.line_jitter, limits.background)
        )
    )
    sigma = _log_uniform(pose[:, 5], config.sigma)
    dose = np.where(record[:, 6] < limits.noise_free, np.inf, _log_uniform(record[:, 5], limits.dose))
    return Draws(
        key=keys,
        crystal=np.asarray(which, dtype=np.int64),
        pixel_size=size,
        rotation=turn,
        mirror=(pose[:, 4] < 0.5) & config.mirror,
        shift=shift,
        z_exponent=config.z_exponent[0] + pose[:, 6] * (config.z_exponent[1] - config.z_exponent[0]),
        sigma=np.sqrt(sigma**2 + vibration**2 + (FWHM_TO_SIGMA * source) ** 2),
        dose=dose,
        lines=_lines(keys, config.shape, size, drift, record[:, 7], jitter)
        if max(limits.drift[1], limits.line_jitter[1]) > 0
        else None,
        background=np.stack([level, *(2 * record[:, 8:10] - 1).T * _slopes(record[:, 10], limits)], axis=1)
        if max(limits.background[1], limits.slope[1]) > 0
        else None,
    )


def _log_uniform(chance: Array, pair: tuple[float, float]) -> Array:
    return np.asarray(pair[0] * (pair[1] / pair[0]) ** chance)


def _slopes(chance: Array, limits: RandomAcquisition) -> Array:
    return np.asarray(limits.slope[0] + chance * (limits.slope[1] - limits.slope[0]))


def _lines(
    keys: Keys, shape: tuple[int, int], size: Array, drift: Array, direction: Array, jitter: Array
) -> Array:
    """Return drift and jitter of every line, Å (x, y), as the steps of an acquisition define them."""
    rows, columns = shape
    way = drift * size * max(rows, columns)
    time = np.arange(rows) / max(1, rows - 1) - 0.5
    angle = 2 * np.pi * direction
    moved = -way[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lines = np.asarray(moved[:, None, :] * time[None, :, None])
    lines[..., 0] += jitter[:, None] * ndtri(uniform(keys, 2, rows))
    return lines
