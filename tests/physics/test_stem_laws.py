"""Laws that a convolution image obeys, whatever the crystal."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.psf import GaussianPSF

Image = npt.NDArray[np.float32]
law = settings(deadline=None, derandomize=True, max_examples=25)

angles = st.floats(-400, 400)
lengths = st.floats(-8, 8)
shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
pixel_sizes = st.tuples(st.floats(0.05, 0.3), st.floats(0.05, 0.3))
poses = st.fixed_dictionaries(
    {"shape": shapes, "pixel_size": pixel_sizes, "rotation": angles, "shift": st.tuples(lengths, lengths)}
)
unimodular = st.lists(st.tuples(st.sampled_from("ul"), st.integers(-3, 3)), max_size=3)


@st.composite
def layers(draw: st.DrawFn) -> Atoms:
    """A two-dimensional crystal of any lattice with one to four atoms."""
    a, b = draw(st.floats(1.5, 7)), draw(st.floats(1.5, 7))
    gamma = np.radians(draw(st.floats(40, 140)))
    turn = np.radians(draw(st.floats(0, 360)))
    cell = np.array([[a, 0, 0], [b * np.cos(gamma), b * np.sin(gamma), 0], [0, 0, 20]])
    cosine, sine = np.cos(turn), np.sin(turn)
    cell[:2, :2] = cell[:2, :2] @ np.array([[cosine, sine], [-sine, cosine]])
    count = draw(st.integers(1, 4))
    numbers = draw(st.lists(st.integers(1, 92), min_size=count, max_size=count))
    shares = draw(st.lists(st.tuples(*[st.floats(-2, 2)] * 3), min_size=count, max_size=count))
    return Atoms(numbers, scaled_positions=shares, cell=cell, pbc=(True, True, False))


def same(first: Image, second: Image, crystal: Atoms, tolerance: float = 3e-6) -> None:
    # Tails end, and numbers round, at a share of an atom's peak, which need not lie in the view.
    peak = GaussianPSF(0.5).peak * float(crystal.numbers.max()) ** 1.7
    scale = max(float(first.max()), float(second.max()), peak)
    np.testing.assert_allclose(first, second, rtol=0, atol=tolerance * scale)


@law
@given(layers(), layers(), poses)
def test_superposition(one: Atoms, other: Atoms, pose: dict[str, Any]) -> None:
    other.set_cell(one.cell)
    both = one + other
    total = simulate_stem(one, **pose).image + simulate_stem(other, **pose).image
    same(simulate_stem(both, **pose).image, total, both)


@law
@given(layers(), st.integers(-30, 30), st.integers(-30, 30), angles)
def test_shift_by_whole_pixels_moves_the_image(
    crystal: Atoms, right: int, down: int, rotation: float
) -> None:
    still = simulate_stem(crystal, shape=(120, 120), rotation=rotation).image
    moved = simulate_stem(crystal, shape=(120, 120), rotation=rotation, shift=(right * 0.1, down * 0.1)).image
    same(moved[30 + down : 90 + down, 30 + right : 90 + right], still[30:90, 30:90], crystal)


@law
@given(layers(), poses, lengths, lengths)
def test_moving_atoms_or_center_is_a_shift(
    crystal: Atoms, pose: dict[str, Any], dx: float, dy: float
) -> None:
    # Below the pixel too: the shift is not rounded to anything.
    view = {**pose, "rotation": 0.0}
    expected = simulate_stem(
        crystal, **{**view, "shift": (pose["shift"][0] + dx, pose["shift"][1] + dy)}
    ).image
    moved = crystal.copy()
    moved.positions += (dx, dy, 3.0)
    same(simulate_stem(moved, **view).image, expected, crystal)
    same(simulate_stem(crystal, **view, center=(-dx, -dy)).image, expected, crystal)


@law
@given(layers(), poses, st.integers(-3, 3), st.integers(-3, 3))
def test_shift_by_a_lattice_vector_changes_nothing(
    crystal: Atoms, pose: dict[str, Any], i: int, j: int
) -> None:
    vector = (i * crystal.cell[0] + j * crystal.cell[1])[:2]
    angle = np.radians(pose["rotation"])
    x = np.cos(angle) * vector[0] - np.sin(angle) * vector[1] + pose["shift"][0]
    y = np.sin(angle) * vector[0] + np.cos(angle) * vector[1] + pose["shift"][1]
    same(
        simulate_stem(crystal, **pose).image,
        simulate_stem(crystal, **{**pose, "shift": (x, y)}).image,
        crystal,
    )


@law
@given(layers(), shapes, pixel_sizes, lengths, lengths, st.integers(-4, 4))
def test_quarter_turns_turn_the_image(
    crystal: Atoms, shape: tuple[int, int], size: tuple[float, float], x: float, y: float, turns: int
) -> None:
    still = simulate_stem(crystal, shape=shape, pixel_size=size, shift=(x, y)).image
    for _ in range(turns % 4):
        x, y = -y, x
    if turns % 2:
        shape, size = shape[::-1], size[::-1]
    turned = simulate_stem(crystal, shape=shape, pixel_size=size, shift=(x, y), rotation=90.0 * turns).image
    # +x goes to +y, which points down: clockwise on the screen
    same(turned, np.rot90(still, -turns), crystal)


@law
@given(layers(), poses)
def test_mirrored_crystal_mirrors_the_image(crystal: Atoms, pose: dict[str, Any]) -> None:
    mirrored = crystal.copy()
    flip = np.array([-1, 1, 1])
    mirrored.set_cell(crystal.cell * flip)
    mirrored.positions = crystal.positions * flip
    other = {**pose, "rotation": -pose["rotation"], "shift": (-pose["shift"][0], pose["shift"][1])}
    same(simulate_stem(mirrored, **other).image, simulate_stem(crystal, **pose).image[:, ::-1], crystal)


@law
@given(layers(), poses, unimodular, st.booleans())
def test_choice_of_cell_changes_nothing(
    crystal: Atoms, pose: dict[str, Any], steps: list[tuple[str, int]], swap: bool
) -> None:
    other = crystal.copy()
    cell = np.array(crystal.cell)
    for which, multiple in steps:  # shears make the cell as skewed as can be
        i, j = (0, 1) if which == "u" else (1, 0)
        cell[i] += multiple * cell[j]
    if swap:  # left-handed
        cell[[0, 1]] = cell[[1, 0]]
    other.set_cell(cell)
    first, second = simulate_stem(crystal, **pose), simulate_stem(other, **pose)
    same(first.image, second.image, crystal)
    assert abs(len(first.atoms) - len(second.atoms)) <= 2  # one on the very edge may fall to either side
    other.wrap()
    same(first.image, simulate_stem(other, **pose).image, crystal)


@law
@given(layers(), poses, st.integers(1, 4), st.integers(1, 4))
def test_supercells_change_nothing(crystal: Atoms, pose: dict[str, Any], m: int, n: int) -> None:
    same(
        simulate_stem(crystal, **pose).image, simulate_stem(crystal.repeat((m, n, 1)), **pose).image, crystal
    )


@law
@given(layers(), st.floats(0.0, 2.5), st.floats(0.3, 1.0))
def test_integral_over_a_period_is_conserved(crystal: Atoms, exponent: float, sigma: float) -> None:
    # Sampled on a grid that divides the cell: lines along the first vector, shifted along the second.
    a, b, _ = crystal.cell.lengths()
    n, m = int(np.ceil(a / (sigma / 3))), int(np.ceil(b / (sigma / 3)))
    area = abs(np.linalg.det(crystal.cell[:2, :2]))
    turn = -np.degrees(np.arctan2(crystal.cell[0, 1], crystal.cell[0, 0]))
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    second = np.array([[cosine, -sine], [sine, cosine]]) @ crystal.cell[1, :2]
    line = {"shape": (1, n), "pixel_size": a / n, "rotation": turn, "sigma": sigma, "z_exponent": exponent}
    values = [simulate_stem(crystal, shift=-j / m * second, **line).image.mean(dtype=float) for j in range(m)]
    expected = (crystal.numbers.astype(float) ** exponent).sum() / area
    np.testing.assert_allclose(np.mean(values), expected, rtol=1e-5)


@law
@given(layers(), angles)
def test_wide_probe_sees_the_mean_density(crystal: Atoms, rotation: float) -> None:
    image = simulate_stem(crystal, shape=(20, 30), rotation=rotation, sigma=12.0).image
    density = (crystal.numbers**1.7).sum() / abs(np.linalg.det(crystal.cell[:2, :2]))
    np.testing.assert_allclose(image, density, rtol=1e-5)


@law
@given(st.integers(1, 118), poses, st.floats(0.05, 2))
def test_single_atom_shows_the_probe(number: int, pose: dict[str, Any], sigma: float) -> None:
    frame = simulate_stem(Atoms([number]), **pose, sigma=sigma)
    (rows, columns), (dy, dx) = pose["shape"], pose["pixel_size"]
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] * dy - pose["shift"][1]
    x = (np.arange(columns) - (columns - 1) / 2) * dx - pose["shift"][0]
    expected = number**1.7 * frame.psf(np.hypot(x, y))
    np.testing.assert_allclose(frame.image, expected, rtol=0, atol=1e-6 * number**1.7 * frame.psf.peak)


@law
@given(layers(), poses, st.integers(0, 20), st.integers(0, 20))
def test_larger_views_contain_smaller_ones(
    crystal: Atoms, pose: dict[str, Any], rows: int, columns: int
) -> None:
    height, width = pose["shape"]
    larger = {**pose, "shape": (height + 2 * rows, width + 2 * columns)}
    small, large = simulate_stem(crystal, **pose), simulate_stem(crystal, **larger)
    window = slice(rows, rows + height), slice(columns, columns + width)
    same(small.image, large.image[window], crystal)
    # Disks reach in from outside in both alike.
    assert (small.mask != large.mask[window]).mean() < 1e-3 or small.mask.size < 2000


@law
@given(layers(), shapes, angles, st.integers(1, 4), st.integers(1, 4))
def test_pixels_sample_points_whatever_their_size(
    crystal: Atoms, shape: tuple[int, int], rotation: float, coarse_y: int, coarse_x: int
) -> None:
    # Every second, third, ... pixel of a fine image, with an odd shape so that the centres coincide.
    rows, columns = shape[0] // 2 * 2 + 1, shape[1] // 2 * 2 + 1
    fine_shape = ((rows - 1) * coarse_y + 1, (columns - 1) * coarse_x + 1)
    fine = simulate_stem(crystal, shape=fine_shape, pixel_size=0.08, rotation=rotation).image
    coarse = simulate_stem(
        crystal, shape=(rows, columns), pixel_size=(0.08 * coarse_y, 0.08 * coarse_x), rotation=rotation
    ).image
    same(coarse, fine[::coarse_y, ::coarse_x], crystal)


@law
@given(layers(), poses)
def test_every_psf_is_linear_in_the_weights(crystal: Atoms, pose: dict[str, Any]) -> None:
    doubled = crystal + crystal
    for psf in ("gaussian", "jarvis"):
        same(
            simulate_stem(doubled, **pose, psf=psf).image,
            2 * simulate_stem(crystal, **pose, psf=psf).image,
            doubled,
        )
