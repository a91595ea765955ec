"""Columns of a cell from its waves, and how far they miss their like under a translation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from atomvision_hub.analysis.harmonics import half_indices
from atomvision_hub.analysis.lattice_columns import find_columns, moves

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
CELL, SIGMA, FINEST = np.array([[90.0, 4.0], [-3.0, 50.0]]), 5.0, 0.11
SMALL = np.array([CELL[0] / 2, CELL[1]])
PLACES = np.array([[4.0, 5.0], [21.0, 20.0], [33.0, 40.0]])
WEIGHTS = np.array([1.0, 0.4, 0.1])


def _waves(places: Array, weights: Array, cell: Array) -> tuple[npt.NDArray[np.int64], Array, Complex]:
    reciprocal = np.linalg.inv(cell).T
    indices = half_indices(reciprocal, FINEST)
    q = indices @ reciprocal
    fall = np.exp(-2 * (np.pi * SIGMA) ** 2 * (q**2).sum(axis=1))
    return indices, q, fall * (np.exp(-2j * np.pi * q @ places.T) @ weights)


def test_columns_are_found_with_places_weights_and_width() -> None:
    _, q, amplitudes = _waves(PLACES, WEIGHTS, SMALL)
    found = find_columns(q, amplitudes, np.full(len(q), 1e-12), SMALL)
    assert found is not None
    order = np.argsort(-found.weights)[:3]
    apart = (found.places[order] - PLACES) @ np.linalg.inv(SMALL)
    assert np.abs((apart - np.rint(apart)) @ SMALL).max() < 0.05
    np.testing.assert_allclose(found.weights[order], WEIGHTS, rtol=0.02)
    assert found.variance == pytest.approx(SIGMA**2, rel=0.02)


@pytest.mark.parametrize(("who", "by"), [(0, 0.4), (1, 0.8), (2, 1.5)])
def test_the_worst_column_is_told_however_bright_it_is(who: int, by: float) -> None:
    """One column of three in the second half of the cell is off; the others repeat exactly."""
    second = PLACES + SMALL[0]
    second[who, 1] += by
    indices, q, amplitudes = _waves(np.vstack([PLACES, second]), np.tile(WEIGHTS, 2), CELL)
    seen = moves(indices, q, amplitudes, np.full(len(q), 1e-9), (1, 0), 2, CELL, 0.5)
    assert seen is not None
    assert seen.largest == pytest.approx(by, rel=0.1)
    assert seen.other < 0.05


def test_a_column_of_other_brightness_is_no_displacement() -> None:
    weights = np.concatenate([WEIGHTS, WEIGHTS * (1, 0.8, 1)])
    indices, q, amplitudes = _waves(np.vstack([PLACES, PLACES + SMALL[0]]), weights, CELL)
    seen = moves(indices, q, amplitudes, np.full(len(q), 1e-9), (1, 0), 2, CELL, 0.5)
    assert seen is not None
    assert seen.other > 0.5


def test_a_tripled_cell() -> None:
    """Each third is moved its own way: the distance that counts is between neighbours."""
    cell = np.array([3 * SMALL[0], SMALL[1]])
    thirds = [PLACES + k * SMALL[0] for k in range(3)]
    thirds[1][0] += (0.3, 0.0)
    thirds[2][0] += (-0.3, 0.0)
    indices, q, amplitudes = _waves(np.vstack(thirds), np.tile(WEIGHTS, 3), cell)
    seen = moves(indices, q, amplitudes, np.full(len(q), 1e-9), (1, 0), 3, cell, 0.5)
    assert seen is not None
    assert seen.largest == pytest.approx(0.6, rel=0.1)


def test_too_few_waves_show_no_columns() -> None:
    q = np.array([[0.02, 0.0], [0.0, 0.02]])
    assert find_columns(q, np.array([1.0 + 0j, 1.0]), np.full(2, 1e-9), SMALL) is None
