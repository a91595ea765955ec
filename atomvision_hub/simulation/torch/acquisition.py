"""From ideal images to what a detector records, in batches, for training on the fly.

The torch twin of `atomvision_hub.simulation.acquisition`: the same steps with the same parameters, so the
same statistics, but every call draws anew from one generator, in the order of the instrument. Everything is
drawn on the device, and nothing waits for it unless pixel sizes are given as a tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.acquisition.model import Acquisition
from atomvision_hub.simulation.acquisition.steps import (
    FILM_WAVES,
    FWHM_TO_SIGMA,
    Background,
    Contamination,
    Detector,
    Digitise,
    Dose,
    Drift,
    Flyback,
    LineJitter,
    Probe,
    SourceSize,
    Tilt,
    Vibration,
)

PixelSize = float | tuple[float, float] | Tensor
#: Taps of the filter that makes coefficients of cubic splines: sqrt(3) z^|k|, what is left out is 5e-6.
_POLE = math.sqrt(3) - 2
_TAPS = [math.sqrt(3) * _POLE**k for k in range(10)]
#: Pixels by which images are repeated outwards for samples beyond their edge, as SciPy does.
_AROUND = 12


@dataclass(frozen=True)
class AcquiredBatch:
    """Recorded images, and where the beam stood.

    Attributes
    ----------
    images
        Float32 (batch, rows, columns): what the last step leaves (intensity, electrons, counts, grey levels).
    pixel_size
        Å/px, (batch, 2), (row, column).
    line_offset
        Where the beam stood instead of on the pixel, Å (x, y), a line: (batch, rows, 2); None without
        distortion. Drift and jitter; a flyback adds `pixel_offset` within the line.
    pixel_offset
        Å along x, (columns,), or None.
    electrons_per_intensity
        (batch,), or None without a dose: divide by it to come back to intensities.
    margin
        Pixels (rows, columns) that were cut off at each side.
    """

    images: Tensor
    pixel_size: Tensor
    line_offset: Tensor | None
    pixel_offset: Tensor | None
    electrons_per_intensity: Tensor | None
    margin: tuple[int, int] = (0, 0)

    @property
    def displacement(self) -> Tensor | None:
        """Where the beam stood instead of on the pixel, Å (x, y), (batch, rows, columns, 2), or None."""
        if self.line_offset is None:
            return None
        lines = self.line_offset[:, :, None, :].expand(*self.images.shape, 2)
        return lines if self.pixel_offset is None else lines + _along_x(self.pixel_offset)

    def move(self, x: Tensor, y: Tensor, width: float = 0.4) -> tuple[Tensor, Tensor]:
        """Return where points (px) of the ideal images lie in the recorded ones.

        Parameters
        ----------
        x, y
            Column and row coordinates, (batch, n), counted from the recorded part.
        width
            Scan lines are averaged, weighted by a Gaussian of this standard deviation, Å, as in
            `Acquired.move`; 0 takes the point's own line. Best is 0.7 of the width of an atom.
        """
        if self.line_offset is None:
            return x.clone(), y.clone()
        lines = _smoothed(self.line_offset, width / self.pixel_size[:, 0])
        per_pixel = self.pixel_size.reciprocal()
        found_x, found_y = x.to(lines.dtype), y.to(lines.dtype)
        start_x, start_y = found_x, found_y
        # As often as it takes for a beam that is nearly backwards at the start of its line.
        for _ in range(12 if self.pixel_offset is None else 60):
            offset = _interpolated(lines, found_y)
            along = offset[..., 0]
            if self.pixel_offset is not None:
                extra = self.pixel_offset[None, :, None].expand(len(x), -1, 1)
                along = along + _interpolated(extra, found_x)[..., 0]
            found_x = start_x - along * per_pixel[:, 1:]
            found_y = start_y - offset[..., 1] * per_pixel[:, :1]
        return found_x, found_y

    def move_masks(self, masks: Tensor, width: float = 0.4) -> Tensor:
        """Return masks, or any labels of pixels, as the recorded images show them (nearest neighbours).

        Parameters
        ----------
        masks
            (batch, [classes,] rows, columns), of the recorded part or with the margin, from which they then
            move into the view; without it the edge is repeated, as it is in the images.
        width
            As in `move`: lines are averaged, so that disks stay round under jitter; 0 tears them apart.
        """
        rows, columns = self.images.shape[1:]
        top, left = self.margin
        if masks.shape[-2:] == (rows, columns):
            top = left = 0
        elif masks.shape[-2:] != (rows + 2 * top, columns + 2 * left):
            raise UsageError(
                f"masks of {tuple(masks.shape[-2:])} pixels do not fit images of {(rows, columns)} pixels"
                + (f" with a margin of {self.margin}" if any(self.margin) else "")
            )
        row = torch.arange(rows, device=masks.device)[None, :] + top
        column = (torch.arange(columns, device=masks.device) + left)[None, None, :]
        place_x = column.expand(len(masks), rows, columns)
        if self.line_offset is not None:
            lines = _smoothed(self.line_offset, width / self.pixel_size[:, 0])
            lines = lines / self.pixel_size[:, None, [1, 0]]
            along = lines[..., :1]
            if self.pixel_offset is not None:
                along = along + self.pixel_offset / self.pixel_size[:, 1, None, None]
            place_x = torch.round(column + along).long().expand(-1, rows, columns)
            row = torch.round(row + lines[..., 1]).long()
        row = row.expand(len(masks), rows).clamp(0, masks.shape[-2] - 1)
        place_x = place_x.clamp(0, masks.shape[-1] - 1)
        batch = torch.arange(len(masks), device=masks.device)[:, None, None]
        if masks.ndim == 3:
            return masks[batch, row[..., None], place_x]
        return masks.movedim(1, -1)[batch, row[..., None], place_x].movedim(-1, 1)


def apply_dose(
    images: Tensor, electrons: Tensor | float, pixel_size: PixelSize, generator: torch.Generator
) -> Tensor:
    """Return images as counts of electrons, drawn by Poisson statistics.

    Parameters
    ----------
    images
        Intensities (batch, rows, columns) in any unit; negative ones count as zero, and an image without any
        intensity stays dark.
    electrons
        Detected electrons per Å², mean over each frame: one number or (batch,).
    pixel_size
        Å/px: one number, (row, column), or a tensor (batch,) or (batch, 2).
    generator
        Of the images' device.

    Returns
    -------
    Electrons a pixel, float32, of the shape of the images.
    """
    _check(images, generator)
    sizes, _ = _sizes(pixel_size, images)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return _dosed(images.float(), electrons, sizes, generator)[0]


def acquire_batch(
    images: Tensor,
    pixel_size: PixelSize,
    acquisition: Acquisition | str,
    *,
    generator: torch.Generator,
    dose: Tensor | float | None = None,
    margin: tuple[int, int] = (0, 0),
) -> AcquiredBatch:
    """Record ideal images.

    Parameters
    ----------
    images
        Intensities (batch, rows, columns), not negative.
    pixel_size
        Å/px: one number, (row, column), or a tensor (batch,) or (batch, 2).
    acquisition
        An acquisition, or the name of a preset; no tilt, which acts on a crystal.
    generator
        Of the images' device: images and generator in the same state give the same result.
    dose
        Detected electrons per Å², one number or (batch,), instead of the acquisition's.
    margin
        Pixels (rows, columns) at each side that are cut off in the end: what lies outside the view, for drift
        and blur. Without it the edges are repeated outwards: with the preset ``typical`` the outer 2 Å of an
        image are then not what a microscope shows.

    Raises
    ------
    UsageError
        When an argument makes no sense or there is a tilt.
    """
    _check(images, generator)
    chosen = Acquisition.of(acquisition)
    if any(2 * side >= n for side, n in zip(margin, images.shape[1:], strict=True)):
        raise UsageError(f"a margin of {margin} px leaves nothing of images of {tuple(images.shape[1:])}")
    sizes, finest = _sizes(pixel_size, images)
    # Autocast would do what follows in half precision, in which an image of many electrons is not exact.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        images = _blurred(images.float(), sizes, finest, chosen)
        return _recorded(images, sizes, finest, chosen, generator, dose, margin)


def _recorded(
    images: Tensor,
    sizes: Tensor,
    finest: tuple[float, float],
    chosen: Acquisition,
    generator: torch.Generator,
    dose: Tensor | float | None,
    margin: tuple[int, int],
) -> AcquiredBatch:
    lines: Tensor | None = None
    along: Tensor | None = None
    scale: Tensor | None = None
    (rows, columns), (top, left) = images.shape[1:], margin
    inner = slice(top, rows - top), slice(left, columns - left)
    rows, columns = rows - 2 * top, columns - 2 * left
    for step in chosen.steps:
        if isinstance(step, Tilt) and any(step.angles):
            raise UsageError("tilt acts on a crystal, not on images; use record_stem instead")
        if isinstance(step, Contamination) and step.level:
            images = _with_film(images, sizes, step, inner, generator)
        elif isinstance(step, Background) and (step.level or any(step.slope)):
            images = images + _plane(images, step, margin) * _mean(images[:, *inner])
        elif isinstance(step, Drift) and step.fraction:
            angle = 2 * math.pi * torch.rand(len(images), generator=generator, device=images.device)
            view = torch.stack([rows * sizes[:, 0], columns * sizes[:, 1]]).amax(0)
            way = (step.fraction * view)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
            time = torch.arange(rows, device=images.device) / max(1, rows - 1) - 0.5
            lines = _plus(lines, -way[:, None, :] * time[None, :, None])
        elif isinstance(step, LineJitter) and step.rms:
            offsets = torch.randn(len(images), rows, generator=generator, device=images.device)
            lines = _plus(lines, _along_x(step.rms * offsets))
        elif isinstance(step, Flyback) and step.lag:
            step.check(columns * finest[1])
            within = torch.arange(columns, device=images.device) / max(1, columns - 1)
            along = step.lag * torch.exp(-within / step.settling)
            lines = _plus(lines, images.new_zeros(len(images), rows, 2))
    images = _scanned(images, sizes, lines, along, margin)
    electrons = dose
    if electrons is None and isinstance(planned := chosen.step("dose"), Dose):
        electrons = planned.electrons
    if electrons is not None:
        images, scale = _dosed(images, electrons, sizes, generator)
    detector, bits = chosen.step("detector"), chosen.step("digitise")
    if isinstance(detector, Detector):
        images = detector.gain * images + detector.offset
        if detector.noise:
            noise = torch.randn(images.shape, generator=generator, device=images.device)
            images = images + detector.noise * noise
    if isinstance(bits, Digitise) and bits.bits:
        low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
        level = (high - low) / (2**bits.bits - 1)
        images = torch.round((images - low) / torch.where(level > 0, level, 1.0))
    return AcquiredBatch(images, sizes, lines, along, scale, margin)


def _check(images: Tensor, generator: torch.Generator) -> None:
    if images.ndim != 3 or 0 in images.shape:
        raise UsageError(f"images to record are (batch, rows, columns), not {tuple(images.shape)}")
    if generator.device.type != images.device.type:
        raise UsageError(
            f"the generator is on {generator.device.type}, the images on {images.device.type}; "
            f"make it with torch.Generator({images.device.type!r})"
        )


def _sizes(pixel_size: PixelSize, images: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Return Å/px as (batch, 2), (row, column), and the finest."""
    batch = len(images)
    if isinstance(pixel_size, Tensor):
        size = pixel_size.to(device=images.device, dtype=torch.float32)
        if size.shape not in ((), (batch,), (batch, 2)):
            raise UsageError(f"pixel_size must be one number, ({batch},) or ({batch}, 2), not {size.shape}")
        size = (size if size.ndim == 2 else size.reshape(-1, 1)).expand(batch, 2)
        row, column = (float(step) for step in size.amin(0).tolist())
        if not (row > 0 and column > 0):
            raise UsageError(f"pixel_size must be positive, in Å/px; the smallest are {row:g}, {column:g}")
        return size, (row, column)
    pair: tuple[float, ...] = (
        (pixel_size, pixel_size) if isinstance(pixel_size, (int, float)) else tuple(pixel_size)
    )
    if len(pair) != 2 or not all(0 < step < math.inf for step in pair):
        raise UsageError(f"pixel_size must be positive, in Å/px, not {pixel_size!r}")
    size = torch.tensor(pair, dtype=torch.float32, device=images.device).expand(batch, 2)
    return size, (float(pair[0]), float(pair[1]))


