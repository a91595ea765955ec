"""The GPAW adapter: what it decides by itself, and one small real calculation."""

from __future__ import annotations

import importlib.metadata
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest

from atomvision_hub import load_structures
from atomvision_hub.errors import CrystalError, MissingExtraError, UsageError
from atomvision_hub.simulation import gpaw_engine
from atomvision_hub.simulation.stm import LocalDensity, simulate_stm
from atomvision_hub.simulation.stm_recipe import (
    Recipe,
    band_edges,
    calculated_cell,
    is_polarised,
    k_points,
    ringing,
    window_weights,
)

RECIPE = Recipe()


def hide_gpaw(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name.startswith("gpaw"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_without_gpaw_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_gpaw(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"CC=g\+\+ pip install 'atomvision-hub\[stm\]'") as caught:
        gpaw_engine.state_density(load_structures("reference")["graphene"])
    assert "\n" not in str(caught.value)


def test_the_extra_that_the_error_names_brings_the_engine(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "atomvision-hub"
    assert {item.split(">=")[0] for item in project["optional-dependencies"]["stm"]} == {"gpaw", "gpaw-data"}
    assert not any(item.startswith("gpaw") for item in project["dependencies"])


def test_shipped_volumes_need_no_gpaw(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_gpaw(monkeypatch)
    frame = simulate_stm(load_structures("reference")["graphene"], bias=-0.5, engine="gpaw", shape=(32, 32))
    assert frame.image.shape == (32, 32)
    assert frame.engine == "gpaw"


def test_large_cells_are_refused_before_anything_runs() -> None:
    pytest.importorskip("gpaw", reason="GPAW is not installed: CC=g++ pip install 'atomvision-hub[stm]'")
    layer = load_structures("reference")["graphene"] * (4, 4, 1)
    with pytest.raises(CrystalError, match="32 atoms, max_atoms allows 24") as caught:
        gpaw_engine.state_density(layer)
    assert caught.value.step == "dft"


@pytest.mark.parametrize("biases", [(), (0.0,), (0.5, float("nan")), (float("inf"),)])
def test_a_bias_must_open_a_window(biases: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="biases must be finite and not zero"):
        gpaw_engine.state_density(load_structures("reference")["graphene"], biases=biases)


@pytest.mark.parametrize("name", ["graphene", "MoS2", "black-P", "SnS", "NbOCl2"])
def test_k_points_are_dense_enough_and_hexagonal_ones_hold_k(name: str) -> None:
    cell = load_structures("reference")[name].cell
    counts = k_points(cell.array, 30.0)
    lengths = cell.lengths()[:2]
    assert all(count * length >= 30.0 - 1e-6 for count, length in zip(counts, lengths, strict=True))
    assert all((count - 3) * length < 30.0 for count, length in zip(counts, lengths, strict=True))
    if name in ("graphene", "MoS2"):
        assert counts[0] == counts[1]
        assert counts[0] % 3 == 0


def test_the_layer_is_centred_and_keeps_its_place_in_the_plane() -> None:
    atoms = load_structures("reference")["MoS2"]
    layer = calculated_cell(atoms, Recipe(vacuum=6.0))
    z = layer.positions[:, 2]
    assert z.min() == pytest.approx(6.0)
    assert layer.cell[2, 2] - z.max() == pytest.approx(6.0)
    assert np.allclose(layer.positions[:, :2], atoms.positions[:, :2])


def test_open_shells_are_polarised_but_iron_chalcogenides_are_not() -> None:
    crystals = load_structures("reference")
    assert is_polarised(crystals["CrCl3"], RECIPE)
    assert not is_polarised(crystals["FeTe"], RECIPE)
    assert not is_polarised(crystals["MoS2"], RECIPE)
    assert is_polarised(crystals["MoS2"], Recipe(spin="polarised"))
    assert not is_polarised(crystals["CrCl3"], Recipe(spin="paired"))


def bands(*ranges: tuple[float, float]) -> np.ndarray:
    """Return bands that sweep ranges of energy, shape (1, 11, bands)."""
    return np.stack([np.linspace(low, high, 11) for low, high in ranges], axis=-1)[None]


def test_the_gap_is_found_by_band_crossing() -> None:
    assert band_edges(bands((-5, -1.2), (0.7, 3.0))) == pytest.approx((-1.2, 0.7))
    # At every single k-point there is a gap, and yet the band crosses: a metal.
    assert band_edges(bands((-5, -2), (-0.8, 0.9), (1.5, 4))) == (0.0, 0.0)
    assert band_edges(bands((-5, 0.0), (0.0, 4))) == pytest.approx((0.0, 0.0))


def test_windows_start_at_the_band_edge_or_at_the_fermi_level() -> None:
    energies = np.array([[[-2.0, -1.2, -0.8, 0.7, 0.9, 1.9]]])
    edges = (-0.8, 0.7)
    low, high, weights = window_weights(energies, edges, 0.5, "band_edge", RECIPE)
    assert (low, high) == pytest.approx((0.7, 1.2))
    assert np.allclose(weights[0, 0], [0, 0, 0, 1, 1, 0], atol=1e-4)
    low, high, weights = window_weights(energies, edges, -0.5, "band_edge", RECIPE)
    assert (low, high) == pytest.approx((-1.3, -0.8))
    assert np.allclose(weights[0, 0, :3], [0, 1 / (1 + math.exp(-0.1 / 0.025)), 1], atol=1e-4)
    assert not weights[0, 0, 3:].any()
    low, high, weights = window_weights(energies, edges, 1.0, "fermi", RECIPE)
    assert (low, high) == (0.0, 1.0)
    assert np.allclose(weights[0, 0], [0, 0, 0, 1, 0.98, 0], atol=0.01)
    # A metal: half of what lies at the Fermi level belongs to either sign.
    for bias in (0.5, -0.5):
        _, _, weights = window_weights(np.zeros((1, 1, 1)), (0.0, 0.0), bias, "band_edge", RECIPE)
        assert weights[0, 0, 0] == pytest.approx(0.5)


def test_ringing_is_the_share_of_waves_that_are_too_short() -> None:
    layer = load_structures("reference")["FeTe"]
    x = np.arange(24) / 24
    smooth = 1 + 0.5 * np.cos(2 * np.pi * x)[:, None] + np.zeros(24)
    short = 0.1 * np.cos(2 * np.pi * 8 * x)  # 8 waves on 3.8 Å

    def density(plane: np.ndarray) -> LocalDensity:
        return LocalDensity(
            np.stack([plane, plane], -1), np.array([1.0, 3.0]), layer, 0.5, "fermi", None, 0, ""
        )

    assert ringing(density(smooth)) == pytest.approx(0, abs=1e-9)
    assert ringing(density(smooth + short)) == pytest.approx(0.1 / np.hypot(0.5, 0.1))
    assert ringing(density(1e-12 * (smooth + short))) == 0  # no states: nothing to judge
    assert ringing(density(np.ones((24, 24)))) == 0


@pytest.mark.slow
def test_a_real_calculation_has_the_symmetry_of_the_crystal() -> None:
    pytest.importorskip("gpaw", reason="GPAW is not installed: CC=g++ pip install 'atomvision-hub[stm]'")
    graphene = load_structures("reference")["graphene"]
    # Coarse, but both Dirac points are among the k-points: irreducible ones alone would break the symmetry.
    recipe = Recipe(cutoff=250.0, k_length=7.0, vacuum=5.0, fewest_states=0, empty_bands=4)
    states = gpaw_engine.state_density(graphene, biases=(0.5, -0.5), recipe=recipe)
    assert states.facts["gap"] < 0.1
    assert states.facts["k_points"] == [3, 3]
    assert [window.bias for window in states.windows] == [0.5, -0.5]
    for window in states.windows:
        density = gpaw_engine.full_density(states, window)
        plane = density.plane(2.0)
        assert plane.shape[0] == plane.shape[1]
        # Mirror and inversion symmetry of the honeycomb, on the grid.
        assert np.allclose(plane, plane.T, rtol=1e-6)
        assert np.allclose(plane, np.roll(plane[::-1, ::-1], 1, axis=(0, 1)), rtol=1e-6)
        assert plane[0, 0] < 0.05 * plane.max()  # the hollow
        # Two Dirac points among nine k-points, each with two bands and two spins half inside the window:
        # 2 / 9 * 2 * 2 / 2 electrons a cell, less what the pseudo wave functions leave inside the spheres.
        electrons = window.values.mean() * states.atoms.cell.volume
        assert 0.2 < electrons < 4 / 9
