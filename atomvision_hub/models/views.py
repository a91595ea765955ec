"""What a segmenter is shown of an image: its intensity in several scales, and without the probe's width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

#: What the network gets to see of an image, one channel each; see `look_at`.
View = Literal["linear", "root", "log", "restored_8", "restored_20", "restored_40"]

#: Faint atoms: the logarithm's straight part ends at 1/32 of the mean intensity, half a grey level or so.
_LOG_GAIN = 32.0
#: Iterations, ascending, after which a restored image is shown: few suit noise, many part near columns.
_ITERATIONS: dict[str, int] = {"restored_8": 8, "restored_20": 20, "restored_40": 40}
#: Standard deviation in pixels of the profile that is undone: a column of 0.5 Å at 0.1 Å/px, and a little
#: less, since too narrow a profile restores less and too wide a one makes rings.
WIDTH = 4.8
#: Nothing is divided by less than this part of the mean intensity.
_LEAST = 1e-6
#: Rows that one product of the blur makes.
_BLOCK = 96


def look_at(images: Tensor, views: Sequence[View], *, width: float = WIDTH) -> Tensor:
    """Return an image's intensity in several scales, each with mean 0 and variance 1 over the image.

    With u the intensity above the darkest pixel relative to its mean: ``linear`` is u, ``root`` is sqrt(u),
    which makes counting noise even, ``log`` is log(1 + 32 u), in which an oxygen beside tungsten (contrast
    1:45) can be seen; ``restored_N`` is the cube root of u after N iterations of `restore`. No gain or offset
    of the detector changes any of them.

    Parameters
    ----------
    images
        Grey images [batch, 1, row, column], any scale.
    views
        Which scales, in the order of the channels.
    width
        Standard deviation of an atom's profile in pixels, for the restored views.

    Returns
    -------
    Tensor
        float32 [batch, len(views), row, column].
    """
    # Half precision would ruin the iterations, and autocast takes it for products of matrices.
    with torch.autocast(images.device.type, enabled=False):
        return _look_at(images.float(), views, width)


def _look_at(values: Tensor, views: Sequence[View], width: float) -> Tensor:
    above = values - values.amin((2, 3), keepdim=True)
    ratio = above / above.mean((2, 3), keepdim=True).clamp(min=1e-12)
    scales = {"linear": ratio, "root": ratio.sqrt(), "log": torch.log1p(_LOG_GAIN * ratio)}
    wanted = [name for name in _ITERATIONS if name in views]
    if wanted:
        after = restore(ratio, width, [_ITERATIONS[name] for name in wanted]).pow(1 / 3)
        scales |= {name: after[:, [channel]] for channel, name in enumerate(wanted)}
    seen = torch.cat([scales[view] for view in views], 1)
    spread, mean = torch.var_mean(seen, (2, 3), keepdim=True, correction=0)
    return (seen - mean) / (spread + 1e-12).sqrt()


@torch.no_grad()
def restore(images: Tensor, width: float, iterations: Sequence[int]) -> Tensor:
    """Undo the blur by a Gaussian profile: accelerated Richardson-Lucy iterations.

    Every iteration multiplies the estimate by what it does not yet explain of the image, so that nothing
    becomes negative and faint atoms beside strong ones are restored as well. The estimate reaches beyond the
    image: atoms outside may explain what is seen of them at the edge.

    Parameters
    ----------
    images
        Intensities, not negative, of mean 1 or so; float32 [batch, 1, row, column].
    width
        Standard deviation of the profile in pixels.
    iterations
        After how many of them to return the estimate, ascending.

    Returns
    -------
    Tensor
        float32 [batch, len(iterations), row, column]. No gradient flows through it.

    References
    ----------
    Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974); the acceleration: Biggs and
    Andrews, Appl. Opt. 36, 1766 (1997), equations 7 and 8.
    """
    rows, columns = images.shape[2:]
    half = math.ceil(3.2 * width)
    blur, back = _blurs(rows, columns, half, width, images)
    seen = images + 1e-3
    # How much of each place's light falls into the image.
    share = back(torch.ones_like(images[:1])).clamp(min=1e-3)
    estimate = back(seen) / share
    before, change, kept = estimate, torch.zeros_like(estimate), []
    last = torch.zeros_like(estimate)
    for number in range(1, iterations[-1] + 1):
        guess = estimate
        if number > 2:
            along = (change * last).sum((2, 3), keepdim=True)
            size = last.square().sum((2, 3), keepdim=True).clamp(min=1e-20)
            guess = (estimate + (along / size).clamp(0, 0.98) * (estimate - before)).clamp(min=_LEAST)
        new = guess * back(seen / blur(guess).clamp(min=_LEAST)) / share
        last, change = change, new - guess
        before, estimate = estimate, new.clamp(min=_LEAST)
        if number in iterations:
            kept.append(estimate[:, :, half : half + rows, half : half + columns])
    return torch.cat(kept, 1)


def _blurs(
    rows: int, columns: int, half: int, width: float, like: Tensor
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the blur from a margin of `half` pixels around the image into the image, and its adjoint.

    Both are products with banded matrices, one block of `_BLOCK` rows after the other: several times as fast
    on a CPU as convolutions, and free of the zeros of the whole matrix.
    """
    places = torch.arange(-half, half + 1, device=like.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (places / width).square())
    kernel = kernel / kernel.sum()
    size = min(_BLOCK, max(rows, columns))
    index = torch.arange(size, device=like.device)[:, None] + torch.arange(len(kernel), device=like.device)
    band = torch.zeros(size, size + 2 * half, device=like.device)
    band.scatter_(1, index, kernel.expand(size, -1).clone())

    def along_columns(values: Tensor, length: int) -> Tensor:
        parts = [
            band[:count, : count + 2 * half] @ values[:, :, first : first + count + 2 * half]
            for first, count in _blocks(length)
        ]
        return torch.cat(parts, 2)

    def back_along_columns(values: Tensor, length: int) -> Tensor:
        wide = values.new_zeros(*values.shape[:2], length + 2 * half, values.shape[3])
        for first, count in _blocks(length):
            part = band[:count, : count + 2 * half].T @ values[:, :, first : first + count]
            wide[:, :, first : first + count + 2 * half] += part
        return wide

    def blur(values: Tensor) -> Tensor:
        return along_columns(along_columns(values, rows).mT, columns).mT

    def back(values: Tensor) -> Tensor:
        return back_along_columns(back_along_columns(values, rows).mT, columns).mT

    return blur, back


def _blocks(length: int) -> list[tuple[int, int]]:
    """Return first row and number of rows of each block."""
    return [(first, min(_BLOCK, length - first)) for first in range(0, length, _BLOCK)]
