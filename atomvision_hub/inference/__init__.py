"""A model and an image with its calibration -> a typed result."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomvision_hub.inference.analysis import analyze
    from atomvision_hub.inference.lattice import Prediction, predict
    from atomvision_hub.inference.result import Analysis

_PUBLIC = {
    "Analysis": "atomvision_hub.inference.result",
    "Prediction": "atomvision_hub.inference.lattice",
    "analyze": "atomvision_hub.inference.analysis",
    "predict": "atomvision_hub.inference.lattice",
}
__all__ = ["Analysis", "Prediction", "analyze", "predict"]


def __getattr__(name: str) -> Any:
    # Torch is imported when a prediction is asked for, not when the package is looked at.
    if name in __all__:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
