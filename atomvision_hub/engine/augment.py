"""Augmentation that keeps the lattice label true: similarity transforms that never leave the image."""

from __future__ import annotations

import math
from typing import Literal

import torch

Augment = Literal["none", "shift_mirror", "pose"]


def draw_transforms(
    count: int,
    augment: Augment,
    crop_min: float,
    generator: torch.Generator,
    *,
    side: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw similarity transforms from output to input coordinates.

    Coordinates are those of `torch.nn.functional.affine_grid` with ``align_corners=False``: the square image
    spans -1..1. First the side of the crop is drawn, then an angle with which it still fits into the image
    (all angles below 1/sqrt(2), near multiples of 90 degrees for larger crops), then a position that fits.

    Parameters
    ----------
    count
        How many.
    augment
        ``"none"`` gives the identity, ``"shift_mirror"`` no rotation, ``"pose"`` everything.
    crop_min
        Smallest side of the crop, as a part of the image's side.
    generator
        Source of randomness.
    side
        Sides of the crops, (count,), as parts of the image's side; drawn from `crop_min` to 1 by default.

    Returns
    -------
    torch.Tensor
        Shape (count, 2, 3), on the CPU.
    """
    uniform = torch.rand(count, 7, generator=generator, dtype=torch.float64)  # always drawn: same stream
    if augment == "none":
        return torch.eye(2, 3).repeat(count, 1, 1)
    side = crop_min + (1 - crop_min) * uniform[:, 0] if side is None else side.double()
    angle = torch.zeros(count, dtype=torch.float64)
    if augment == "pose":
        # |cos| + |sin| <= 1/side: angles closer than `barred` to the diagonal do not fit.
        barred = torch.acos((1 / (side * math.sqrt(2))).clamp(max=1))
        angle = (2 * uniform[:, 1] - 1) * (math.pi / 4 - barred) + (4 * uniform[:, 2]).floor() * math.pi / 2
    cosine, sine = torch.cos(angle), torch.sin(angle)
    room = (1 - side * (cosine.abs() + sine.abs())).clamp(min=0)
    mirror_x, mirror_y = 1 - 2 * (uniform[:, 3:5] < 0.5).double().T
    transform = torch.empty(count, 2, 3, dtype=torch.float64)
    transform[:, 0, 0], transform[:, 0, 1] = side * cosine * mirror_x, -side * sine * mirror_y
    transform[:, 1, 0], transform[:, 1, 1] = side * sine * mirror_x, side * cosine * mirror_y
    transform[:, :, 2] = (2 * uniform[:, 5:7] - 1) * room[:, None]
    return transform.float()


def sample(images: torch.Tensor, transforms: torch.Tensor, size: int) -> torch.Tensor:
    """Resample images by transforms.

    Parameters
    ----------
    images
        Float, shape (batch, channels, side, side).
    transforms
        Of `draw_transforms`, shape (batch, 2, 3).
    size
        Side of the output.

    Returns
    -------
    torch.Tensor
        Shape (batch, channels, size, size); bilinear interpolation.
    """
    shape = [images.shape[0], images.shape[1], size, size]
    grid = torch.nn.functional.affine_grid(transforms.to(images), shape, align_corners=False)
    # "border" only clips the half pixel between an outermost centre and the edge.
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
