"""What `atomvision atoms-picture` shows: atoms taken out, imaged, found again, and drawn side by side."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes

    from atomvision_hub.analysis import AtomTable
    from atomvision_hub.simulation import StemFrame

_PIXEL_SIZE = 0.1  # Å/px
_BORDER = 2.0  # Å; vacancies keep off the edges of the view
_SURE = 0.5  # smallest confidence of a column
_APART = 3.0  # Å; and off each other, where they find room


@dataclass(frozen=True)
class Counted:
    """What the picture shows.

    Attributes
    ----------
    frame
        Image, mask and atom table of the crystal with its vacancies.
    image
        What is analysed: the ideal image, or the electrons that a detector counts.
    mask
        Probability of "atom" that a segmenter gave, 0..1, or None.
    atoms
        Columns that were found.
    columns
        True columns, (x, y) in px, those inside the view.
    vacancies
        Places of the atoms that were taken out, (x, y) in px.
    empty
        Whether no column was found within 0.5 Å of the vacancy.
    """

    frame: StemFrame
    image: npt.NDArray[Any]
    mask: npt.NDArray[Any] | None
    atoms: AtomTable
    columns: npt.NDArray[np.float64]
    vacancies: npt.NDArray[np.float64]
    empty: npt.NDArray[np.bool_]


def count_atoms(
    layer: Atoms,
    vacancies: int,
    *,
    dose: float | None = None,
    segmenter: str | None = None,
    field_of_view: float = 20.0,
    rotation: float = 0.0,
    seed: int = 0,
) -> Counted:
    """Take atoms out of a layer, simulate its image and find the columns in it; lengths in Å.

    Raises
    ------
    UsageError
        When the view has not so many atoms to take out.
    """
    from atomvision_hub.analysis import detect_atoms
    from atomvision_hub.analysis.atom_scores import TOLERANCE, match_points, true_columns
    from atomvision_hub.simulation import simulate_stem
    from atomvision_hub.simulation.acquisition import Acquisition, Dose, acquire

    pixels = round(field_of_view / _PIXEL_SIZE)
    view: dict[str, Any] = {"shape": (pixels, pixels), "pixel_size": _PIXEL_SIZE, "rotation": rotation}
    # So large that no vacancy comes back at the other side of the view.
    heights = np.linalg.norm(layer.cell.array[:2], axis=1) * abs(
        math.sin(math.radians(layer.cell.angles()[2]))
    )
    crystal = layer.repeat((*(math.ceil((1.5 * field_of_view + 10) / h) for h in heights), 1))
    pristine = simulate_stem(crystal, **view).atoms
    generator = np.random.default_rng(seed)
    taken = _choose(pristine, vacancies, (pixels, pixels), generator)
    del crystal[pristine["index"][taken].tolist()]
    frame = simulate_stem(crystal, **view)
    image = frame.image
    if dose is not None:
        image = acquire(image, _PIXEL_SIZE, Acquisition((Dose(electrons=dose),)), seed=seed).image
    mask = None if segmenter is None else _probability(segmenter, image)
    # The true mask is only shown: it would tell where the atoms are.
    atoms = detect_atoms(image, _PIXEL_SIZE, mask=mask)
    atoms = atoms.select(atoms.confidence >= _SURE)
    truth = true_columns(frame.atoms, frame.image.shape, frame.pixel_size)
    places = np.stack([pristine["x"][taken], pristine["y"][taken]], axis=1).astype(float)
    near = match_points(atoms.positions(), places * _PIXEL_SIZE, TOLERANCE)[0]
    empty = np.ones(len(places), bool)
    empty[near[:, 1]] = False
    columns = truth.positions[truth.inside] / _PIXEL_SIZE
    return Counted(frame, image, mask, atoms, columns, places, empty)


def _choose(
    atoms: npt.NDArray[np.void], count: int, shape: tuple[int, int], generator: np.random.Generator
) -> list[int]:
    """Return rows of the table: atoms inside the view, apart from each other."""
    places = np.stack([atoms["x"], atoms["y"]], axis=1) * _PIXEL_SIZE
    high = np.array(shape[::-1]) * _PIXEL_SIZE - _BORDER
    inside = np.flatnonzero(((places > _BORDER) & (places < high)).all(axis=1))
    chosen: list[int] = []
    for index in generator.permutation(inside).tolist():
        if len(chosen) == count:
            break
        if all(np.hypot(*(places[index] - places[other])) >= _APART for other in chosen):
            chosen.append(index)
    if len(chosen) < count:
        raise UsageError(
            f"the view has room for {len(chosen)} vacancies, not {count}; widen it with --field-of-view"
        )
    return chosen


def _probability(segmenter: str, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import torch

    from atomvision_hub.models.images import grey_levels
    from atomvision_hub.models.segmenter import Segmenter

    grey = torch.from_numpy(grey_levels(image)).float()[None, None] / 255
    with torch.inference_mode():
        answer: npt.NDArray[Any] = Segmenter.from_pretrained(segmenter).predict(grey)[0, 0].numpy()
    return answer


def draw(counted: Counted, title: str = "") -> bytes:
    """Return a PNG: structure, image, mask and counted atoms, side by side.

    Beside figure 4 of K. Choudhary et al., J. Chem. Inf. Model. 2023, doi 10.1021/acs.jcim.2c01533.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.2, 3.75), layout="constrained")
    panels = figure.subplots(1, 4)
    missing, found = len(counted.vacancies), counted.atoms
    _draw_structure(panels[0], counted)
    panels[0].set_title(f"{title}, {missing} vacanc{'y' if missing == 1 else 'ies'}", fontsize=11)
    _show(panels[1], counted.image, "gray")
    _scale_bar(panels[1], counted.image.shape[1])
    panels[1].set_title("STEM image", fontsize=11)
    mask = counted.frame.mask if counted.mask is None else counted.mask
    _show(panels[2], np.asarray(mask, float), "gray", (0.0, 1.0))
    panels[2].set_title("mask (true)" if counted.mask is None else "mask (segmenter)", fontsize=11)
    _show(panels[3], counted.image, "gray")
    panels[3].scatter(found.x, found.y, s=16, facecolors="none", edgecolors="tab:cyan", linewidths=1.2)
    for (x, y), empty in zip(counted.vacancies, counted.empty, strict=True):
        panels[3].plot(x, y, "o", mfc="none", mec="tab:red" if empty else "tab:orange", ms=13, mew=1.6)
    panels[3].set_title(f"{len(found)} columns found, {len(counted.columns)} are there", fontsize=11)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()


