"""Images of draws in batches on the device: the torch twin of `cpu`, for GPUs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.crystals import CrystalSet, DrawnCrystal
from atomvision_hub.engine.rendering.draws import Draws
from atomvision_hub.engine.scenes import poisson
from atomvision_hub.simulation.torch import CrystalBatch, StemRenderer

_STEP = 0x9E3779B97F4A7C15
_NOISE = 3  # stream of the pixels' random numbers


class DeviceRenderer:
    """All crystals on the device, from which batches of images are made there.

    Parameters
    ----------
    crystals, config
        Of what, and how.
    device
        Where.
    """

    def __init__(self, crystals: CrystalSet, config: RenderConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.renderer = StemRenderer(config.shape)
        self.batch, self.atoms = _packed(crystals.crystals, device)

    @torch.no_grad()
    def expected(self, draws: Draws) -> Tensor:
        """Return intensities before electrons are counted, float32 (batch, rows, columns)."""
        which, most = self._tensor(draws.crystal), int(self.atoms[draws.crystal].max())
        batch = CrystalBatch(
            self.batch.positions[which, :most],
            self.batch.numbers[which, :most],
            self.batch.occupancies[which, :most],
            self.batch.translations[which],
        )
        images: Tensor = self.renderer(
            batch,
            rotation=self._tensor(draws.rotation),
            shift=self._tensor(draws.shift),
            pixel_size=self._tensor(draws.pixel_size)[:, None].expand(-1, 2),
            mirror=self._tensor(draws.mirror),
            z_exponent=self._tensor(draws.z_exponent),
            sigma=self._tensor(draws.sigma),
            lines=None if draws.lines is None else self._tensor(draws.lines),
        )
        if draws.background is not None:
            level, slope_x, slope_y = self._tensor(draws.background).float().T[:, :, None, None]
            y, x = (torch.arange(n, device=self.device) / (n - 1) - 0.5 for n in self.config.shape)
            plane = (level + slope_x * x + slope_y * y[:, None]).clamp(min=0)
            images = images + plane * images.mean((1, 2), keepdim=True)
        return images

    @torch.no_grad()
    def make(self, draws: Draws) -> Tensor:
        """Return images, float32 0..1 (batch, rows, columns)."""
        images = self.expected(draws)
        if np.isfinite(draws.dose).any():
            dose = self._tensor(draws.dose * draws.pixel_size**2).float()[:, None, None]
            mean = images.mean((1, 2), keepdim=True).clamp(min=1e-30)
            counts = images.clamp(min=0) * (dose.clamp(max=1e12) / mean)
            chance = uniform(self._tensor(draws.key.view(np.int64)), _NOISE, images[0].numel())
            counted = poisson(chance.view_as(images), counts)
            images = torch.where(torch.isinf(dose), images, counted)
        low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
        images = (images - low) / (high - low).clamp(min=1e-30)
        return (255 * images).round() / 255 if self.config.bits else images

    def _tensor(self, values: npt.NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def uniform(keys: Tensor, stream: int, count: int) -> Tensor:
    """Return the numbers of `draws.uniform` for keys (int64, the same bits), float32 (keys, count)."""
    first = _mixed(torch.tensor([_signed((stream + 1) * _STEP)], device=keys.device))
    origin = _mixed(keys ^ first)
    steps = torch.arange(1, count + 1, device=keys.device) * _signed(_STEP)
    values = _mixed(origin[:, None] + steps)
    # With 23 bits, and half a step more, a float32 is strictly between 0 and 1.
    return (((values >> 41) & 0x7FFFFF).float() + 0.5) * 2.0**-23


def _mixed(values: Tensor) -> Tensor:
    # Shifts of signed numbers drag the sign along; the masks take it away.
    values = (values ^ ((values >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ ((values >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    return values ^ ((values >> 31) & (2**33 - 1))


def _signed(value: int) -> int:
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _packed(
    crystals: tuple[DrawnCrystal, ...], device: torch.device
) -> tuple[CrystalBatch, npt.NDArray[np.int64]]:
    """Return crystals as one batch, atoms of one element on one point joined, and how many each has."""
    flat = []
    for crystal in crystals:
        pairs = np.stack([crystal.sites, crystal.projection.numbers])
        sites, counts = np.unique(pairs, axis=1, return_counts=True)
        flat.append((crystal.points[sites[0]], sites[1], counts))
    atoms = np.array([len(numbers) for _, numbers, _ in flat])
    positions = np.zeros((len(flat), atoms.max(), 2))
    numbers = np.zeros(positions.shape[:2], dtype=np.int64)
    occupancies = np.zeros(positions.shape[:2])
    for i, (points, elements, counts) in enumerate(flat):
        positions[i, : atoms[i]], numbers[i, : atoms[i]], occupancies[i, : atoms[i]] = (
            points,
            elements,
            counts,
        )
    translations = np.array([crystal.projection.translations for crystal in crystals])
    arrays = (positions, numbers, occupancies, translations)
    return CrystalBatch(*(torch.from_numpy(array).to(device) for array in arrays)), atoms
