"""Restoration: scale, comparison of columns, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.errors import UsageError
from atomvision_hub.inference import restoration
from atomvision_hub.inference.restoration import restore
from atomvision_hub.simulation.acquisition import acquire
from atomvision_hub.simulation.acquisition.steps import STEPS

SHAPE = (128, 128)


@pytest.fixture(scope="module")
def ideal() -> np.ndarray:
    return simulate_stem(load_structures("reference")["MoS2"], shape=SHAPE, rotation=17).image


def noisy(image: np.ndarray, electrons: float) -> np.ndarray:
    from atomvision_hub.simulation.acquisition import Acquisition

    steps = Acquisition((STEPS["dose"](electrons=electrons),))
    return acquire(image, 0.1, steps, seed=3).image


def test_fine_pixels_keep_their_number_and_lose_noise(ideal: np.ndarray) -> None:
    recorded = noisy(ideal, 500)
    found = restore(recorded, 0.1)
    assert found.image.shape == SHAPE
    assert found.pixel_size == pytest.approx((0.1, 0.1))
    assert found.seen.shape == (32, 32)
    truth = ideal / ideal.mean()
    error = [float(np.sqrt(((one / one.mean() - truth) ** 2).mean())) for one in (recorded, found.image)]
    assert error[1] < 0.35 * error[0]


def test_coarse_pixels_become_four_times_as_fine(ideal: np.ndarray) -> None:
    coarse = ideal.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    found = restore(coarse, 0.4)
    assert found.image.shape == SHAPE
    assert found.pixel_size == pytest.approx((0.1, 0.1))
    assert np.corrcoef(found.image.ravel(), ideal.ravel())[0, 1] > 0.99


def test_columns_that_the_recording_lacks_are_counted(
    ideal: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = restore(ideal, 0.1).columns
    assert clean is not None
    assert clean.restored > 20
    assert clean.unsupported == 0
    whole = restoration._load

    class Inventing:
        """The network, and an atom where there is none."""

        def __init__(self, name: str) -> None:
            self.network = whole(name)
            self.known = self.network.known

        def upscale(self, image: np.ndarray, size: tuple[float, float]) -> object:
            answer = self.network.upscale(image, size)
            row, column = np.unravel_index(answer.image[20:-20, 20:-20].argmin(), (88, 88))
            y, x = np.mgrid[:128, :128]
            bump = np.exp(-((y - row - 20) ** 2 + (x - column - 20) ** 2) / 50)
            return answer._replace(image=answer.image + np.float32(answer.image.max()) * bump)

    monkeypatch.setattr(restoration, "_load", Inventing)
    invented = restore(ideal, 0.1).columns
    assert invented is not None
    assert invented.unsupported == 1
    assert 0 < invented.share < 0.1
    assert invented.positions.shape == (1, 2)


def test_the_model_tells_what_was_measured(ideal: np.ndarray) -> None:
    value, low, high = restore(ideal, 0.1).measured["hallucinated_atoms"]
    assert 0 < low < value < high < 0.2


def test_an_unknown_pixel_size_is_told(ideal: np.ndarray) -> None:
    found = restore(ideal[:32, :32])
    assert "pixel size unknown" in found.warnings[0]
    assert found.image.shape == (128, 128)


@pytest.mark.parametrize(
    ("image", "size", "match"),
    [
        (np.ones((64, 64)), 0.9, "too coarse"),
        (np.ones((20, 20)), 0.1, "the network needs"),
        (np.ones((3000, 3000)), 0.4, "megapixels; crop"),
        (np.full((64, 64), np.nan), 0.1, "finite grey image"),
        (np.ones((64, 64)), -1.0, "positive number"),
    ],
)
def test_what_cannot_be_restored_is_refused(image: np.ndarray, size: float, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        restore(image, size)
