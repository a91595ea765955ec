"""Profiles of columns: sums of Gaussians, and how images of crystals tell them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from atomvision_hub.analysis import Probe, fit_columns
from atomvision_hub.analysis.column_model.probe_search import measured_probes
from atomvision_hub.analysis.column_model.profiles import Profiles
from atomvision_hub.microscopy import read_images
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.structures import load_structures

Array = npt.NDArray[np.float64]
law = settings(max_examples=20, deadline=None, derandomize=True)
TAILS = "gaussian(sigma=[0.4, 1.0], weight=[0.7, 0.3])"


@st.composite
def probes(draw: st.DrawFn) -> Probe:
    heights = draw(st.lists(st.floats(0.05, 1), min_size=1, max_size=3))
    widths = draw(st.lists(st.floats(1.5, 6), min_size=len(heights), max_size=len(heights)))
    return Probe(tuple((height / sum(heights), width) for height, width in zip(heights, widths, strict=True)))


def drawn(probe: Probe, x: float, y: float, side: int = 81) -> Array:
    """One column of height one, pixel by pixel."""
    rows, columns = np.mgrid[:side, :side]
    squares = (columns - x) ** 2 + (rows - y) ** 2
    shown = (height * np.exp(-squares / (2 * width**2)) for height, width in probe.parts)
    return np.asarray(sum(shown))


@law
@given(probes(), st.floats(0, 0.1), st.floats(0, 0.1))
def test_transform_is_that_of_the_pixels(probe: Probe, along: float, down: float) -> None:
    rows, columns = np.mgrid[:81, :81] - 40
    waves = np.exp(-2j * np.pi * (columns * along + rows * down))
    expected = (drawn(probe, 40, 40) * waves).sum().real
    assert probe.transform(np.array(along**2 + down**2)) == pytest.approx(
        expected, abs=1e-4 * expected + 1e-4
    )


@law
@given(probes())
def test_width_is_that_of_the_gaussian_as_clear_in_noise(probe: Probe) -> None:
    squares = (drawn(probe, 40, 40) ** 2).sum()
    assert (drawn(Probe.gaussian(probe.width), 40, 40) ** 2).sum() == pytest.approx(squares, rel=1e-4)
    widest = max(width for _, width in probe.parts)
    assert probe.narrowest <= probe.width * (1 + 1e-12) <= widest * (1 + 1e-9)
    assert probe.scaled(0.5).width == pytest.approx(probe.width / 2)


@law
@given(probes(), st.integers(0, 100))
def test_sums_over_pixels_are_those_of_drawn_columns(probe: Probe, seed: int) -> None:
    generator = np.random.default_rng(seed)
    places, heights = generator.uniform(20, 60, (4, 2)), generator.uniform(1, 9, 4)
    profiles = Profiles(places, probe, (81, 81))
    each = np.stack([drawn(probe, *place) for place in places])
    image = generator.normal(size=(81, 81))
    step = 1e-4

    def slope(axis: int) -> Array:
        ahead, behind = places.copy(), places.copy()
        ahead[:, axis] += step
        behind[:, axis] -= step
        pairs = zip(ahead, behind, strict=True)
        return np.stack([(drawn(probe, *a) - drawn(probe, *b)) / (2 * step) for a, b in pairs])

    by_x, by_y = slope(0), slope(1)

    def products(one: Array, other: Array) -> Array:
        return np.asarray(np.einsum("irc,jrc->ij", one, other))

    assert profiles.image(heights) == pytest.approx(np.tensordot(heights, each, 1), abs=1e-9)
    along, down = profiles.slopes(heights)  # by the pixel: the other way round
    assert along == pytest.approx(-np.tensordot(heights, by_x, 1), abs=1e-5)
    assert down == pytest.approx(-np.tensordot(heights, by_y, 1), abs=1e-5)
    assert profiles.sums() == pytest.approx(each.sum((1, 2)))
    assert profiles.seen(image) == pytest.approx((each * image).sum((1, 2)), abs=1e-8)
    for found, expected in zip(profiles.pulled(image), (by_x, by_y), strict=True):
        assert found == pytest.approx((expected * image).sum((1, 2)), abs=1e-5)
    assert profiles.overlaps() == pytest.approx(products(each, each))
    pairs = [(each, each), (each, by_x), (each, by_y), (by_x, by_x), (by_x, by_y), (by_y, by_y)]
    for moment, pair in zip(profiles.moments(), pairs, strict=True):
        assert moment == pytest.approx(products(*pair), abs=1e-4)


@pytest.mark.parametrize("start", [3.6, 5.0, 7.0])
def test_profile_and_columns_are_told_by_one_image(start: float) -> None:
    """Two columns in an oblique cell; which profile the search begins with does not matter."""
    basis, probe = np.array([[31.0, 4.0], [-9.0, 27.0]]), Probe(((0.93, 4.0), (0.07, 9.0)))
    cells = np.mgrid[-14:15, -14:15].reshape(2, -1).T @ basis
    sites = np.array([[3.0, 5.0], [17.0, 12.0]])
    places = (sites[:, None] + cells).reshape(-1, 2)
    heights = np.repeat([200.0, 60.0], len(cells))
    noise = np.random.default_rng(0).normal(size=(192, 192))
    image = Profiles(places, probe, (192, 192)).image(heights) + 20 + noise
    found = next(measured_probes(image, basis, Probe.gaussian(start), 1.0))
    assert len(found.heights) == 2
    radii = np.linspace(0, 12, 50)
    shown, true = (
        sum(height * np.exp(-(radii**2) / (2 * width**2)) for height, width in one.parts)
        for one in (found.probe, probe)
    )
    assert shown == pytest.approx(true, abs=0.01)
    steps = (np.sort(found.places, 0) - np.sort(sites, 0)) @ np.linalg.inv(basis)
    assert np.sort(found.heights) == pytest.approx([60, 200], rel=0.02)
    assert np.abs(steps - np.rint(steps)).max() < 0.5  # the cell is found somewhere


@pytest.mark.parametrize(
    ("psf", "low", "high"),
    [("gaussian(sigma=0.4)", 3.9, 4.1), (TAILS, 3.9, 4.1), ("jarvis", 1.5, 2.2)],  # the last has a peak
)
@pytest.mark.parametrize("name", ["gray-As", "PtS2-1T", "In2Se3"])
def test_tails_and_narrow_probes_make_no_columns(name: str, psf: str, low: float, high: float) -> None:
    recorded = record_stem(load_structures("reference")[name], "good", seed=1, rotation=17, psf=psf)
    fit = fit_columns(recorded.image, 0.1, width=None)
    assert fit is not None
    assert fit.ratio == pytest.approx(1, abs=0.03)
    assert low < min(width for _, width in fit.probe.parts) < high
    table = recorded.atoms[recorded.atoms["visible"]]
    _, first = np.unique(np.asarray(table["column"]), return_index=True)
    truth = np.stack([table["x"], table["y"]], 1)[first].astype(float)
    found = np.stack([fit.x, fit.y], 1)[fit.inside]
    assert len(found) == pytest.approx(len(truth), abs=4)  # at the very edge
    inner = truth[((truth > 3) & (truth < 252)).all(1)]
    assert cKDTree(found).query(inner)[0].max() < 0.2


def test_a_profile_that_is_known_is_given() -> None:
    recorded = record_stem(load_structures("reference")["MoS2"], "good", seed=1, psf=TAILS)
    found = fit_columns(recorded.image, 0.1, width=None)
    assert found is not None
    again = fit_columns(recorded.image, 0.1, probe=found.probe)
    assert again is not None
    assert again.probe == found.probe
    assert len(again.x) == pytest.approx(len(found.x), abs=4)
    assert fit_columns(recorded.image, 0.1, probe=Probe.gaussian(5.0)).ratio > again.ratio  # type: ignore[union-attr]


def test_a_recorded_scan_has_the_columns_of_its_crystal(shared_data: Path) -> None:
    """SrTiO3 along [100], a probe with tails, jittering lines: strontium and titanium."""
    pytest.importorskip("rsciio")
    (image,) = read_images(shared_data / "microscopy" / "Acquisition_18.emd")
    assert image.pixel_size is not None
    size = image.pixel_size[0]
    grey = image.data[400:640, 400:640].astype(float)
    fit = fit_columns(grey, size, width=None)
    assert fit is not None
    assert fit.ratio < 1.1
    assert len(np.unique(fit.site)) == 2
    assert fit.site.min() == 0
    assert len(fit.probe.parts) == 2
    assert fit.basis is not None
    lengths = np.hypot(*fit.basis.T) * size
    assert lengths == pytest.approx(3.905, rel=0.08)  # the pixel size of the file is 5 % too large
    found = np.stack([fit.x, fit.y], 1)[fit.inside] * size
    apart = cKDTree(found).query(found, k=2)[0][:, 1]
    assert np.median(apart) == pytest.approx(lengths.mean() / np.sqrt(2), rel=0.02)
    assert apart.std() < 0.1
