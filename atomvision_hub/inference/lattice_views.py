"""Class of lattice of an image of any size: the mean answer to views spread over where columns are."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis import AtomTable
from atomvision_hub.analysis.atoms import COLUMN_WIDTH
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.inference.identity import identity
from atomvision_hub.inference.lattice_parameters import Measured
from atomvision_hub.inference.result import LatticeClass
from atomvision_hub.microscopy.view import to_view
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, pretrained_folder

#: In place of a model: do without.
NONE = "none"
#: What answers where no model is named: the fit of `analysis.lattice_fit`.
FIT = "lattice fit"
#: Probability of the best class below which others are named too.
UNSURE = 0.7
_GRID = 2  # most views a side that the classifier is shown

Values = npt.NDArray[np.float32]


def classify_views(
    grey: npt.NDArray[np.uint8],
    scale: tuple[float, float],
    atoms: AtomTable,
    model: str | os.PathLike[str] | None,
    measured: Measured,
    models: dict[str, dict[str, str | None]],
    warnings: list[str],
) -> LatticeClass | None:
    """Return the class of lattice: the mean answer to views spread over where columns are.

    Without a model it is the class of the lattice that was fitted to the image. A graph classifier is asked
    about the columns.
    A classifier of images is shown each view twice: as it was recorded, and as the sum of the columns
    that were found, without noise and ground, as in the images it learned from. The recorded view
    counts as much as the columns explain of it (square of the correlation): a noisy one is hardly
    evidence.
    """
    if str(model) == NONE:
        return None
    if model is None:
        return fitted_class(measured, models, warnings)
    if not len(atoms):
        warnings.append("no columns of atoms found, hence no class of lattice")
        return None
    from atomvision_hub.inference.graph_lattice import is_graph_classifier

    if is_graph_classifier(str(model)):
        return _lattice_of_columns(atoms, str(model), models, warnings)
    from atomvision_hub.inference.lattice import field_of_view, predict

    recorded, size = _square(grey, scale)
    places = np.stack([atoms.y * scale[0], atoms.x * scale[1]], axis=1) / size
    modelled = to_view(_drawn(places, atoms.amplitude, recorded.shape, COLUMN_WIDTH / size), clip=0).grey
    _, widest = field_of_view(model)
    side = min(*recorded.shape, round(widest / size) if math.isfinite(widest) else max(recorded.shape))
    views = _views(recorded.shape, side, places)
    answers, weights = [], []
    for top, left in views:
        pair = [picture[top : top + side, left : left + side] for picture in (recorded, modelled)]
        try:
            answers += [predict(view, model, pixel_size=size) for view in pair]
        except UsageError:
            raise
        except AtomVisionError as problem:
            # The atoms are told all the same.
            warnings.append(f"no class of lattice: {problem}")
            return None
        weights.append((_explained(*pair), 1.0))
    models["classifier"] = identity(str(model or pretrained_folder(DEFAULT_CLASSIFIER)))
    names = list(answers[0].probabilities)
    chances = np.array([[answer.probabilities[name] for name in names] for answer in answers])
    share = np.array(weights)[:, :, None]
    by_view = (chances.reshape(len(views), 2, -1) * share).sum(axis=1) / share.sum(axis=1)
    mean = by_view.mean(axis=0)
    return LatticeClass(
        label=names[int(mean.argmax())],
        probabilities=dict(zip(names, mean.tolist(), strict=True)),
        model=answers[0].model,
        views=len(views),
        agreement=float((by_view.argmax(axis=1) == mean.argmax()).mean()),
    )


def fitted_class(
    measured: Measured, models: dict[str, dict[str, str | None]], warnings: list[str]
) -> LatticeClass | None:
    """Return the class of the lattice that fits the image best, or None where none does."""
    models["classifier"] = {"name": FIT, "sha256": None, "revision": None}
    found = measured.parameters
    if found is None:
        warnings.append(f"no lattice: {measured.reason}; --classifier asks a network all the same")
        return None
    ranked = sorted(found.probabilities.items(), key=lambda entry: -entry[1])
    if ranked[0][1] < UNSURE:
        told = ", ".join(f"{name} {chance:.2f}" for name, chance in ranked[:3])
        warnings.append(f"the class is open within the errors: {told}")
    return LatticeClass(
        label=found.lattice, probabilities=found.probabilities, model=FIT, views=1, agreement=1.0
    )


def _lattice_of_columns(
    atoms: AtomTable, model: str, models: dict[str, dict[str, str | None]], warnings: list[str]
) -> LatticeClass | None:
    from atomvision_hub.inference.graph_lattice import classify_columns, load_graph_classifier

    try:
        names, chances = classify_columns(atoms, load_graph_classifier(model))
    except UsageError:
        raise
    except AtomVisionError as problem:
        warnings.append(f"no class of lattice: {problem}")
        return None
    models["classifier"] = identity(model)
    mean = chances.mean(axis=0)
    return LatticeClass(
        label=names[int(mean.argmax())],
        probabilities=dict(zip(names, mean.tolist(), strict=True)),
        model=Path(model).resolve().name,
        views=len(chances),
        agreement=float((chances.argmax(axis=1) == mean.argmax()).mean()),
    )


def _explained(recorded: npt.NDArray[Any], modelled: npt.NDArray[Any]) -> float:
    """Return the share of an image's variance that another one explains."""
    first, second = (view.astype(np.float64) - view.mean() for view in (recorded, modelled))
    power = float((first**2).sum() * (second**2).sum())
    return float((first * second).sum() ** 2 / power) if power > 0 else 0.0


