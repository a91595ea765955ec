"""`simulate_stm`: what it refuses, what it records, and the row made of it."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.stm import LocalDensity, StmFrame, simulate_stm, surrogate_density
from atomvision_hub.simulation.stm.record import MODES, StmRow
from atomvision_hub.structures import flat_layer, load_structures, material_columns
from atomvision_hub.structures.volumes import Volume


@pytest.fixture
def density(graphene: Atoms) -> LocalDensity:
    """Something that falls off by exp(-2 z) above graphene, brighter on the first atom."""
    heights = np.linspace(-1, 6, 36)
    u = np.arange(30) / 30
    wave = 1.2 + np.cos(2 * np.pi * u)[:, None] + 0.1 * np.cos(2 * np.pi * u)
    return LocalDensity(
        values=wave[:, :, None] * np.exp(-2 * heights),
        heights=heights,
        atoms=graphene,
        bias=-0.5,
        bias_reference="band_edge",
        window=(-0.5, 0.0),
        broadening=0.025,
        engine="test",
        parameters={"cutoff": 350.0, "k": [12, 12, 1]},
    )


def test_frame_says_all_that_was_chosen(density: LocalDensity) -> None:
    frame = simulate_stm(density, shape=(20, 30), pixel_size=(0.1, 0.2), rotation=5, shift=(1, 2))
    assert isinstance(frame, StmFrame)
    assert frame.image.shape == (20, 30)
    assert frame.image.dtype == np.float32
    assert frame.pixel_size == (0.1, 0.2)
    assert (frame.bias, frame.bias_reference, frame.window) == (-0.5, "band_edge", (-0.5, 0.0))
    assert (frame.mode, frame.height, frame.isovalue, frame.unit) == ("constant_height", 2.0, None, "e/Å^3")
    assert (frame.engine, frame.rotation, frame.shift) == ("test", 5.0, (1.0, 2.0))


def test_isovalue_is_the_mean_two_angstrom_above_or_what_is_asked(density: LocalDensity) -> None:
    usual = simulate_stm(density, mode="constant_current")
    assert usual.height == 2.0
    assert usual.isovalue == pytest.approx(1.2 * np.exp(-4), rel=1e-9)
    given = simulate_stm(density, mode="constant_current", isovalue=1e-3)
    assert (given.height, given.isovalue, given.unit) == (None, 1e-3, "Å")
    np.testing.assert_allclose(given.image.max(), np.log(2.3 / 1e-3) / 2, atol=1e-3)
    higher = simulate_stm(density, mode="constant_current", height=3.0)
    np.testing.assert_allclose(higher.image - usual.image, 1.0, atol=1e-4)


def test_hollows_without_that_density_show_its_greatest_height(density: LocalDensity) -> None:
    # In a part of the cell the density has its maximum of 0.01 at a height of 0.8 Å.
    values = density.values.copy()
    values[:3, :8] = 1e-2 * np.exp(-((density.heights - 0.83) ** 2))
    hollow = dataclasses.replace(density, values=values)
    assert simulate_stm(density, mode="constant_current").unreached == 0
    frame = simulate_stm(hollow, mode="constant_current", isovalue=0.02, shape=(80, 80))
    assert 0.015 < frame.unreached < 0.03
    heights, reached = hollow.surface(0.02)  # on steps half as wide
    assert not reached[:6:2, :16:2].any()
    np.testing.assert_allclose(heights[:6:2, :16:2], 0.83, atol=1e-6)
    assert frame.parameters()["unreached"] == frame.unreached


def test_coarse_grids_find_the_same_surface_as_fine_ones(density: LocalDensity) -> None:
    # Every third point is 0.25 Å apart; heights are found on steps of 0.05 Å all the same.
    coarse = dataclasses.replace(density, values=density.values[::3, ::3])
    fine, other = (simulate_stm(each, mode="constant_current") for each in (density, coarse))
    np.testing.assert_allclose(fine.image, other.image, atol=0.02)
    assert np.abs(fine.image - other.image).mean() < 2e-3


def test_the_tip_stays_above_the_topmost_atom(density: LocalDensity) -> None:
    frame = simulate_stm(density, mode="constant_current", isovalue=2.2)
    assert frame.image.max() > 0.01
    assert np.median(frame.image) == pytest.approx(0, abs=1e-3)
    assert frame.unreached > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "constant"}, "mode must be 'constant_height' or 'constant_current', not 'constant'"),
        ({"height": 7.0}, "height 7 Å is outside this density, which reaches from -1.00 to 6.00 Å"),
        ({"height": np.nan}, "height must be a finite number"),
        ({"isovalue": 1e-3}, "isovalue is a positive density in e/Å\\^3 for constant_current"),
        ({"mode": "constant_current", "isovalue": -1.0}, "isovalue is a positive density"),
        (
            {"mode": "constant_current", "isovalue": 1e-12},
            "lies outside this density.*choose another isovalue",
        ),
        ({"mode": "constant_current", "isovalue": 1e6}, "lies outside this density.*choose another isovalue"),
        ({"shape": (0, 5)}, "shape must be two positive whole numbers"),
        ({"pixel_size": -0.1}, "pixel_size must be positive"),
        ({"shift": (1, 2, 3)}, "shift must be two finite numbers in Å"),
        ({"rotation": np.inf}, "rotation must be a finite number"),
        ({"bias": 0.5}, "the density has bias \\(V\\) -0.5, not 0.5; give a crystal to compute another"),
        ({"bias": np.nan}, "bias must be a finite number of volts"),
        ({"bias_reference": "fermi"}, "the density has bias_reference band_edge, not fermi"),
        ({"surrogate": True}, "the density has engine test, not surrogate"),
    ],
)
def test_arguments_that_make_no_sense(density: LocalDensity, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        simulate_stm(density, **arguments)
    assert "\n" not in str(caught.value)


def test_a_crystal_needs_an_engine(graphene: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match=r"engine='gpaw' \(for most crystals pip install 'atomvision-hub\[stm\]'\)"
    ):
        simulate_stm(graphene, bias=0.5)
    with pytest.raises(UsageError, match="engine must be 'gpaw' or 'surrogate', not 'vasp'"):
        simulate_stm(graphene, bias=0.5, engine="vasp")
    with pytest.raises(UsageError, match="the GPAW engine needs a bias"):
        simulate_stm(graphene, engine="gpaw")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heights": np.array([0.0, 1.0])}, "density and heights do not fit"),
        ({"heights": np.linspace(6, -1, 36)}, "the heights of a density must ascend"),
        ({"bias_reference": "vacuum"}, "bias_reference must be 'band_edge' or 'fermi', not 'vacuum'"),
    ],
)
def test_densities_that_do_not_fit(density: LocalDensity, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(density, **change)


def test_volumes_that_show_no_surface(graphene: Atoms) -> None:
    atoms = graphene.copy()
    atoms.pbc = True
    values = np.ones((6, 6, 30))
    with pytest.raises(CrystalError, match="x holds a potential, not a density of states") as caught:
        LocalDensity.from_volume(Volume(values, atoms, "eV", "potential", source="x"), bias=0.5)
    assert caught.value.step == "volume"
    bulk = Atoms("Cu", cell=np.eye(3) * 3.0, pbc=True)
    with pytest.raises(CrystalError, match=r"y: the widest gap between atoms is 3.0 Å; a surface needs"):
        LocalDensity.from_volume(Volume(values, bulk, "e/Å^3", "density", source="y"), bias=0.5)
    for empty in (Atoms(cell=np.eye(3) * 9), Atoms("C", cell=[(1, 0, 0), (2, 0, 0), (0, 0, 9)])):
        with pytest.raises(CrystalError, match="the volume: a grid over a cell with atoms is needed"):
            LocalDensity.from_volume(Volume(values, empty, "e/Å^3", "density"), bias=0.5)
    with pytest.raises(UsageError, match="bias must be a finite number of volts"):
        LocalDensity.from_volume(Volume(values, atoms, "e/Å^3", "density"), bias=np.nan)


@pytest.mark.parametrize(
    ("crystal", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("C"), "cell"),
        (Atoms("C", cell=[3, 3, 3], pbc=True), "not two-dimensional"),
        (Atoms("C", [(np.nan, 0, 0)], cell=[3, 3, 20], pbc=(1, 1, 0)), "finite"),
    ],
)
def test_surrogates_need_a_layer(crystal: Atoms, message: str) -> None:
    with pytest.raises(CrystalError, match=message):
        simulate_stm(crystal, surrogate=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("surrogate", [False, True])
def test_the_row_holds_the_frame(density: LocalDensity, mode: Any, surrogate: bool) -> None:
    layer = flat_layer(load_structures("reference")["graphene"])
    frame = simulate_stm(surrogate_density(layer) if surrogate else density, mode=mode, shape=(8, 8))
    parameters = frame.parameters()
    row = StmRow(
        id="x", image=b"", intensity_scale=1.0, intensity_offset=0.0, **parameters, **material_columns(layer)
    )
    assert MODES[row.mode] == mode
    assert row.unit == ("e/Å^3" if mode == "constant_height" else "Å")
    assert (row.bias, row.bias_reference, row.window_low, row.broadening) == (
        (None, None, None, None) if surrogate else (-0.5, "band_edge", -0.5, 0.025)
    )
    assert row.surrogate is surrogate
    settings = json.loads(row.engine_parameters)
    assert settings == (
        {"kappa": 1.0868, "spacing": 0.12} if surrogate else {"cutoff": 350.0, "k": [12, 12, 1]}
    )
    assert row.engine_parameters == json.dumps(settings, sort_keys=True)


def test_every_reference_monolayer_has_a_surrogate_that_fits_its_stem_image() -> None:
    structures = load_structures("reference")
    for identifier in list(structures)[::25]:
        layer = flat_layer(structures[identifier])
        frame = simulate_stm(layer, surrogate=True, shape=(64, 64), height=1.0)
        assert np.isfinite(frame.image).all()
        assert frame.image.shape == simulate_stem(layer, shape=(64, 64)).image.shape
        assert simulate_stm(layer, surrogate=True, mode="constant_current", shape=(16, 16)).image.max() < 4


def test_images_need_no_engine_and_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from atomvision_hub.simulation.stm import simulate_stm; "
        "loaded = {'torch', 'gpaw', 'matplotlib', 'ase.io'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
