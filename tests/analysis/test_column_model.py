"""Columns that explain an image: nearer than their width, missing, foreign, loose, in noise; refusals."""

from __future__ import annotations

from typing import Any

import ase
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from atomvision_hub.analysis import AnalysisError, fit_columns
from atomvision_hub.analysis.column_model.cells import larger_bases
from atomvision_hub.analysis.column_model.crystal import fit_crystal
from atomvision_hub.analysis.column_model.loose import fit_loose
from atomvision_hub.analysis.column_model.motif import Motif
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.profiles import Profiles, white_noise
from atomvision_hub.analysis.column_model.structure_factors import structure_factors
from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.structures import load_structures

Array = npt.NDArray[np.float64]
SHAPE = (160, 160)


def _grey(atoms: ase.Atoms, **pose: Any) -> tuple[Array, Array]:
    """Return an 8-bit image and the places of its atoms, px."""
    frame = simulate_stem(atoms, shape=SHAPE, **pose)
    table = frame.atoms[frame.atoms["visible"]]
    return to_grey(frame.image)[0].astype(float), np.stack([table["x"], table["y"]], 1).astype(float)


def _cell(places: list[tuple[str, float, float]], a: float = 5.0, b: float = 6.0) -> ase.Atoms:
    symbols, x, y = zip(*places, strict=True)
    positions = np.stack([x, y, np.full(len(x), 5.0)], 1)
    return ase.Atoms(list(symbols), positions, cell=[a, b, 10.0], pbc=[True, True, False])


def _worst(found: Array, truth: Array) -> float:
    """Return the largest distance of a true place from the nearest one that was found, px."""
    return float(cKDTree(found).query(truth)[0].max())


def _inside(x: Array, y: Array) -> Array:
    inside = (x > -0.5) & (x < SHAPE[1] - 0.5) & (y > -0.5) & (y < SHAPE[0] - 0.5)
    return np.stack([x, y], 1)[inside]


@pytest.mark.parametrize("name", ["MoS2", "SnS", "WTe2-1Tp", "CrSBr"])
def test_crystals_to_a_hundredth_of_a_pixel(name: str) -> None:
    grey, truth = _grey(load_structures("reference")[name], rotation=17, shift=(0.3, 1.1))
    fit = fit_columns(grey, 0.1)
    assert fit is not None
    assert fit.ratio < 1.05
    assert (fit.site >= 0).all()
    # Atoms on top of each other are one column; none is invented.
    columns = cKDTree(truth)
    assert _worst(np.stack([fit.x, fit.y], 1), truth) < 0.3
    assert columns.query(_inside(fit.x, fit.y))[0].max() < 0.3


def test_columns_much_nearer_than_their_width_are_told_apart() -> None:
    """Half the standard deviation apart: one round blob, whose cells together still tell two columns."""
    grey, truth = _grey(_cell([("Mo", 1.0, 1.0), ("Mo", 1.28, 1.1), ("S", 3.5, 4.0)]), rotation=8)
    fit = fit_columns(grey, 0.1)
    assert fit is not None
    assert fit.site.max() == 2
    assert _worst(np.stack([fit.x, fit.y], 1), truth) < 0.35


def test_vacancies_and_foreign_atoms() -> None:
    crystal = load_structures("reference")["graphene"].repeat((9, 9, 1))
    crystal.set_pbc((True, True, False))
    middle = int(np.argmin(np.linalg.norm((crystal.positions - crystal.cell.sum(0) / 2)[:, :2], axis=1)))
    other = int(np.argmax(crystal.get_distances(middle, range(len(crystal)), mic=True)))
    crystal.symbols[other] = "Si"
    place = crystal.positions[middle].copy()
    foreign = crystal.positions[other].copy()
    del crystal[middle]
    frame = simulate_stem(crystal, shape=(240, 240), center=(float(place[0]), float(place[1])))
    fit = fit_columns(to_grey(frame.image)[0], 0.1)
    assert fit is not None
    assert fit.ratio < 1.05
    nearest = cKDTree(np.stack([fit.x, fit.y], 1)).query([119.5, 119.5])[0]
    assert nearest > 10  # the bond is 14 px long
    table = frame.atoms[frame.atoms["visible"]]
    silicon = table[table["number"] == 14]
    assert len(silicon) > 0, foreign
    heights = fit.height[
        cKDTree(np.stack([fit.x, fit.y], 1)).query(np.stack([silicon["x"], silicon["y"]], 1))[1]
    ]
    assert heights / np.median(fit.height) == pytest.approx((14 / 6) ** 1.7, rel=0.02)


def test_a_doubled_cell_is_found_from_what_the_smaller_one_leaves() -> None:
    places = [("Mo", 1.0, 1.0), ("Mo", 3.5, 1.0), ("O", 1.7, 3.0), ("O", 4.0, 3.2)]
    grey, _ = _grey(_cell(places, a=5.0, b=5.0))
    half = fit_crystal(grey, np.array([[25.0, 0.0], [0.0, 50.0]]), Probe.gaussian(5.0), 0.29)
    assert half is not None
    assert half.changed > 0.3 * half.inside  # every other oxygen
    first = larger_bases(half, Probe.gaussian(5.0))[0]
    whole = np.abs(np.linalg.inv([[50.0, 0.0], [0.0, 50.0]]).T @ first.T)
    assert np.allclose(whole, np.rint(whole), atol=0.01)
    assert abs(np.linalg.det(first)) == pytest.approx(2500, rel=0.01)
    fit = fit_columns(grey, 0.1)
    assert fit is not None
    assert fit.ratio < 1.05


