"""The lattice network: a class of transformers that its pipeline runs as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atomvision_hub.errors import UsageError
from atomvision_hub.models.lattice_network import image_processor, make_lattice_network
from atomvision_hub.models.translations import Translations
from atomvision_hub.structures.record import LATTICES

SHAPE: dict[str, Any] = {
    "candidates": 8,
    "spanning": 5,
    "width": 16,
    "layers": 1,
    "heads": 2,
    "pair_width": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lattice") / "model"
    torch.manual_seed(0)
    make_lattice_network(LATTICES, atomvision={"pixel_size": [0.05, 0.25]}, **SHAPE).save_pretrained(path)
    image_processor(96).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    y, x = np.mgrid[:96, :96]
    grey = 127 + 60 * (np.cos(x / 1.9) + np.cos(y / 2.3))
    path = tmp_path_factory.mktemp("image") / "lattice.png"
    Image.fromarray(grey.astype(np.uint8)).save(path)
    return path


def test_pipeline_runs_it_without_remote_code(folder: Path, picture: Path) -> None:
    from transformers import AutoModelForImageClassification, pipeline

    classify = pipeline("image-classification", model=str(folder), top_k=5)
    answer = classify(str(picture))
    assert {entry["label"] for entry in answer} == set(LATTICES)
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    grey = torch.from_numpy(np.asarray(Image.open(picture)) / np.float32(255))
    chances = network(grey[None, None]).logits.softmax(-1)[0]
    for entry in answer:
        assert entry["score"] == pytest.approx(float(chances[LATTICES.index(entry["label"])]), abs=1e-4)
    config = json.loads((folder / "config.json").read_text())
    assert "auto_map" not in config
    assert config["atomvision"] == {"pixel_size": [0.05, 0.25]}


@pytest.mark.slow
def test_one_import_is_all_that_transformers_needs(folder: Path, picture: Path) -> None:
    code = (
        "import sys, atomvision_hub.models.lattice_network\n"
        "from transformers import pipeline\n"
        "print(pipeline('image-classification', model=sys.argv[1])(sys.argv[2])[0]['label'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(picture)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] in LATTICES


def test_larger_and_oblong_pictures_are_cropped_not_squashed(folder: Path) -> None:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    grey = np.tile(np.arange(96, dtype=np.uint8), (96, 1))
    same = processor(Image.fromarray(grey).convert("RGB"), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(same[0, 0], torch.from_numpy(grey) / 255, atol=1e-6, rtol=0)
    wide = processor(Image.new("RGB", (300, 192)), return_tensors="pt")["pixel_values"]
    assert wide.shape == (1, 3, 96, 96)


def test_order_of_candidates_does_not_matter_within_those_that_may_span() -> None:
    torch.manual_seed(0)
    network = make_lattice_network(LATTICES, **SHAPE).eval()
    found = network.translations(torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    order = torch.tensor([3, 1, 4, 0, 2, 7, 5, 6])
    mixed = Translations(
        found.vectors[:, order], found.features[:, order], found.valid[:, order], found.image
    )
    with torch.no_grad():
        torch.testing.assert_close(
            network.judge_translations(mixed), network.judge_translations(found), atol=1e-4, rtol=1e-4
        )


def test_hidden_candidates_are_not_seen() -> None:
    torch.manual_seed(0)
    network = make_lattice_network(LATTICES, **SHAPE).eval()
    found = network.translations(torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    valid = found.valid.clone()
    valid[:, 4:] = False
    moved = found.vectors.clone()
    moved[:, 4:] += 7
    with torch.no_grad():
        one, other = (
            network.judge_translations(Translations(vectors, found.features, valid, found.image))
            for vectors in (found.vectors, moved)
        )
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (1, 2, 64, 64), (1, 1, 16, 64), (0, 1, 64, 64)])
def test_wrong_images_are_one_line(shape: tuple[int, ...]) -> None:
    network = make_lattice_network(LATTICES, **SHAPE)
    with pytest.raises(UsageError, match="at least 32 x 32, not") as caught:
        network(torch.zeros(shape))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="pixel_values"):
        network()


@pytest.mark.parametrize(
    ("crystal", "lattice"),
    [("MoS2", "hexagonal"), ("FeSe", "square"), ("SnS", "centered_rectangular"), ("WTe2-1Tp", "rectangular")],
)
def test_trained_network_tells_real_crystals_through_the_pipeline(
    repository: Path, crystal: str, lattice: str
) -> None:
    """The weights beside their card, in a pose and at a pixel size that no training image had."""
    from transformers import pipeline

    from atomvision_hub import load_structures, simulate_stem
    from atomvision_hub.simulation import to_grey

    frame = simulate_stem(load_structures("reference")[crystal], rotation=31.7, pixel_size=0.137)
    classify = pipeline("image-classification", model=str(repository / "model_cards" / "lattice-network"))
    answer = classify(Image.fromarray(to_grey(frame.image)[0]))[0]
    assert answer["label"] == lattice
    assert answer["score"] > 0.9
