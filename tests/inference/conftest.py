"""A classifier with calibration, untrained: what is tested here is the way to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atomvision_hub.models.classifier import make_classifier


@pytest.fixture(scope="session")
def calibrated_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a classifier that knows views of 15.36 to 25.6 Å."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    known = {"pixel_size": [0.1, 0.1], "field_of_view": [15.36, 25.6]}
    model = make_classifier(
        "test_resnet", ["hexagonal", "square", "oblique"], input_size=64, atomvision=known
    )
    # A wide head, so that different images get clearly different answers.
    torch.nn.init.normal_(model.timm_model.get_classifier().weight, std=1.0)
    model.eval().save_pretrained(folder)
    return folder
