"""Classifiers: saved and loaded by transformers alone, any timm network, clear mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models.classifier import make_classifier
from atomvision_hub.models.images import to_8bit

LABELS = ["hexagonal", "square", "oblique"]


@pytest.mark.parametrize("architecture", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_round_trip_through_transformers(architecture: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = make_classifier(architecture, LABELS, input_size=64, mean=0.3, std=0.2, atomvision={"x": [1, 2]})
    assert model.training
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    images = torch.rand(2, 3, 64, 64)
    # Kernels may differ in the last bit from call to call.
    torch.testing.assert_close(model(images).logits, loaded(images).logits, rtol=1e-5, atol=1e-6)
    assert loaded.config.id2label == dict(enumerate(LABELS))
    assert loaded.config.atomvision == {"x": [1, 2]}
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    found = processor(Image.new("RGB", (80, 200), (51, 51, 51)))["pixel_values"]
    assert found.shape == (1, 3, 64, 64)
    assert found.unique().item() == pytest.approx((0.2 - 0.3) / 0.2, abs=1e-6)


def test_starts_from_the_weights_timm_draws() -> None:
    torch.manual_seed(0)
    ours = make_classifier("test_resnet", LABELS, input_size=32).timm_model.state_dict()
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=3).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if "running" not in name)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UsageError, match=r"knows no model 'resnet10'; near: .*resnet10t"):
        make_classifier("resnet10", LABELS)
    with pytest.raises(UsageError, match=r"model\.args do not fit test_resnet"):
        make_classifier("test_resnet", LABELS, args={"no_such": 1})
    with pytest.raises(UsageError, match=r"does not take images of 48 x 48: .*; set model\.input_size"):
        make_classifier("test_vit", LABELS, input_size=48, args={"dynamic_img_size": False})


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_scaled_not_clipped(dtype: type) -> None:
    values = np.linspace(100, 4100, 64).reshape(8, 8).astype(dtype)
    found = np.asarray(to_8bit(Image.fromarray(values)))
    assert (found.min(), found.max()) == (0, 255)
    assert len(np.unique(found)) == 64


def test_eight_bit_images_keep_their_values() -> None:
    for mode, kept in (("L", "L"), ("RGB", "RGB"), ("LA", "L"), ("RGBA", "RGB"), ("1", "L"), ("P", "RGB")):
        assert to_8bit(Image.new(mode, (4, 4))).mode == kept
    assert np.asarray(to_8bit(Image.new("L", (4, 4), 7))).max() == 7


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AtomVisionError, match="not finite"):
        to_8bit(Image.fromarray(np.full((4, 4), np.nan, np.float32)))
