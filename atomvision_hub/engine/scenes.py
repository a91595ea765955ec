"""Images with their atoms on the device: poses, vacancies, background, dose and masks made for whole batches.

A training image is made anew every time it is asked for: crop, turn and zoom by one similarity transform,
atoms taken out, background added, electrons counted. Its mask is drawn from the transformed atoms, so it is
exact at any pixel size; where there are no atoms but a bitmap, its distance function is transformed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomvision_hub.engine.data import Rows, open_image
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.simulation.psf import GaussianPSF, parse_psf

#: Where padding stands, in pixels: no image reaches there.
_NOWHERE = -1e6
#: Distances from a bitmap's outline are kept as whole sixteenths of a pixel, up to eight pixels.
_SIXTEENTHS = 16
#: Counts of a smaller mean are found by adding up probabilities, others by an expansion about the Gaussian.
_FEW = 12.0


@dataclass(frozen=True)
class Scenes:
    """Images of one shape and what their masks are made of.

    Parameters
    ----------
    images
        Grey levels, uint8 [n, row, column].
    intensity
        Scale and offset of each image, [n, 2]: ``offset + scale * level``.
    pixel_size
        Å/px, float64 [n]; one pixel where it is not known.
    atoms
        x, y (px) and intensity (Z**n) of the atoms, float32 [n, most, 3], or None; padding has intensity 0.
    distance
        Signed distance from the mask's outline, int8 [n, row, column], positive inside, or None.
    psf
        Intensity profile of an atom, where it is a sum of Gaussians.
    rows
        Index of each image in the split.
    """

    images: Tensor
    intensity: Tensor
    pixel_size: Tensor
    atoms: Tensor | None
    distance: Tensor | None
    psf: GaussianPSF | None
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return int(self.images.shape[1]), int(self.images.shape[2])


@dataclass(frozen=True)
class Conditions:
    """How images are recorded, one number an image, [batch].

    Parameters
    ----------
    dose
        Mean number of detected electrons per Å²; infinite without noise.
    background
        Added to the intensity, as a part of its mean.
    slope
        Change of the background from the middle to the right and the lower edge, [batch, 2].
    missing
        Share of the atoms that are taken out.
    """

    dose: Tensor
    background: Tensor
    slope: Tensor
    missing: Tensor

    @classmethod
    def same(
        cls, count: int, device: torch.device, *, dose: float = math.inf, missing: float = 0
    ) -> Conditions:
        """Return the same conditions for all images, without background."""
        zero = torch.zeros(count, device=device)
        return cls(zero + dose, zero, torch.zeros(count, 2, device=device), zero + missing)


@dataclass(frozen=True)
class Chance:
    """Random numbers between 0 and 1, given from outside so that they depend on no batch and no process.

    Parameters
    ----------
    pixels
        One a pixel of the result, [batch, row, column]: decides the electron counts.
    atoms
        One an atom, [batch, most]: decides which are missing.
    """

    pixels: Tensor | None = None
    atoms: Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """A batch of images, float 0..1 [batch, 1, row, column], with masks [batch, radius, row, column].

    `contrast` is the intensity of the brightest atom whose disk (of the first radius) covers a pixel,
    relative to the image's brightest atom, 0 where there is none; None unless asked for.
    """

    images: Tensor
    masks: Tensor
    contrast: Tensor | None = field(default=None)


def decode(rows: Rows, device: torch.device, *, square: int | None = None) -> list[Scenes]:
    """Decode images once, and put them on the device together with their atoms or the outline of their masks.

    Parameters
    ----------
    rows
        Images with columns ``atoms``, ``intensity_scale``, ``intensity_offset``, ``z_exponent``, ``psf`` and
        ``pixel_size``, or with ``mask`` (bool arrays).
    device
        Where they go.
    square
        Cut a central square of this side out of every image; otherwise images keep their shape.

    Returns
    -------
    list of Scenes
        One for each shape.
    """
    groups: dict[tuple[int, int], list[tuple[int, npt.NDArray[np.uint8], int, int]]] = {}
    for index, encoded in enumerate(rows.encoded()):
        levels = np.asarray(open_image(encoded).convert("L"))
        top = left = 0
        if square is not None:
            top, left = (levels.shape[0] - square) // 2, (levels.shape[1] - square) // 2
            levels = levels[top : top + square, left : left + square]
        groups.setdefault((levels.shape[0], levels.shape[1]), []).append((index, levels, top, left))
    return [_scenes(rows, entries, device) for entries in groups.values()]


def _scenes(
    rows: Rows, entries: Sequence[tuple[int, npt.NDArray[np.uint8], int, int]], device: torch.device
) -> Scenes:
    columns = rows.columns
    which = np.array([entry[0] for entry in entries], dtype=np.int64)
    images = torch.from_numpy(np.stack([entry[1] for entry in entries])).to(device)
    if "atoms" not in columns:
        outlines = [
            _outline(columns["mask"][index][top : top + levels.shape[0], left : left + levels.shape[1]])
            for index, levels, top, left in entries
        ]
        one = torch.ones(len(which), device=device)
        intensity = torch.stack([one / 255, 0 * one], 1)
        distance = torch.from_numpy(np.stack(outlines)).to(device)
        return Scenes(images, intensity, one.double(), None, distance, None, which)
    most = max(len(columns["atoms"][index]["x"]) for index in which)
    atoms = np.zeros((len(which), max(most, 1), 3), dtype=np.float32)
    atoms[:, :, :2] = _NOWHERE
    for place, (index, _, top, left) in enumerate(entries):
        table = columns["atoms"][index]
        count = len(table["x"])
        atoms[place, :count, 0] = np.asarray(table["x"]) - np.float32(left)
        atoms[place, :count, 1] = np.asarray(table["y"]) - np.float32(top)
        atoms[place, :count, 2] = (
            np.asarray(table["number"], dtype=np.float64) ** columns["z_exponent"][index]
        )
    sizes = np.array([columns["pixel_size"][index] for index in which], dtype=np.float64)
    if not np.allclose(sizes[:, 0], sizes[:, 1], rtol=1e-3):
        raise AtomVisionError("pixels that are not square cannot be turned; use images with square ones")
    scales = np.array([[columns[f"intensity_{name}"][i] for name in ("scale", "offset")] for i in which])
    texts = {columns["psf"][index] for index in which}
    psf = parse_psf(texts.pop()) if len(texts) == 1 else None
    return Scenes(
        images,
        torch.from_numpy(scales.astype(np.float32)).to(device),
        torch.from_numpy(sizes[:, 0].copy()).to(device),
        torch.from_numpy(atoms).to(device),
        None,
        psf if isinstance(psf, GaussianPSF) else None,
        which,
    )


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Return the signed distance of pixel centres from the outline of a bitmap, in sixteenths of a pixel."""
    from scipy.ndimage import distance_transform_edt

    if mask.all() or not mask.any():
        return np.full(mask.shape, 127 if mask.any() else -127, dtype=np.int8)
    signed = np.where(mask, distance_transform_edt(mask) - 0.5, 0.5 - distance_transform_edt(~mask))
    levels: npt.NDArray[np.int8] = np.rint(np.clip(signed * _SIXTEENTHS, -127, 127)).astype(np.int8)
    return levels


