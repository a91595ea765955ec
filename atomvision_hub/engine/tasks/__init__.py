"""One module a task: its configuration, how its data become batches, how it is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomvision_hub.engine.config import RunConfig

#: Task -> name of its configuration, in the module of the task's name.
TASKS = {
    "classifier": "ClassifierConfig",
    "segmenter": "SegmenterConfig",
    "alignn": "AlignnConfig",
    "srgan": "SrganConfig",
    "autoencoder": "AutoencoderConfig",
    "lattice": "LatticeRunConfig",
}


def config_model(task: str) -> type[RunConfig]:
    """Return the configuration class of a task."""
    from importlib import import_module

    found: type[RunConfig] = getattr(import_module(f"{__name__}.{task}"), TASKS[task])
    return found
