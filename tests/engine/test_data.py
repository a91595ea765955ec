"""Labelled images: folders, splits, decoding, mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atomvision_hub.engine import data
from atomvision_hub.engine.config import DataConfig, LabelledData
from atomvision_hub.errors import AtomVisionError, UsageError

PREPROCESSING = {
    "input_size": [3, 32, 32],
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bilinear",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def make(root: Path, counts: dict[str, int], mode: str = "L") -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new(mode, (40, 40), index).save(root / name / f"{index}.png")
    return root


def test_folders_are_split_stratified_and_seeded(tmp_path: Path) -> None:
    config = LabelledData(
        train_dir=make(tmp_path / "train", {"b": 20, "a": 10, "c": 2}),
        test_dir=make(tmp_path / "test", {"a": 3, "c": 1}),
        validation_fraction=0.2,
    )
    source = data.open_source(config, seed=1)
    assert source.classes == ("a", "b", "c")
    counts = {name: np.bincount(rows.labels, minlength=3).tolist() for name, rows in source.splits.items()}
    assert counts == {"train": [8, 16, 1], "validation": [2, 4, 1], "test": [3, 0, 1]}
    files = {name: list(rows.encoded()) for name, rows in source.splits.items()}
    assert not set(files["train"]) & set(files["validation"])
    again = data.open_source(config, seed=1)
    assert list(again.splits["validation"].encoded()) == files["validation"]
    other = data.open_source(config, seed=2)
    assert list(other.splits["validation"].encoded()) != files["validation"]


def test_mistakes_name_the_remedy(tmp_path: Path) -> None:
    train, test = make(tmp_path / "train", {"a": 4, "b": 4}), make(tmp_path / "test", {"z": 1})
    with pytest.raises(UsageError, match=r"classes that .* lacks: z"):
        data.open_source(LabelledData(train_dir=train, test_dir=test), seed=0)
    with pytest.raises(UsageError, match="belong together"):
        data.open_source(LabelledData(train_dir=train), seed=0)
    with pytest.raises(UsageError, match="there is no folder"):
        data.open_source(LabelledData(train_dir=train, test_dir=tmp_path / "no"), seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no class folders with images"):
        data.open_source(LabelledData(train_dir=train, test_dir=tmp_path / "empty"), seed=0)
    with pytest.raises(UsageError, match=r"say which version: data\.revision=vX\.Y\.Z"):
        data.open_source(LabelledData(path="atomvision/stem2d"), seed=0)
    with pytest.raises(UsageError, match=r"no data: --set data\.path"):
        data.open_source(LabelledData(), seed=0)


def test_large_splits_go_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "train", {"a": 3, "b": 3})
    rows = data.Rows(sorted(source.rglob("*.png")).__iter__, np.zeros(6, np.int64))
    small = data.decode_for_training(rows, 32, tmp_path)
    monkeypatch.setattr(data, "MEMORY_LIMIT", 100)
    rows = data.Rows(sorted(source.rglob("*.png")).__iter__, np.zeros(6, np.int64))
    large = data.decode_for_training(rows, 32, tmp_path / "scratch")
    assert isinstance(large.images, np.memmap)
    assert np.array_equal(small.images, large.images)
    assert not list((tmp_path / "scratch").iterdir())


def test_colour_after_grey_and_broken_files(tmp_path: Path) -> None:
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    Image.new("L", (50, 40), 7).save(files[0])
    Image.new("RGB", (40, 50), (1, 2, 3)).save(files[1])
    rows = data.Rows(files.__iter__, np.zeros(2, np.int64))
    found = data.decode_for_evaluation(rows, PREPROCESSING, tmp_path).images
    assert found[:, :, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]
    files[1].write_bytes(b"GIF89a")
    with pytest.raises(AtomVisionError, match=r"1\.png cannot be read as an image"):
        data.decode_for_evaluation(data.Rows(files.__iter__, rows.labels), PREPROCESSING, tmp_path)


def test_evaluation_sees_what_the_processor_sees(tmp_path: Path) -> None:
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    values = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(values).save(path)
    found = data.decode_for_evaluation(
        data.Rows([path].__iter__, np.zeros(1, np.int64)), PREPROCESSING, tmp_path
    ).images
    processor = TimmWrapperImageProcessor(PREPROCESSING)
    expected = processor(Image.open(path).convert("RGB"))["pixel_values"]
    assert np.allclose((found / 255 - 0.5) / 0.5, expected[:, :1], atol=1e-6)


def test_plain_folders_need_no_classes(tmp_path: Path) -> None:
    config = DataConfig(
        train_dir=make(tmp_path / "train", {"b": 6, "a/deep": 4}), test_dir=make(tmp_path / "test", {"": 3})
    )
    source = data.open_source(config, seed=1)
    assert source.classes == ()
    assert {name: len(rows) for name, rows in source.splits.items()} == {
        "train": 9,
        "validation": 1,
        "test": 3,
    }
    assert not any(rows.labels.any() for rows in source.splits.values())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no images"):
        data.open_source(config.model_copy(update={"test_dir": tmp_path / "empty"}), seed=1)
