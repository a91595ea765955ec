"""Lattice spacings from the power spectrum: right, honestly uncertain, and none where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.analysis import AnalysisError, lattice_spacings

Make = Callable[..., npt.NDArray[np.float64]]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    d=st.floats(0.9, 4.0),
    angle=st.floats(0, 179.9),
    rows=st.integers(90, 170),
    columns=st.integers(90, 170),
    pixel_row=st.floats(0.15, 0.25),
    pixel_column=st.floats(0.15, 0.25),
)
def test_one_set_of_planes(
    waves_image: Make, d: float, angle: float, rows: int, columns: int, pixel_row: float, pixel_column: float
) -> None:
    """Spacing within 0.5 % and direction within 0.5 degrees, whatever the shape of image and pixel."""
    vector = (math.sin(math.radians(angle)) / d, math.cos(math.radians(angle)) / d)
    size = (pixel_row, pixel_column)
    image = waves_image([(vector, 1.0)], (rows, columns), size, noise=0.5)
    peaks = lattice_spacings(image, size, max_spacing=d * 1.2).peaks
    assert len(peaks) == 1
    if abs(math.sin(math.radians(angle))) > 0.05 and abs(math.cos(math.radians(angle))) > 0.05:
        assert peaks[0].d == pytest.approx(d, rel=0.005)
    assert abs((peaks[0].angle - angle + 90) % 180 - 90) < 0.5
    assert abs(peaks[0].d - d) < 6 * peaks[0].uncertainty + 1e-4 * d


@settings(deadline=None, derandomize=True, max_examples=10)
@given(rotation=st.floats(0, 360), pixel_size=st.sampled_from([0.1, 0.15, (0.1, 0.14)]))
def test_simulated_layer(rotation: float, pixel_size: float | tuple[float, float]) -> None:
    """The simulator's images of MoS2 show its planes, {10} strongest, at any rotation and pixel size."""
    layer = load_structures("reference")["MoS2"]
    a = layer.cell.lengths()[0]
    frame = simulate_stem(layer, shape=(200, 220), pixel_size=pixel_size, rotation=rotation)
    peaks = lattice_spacings(frame.image, frame.pixel_size).peaks
    strongest = [peak.d for peak in peaks[:3]]
    assert strongest == pytest.approx([a * math.sqrt(3) / 2] * 3, rel=0.005)
    assert [peak.d for peak in peaks[3:6]] == pytest.approx([a / 2] * 3, rel=0.005)


def test_uncertainties_cover(waves_image: Make) -> None:
    """Of spacings and directions in noise 68 % lie within one standard uncertainty, 95 % within two."""
    generator = np.random.default_rng(7)
    lengths, directions = [], []
    for seed in range(120):
        shape = (int(generator.integers(100, 150)), int(generator.integers(100, 150)))
        size = (float(generator.uniform(0.08, 0.14)), float(generator.uniform(0.08, 0.14)))
        first, between = generator.uniform(0, np.pi), generator.uniform(np.pi / 3, 2 * np.pi / 3)
        waves = []
        for angle in (first, first + between):
            d = generator.uniform(0.8, 1.8)
            waves.append(((np.sin(angle) / d, np.cos(angle) / d), generator.uniform(0.7, 1)))
        image = waves_image(waves, shape, size, seed=seed, noise=float(generator.uniform(1, 3.5)))
        for peak in lattice_spacings(image, size).peaks:
            distances = [
                min(np.hypot(*np.subtract(peak.vector, s * np.array(v))) for s in (1, -1)) for v, _ in waves
            ]
            row, column = waves[int(np.argmin(distances))][0]
            assert min(distances) < 0.05, "a peak where there is no wave"
            lengths.append((peak.d - 1 / np.hypot(row, column)) / peak.uncertainty)
            error = (peak.angle - np.degrees(np.arctan2(row, column)) + 90) % 180 - 90
            directions.append(error / peak.angle_uncertainty)
    assert len(lengths) > 200
    for pulls in (np.abs(lengths), np.abs(directions)):
        # Two and a half standard errors of a share among 230 values.
        assert 0.60 < np.mean(pulls < 1) < 0.77
        assert 0.915 < np.mean(pulls < 2) < 0.99


def test_bent_lattice_is_less_certain() -> None:
    """A lattice that bends across the image has a larger uncertainty, and says so."""
    y, x = np.mgrid[:200, :200] * 0.1
    noise = 0.3 * np.random.default_rng(3).normal(size=(200, 200))
    straight = lattice_spacings(np.cos(2 * np.pi * x / 2.0) + noise, 0.1).peaks[0]
    bent = lattice_spacings(
        np.cos(2 * np.pi * (x + 0.4 * np.sin(2 * np.pi * y / 14)) / 2.0) + noise, 0.1
    ).peaks[0]
    assert straight.unevenness == 1
    assert bent.unevenness > 3
    assert bent.uncertainty > 3 * straight.uncertainty


