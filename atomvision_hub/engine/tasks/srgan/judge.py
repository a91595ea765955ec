"""Super-resolution: the same low-resolution images for every network that is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator

from atomvision_hub.engine.loop import gather_rows
from atomvision_hub.engine.tasks.srgan.batches import Prepared, draw_doses
from atomvision_hub.engine.tasks.srgan.config import SrganTraining
from atomvision_hub.engine.tasks.srgan.losses import answer, psnr
from atomvision_hub.models.perceptual import Content


class Judge:
    """Low-resolution images of a split, made once with fixed noise, and the answers of networks to them.

    Parameters
    ----------
    data
        The split.
    seed
        Of doses and noise.
    dose
        One dose for all rows instead of the configuration's range.
    """

    def __init__(
        self,
        data: Prepared,
        config: SrganTraining,
        accelerator: Accelerator,
        *,
        seed: int,
        dose: float | None = None,
        batch_size: int = 32,
    ) -> None:
        self.data, self.accelerator, self.batch_size = data, accelerator, batch_size
        device = accelerator.device
        generator = torch.Generator().manual_seed(seed)
        self.doses = draw_doses(len(data), config, generator)
        if dose is not None:
            self.doses.fill_(dose)
        noise = torch.Generator(device).manual_seed(seed)
        low = []
        for start in range(0, len(data), batch_size):
            rows = torch.arange(start, min(start + batch_size, len(data)), device=device)
            low.append(data.low(rows, self._truth(rows), self.doses[rows.cpu()].to(device), noise))
        self.images = torch.cat(low)

    def _truth(self, rows: torch.Tensor) -> torch.Tensor:
        return self.data.images[rows].float().div(255)

    def scores(self, model: torch.nn.Module, content: Content) -> dict[str, float]:
        """Return the mean PSNR (dB) and content loss of a network's answers."""

        def both(picked: npt.NDArray[np.int64]) -> torch.Tensor:
            rows = torch.from_numpy(picked).to(self.accelerator.device)
            with self.accelerator.autocast():
                made, truth = answer(model, self.images[rows]), self._truth(rows)
                return torch.stack([psnr(made, truth), content(made, truth)], dim=1)

        means = self._gather(model, both).double().mean(0).tolist()
        return {"psnr": means[0], "content": means[1]}

    def answers(self, model: torch.nn.Module) -> npt.NDArray[np.float32]:
        """Return a network's answers in single precision, grey 0..1 [n, row, column], on every process."""

        def one(picked: npt.NDArray[np.int64]) -> torch.Tensor:
            rows = torch.from_numpy(picked).to(self.accelerator.device)
            return answer(model, self.images[rows])[:, 0].clamp(0, 1)

        return self._gather(model, one).numpy()

    def low(self) -> npt.NDArray[np.float32]:
        """Return the low-resolution images [n, row, column]."""
        return self.images[:, 0].cpu().numpy()

    def truth(self) -> npt.NDArray[np.float32]:
        """Return the high-resolution images [n, row, column], grey 0..1."""
        return self.data.images[:, 0].float().div(255).cpu().numpy()

    def _gather(self, model: torch.nn.Module, function: Any) -> torch.Tensor:
        was_training = model.training
        model.eval()
        found = gather_rows(function, len(self.data), self.accelerator, self.batch_size)
        model.train(was_training)
        return found
