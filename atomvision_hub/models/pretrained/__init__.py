"""Models that ship inside the package, as folders that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

#: The classifier of images that `predict` asks when it is given none.
DEFAULT_CLASSIFIER = "lattice-classifier-small"
#: The classifier of columns of atoms.
DEFAULT_GRAPH_CLASSIFIER = "lattice-graph-classifier"
#: The segmenter that `analyze` asks when it is given none.
DEFAULT_SEGMENTER = "atom-segmenter-small"


def pretrained_folder(name: str) -> Path:
    """Return the folder of a shipped model."""
    return Path(__file__).with_name(name)
