"""Checkpoints without pickle: tensors as safetensors, everything else as JSON.

The JSON file is written last and names the tensor files, so an interruption leaves the previous checkpoint
whole. Randomness needs no place here: what is random in an epoch follows from the seed and its number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atomvision_hub._files import atomic_path, write_json
from atomvision_hub.errors import AtomVisionError

_STATE = "state.json"


class Checkpoints:
    """The last and the best state of a run, in a folder.

    Parameters
    ----------
    folder
        Where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Return whether there is anything to resume."""
        return (self.folder / _STATE).is_file()

    def save(
        self,
        epoch: int,
        progress: dict[str, Any],
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        averaged: torch.nn.Module | None,
        best: torch.nn.Module | None,
    ) -> None:
        """Write the state after `epoch`; `best` is the network to keep when it is the best so far."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        if averaged is not None:
            tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
        state = optimizer.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            for name, value in entries.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
                else:
                    numbers.setdefault(str(index), {})[name] = value
        last = f"last-{epoch:04d}.safetensors"
        _write(self.folder / last, tensors)
        kept = json.loads((self.folder / _STATE).read_text())["best"] if self.exists() else None
        if best is not None:
            kept = f"best-{epoch:04d}.safetensors"
            _write(self.folder / kept, best.state_dict())
        content = {
            "epoch": epoch,
            "progress": progress,
            "last": last,
            "best": kept,
            "param_groups": state["param_groups"],
            "optimizer_numbers": numbers,
        }
        write_json(self.folder / _STATE, content)
        for path in self.folder.glob("*.safetensors"):
            if path.name not in {last, kept}:
                path.unlink()

    def load(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, averaged: torch.nn.Module | None
    ) -> tuple[int, dict[str, Any]]:
        """Restore the last state; return the finished epoch and the progress."""
        content = self._content()
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "averaged": {}, "optimizer": {}}
        for name, value in self._tensors(content["last"]).items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        model.load_state_dict(parts["model"])
        if averaged is not None:
            averaged.load_state_dict(parts["averaged"])
        state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in content["optimizer_numbers"].items()}
        for name, value in parts["optimizer"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
        return int(content["epoch"]), content["progress"]

    def load_best(self, model: torch.nn.Module) -> None:
        """Put the best weights into `model`."""
        model.load_state_dict(self._tensors(self._content()["best"]))

    def _content(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except ValueError:
            raise AtomVisionError(
                f"{self.folder / _STATE} is damaged; remove the folder and start again"
            ) from None
        return content

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        try:
            tensors: dict[str, torch.Tensor] = load_file(self.folder / name)
        except (OSError, SafetensorError) as problem:
            raise AtomVisionError(
                f"{self.folder / name} is damaged ({problem}); start again in another folder"
            ) from None
        return tensors


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(copies, temporary)
