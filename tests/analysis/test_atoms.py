"""Detected columns: positions, faint neighbours, noise, statistics, units, mistakes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from atomvision_hub.analysis import AnalysisError, detect_atoms
from atomvision_hub.analysis.atom_scores import score_atoms, true_columns
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.structures import load_structures


def columns(
    points: np.ndarray, heights: np.ndarray, shape: tuple[int, int] = (96, 128), sigma: float = 5.0
) -> np.ndarray:
    """Image of Gaussians at (x, y) px."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return sum(
        height * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        for (x, y), height in zip(points, heights, strict=True)
    )


def lattice(seed: int, spacing: float = 20.0) -> np.ndarray:
    """Jittered square lattice that keeps off the edges of (96, 128) px."""
    x, y = np.meshgrid(np.arange(16, 120, spacing), np.arange(16, 88, spacing))
    points = np.stack([x.ravel(), y.ravel()], 1)
    return points + np.random.default_rng(seed).uniform(-2, 2, points.shape)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_positions_are_exact_without_noise(seed: int) -> None:
    points = lattice(seed)
    heights = np.random.default_rng(seed).uniform(0.2, 1, len(points))
    found = detect_atoms(columns(points, heights), 0.1)
    assert len(found) == len(points)
    distance, match = cKDTree(points).query(np.stack([found.x, found.y], 1))
    assert distance.max() < 0.05  # px: 0.005 Å
    np.testing.assert_allclose(found.amplitude, heights[match], rtol=0.02)
    assert (found.confidence > 0.999).all()


@pytest.mark.parametrize("height", [0.5, 0.1])
def test_a_faint_column_beside_a_bright_one_is_found(height: float) -> None:
    points = np.array([[48.0, 48.0], [63.0, 50.0], [100, 30.0]])
    found = detect_atoms(columns(points, np.array([1.0, height, 1.0])), 0.1)
    distance = cKDTree(np.stack([found.x, found.y], 1)).query(points)[0]
    assert len(found) == 3
    assert distance.max() < 0.3


def test_many_faint_columns_are_not_taken_for_background() -> None:
    """As oxygen in RuO2: a column of 5.5 % at 1.77 Å from each bright one."""
    bright = lattice(7, spacing=40.0)
    bright = bright[bright[:, 1] < 60]
    points = np.concatenate([bright, bright + np.array([0, 17.7])])
    heights = np.repeat([1, 0.055], len(bright))
    found = detect_atoms(columns(points, heights), 0.1)
    assert len(found) == len(points)
    assert cKDTree(found.positions()).query(points * 0.1)[0].max() < 0.1


def test_shot_noise_under_bright_columns_is_not_taken_for_columns() -> None:
    points = lattice(2)
    expected = 0.5 + 30 * columns(points, np.ones(len(points)))
    for seed in range(3):
        found = detect_atoms(np.random.default_rng(seed).poisson(expected), 0.1)
        assert len(found) == len(points)
        assert cKDTree(points).query(np.stack([found.x, found.y], 1))[0].max() < 1.0


def test_columns_closer_than_two_widths_are_one() -> None:
    points = np.array([[40.0, 48], [48, 48], [80, 48], [92, 48]])  # 1.6 and 2.4 widths apart
    found = detect_atoms(columns(points, np.array([1, 0.8, 1, 0.8])), 0.1)
    assert len(found) == 3


def test_time_grows_with_the_number_of_columns() -> None:
    """Ten thousand columns in seconds: nothing of the size of their square is made."""
    tile = columns(lattice(4), np.ones(len(lattice(4))))
    image = np.tile(tile, (20, 15))
    started = time.process_time()
    found = detect_atoms(image, 0.1)
    assert len(found) == 300 * len(lattice(4))
    assert time.process_time() - started < 10


def test_grey_levels_and_a_background_change_nothing() -> None:
    points = lattice(3)
    image = columns(points, np.ones(len(points)))
    plain = detect_atoms(image, 0.1)
    other = detect_atoms(1000 + 37 * image, 0.1)
    np.testing.assert_allclose(other.x, plain.x, atol=0.02)
    np.testing.assert_allclose(other.amplitude, 37 * plain.amplitude, rtol=0.01)


def test_pixels_need_not_be_square() -> None:
    points = np.array([[30.0, 40], [60, 40], [90, 50], [45, 70]])
    rows, cols = np.mgrid[:96, :128]
    image = sum(np.exp(-((cols - x) ** 2) / 50 - ((rows - y) ** 2) / 32) for x, y in points)
    found = detect_atoms(image, (0.125, 0.1))
    np.testing.assert_allclose(sorted(found.x), sorted(points[:, 0]), atol=0.05)
    np.testing.assert_allclose(sorted(found.positions()[:, 1]), sorted(points[:, 1] * 0.125), atol=0.01)


