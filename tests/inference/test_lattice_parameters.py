"""Lattice parameters of hard images: right within their errors, or not told for a stated reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scenes import HARD, PIXEL, amorphous, counted, crystal, fringes, grains, noise, phases

from atomvision_hub.inference.flatten import blurred, flattened
from atomvision_hub.inference.grains import congruent, multiple, tiles
from atomvision_hub.inference.lattice_parameters import Measured, conventional, measure_lattice
from atomvision_hub.inference.spectrum import fringes as fringe_spacing
from atomvision_hub.inference.spectrum import power_spectrum

#: Of MoS2 in the reference crystals, Å.
EDGE = 3.196


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return crystal()


def measured(image: np.ndarray) -> Measured:
    return measure_lattice(image, (PIXEL, PIXEL))


@pytest.mark.parametrize("name", HARD)
def test_what_spoils_images_does_not_spoil_the_lattice(name: str, image: np.ndarray) -> None:
    spoil, allowed = HARD[name]
    found = measured(spoil(image)).parameters
    assert found is not None
    assert found.lattice == "hexagonal"
    assert found.a == pytest.approx(EDGE, rel=allowed)
    assert found.b == pytest.approx(EDGE, rel=allowed)
    # Three standard errors hold what was done to the image.
    assert abs(found.a - EDGE) < 3 * found.a_error
    assert abs(found.b - EDGE) < 3 * found.b_error
    assert abs(found.gamma - 120) < 3 * found.gamma_error
    assert found.calibration_error == 0.05
    assert min(found.periods) > 3


def test_only_where_the_crystal_is(image: np.ndarray) -> None:
    answer = measured(HARD["vacuum on one side"][0](image))
    assert answer.parameters is not None
    assert answer.parameters.source == "regions"
    left, _top, width, _height = answer.parameters.box
    assert left + width == 512
    assert left >= 224
    assert any("parts of the image show this lattice" in note for note in answer.notes)
    assert all(region.lattice is None for region in answer.regions if region.left + region.width <= 240)


def test_grains_of_one_lattice_are_told(image: np.ndarray) -> None:
    answer = measured(grains(image))
    assert answer.parameters is not None
    assert answer.parameters.a == pytest.approx(EDGE, rel=0.003)
    assert any("2 grains of one lattice in different orientations" in note for note in answer.notes)
    assert {region.grain for region in answer.regions if region.lattice == "hexagonal"} >= {1, 2}


@pytest.mark.parametrize(
    ("make", "reason"),
    [(phases, "different lattices"), (noise, "does not repeat"), (amorphous, "does not repeat")],
)
def test_no_lattice_for_a_stated_reason(make: object, reason: str, image: np.ndarray) -> None:
    answer = measured(make(image))  # type: ignore[operator]
    assert answer.parameters is None
    assert answer.reason is not None
    assert reason in answer.reason


def test_fringes_are_no_lattice(image: np.ndarray) -> None:
    lines = fringes(image)
    assert measured(lines).parameters is None
    spectrum = power_spectrum(lines, (PIXEL, PIXEL), None)
    assert fringe_spacing(spectrum) == pytest.approx(512 * PIXEL / np.hypot(40, 13), rel=0.01)


def test_two_periods_are_too_few() -> None:
    """An 8 Å view of MoS2 repeats 2.5 times: that is no measurement."""
    answer = measure_lattice(crystal(side=80, pixel_size=0.1), (0.1, 0.1))
    assert answer.parameters is None
    assert answer.reason is not None


def test_unequal_pixels_and_pixels_without_size(image: np.ndarray) -> None:
    counts = counted(image)
    oblong = counts.reshape(256, 2, 512).mean(axis=1)
    wide = measure_lattice(oblong, (2 * PIXEL, PIXEL)).parameters
    blind = measure_lattice(counts, None, apparent=PIXEL).parameters
    assert wide is not None
    assert blind is not None
    assert (wide.a, wide.b, wide.unit) == (pytest.approx(EDGE, rel=3e-3), pytest.approx(EDGE, rel=3e-3), "Å")
    assert blind.a == pytest.approx(EDGE / PIXEL, rel=3e-3)
    assert (blind.unit, blind.calibration_error) == ("px", None)
    assert blind.total_errors[0] == blind.a_error
    # Edges in pixels of the file, whatever their shape.
    np.testing.assert_allclose(np.array(wide.vectors_px) * (PIXEL, 2 * PIXEL), wide.vectors)


def test_fine_pixels_are_binned_and_lengths_stay() -> None:
    """0.05 Å/px: binned to 0.2, and the box, the vectors and the origin are in pixels of the file."""
    fine = counted(crystal(side=1200, pixel_size=0.05), 8)
    found = measure_lattice(fine, (0.05, 0.05)).parameters
    assert found is not None
    assert found.a == pytest.approx(EDGE, rel=3e-3)
    assert np.hypot(*found.vectors_px[0]) == pytest.approx(EDGE / 0.05, rel=3e-3)
    assert found.box[2] > 1000
    assert found.origin == (pytest.approx(600, abs=4), pytest.approx(600, abs=4))


def test_errors_grow_with_what_is_assumed(image: np.ndarray) -> None:
    counts = counted(image)
    small = measure_lattice(counts, (PIXEL, PIXEL), distortion=0.005, calibration=0.01).parameters
    large = measure_lattice(counts, (PIXEL, PIXEL), distortion=0.03, calibration=0.1).parameters
    assert small is not None
    assert large is not None
    assert small.b_error < large.b_error
    assert large.total_errors[0] == pytest.approx(np.hypot(large.a_error, 0.1 * large.a))
    assert large.total_errors[2] == large.gamma_error
    assert large.scatter is not None
    assert large.scatter[0] < 0.02


def test_peaks_are_indexed_where_they_are(image: np.ndarray) -> None:
    counts = counted(image)
    found = measured(counts).parameters
    assert found is not None
    spectrum = power_spectrum(counts, (PIXEL, PIXEL), found)
    assert len(spectrum.peaks) >= 9
    assert spectrum.indexed == len(spectrum.peaks)
    first = {
        (abs(peak.h), abs(peak.k)) for peak in spectrum.peaks[:3] if peak.h is not None and peak.k is not None
    }
    assert first == {(1, 0), (0, 1), (1, 1)}
    reciprocal = np.linalg.inv(np.array(found.vectors)).T
    for peak in spectrum.peaks:
        place = np.array((peak.h, peak.k)) @ reciprocal
        assert np.hypot(peak.x - place[0], peak.y - place[1]) == pytest.approx(peak.distance, abs=1e-6)
        assert peak.distance < 0.3 * max(spectrum.resolution)
        assert 1 / np.hypot(peak.x, peak.y) == pytest.approx(peak.d)
    # Half the lattice vectors: every second peak is between its points, and gets no indices.
    half = dataclasses.replace(found, vectors=tuple(tuple(np.array(v) / 2) for v in found.vectors))
    coarse = power_spectrum(counts, (PIXEL, PIXEL), half)
    assert 0 < coarse.indexed < len(coarse.peaks)


def test_centred_lattices_have_no_odd_indices() -> None:
    counts = counted(crystal("SnS"))
    found = measured(counts).parameters
    assert found is not None
    assert found.lattice == "centered_rectangular"
    assert found.gamma == pytest.approx(90, abs=0.1)
    spectrum = power_spectrum(counts, (PIXEL, PIXEL), found)
    assert spectrum.indexed == len(spectrum.peaks)
    assert all(
        (peak.h + peak.k) % 2 == 0 for peak in spectrum.peaks if peak.h is not None and peak.k is not None
    )


def test_flat_images_are_even() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(1, 5, 200)
    uneven = ramp[None] * (10 + rng.normal(size=(160, 200)))
    even = flattened(uneven)
    assert abs(even.mean()) < 0.1
    parts = [even[:, :50].std(), even[:, 150:].std()]
    assert parts[0] == pytest.approx(parts[1], rel=0.15)
    assert np.isfinite(flattened(np.ones((64, 64)))).all()
    np.testing.assert_allclose(blurred(np.full((100, 90), 3.0), 9.0), 3.0)


def test_lattices_are_compared_up_to_basis_and_orientation() -> None:
    square = np.eye(2) * 4
    assert multiple(square, np.array([[4.0, 0.0], [4.0, 4.0]])) == 1
    assert multiple(square, np.diag([4.0, 8.0])) == 2
    assert multiple(np.diag([4.0, 8.0]), square) == 0
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    assert multiple(square, square @ turn) == 0
    assert congruent(square, square @ turn)
    assert not congruent(square, square * 1.2)
    rhombus = conventional(np.array([[2.0, 1.5], [-2.0, 1.5]]), 3)
    np.testing.assert_allclose(np.abs(rhombus), [[0, 3], [4, 0]])


@pytest.mark.parametrize("shape", [(512, 512), (300, 1000), (130, 128)])
def test_squares_cover_what_they_can(shape: tuple[int, int]) -> None:
    seen = np.zeros(shape, dtype=int)
    for left, top, width, height in tiles(shape, 128, 16):
        assert (width, height) == (128, 128)
        seen[top : top + height, left : left + width] += 1
        assert left + width <= shape[1]
        assert top + height <= shape[0]
    assert seen.min() >= 1
