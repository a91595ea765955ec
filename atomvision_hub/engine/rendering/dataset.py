"""Rendered images as a torch `Dataset`, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from atomvision_hub.engine.rendering.batches import render_quietly
from atomvision_hub.engine.rendering.config import RenderConfig
from atomvision_hub.engine.rendering.crystals import CrystalSet
from atomvision_hub.engine.rendering.draws import draw
from atomvision_hub.engine.rendering.targets import image_targets
from atomvision_hub.errors import UsageError


class RenderedImages(Dataset[dict[str, Any]]):
    """One new image of a crystal at every index and epoch.

    An image follows from seed, epoch and index alone: any sampler, any number of workers and processes
    (`DistributedSampler`) will do, nothing has to be seeded, and no two indices give the same image. Call
    `set_epoch` before each epoch, as for a `DistributedSampler`; running workers hear of it.

    Parameters
    ----------
    crystals
        What is drawn; those that are too large for any view are left out.
    render
        How; `render.workers` does not matter here, it is the `DataLoader` that has workers.
    seed
        Of everything.
    targets
        Whether to return masks and atoms too.
    mask_radius
        Radius of the disks of a mask, Å.

    Examples
    --------
    >>> crystals = CrystalSet.open("build/stem2d", "train", margin=0.015)  # doctest: +SKIP
    >>> images = RenderedImages(crystals, RenderConfig(acquisition="typical"))  # doctest: +SKIP
    >>> loader = DataLoader(  # doctest: +SKIP
    ...     images, batch_size=64, shuffle=True, num_workers=4, persistent_workers=True
    ... )
    >>> for epoch in range(10):  # doctest: +SKIP
    ...     images.set_epoch(epoch)
    ...     for batch in loader:
    ...         loss = criterion(model(batch["image"]), batch["label"])
    """

    def __init__(
        self,
        crystals: CrystalSet,
        render: RenderConfig | None = None,
        *,
        seed: int = 0,
        targets: bool = False,
        mask_radius: float = 0.5,
    ) -> None:
        self.render = render = RenderConfig() if render is None else render
        if not mask_radius > 0:
            raise UsageError(f"mask_radius must be positive, in Å, not {mask_radius!r}")
        self.crystals = crystals.in_view(min(render.shape) * render.pixel_size[1], render.periods)
        self.seed, self.targets, self.mask_radius = seed, targets, mask_radius
        # In shared memory: workers that live through several epochs see the new one.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Say which images come next."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.crystals) * self.render.views

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an image, as `__getitems__`."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return images.

        Returns
        -------
        list of dict
            ``image``, float32 0..1 [1, row, column]; ``label``; ``pixel_size``, Å/px; ``index`` of the
            crystal. With `targets` also ``mask``, bool [row, column], and ``atoms``, float32 (n, 3): x, y
            (px) and atomic number, for which a loader needs a ``collate_fn``.
        """
        places = np.asarray(indices, dtype=np.int64)
        if places.size and not (places.min() >= 0 and places.max() < len(self)):
            raise IndexError(f"there are {len(self)} images an epoch, not {int(places.max()) + 1}")
        which = places % len(self.crystals)
        draws = draw(self.crystals, self.render, self.seed, int(self._epoch[0]), places, which)
        images = torch.from_numpy(render_quietly(self.crystals, self.render, draws)).float()
        if self.render.bits:
            images /= 255
        items = []
        for k, crystal in enumerate(which.tolist()):
            item: dict[str, Any] = {
                "image": images[k][None],
                "label": int(self.crystals.labels[crystal]),
                "pixel_size": float(draws.pixel_size[k]),
                "index": crystal,
            }
            if self.targets:
                mask, atoms = image_targets(self.crystals, self.render, draws, k, self.mask_radius)
                item |= {"mask": torch.from_numpy(mask), "atoms": torch.from_numpy(atoms)}
            items.append(item)
        return items
