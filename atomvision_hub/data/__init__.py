"""Rows to versioned datasets: features, shards, splits, manifest, validation, publishing, loading."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "BuildOptions": "interface",
    "BuildReport": "interface",
    "arrow_schema": "features",
    "available_builders": "builders",
    "column_table": "features",
    "features_of": "features",
    "load_builder": "builders",
    "load_dataset": "load",
    "push_dataset": "publish",
    "split_of": "splits",
    "validate_folder": "validate",
}
__all__ = [
    "BuildOptions",
    "BuildReport",
    "arrow_schema",
    "available_builders",
    "column_table",
    "features_of",
    "load_builder",
    "load_dataset",
    "push_dataset",
    "split_of",
    "validate_folder",
]

if TYPE_CHECKING:
    from atomvision_hub.data.builders import available_builders, load_builder
    from atomvision_hub.data.features import arrow_schema, column_table, features_of
    from atomvision_hub.data.interface import BuildOptions, BuildReport
    from atomvision_hub.data.load import load_dataset
    from atomvision_hub.data.publish import push_dataset
    from atomvision_hub.data.splits import split_of
    from atomvision_hub.data.validate import validate_folder


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