def test_noise_alone_shows_no_atoms() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        found = detect_atoms(generator.poisson(20, (128, 128)).astype(float), 0.1)
        assert (found.confidence > 0.6).sum() == 0


def test_statistics_are_those_of_the_disk() -> None:
    found = detect_atoms(columns(np.array([[60.0, 48.0], [100, 48]]), np.array([2.0, 1.0])), 0.1)
    one = found.select(np.argsort(found.x)[:1])
    assert one.radius[0] == pytest.approx(5 * np.sqrt(2 * np.log(2)), rel=1e-3)
    assert one.max[0] == pytest.approx(2, rel=1e-3)
    assert one.min[0] == pytest.approx(1, rel=0.06)
    # Mean of a Gaussian over the disk out to half its height: 1/(2 ln 2) of it.
    assert one.mean[0] == pytest.approx(2 * 0.5 / np.log(2), rel=0.03)
    assert not one.edge[0]
    assert set(one.to_dict()) >= {"x", "y", "radius", "max", "min", "mean", "confidence", "edge"}


def test_columns_at_the_edge_are_marked() -> None:
    found = detect_atoms(columns(np.array([[2.0, 48.0], [60, 48]]), np.ones(2)), 0.1)
    assert found.edge[np.argsort(found.x)].tolist() == [True, False]


def test_a_mask_decides() -> None:
    points = lattice(1)
    image = columns(points, np.ones(len(points)))
    mask = np.zeros(image.shape)
    mask[:, :64] = 0.9
    found = detect_atoms(image, 0.1, mask=mask)
    assert len(found) == (points[:, 0] < 63.5).sum()


def test_without_pixel_size_the_image_tells_the_width() -> None:
    points = lattice(5)
    found = detect_atoms(columns(points, np.ones(len(points)), sigma=4))
    assert len(found) == len(points)
    assert found.pixel_size is None
    np.testing.assert_array_equal(found.positions(), np.stack([found.x, found.y], 1))


@pytest.mark.parametrize("name", ["graphene", "MoS2", "NbSe2"])
def test_reference_monolayers(name: str) -> None:
    frame = simulate_stem(load_structures("reference")[name], rotation=17)
    found = detect_atoms(frame.image, 0.1)
    atoms = frame.atoms[frame.atoms["visible"]]
    weight = atoms["number"].astype(float) ** 1.7
    _, column = np.unique(atoms["column"], return_inverse=True)
    total = np.bincount(column, weight)
    truth = np.stack([np.bincount(column, weight * atoms[axis]) / total for axis in "xy"], 1)
    inner = ((truth > 15) & (truth < 240)).all(1)
    distance = cKDTree(np.stack([found.x, found.y], 1)).query(truth[inner])[0]
    assert np.sqrt((distance**2).mean()) < 0.1  # px: 0.01 Å
    assert distance.max() < 0.5
    assert abs(len(found) - len(truth)) <= 0.05 * len(truth)


@pytest.mark.parametrize("name", ["MoS2", "NbSe2"])
def test_columns_as_a_microscope_records_them(name: str) -> None:
    """Blurred by the source: the width is found through the noise, so that positions are right, too."""
    frame = record_stem(load_structures("reference")[name], "typical", seed=0, rotation=17)
    found = detect_atoms(frame.image, 0.1)
    blur = 0.8 / np.sqrt(8 * np.log(2))
    assert found.width[0] * 0.1 == pytest.approx(np.hypot(0.5, blur), rel=0.04)
    score = score_atoms(found.positions(), true_columns(frame.atoms, frame.image.shape, 0.1))
    assert score.f1 > 0.98
    assert score.rmse < 0.1  # Å


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 100)), {}, r"images \[row, column\] of 8 px or more"),
        (np.zeros((20, 20, 3)), {}, r"images \[row, column\]"),
        (np.full((20, 20), np.nan), {}, "not finite"),
        (np.zeros((20, 20)), {"pixel_size": -1}, "pixel size must be positive"),
        (np.zeros((64, 64)), {"pixel_size": 5.0}, "do not fit 64 x 64 pixels"),
        (np.zeros((64, 64)), {"mask": np.zeros((3, 3))}, "the mask has shape"),
        (np.zeros((64, 64)), {"width": 0.0}, "width of a column must be positive"),
    ],
    ids=["small", "colour", "nan", "negative", "coarse", "mask", "width"],
)
def test_mistakes(image: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        detect_atoms(image, **options)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_even_image_has_no_atoms(value: float) -> None:
    assert len(detect_atoms(np.full((64, 64), value), 0.1)) == 0
