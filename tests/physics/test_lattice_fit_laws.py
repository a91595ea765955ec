"""Laws of the lattice fit: what an image's pose, scale and noise may and may not change; superstructures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.analysis.lattice_fit import LatticeFit, fit_lattice
from atomvision_hub.analysis.lattice_symmetry import asymmetries
from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.simulation.acquisition import Acquisition, Dose, LineJitter, record_stem
from atomvision_hub.structures import classify_lattice, load_structures

LAW = settings(deadline=None, derandomize=True, max_examples=8)
Array = npt.NDArray[np.float64]
CRYSTALS = load_structures("reference")


def layer(vectors: list[list[float]], columns: list[tuple[str, float, float]]) -> Atoms:
    """A flat crystal of in-plane vectors (Å) and columns at fractions of them."""
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = vectors, 20
    places = [(u, v, 0.5) for _, u, v in columns]
    return Atoms(
        [name for name, _, _ in columns], scaled_positions=places, cell=cell, pbc=(True, True, False)
    )


def seen(atoms: Atoms, **options: float) -> LatticeFit:
    """The fit of an image in eight bits."""
    return fit_lattice(to_grey(simulate_stem(atoms, rotation=21, **options).image)[0], 0.1)  # type: ignore[arg-type]


@given(
    name=st.sampled_from(["MoS2", "FeSe", "SnS", "black-P", "WTe2-1Tp"]),
    rotation=st.floats(0, 360),
    x=st.floats(0, 10),
    y=st.floats(0, 10),
    size=st.floats(0.07, 0.2),
)
@LAW
def test_pose_and_pixel_size_do_not_change_the_lattice(
    name: str, rotation: float, x: float, y: float, size: float
) -> None:
    crystal = CRYSTALS[name]
    frame = simulate_stem(crystal, rotation=rotation, shift=(x, y), pixel_size=size)
    fit, truth = fit_lattice(to_grey(frame.image)[0], size), classify_lattice(crystal)
    assert fit.lattice == truth.projected
    assert [fit.a, fit.b] == pytest.approx([truth.projected_cell.a, truth.projected_cell.b], rel=1e-3)
    assert fit.gamma == pytest.approx(truth.projected_cell.gamma, abs=0.05)


@given(factor=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@LAW
def test_unit_of_grey_levels_does_not_matter(factor: float, offset: float) -> None:
    image = simulate_stem(CRYSTALS["SnS"], rotation=9, shape=(128, 128)).image.astype(float)
    first, second = fit_lattice(image, 0.1), fit_lattice(factor * (image + offset), 0.1)
    assert second.lattice == first.lattice
    assert first.vectors is not None
    assert second.vectors is not None
    index = first.vectors @ np.linalg.inv(second.vectors)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-4)


def test_a_transposed_image_has_transposed_vectors() -> None:
    image = simulate_stem(CRYSTALS["SnS"], rotation=9).image
    first, second = fit_lattice(image, 0.1), fit_lattice(image.T, 0.1)
    assert first.vectors is not None
    assert second.vectors is not None
    index = first.vectors[:, ::-1] @ np.linalg.inv(second.vectors)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    assert abs(np.linalg.det(index)) == pytest.approx(1, abs=1e-3)


def test_vectors_are_those_of_the_crystal_in_the_image() -> None:
    crystal = CRYSTALS["black-P"]
    fit = fit_lattice(simulate_stem(crystal, rotation=30).image, 0.1)
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    true = classify_lattice(crystal).projected_cell.reduced @ np.array([[c, s], [-s, c]])
    assert fit.vectors is not None
    index = true @ np.linalg.inv(fit.vectors)
    np.testing.assert_allclose(index, np.rint(index), atol=2e-3)


@pytest.mark.parametrize(
    ("columns", "lattice", "a", "b"),
    [
        # One beryllium column, a hundredth as bright, in two cells of molybdenum.
        ([("Mo", 0, 0), ("Mo", 0.5, 0), ("Be", 0.25, 0.5)], "rectangular", 3.2, 6.4),
        # Neighbours in the periodic table.
        ([("Mo", 0, 0), ("Tc", 0.5, 0)], "rectangular", 3.2, 6.4),
        # The same element: half the cell.
        ([("Mo", 0, 0), ("Mo", 0.5, 0)], "square", 3.2, 3.2),
        # Dimers by 0.16 Å, and by so little that a crystal's label forgives it.
        ([("Mo", 0, 0), ("Mo", 0.525, 0)], "rectangular", 3.2, 6.4),
        ([("Mo", 0, 0), ("Mo", 0.502, 0)], "square", 3.2, 3.2),
    ],
)
def test_superstructures(columns: list[tuple[str, float, float]], lattice: str, a: float, b: float) -> None:
    crystal = layer([[6.4, 0], [0, 3.2]], columns)
    assert classify_lattice(crystal).projected == lattice
    fit = seen(crystal)
    assert fit.lattice == lattice
    assert [fit.a, fit.b] == pytest.approx([a, b], rel=1e-3)


def test_a_cell_of_which_three_are_in_view() -> None:
    columns = [("Mo", u / 4, v / 4) for u in range(4) for v in range(4)]
    columns[5] = ("W", 0.25, 0.25)
    fit = seen(layer([[8.4, 0], [1.1, 8.4]], columns))
    assert fit.lattice == "centered_rectangular" or fit.b == pytest.approx(math.hypot(1.1, 8.4), rel=1e-3)
    assert fit.vectors is not None
    assert abs(np.linalg.det(fit.vectors)) == pytest.approx(8.4 * 8.4, rel=1e-3)


def test_errors_are_honest_under_noise() -> None:
    """True vectors stray from those found by one standard error, root mean square over images."""
    crystal = CRYSTALS["SnS"]
    frame = simulate_stem(crystal, shape=(128, 128), pixel_size=0.15, rotation=12)
    true = fit_lattice(frame.image, 0.15).vectors_px
    assert true is not None
    generator = np.random.default_rng(3)
    pulls: list[float] = []
    for _ in range(30):
        noisy = generator.poisson(10 * frame.image / frame.image.mean())
        fit = fit_lattice(noisy, 0.15)
        assert fit.vectors_px is not None
        assert fit.covariance_px is not None
        index = np.rint(true @ np.linalg.inv(fit.vectors_px))
        change = np.kron(index, np.eye(2))
        errors = np.sqrt(np.diag(change @ fit.covariance_px @ change.T))
        pulls += ((index @ fit.vectors_px - true).ravel() / errors).tolist()
    assert 0.7 < float(np.sqrt(np.mean(np.square(pulls)))) < 1.4


def test_more_electrons_tell_the_lattice_better() -> None:
    frame = simulate_stem(CRYSTALS["MoS2"], rotation=12)
    generator = np.random.default_rng(3)
    spread = []
    for electrons in (3, 30, 300):
        fit = fit_lattice(generator.poisson(electrons * frame.image / frame.image.mean()), 0.1)
        assert fit.covariance_px is not None
        spread.append(float(np.trace(fit.covariance_px)))
    assert spread[0] > 3 * spread[1] > 9 * spread[2]


def test_straight_lines_have_no_jitter_and_jitter_is_measured() -> None:
    frame = simulate_stem(CRYSTALS["SnS"], rotation=12)
    counts = np.random.default_rng(3).poisson(3 * frame.image / frame.image.mean())
    assert fit_lattice(counts, 0.1).jitter == 0
    acquisition = Acquisition((Dose(electrons=2000), LineJitter(rms=0.15)))
    recorded = record_stem(CRYSTALS["SnS"], acquisition, seed=2, rotation=12)
    assert fit_lattice(recorded.image, 0.1).jitter == pytest.approx(0.15, rel=0.15)


def _content(columns: list[tuple[float, float, float]]) -> dict[str, float]:
    h, k = np.mgrid[0:4, -3:4].reshape(2, -1)
    half = (h > 0) | (k > 0)
    indices = np.stack([h[half], k[half]], axis=1)
    waves = sum(weight * np.exp(-2j * np.pi * (indices @ (x, y))) for weight, x, y in columns)
    power = np.abs(waves) ** 2 * np.exp(-0.3 * (indices**2).sum(axis=1))
    found = asymmetries(indices, indices / 3.0, power, np.full(len(indices), 1e-12))
    return {name: one.value for name, one in found.items() if one is not None}


def test_symmetry_of_what_repeats() -> None:
    """Four columns on a fourfold axis, then one of them moved; two on a mirror line."""
    wheel = [(1.0, 0.2, 0.07), (1.0, -0.07, 0.2), (1.0, -0.2, -0.07), (1.0, 0.07, -0.2)]
    assert _content(wheel)["fourfold"] < 1e-9
    assert _content(wheel)["mirror u"] > 1e-2
    assert _content([*wheel[:3], (1.0, 0.13, -0.2)])["fourfold"] > 1e-3
    pair = [(1.0, 0.0, 0.1), (0.6, 0.0, 0.45), (0.4, 0.5, 0.3)]
    assert _content(pair)["mirror u"] < 1e-9
    assert _content(pair)["fourfold"] > 1e-2