def _mean(images: Tensor) -> Tensor:
    return images.mean((1, 2), keepdim=True)


def _along_x(values: Tensor) -> Tensor:
    """Return offsets (x, y) from those along x."""
    return torch.stack([values, torch.zeros_like(values)], -1)


def _plus(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else one + other


def _dosed(
    images: Tensor, electrons: Tensor | float, sizes: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    wanted = torch.as_tensor(electrons, dtype=torch.float32, device=images.device)
    if wanted.shape not in ((), (len(images),)):
        raise UsageError(f"the dose must be one number or ({len(images)},), not {tuple(wanted.shape)}")
    mean = images.mean((1, 2))
    scale = torch.where(mean > 0, wanted * sizes.prod(-1) / mean, 0.0)
    expected = images.clamp(min=0) * scale[:, None, None]
    return torch.poisson(expected, generator=generator), scale


def _blurred(images: Tensor, sizes: Tensor, finest: tuple[float, float], chosen: Acquisition) -> Tensor:
    """Convolve with vibration, probe and source at once, in the Fourier domain."""
    vibration, source, probe = (chosen.step(name) for name in ("vibration", "source_size", "probe"))
    variance = vibration.rms**2 if isinstance(vibration, Vibration) else 0.0
    if isinstance(source, SourceSize):
        variance += (FWHM_TO_SIGMA * source.fwhm) ** 2
    lens = probe if isinstance(probe, Probe) and probe.semi_angle else None
    if variance == 0 and lens is None:
        return images
    (rows, columns), reach = images.shape[1:], 5 * math.sqrt(variance)
    if lens is not None:
        reach += lens.reach((0.0, 0.0))
        if bool((sizes != sizes[:1]).any()):
            raise UsageError("a probe needs one pixel size for all images of a batch")
    pad = [math.ceil(reach / step) for step in finest]
    shape = (_quick(rows + 2 * pad[0]), _quick(columns + 2 * pad[1]))
    sides = (pad[1], shape[1] - columns - pad[1], pad[0], shape[0] - rows - pad[0])
    spectrum = torch.fft.rfft2(functional.pad(images[:, None], sides, mode="replicate")[:, 0])
    ky = torch.fft.fftfreq(shape[0], device=images.device)[None, :, None] / sizes[:, 0, None, None]
    kx = torch.fft.rfftfreq(shape[1], device=images.device)[None, None, :] / sizes[:, 1, None, None]
    spectrum = spectrum * torch.exp(-2 * math.pi**2 * variance * (ky**2 + kx**2))
    if lens is not None:
        transfer = lens.transfer(shape, finest).astype(np.complex64)
        spectrum = spectrum * torch.from_numpy(transfer).to(images.device)
    full = torch.fft.irfft2(spectrum, shape)
    lowest = images.amin((1, 2), keepdim=True).clamp(max=0)
    return torch.maximum(full[:, pad[0] : pad[0] + rows, pad[1] : pad[1] + columns], lowest)


def _quick(length: int) -> int:
    """Return the next length with no prime factor but 2, 3 and 5, for which FFTs are quick."""
    rest = length
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return length if rest == 1 else _quick(length + 1)


def _with_film(
    images: Tensor,
    sizes: Tensor,
    step: Contamination,
    inner: tuple[slice, slice],
    generator: torch.Generator,
) -> Tensor:
    if step.size == 0:
        raise UsageError("contamination: size must be positive, in Å")
    (batch, rows, columns), device = images.shape, images.device
    waves = torch.randn(batch, 2, FILM_WAVES, generator=generator, device=device) / step.size
    phases = 2 * math.pi * torch.rand(batch, 1, FILM_WAVES, generator=generator, device=device)
    y = (torch.arange(rows, device=device) - (rows - 1) / 2) * sizes[:, :1]
    x = (torch.arange(columns, device=device) - (columns - 1) / 2) * sizes[:, 1:]
    down = y[:, :, None] * waves[:, 1, None, :] + phases
    across = waves[:, 0, :, None] * x[:, None, :]
    field = torch.bmm(down.cos(), across.cos()) - torch.bmm(down.sin(), across.sin())
    thickness = (1 + 0.5 * math.sqrt(2 / FILM_WAVES) * field).clamp(min=0)
    mean = _mean(thickness[:, *inner]).clamp(min=1e-12)
    return images + step.level * _mean(images[:, *inner]) * thickness / mean


def _plane(images: Tensor, step: Background, margin: tuple[int, int]) -> Tensor:
    y, x = (
        (torch.arange(n, device=images.device) - (n - 1) / 2) / max(1, n - 2 * m - 1)
        for n, m in zip(images.shape[1:], margin, strict=True)
    )
    return (step.level + step.slope[0] * x[None, :] + step.slope[1] * y[:, None]).clamp(min=0)


def _scanned(
    images: Tensor,
    sizes: Tensor,
    lines: Tensor | None,
    along: Tensor | None,
    margin: tuple[int, int],
) -> Tensor:
    """Sample where the beam stood, by cubic splines: first along columns, then within the lines."""
    (_, rows, columns), (top, left) = images.shape, margin
    if lines is None:
        return images[:, top : rows - top, left : columns - left]
    device = images.device
    lowest = images.amin((1, 2), keepdim=True).clamp(max=0)
    padded = functional.pad(images[:, None], [_AROUND] * 4, mode="replicate")[:, 0]
    row = torch.arange(_AROUND + top, _AROUND + rows - top, device=device)
    place = row + lines[..., 1] / sizes[:, :1]
    coefficients = _spline_coefficients(padded, 1)
    sampled = images.new_zeros(())
    for index, weight in _taps(place, padded.shape[1]):
        where = index[:, :, None].expand(-1, -1, padded.shape[2])
        sampled = torch.addcmul(sampled, weight[:, :, None], coefficients.gather(1, where))
    column = torch.arange(_AROUND + left, _AROUND + columns - left, device=device)
    offset = lines[..., 0, None] if along is None else lines[..., 0, None] + along
    place = column + offset / sizes[:, 1, None, None]
    coefficients = _spline_coefficients(sampled, 2)
    sampled = images.new_zeros(())
    for index, weight in _taps(place, padded.shape[2]):
        sampled = torch.addcmul(sampled, weight, coefficients.gather(2, index))
    return torch.maximum(sampled, lowest)


def _spline_coefficients(images: Tensor, axis: int) -> Tensor:
    """Return the coefficients of cubic splines through the pixels along an axis, edges repeated.

    By sums of shifted images: convolutions might run in TF32, with three digits.
    """
    reach, length = len(_TAPS) - 1, images.shape[axis]
    sides = [0, 0, reach, reach] if axis == 1 else [reach, reach, 0, 0]
    padded = functional.pad(images[:, None], sides, mode="replicate")[:, 0]
    result = _TAPS[0] * images
    for k, tap in enumerate(_TAPS[1:], start=1):
        result.add_(padded.narrow(axis, reach - k, length), alpha=tap)
        result.add_(padded.narrow(axis, reach + k, length), alpha=tap)
    return result


def _taps(place: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Return index and weight of the four cubic B-splines that reach a place."""
    place = place.clamp(0, length - 1)
    whole = place.floor()
    t = place - whole
    base = whole.long()
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    return [((base + k - 1).clamp(0, length - 1), weight) for k, weight in enumerate(weights)]


def _smoothed(lines: Tensor, sigma: Tensor) -> Tensor:
    """Average offsets of lines by Gaussians of widths (batch,) in lines; a steady drift stays as it is."""
    rows = lines.shape[1]
    reach = min(math.ceil(4 * float(sigma.amax())), rows - 1)
    if reach < 1:
        return lines
    # Extended point-symmetrically at the ends, which continues a straight line.
    before = 2 * lines[:, :1] - lines[:, 1 : reach + 1].flip(1)
    after = 2 * lines[:, -1:] - lines[:, -reach - 1 : -1].flip(1)
    windows = torch.cat([before, lines, after], 1).unfold(1, 2 * reach + 1, 1)
    k = torch.arange(-reach, reach + 1, device=lines.device)
    weights = torch.exp(-0.5 * (k / sigma[:, None].clamp(min=1e-3)) ** 2)
    weights = weights / weights.sum(-1, keepdim=True)
    return (windows * weights[:, None, None, :]).sum(-1)


def _interpolated(lines: Tensor, place: Tensor) -> Tensor:
    """Return values (batch, n, k) between lines (batch, rows, k), linearly, at places (batch, n)."""
    place = place.clamp(0, lines.shape[1] - 1)
    low = place.floor().long().clamp(max=max(0, lines.shape[1] - 2))
    share = (place - low)[..., None]
    wide = [-1, -1, lines.shape[2]]
    high = (low + 1).clamp(max=lines.shape[1] - 1)
    below = lines.gather(1, low[..., None].expand(wide))
    return below + share * (lines.gather(1, high[..., None].expand(wide)) - below)
