"""Linear codes of images: what the training rows leave, beside scikit-learn and the transform itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft
from sklearn.decomposition import PCA

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.linear_codes import LINEAR_KINDS, LinearCodes


def waves(count: int = 60, side: int = 12) -> np.ndarray:
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    kx, ky, phase = generator.uniform([[0.3], [0.3], [0]], [[1.5], [1.5], [6.28]], (3, count))
    return 0.5 + 0.4 * np.cos(kx[:, None, None] * columns + ky[:, None, None] * rows + phase[:, None, None])


def all_ways(images: np.ndarray) -> np.ndarray:
    """Images with their mirror images and quarter turns."""
    turned = [np.rot90(images, turn, axes=(1, 2)) for turn in range(4)]
    return np.concatenate([*turned, *(one.swapaxes(1, 2) for one in turned)])


@pytest.mark.parametrize("length", [1, 7, 40])
def test_principal_components_are_those_of_all_ways_round(length: int) -> None:
    """Against scikit-learn on eight times as many images: the same error on other images."""
    images, others = waves(), waves(90)[60:]
    ours = LinearCodes(images).fit("pca", length)
    theirs = PCA(length, svd_solver="full").fit(all_ways(images).reshape(-1, 144))
    flat = others.reshape(-1, 144)
    again = theirs.inverse_transform(theirs.transform(flat))
    assert np.allclose(ours.components @ ours.components.T, np.eye(length), atol=1e-9)
    explained = theirs.explained_variance_ * (8 * 60 - 1) / (8 * 60)
    assert np.allclose(np.sort(ours.spread**2), np.sort(explained), rtol=1e-6, atol=1e-9)
    wanted = ((again - flat) ** 2).mean()
    # Components of equal variance may be mixed where the last one is cut off.
    assert ((ours.reconstruct(others).reshape(-1, 144) - flat) ** 2).mean() == pytest.approx(wanted, rel=0.1)


def test_cosines_are_those_of_the_transform_and_the_better_rule_is_kept() -> None:
    images = waves()
    codes = LinearCodes(images)
    found = codes.fit("dct", 20)
    centred = images - found.mean_image.reshape(12, 12)
    whole = fft.dctn(centred, axes=(1, 2), norm="ortho").reshape(60, -1)
    coordinates = found.encode(images)
    for column in coordinates.T:
        assert np.abs(whole - column[:, None]).max(axis=0).min() < 1e-9
    # Waves leave the lowest frequencies empty.
    assert found.rule == "cosines of most energy"


def test_longer_codes_leave_less_and_all_numbers_leave_nothing() -> None:
    images = waves()
    codes = LinearCodes(images)
    for kind in ("dct", "pca"):
        left = [((codes.fit(kind, n).reconstruct(images) - images) ** 2).mean() for n in (0, 5, 30, 144)]
        assert left == sorted(left, reverse=True)
        assert left[-1] == pytest.approx(0, abs=1e-18)
    mean = codes.fit("mean", 0)
    assert np.allclose(mean.reconstruct(images), mean.mean_image.reshape(12, 12))
    assert LINEAR_KINDS == ("mean", "dct", "pca")


def test_wrong_images_and_lengths_are_refused() -> None:
    with pytest.raises(AnalysisError, match=r"\[n, side, side\]"):
        LinearCodes(np.zeros((3, 4, 5)))
    codes = LinearCodes(waves())
    with pytest.raises(AnalysisError, match="has at most as many numbers"):
        codes.fit("pca", 145)
    with pytest.raises(AnalysisError, match="this code is for 144 pixels, not for 16"):
        codes.fit("dct", 3).encode(np.zeros((2, 4, 4)))
