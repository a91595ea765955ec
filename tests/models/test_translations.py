"""What the lattice network is told of an image: exact translations, and nothing of how it was taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atomvision_hub.models.lattice_network import pair_features
from atomvision_hub.models.translations import FEATURE_NAMES, IMAGE_FEATURE_NAMES, find_translations

SIDE = 128
DEFICIT, WAVE = FEATURE_NAMES.index("deficit"), FEATURE_NAMES.index("wave")


def crystal(cell: list[list[float]], motif: list[tuple[float, float, float]], width: float = 2.2) -> Tensor:
    """Image of Gaussians (fraction, fraction, weight) on a cell, rows (x, y) in px, 8-bit levels 0..1."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    image = np.zeros((SIDE, SIDE))
    reach = range(-30, 31)
    for u, v, weight in motif:
        for i in reach:
            for j in reach:
                px, py = (i + u) * np.array(cell[0]) + (j + v) * np.array(cell[1]) + 3.3
                if -9 < px < SIDE + 9 and -9 < py < SIDE + 9:
                    image += weight * np.outer(
                        np.exp(-((y[:, 0] - py) ** 2) / 2 / width**2),
                        np.exp(-((x[0] - px) ** 2) / 2 / width**2),
                    )
    levels = np.rint(255 * (image - image.min()) / np.ptp(image)) / 255
    return torch.from_numpy(levels).float()[None]


CELL = [[17.3, 4.1], [-6.2, 21.7]]
IMAGE = crystal(CELL, [(0, 0, 1.0), (0.37, 0.44, 0.6)])


def multiples(vectors: Tensor, cell: list[list[float]]) -> np.ndarray:
    return vectors.numpy() @ np.linalg.inv(np.array(cell))


def test_exact_candidates_are_lattice_vectors_to_a_few_hundredths_of_a_pixel() -> None:
    found = find_translations(IMAGE, 24)
    exact = found.valid[0] & (found.features[0, :, DEFICIT] < -3.5)
    index = multiples(found.vectors[0][exact], CELL)
    assert exact.sum() >= 8
    off = (index - np.rint(index)) @ np.array(CELL)
    assert np.abs(off).max() < 0.03
    basis = {tuple(sorted(map(abs, row))) for row in np.rint(index).astype(int).tolist()}
    assert (0, 1) in basis
    # And what is no lattice vector is no exact candidate.
    other = found.valid[0] & ~exact
    assert float(found.features[0, other, DEFICIT].min()) > -2


def test_a_faint_superstructure_is_told() -> None:
    doubled = [[2 * CELL[0][0], 2 * CELL[0][1]], CELL[1]]
    motif = [(0, 0, 1.0), (0.5, 0, 0.9), (0.185, 0.44, 0.6), (0.685, 0.44, 0.6)]
    found = find_translations(crystal(doubled, motif), 24)
    index = multiples(found.vectors[0], CELL)
    whole = np.abs(index - np.rint(index)).max(1) < 0.05
    odd = torch.from_numpy(whole & (np.rint(index)[:, 0] % 2 == 1)) & found.valid[0]
    even = torch.from_numpy(whole & (np.rint(index)[:, 0] % 2 == 0)) & found.valid[0]
    assert odd.any()
    assert even.any()
    assert float(found.features[0, odd, DEFICIT].min()) > float(found.features[0, even, DEFICIT].max()) + 1
    assert float(found.features[0, odd, WAVE].min()) > float(found.features[0, even, WAVE].min()) + 2


@pytest.mark.parametrize(
    "change",
    [lambda x: 0.2 + 3 * x, lambda x: x.flip(2), lambda x: x.flip(1), lambda x: x.transpose(1, 2)],
    ids=["contrast", "mirrored", "upside down", "transposed"],
)
def test_features_depend_on_neither_contrast_nor_handedness(change: object) -> None:
    before, after = find_translations(IMAGE, 12), find_translations(change(IMAGE), 12)  # type: ignore[operator]
    ranked = [torch.sort(one.features[0, :, DEFICIT]).values[:6] for one in (before, after)]
    torch.testing.assert_close(ranked[0], ranked[1], atol=0.15, rtol=0)
    lengths = [torch.linalg.vector_norm(one.vectors[0, :6], dim=-1).sort().values for one in (before, after)]
    torch.testing.assert_close(lengths[0], lengths[1], atol=0.05, rtol=0)


def test_counting_noise_hides_no_short_vector() -> None:
    counts = torch.poisson(6 * IMAGE, generator=torch.Generator().manual_seed(0))
    found = find_translations(counts, 24)
    index = multiples(found.vectors[0], CELL)
    good = (np.abs((index - np.rint(index)) @ np.array(CELL)).max(1) < 0.5) & found.valid[0].numpy()
    named = {tuple(abs(value) for value in row) for row in np.rint(index[good]).astype(int).tolist()}
    assert {(1, 0), (0, 1)} <= named
    noise = IMAGE_FEATURE_NAMES.index("noise")
    assert float(found.image[0, noise]) > float(find_translations(IMAGE, 24).image[0, noise]) + 1


def test_blank_images_have_no_candidates_and_stay_finite() -> None:
    found = find_translations(torch.full((2, 64, 64), 0.3), 8)
    assert not found.valid.any()
    for values in (found.vectors, found.features, found.image):
        assert values.isfinite().all()


def test_pairs_are_blind_to_rotation_sign_order_and_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = 40 * torch.randn(2, 50, 2, generator=generator) + 3
    turn = torch.tensor(0.7)
    matrix = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()]).view(2, 2)
    side = torch.tensor(256.0)
    expected = pair_features(first, second, side)
    torch.testing.assert_close(
        pair_features(first @ matrix, second @ matrix, side), expected, atol=2e-3, rtol=0
    )
    torch.testing.assert_close(pair_features(second, -first, side), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(pair_features(2 * first, 2 * second, 2 * side), expected, atol=2e-3, rtol=0)
