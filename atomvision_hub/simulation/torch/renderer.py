"""Batches of STEM images by batched matrix products, differentiable in everything that is continuous.

The formula and the conventions are those of `atomvision_hub.simulate_stem`, with which images agree to 1e-5
of their maximum. Geometry is done in float64 (a few numbers per atom), pixels in float32.

Arithmetic: one image of H x W pixels with K atoms in reach takes ``2 H W K`` FLOP for the product and
``K (H + W)`` exponentials. MoS2 at 256 x 256 pixels of 0.1 Å has K = 218 positions: 29 MFLOP, so 300,000
images/s are 8.6 TFLOP/s (float32 without tensor cores: 67 peak on an H100) and write 79 GB/s of images. What
limits is the memory traffic of the factors, K (H + W) floats = 0.45 MB an image, read and written in each of
six elementwise passes; ``fuse=True`` makes them one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.psf import GAUSSIAN_REACH, GaussianPSF, RadialPSF, as_psf
from atomvision_hub.simulation.torch.batch import CrystalBatch
from atomvision_hub.simulation.torch.scanned import scanned

_FAR = 1e6  # Å; a translation this long repeats nothing that an image could show
_LOWEST = -25.0  # exponents end here, as in the NumPy renderer


class StemRenderer(nn.Module):
    """Render batches of crystals, each with its own rotation, shift and pixel size.

    Parameters
    ----------
    shape
        Rows and columns of the images.
    pixel_size
        Å per pixel, one number or (row, column); may be given per image to `forward`.
    z_exponent
        Exponent of the atomic number.
    psf
        ``"gaussian"`` of width `sigma` (Å), or a `GaussianPSF`, also a sum of Gaussians. Others are drawn by
        `simulate_stem` only.
    sigma
        Standard deviation of ``"gaussian"``, in Å.
    mask_radius
        Radius of the disks of `mask`, in Å.
    fuse
        Whether to let ``torch.compile`` fuse the factors into one kernel; for GPUs and large batches.

    Raises
    ------
    UsageError
        When an argument makes no sense or the psf is not made of Gaussians.
    """

    def __init__(
        self,
        shape: tuple[int, int] = (256, 256),
        *,
        pixel_size: float | tuple[float, float] = 0.1,
        z_exponent: float = 1.7,
        psf: str | RadialPSF = "gaussian",
        sigma: float = 0.5,
        mask_radius: float = 0.5,
        fuse: bool = False,
    ) -> None:
        super().__init__()
        profile = as_psf(psf, sigma)
        if not isinstance(profile, GaussianPSF):
            raise UsageError(
                f"the batched renderer draws sums of Gaussians, not psf {profile}; use simulate_stem"
            )
        if len(shape) != 2 or min(shape) < 1:
            raise UsageError(f"shape must be two positive whole numbers (rows, columns), not {shape!r}")
        if not mask_radius > 0:
            raise UsageError(f"mask_radius must be positive, in Å, not {mask_radius!r}")
        self.shape = (int(shape[0]), int(shape[1]))
        self.pixel_size = pixel_size
        self.z_exponent = z_exponent
        self.psf = profile
        self.mask_radius = mask_radius
        self._factors: Any = torch.compile(_factors, dynamic=True) if fuse else _factors

    def forward(
        self,
        crystals: CrystalBatch,
        *,
        rotation: Tensor | float = 0.0,
        shift: Tensor | tuple[float, float] = (0.0, 0.0),
        pixel_size: Tensor | float | tuple[float, float] | None = None,
        mirror: Tensor | None = None,
        z_exponent: Tensor | None = None,
        sigma: Tensor | None = None,
        lines: Tensor | None = None,
    ) -> Tensor:
        """Render images.

        Parameters
        ----------
        crystals
            One crystal per image, or a single one for all poses.
        rotation
            Degrees from +x towards +y, one number or (batch,).
        shift
            Å (x, y), (2,) or (batch, 2).
        pixel_size
            Å per pixel (row, column), one number, (2,) or (batch, 2); that of the renderer by default.
        mirror
            Whether columns are reversed, bool (batch,).
        z_exponent, sigma
            Exponents, and widths of a single Gaussian in Å, (batch,), instead of the renderer's.
        lines
            Where the beam stands instead of on the pixel, Å (x, y), a line, (batch, rows, 2).

        Returns
        -------
        float32 tensor (batch, rows, columns), Z**z_exponent per Å².
        """
        widths = [torch.tensor([one], dtype=torch.float64) for one in self.psf.sigmas]
        shares, reach = self.psf.weights, self.psf.reach
        if sigma is not None:
            widths, shares = [sigma.double()], (1.0,)
            reach = GAUSSIAN_REACH * float(sigma.amax())
        if lines is not None:
            reach += float(lines.abs().amax())
        steps, x, y, weights, _ = self._place(
            crystals, rotation, shift, pixel_size, reach, mirror=mirror, z_exponent=z_exponent
        )
        rows, columns = self.shape
        images = None
        for share, width in zip(shares, widths, strict=True):
            sigmas = width.to(x.device)[:, None] / steps
            scaled = (weights * (share / (2 * math.pi * width.to(x.device) ** 2))[:, None]).to(torch.float32)
            if lines is None:
                along_rows = self._factors(y, rows, sigmas[:, 1])
                along_columns = self._factors(x, columns, sigmas[:, 0])
                product = torch.bmm((along_rows * scaled[:, :, None]).transpose(1, 2), along_columns)
            else:
                product = scanned(x, y, scaled, self.shape, sigmas, lines.double() / steps[:, None, :])
            images = product if images is None else images + product
        assert images is not None  # a GaussianPSF has at least one term
        return images

    @torch.no_grad()
    def mask(
        self,
        crystals: CrystalBatch,
        *,
        rotation: Tensor | float = 0.0,
        shift: Tensor | tuple[float, float] = (0.0, 0.0),
        pixel_size: Tensor | float | tuple[float, float] | None = None,
    ) -> Tensor:
        """Return the masks that belong to the images of `forward`: whether a pixel's centre is within
        `mask_radius` of an atom, bool (batch, rows, columns).
        """  # noqa: D205
        steps, x, y, _, present = self._place(crystals, rotation, shift, pixel_size, self.mask_radius)
        rows, columns = self.shape
        radius = self.mask_radius / steps
        half_x, half_y = (int(r) for r in torch.floor(radius.amax(0) + 0.5).tolist())
        dy = torch.arange(-half_y, half_y + 1, device=x.device)
        dx = torch.arange(-half_x, half_x + 1, device=x.device)
        x, y = x.float().double(), y.float().double()  # as the atom table stores them
        row, column = torch.round(y), torch.round(x)
        rows_squared = (((row - y)[..., None] + dy) / radius[:, 1, None, None]).square()
        columns_squared = (((column - x)[..., None] + dx) / radius[:, 0, None, None]).square()
        inside = rows_squared[..., :, None] + columns_squared[..., None, :] <= 1
        # Everything outside the image, and padding, goes to one spare pixel at the end.
        at_row = row[..., None, None].long() + dy[:, None]
        at_column = column[..., None, None].long() + dx
        inside &= present[..., None, None] & (at_row >= 0) & (at_row < rows)
        inside &= (at_column >= 0) & (at_column < columns)
        pixel = torch.where(inside, at_row * columns + at_column, rows * columns).flatten(1)
        canvas = torch.zeros(len(x), rows * columns + 1, dtype=torch.bool, device=x.device)
        return canvas.scatter_(1, pixel, True)[:, :-1].view(-1, rows, columns)

    def _place(
        self,
        crystals: CrystalBatch,
        rotation: Tensor | float,
        shift: Tensor | tuple[float, float],
        pixel_size: Tensor | float | tuple[float, float] | None,
        reach: float,
        *,
        mirror: Tensor | None = None,
        z_exponent: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return pixel sizes (x, y), and per image the x, y, weight and presence of all atoms within reach.

        Atoms are padded to the image that has most; all is float64.
        """
        device = crystals.positions.device
        turn = torch.deg2rad(torch.as_tensor(rotation, dtype=torch.float64, device=device)).reshape(-1)
        moved = torch.as_tensor(shift, dtype=torch.float64, device=device).reshape(-1, 2)
        size = self.pixel_size if pixel_size is None else pixel_size
        steps = torch.as_tensor(size, dtype=torch.float64, device=device)
        steps = steps.expand(1, 2) if steps.ndim == 0 else steps.reshape(-1, 2).flip(-1)  # (x, y)
        if not bool((steps > 0).all()):
            raise UsageError(f"pixel_size must be positive, in Å/px, not {size!r}")
        sizes = {len(crystals), len(turn), len(moved), len(steps)} - {1}
        if len(sizes) > 1:
            raise UsageError(f"crystals and poses must be of one number, or single, not {sorted(sizes)}")
        batch = sizes.pop() if sizes else 1
        steps, moved = steps.expand(batch, 2), moved.expand(batch, 2)

        cosine, sine = torch.cos(turn), torch.sin(turn)
        matrix = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)
        matrix = matrix / steps[:, None, :]  # Å to pixels, for rows of vectors
        if mirror is not None:
            flip = torch.stack([1 - 2 * mirror.double(), torch.ones_like(mirror, dtype=torch.float64)], -1)
            matrix, moved = matrix * flip[:, None, :], moved * flip
        middle = torch.tensor([(self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2], device=device)
        origin = middle + moved / steps
        low = -0.5 - reach / steps - origin
        high = torch.tensor([self.shape[1], self.shape[0]], device=device) - 0.5 + reach / steps - origin

        cell = _full_rank(crystals.translations.double())
        positions = crystals.positions.double()
        inverse = torch.linalg.inv(cell)
        positions = positions - torch.floor(positions @ inverse).detach() @ cell
        placed = positions @ matrix  # (batch, atoms, 2), relative to the origin
        offsets = _offsets(cell.expand(batch, 2, 2), matrix.expand(batch, 2, 2), low.detach(), high.detach())
        places = (placed[:, None] + offsets[:, :, None]).reshape(batch, -1, 2)

        elements = crystals.numbers.to(torch.float64)
        power = self.z_exponent if z_exponent is None else z_exponent.double()[:, None]
        weights = torch.where(elements > 0, elements**power, 0.0) * crystals.occupancies
        weights = weights[:, None].expand(-1, offsets.shape[1], -1).flatten(1).expand(batch, -1)
        present = (elements > 0)[:, None].expand(-1, offsets.shape[1], -1).flatten(1)
        near = present & ((places >= low[:, None]) & (places < high[:, None])).all(-1)
        most = max(int(near.sum(1).amax()), 1)
        # Move the atoms in reach to the front; all others end in one spare place, which is cut off.
        target = torch.where(near, near.cumsum(1) - 1, most)
        places = places + origin[:, None]
        x, y, weights = (
            torch.zeros(batch, most + 1, dtype=torch.float64, device=device).scatter(1, target, values)[
                :, :most
            ]
            for values in (places[..., 0], places[..., 1], weights)
        )
        present = torch.arange(most, device=device) < near.sum(1, keepdim=True)
        return steps, x, y, weights, present


def _full_rank(translations: Tensor) -> Tensor:
    """Replace translations of length zero, (batch, 2, 2), by far ones across the others."""
    first, second = translations.unbind(-2)
    unit = torch.tensor([1.0, 0.0], dtype=first.dtype, device=first.device).expand_as(first)
    none_first = (first == 0).all(-1, keepdim=True)
    none_second = (second == 0).all(-1, keepdim=True)
    first = torch.where(none_first, _FAR * unit, first)
    across = torch.stack([-first[..., 1], first[..., 0]], -1).detach()
    across = across / torch.linalg.vector_norm(across, dim=-1, keepdim=True)
    return torch.stack([first, torch.where(none_second, _FAR * across, second)], -2)


def _offsets(cell: Tensor, matrix: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the translations, in pixels, that can bring the first cell into the box, (batch, n, 2)."""
    steps = cell @ matrix
    inverse = torch.linalg.inv(steps.detach())
    middle = ((low + high)[:, None] / 2 @ inverse)[:, 0]
    half = ((high - low)[:, None] / 2 @ inverse.abs())[:, 0]
    first, last = torch.ceil(middle - half - 1), torch.floor(middle + half)
    counts = (last - first + 1).amax(0).long().tolist()
    i, j = (torch.arange(n, device=cell.device, dtype=cell.dtype) for n in counts)
    multiples = torch.cartesian_prod(i, j).reshape(-1, 2) + first[:, None]
    return multiples @ steps


def _factors(center: Tensor, length: int, sigma: Tensor) -> Tensor:
    """Return ``exp(-(pixel - center)² / 2 sigma²)``, (batch, atoms, length), for centres (batch, atoms)."""
    whole = torch.round(center).detach()
    pixels = torch.arange(length, device=center.device, dtype=torch.float32)
    # Differences of whole pixels are exact in float32, so the error does not grow with the image.
    distance = (pixels - whole.float()[..., None]) - (center - whole).float()[..., None]
    scale = (-0.5 / sigma**2).float()[:, None, None]
    return torch.exp((distance.square() * scale).clamp(min=_LOWEST))
