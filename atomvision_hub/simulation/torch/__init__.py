"""Batched, differentiable simulation with PyTorch, on CPU and GPU."""

from __future__ import annotations

from atomvision_hub.simulation.torch.batch import CrystalBatch
from atomvision_hub.simulation.torch.renderer import StemRenderer

__all__ = ["CrystalBatch", "StemRenderer"]
