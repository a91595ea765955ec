"""Images -> feature vectors of a model, to search with or to draw a map of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.inference.lattice import _load as load_classifier
from atomvision_hub.models.base import load_model
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, pretrained_folder

Grey = npt.NDArray[np.uint8]
Progress = Callable[[int], None]
_BATCH = 64


def embed_images(
    images: Sequence[Grey],
    model: str | os.PathLike[str] | None = None,
    *,
    pixel_sizes: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Return one feature vector an image.

    Parameters
    ----------
    images
        8-bit grey levels [row, column], of any sizes.
    model
        Folder or Hub id: a classifier (what its last layer sees), an autoencoder (its codes), or a graph
        network (its pooled features). By default the small classifier that ships with the package.
    pixel_sizes
        Å/px of each image, one number or (row, column); graph networks want them.
    progress
        Called with the number of images after each batch.

    Returns
    -------
    numpy.ndarray
        Float32 [n, d].

    Raises
    ------
    AtomVisionError
        When the model cannot be loaded or gives no features.
    UsageError
        When there are no images.
    """
    if not images:
        raise UsageError("there are no images to embed; give at least one")
    function = _embedder(str(model) if model is not None else str(pretrained_folder(DEFAULT_CLASSIFIER)))
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            rows = slice(start, start + _BATCH)
            sizes = pixel_sizes[rows] if pixel_sizes is not None else [None] * len(images[rows])
            found.append(function(images[rows], sizes).float().numpy())
            if progress is not None:
                progress(len(images[rows]))
    return np.concatenate(found)


_Embedder = Callable[[Sequence[Grey], Sequence[Any]], torch.Tensor]


def _embedder(model: str) -> _Embedder:
    from transformers import PretrainedConfig

    try:
        kind = PretrainedConfig.get_config_dict(model)[0].get("model_type")
    except (OSError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise AtomVisionError(f"the model {model} cannot be loaded: {reason}") from None
    if kind == "timm_wrapper":
        return _classifier(model)
    if kind in {"autoencoder", "vae"}:
        return _autoencoder(load_model(model))
    if kind == "alignn":
        return _graphs(load_model(model))
    raise AtomVisionError(
        f"{model} is a {kind!r}, which gives no features; use a classifier, an autoencoder or an alignn"
    )


def _classifier(model: str) -> _Embedder:
    network, processor = load_classifier(model)

    def embed(images: Sequence[Grey], _: Sequence[Any]) -> torch.Tensor:
        pictures = [Image.fromarray(image).convert("RGB") for image in images]
        values = torch.cat([processor(picture)["pixel_values"] for picture in pictures])
        timm = network.timm_model
        features: torch.Tensor = timm.forward_head(timm.forward_features(values), pre_logits=True)
        return features.flatten(1)

    return embed


def _autoencoder(network: Any) -> _Embedder:
    def embed(images: Sequence[Grey], _: Sequence[Any]) -> torch.Tensor:
        given = [
            network.prepare(torch.tensor(image, dtype=torch.float32)[None, None] / 255) for image in images
        ]
        codes: torch.Tensor = network.encode(torch.cat(given))
        return codes

    return embed


def _graphs(network: Any) -> _Embedder:
    from atomvision_hub.models.alignn import GraphStore
    from atomvision_hub.models.graphs import Graphs, graph_of_image

    def embed(images: Sequence[Grey], sizes: Sequence[Any]) -> torch.Tensor:
        settings = network.graph_settings
        graphs = [graph_of_image(image, size, settings) for image, size in zip(images, sizes, strict=True)]
        store = GraphStore(Graphs.join(graphs), torch.device("cpu"))
        features: torch.Tensor = network.embed(store.batch(torch.arange(len(graphs))))
        return features

    return embed
