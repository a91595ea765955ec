"""The lines that cards tell people to type: those of every model card, with its own weights."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from block_checks import check_python
from blocks import ROOT, blocks

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.models.pretrained import pretrained_folder
from atomvision_hub.simulation import to_grey

CARDS = [path.parent for path in sorted((ROOT / "model_cards").glob("*/README.md"))]
#: Cards whose weights ship in the package, under another name.
_SHIPPED = {
    "atom-segmenter": "atom-segmenter-small",
    "lattice-classifier-small": "lattice-classifier-small",
    "lattice-graph-classifier": "lattice-graph-classifier",
}
#: Cards without weights in the repository, and the one whose network is the same.
_SAME_NETWORK = {"alignn-legacy": "alignn", "lattice-classifier-legacy": "lattice-classifier-small"}


def _weights(card: Path) -> Path:
    name = _SAME_NETWORK.get(card.name, card.name)
    return pretrained_folder(_SHIPPED[name]) if name in _SHIPPED else ROOT / "model_cards" / name


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_lines_of_a_model_card_run(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(128, 128), pixel_size=0.1, rotation=20)
    grey = to_grey(frame.image)[0]
    Image.fromarray(grey).save("image.png")
    found = [block for block in blocks(card / "README.md") if block.language == "python"]
    assert found, f"{card.name} does not say how it is used"
    for block in found:
        check_python(block.code)
        code = block.code.replace("PATH_OR_ID", str(_weights(card)))
        # What the card calls the image of its reader.
        names = {"image": grey, "grey": grey.astype(np.float32) / 255, "__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, str(block), "exec"), names)
