"""The blur of a Gaussian probe undone, with nothing negative and nothing assumed beyond the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor

#: Penalties of the two splittings: what is not negative, and what is seen. Their ratio, 0.001, is the power
#: of noise against that of columns at about 500 electrons per Å². Found on validation images without noise
#: by the overlap of disks around the maxima with the true ones; with a ratio ten times larger it is a little
#: less, with one ten times smaller it takes more iterations.
_NOT_NEGATIVE, _SEEN = 1e-4, 0.1
#: Over-relaxation: halves the number of iterations.
_RELAXATION = 1.7


# Compiled there is nothing to gain, and the search for good sizes would break the graph.
@torch.compiler.disable  # type: ignore[untyped-decorator]
@torch.no_grad()
def deconvolve(images: Tensor, width: float, iterations: Sequence[int]) -> Tensor:
    """Return what, blurred by a Gaussian profile, gives the images: least squares without negative values.

    The alternating direction method of multipliers: every iteration solves the least-squares problem exactly
    in Fourier space and then clips, so that fifty iterations part columns for which Richardson and Lucy need
    five hundred. The estimate reaches beyond the image, and what the blur makes there is left free: atoms
    outside may explain what is seen of them at the edge.

    Parameters
    ----------
    images
        Intensities of mean 1 or so; float32 [batch, 1, row, column].
    width
        Standard deviation of the profile in pixels.
    iterations
        After how many of them to return the estimate, ascending: few suit noise, many part near columns.

    Returns
    -------
    Tensor
        float32 [batch, len(iterations), row, column], not negative. No gradient flows through it.

    References
    ----------
    Almeida and Figueiredo, IEEE Trans. Image Process. 22, 3074 (2013), section III (the boundary is unknown);
    over-relaxation: Boyd et al., Found. Trends Mach. Learn. 3, 1 (2011), section 3.4.3.
    """
    rows, columns = images.shape[2:]
    half = math.ceil(3.2 * width)
    inside = (..., slice(half, half + rows), slice(half, half + columns))
    shape = (next_fast_len(rows + 2 * half, real=True), next_fast_len(columns + 2 * half, real=True))
    down, along = torch.fft.fftfreq(shape[0]), torch.fft.rfftfreq(shape[1])
    square = (down[:, None].square() + along.square()).to(images.device)
    blur = torch.exp(-2 * math.pi**2 * width**2 * square)
    # The two quotients of the exact solution.
    total = _SEEN * blur.square() + _NOT_NEGATIVE
    from_blurred, from_estimate = _SEEN * blur / total, _NOT_NEGATIVE / total

    mean = images.mean((2, 3), keepdim=True)
    blurred = mean.expand(-1, -1, *shape).clone()
    blurred[inside] = images
    estimate = torch.ones_like(blurred)
    # Scaled multipliers.
    for_estimate, for_blurred = torch.zeros_like(blurred), torch.zeros_like(blurred)
    kept = []
    for number in range(1, iterations[-1] + 1):
        spectrum = from_blurred * torch.fft.rfft2(blurred - for_blurred)
        spectrum += from_estimate * torch.fft.rfft2(estimate - for_estimate)
        sharp = torch.fft.irfft2(spectrum, s=shape).lerp_(estimate, 1 - _RELAXATION)
        broad = torch.fft.irfft2(spectrum.mul_(blur), s=shape).lerp_(blurred, 1 - _RELAXATION)
        for_estimate += sharp
        estimate = for_estimate.clamp(min=0)
        for_estimate -= estimate
        for_blurred += broad
        blurred = for_blurred.clone()
        blurred[inside] = (images + _SEEN * for_blurred[inside]) / (1 + _SEEN)
        for_blurred -= blurred
        if number in iterations:
            kept.append(estimate[inside])
    return torch.cat(kept, 1)
