"""Which model answered: name, checksum of its weights, commit on the Hub."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from atomvision_hub._files import sha256_file
from atomvision_hub.models.pretrained import pretrained_folder


def identity(model: str) -> dict[str, str | None]:
    """Return name, checksum of the weights and, from the Hub, the commit of a model."""
    weights, revision = Path(model) / "model.safetensors", None
    if not Path(model).is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "model.safetensors")
        if not isinstance(cached, str):
            return {"name": model, "sha256": None, "revision": None}
        weights, revision = Path(cached), Path(cached).parent.name
    name = model if revision else Path(model).resolve().name
    return {"name": name, "sha256": _checksum(weights), "revision": revision}


def model_checksum(model: str | os.PathLike[str] | None, default: str) -> str | None:
    """Return the SHA-256 of the weights in a folder, or of the shipped model `default`; None for the Hub."""
    return _checksum(Path(model if model is not None else pretrained_folder(default)) / "model.safetensors")


@functools.lru_cache(maxsize=8)
def _checksum(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None
