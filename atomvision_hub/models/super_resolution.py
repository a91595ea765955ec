"""Super-resolution of images of atoms: four times as many pixels along each side, after SRGAN.

The generator is the residual network of C. Ledig et al., CVPR 2017 (arXiv:1609.04802), without batch
normalisation (B. Lim et al., EDSR, arXiv:1707.02921). It knows no grey scale: an image is brought to mean 0
and standard deviation 1, and the answer is brought back, so that counts, 8-bit levels and fractions of the
maximum give the same picture. The last layer is linear: every grey level can be reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from atomvision_hub.errors import UsageError
from atomvision_hub.models.base import HubModel, check_images

#: How many times as many pixels along each side.
SCALE = 4
_TILE = 256  # px of the input that are computed at once
_FLAT = 1e-4  # standard deviation (of grey levels 0..1) below which an image shows nothing


class Upscaled(NamedTuple):
    """An image with its calibration: grey levels [row, column] and Å/px along (rows, columns), or None."""

    image: npt.NDArray[np.float32]
    pixel_size: tuple[float, float] | None


class _Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        last.weight.data.mul_(0.1)  # residual branches start small (EDSR)
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(), last)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = images + self.body(images)
        return found


class SuperResolution(HubModel):
    """The generator: grey images 0..1 [batch, 1, row, column] to four times the rows and columns.

    What it adds to a bicubic enlargement is learned; the answer is in the grey scale of the input and may
    overshoot it a little. Any shape of 8 px or more fits.

    Parameters
    ----------
    channels, blocks
        Width and number of the residual blocks (SRGAN: 64 and 16).
    known
        What travels with the weights; ``pixel_size`` (Å/px) is that of the input.
    """

    kind: ClassVar[str] = "super_resolution"
    task: ClassVar[str] = "image-to-image"

    def __init__(
        self, *, channels: int = 64, blocks: int = 16, known: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(arguments={"channels": channels, "blocks": blocks}, known=known)
        self.head = nn.Sequential(nn.Conv2d(1, channels, 5, padding=2), nn.PReLU())
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(blocks)))
        self.merge = nn.Conv2d(channels, channels, 3, padding=1)
        doublings: list[nn.Module] = []
        for _ in range(2):
            doublings += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        last = nn.Conv2d(channels, 1, 5, padding=2)
        self.tail = nn.Sequential(*doublings, last)
        # The whole starts as what it refines, the bicubic image.
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        # On a CPU a fifth faster, on a GPU what its convolutions want.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return the enlarged images, in the type of `images`."""
        if not self.training:  # training hands over what it made itself; the look at the values would wait
            check_images(images, "super-resolution")
            _check_side(images)
        values = images.float()
        mean, spread = _scale(values)
        return (self._refine((values - mean) / spread) * spread + mean).to(images.dtype)

    def _refine(self, values: Tensor) -> Tensor:
        """Enlarge images of mean 0 and standard deviation 1, in float32."""
        first = self.head(values.to(self.merge.weight.dtype))
        added: Tensor = self.tail(first + self.merge(self.blocks(first)))
        return added.float() + enlarge(values)

    @torch.inference_mode()
    def upscale(
        self, image: npt.NDArray[Any], pixel_size: float | tuple[float, float] | None = None
    ) -> Upscaled:
        """Enlarge one image of any grey scale and size.

        Parameters
        ----------
        image
            Grey levels or counts, shape (rows, columns). Large ones are computed in tiles, seamlessly.
        pixel_size
            Å/px, one number or (row, column).

        Returns
        -------
        Upscaled
            Image in the units of the input, four times the rows and columns, and its pixel size.

        Raises
        ------
        UsageError
            When it is no finite grey image of at least 8 px.
        """
        found = np.asarray(image)
        if found.ndim != 2 or min(found.shape) < 8:
            raise UsageError(f"upscale takes a grey image [row, column] of 8 px or more, not {found.shape}")
        values = torch.from_numpy(found.astype(np.float32))[None, None]
        if not bool(values.isfinite().all()):
            raise UsageError("the image holds values that are not finite; replace them first")
        low, high = float(values.min()), float(values.max())
        size = None
        if pixel_size is not None:
            dy, dx = (float(value) for value in np.broadcast_to(np.asarray(pixel_size, dtype=float), 2))
            if not (np.isfinite([dy, dx]).all() and min(dy, dx) > 0):
                raise UsageError(f"the pixel size must be positive, in Å/px, not {pixel_size!r}")
            size = (dy / SCALE, dx / SCALE)
        span = (high - low) or 1.0
        values = ((values - low) / span).to(self.merge.weight.device)
        mean, spread = _scale(values)
        answer = self._tiled((values - mean) / spread) * spread + mean
        return Upscaled((answer[0, 0] * span + low).cpu().numpy(), size)

    def _tiled(self, values: Tensor) -> Tensor:
        """Return `_refine` of a large image, computed in pieces with all the surroundings that matter."""
        rows, columns = values.shape[2:]
        # Receptive field: 2 px of the first layer, 2 a block, the merging one, both doublings, the last.
        halo = 2 * len(self.blocks) + 6
        answer = values.new_empty(1, 1, SCALE * rows, SCALE * columns)
        for top in range(0, rows, _TILE):
            for left in range(0, columns, _TILE):
                bottom, right = min(top + _TILE, rows), min(left + _TILE, columns)
                y, x = max(top - halo, 0), max(left - halo, 0)
                piece = self._refine(values[:, :, y : bottom + halo, x : right + halo])
                piece = piece[:, :, SCALE * (top - y) :, SCALE * (left - x) :]
                height, width = SCALE * (bottom - top), SCALE * (right - left)
                answer[:, :, SCALE * top : SCALE * bottom, SCALE * left : SCALE * right] = piece[
                    :, :, :height, :width
                ]
        return answer


