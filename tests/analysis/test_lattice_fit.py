"""Lattice from the image alone: known crystals, what is no lattice, calibration, real files, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.analysis.lattice_classes import class_probabilities
from atomvision_hub.analysis.lattice_fit import LatticeFit, _conventional, fit_lattice
from atomvision_hub.analysis.self_correlation import repeating_shifts
from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.structures import classify_lattice, load_structures
from atomvision_hub.structures.lattice import CENTERED, OBLIQUE, SQUARE
from atomvision_hub.structures.record import LATTICES

Array = npt.NDArray[np.float64]


@pytest.mark.parametrize("name", ["MoS2", "graphene", "FeSe", "SnS", "black-P", "WTe2-1Tp", "CrSBr"])
def test_known_crystals(name: str) -> None:
    """Each in eight bits: the class, and the cell far better than to 0.3 % and 0.2 degrees."""
    crystal = load_structures("reference")[name]
    frame = simulate_stem(crystal, rotation=17, shift=(0.3, 1.1))
    fit = fit_lattice(to_grey(frame.image)[0], frame.pixel_size)
    truth = classify_lattice(crystal)
    assert fit.lattice == truth.projected
    assert fit.a == pytest.approx(truth.projected_cell.a, rel=3e-4)
    assert fit.b == pytest.approx(truth.projected_cell.b, rel=3e-4)
    assert fit.gamma == pytest.approx(truth.projected_cell.gamma, abs=0.02)
    assert fit.margin == pytest.approx(truth.projected_margin, abs=2e-3)
    assert fit.distortion == 0
    assert fit.jitter == 0


@pytest.mark.parametrize("name", ["MoS2", "FeSe", "SnS", "black-P"])
def test_a_usual_recording(name: str) -> None:
    """Noise, jitter and drift: the class, the cell within three standard errors, and the jitter itself."""
    crystal = load_structures("reference")[name]
    recorded = record_stem(crystal, "typical", seed=4, rotation=17)
    fit = fit_lattice(recorded.image, 0.1)
    cell = classify_lattice(crystal).projected_cell
    assert fit.lattice == classify_lattice(crystal).projected
    assert fit.a is not None
    assert fit.a_error is not None
    assert abs(fit.a - cell.a) < 3 * fit.a_error
    assert fit.jitter == pytest.approx(0.1, rel=0.25)
    assert fit.distortion > 0


def _nothing(name: str) -> Array:
    generator = np.random.default_rng(5)
    y, x = np.mgrid[:160, :160] * 0.1
    image = np.zeros(x.shape)
    if name == "counts":
        image += 0.2
    if name == "uniform":
        return np.full(x.shape, 3.0)
    if name == "scan lines":
        image += generator.uniform(size=(160, 1))
    if name == "film":
        image += np.abs(5 * ndimage.gaussian_filter(generator.normal(size=x.shape), 5))
    for a, b in generator.uniform(0, 16, ({"one atom": 1, "amorphous": 40}.get(name, 0), 2)):
        image += np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.5)
    if name == "fringes":
        image += 1 + np.cos(2 * np.pi * (x + 0.4 * y) / 2.1)
    if name == "edge":
        image += x + 0.4 * y > 10
    return np.asarray(generator.poisson(20 * image + 0.05), dtype=float)


@pytest.mark.parametrize(
    "name",
    ["counts", "uniform", "vacuum", "scan lines", "film", "one atom", "amorphous", "fringes", "edge"],
)
def test_what_is_no_lattice(name: str) -> None:
    fit = fit_lattice(_nothing(name), 0.1)
    assert (fit.lattice, fit.vectors, fit.probabilities) == (None, None, ())
    assert fit.score < 0.8


def test_without_calibration_lengths_are_in_pixels() -> None:
    frame = simulate_stem(load_structures("reference")["MoS2"], pixel_size=0.125, rotation=5)
    fit, calibrated = fit_lattice(frame.image), fit_lattice(frame.image, 0.125)
    assert (fit.unit, fit.pixel_size, fit.lattice) == ("px", None, "hexagonal")
    assert fit.a is not None
    assert calibrated.a == pytest.approx(0.125 * fit.a)


def test_pixels_need_not_be_square_nor_images() -> None:
    crystal = load_structures("reference")["black-P"]
    frame = simulate_stem(crystal, shape=(180, 300), pixel_size=(0.17, 0.08), rotation=33)
    fit = fit_lattice(frame.image, (0.17, 0.08))
    truth = classify_lattice(crystal)
    assert fit.lattice == truth.projected
    assert fit.a == pytest.approx(truth.projected_cell.a, rel=5e-4)
    assert fit.b == pytest.approx(truth.projected_cell.b, rel=5e-4)
    assert fit.vectors is not None
    assert fit.vectors_px is not None
    np.testing.assert_allclose(fit.vectors_px * (0.08, 0.17), fit.vectors)


def test_pixels_that_are_not_finite_are_survived() -> None:
    frame = simulate_stem(load_structures("reference")["MoS2"])
    image = np.random.default_rng(2).poisson(5 * frame.image / frame.image.mean()).astype(float)
    image[100:104, 40:46] = np.nan
    assert fit_lattice(image, 0.1).a == pytest.approx(fit_lattice(frame.image, 0.1).a, rel=0.01)


def test_the_result_is_plain_data() -> None:
    frame = simulate_stem(load_structures("reference")["SnS"])
    told = json.loads(json.dumps(fit_lattice(frame.image, 0.1).to_dict(), allow_nan=False))
    assert told["unit"] == "Å"
    assert list(told["probabilities"]) == list(LATTICES)
    assert sum(told["probabilities"].values()) == pytest.approx(1)
    nothing = json.loads(json.dumps(fit_lattice(np.ones((32, 32))).to_dict(), allow_nan=False))
    assert nothing["lattice"] is None


@pytest.mark.parametrize("label", [SQUARE, CENTERED, OBLIQUE])
def test_errors_of_the_cell_follow_from_those_of_the_vectors(label: int) -> None:
    """Beside many cells of vectors drawn from the covariance."""
    vectors = {
        SQUARE: np.array([[2.9, 0.4], [-0.3, 3.0]]),
        CENTERED: np.array([[2.9, 0.2], [-0.7, 2.95]]),
        OBLIQUE: np.array([[3.0, 0.3], [-1.0, -4.0]]),
    }[label]
    generator = np.random.default_rng(0)
    root = 0.003 * generator.normal(size=(4, 4))
    cell, errors = _conventional(vectors, root @ root.T, label)
    draws = [
        _conventional(vectors + (root @ generator.normal(size=4)).reshape(2, 2), np.zeros((4, 4)), label)[0]
        for _ in range(4000)
    ]
    np.testing.assert_allclose(np.mean(draws, axis=0), cell, atol=5e-3)
    np.testing.assert_allclose(np.std(draws, axis=0), errors, rtol=0.06)


def test_the_less_sure_the_vectors_the_sooner_a_near_miss_is_symmetric() -> None:
    nearly = np.array([[3.0, 0.0], [0.05, 3.08]])
    sure = class_probabilities(nearly, np.eye(4) * 1e-8, 0.02)
    unsure = class_probabilities(nearly, np.eye(4) * 0.04**2, 0.02)
    assert sure[SQUARE] < 0.01
    assert unsure[SQUARE] > 0.5
    np.testing.assert_allclose([sure.sum(), unsure.sum()], 1)


def test_shifts_correlate_as_counted() -> None:
    """The coefficient over the overlap, beside the definition."""
    image = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(60, 50)), 2.5)
    shifts, heights = repeating_shifts(image)
    for (x, y), height in list(zip(shifts, heights, strict=True))[:5]:
        dx, dy = round(x), round(y)
        one = image[dy:, max(dx, 0) : 50 + min(dx, 0)]
        other = image[: 60 - dy, max(-dx, 0) : 50 - max(dx, 0)]
        assert height == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1], abs=0.03)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((8, 100)), {}, r"the image is 8 x 100; give grey levels \[row, column\], at least 16 x 16"),
        (np.full((20, 20), np.nan), {}, "no finite pixel"),
        (np.zeros((20, 20)), {"pixel_size": -1.0}, "pixel_size is -1.0; give Å/px above 0"),
        (np.zeros((20, 20)), {"distortion": math.nan}, "distortion is nan; give a number from 0"),
        ([["a"] * 20] * 20, {}, "no array of numbers"),
    ],
)
def test_errors(image: object, options: dict[str, float], message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        fit_lattice(image, **options)  # type: ignore[arg-type]


def test_strontium_titanate_of_a_real_microscope(shared_data: Path) -> None:
    """Square, 3.905 Å, to the calibration and the scan of this file, which are 5 % and 1 degree off."""
    microscopy = pytest.importorskip("atomvision_hub.microscopy")
    pytest.importorskip("rsciio")
    image = microscopy.read_images(shared_data / "microscopy" / "Acquisition_18.emd")[0]
    fit: LatticeFit = fit_lattice(image.data[256:768, 256:768], image.pixel_size)
    assert fit.lattice == "square"
    assert fit.a == pytest.approx(1.05 * 3.905, rel=0.015)
    assert fit.b == pytest.approx(1.05 * 3.905, rel=0.015)
    assert fit.gamma == pytest.approx(90, abs=1.5)
    assert fit.score > 0.95


def test_carbon_film_and_diffraction_of_real_microscopes_are_no_lattice(shared_data: Path) -> None:
    microscopy = pytest.importorskip("atomvision_hub.microscopy")
    pytest.importorskip("rsciio")
    for name in ("olympus_SIS.tif", "multi_signal.dm3", "test_diffraction_pattern.dm3"):
        image = microscopy.read_images(shared_data / "microscopy" / name)[0]
        assert fit_lattice(image.data, image.pixel_size).lattice is None, name
