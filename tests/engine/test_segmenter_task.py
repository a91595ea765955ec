"""What segmenters are trained and judged with: batches, folders of masks, loss, thresholds, peers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.filters import threshold_otsu

from atomvision_hub.engine.config import validate_config
from atomvision_hub.engine.scenes import Scenes, decode
from atomvision_hub.engine.tasks.segmenter import (
    BINS,
    Batches,
    Condition,
    Crops,
    Loss,
    SegmenterConfig,
    SegmenterData,
    SegmenterTraining,
    accuracy,
    best_threshold,
    histograms,
    iou,
    log_loss,
    open_scenes,
    outcomes,
)
from atomvision_hub.engine.tasks.segmenter_report import Otsu, interval
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.simulation.psf import GaussianPSF

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    """Ten images of random grey levels with twenty atoms each."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.rand(10, 20, 3, generator=generator) * 64
    return Scenes(
        torch.randint(0, 256, (10, 64, 64), generator=generator, dtype=torch.uint8),
        torch.tensor([[1.0, 0.0]]).repeat(10, 1),
        torch.full((10,), 0.1, dtype=torch.float64),
        atoms,
        None,
        GaussianPSF(0.5),
        np.arange(10),
    )


def process(index: int, of: int) -> SimpleNamespace:
    return SimpleNamespace(device=CPU, num_processes=of, process_index=index)


def test_batches_do_not_depend_on_the_number_of_processes(scenes: Scenes) -> None:
    config = SegmenterTraining(batch_size=4, crop=32, noise_free=0.3)
    crops = Crops.fit(64, config)

    def epoch(index: int, of: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = Batches(scenes, crops, (0.5, 0.7), config, process(index, of))
        assert len(batches) == 2
        return list(batches.epoch(3))

    alone, first, second = epoch(0, 1), epoch(0, 2), epoch(1, 2)
    for (images, masks), one, two in zip(alone, first, second, strict=True):
        assert images.shape == (4, 1, 32, 32)
        assert masks.shape == (4, 2, 32, 32)
        torch.testing.assert_close(torch.cat([one[0], two[0]]), images, atol=1.5 / 255, rtol=0)
        assert torch.equal(torch.cat([one[1], two[1]]), masks)
    again = epoch(0, 1)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(alone, again, strict=True))
    other = next(Batches(scenes, crops, (0.5, 0.7), config, process(0, 1)).epoch(4))
    assert not torch.equal(other[0], alone[0][0])


def test_crops_fit_into_small_images() -> None:
    config = SegmenterTraining(crop=128, zoom=(0.5, 2.0))
    assert Crops.fit(256, config) == Crops(128, (0.5, 2.0))
    assert Crops.fit(160, config) == Crops(128, (0.5, 1.25))
    assert Crops.fit(100, config) == Crops(96, (0.5, 100 / 96))
    with pytest.raises(UsageError, match="at least 32 are needed"):
        Crops.fit(31, config)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UsageError, match=r"zoom must be \[smallest, largest\]"):
        validate_config({"training": {"zoom": [2, 1]}}, "test", SegmenterConfig)
    with pytest.raises(UsageError, match=r"training\.crop"):
        validate_config({"training": {"crop": 100}}, "test", SegmenterConfig)


def write_pairs(folder: Path, count: int, suffix: str = ".png") -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        levels = np.zeros((40, 48 if index % 2 else 40), np.uint8)
        levels[10 + index : 20 + index, 5:20] = 200
        Image.fromarray(levels).save(folder / "images" / f"{index}.png")
        Image.fromarray(levels // 200).save(folder / "masks" / f"{index}{suffix}")


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 6)
    write_pairs(tmp_path / "test", 3, ".tif")
    config = SegmenterData(train_dir=tmp_path / "train", test_dir=tmp_path / "test")
    source = open_scenes(config, seed=0, limit=None)
    assert {name: len(rows) for name, rows in source.splits.items()} == {
        "train": 5,
        "validation": 1,
        "test": 3,
    }
    assert source.facts["dataset"] == "train + test"
    groups = decode(source.splits["test"], CPU)
    assert [group.shape for group in groups] == [(40, 40), (40, 48)]
    assert torch.equal(groups[1].distance > 0, groups[1].images > 100)
    before = source.facts["manifest_sha256"]
    Image.new("L", (40, 40)).save(tmp_path / "train" / "masks" / "0.png")
    assert open_scenes(config, seed=0, limit=None).facts["manifest_sha256"] != before


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 4)
    write_pairs(tmp_path / "test", 2)
    config = SegmenterData(train_dir=tmp_path / "train", test_dir=tmp_path / "test")
    Image.new("L", (8, 8)).save(tmp_path / "test" / "masks" / "1.png")
    source = open_scenes(config, seed=0, limit=None)
    with pytest.raises(UsageError, match=r"1\.png has \(8, 8\) pixels, its image \(40, 48\)"):
        decode(source.splits["test"], CPU)
    (tmp_path / "test" / "masks" / "1.png").unlink()
    with pytest.raises(UsageError, match=r"1\.png has no masks .*masks/1\.\*"):
        open_scenes(config, seed=0, limit=None)
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="has no folder masks"):
        open_scenes(config.model_copy(update={"test_dir": tmp_path / "empty"}), seed=0, limit=None)
    with pytest.raises(AtomVisionError, match="belong together"):
        open_scenes(config.model_copy(update={"test_dir": None}), seed=0, limit=None)