def draw(
    scenes: Scenes,
    rows: npt.NDArray[np.int64] | Tensor,
    transforms: Tensor | None,
    shape: tuple[int, int],
    conditions: Conditions,
    chance: Chance,
    radii: Sequence[float],
    *,
    contrast: bool = False,
) -> Drawn:
    """Make a batch of images and masks.

    Parameters
    ----------
    scenes, rows
        What to draw: places in `scenes`.
    transforms
        From output to input as `engine.augment.draw_transforms` gives them (square images only); None for
        images as they are.
    shape
        Rows and columns of the output.
    conditions, chance
        How they are recorded, and the random numbers for it.
    radii
        Radii of the disks in Å, one mask each; ignored where masks are bitmaps.
    contrast
        Also return how bright the atom at a pixel is.

    Raises
    ------
    UsageError
        When atoms shall be missing whose profile is not known.
    """
    device = scenes.images.device
    which = torch.as_tensor(rows, device=device)
    scale, offset = scenes.intensity[which].T[:, :, None, None, None]
    intensity = offset + scale * scenes.images[which].float()[:, None]
    atoms = None if scenes.atoms is None else scenes.atoms[which]
    if chance.atoms is not None and atoms is not None:
        intensity, atoms = _take_out(scenes, which, intensity, atoms, conditions.missing, chance.atoms)
    zoom = torch.ones(len(which), dtype=torch.float64, device=device)
    if transforms is not None:
        affine = transforms.to(device)
        grid = torch.nn.functional.affine_grid(affine, [len(which), 1, *shape], align_corners=False)
        intensity = _sample(intensity, grid)
        zoom = affine[:, :, 0].double().norm(dim=1) * scenes.shape[1] / shape[1]
    pixel_size = scenes.pixel_size[which] * zoom
    images = _record(intensity, pixel_size, conditions, chance.pixels)
    if atoms is None:
        assert scenes.distance is not None
        distance = scenes.distance[which].float()[:, None]
        return Drawn(images, (distance if transforms is None else _sample(distance, grid)) > 0)
    places = atoms[..., :2].double()
    if transforms is not None:
        places = _into_output(places, affine.double(), scenes.shape, shape)
    limits = (torch.tensor(radii, dtype=torch.float64, device=device) / pixel_size[:, None]).square()
    near, bright = _disks(places, atoms[..., 2], limits, shape, contrast=contrast)
    masks = near[:, None] <= limits[:, :, None, None]
    return Drawn(images, masks, bright)


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    # "border" only clips the half pixel between an outermost centre and the edge.
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _take_out(
    scenes: Scenes, which: Tensor, intensity: Tensor, atoms: Tensor, missing: Tensor, chance: Tensor
) -> tuple[Tensor, Tensor]:
    """Remove a share of the atoms from the images and the tables."""
    if scenes.psf is None:
        raise UsageError(
            "atoms can be taken out of images with one Gaussian psf only; set training.vacancies=0"
        )
    # At most twice the expected number: so many profiles are drawn for every image, most of them empty.
    most = min(atoms.shape[1], math.ceil(2 * float(missing.max()) * atoms.shape[1]) + 4)
    chance = torch.where(atoms[..., 2] > 0, chance, 1.0)
    lowest, index = chance.topk(most, dim=1, largest=False)
    gone = lowest < missing[:, None]
    picked = atoms.gather(1, index[..., None].expand(-1, -1, 3))
    weights = torch.where(gone, picked[..., 2], 0.0)
    rows, columns = scenes.shape
    size = scenes.pixel_size[which].float()[:, None, None]
    removed = torch.zeros_like(intensity[:, 0])
    for part, sigma in zip(scenes.psf.weights, scenes.psf.sigmas, strict=True):
        along = [
            torch.exp(
                (
                    -0.5
                    * (
                        (torch.arange(n, device=atoms.device) - picked[..., axis, None]) * size / sigma
                    ).square()
                ).clamp(min=-25.0)
            )
            for axis, n in ((1, rows), (0, columns))
        ]
        factor = weights[..., None] * (part / (2 * math.pi * sigma**2))
        removed = removed + torch.bmm((along[0] * factor).transpose(1, 2), along[1])
    kept = atoms.clone()
    places = torch.where(
        gone[..., None], torch.tensor([_NOWHERE, _NOWHERE, 0.0], device=atoms.device), picked
    )
    kept.scatter_(1, index[..., None].expand(-1, -1, 3), places)
    return (intensity - removed[:, None]).clamp(min=0), kept


