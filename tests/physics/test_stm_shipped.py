"""What the shipped densities of states must show: textbook contrast of well-known layers."""

from __future__ import annotations

import numpy as np
import pytest

from atomvision_hub import load_structures
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.stm import simulate_stm, surrogate_density
from atomvision_hub.simulation.stm.imaging import StmFrame
from atomvision_hub.simulation.stm_library import local_densities
from atomvision_hub.structures import flat_layer

REFERENCE = load_structures("reference")
SHAPE = (128, 128)


def frames(name: str, mode: str = "constant_height") -> dict[float, StmFrame]:
    densities = local_densities(REFERENCE[name], (0.5, -0.5))
    return {density.bias: simulate_stm(density, mode=mode, shape=SHAPE) for density in densities}


def brightness(name: str, image: np.ndarray, number: int, *, top: bool = True) -> float:
    """Return the mean value of an image at the (topmost) atoms of an element."""
    atoms = simulate_stem(flat_layer(REFERENCE[name]), shape=SHAPE, pixel_size=0.1).atoms
    chosen = (atoms["number"] == number) & (np.abs(atoms["x"] - 63.5) < 60) & (np.abs(atoms["y"] - 63.5) < 60)
    if top:
        chosen &= atoms["z"] > atoms["z"].max() - 0.1
    return float(
        np.mean(
            [image[round(y), round(x)] for x, y in zip(atoms["x"][chosen], atoms["y"][chosen], strict=True)]
        )
    )


@pytest.mark.parametrize("mode", ["constant_height", "constant_current"])
def test_boron_is_bright_in_empty_states_and_nitrogen_in_filled_ones(mode: str) -> None:
    found = frames("h-BN", mode)
    assert brightness("h-BN", found[0.5].image, 5) > 1.05 * brightness("h-BN", found[0.5].image, 7)
    assert brightness("h-BN", found[-0.5].image, 7) > 1.05 * brightness("h-BN", found[-0.5].image, 5)


def test_graphene_is_a_honeycomb_at_both_biases() -> None:
    found = frames("graphene")
    for frame in found.values():
        atom = brightness("graphene", frame.image, 6)
        hollow = frame.image[64 - 1 : 64 + 1, 64 - 1 : 64 + 1].mean()  # the origin is a hollow
        assert atom > 0.8 * frame.image.max()
        assert hollow < 0.2 * atom
    # Electron-hole symmetry at the Dirac point.
    assert np.corrcoef(found[0.5].image.ravel(), found[-0.5].image.ravel())[0, 1] > 0.99


def test_molybdenum_disulphide_shows_its_sulphur() -> None:
    image = frames("MoS2")[-0.5].image
    assert brightness("MoS2", image, 16) > 0.9 * image.max()
    assert brightness("MoS2", image, 42, top=False) < 0.5 * image.max()


def test_the_bias_changes_black_phosphorus_but_not_the_surrogate() -> None:
    found = frames("black-P")
    alike = np.corrcoef(found[0.5].image.ravel(), found[-0.5].image.ravel())[0, 1]
    assert alike == pytest.approx(0.29, abs=0.05)
    assert surrogate_density(flat_layer(REFERENCE["black-P"])).bias is None


@pytest.mark.parametrize("name", ["graphene", "h-BN", "MoS2", "NbSe2", "FeTe", "black-P", "SnS"])
def test_states_decay_into_the_vacuum(name: str) -> None:
    for density in local_densities(REFERENCE[name], (0.5, -0.5)):
        means = [density.plane(height).mean() for height in (1.5, 2.0, 2.5, 3.0)]
        ratios = np.divide(means[1:], means[:-1])
        assert (ratios < 0.8).all()
        assert density.values.min() >= 0
