"""Training images made when they are asked for: crystals in random poses, recorded as a microscope does.

>>> crystals = CrystalSet.open("build/stem2d", "train", margin=0.015)  # doctest: +SKIP
>>> batches = RenderedCrystals(crystals, RenderConfig(), loop, accelerator)  # doctest: +SKIP
>>> for images, labels, pixel_size in batches.epoch(1): ...  # doctest: +SKIP
"""

from __future__ import annotations

from atomvision_hub.engine.rendering.batches import RenderedBatch, RenderedCrystals
from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.engine.rendering.dataset import RenderedImages

__all__ = ["CrystalSet", "RenderConfig", "RenderedBatch", "RenderedCrystals", "RenderedImages"]
