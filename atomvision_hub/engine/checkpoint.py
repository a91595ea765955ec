"""Checkpoints without pickle: tensors as safetensors, everything else as JSON.

The JSON file is written last and names the tensor files, so an interruption leaves the previous checkpoint
whole. Randomness needs no place here: what is random in an epoch follows from the seed and its number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atomvision_hub._files import atomic_path, write_json
from atomvision_hub.errors import AtomVisionError

_STATE = "state.json"
_OPTIMIZER = "optimizer:"


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
        modules: Mapping[str, torch.nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        best: Mapping[str, torch.nn.Module] | None,
    ) -> None:
        """Write the state after `epoch`; `best` are the networks to keep when they are the best so far."""
        tensors = _named(modules)
        settings: dict[str, Any] = {}
        for title, optimizer in optimizers.items():
            state = optimizer.state_dict()
            numbers: dict[str, dict[str, Any]] = {}
            for index, entries in state["state"].items():
                for name, value in entries.items():
                    if isinstance(value, torch.Tensor):
                        tensors[f"{_OPTIMIZER}{title}.{index}.{name}"] = value
                    else:
                        numbers.setdefault(str(index), {})[name] = value
            settings[title] = {"param_groups": state["param_groups"], "numbers": numbers}
        last = f"last-{epoch:04d}.safetensors"
        _write(self.folder / last, tensors)
        kept = json.loads((self.folder / _STATE).read_text())["best"] if self.exists() else None
        if best is not None:
            kept = f"best-{epoch:04d}.safetensors"
            _write(self.folder / kept, _named(best))
        content = {"epoch": epoch, "progress": progress, "last": last, "best": kept, "optimizers": settings}
        write_json(self.folder / _STATE, content)
        for path in self.folder.glob("*.safetensors"):
            if path.name not in {last, kept}:
                path.unlink()

    def load(
        self, modules: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> tuple[int, dict[str, Any]]:
        """Restore the last state; return the finished epoch and the progress."""
        content = self._content()
        tensors = self._tensors(content["last"])
        _restore(modules, tensors)
        for title, optimizer in optimizers.items():
            settings = content["optimizers"][title]
            state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in settings["numbers"].items()}
            prefix = f"{_OPTIMIZER}{title}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, _, key = name.removeprefix(prefix).partition(".")
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": settings["param_groups"]})
        return int(content["epoch"]), content["progress"]

    def load_best(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """Put the best weights into `modules`."""
        _restore(modules, self._tensors(self._content()["best"]))

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


def _named(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    return {
        f"{title}.{name}": value
        for title, module in modules.items()
        for name, value in module.state_dict().items()
    }


def _restore(modules: Mapping[str, torch.nn.Module], tensors: Mapping[str, torch.Tensor]) -> None:
    for title, module in modules.items():
        prefix = f"{title}."
        module.load_state_dict(
            {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
        )


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(copies, temporary)
