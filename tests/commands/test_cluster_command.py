"""`atomvision cluster`: one picture, the figures, clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from atomvision_hub.cli import app
from atomvision_hub.data.build import BuildOptions
from atomvision_hub.data.builders import load_builder
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.inference.embeddings import embed_images
from atomvision_hub.models import Alignn, Autoencoder


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["cluster", *map(str, words)], prog_name="atomvision")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "stem2d"
    load_builder("stem2d").build(
        BuildOptions(dataset="stem2d", sources=["reference"], out=folder, configs=["rotated"])
    )
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "codes"
    Autoencoder(latent=6, size=32, width=8, blocks=1).save_pretrained(folder)
    return folder


def test_maps_and_figures(dataset: Path, autoencoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps.png"
    words = (dataset, "-c", "rotated", "--split", "train", "--limit", 20, "--model", autoencoder, "-o", out)
    told = _run(*words, "--json")
    assert told.exit_code == 0, told.output
    maps = json.loads(told.stdout)["maps"]
    assert list(maps) == sorted(["pixels", "bond angles", "shipped classifier", "codes"])
    assert {name: one["dimensions"] for name, one in maps.items()} == {
        "pixels": 4096,
        "bond angles": 200,
        "shipped classifier": 256,
        "codes": 6,
    }
    for one in maps.values():
        assert one["n"] == 20
        assert 0 <= one["agreement_map"] <= 1
        assert 0 < one["chance"] < 1
    # The lattice is in the angles, not in the pixels of images that lie anyhow.
    assert maps["shipped classifier"]["agreement_features"] > maps["pixels"]["agreement_features"]
    with Image.open(out) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 3 * drawn.height
    first = out.read_bytes()
    again = _run(*words)
    assert again.exit_code == 0
    assert "trust" in again.stdout
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "map.svg"], "--out is a PNG, not map.svg; write map.png"),
        (["--label", "formula"], "no class column 'formula'; --label may be: lattice"),
        (["-c", "default"], "default"),
        (["--split", "validation"], "a map needs 12 or more"),
        (["--split", "train", "--tiny", "--model", "nowhere/at-all"], "nowhere/at-all cannot be loaded"),
    ],
)
def test_errors_are_one_line(dataset: Path, tmp_path: Path, words: list[str], message: str) -> None:
    config = [] if "-c" in words else ["-c", "rotated"]
    out = [] if "-o" in words else ["-o", tmp_path / "map.png"]
    told = _run(dataset, *config, *out, *words)
    assert told.exit_code in {1, 2}
    assert message in told.stderr
    assert len([line for line in told.stderr.splitlines() if line.startswith("error:")]) == 1
    assert not list(tmp_path.glob("*.png"))


def test_features_of_each_kind_of_model(autoencoder: Path, tmp_path: Path) -> None:
    """Batches change nothing; every kind gives what its own network says."""
    images = [np.random.default_rng(seed).integers(0, 256, (48, 60), dtype=np.uint8) for seed in range(3)]
    codes = embed_images(images, autoencoder)
    model = Autoencoder.from_pretrained(autoencoder)
    with torch.inference_mode():
        one = model.encode(model.prepare(torch.from_numpy(images[1])[None, None].float() / 255))
    assert np.allclose(codes[1], one[0].numpy(), atol=1e-5)
    assert embed_images(images).shape == (3, 256)
    torch.manual_seed(0)
    Alignn(classes=5, hidden=16, embedding=8, layers=1, graph_layers=1, bins=8).save_pretrained(
        tmp_path / "graphs"
    )
    assert embed_images(images, tmp_path / "graphs", pixel_sizes=[(0.2, 0.2)] * 3).shape == (3, 16)


def test_models_without_features_are_refused(tmp_path: Path) -> None:
    image = np.zeros((40, 40), np.uint8)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segmenter"}))
    with pytest.raises(AtomVisionError, match="is a 'segmenter', which gives no features"):
        embed_images([image], tmp_path)
    with pytest.raises(UsageError, match="no images to embed"):
        embed_images([])
