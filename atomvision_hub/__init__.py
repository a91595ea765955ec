"""AtomVision Hub: datasets, simulators and models for atomic-resolution images.

The names below are loaded on first use, so that ``import atomvision_hub`` is quick and imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "load_structures": "atomvision_hub.structures",
    "classify_lattice": "atomvision_hub.structures",
    "simulate_stem": "atomvision_hub.simulation",
    "simulate_stm": "atomvision_hub.simulation.stm",
    "load_dataset": "atomvision_hub.data",
    "predict": "atomvision_hub.inference",
    "analyze": "atomvision_hub.inference",
}
__all__ = [
    "__version__",
    "analyze",
    "classify_lattice",
    "load_dataset",
    "load_structures",
    "predict",
    "simulate_stem",
    "simulate_stm",
]

if TYPE_CHECKING:
    from atomvision_hub.data import load_dataset
    from atomvision_hub.inference import analyze, predict
    from atomvision_hub.simulation import simulate_stem
    from atomvision_hub.simulation.stm import simulate_stm
    from atomvision_hub.structures import classify_lattice, load_structures


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