def test_loose_columns_where_nothing_repeats() -> None:
    generator = np.random.default_rng(3)
    places = generator.uniform(10, 150, (200, 2))
    kept: list[Array] = []
    for place in places:
        if all(np.hypot(*(place - other)) > 9 for other in kept):
            kept.append(place)
    truth = np.array(kept)
    heights = generator.uniform(60, 200, len(truth))
    grey = np.rint(Profiles(truth, Probe.gaussian(5.0), SHAPE).image(heights))
    fit = fit_columns(grey, 0.1)
    assert fit is not None
    assert fit.basis is None
    assert (fit.site == -1).all()
    assert fit.ratio < 1.1
    assert _worst(np.stack([fit.x, fit.y], 1), truth) < 0.2
    # What is invented beside them is as faint as what rounding does.
    bright = fit.height > 0.02 * fit.height.max()
    assert _worst(truth, _inside(fit.x[bright], fit.y[bright])) < 1


@pytest.mark.parametrize("dose", [5000, 200])
def test_noise_hides_no_column_that_the_cells_tell_together(dose: int) -> None:
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(200, 200), rotation=5)
    mean = frame.image / frame.image.mean() * dose * 0.01
    counts = np.random.default_rng(0).poisson(mean).astype(float)
    fit = fit_columns(counts, 0.1)
    assert fit is not None
    assert 0.9 < fit.ratio < 1.1
    table = frame.atoms[frame.atoms["visible"]]
    assert _worst(np.stack([fit.x, fit.y], 1), np.stack([table["x"], table["y"]], 1)) < 1


@settings(max_examples=8, deadline=None)
@given(gain=st.floats(0.01, 1e4), offset=st.floats(-1e3, 1e3))
def test_gain_and_offset_of_the_detector_do_not_matter(gain: float, offset: float) -> None:
    grey, _ = _grey(_cell([("Mo", 1.0, 1.0), ("S", 2.0, 3.5)]))
    before, after = fit_columns(grey, 0.1), fit_columns(grey * gain + offset, 0.1)
    assert before is not None
    assert after is not None
    assert len(after.x) == len(before.x)
    np.testing.assert_allclose(after.x, before.x, atol=1e-3)
    np.testing.assert_allclose(after.height, before.height * gain, rtol=1e-3)


def test_structure_factors_are_those_of_the_columns() -> None:
    """F(q) = sum of height * 2 pi w² / area * exp(-2 pi² w² q²) * exp(-2 pi i q.r), all off-grid."""
    basis, width = np.array([[31.0, 3.0], [-7.0, 40.0]]), 5.0
    sites, heights = np.array([[4.0, 9.0], [17.5, 20.2]]), np.array([90.0, 25.0])
    cells = np.mgrid[-12:13, -12:13].reshape(2, -1).T @ basis
    places = (sites[:, None] + cells).reshape(-1, 2)
    image = Profiles(places, Probe.gaussian(width), (230, 210)).image(np.repeat(heights, len(cells)))
    found = structure_factors(image, basis, 0.12, 0.3)
    q = found.frequencies
    expected = (
        np.exp(-2j * np.pi * q @ sites.T)
        @ heights
        * (2 * np.pi * width**2 / abs(np.linalg.det(basis)))
        * np.exp(-2 * (np.pi * width) ** 2 * (q**2).sum(1))
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    motif = Motif(found, Probe.gaussian(width))
    motif.fit()
    assert len(motif.heights) == 2
    np.testing.assert_allclose(np.sort(motif.heights), [25, 90], rtol=1e-3)


def test_noise_is_measured_beside_the_columns() -> None:
    grey, _ = _grey(load_structures("reference")["MoS2"])
    noisy = grey + np.random.default_rng(0).normal(0, 3, grey.shape)
    assert white_noise(noisy, 5.0) == pytest.approx(3, rel=0.05)


def test_too_many_columns_end_the_search() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (256, 256))
    found = fit_loose(noise, Probe.gaussian(1.5), 0.05, np.empty((0, 2)), np.empty(0))
    assert found is None or len(found.heights) < 900


@pytest.mark.parametrize(
    ("image", "pixel_size", "told"),
    [
        (np.zeros((8, 40)), 0.1, "at least 16 x 16"),
        (np.full((40, 40), np.nan), 0.1, "finite grey levels"),
        (np.zeros((1024, 1024)), 0.1, "262144 pixels at most"),
        (np.zeros((64, 64)), (0.1, 0.12), "square pixels"),
        (np.zeros((64, 64)), 0.5, "1 px wide"),
        (np.zeros((64, 64)), float("nan"), "square pixels"),
        (np.full((64, 64), "grey"), 0.1, "as numbers"),
        (np.zeros((64, 64)), (0.1, 0.1, 0.1), "as numbers"),
    ],
)
def test_what_cannot_be_fitted_says_so(image: Any, pixel_size: Any, told: str) -> None:
    with pytest.raises(AnalysisError, match=told):
        fit_columns(image, pixel_size)


def test_an_even_image_has_no_columns() -> None:
    assert fit_columns(np.full((64, 64), 7.0), 0.1) is None
