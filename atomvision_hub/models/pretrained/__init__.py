"""Models that ship inside the package, as folders that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

#: The classifier of images that `predict` asks when it is given none.
DEFAULT_CLASSIFIER = "lattice-classifier-small"
#: The classifier of columns of atoms.
DEFAULT_GRAPH_CLASSIFIER = "lattice-graph-classifier"
#: The segmenter that `analyze` asks when it is given none.
DEFAULT_SEGMENTER = "atom-segmenter-small"
#: The super-resolution network that `restore` asks: its weights lie beside its card, and in the wheel here.
DEFAULT_SUPER_RESOLUTION = "srgan-physical"

_CARDS = Path(__file__).resolve().parents[3] / "model_cards"


def pretrained_folder(name: str) -> Path:
    """Return the folder of a shipped model."""
    inside = Path(__file__).with_name(name)
    beside = _CARDS / name
    return beside if name == DEFAULT_SUPER_RESOLUTION and not inside.is_dir() else inside