def _record(intensity: Tensor, pixel_size: Tensor, conditions: Conditions, chance: Tensor | None) -> Tensor:
    """Return what a detector makes of intensities [batch, 1, row, column]: 8-bit levels, 0..1."""
    rows, columns = intensity.shape[2:]
    y, x = (torch.linspace(-1, 1, n, device=intensity.device) for n in (rows, columns))
    part = intensity / intensity.mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
    slope_x, slope_y = conditions.slope.T[:, :, None, None, None]
    slope = slope_x * x + slope_y * y[:, None]
    part = (part + conditions.background[:, None, None, None] + slope).clamp(min=0)
    part = part / part.mean((1, 2, 3), keepdim=True)
    if chance is not None:
        dose = conditions.dose[:, None, None, None]
        # Square Å times electrons per square Å; infinite doses are taken from the other branch.
        counts = part * (pixel_size**2).float()[:, None, None, None] * dose.clamp(max=1e12)
        part = torch.where(torch.isinf(dose), part, poisson(chance[:, None], counts))
    low, high = part.amin((1, 2, 3), keepdim=True), part.amax((1, 2, 3), keepdim=True)
    return ((part - low) * (255 / (high - low).clamp(min=1e-12))).round() / 255


def poisson(chance: Tensor, mean: Tensor) -> Tensor:
    """Return Poisson counts of a given `mean` as quantiles of uniform random numbers between 0 and 1.

    `torch.poisson` takes another number of random numbers for every mean, so that an image's noise would
    depend on its neighbours in the batch. Means below 12 are summed up exactly; above, the third-order
    expansion of Cornish and Fisher is right to 0.02 counts before rounding.
    """
    few = mean.clamp(max=_FEW)
    term = torch.exp(-few)
    reached, counts = term.clone(), torch.zeros_like(term)
    for number in range(1, 40):
        counts += chance > reached
        term = term * few / number
        reached += term
    z = torch.erfinv((2 * chance - 1).clamp(-1 + 2e-7, 1 - 2e-7)) * math.sqrt(2)
    root = mean.clamp(min=_FEW).sqrt()
    many = mean + root * z + (z.square() - 1) / 6 + (z - z**3) / (72 * root)
    return torch.where(mean > _FEW, many.round(), counts)


