"""Scan lines that are displaced: found against a model, moved back, told apart from rows of atoms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from atomvision_hub import analyze
from atomvision_hub.analysis import fit_columns
from atomvision_hub.analysis.column_model.lines import recorded_places, straighten
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.profiles import Profiles
from atomvision_hub.analysis.scan_lines import displaced_lines, shrunk
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.structures import load_structures

Array = npt.NDArray[np.float64]
WIDTH, SIDE = 5.0, 128
BASIS = np.array([[31.0, 4.0], [-9.0, 27.0]])


def _lattice(sites: Array, basis: Array) -> Array:
    cells = np.mgrid[-12:13, -12:13].reshape(2, -1).T @ basis
    places = (sites[:, None] + cells).reshape(-1, 2)
    return np.asarray(places[((places > -25) & (places < SIDE + 25)).all(1)])


def _scan(places: Array, heights: Array, offsets: Array, noise: float, seed: int = 0) -> Array:
    """Return an image every line of which shows columns displaced by its offset, (x, y) in px."""
    x = np.arange(SIDE) - places[:, :1]
    image = np.empty((SIDE, SIDE))
    for row, (across, down) in enumerate(offsets):
        of_row = heights * np.exp(-0.5 * ((row - down - places[:, 1]) / WIDTH) ** 2)
        image[row] = of_row @ np.exp(-0.5 * ((x - across) / WIDTH) ** 2)
    return image + noise * np.random.default_rng(seed).standard_normal(image.shape)


def _model(places: Array, heights: Array, room: int) -> tuple[Array, Array, Array]:
    profiles = Profiles(places + room, Probe.gaussian(WIDTH), (SIDE + 2 * room, SIDE + 2 * room))
    return profiles.image(heights), *profiles.slopes(heights)


def _found(offsets: Array, noise: float) -> tuple[Array, tuple[float, float]]:
    places = _lattice(np.array([[3.0, 5.0], [17.0, 12.0]]), BASIS)
    heights = np.resize([200.0, 120.0], len(places))
    lines = displaced_lines(
        _scan(places, heights, offsets, noise), lambda room: _model(places, heights, room)
    )
    return lines.offsets, lines.rms


def test_jitter_drift_and_both_directions_are_found() -> None:
    generator, time = np.random.default_rng(4), np.linspace(0, 1, SIDE)
    offsets = np.stack([generator.normal(0, 1.0, SIDE), 1.5 * np.sin(5 * time)], 1)
    offsets -= offsets.mean(0)
    found, rms = _found(offsets, noise=4.0)
    assert np.abs(found - offsets).max() < 0.6
    assert np.sqrt(((found - offsets) ** 2).mean(0)) == pytest.approx([0, 0], abs=0.15)
    assert rms == pytest.approx(offsets.std(0), rel=0.15)


def test_lines_across_a_vacuum_do_not_hide_the_jitter_of_the_others() -> None:
    places = _lattice(np.array([[3.0, 5.0], [17.0, 12.0]]), BASIS)
    places = places[places[:, 1] < 60]
    heights, generator = np.full(len(places), 200.0), np.random.default_rng(4)
    offsets = np.stack([generator.normal(0, 1.0, SIDE), np.zeros(SIDE)], 1)
    lines = displaced_lines(_scan(places, heights, offsets, 4.0), lambda room: _model(places, heights, room))
    crystal = slice(0, 60)
    assert np.corrcoef(lines.offsets[crystal, 0], offsets[crystal, 0])[0, 1] > 0.95
    assert lines.rms[0] == pytest.approx(offsets[crystal, 0].std(), rel=0.2)
    assert not lines.offsets[100:].any()


@settings(max_examples=8, deadline=None)
@given(noise=st.floats(0.5, 20), seed=st.integers(0, 50))
def test_straight_lines_stay_where_they_are(noise: float, seed: int) -> None:
    places = _lattice(np.array([[3.0, 5.0], [17.0, 12.0]]), BASIS)
    heights = np.resize([200.0, 120.0], len(places))
    image = _scan(places, heights, np.zeros((SIDE, 2)), noise, seed)
    lines = displaced_lines(image, lambda room: _model(places, heights, room))
    # Noise alone displaces a line by 0.0094 px for each grey level. Now and then (1 of 300) that passes for a
    # displacement, but never for a greater one.
    assert max(lines.rms) < 0.01 * noise


def test_measured_displacements_are_shrunk_to_the_likeliest() -> None:
    generator = np.random.default_rng(1)
    true, variance = generator.normal(0, 2, 4000), np.full(4000, 1.0)
    measured = true + generator.standard_normal(4000)
    found, rms = shrunk(measured, variance)
    assert rms == pytest.approx(2, rel=0.05)
    assert found == pytest.approx(0.8 * measured, rel=0.02)
    assert ((found - true) ** 2).mean() < ((measured - true) ** 2).mean()


@pytest.mark.parametrize(("moved", "noise"), [(0.5, 5.0), (1.0, 12.0), (1.0, 30.0), (2.0, 12.0)])
def test_rows_of_atoms_are_no_displaced_lines(moved: float, noise: float) -> None:
    """Every other row of a square lattice is moved by up to an eighth of the spacing: a crystal, no scan."""
    sites = np.array([[5.0, 5.0], [5.0 + moved, 21.0]])
    places = _lattice(sites, np.array([[16.0, 0.0], [0.0, 32.0]]))
    image = _scan(places, np.full(len(places), 200.0), np.zeros((SIDE, 2)), noise)
    straight = straighten(image, Probe.gaussian(WIDTH))
    assert straight.offsets is None
    assert straight.crystal is not None
    assert abs(np.linalg.det(straight.crystal.basis)) == pytest.approx(512, rel=0.02)


@pytest.mark.parametrize("name", ["PtS2-1T", "GaSe"])
def test_a_jittering_scan_shows_the_columns_of_a_still_one(name: str) -> None:
    recorded = record_stem(load_structures("reference")[name], "typical", seed=1, rotation=17)
    fit = fit_columns(recorded.image, 0.1, width=None)
    assert fit is not None
    assert fit.ratio == pytest.approx(1, abs=0.02)
    assert fit.width == pytest.approx(6.04, rel=0.05)  # with the size of the source
    displacement = recorded.recorded.displacement
    assert displacement is not None
    assert fit.lines is not None
    assert not fit.lines[:, 1].any()  # no line jumps up or down
    # The beam stood farther along: the specimen shows up so much before.
    shifts, rows = np.stack([-displacement[:, 0, 0] / 0.1, fit.lines[:, 0]]), np.arange(len(fit.lines))
    # A steady drift shears the lattice instead.
    jitter, found = (shift - np.polyval(np.polyfit(rows, shift, 1), rows) for shift in shifts)
    assert np.corrcoef(jitter, found)[0, 1] > 0.95
    table = recorded.atoms[recorded.atoms["visible"]]
    truth = np.stack([table["x"], table["y"]], 1).astype(float)
    inner = truth[((truth > 3) & (truth < 252)).all(1)]
    away = cKDTree(np.stack([fit.x, fit.y], 1)).query(inner)[0]
    assert away.max() < 1.5
    assert np.sqrt((away**2).mean()) < 0.35  # px: 0.035 Å


def test_places_in_the_recording_are_means_over_lines() -> None:
    offsets = np.zeros((64, 2))
    offsets[30:35, 0] = 2.0
    x, y = recorded_places(np.array([10.0, 10.0]), np.array([32.0, 3.0]), offsets, 4.0)
    weights = np.exp(-(((np.arange(64) - 32) / 4.0) ** 2))
    assert x == pytest.approx([10 + 2 * weights[30:35].sum() / weights.sum(), 10.0], abs=1e-6)
    assert y == pytest.approx([32.0, 3.0])


def test_analyze_fits_columns_to_a_jittering_scan() -> None:
    recorded = record_stem(load_structures("reference")["PtS2-1T"], "typical", seed=1, rotation=17)
    result = analyze(recorded.image, pixel_size=0.1, classifier="none", segmenter="none", fit_columns=True)
    assert result.residual == pytest.approx(1, abs=0.03)
    columns = len(np.unique(recorded.atoms["column"][recorded.atoms["visible"]]))
    assert len(result.atoms) == pytest.approx(columns, rel=0.05)
