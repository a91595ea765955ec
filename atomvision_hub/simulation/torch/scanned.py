"""The batched twin of `atomvision_hub.simulation.scanned`: images along displaced lines of the beam."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOWEST = -25.0


def scanned(
    x: Tensor, y: Tensor, weights: Tensor, shape: tuple[int, int], sigma: Tensor, lines: Tensor
) -> Tensor:
    """Return sums of Gaussians where the beam stood.

    Parameters
    ----------
    x, y, weights
        Column and row of the atoms in pixels, float64, and the heights of their Gaussians, (batch, atoms).
    shape
        Rows and columns.
    sigma
        Widths in pixels (x, y), (batch, 2).
    lines
        Where the beam stands instead of on the pixel, pixels (x, y), a line, (batch, rows, 2).

    Returns
    -------
    float32 tensor (batch, rows, columns).
    """
    rows, columns = shape
    along = lines[..., 0]
    start = along.floor()
    # Room at both sides for the line that is farthest off, the same for all images.
    room = math.ceil(float(along.abs().amax())) + 2
    places = torch.arange(rows, device=x.device) + lines[..., 1]
    rows_factors = _exponents(y, places, sigma[:, 1]).exp()
    wide = torch.arange(-room, columns + room, device=x.device, dtype=torch.float64)[None]
    exponents = _exponents(x, wide, sigma[:, 0])
    # As in the NumPy twin: cubic spline coefficients of a Gaussian to fourth order.
    square = sigma[:, 0].square()[:, None, None]
    a, b = (1 / (6 * square)).float(), (1 / (72 * square.square())).float()
    polynomial = (4 * b * exponents + (2 * a + 12 * b)) * exponents + (1 + a + 3 * b)
    columns_factors = exponents.exp() * polynomial
    coefficients = torch.bmm((rows_factors * weights[:, :, None]).transpose(1, 2), columns_factors)
    first = (start.long() - 1 + room)[..., None]
    t = (along - start).float()[..., None]
    taken = coefficients.gather(2, first + torch.arange(columns + 3, device=x.device))
    taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    image = taps[0] / 6 * taken[..., :columns]
    for k, tap in enumerate(taps[1:], start=1):
        image.addcmul_(tap / 6, taken[..., k : k + columns])
    return image


def _exponents(center: Tensor, places: Tensor, sigma: Tensor) -> Tensor:
    """Return ``-(place - center)² / 2 sigma²``, float32 (batch, atoms, places)."""
    whole, nearest = torch.round(center), torch.round(places)
    # Differences of whole pixels are exact in float32, so the error does not grow with the image.
    distance = nearest.float()[:, None, :] - whole.float()[..., None]
    distance = distance + ((places - nearest).float()[:, None, :] - (center - whole).float()[..., None])
    return (distance.square() * (-0.5 / sigma**2).float()[:, None, None]).clamp(min=_LOWEST)
