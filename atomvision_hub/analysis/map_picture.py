"""A picture of maps of many images, side by side, coloured by class."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.embedding import EmbeddedMap

#: One colour a class, apart also for colour-blind eyes (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


def maps_picture(
    maps: Mapping[str, EmbeddedMap], labels: npt.ArrayLike, names: Sequence[str], title: str = ""
) -> bytes:
    """Return a PNG: a panel a map, with its figures above it.

    Parameters
    ----------
    maps
        What was mapped -> its map; all of the same images.
    labels
        Indices into `names`, [n].
    names
        Classes.
    title
        First line.
    """
    from matplotlib.figure import Figure

    given = np.asarray(labels)
    count = len(given)
    figure = Figure(figsize=(4.4 * len(maps), 5.2), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    size = float(np.clip(9000 / max(count, 1), 5, 40))
    # In one shuffled order, so that no class lies on top of the others.
    order = np.random.default_rng(0).permutation(count)
    colours = np.array([_COLOURS[index % len(_COLOURS)] for index in range(len(names))])
    for axes, (what, found) in zip(panels, maps.items(), strict=True):
        axes.scatter(*found.points[order].T, s=size, c=colours[given[order]], alpha=0.8, linewidths=0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{what}\n{_figures(found)}", fontsize=9)
    for index, name in enumerate(names):
        shown = f"{name.replace('_', ' ')} ({int((given == index).sum()):,})"
        panels[0].scatter([], [], s=40, c=colours[index], label=shown, linewidths=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    chance = next((found.after.chance for found in maps.values() if found.after is not None), None)
    figure.suptitle(title if chance is None else f"{title} (chance: {chance:.2f} of one class)", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _figures(found: EmbeddedMap) -> str:
    text = f"trustworthiness {found.trustworthiness:.3f}"
    if found.before is None or found.after is None:
        return text
    return (
        f"{text}\nsame class among {found.k} nearest: {found.before.value:.2f} in features, "
        f"{found.after.value:.2f} on map"
    )
