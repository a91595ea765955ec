"""Products of matrices by tile give what the sum over all pixels gives."""

from __future__ import annotations

import numpy as np
import pytest

from atomvision_hub.analysis.atoms.tiles import REACH, Tiles


def _windows(
    x: np.ndarray, y: np.ndarray, sigma: tuple[float, float], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussians of every peak over the whole image, zero beyond their windows, and their distances."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    q, p = (rows - y[:, None, None]) / sigma[0], (columns - x[:, None, None]) / sigma[1]
    reach = [np.ceil(REACH * side) for side in sigma]
    inside = np.abs(rows - np.rint(y)[:, None, None]) <= reach[0]
    inside &= np.abs(columns - np.rint(x)[:, None, None]) <= reach[1]
    return np.exp(-0.5 * (p**2 + q**2)) * inside, p, q


@pytest.mark.parametrize(
    ("shape", "sigma"), [((86, 91), (1.7, 1.6)), ((200, 331), (2.4, 5.0)), ((131, 40), (9.0, 1.7))]
)
def test_tiles_are_the_sum_over_pixels(shape: tuple[int, int], sigma: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    # Some lie outside, as far as the fit lets them.
    y, x = (generator.uniform(-1.5 * s, n + 1.5 * s, 60) for n, s in zip(shape, sigma, strict=True))
    height, image = generator.uniform(0.1, 1, 60), generator.normal(size=shape).astype(np.float32)
    tiles = Tiles(x, y, sigma, shape)
    gaussians, p, q = _windows(x, y, sigma, shape)
    np.testing.assert_allclose(tiles.model(height), np.einsum("n,nrc->rc", height, gaussians), atol=1e-5)
    found = tiles.overlaps(image)
    for got, weight in zip(found, (1, p, q, p**2 + q**2), strict=True):
        np.testing.assert_allclose(got, (gaussians * weight * image).sum(axis=(1, 2)), atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 50), (300, 300)])
def test_no_peak_leaves_the_image_dark(shape: tuple[int, int]) -> None:
    nothing = np.zeros(0)
    tiles = Tiles(nothing, nothing, (2.0, 2.0), shape)
    assert tiles.model(nothing).shape == shape
    assert not tiles.model(nothing).any()
    assert len(tiles.overlaps(np.ones(shape, np.float32)).one) == 0