def _draw_structure(axes: Axes, counted: Counted) -> None:
    """Draw atoms in their usual colours, bonds, and crosses where atoms are missing."""
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors
    from matplotlib.collections import LineCollection
    from scipy.spatial import cKDTree

    table = counted.frame.atoms
    places = np.stack([table["x"], table["y"], table["z"] / _PIXEL_SIZE], axis=1).astype(float)
    radii = covalent_radii[table["number"]] / _PIXEL_SIZE
    pairs = cKDTree(places).query_pairs(2.6 * float(radii.max()), output_type="ndarray")
    lengths = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    bonds = lengths < 1.2 * radii[pairs].sum(axis=1)
    if len(np.unique(table["number"])) > 1:  # in compounds, like atoms are neighbours rather than bonded
        bonds &= table["number"][pairs[:, 0]] != table["number"][pairs[:, 1]]
    bonded = pairs[bonds]
    axes.add_collection(
        LineCollection(list(places[bonded][:, :, :2]), colors="0.45", linewidths=1.5, zorder=1)
    )
    order = np.argsort(places[:, 2])
    side = counted.frame.image.shape[0]
    axes.scatter(
        places[order, 0],
        places[order, 1],
        s=(0.6 * radii[order] * 2.9 * 72 / side) ** 2,
        c=jmol_colors[table["number"]][order],
        edgecolors="0.2",
        linewidths=0.6,
        zorder=2,
    )
    axes.plot(*counted.vacancies.T, "x", color="tab:red", ms=8, mew=2, zorder=3)
    axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")


def _show(
    axes: Axes, image: npt.NDArray[Any], colours: str, limits: tuple[float, float] | None = None
) -> None:
    low, high = limits or np.percentile(image, (0.5, 99.5))
    axes.imshow(image, cmap=colours, vmin=low, vmax=max(high, low + 1e-30), interpolation="antialiased")
    axes.set(xticks=[], yticks=[])


def _scale_bar(axes: Axes, columns: int) -> None:
    from matplotlib.patches import Rectangle

    length = 5.0
    bar, left, top = length / _PIXEL_SIZE, 0.04 * columns, 0.86 * columns
    axes.add_patch(
        Rectangle((left, top), bar + 0.04 * columns, 0.11 * columns, color="black", alpha=0.65, lw=0)
    )
    axes.add_patch(
        Rectangle((left + 0.02 * columns, top + 0.078 * columns), bar, 0.016 * columns, color="white")
    )
    place = (left + 0.02 * columns + bar / 2, top + 0.066 * columns)
    axes.text(*place, f"{length:g} Å", color="white", ha="center", fontsize=8)
