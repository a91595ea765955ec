"""Maps of feature vectors and their figures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from atomvision_hub.analysis.embedding import embed, label_agreement
from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.map_picture import maps_picture


def clouds(count: int = 90, apart: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of vectors with 60 numbers, and which one each belongs to."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    return generator.normal(size=(count, 60)) + apart * np.eye(60)[labels], labels


def test_map_keeps_clouds_apart() -> None:
    features, labels = clouds()
    found = embed(features, labels, perplexity=10, k=5)
    assert found.points.shape == (90, 2)
    assert found.before is not None
    assert found.after is not None
    assert found.before.value == 1
    assert found.after.value > 0.98
    assert found.before.chance == pytest.approx(29 / 89)
    assert found.trustworthiness > 0.75
    # Labels that say nothing agree by chance.
    shuffled = np.random.default_rng(1).permutation(labels)
    assert label_agreement(features, shuffled, k=5).value == pytest.approx(29 / 89, abs=0.08)


def test_map_is_seeded_and_follows_the_order_of_rows() -> None:
    features, labels = clouds(40)
    first, second = (embed(features, labels, perplexity=8, seed=3) for _ in range(2))
    assert np.array_equal(first.points, second.points)
    assert embed(features, None, perplexity=8).after is None


def test_few_points_take_fewer_neighbours() -> None:
    found = embed(np.random.default_rng(0).normal(size=(6, 4)), [0, 0, 0, 1, 1, 1])
    assert found.k == 1
    assert found.after is not None
    assert found.after.k == 1


def test_agreement_by_hand() -> None:
    """On a line 0, 1, 2, 10, 11 with labels a a b b b and one neighbour each."""
    points = np.array([[0.0], [1.0], [2.1], [10.0], [11.0]])
    found = label_agreement(points, ["a", "a", "b", "b", "b"], k=1)
    # 0->1 same, 1->0 same, 2.1->1 other, 10->11 same, 11->10 same.
    assert found.value == pytest.approx(4 / 5)
    assert found.chance == pytest.approx((2 * 1 + 3 * 2) / (5 * 4))


def test_equal_points_never_count_themselves() -> None:
    """Eleven equal vectors: the point itself may not be among the nearest that were found."""
    features = np.zeros((12, 3))
    features[-1] = 1
    labels = np.arange(12)  # nobody agrees with anybody
    assert label_agreement(features, labels, k=3).value == 0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((4, 3)), "5 or more vectors"),
        (np.zeros(7), "5 or more vectors"),
        (np.full((6, 2), np.nan), "not finite"),
    ],
)
def test_wrong_features_are_refused(features: np.ndarray, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        embed(features)


def test_wrong_labels_and_neighbours_are_refused() -> None:
    features = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(AnalysisError, match="6 vectors need 6 labels"):
        label_agreement(features, [0, 1], k=1)
    with pytest.raises(AnalysisError, match="k must lie between 1 and 5, not 6"):
        label_agreement(features, np.zeros(6), k=6)


def test_picture_has_a_panel_a_map() -> None:
    features, labels = clouds(30)
    maps = {"one": embed(features, labels, perplexity=5), "other": embed(features, labels, perplexity=5)}
    drawn = Image.open(io.BytesIO(maps_picture(maps, labels, ["a", "b_c", "d"], "title")))
    assert drawn.format == "PNG"
    assert drawn.width > 1.5 * drawn.height
    assert maps_picture(maps, labels, ["a", "b_c", "d"], "title") == maps_picture(
        maps, labels, ["a", "b_c", "d"], "title"
    )
