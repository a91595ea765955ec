"""A model and an image with its calibration -> a typed result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomvision_hub.inference.lattice import Prediction, predict

__all__ = ["Prediction", "predict"]


def __getattr__(name: str) -> Any:
    # Torch is imported when a prediction is asked for, not when the package is looked at.
    if name in __all__:
        from atomvision_hub.inference import lattice

        return getattr(lattice, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