def _into_output(places: Tensor, affine: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Return where points x, y [batch, n, 2] of the input lie in the output, both in pixels."""
    side_in = torch.tensor([source[1], source[0]], dtype=places.dtype, device=places.device)
    side_out = torch.tensor([target[1], target[0]], dtype=places.dtype, device=places.device)
    seen = (2 * places + 1) / side_in - 1
    # A similarity transform is undone by its transpose over the square of its scale.
    matrix = affine[:, :, :2]
    scale = matrix[:, :, :1].square().sum(1, keepdim=True)
    back: Tensor = (seen - affine[:, None, :, 2]) @ matrix / scale
    return ((back + 1) * side_out - 1) / 2


def _disks(
    places: Tensor, weights: Tensor, limits: Tensor, shape: tuple[int, int], *, contrast: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the squared distance (px²) of every pixel from the nearest atom, as far as disks reach.

    Parameters
    ----------
    places, weights
        Of the atoms, [batch, n, 2] in pixels and [batch, n].
    limits
        Squared radii in pixels, [batch, radius].
    shape
        Rows and columns.
    contrast
        Also return the largest relative weight of the atoms whose first disk covers a pixel.
    """
    rows, columns = shape
    batch, device = len(places), places.device
    reach = limits.amax(1).sqrt()
    half = int(float(reach.amax()) + 0.5)
    x, y = places.unbind(-1)
    margin = reach[:, None] + 1
    near = (x > -margin) & (x < columns + margin) & (y > -margin) & (y < rows + margin)
    image, atom = near.nonzero(as_tuple=True)
    x, y = x[image, atom], y[image, atom]
    steps = torch.arange(-half, half + 1, device=device)
    row, column = y.round()[:, None] + steps, x.round()[:, None] + steps
    squared = (row - y[:, None]).square()[:, :, None] + (column - x[:, None]).square()[:, None, :]
    # What lies outside goes to the pixel at the edge, where its infinite distance changes nothing.
    outside_rows, outside_columns = (row < 0) | (row >= rows), (column < 0) | (column >= columns)
    squared.masked_fill_(outside_rows[:, :, None] | outside_columns[:, None, :], math.inf)
    row, column = row.long().clamp(0, rows - 1), column.long().clamp(0, columns - 1)
    pixel = ((image * rows)[:, None] + row)[:, :, None] * columns + column[:, None, :]
    nearest = torch.full((batch * rows * columns,), math.inf, dtype=torch.float64, device=device)
    nearest.scatter_reduce_(0, pixel.flatten(), squared.flatten(), "amin")
    bright = None
    if contrast:
        share = (weights / weights.amax(1, keepdim=True).clamp(min=1e-12))[image, atom]
        covered = torch.where(squared <= limits[:, 0][image][:, None, None], share[:, None, None], 0.0)
        bright = torch.zeros(batch * rows * columns, device=device)
        bright = bright.scatter_reduce_(0, pixel.flatten(), covered.flatten(), "amax")
        bright = bright.view(batch, rows, columns)
    return nearest.view(batch, rows, columns), bright
