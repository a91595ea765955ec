"""Networks with `from_pretrained`; names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "HubModel": "base",
    "load_model": "base",
    "Segmenter": "segmenter",
    "Alignn": "alignn",
    "LatticeNetwork": "lattice_network",
    "SuperResolution": "super_resolution",
    "Autoencoder": "autoencoder",
    "VariationalAutoencoder": "autoencoder",
}
__all__ = [
    "Alignn",
    "Autoencoder",
    "HubModel",
    "LatticeNetwork",
    "Segmenter",
    "SuperResolution",
    "VariationalAutoencoder",
    "load_model",
]

if TYPE_CHECKING:
    from atomvision_hub.models.base import HubModel, load_model


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