def _check_side(images: Tensor) -> None:
    rows, columns = images.shape[2:]
    if rows < 8 or columns < 8:
        raise UsageError(f"super-resolution takes images of 8 px or more a side, not {rows} x {columns}")


def _scale(values: Tensor) -> tuple[Tensor, Tensor]:
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    spread = (values - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return mean, spread.clamp(min=_FLAT)


def enlarge(images: Tensor) -> Tensor:
    """Return images of four times the rows and columns by bicubic interpolation; pixel areas stay aligned."""
    # When enlarging, "antialias" only means another kernel: that of Pillow, which keeps ramps straight.
    return functional.interpolate(
        images, scale_factor=float(SCALE), mode="bicubic", align_corners=False, antialias=True
    )


class Discriminator(nn.Module):
    """Tells images from the generator's answers: one logit for each patch of 16 x 16 px, any size.

    The convolutions of SRGAN's discriminator; group instead of batch normalisation, so that an answer depends
    neither on the other images nor on the number of processes. It sees what is judged beside what the low
    resolution adds to it (`judged`): of the image alone it learns nothing here, since a hundredth of the grey
    scale is all that is wrong with an answer.

    Parameters
    ----------
    channels
        Of the first layer; doubled three times.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 2
        for level in range(4):
            width = channels * 2**level
            for index, stride in enumerate((1, 2)):
                layers.append(nn.Conv2d(before, width, 3, stride=stride, padding=1))
                if level or index:
                    layers.append(nn.GroupNorm(min(8, width), width))
                layers.append(nn.LeakyReLU(0.2))
                before = width
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))

    def forward(self, images: Tensor, low: Tensor) -> Tensor:
        """Return logits [batch, 1, row / 16, column / 16] of "is a true image of this low resolution"."""
        found: Tensor = self.body(judged(images, low).to(memory_format=torch.channels_last))
        return found


def judged(images: Tensor, low: Tensor) -> Tensor:
    """Return what a discriminator sees [batch, 2, row, column], in units of the low image's deviation.

    Parameters
    ----------
    images
        True ones or the generator's, [batch, 1, row, column].
    low
        Low resolution that they belong to, [batch, 1, row / 4, column / 4].

    Returns
    -------
    Tensor
        The images at mean 0 and deviation 1, and ten times their difference from the enlarged low resolution.
    """
    mean, spread = _scale(low)
    return torch.cat([(images - mean) / spread, 10 * (images - enlarge(low)) / spread], 1)
