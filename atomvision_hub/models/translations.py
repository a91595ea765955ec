"""What a network is told of an image's lattice: the shifts that nearly repeat it, and how nearly.

All with FFTs and without weights, in batches. An image and its copy moved by a translation of the lattice
correlate to 1 over their overlap; pseudo-translations (half cells of a superstructure, neighbouring columns)
to less. Local maxima of that correlation are the candidates. Noise lowers all of them alike, so that the
image first loses those Fourier coefficients which do not stand out of its own noise. Small superstructures
that this correlation hardly feels show as sharp waves: each candidate is told the strongest wave that does
not repeat with it.

Nothing depends on contrast or brightness, on the direction of rotation, or on mirroring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Coefficients of a power below so many times the noise floor are left out.
_ABOVE_NOISE = 6.0
#: A wave is one that stands out of the noise so many times.
_WAVE = 14.0
_WAVES = 64
#: Phases (periods) by which a wave may miss a translation: measured frequencies are not exact.
_PHASE = 0.1
#: Smallest 1 - correlation that 8-bit images tell from zero.
_FINEST = 1e-6
_LAST = 1e6


@dataclass(frozen=True)
class Translations:
    """Candidates for translations of the lattice, most likely ones first.

    Attributes
    ----------
    vectors
        (batch, count, 2), x along columns and y along rows, px; of a shift and its opposite only one.
    features
        (batch, count, FEATURES), see `FEATURE_NAMES`.
    valid
        (batch, count), False where an image has fewer maxima.
    image
        (batch, IMAGE_FEATURES), see `IMAGE_FEATURE_NAMES`.
    """

    vectors: Tensor
    features: Tensor
    valid: Tensor
    image: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Tensor | slice) -> Translations:
        return Translations(self.vectors[rows], self.features[rows], self.valid[rows], self.image[rows])

    def to(self, device: torch.device | str) -> Translations:
        """Return the same on another device."""
        return Translations(
            self.vectors.to(device), self.features.to(device), self.valid.to(device), self.image.to(device)
        )


#: Of a candidate: log2 of its length over the image's side; log10 of 1 - correlation, as such and beside the
#: best candidate's; the correlation; log10 of its curvature (px^-2); log10 of the strongest wave it does not
#: repeat, over the strongest of all and over the noise.
FEATURE_NAMES = ("length", "deficit", "beside_best", "correlation", "curvature", "wave", "wave_over_noise")
#: Of an image: log10 of its noise (share of the variance); deficit of the best candidate; number of
#: candidates (over `count`); log10 of the strongest wave over the noise; number of waves (over 64); log2 of
#: the side, px.
IMAGE_FEATURE_NAMES = ("noise", "best_deficit", "candidates", "strongest_wave", "waves", "side")
FEATURES, IMAGE_FEATURES = len(FEATURE_NAMES), len(IMAGE_FEATURE_NAMES)


@torch.no_grad()
def find_translations(images: Tensor, count: int) -> Translations:
    """Return the candidates of images.

    Parameters
    ----------
    images
        Float (batch, rows, columns) of any scale, at least 32 pixels a side.
    count
        Candidates of each.
    """
    with torch.autocast(images.device.type, enabled=False):
        grey = images.float()
        least = 1e-5 * grey.abs().amax(
            (1, 2), keepdim=True
        )  # rounding errors of a blank image are no contrast
        grey = grey - grey.mean((1, 2), keepdim=True)
        spread = grey.square().mean((1, 2), keepdim=True).sqrt()
        grey = torch.where(spread > least, grey / spread.clamp(min=1e-12), 0.0)
        clean, noise = _without_noise(grey)
        correlation = _self_correlation(clean)
        vectors, value, curvature, valid = _maxima(correlation, count, min(grey.shape[1:]))
        frequencies, power, is_wave = _waves(grey)
        # Phase of every wave after every shift, in periods from the nearest whole number.
        phase = vectors @ frequencies.transpose(1, 2)
        missed = (phase - phase.round()).abs() > _PHASE
        missing = torch.where(missed & is_wave[:, None], power[:, None], 0.0).amax(2)
        strongest = torch.where(is_wave, power, 0.0).amax(1)
        side = min(grey.shape[1:])
        deficit = (1 - value).clamp(min=_FINEST).log10()
        best = torch.where(valid, deficit, 1.0).amin(1)
        features = torch.stack(
            [
                (torch.linalg.vector_norm(vectors, dim=-1) / side).clamp(min=1e-3).log2(),
                deficit,
                deficit - best[:, None],
                value,
                curvature.clamp(min=1e-6).log10(),
                (missing / strongest[:, None].clamp(min=1e-12)).clamp(min=1e-6).log10(),
                (1 + missing).log10(),
            ],
            -1,
        )
        image = torch.stack(
            [
                noise.clamp(min=1e-9).log10(),
                best,
                valid.float().mean(1),
                (1 + strongest).log10(),
                is_wave.float().mean(1),
                torch.full_like(best, math.log2(side)),
            ],
            -1,
        )
        features = torch.where(valid[..., None], features, 0.0)
        return Translations(vectors, features, valid, image)


def _frequencies(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return frequencies (y, x) of `torch.fft.rfft2`, cycles a pixel."""
    return torch.fft.fftfreq(rows, device=device)[:, None], torch.fft.rfftfreq(columns, device=device)[None]


