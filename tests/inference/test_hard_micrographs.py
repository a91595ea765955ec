"""Micrographs that once got a wrong lattice, a refusal that nobody understands, or no answer in time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scenes import PIXEL, counted, crystal
from scipy import ndimage

from atomvision_hub import analyze, load_structures, simulate_stem
from atomvision_hub.analysis.lattice_classes import class_probabilities
from atomvision_hub.analysis.lattice_columns import find_columns
from atomvision_hub.inference.beam import beam
from atomvision_hub.inference.lattice_parameters import measure_lattice
from atomvision_hub.microscopy import MicroscopeImage
from atomvision_hub.structures.record import LATTICES


def test_a_scan_sheared_by_six_percent_may_still_be_hexagonal() -> None:
    """As a recorded scan of MoS2 is."""
    rows, columns = np.mgrid[:512, :512].astype(float)
    moved = ndimage.map_coordinates(crystal(), [rows, columns + 0.06 * (rows - 256)], order=1, mode="reflect")
    found = measure_lattice(counted(moved[:, 40:-40]), (PIXEL, PIXEL)).parameters
    assert found is not None
    assert found.probabilities["hexagonal"] > 0.1
    assert abs(found.gamma - 120) < 3 * found.gamma_error or found.lattice == "centered_rectangular"


def test_rare_large_distortions_widen_the_choice_of_classes() -> None:
    """A rhombus that 4 % of shear makes of a hexagon."""
    hexagon = np.array([[3.0, 0.0], [-1.5, 1.5 * math.sqrt(3)]])
    sheared = hexagon @ [[1, 0], [0.04, 1]]

    def covariance(distortion: float) -> np.ndarray:
        along = np.zeros((4, 2))
        along[0, 0] = along[1, 1] = sheared[0, 1]
        along[2, 0] = along[3, 1] = sheared[1, 1]
        return along @ along.T * distortion**2 / 2 + 1e-8 * np.eye(4)

    small, large = covariance(0.01), covariance(0.06)
    place = LATTICES.index("hexagonal")
    alone = class_probabilities(sheared, small, 0.05)[place]
    both = class_probabilities(sheared, np.array([small, large]), 0.05)
    assert alone < 0.05 < both[place]
    assert both.sum() == pytest.approx(1)
    same = class_probabilities(sheared, np.array([small, small]), 0.05)
    np.testing.assert_allclose(same, class_probabilities(sheared, small, 0.05), atol=1e-12)


def test_a_second_grain_is_no_superstructure() -> None:
    """The rectangle around the squares of one grain holds a part of the other."""
    layer = load_structures("reference")["MoS2"]
    one, other = (
        simulate_stem(layer, shape=(512, 512), pixel_size=PIXEL, rotation=turn).image for turn in (5, 20)
    )
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    both = np.where(x + 0.3 * y < 330, one, other)
    found = measure_lattice(counted(both / both.max()), (PIXEL, PIXEL)).parameters
    assert found is not None
    assert found.b == pytest.approx(3.196, rel=0.01)


def test_a_few_heavy_atoms_do_not_hide_the_layer() -> None:
    """Graphene with silicon in 4 % of its places and 6 % of them empty."""
    layer = load_structures("reference")["graphene"].repeat((30, 30, 1))
    layer.pbc = False
    chance = np.random.default_rng(0).uniform(size=len(layer))
    layer.numbers[chance < 0.04] = 14
    del layer[np.flatnonzero(chance > 0.94)]
    image = simulate_stem(layer, shape=(384, 384), pixel_size=0.11).image
    answer = measure_lattice(counted(image / image.max(), 400), (0.11, 0.11))
    assert answer.parameters is not None
    assert answer.parameters.lattice == "hexagonal"
    assert answer.parameters.a == pytest.approx(2.462, rel=0.01)


def pattern(beam_strength: float) -> np.ndarray:
    """Spots of a square lattice that fade around the middle."""
    image = np.zeros((384, 384))
    for h in range(-5, 6):
        for k in range(-5, 6):
            strength = math.exp(-0.5 * math.hypot(h, k))
            image[192 + 34 * h, 192 + 34 * k] = strength if h or k else beam_strength
    return np.random.default_rng(0).poisson(3e4 * ndimage.gaussian_filter(image, 2.5) + 1).astype(float)


def test_a_diffraction_pattern_is_told_from_an_image() -> None:
    spots, vectors = pattern(20), np.array([[34.0, 0], [0, 34.0]])
    assert beam(spots, vectors) > 10
    assert beam(pattern(1.0), vectors) is None
    # A particle fades too, but from one column to the next.
    x, y = np.meshgrid(np.arange(384) - 192, np.arange(384) - 192)
    dome = np.sqrt(np.clip(1 - (x**2 + y**2) / 150**2, 0, None))
    columns = (np.cos(x * math.pi / 17) + 1) * (np.cos(y * math.pi / 17) + 1)
    assert beam(dome * columns, vectors) is None
    answer = measure_lattice(spots, None, apparent=0.1)
    assert answer.parameters is None
    assert "a diffraction pattern, it seems" in (answer.reason or "")


def test_coarse_pixels_show_a_lattice_with_a_warning() -> None:
    """0.7 Å/px: columns of 1.7 pixels, four from one to the next."""
    image = counted(crystal(side=256, pixel_size=0.7))
    found = analyze(image, pixel_size=0.7, segmenter="none")
    assert found.parameters is not None
    assert found.parameters.lattice == "hexagonal"
    assert found.parameters.a == pytest.approx(3.196, rel=0.01)
    assert any("narrower than 2 px" in warning for warning in found.warnings)


def test_coarse_pixels_of_tunnelling_microscopes_are_looked_at() -> None:
    """A surface cell of 27 Å needs no fine pixels."""
    y, x = np.mgrid[:200, :200].astype(float)
    waves = sum(
        np.cos(2 * math.pi * (x * math.cos(t) + y * math.sin(t)) / 23.3)
        for t in (0.2, 0.2 + math.pi / 3, 0.2 - math.pi / 3)
    )
    heights = (waves + 0.1 * np.random.default_rng(0).normal(size=x.shape)).astype(np.float32)
    image = MicroscopeImage(heights, (1.0, 1.0), "Z", 0, Path("surface.sxm"), "", "", kind="stm")
    found = analyze(image, pixel_size=1.0, segmenter="none")
    assert found.parameters is not None
    assert found.parameters.lattice == "hexagonal"
    assert found.parameters.a == pytest.approx(23.3 / math.cos(math.pi / 6), rel=0.01)


def waves_of_one_column(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frequencies, amplitudes and noise of a column at the origin of a cell of 100 px."""
    indices = np.stack(np.meshgrid(np.arange(1, side + 1), np.arange(1, side + 1)), axis=-1).reshape(-1, 2)
    frequencies = indices / 100
    amplitudes = np.exp(-((frequencies * 3) ** 2).sum(axis=1)).astype(complex)
    return frequencies, amplitudes, np.full(side**2, 1e-6)


def test_columns_of_large_cells_are_found() -> None:
    found = find_columns(*waves_of_one_column(30), 100 * np.eye(2))
    assert found is not None
    assert len(found.weights) == 1
    np.testing.assert_allclose((found.places + 50) % 100 - 50, 0, atol=1e-3)


def test_columns_of_very_large_cells_are_not_sought() -> None:
    """A spurious cell of thousands of waves would take many seconds."""
    assert find_columns(*waves_of_one_column(46), 100 * np.eye(2)) is None
