"""What a segmenter is shown of an image: its intensity in several scales, and without the probe's width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from atomvision_hub.models.deconvolution import deconvolve

#: Names of what the network gets to see of an image, one channel each; see `look_at`.
VIEWS = r"linear|root|log|(restored|deconvolved)_[1-9]\d{0,2}"
#: What the small segmenter that ships is shown.
USUAL = ("root", "log", "restored_15", "restored_40", "deconvolved_10", "deconvolved_25")

#: Faint atoms: the logarithm's straight part ends at 1/32 of the mean intensity, half a grey level or so.
_LOG_GAIN = 32.0
#: Standard deviation in pixels of the profile that is undone: a column of 0.5 Å at 0.1 Å/px, and a little
#: less, since too narrow a profile restores less and too wide a one makes rings.
WIDTH = 4.8
#: Nothing is divided by less than this part of the mean intensity.
_LEAST = 1e-6
#: Rows that one small product of the blur makes.
_BLOCK = 16


def look_at(images: Tensor, views: Sequence[str], *, width: float = WIDTH) -> Tensor:
    """Return an image's intensity in several scales, each with mean 0 and variance 1 over the image.

    With u the intensity above the darkest pixel relative to its mean: ``linear`` is u, ``root`` is sqrt(u),
    which makes counting noise even, ``log`` is log(1 + 32 u), in which an oxygen beside tungsten (contrast
    1:45) can be seen; ``restored_N`` and ``deconvolved_N`` are the cube root of u after N iterations of
    `restore` (which suits noise) and of `deconvolve` (which parts near columns sooner). Few iterations suit
    noise, many part near columns. No gain or offset of the detector changes any of them.

    Parameters
    ----------
    images
        Grey images [batch, 1, row, column], any scale.
    views
        Which of these (`VIEWS`), in the order of the channels.
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


def _look_at(values: Tensor, views: Sequence[str], width: float) -> Tensor:
    above = values - values.amin((2, 3), keepdim=True)
    ratio = above / above.mean((2, 3), keepdim=True).clamp(min=1e-12)
    scales = {"linear": ratio, "root": ratio.sqrt(), "log": torch.log1p(_LOG_GAIN * ratio)}
    for kind, undo in (("restored_", restore), ("deconvolved_", deconvolve)):
        wanted = sorted({int(view.removeprefix(kind)) for view in views if view.startswith(kind)})
        if wanted:
            after = undo(ratio, width, wanted).pow(1 / 3)
            scales |= {f"{kind}{number}": after[:, [channel]] for channel, number in enumerate(wanted)}
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
        # In place where nobody looks any more: half of the time goes to reading and writing whole images.
        if number > 2:
            along = (change * last).sum((2, 3), keepdim=True)
            size = last.square().sum((2, 3), keepdim=True).clamp(min=1e-20)
            guess = torch.addcmul(estimate, (along / size).clamp(0, 0.98), estimate - before)
            guess.clamp_(min=_LEAST)
        else:
            guess = estimate.clone()
        light = blur(guess).clamp_(min=_LEAST)
        new = back(torch.div(seen, light, out=light)).mul_(guess).div_(share)
        last, change = change, torch.sub(new, guess, out=guess)
        before, estimate = estimate, new.clamp_(min=_LEAST)
        if number in iterations:
            kept.append(estimate[:, :, half : half + rows, half : half + columns])
    return torch.cat(kept, 1)


def _blurs(
    rows: int, columns: int, half: int, width: float, like: Tensor
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the blur from a margin of `half` pixels around the image into the image, and its adjoint.

    Both are products with a banded matrix, many small blocks of rows at once: several times as fast on a CPU
    as convolutions, and nearly free of the zeros of the whole matrix.
    """
    places = torch.arange(-half, half + 1, device=like.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (places / width).square())
    kernel = kernel / kernel.sum()
    size = min(_BLOCK, max(rows, columns) + 2 * half)
    index = torch.arange(size, device=like.device)[:, None] + torch.arange(len(kernel), device=like.device)
    band = torch.zeros(size, size + 2 * half, device=like.device)
    band.scatter_(1, index, kernel.expand(size, -1).clone())

    def down(values: Tensor) -> Tensor:
        """Blur along the columns, which get shorter by `half` at both ends."""
        batch, _, length, across = values.shape
        blocks, rest = divmod(length - 2 * half, size)
        parts = []
        if blocks:
            views = values.unfold(2, size + 2 * half, size).mT[:, 0, :blocks].flatten(0, 1)
            product = torch.bmm(band.expand(len(views), -1, -1), views)
            parts.append(product.view(batch, 1, blocks * size, across))
        if rest:
            parts.append(band[:rest, : rest + 2 * half] @ values[:, :, blocks * size :])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def across(values: Tensor) -> Tensor:
        """Blur along the rows."""
        blocks, rest = divmod(values.shape[3] - 2 * half, size)
        parts = []
        if blocks:
            views = values.unfold(3, size + 2 * half, size)[:, :, :, :blocks]
            product = views.reshape(-1, size + 2 * half) @ band.T
            parts.append(product.view(*values.shape[:3], blocks * size))
        if rest:
            parts.append(values[:, :, :, blocks * size :] @ band[:rest, : rest + 2 * half].T)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 3)

    def blur(values: Tensor) -> Tensor:
        return across(down(values))

    def back(values: Tensor) -> Tensor:
        # The profile is symmetric: its adjoint is the blur of the image in a dark frame.
        wide = down(pad(values, (0, 0, 2 * half, 2 * half)))
        return across(pad(wide, (2 * half, 2 * half)))

    return blur, back
