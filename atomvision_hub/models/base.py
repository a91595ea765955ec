"""What all networks share: a folder with `config.json` and `model.safetensors`, and checked inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atomvision_hub._files import atomic_path, write_json
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: Modules of this package by the kind that `config.json` names; imported when such a model is loaded.
_HOMES = {
    "segmenter": "segmenter",
    "alignn": "alignn",
    "super_resolution": "super_resolution",
    "autoencoder": "autoencoder",
    "vae": "autoencoder",
}
_CLASSES: dict[str, type[HubModel]] = {}


class HubModel(nn.Module):
    """A network that `from_pretrained` gives back from a folder or a repository on the Hub.

    Parameters
    ----------
    arguments
        Keyword arguments of the subclass that make the same network again; JSON values.
    known
        What travels with the weights: ``pixel_size`` and ``field_of_view`` seen in training (smallest and
        largest, Å/px and Å), normalisation, ``labels``, ...; JSON values.
    """

    #: Name of the kind in `config.json`.
    kind: ClassVar[str]
    #: The Hub's ``pipeline_tag``.
    task: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in cls.__dict__:
            _CLASSES[cls.kind] = cls

    def __init__(self, *, arguments: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.arguments = dict(arguments)
        self.known: dict[str, Any] = dict(known or {})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / CONFIG,
            {
                "model_type": self.kind,
                "library": "atomvision-hub",
                "arguments": self.arguments,
                "known": self.known,
            },
        )
        tensors = {
            name: value.detach().cpu().contiguous().clone() for name, value in self.state_dict().items()
        }
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        # safetensors writes for its owner alone; others may read a model, as they may its configuration.
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode & 0o777)

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> Self:
        """Return the network of a folder or a Hub repository, in evaluation mode, on the CPU.

        Parameters
        ----------
        model
            Folder, or id on the Hub.
        revision
            Tag or commit on the Hub; ignored for a folder.
        token
            Of the Hub; that of the logged-in user by default.

        Raises
        ------
        AtomVisionError
            When it is missing, damaged, of another kind, or its weights are not safetensors.
        NetworkNeededError
            When the Hub cannot be asked.
        """
        loaded = _load(model, revision, token, cls if "kind" in cls.__dict__ else None)
        assert isinstance(loaded, cls)
        return loaded


def load_model(
    model: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> HubModel:
    """Return any network of ours; its ``config.json`` says which. Errors as of `HubModel.from_pretrained`."""
    return _load(model, revision, token, None)


def _load(
    model: str | Path, revision: str | None, token: str | bool | None, wanted: type[HubModel] | None
) -> HubModel:
    config_path = _fetch(model, CONFIG, revision, token)
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        kind, arguments, known = config["model_type"], config["arguments"], config["known"]
    except (ValueError, KeyError, TypeError):
        raise AtomVisionError(f"{model} is no model of this package: its {CONFIG} names no kind") from None
    if kind not in _HOMES:
        raise AtomVisionError(f"{model} is a {kind!r}; known kinds are: {', '.join(sorted(_HOMES))}")
    from importlib import import_module

    import_module(f"atomvision_hub.models.{_HOMES[kind]}")
    found: Any = _CLASSES[kind]
    if wanted is not None and found is not wanted:
        raise AtomVisionError(f"{model} is a {kind}, not a {wanted.kind}; load it with {found.__name__}")
    weights = _fetch(model, WEIGHTS, revision, token)
    try:
        network: HubModel = found(**arguments, known=known)
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, TypeError) as problem:
        reason = str(problem).splitlines()[0]
        raise AtomVisionError(f"the weights of {model} do not fit or are damaged: {reason}") from None
    return network.eval()


def _fetch(model: str | Path, name: str, revision: str | None, token: str | bool | None) -> Path:
    folder = Path(model)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise AtomVisionError(f"{model} holds no model (no {name}); give the folder of a finished run")
        return folder / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(str(model), name, revision=revision, token=token))
    except HFValidationError:
        raise AtomVisionError(f"there is no folder {model}, and it is no id on the Hub (ORG/NAME)") from None
    except RevisionNotFoundError:
        raise AtomVisionError(f"{model} has no revision {revision} on the Hub") from None
    except RepositoryNotFoundError:
        raise AtomVisionError(
            f"there is no folder {model} and no such repository on the Hub that you may read"
        ) from None
    except LocalEntryNotFoundError:
        raise NetworkNeededError(
            f"{model} is not in the cache and the Hub cannot be reached; connect, or give a folder"
        ) from None
    except EntryNotFoundError:
        raise AtomVisionError(f"{model} on the Hub holds no {name}; only safetensors are loaded") from None


def check_images(images: Tensor, name: str, *, channels: int = 1, multiple: int = 1) -> None:
    """Refuse what is no batch of grey images, in one line that says what would fit.

    Parameters
    ----------
    images
        Float [batch, channel, row, column], values 0..1.
    name
        Of the model, for the message.
    channels
        Number of channels that is wanted.
    multiple
        What rows and columns must be multiples of.

    Raises
    ------
    UsageError
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != channels:
        raise UsageError(
            f"{name} takes images [batch, {channels}, row, column], not of shape {shape}"
            + ("; add the axes with image[None, None]" if len(shape) == 2 else "")
        )
    if not images.is_floating_point():
        raise UsageError(f"{name} takes float images with values 0..1, not {images.dtype}; divide by 255")
    if 0 in shape:
        raise UsageError(f"{name} got an empty batch of shape {shape}")
    if shape[2] % multiple or shape[3] % multiple:
        fit = tuple(-(-side // multiple) * multiple for side in shape[2:])
        raise UsageError(
            f"{name} takes rows and columns in multiples of {multiple}, not {shape[2]} x {shape[3]}; "
            f"pad to {fit[0]} x {fit[1]}"
        )
    if torch.compiler.is_compiling():
        return
    low, high = (float(value) for value in images.detach().aminmax())
    # Resampling may overshoot a little; 255 is a forgotten division.
    if not (low >= -1 and high <= 2):
        raise UsageError(f"{name} takes finite grey levels 0..1, these go from {low:.3g} to {high:.3g}")
