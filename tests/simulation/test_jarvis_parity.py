"""jarvis-tools' `STEMConv` and ours: equal where it is right, and where it is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms

from atomvision_hub.simulation import JarvisPSF, simulate_stem


def stemconv(
    atoms: Atoms, *, size: tuple[int, int] = (128, 160), pixel_size: float = 0.1, **pose: Any
) -> npt.NDArray[np.float64]:
    """Image of jarvis-tools as it comes: axis 0 is x."""
    from jarvis.analysis.stem.convolution_apprx import STEMConv
    from jarvis.core.atoms import ase_to_atoms

    crystal = atoms.copy()
    crystal.pbc = True
    # By default it leaves out atoms more than 0.6 Å outside the view; its profile reaches 2 Å.
    arguments = {"eps": 2.5, "px_scale": pixel_size, **pose}
    return np.asarray(
        STEMConv(output_size=list(size)).simulate_surface(ase_to_atoms(crystal), **arguments)[0]
    )


def ours(
    atoms: Atoms,
    *,
    size: tuple[int, int] = (128, 160),
    pixel_size: float = 0.1,
    rot: float = 0,
    shift: Any = (0, 0),
) -> npt.NDArray[np.float64]:
    """The same image by `simulate_stem`.

    `STEMConv` puts the mean position of its supercell (3 times the cells that fill the view) into the middle
    of the image, turns the other way, has x along axis 0, and a profile of height one.
    """
    view = pixel_size * (np.array(size) - 1)
    cells = 3 * (view // atoms.cell.lengths()[:2] + 1)
    middle = atoms.positions[:, :2].mean(0) + ((cells - 1) / 2) @ atoms.cell[:2, :2]
    frame = simulate_stem(
        atoms,
        shape=(size[1], size[0]),
        pixel_size=pixel_size,
        rotation=-rot,
        shift=shift,
        center=(middle[0], middle[1]),
        psf="jarvis",
    )
    return frame.image.T / JarvisPSF().peak


def checkerboard() -> Atoms:
    """Square crystal of two elements whose atoms all fall on pixel centres of 0.1 Å."""
    return Atoms(
        "NaCl", positions=[(0, 0, 5), (1.5, 1.5, 5)], cell=[(3, 0, 0), (0, 3, 0), (0, 0, 15)], pbc=(1, 1, 0)
    )


def test_equal_where_atoms_fall_on_pixels() -> None:
    # The middle of the supercell lies 0.75 Å from an atom, that of the image half a pixel from a centre.
    pose = {"shift": [0.05 + 0.75, 0.05 + 0.75 - 1.3]}
    theirs = stemconv(checkerboard(), **pose)
    assert np.abs(ours(checkerboard(), **pose) - theirs).max() < 1e-6 * theirs.max()


@pytest.mark.parametrize(("rot", "shift"), [(0, (0, 0)), (17, (0.3, -0.9)), (-60, (1.2, 0.4))])
def test_equal_within_its_interpolation_elsewhere(graphene: Atoms, rot: float, shift: Any) -> None:
    # It splits an atom over four pixels in proportion to the distance, which blurs the tip of its profile: at
    # 0.1 Å/px by up to 2.3 % of the highest intensity, at half the pixel size by a third of that.
    for pixel_size, size, tolerance in ((0.1, (128, 160), 0.025), (0.05, (256, 320), 0.01)):
        theirs = stemconv(graphene, rot=rot, shift=shift, pixel_size=pixel_size, size=size)
        mine = ours(graphene, rot=rot, shift=shift, pixel_size=pixel_size, size=size)
        assert np.abs(mine - theirs).max() < tolerance * theirs.max()
        assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.9999


def test_it_counts_stacked_atoms_once(mos2: Atoms) -> None:
    one_layer = mos2[[0, 1]]  # Mo and a single S
    theirs, single, double = stemconv(mos2), stemconv(one_layer), ours(mos2)
    middle = mos2.positions[:, :2].mean(0) - one_layer.positions[:, :2].mean(0)
    np.testing.assert_allclose(  # two S are drawn exactly like one, but for where the image is centred
        theirs, stemconv(one_layer, shift=-middle), atol=1e-9 * single.max()
    )
    sulphur = 16**1.7
    assert double.max() > 1.01 * theirs.max() or double.sum() > 1.2 * theirs.sum()
    lost = (double.sum() - theirs.sum()) / double.sum()
    assert lost == pytest.approx(sulphur / (42**1.7 + 2 * sulphur), abs=0.02)


def test_it_loses_atoms_at_the_edge(graphene: Atoms) -> None:
    mine = ours(graphene, rot=5)
    default, complete = stemconv(graphene, rot=5, eps=0.6), stemconv(graphene, rot=5)
    inner = slice(16, -16)
    assert np.abs(default - complete)[inner, inner].max() < 1e-9 * complete.max()
    assert np.abs(default - mine).max() > 5 * np.abs(complete - mine).max()