@pytest.mark.parametrize("kind", ["bce", "focal", "dice", "bce_dice"])
def test_loss_falls_towards_the_truth(kind: str) -> None:
    masks = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.7
    logits = (2 * masks.float() - 1).requires_grad_()
    criterion = Loss(kind)
    losses = [float(criterion(scale * logits, masks).detach()) for scale in (-1, 0, 1, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01
    # A mean over images: what two processes see of a batch averages to the whole.
    halves = [criterion(logits[part], masks[part]) for part in (slice(0, 1), slice(1, 3))]
    assert float((halves[0] + 2 * halves[1]) / 3) == pytest.approx(float(criterion(logits, masks)), rel=1e-5)
    if kind == "bce":
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks.float())
        assert float(criterion(logits, masks)) == pytest.approx(float(bce))


def test_histograms_give_the_scores_at_any_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(4, 2, 30, 20, generator=generator)
    masks = torch.rand(4, 2, 30, 20, generator=generator) < chances
    counts = histograms(chances, masks)
    assert counts.shape == (4, 2, 2, BINS)
    for threshold in (0.1, 0.5, 0.83):
        found = outcomes(counts, threshold)[:, 1]
        called = chances[:, 1] >= threshold
        truth = masks[:, 1]
        assert accuracy(found) == pytest.approx(float((called == truth).float().mean()))
        expected = float((called & truth).sum() / (called | truth).sum())
        assert iou(found) == pytest.approx(expected)
    direct = torch.nn.functional.binary_cross_entropy(chances, masks.float())
    assert log_loss(counts) == pytest.approx(float(direct), abs=2e-3)


def test_threshold_with_the_largest_iou_is_chosen() -> None:
    chances = torch.tensor([0.2, 0.42, 0.45, 0.9]).view(1, 1, 1, 4)
    masks = torch.tensor([False, False, True, True]).view(1, 1, 1, 4)
    chosen = best_threshold([histograms(chances, masks)])
    assert 0.42 < chosen <= 0.45
    assert iou(outcomes(histograms(chances, masks), chosen)[:, 0]) == 1
    assert iou(np.array([[0.0, 0.0, 0.0, 9.0]])) == 1


def test_otsu_agrees_with_scikit_image() -> None:
    generator = np.random.default_rng(0)
    levels = np.where(generator.random((3, 40, 50)) < 0.3, 170, 60) + generator.normal(0, 20, (3, 40, 50))
    levels = levels.clip(0, 255).round().astype(np.uint8)
    answer = Otsu(2)(torch.from_numpy(levels)[:, None].float() / 255)
    assert answer.shape == (3, 2, 40, 50)
    for ours, image in zip(answer[:, 0].numpy() > 0, levels, strict=True):
        assert np.array_equal(ours, image > threshold_otsu(image))


def test_interval_holds_the_value_and_widens_with_groups() -> None:
    generator = np.random.default_rng(1)
    hits = generator.binomial(100, generator.uniform(0.7, 1, 60))
    found = np.stack([hits, 0 * hits, 100 - hits, 0 * hits], 1).astype(float)
    low, high = interval(found, iou, list(range(60)))
    assert low < iou(found) < high
    wide = interval(found, iou, [index // 10 for index in range(60)])
    assert wide[1] - wide[0] != high - low
    assert interval(found, iou, list(range(60))) == [low, high]


def test_views_of_test_images() -> None:
    assert Condition().view((30, 40)) == (None, (30, 40))
    transform, shape = Condition(zoom=0.5).view((64, 64))
    assert shape == (64, 64)
    assert transform is not None
    torch.testing.assert_close(transform[0], torch.tensor([[0.5, 0, 0], [0, 0.5, 0]]))
    assert Condition(zoom=2.0).view((64, 64))[1] == (32, 32)
    transform, shape = Condition(degrees=45).view((64, 64))
    assert shape == (45, 45)
    assert transform is not None
    # The corners of the turned view still lie in the image.
    assert float(transform[0, :, :2].abs().sum(1).max()) <= 1
    assert float(transform[0, :, 0].norm()) == pytest.approx(45 / 64)
    assert math.isinf(Condition().dose)
