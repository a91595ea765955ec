"""From a crystal to an image and its targets: arrays only, no files.

`simulate_stem` renders one image with NumPy; `atomvision_hub.simulation.torch` renders batches on CPU or GPU.
"""

from __future__ import annotations

from atomvision_hub.simulation.grey import to_grey, to_intensity
from atomvision_hub.simulation.psf import (
    FunctionPSF,
    GaussianPSF,
    JarvisPSF,
    RadialPSF,
    TabulatedPSF,
    parse_psf,
)
from atomvision_hub.simulation.stem import StemFrame, simulate_stem
from atomvision_hub.simulation.targets import disk_mask, overlap_columns

__all__ = [
    "FunctionPSF",
    "GaussianPSF",
    "JarvisPSF",
    "RadialPSF",
    "StemFrame",
    "TabulatedPSF",
    "disk_mask",
    "overlap_columns",
    "parse_psf",
    "simulate_stem",
    "to_grey",
    "to_intensity",
]
