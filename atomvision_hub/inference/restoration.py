"""Image of any instrument -> the same view with less noise and finer pixels, and how far to believe it.

A super-resolution network knows one pixel size. An image with finer pixels is averaged to it first, so that
the answer has about the pixels of the recording and less noise; one as coarse as the network knows comes back
four times as fine.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from atomvision_hub.analysis import AnalysisError, detect_atoms
from atomvision_hub.analysis.atom_scores import TOLERANCE, match_points
from atomvision_hub.analysis.atoms import RESOLVABLE_PEAK
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.identity import identity
from atomvision_hub.models.pretrained import DEFAULT_SUPER_RESOLUTION, pretrained_folder

if TYPE_CHECKING:
    from atomvision_hub.models.super_resolution import SuperResolution

Values = npt.NDArray[np.float32]

#: How much coarser than the network knows an image may be, and how many pixels it may have at that size.
_COARSER, _MOST_PIXELS = 1.5, 2**20
#: Columns that are less sure than this come from noise as well as not.
_CONFIDENT = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """What the columns of atoms in a recording and in its restoration tell of each other.

    Parameters
    ----------
    recorded, restored
        How many are found in each.
    unsupported
        Of the restoration, how many have none within 0.5 Å in the recording: the network may have made
        them up, or the noise hides them in the recording.
    lost
        Of the recording, how many have none within 0.5 Å in the restoration.
    positions
        (x, y) of the unsupported ones in pixels of the restored image, shape (n, 2).
    """

    recorded: int
    restored: int
    unsupported: int
    lost: int
    positions: npt.NDArray[np.float64]

    @property
    def share(self) -> float:
        """Share of the restoration's columns without one in the recording; 0 without any."""
        return self.unsupported / self.restored if self.restored else 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Restored:
    """An image that a network made of another one.

    Parameters
    ----------
    image
        Grey levels [row, column] in the unit of the recording.
    pixel_size
        Å/px (row, column), those of an assumed size where the recording was not calibrated.
    seen
        What the network was shown.
    columns
        Comparison with the recording, ``None`` where no columns were found in the restoration.
    measured
        Figure -> (value, low, high): shares of ``hallucinated_atoms`` and ``missing_atoms`` on test images
        of known atoms, with 95 % intervals, where the model's folder tells them.
    model
        Name and checksum of what answered.
    warnings
        What to keep in mind, one line each.
    """

    image: Values
    pixel_size: tuple[float, float]
    seen: Values
    columns: Columns | None
    measured: dict[str, tuple[float, float, float]]
    model: dict[str, str | None]
    warnings: tuple[str, ...]


def restore(
    image: npt.ArrayLike,
    pixel_size: float | tuple[float, float] | None = None,
    model: str | os.PathLike[str] | None = None,
) -> Restored:
    """Remove noise from an image and make its pixels finer.

    Parameters
    ----------
    image
        Grey levels or counts [row, column], finite.
    pixel_size
        Å/px, one number or (row, column); without it that of the network is assumed.
    model
        Folder or Hub id of a `SuperResolution`; by default the one that ships with the package.

    Raises
    ------
    UsageError
        When the image is too small, too large, too coarse or not finite.

    Examples
    --------
    >>> restore(scan, 0.1).image.shape, restore(scan, 0.4).pixel_size  # doctest: +SKIP
    ((256, 256), (0.1, 0.1))
    """
    values = np.asarray(image, dtype=np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UsageError(f"restore takes a finite grey image [row, column], not {values.shape}")
    name = str(model) if model is not None else str(pretrained_folder(DEFAULT_SUPER_RESOLUTION))
    network = _load(name)
    learned = float(np.mean(network.known.get("pixel_size") or (0.4, 0.4)))
    warnings = []
    if pixel_size is None:
        size = (learned, learned)
        warnings.append(f"pixel size unknown: taken for {learned:g} Å/px, which the network knows")
    else:
        pair = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2)
        if not (np.isfinite(pair).all() and (pair > 0).all()):
            raise UsageError(f"the pixel size must be a positive number of Å/px, not {pixel_size}")
        size = (float(pair[0]), float(pair[1]))
    if max(size) > _COARSER * learned:
        raise UsageError(
            f"{max(size):.3g} Å/px is too coarse: the network knows columns of atoms at {learned:g} Å/px"
        )
    seen, seen_size = _at_scale(values, size, learned)
    large = network.upscale(seen, seen_size)
    assert large.pixel_size is not None
    return Restored(
        image=large.image,
        pixel_size=large.pixel_size,
        seen=seen,
        columns=_compared(values, size, large.image, large.pixel_size),
        measured=_measured(name),
        model=identity(name),
        warnings=tuple(warnings),
    )


@functools.lru_cache(maxsize=2)
def _load(model: str) -> SuperResolution:
    from atomvision_hub.models.super_resolution import SuperResolution

    return SuperResolution.from_pretrained(model)


def _at_scale(
    values: Values, size: tuple[float, float], learned: float
) -> tuple[Values, tuple[float, float]]:
    """Return the image with pixels of the learned size: area means where they get coarser, else cubic."""
    rows, columns = (max(1, round(n * step / learned)) for n, step in zip(values.shape, size, strict=True))
    if min(rows, columns) < 8:
        raise UsageError(
            f"the image shows {min(rows, columns) * learned:.2g} Å; the network needs {8 * learned:g} Å"
        )
    if rows * columns > _MOST_PIXELS:
        raise UsageError(
            f"at {learned:g} Å/px the image has {rows * columns / 1e6:.1f} megapixels; crop it to one or less"
        )
    shape = (rows, columns)
    if shape == values.shape:
        return values, size
    finer = rows * columns > values.size
    kind = Image.Resampling.BICUBIC if finer else Image.Resampling.BOX
    seen = np.asarray(Image.fromarray(values).resize((columns, rows), kind), np.float32)
    told = tuple(n * step / m for n, step, m in zip(values.shape, size, shape, strict=True))
    return seen, (told[0], told[1])


def _compared(
    recording: Values, size: tuple[float, float], answer: Values, fine: tuple[float, float]
) -> Columns | None:
    after = _columns(answer, fine)
    if after is None:
        return None
    before = _columns(recording, size)
    if before is None:
        before = np.zeros((0, 2))
    matched, _, used = match_points(after, before, TOLERANCE)
    unsupported = after[~used]
    return Columns(
        recorded=len(before),
        restored=len(after),
        unsupported=len(unsupported),
        lost=len(before) - len(matched),
        positions=unsupported / np.array(fine[::-1]) - 0.5,
    )


def _columns(values: Values, size: tuple[float, float]) -> npt.NDArray[np.float64] | None:
    """Return (x, y) in Å from the edges of the image, which its pixels of any size share."""
    try:
        atoms = detect_atoms(values, size, threshold=RESOLVABLE_PEAK)
    except AnalysisError:
        return None
    atoms = atoms.select(atoms.confidence >= _CONFIDENT)
    return np.asarray(atoms.positions() + 0.5 * np.array(size[::-1]))


def _measured(model: str) -> dict[str, tuple[float, float, float]]:
    """Return what the run that trained a model in a folder measured on test images."""
    path = Path(model) / "facts.json"
    if not path.is_file():
        return {}
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("metrics", {}).get("test", {})
    return {
        name: (told[name]["value"], *told[name]["interval"])
        for name in ("hallucinated_atoms", "missing_atoms")
        if name in told and told[name].get("interval")
    }
