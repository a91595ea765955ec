"""Augmentation keeps the label true: similarity transforms that never leave the image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.engine.augment import draw_transforms, sample

KINDS = ["none", "shift_mirror", "pose"]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**31), crop_min=st.floats(0.2, 1.0), kind=st.sampled_from(KINDS))
def test_no_point_leaves_the_image_and_shapes_stay(seed: int, crop_min: float, kind: str) -> None:
    found = draw_transforms(64, kind, crop_min, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    linear = found[:, :, :2].double()
    # Similarity: columns orthogonal and of one length, so angles and ratios of lengths are kept.
    gram = linear.transpose(1, 2) @ linear
    scale = gram[:, 0, 0]
    assert torch.allclose(gram, scale[:, None, None] * torch.eye(2, dtype=torch.float64), atol=1e-6)
    assert (scale.sqrt() >= crop_min - 1e-6).all() or kind == "none"
    assert (scale.sqrt() <= 1 + 1e-6).all()
    corners = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]).double()
    points = corners @ linear.transpose(1, 2) + found[:, None, :, 2].double()
    assert points.abs().max() <= 1 + 1e-6
    if kind == "shift_mirror":
        assert linear[:, 0, 1].abs().max() == 0


def test_pose_covers_all_angles_and_both_hands() -> None:
    found = draw_transforms(4000, "pose", 0.5, torch.Generator().manual_seed(0)).double()
    angle = torch.atan2(found[:, 1, 0], found[:, 0, 0])
    assert torch.histc(angle, 12, -torch.pi, torch.pi).min() > 100
    hands = torch.linalg.det(found[:, :, :2]) > 0
    assert 0.4 < hands.double().mean() < 0.6


def test_none_is_the_central_view_of_deployment() -> None:
    images = torch.rand(2, 1, 64, 64)
    found = sample(images, draw_transforms(2, "none", 0.5, torch.Generator()), 32)
    assert torch.allclose(found, torch.nn.functional.avg_pool2d(images, 2), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_same_stream_same_transforms(kind: str) -> None:
    first, second = (
        draw_transforms(5, kind, 0.6, torch.Generator().manual_seed(3))  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_wave_stays_the_same_wave() -> None:
    """A rotated, shifted crop of a plane wave is the wave at the transformed coordinates."""
    side = 128
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    image = torch.cos(9 * centres[None, :] + 4 * centres[:, None])
    transform = draw_transforms(6, "pose", 0.5, torch.Generator().manual_seed(1))
    found = sample(image.expand(6, 1, side, side), transform, 64)
    out = (torch.arange(64) + 0.5) / 64 * 2 - 1
    y, x = torch.meshgrid(out, out, indexing="ij")
    points = (
        torch.einsum("nij,jhw->nihw", transform[:, :, :2], torch.stack([x, y]))
        + transform[:, :, 2, None, None]
    )
    expected = torch.cos(9 * points[:, 0] + 4 * points[:, 1])
    assert (found[:, 0] - expected).abs().max() < 0.01