@pytest.mark.parametrize("seed", range(15))
def test_noise_has_no_spacings(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = (int(generator.integers(16, 260)), int(generator.integers(16, 260)))
    assert not lattice_spacings(generator.normal(size=shape), 0.1).peaks
    assert not lattice_spacings(generator.poisson(0.3, size=shape), 0.1).peaks


def _shapes() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:180, :200].astype(float)
    generator = np.random.default_rng(0)
    blobs = np.zeros((180, 200))
    for row, column in generator.uniform(10, 170, size=(60, 2)):
        blobs += np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18)
    lines = generator.normal(size=(180, 1)) + 0.1 * generator.normal(size=(180, 200))
    square = ((np.abs(x - 100 + 0.3 * y) < 50) & (np.abs(y - 90 - 0.2 * x) < 40)).astype(float)
    return {
        "constant": np.ones((180, 200)),
        "ramp": x + 2 * y,
        "edge": (x + 0.4 * y > 120).astype(float),
        "disk": (np.hypot(y - 90, x - 100) < 40).astype(float),
        "tilted square": square,
        "blobs": blobs,
        "scan lines": lines,
        "one hot pixel": np.eye(1, 180 * 200, 777).reshape(180, 200),
    }


@pytest.mark.parametrize("name", list(_shapes()))
def test_what_is_not_periodic_has_no_spacings(name: str) -> None:
    image = _shapes()[name]
    noise = 0.02 * np.random.default_rng(1).normal(size=image.shape)
    assert not lattice_spacings(image, 0.1).peaks
    assert not lattice_spacings(image + noise, 0.1).peaks


def test_uncalibrated_is_in_pixels(waves_image: Make) -> None:
    image = waves_image([((0.1, 0.05), 1.0)], (128, 128), (1.0, 1.0), noise=0.2)
    found = lattice_spacings(image, None)
    assert (found.unit, found.pixel_size) == ("px", None)
    assert found.peaks[0].d == pytest.approx(1 / math.hypot(0.1, 0.05), rel=1e-3)
    assert found.peaks[0].calibration_uncertainty == 0


def test_calibration_is_a_part_of_its_own(waves_image: Make) -> None:
    image = waves_image([((0.1, 0.05), 1.0)], (128, 128), (1.0, 1.0), noise=0.2)
    peak = lattice_spacings(image, 0.2, calibration_uncertainty=0.03).peaks[0]
    assert peak.calibration_uncertainty == pytest.approx(0.03 * peak.d)
    assert peak.total_uncertainty == pytest.approx(math.hypot(peak.uncertainty, peak.calibration_uncertainty))


def test_scale_of_grey_levels_and_missing_pixels_do_not_matter(waves_image: Make) -> None:
    image = waves_image([((0.1, 0.05), 1.0), ((-0.06, 0.11), 0.5)], (128, 128), (1.0, 1.0), noise=0.2)
    first = lattice_spacings(image, 0.2)
    assert [p.d for p in lattice_spacings(1e6 * image + 5e7, 0.2).peaks] == pytest.approx(
        [p.d for p in first.peaks]
    )
    image[100:] = np.nan
    assert [p.d for p in lattice_spacings(image, 0.2).peaks] == pytest.approx(
        [p.d for p in first.peaks], rel=0.01
    )


def test_the_result_is_plain_data(waves_image: Make) -> None:
    import json

    image = waves_image([((0.1, 0.05), 1.0)], (64, 64), (1.0, 1.0))
    told = json.loads(json.dumps(lattice_spacings(image, (0.2, 0.3)).to_dict()))
    assert told["unit"] == "Å"
    assert told["spacings"][0]["d"] > 0


@pytest.mark.parametrize(
    ("image", "pixel_size", "message"),
    [
        (
            np.zeros((8, 100)),
            0.1,
            r"the image is 8 x 100; give grey levels \[row, column\], at least 16 x 16",
        ),
        (np.zeros((20, 20, 3)), 0.1, "20 x 20 x 3"),
        (np.full((20, 20), np.nan), 0.1, "no finite pixel"),
        (np.zeros((20, 20)), -1.0, "pixel_size is -1.0; give Å/px above 0"),
        ([["a"] * 20] * 20, 0.1, "no array of numbers"),
    ],
)
def test_errors(image: object, pixel_size: float, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        lattice_spacings(image, pixel_size)  # type: ignore[arg-type]


def test_strontium_titanate_of_a_real_microscope(shared_data: Path) -> None:
    """The planes of SrTiO3 in a real image: right to the calibration, which is 4 to 6 % off in this file."""
    microscopy = pytest.importorskip("atomvision_hub.microscopy")
    pytest.importorskip("rsciio")
    image = microscopy.read_images(shared_data / "microscopy" / "Acquisition_18.emd")[0]
    peaks = lattice_spacings(image.data[:512, :512], image.pixel_size).peaks
    expected = [2.761, 2.761, 1.952, 1.952, 3.905, 3.905]
    assert [peak.d for peak in peaks[:6]] == pytest.approx([1.05 * d for d in expected], rel=0.015)
