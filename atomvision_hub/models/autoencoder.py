"""Autoencoders: an image to a few hundred numbers and back, plain and variational."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from atomvision_hub.errors import UsageError
from atomvision_hub.models.base import HubModel, check_images

#: What an image's side must be a multiple of: that of the grid of features in front of the code.
REDUCTION = 8
_PATCH = 4  # pixels along the side of what one place of the finer grid sees
_GROUPS = 8


class Autoencoder(HubModel):
    """A convolutional autoencoder of square grey images.

    Residual blocks on two scales and a linear map onto the code; the mirror image of it leads back. The code
    is linear in the last features: nothing squeezes or clips it.

    Parameters
    ----------
    latent
        Length of the code.
    size
        Rows and columns of the images, px; a multiple of 8.
    width
        Channels at a quarter of the resolution, twice as many at an eighth; a multiple of 8.
    blocks
        Residual blocks on each scale.
    mean, std
        Of grey levels 0..1; taken off before the convolutions, put back after them.
    known
        See `HubModel`.

    Raises
    ------
    UsageError
        When sizes do not fit.
    """

    kind: ClassVar[str] = "autoencoder"
    task: ClassVar[str] = "image-feature-extraction"

    def __init__(
        self,
        *,
        latent: int = 256,
        size: int = 64,
        width: int = 64,
        blocks: int = 2,
        mean: float = 0.25,
        std: float = 0.25,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = {
            "latent": latent,
            "size": size,
            "width": width,
            "blocks": blocks,
            "mean": mean,
            "std": std,
        }
        super().__init__(arguments=arguments, known=known)
        if size < REDUCTION or size % REDUCTION:
            raise UsageError(f"model.size must be a multiple of {REDUCTION}, not {size}")
        if width < _GROUPS or width % _GROUPS:
            raise UsageError(f"model.width must be a multiple of {_GROUPS}, not {width}")
        if not 1 <= latent <= size * size:
            raise UsageError(f"model.latent must lie between 1 and {size * size} pixels, not {latent}")
        if blocks < 1:
            raise UsageError(f"model.blocks must be 1 or more, not {blocks}")
        if not std > 0:
            raise UsageError(f"model.std must be positive, not {std}")
        self.size, self.latent, self.mean, self.std = size, latent, mean, std
        grid = size // REDUCTION
        features = width * grid * grid
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_PATCH),
            nn.Conv2d(_PATCH**2, width, 3, padding=1),
            *(_Residual(width) for _ in range(blocks)),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            *(_Residual(2 * width) for _ in range(blocks)),
            nn.Conv2d(2 * width, width, 1),
            nn.Flatten(),
        )
        self.to_code = nn.Linear(features, self._outputs())
        self.from_code = nn.Linear(latent, features)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (width, grid, grid)),
            nn.Conv2d(width, 2 * width, 1),
            *(_Residual(2 * width) for _ in range(blocks)),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            *(_Residual(width) for _ in range(blocks)),
        )
        self.to_pixels = nn.Conv2d(width, _PATCH**2, 3, padding=1)

    def _outputs(self) -> int:
        return self.latent

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes of images.

        Parameters
        ----------
        images
            Grey levels 0..1, float [batch, 1, size, size]; see `prepare`.

        Returns
        -------
        Tensor
            Shape [batch, latent].
        """
        return self._last(images)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images of codes [batch, latent]: [batch, 1, size, size], grey levels of about 0..1."""
        if codes.ndim != 2 or codes.shape[1] != self.latent:
            raise UsageError(
                f"{type(self).__name__} takes codes [batch, {self.latent}], not {tuple(codes.shape)}"
            )
        patches = self.to_pixels(self.decoder(self.from_code(codes)))
        return functional.pixel_shuffle(patches, _PATCH) * self.std + self.mean

    def forward(self, images: Tensor) -> Tensor:
        """Return what is left of images [batch, 1, size, size] after their code: the same shape."""
        return self.decode(self.encode(images))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return images [batch, 1, size, size] from their codes (their mean codes), clipped to 0..1."""
        return self.decode(self.encode(images)).clamp(0, 1)

    def prepare(self, images: Tensor) -> Tensor:
        """Return the central squares of images, averaged over areas to the network's size.

        Parameters
        ----------
        images
            Grey levels 0..1, float [batch, 1, row, column] of any size.

        Returns
        -------
        Tensor
            Shape [batch, 1, size, size]. The pixel size grows by ``min(row, column) / size``.
        """
        check_images(images, "prepare")
        return area_average(images, self.size)

    def _last(self, images: Tensor) -> Tensor:
        name = type(self).__name__
        if not self.training:  # looking at the values makes a GPU wait, which training must not do
            check_images(images, name)
        if tuple(images.shape[1:]) != (1, self.size, self.size):
            raise UsageError(
                f"{name} takes images [batch, 1, {self.size}, {self.size}], not {tuple(images.shape)}; "
                "prepare(images) makes them"
            )
        found: Tensor = self.to_code(self.encoder((images - self.mean) / self.std))
        return found


