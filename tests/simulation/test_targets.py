"""Atom table, columns, masks and grey levels."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation import disk_mask, overlap_columns, simulate_stem, to_grey, to_intensity


def test_mask_is_the_union_of_disks(mos2: Atoms) -> None:
    frame = simulate_stem(mos2, shape=(70, 90), pixel_size=(0.08, 0.11), rotation=31, mask_radius=0.6)
    rows, columns = np.mgrid[:70, :90]
    expected = np.zeros((70, 90), bool)
    for atom in frame.atoms:
        y, x = (rows - float(atom["y"])) * 0.08, (columns - float(atom["x"])) * 0.11
        expected |= np.hypot(y, x) <= frame.mask_radius
    assert np.array_equal(frame.mask, expected)
    by_element = frame.mask_of(42) | frame.mask_of(16)
    assert np.array_equal(by_element, frame.mask)
    assert not frame.mask_of(6).any()


def test_disks_larger_and_smaller_than_the_image() -> None:
    assert disk_mask([2.0], [1.0], (3, 5), (1.0, 1.0), 50.0).all()
    assert not disk_mask([40.0], [1.0], (3, 5), (1.0, 1.0), 2.0).any()
    assert disk_mask([2.0], [1.0], (3, 5), (1.0, 1.0), 1e-3).sum() == 1
    assert not disk_mask([2.5], [1.0], (3, 5), (1.0, 1.0), 1e-3).any()
    assert not disk_mask([], [], (3, 5), (1.0, 1.0), 1.0).any()
    # A disk around a point outside reaches in; its edge belongs to it.
    assert disk_mask([-2.0], [1.0], (3, 5), (1.0, 1.0), 2.0).nonzero() == ([1], [0])


def test_heaviest_element_wins_where_disks_overlap() -> None:
    pair = Atoms("OW", positions=[(-0.2, 0, 0), (0.2, 0, 0)])
    elements = simulate_stem(pair, shape=(21, 21)).element_mask()
    assert elements[10, 10] == 74
    assert elements[10, 4] == 8
    assert elements[0, 0] == 0


def test_atom_table(mos2: Atoms) -> None:
    frame = simulate_stem(mos2, shape=(128, 128), rotation=8)
    atoms = frame.atoms
    assert set(atoms["number"]) == {16, 42}
    assert np.array_equal(mos2.numbers[atoms["index"]], atoms["number"])
    np.testing.assert_allclose(mos2.positions[atoms["index"], 2], atoms["z"], rtol=1e-6)
    inside = (atoms["x"] >= -0.5) & (atoms["x"] < 127.5) & (atoms["y"] >= -0.5) & (atoms["y"] < 127.5)
    assert np.array_equal(inside, atoms["visible"])
    assert 0 < (~atoms["visible"]).sum() < len(atoms) / 2
    assert atoms["x"].min() >= -5.5 - 1e-4
    assert atoms["x"].max() <= 132.5 + 1e-4
    # Every S column holds its two atoms, every Mo column one.
    for number, size in ((16, 2), (42, 1)):
        labels = atoms["column"][atoms["number"] == number]
        assert set(np.bincount(labels)) == {0, size}


def test_columns_are_linked_through_neighbours() -> None:
    x = np.array([0.0, 5.0, 0.04, 0.08, 0.14, 5.0])
    assert overlap_columns(x, np.zeros(6)).tolist() == [0, 1, 0, 0, 2, 1]
    long_chain = np.arange(500)[::-1] * 0.049
    assert set(overlap_columns(long_chain, np.zeros(500))) == {0}
    shuffled = np.random.default_rng(0).permutation(long_chain)
    assert set(overlap_columns(shuffled, np.zeros(500))) == {0}
    assert overlap_columns([], []).tolist() == []


def test_view_without_atoms() -> None:
    frame = simulate_stem(Atoms("C"), shape=(16, 16), shift=(50, 0))
    assert len(frame.atoms) == 0
    assert not frame.mask.any()
    assert not frame.image.any()
    assert not frame.element_mask().any()


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_levels_give_the_intensity_back(mos2: Atoms, bits: int) -> None:
    image = simulate_stem(mos2).image
    grey, scale, offset = to_grey(image, bits=bits)  # type: ignore[arg-type]
    assert grey.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert (grey.min(), grey.max()) == (0, 2**bits - 1)
    back = to_intensity(grey, scale, offset)
    assert np.abs(back - image).max() <= 0.51 * scale  # half a level, and rounding in float32
    # Grey levels of what came back are the same: encoding twice loses nothing more.
    assert np.array_equal(to_grey(back, bits=bits)[0], grey)  # type: ignore[arg-type]


def test_grey_levels_of_awkward_images() -> None:
    grey, scale, offset = to_grey(np.full((3, 3), 7.5))
    assert not grey.any()
    assert (to_intensity(grey, scale, offset) == 7.5).all()
    tiny, scale, offset = to_grey(np.array([1.0, 1.0 + 1e-7]))
    assert tiny.max() <= 255
    with pytest.raises(UsageError, match="not finite"):
        to_grey(np.array([1.0, np.nan]))
    with pytest.raises(UsageError, match="bits must be 8 or 16"):
        to_grey(np.ones(3), bits=12)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="empty"):
        to_grey(np.ones((0, 3)))