def _noise_floor(power: Tensor, columns: int) -> Tensor:
    """Return the mean power of noise: the median where no crystal scatters; exponentially distributed."""
    y, x = _frequencies(power.shape[1], columns, power.device)
    # Not along the axes, where the edges of the view leave streaks.
    far = (torch.hypot(y, x) > 0.4) & (y.abs() > 0.05) & (x > 0.05)
    return power[:, far].median(dim=1).values / math.log(2)


def _without_noise(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return images without the coefficients that noise explains, and noise as a share of the variance."""
    rows, columns = grey.shape[1:]
    padded = (3 * rows // 2, 3 * columns // 2)
    spectrum = torch.fft.rfft2(grey, s=padded)
    power = spectrum.real.square() + spectrum.imag.square()
    floor = _noise_floor(power, padded[1])
    weight = (1 - _ABOVE_NOISE * floor[:, None, None] / power.clamp(min=1e-12)).clamp(min=0)
    clean = torch.fft.irfft2(spectrum * weight, s=padded)[:, :rows, :columns]
    return clean - clean.mean((1, 2), keepdim=True), floor / (rows * columns)


def _self_correlation(grey: Tensor) -> Tensor:
    """Return the correlation of images with their moved selves over the overlap.

    Shifts dy from -2 to half the rows, dx from minus to plus half the columns: (batch, rows, columns).
    """
    rows, columns = grey.shape[1:]
    padded = (3 * rows // 2, 3 * columns // 2)
    spectrum = torch.fft.rfft2(grey, s=padded)
    raw = torch.fft.irfft2(spectrum.real.square() + spectrum.imag.square(), s=padded)
    down, across = rows // 2, columns // 2
    raw = torch.cat([raw[:, -2:], raw[:, : down + 1]], 1)
    raw = torch.cat([raw[:, :, -across:], raw[:, :, : across + 1]], 2)
    dy = torch.arange(-2, down + 1, device=grey.device)
    dx = torch.arange(-across, across + 1, device=grey.device)
    overlap = (rows - dy.abs())[:, None] * (columns - dx.abs())
    sums = [_overlap_sums(values, dy, dx) for values in (grey, grey.square())]
    (here, there), (here_squared, there_squared) = sums
    spread = (here_squared - here.square() / overlap) * (there_squared - there.square() / overlap)
    product = raw - (here * there / overlap).float()
    # Hardly any contrast left in an overlap: nothing to compare.
    found: Tensor = product / spread.clamp(min=1e-6 * rows * columns).sqrt().float()
    return found


def _overlap_sums(values: Tensor, dy: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over the overlap with the copy moved by (dy, dx), and of that copy."""
    rows, columns = values.shape[1:]
    # Sums of 65,000 pixels whose differences count.
    total = functional.pad(values.double().cumsum(1).cumsum(2), (1, 0, 1, 0))

    def box(dy: Tensor, dx: Tensor) -> Tensor:
        top, bottom = dy.clamp(min=0), rows + dy.clamp(max=0)
        left, right = dx.clamp(min=0), columns + dx.clamp(max=0)
        strip = total[:, bottom] - total[:, top]
        return strip[:, :, right] - strip[:, :, left]

    return box(dy, dx), box(-dy, -dx)


def _maxima(correlation: Tensor, count: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return shifts (x, y) of local maxima, correlation there, curvature, and whether there is one."""
    batch, rows, columns = correlation.shape
    y = torch.arange(-2, rows - 2, device=correlation.device)[:, None]
    x = torch.arange(columns, device=correlation.device)[None] - columns // 2
    length = torch.hypot(y.float(), x.float())
    wanted = ((y > 0) | ((y == 0) & (x > 0))) & (length >= 3)
    wanted[-2:] = False
    wanted[:, :2] = wanted[:, -2:] = False
    highest = functional.max_pool2d(correlation[:, None], 3, 1, 1)[:, 0]
    is_maximum = (correlation >= highest) & wanted & (correlation > 0)
    # Between pixels a maximum is higher than on them: three times as many stay for now.
    order = torch.where(is_maximum, _order(correlation, length / side, is_maximum, 1.5), _LAST)
    lowest, index = order.flatten(1).topk(3 * count, dim=1, largest=False)
    valid = lowest < _LAST
    row, column = (index // columns).clamp(2, rows - 3), (index % columns).clamp(2, columns - 3)
    steps = torch.arange(-2, 3, device=correlation.device)
    which = torch.arange(batch, device=correlation.device)[:, None, None, None]
    around = correlation[
        which, (row[..., None] + steps)[..., :, None], (column[..., None] + steps)[..., None, :]
    ]
    # The vertex of a parabola says where, fourth-order interpolation how high.
    left, right, up, down = (
        around[..., 2, 1],
        around[..., 2, 3],
        around[..., 1, 2],
        around[..., 3, 2],
    )
    middle = around[..., 2, 2]
    slope_x, slope_y = (right - left) / 2, (down - up) / 2
    xx, yy = left + right - 2 * middle, up + down - 2 * middle
    xy = (around[..., 3, 3] + around[..., 1, 1] - around[..., 1, 3] - around[..., 3, 1]) / 4
    determinant = xx * yy - xy * xy
    curved = (determinant > 1e-12) & (xx < 0)
    determinant = torch.where(curved, determinant, 1.0)
    move_x = torch.where(curved, (xy * slope_y - yy * slope_x) / determinant, 0.0).clamp(-0.75, 0.75)
    move_y = torch.where(curved, (xy * slope_x - xx * slope_y) / determinant, 0.0).clamp(-0.75, 0.75)
    value = (around * _between(move_y)[..., :, None] * _between(move_x)[..., None, :]).sum((-2, -1))
    vectors = torch.stack([column - columns // 2 + move_x, row - 2 + move_y], -1)
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    order = torch.where(valid, _order(value, lengths / side, valid, 0.5), _LAST)
    first = order.topk(count, dim=1, largest=False).indices
    best = torch.stack([value, -(xx + yy) / 2, valid.float()], -1).gather(
        1, first[..., None].expand(-1, -1, 3)
    )
    vectors = vectors.gather(1, first[..., None].expand(-1, -1, 2))
    return vectors, best[..., 0], best[..., 1], best[..., 2] > 0


def _order(correlation: Tensor, length: Tensor, valid: Tensor, alike: float) -> Tensor:
    """Return by what candidates are ranked: those nearly as good as the best by length, worse ones later.

    Parameters
    ----------
    length
        Over the image's side.
    alike
        Decades of 1 - correlation within which candidates are alike.
    """
    deficit = (1 - correlation).clamp(min=1e-5).log10()
    best = torch.where(valid, deficit, 9.0).flatten(1).amin(1).reshape(-1, *[1] * (deficit.ndim - 1))
    return torch.maximum(deficit, best + alike) + 2 * length


def _between(place: Tensor) -> Tensor:
    """Return Lagrange's weights of five points -2 to 2 for a value at `place`."""
    nodes = range(-2, 3)
    weights = []
    for node in nodes:
        others = [(place - other) / (node - other) for other in nodes if other != node]
        weights.append(others[0] * others[1] * others[2] * others[3])
    return torch.stack(weights, -1)


def _waves(grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sharp waves of images: frequencies (x, y) in cycles a pixel, power over noise, validity."""
    rows, columns = grey.shape[1:]
    window = torch.hann_window(rows, device=grey.device)[:, None] * torch.hann_window(
        columns, device=grey.device
    )
    spectrum = torch.fft.rfft2(grey * window)
    power = spectrum.real.square() + spectrum.imag.square()
    level = (power / _noise_floor(power, columns)[:, None, None].clamp(min=1e-9)).clamp(min=1e-6)
    # Rows from the most negative frequency on, so that neighbours are neighbours.
    level = level.roll(rows // 2, 1)
    # A wave of the axis x = 0 has its twin at minus y: one of them counts.
    highest = functional.max_pool2d(level[:, None], 3, 1, 1)[:, 0]
    y, x = (
        torch.arange(rows, device=grey.device)[:, None] - rows // 2,
        torch.arange(level.shape[2], device=grey.device),
    )
    wanted = (torch.hypot(y.float(), x.float()) >= 2.5) & ((x > 0) | (y > 0))
    wanted[0] = wanted[-1] = False
    wanted[:, -1] = False
    found, index = torch.where((level >= highest) & wanted, level, 0.0).flatten(1).topk(_WAVES, dim=1)
    width = level.shape[2]
    row, column = (index // width).clamp(1, rows - 2), index % width
    which = torch.arange(len(grey), device=grey.device)[:, None]
    logarithm = level.log()

    def vertex(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
        bend = (before + after - 2 * at).clamp(max=-1e-6)
        return ((before - after) / (2 * bend)).clamp(-0.5, 0.5)

    at = logarithm[which, row, column]
    # Left of the axis x = 0 lies the mirrored right: its wave is at x = 0.
    left = torch.where(
        column > 0, logarithm[which, row, (column - 1).clamp(min=0)], logarithm[which, row, column]
    )
    move_x = torch.where(
        column > 0, vertex(left, at, logarithm[which, row, (column + 1).clamp(max=width - 1)]), 0.0
    )
    move_y = vertex(logarithm[which, row - 1, column], at, logarithm[which, row + 1, column])
    frequencies = torch.stack([(column + move_x) / columns, (row - rows // 2 + move_y) / rows], -1)
    return frequencies, found, found > _WAVE