def _drawn(
    places: npt.NDArray[np.float64], heights: npt.NDArray[np.float64], shape: tuple[int, ...], width: float
) -> Values:
    """Return the sum of Gaussians at (row, column) places, `width` px wide."""
    reach = math.ceil(4 * width)
    offsets = np.arange(-reach, reach + 1)
    middle = np.rint(places).astype(np.intp)
    # A Gaussian is a product of one along rows and one along columns.
    near = middle[:, :, None] + offsets
    profiles = np.exp(-0.5 * ((near - places[:, :, None]) / width) ** 2)
    result = np.zeros([side + 2 * reach for side in shape], np.float32)
    for (row, column), (down, across), height in zip(middle, profiles, heights, strict=True):
        result[row : row + 2 * reach + 1, column : column + 2 * reach + 1] += np.outer(height * down, across)
    return result[reach:-reach, reach:-reach]


def _square(grey: npt.NDArray[np.uint8], scale: tuple[float, float]) -> tuple[npt.NDArray[np.uint8], float]:
    """Return the image with square pixels of the coarser of its two sizes, and that size."""
    size = max(scale)
    if abs(scale[0] / scale[1] - 1) < 1e-3:
        return grey, float(math.sqrt(scale[0] * scale[1]))
    from PIL import Image

    rows, columns = (max(1, round(n * step / size)) for n, step in zip(grey.shape, scale, strict=True))
    # Pillow's filters widen with the reduction, so that nothing is aliased.
    return np.asarray(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BICUBIC)), size


def _views(shape: tuple[int, ...], side: int, places: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return upper left corners of up to 2 x 2 views over the columns; at least the one that has most."""
    corners: list[list[int]] = []
    for length, along in zip(shape, places.T, strict=True):
        first, last = (int(np.clip(edge, 0, length - 1)) for edge in (along.min(), along.max()))
        count = int(np.clip((last - first) // max(1, side), 1, _GRID))
        centres = first + (last - first) * (np.arange(count) + 0.5) / count
        corners.append([int(np.clip(round(centre - side / 2), 0, length - side)) for centre in centres])
    views = [(top, left) for top in corners[0] for left in corners[1]]
    held = [
        int(((places >= corner) & (places < np.array(corner) + side)).all(axis=1).sum()) for corner in views
    ]
    return [view for view, count in zip(views, held, strict=True) if count >= 0.5 * max(held)]
