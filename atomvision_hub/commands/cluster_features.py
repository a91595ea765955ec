"""What `atomvision cluster` compares: images of a dataset as pixels and as histograms of bond angles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError

#: Side of the images whose pixels are compared, px.
_PIXELS = 64
#: Fewest images that make a map.
FEWEST = 12
Grey = npt.NDArray[np.uint8]


def read(
    dataset: str,
    config: str | None,
    revision: str | None,
    split: str,
    label: str,
    limit: int | None,
    seed: int,
) -> tuple[list[Grey], list[Any] | None, npt.NDArray[np.int64], list[str]]:
    """Return images (at most `limit`, drawn by `seed`), pixel sizes (Å/px), classes and their names."""
    import datasets

    from atomvision_hub.data import load_dataset
    from atomvision_hub.models.images import to_8bit

    table = load_dataset(dataset, config, revision=revision, split=split)
    if "image" not in table.column_names:
        raise UsageError(f"{dataset} ({config or 'default'}) has no images; choose another --config")
    feature = table.features.get(label)
    if not isinstance(feature, datasets.ClassLabel):
        known = sorted(name for name, one in table.features.items() if isinstance(one, datasets.ClassLabel))
        raise UsageError(f"{dataset} has no class column {label!r}; --label may be: {', '.join(known)}")
    wanted = min(limit or len(table), len(table))
    if len(table) < FEWEST:
        raise UsageError(f"the {split} split has {len(table)} images; a map needs {FEWEST} or more")
    if wanted < len(table):
        drawn = np.random.default_rng(seed).choice(len(table), wanted, replace=False)
        table = table.select(np.sort(drawn))
    images = [np.asarray(to_8bit(image).convert("L")) for image in table["image"]]
    sizes = list(table["pixel_size"]) if "pixel_size" in table.column_names else None
    return images, sizes, np.asarray(table[label], dtype=np.int64), list(feature.names)


def pixels(images: list[Grey]) -> npt.NDArray[np.float64]:
    """Return the grey levels of the central squares, averaged over areas, [n, pixels]."""
    from PIL import Image

    found = []
    for image in images:
        short = min(image.shape)
        top, left = ((side - short) // 2 for side in image.shape)
        square = Image.fromarray(image[top : top + short, left : left + short])
        found.append(np.asarray(square.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)).ravel() / 255)
    return np.stack(found)


def bond_angles(
    images: list[Grey], sizes: list[Any] | None, step: Any
) -> tuple[npt.NDArray[np.float32], int]:
    """Return histograms of bond-angle cosines [n, 200], and how many images have none."""
    from atomvision_hub.analysis import AnalysisError, bond_angle_histogram, detect_atoms, radius_graph

    if sizes is None:
        raise UsageError("bond angles need pixel sizes, and this dataset has no column pixel_size")
    found = []
    for image, size in zip(images, sizes, strict=True):
        try:
            graph = radius_graph(detect_atoms(image, tuple(size)).positions())
            found.append(bond_angle_histogram(graph.line_graph(), bins=200))
        except AnalysisError:  # no columns of the expected width
            found.append(np.zeros(200, np.float32))
        step()
    histograms = np.stack(found)
    return histograms, int((histograms.sum(axis=1) == 0).sum())