class Coded(NamedTuple):
    """What a variational autoencoder makes of images."""

    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor


class VariationalAutoencoder(Autoencoder):
    """The same network with a normal distribution as its code (Kingma and Welling 2014, arXiv 1312.6114).

    Parameters
    ----------
    latent, size, width, blocks, mean, std, known
        See `Autoencoder`.

    Attributes
    ----------
    pixel_variance
        Variance of a pixel around the decoded one, of grey levels 0..1; a buffer that training sets to the
        mean squared error of the validation images, its optimum (Rybkin et al. 2021, arXiv 2006.13202).
    """

    kind: ClassVar[str] = "vae"
    task: ClassVar[str] = "unconditional-image-generation"

    def __init__(
        self,
        *,
        latent: int = 64,
        size: int = 64,
        width: int = 64,
        blocks: int = 2,
        mean: float = 0.25,
        std: float = 0.25,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            latent=latent, size=size, width=width, blocks=blocks, mean=mean, std=std, known=known
        )
        self.pixel_variance: Tensor
        self.register_buffer("pixel_variance", torch.tensor(float(std) ** 2))
        with torch.no_grad():  # little noise at first, or the decoder learns to ignore the code
            self.to_code.bias[latent:] = -4.0

    def _outputs(self) -> int:
        return 2 * self.latent

    def distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the codes of images, [batch, latent] each."""
        mean, log_variance = self._last(images).chunk(2, dim=1)
        # A trained network stays well inside; outside, exp would overflow in half precision.
        return mean, log_variance.clamp(-14, 6)

    def encode(self, images: Tensor) -> Tensor:
        """Return the mean codes of images [batch, 1, size, size]: [batch, latent]."""
        return self.distribution(images)[0]

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Coded:  # type: ignore[override]
        """Return reconstruction and distribution of the code.

        Parameters
        ----------
        images
            Grey levels 0..1, float [batch, 1, size, size].
        noise
            Standard normal numbers [batch, latent] to draw the code with; the mean code without.
        """
        mean, log_variance = self.distribution(images)
        codes = mean if noise is None else mean + noise * (0.5 * log_variance).exp()
        return Coded(self.decode(codes), mean, log_variance)

    @torch.inference_mode()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return images that were never seen, from codes of the standard normal distribution.

        Parameters
        ----------
        count
            How many.
        generator
            Source of randomness, on the CPU: the same seed gives the same codes on any device.

        Returns
        -------
        Tensor
            Shape [count, 1, size, size], grey levels 0..1.
        """
        if count < 1:
            raise UsageError(f"sample draws 1 image or more, not {count}")
        codes = torch.randn(count, self.latent, generator=generator)
        return self.decode(codes.to(self.from_code.weight)).clamp(0, 1)


def area_average(images: Tensor, size: int) -> Tensor:
    """Return the central squares of images [batch, 1, row, column], averaged over areas to `size` pixels.

    Where the side is no multiple of `size`, the edges of the areas are rounded to pixels; smaller images are
    interpolated linearly.
    """
    short = min(images.shape[2:])
    top, left = ((side - short) // 2 for side in images.shape[2:])
    square = images[:, :, top : top + short, left : left + short]
    if short < size:
        return functional.interpolate(square, (size, size), mode="bilinear", align_corners=False)
    return functional.adaptive_avg_pool2d(square, size)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)  # the block begins as the identity
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # it has one
        self.change = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(_GROUPS, channels),
            nn.GELU(),
            last,
        )

    def forward(self, values: Tensor) -> Tensor:
        changed: Tensor = values + self.change(values)
        return changed
