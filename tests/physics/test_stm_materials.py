"""What STM shows of real materials, from volumes of two codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms

from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.stm import LocalDensity, StmFrame, simulate_stm
from atomvision_hub.structures import flat_layer, load_structures
from atomvision_hub.structures.volumes import read_volume

VIEW: dict[str, Any] = {"shape": (160, 160), "rotation": 13.0}
MODES = ("constant_height", "constant_current")


def at_sites(frame: StmFrame, atoms: Atoms, number: int) -> float:
    """Mean of an image over the pixels nearest to the atoms of one element."""
    table = simulate_stem(atoms, **VIEW).atoms
    table = table[(table["number"] == number) & table["visible"]]
    return float(frame.image[np.rint(table["y"]).astype(int), np.rint(table["x"]).astype(int)].mean())


def hollows(frame: StmFrame, atoms: Atoms) -> float:
    """Mean over the hexagons' middles: a honeycomb's third sublattice."""
    ghost = atoms.copy()
    middle = 2 * atoms.positions[0] - atoms.positions[1]
    ghost.append("H")
    ghost.positions[-1] = middle
    return at_sites(frame, ghost, 1)


def shipped(name: str, bias: float) -> LocalDensity:
    from atomvision_hub.simulation.stm_library import local_densities

    return local_densities(load_structures("reference")[name], [bias])[0]


def correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.fixture(params=["cube", "shipped"])
def boron_nitride(request: pytest.FixtureRequest) -> dict[int, LocalDensity]:
    """Densities of empty and filled states of h-BN, by the sign of the bias."""
    if request.param == "shipped":
        return {1: shipped("h-BN", 0.5), -1: shipped("h-BN", -0.5)}
    folder: Path = request.getfixturevalue("shared_data") / "stm" / "volumes"
    names = {1: "hBN_conduction_1eV.cube.gz", -1: "hBN_valence_1eV.cube.gz"}
    return {
        sign: LocalDensity.from_volume(read_volume(folder / name), bias=sign, bias_reference="band_edge")
        for sign, name in names.items()
    }


@pytest.mark.parametrize("mode", MODES)
def test_boron_is_bright_in_empty_states_and_nitrogen_in_filled_ones(
    boron_nitride: dict[int, LocalDensity], mode: Any
) -> None:
    empty, filled = (simulate_stm(boron_nitride[sign], mode=mode, **VIEW) for sign in (1, -1))
    boron, nitrogen = (at_sites(empty, empty.density.atoms, number) for number in (5, 7))
    assert boron > nitrogen
    boron, nitrogen = (at_sites(filled, filled.density.atoms, number) for number in (5, 7))
    assert nitrogen > boron
    assert correlation(empty.image, filled.image) < 0.5


@pytest.mark.parametrize("source", ["cube", "shipped"])
@pytest.mark.parametrize("mode", MODES)
def test_graphene_is_a_honeycomb(source: str, mode: Any, request: pytest.FixtureRequest) -> None:
    if source == "shipped":
        density = shipped("graphene", -0.5)
    else:
        folder: Path = request.getfixturevalue("shared_data") / "stm" / "volumes"
        density = LocalDensity.from_volume(read_volume(folder / "graphene_occ_1.5eV.cube.gz"), bias=-1.5)
    frame = simulate_stm(density, mode=mode, **VIEW)
    carbon, hollow = at_sites(frame, density.atoms, 6), hollows(frame, density.atoms)
    assert carbon > hollow
    # Both sublattices alike, and bonds brighter than hollows: the image repeats the atoms, not every second.
    tables = simulate_stem(density.atoms, **VIEW).atoms
    values = [
        frame.image[np.rint(t["y"]).astype(int), np.rint(t["x"]).astype(int)].mean()
        for t in (tables[tables["visible"] & (tables["index"] == k)] for k in (0, 1))
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=0.02)
    assert frame.image.min() == pytest.approx(hollow, abs=0.2 * float(np.ptp(frame.image)))


@pytest.mark.parametrize("bias", [0.5, -0.5])
@pytest.mark.parametrize("mode", MODES)
def test_molybdenum_disulphide_shows_its_sulphur(bias: float, mode: Any) -> None:
    density = shipped("MoS2", bias)
    frame = simulate_stm(density, mode=mode, **VIEW)
    sulphur, metal = (at_sites(frame, density.atoms, number) for number in (16, 42))
    assert sulphur > metal
    assert sulphur > 0.9 * frame.image.max() or frame.image.max() - sulphur < 0.05


def test_bias_changes_black_phosphorus_and_surrogates_know_none() -> None:
    images = [simulate_stm(shipped("black-P", bias), **VIEW).image for bias in (0.5, -0.5)]
    assert correlation(*images) == pytest.approx(0.29, abs=0.1)
    layer = flat_layer(load_structures("reference")["black-P"])
    surrogates = [simulate_stm(layer, bias=bias, surrogate=True, **VIEW).image for bias in (0.5, -0.5)]
    np.testing.assert_array_equal(*surrogates)


def test_stm_and_stem_of_a_crystal_fit_pixel_by_pixel() -> None:
    layer = flat_layer(load_structures("reference")["MoS2"])
    stem = simulate_stem(layer, **VIEW)
    stm = simulate_stm(shipped("MoS2", -0.5), **VIEW)
    sulphur = stem.mask_of(16)
    assert stm.image[sulphur].mean() > 1.5 * stm.image.mean()
