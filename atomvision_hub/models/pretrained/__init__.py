"""Models that ship inside the package, as folders that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

#: The classifier of lattices that `predict` asks when it is given none.
DEFAULT_LATTICE = "lattice-network"
#: A small classifier of images by their look alone: features for maps, a second opinion for `analyze`.
DEFAULT_CLASSIFIER = "lattice-classifier-small"
#: The classifier of columns of atoms.
DEFAULT_GRAPH_CLASSIFIER = "lattice-graph-classifier"
#: The segmenter that `analyze` asks when it is given none.
DEFAULT_SEGMENTER = "atom-segmenter-small"
#: The super-resolution network that `restore` asks.
DEFAULT_SUPER_RESOLUTION = "srgan-physical-mse"

#: Whose weights lie beside their cards, and in the wheel here.
_BESIDE_CARDS = (DEFAULT_LATTICE, DEFAULT_SUPER_RESOLUTION)
_CARDS = Path(__file__).resolve().parents[3] / "model_cards"


def pretrained_folder(name: str) -> Path:
    """Return the folder of a shipped model."""
    inside = Path(__file__).with_name(name)
    beside = _CARDS / name
    return beside if name in _BESIDE_CARDS and not inside.is_dir() else inside
