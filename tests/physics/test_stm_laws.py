"""Laws of STM images, on densities whose value is known at every point.

Above the topmost atom they are plane waves on the lattice of a cell that fall off exponentially:
rho(x, y, z) = exp(-q z) * (1 + sum of a_i cos(G_i r + phi_i)).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.stm import LocalDensity, simulate_stm, surrogate_density
from atomvision_hub.structures.volumes import Volume

Array = npt.NDArray[np.float64]
law = settings(deadline=None, derandomize=True, max_examples=12)
MODES = ("constant_height", "constant_current")

angles = st.floats(-400, 400)
lengths = st.floats(-8, 8)
poses = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 60), st.integers(1, 60)),
        "pixel_size": st.tuples(st.floats(0.05, 0.3), st.floats(0.05, 0.3)),
        "rotation": angles,
        "shift": st.tuples(lengths, lengths),
        "mode": st.sampled_from(MODES),
    }
)


@dataclass(frozen=True)
class Surface:
    """A density that is known everywhere, over one atom at the origin of its lattice."""

    cell: Array  # (2, 2)
    waves: tuple[tuple[int, int, float, float], ...]
    decay: float
    height: float = 18.0
    top: float = 9.3

    def __call__(self, points: Array) -> Array:
        """Density at points (..., 3)."""
        inverse = np.linalg.inv(self.cell)
        total = np.ones(points.shape[:-1])
        for h, k, amplitude, phase in self.waves:
            total += amplitude * np.cos(2 * np.pi * points[..., :2] @ (inverse @ [h, k]) + phase)
        return np.asarray(np.exp(-self.decay * (points[..., 2] - self.top)) * total)

    def volume(self, cell: Array | None = None, spacing: float = 0.11, tilt: Any = (0.0, 0.0)) -> Volume:
        """The density on a grid over any cell of the lattice, from 1 Å below the atom upwards."""
        cell = self.cell if cell is None else np.asarray(cell)
        basis = np.zeros((3, 3))
        basis[:2, :2], basis[2] = cell, [*tilt, self.height]
        shape = [int(np.ceil(length / spacing)) for length in np.linalg.norm(basis, axis=1)]
        fractions = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
        values = self(fractions @ basis)
        repeats = abs(np.linalg.det(cell) / np.linalg.det(self.cell))
        sites = lattice_points(self.cell, cell)
        assert len(sites) == round(repeats)
        positions = np.column_stack([sites, np.full(len(sites), self.top)])
        return Volume(values, Atoms(f"C{len(sites)}", positions, cell=basis, pbc=True), "e/Å^3", "density")

    def density(self, **changes: Any) -> LocalDensity:
        return LocalDensity.from_volume(self.volume(**changes), bias=0.5)


def lattice_points(lattice: Array, cell: Array) -> Array:
    """Lattice points within a cell of the lattice."""
    steps = np.mgrid[-12:13, -12:13].reshape(2, -1).T @ lattice
    shares = steps @ np.linalg.inv(cell)
    return np.asarray(steps[((shares > -1e-6) & (shares < 1 - 1e-6)).all(axis=1)])


@st.composite
def surfaces(draw: st.DrawFn) -> Surface:
    a, b = draw(st.floats(2.2, 5)), draw(st.floats(2.2, 5))
    gamma, turn = np.radians(draw(st.floats(60, 120))), np.radians(draw(st.floats(0, 360)))
    cell = np.array([[a, 0], [b * np.cos(gamma), b * np.sin(gamma)]])
    cell = cell @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    order, phase = st.integers(-1, 1), st.floats(0, 6.2)
    waves = draw(st.lists(st.tuples(order, order, st.floats(0.05, 0.25), phase), min_size=1, max_size=3))
    return Surface(cell, tuple(waves), draw(st.floats(1.5, 3.0)))


def pixel_points(shape: tuple[int, int], pixel_size: Any, rotation: float, shift: Any) -> Array:
    """Points (x, y) of the crystal that the pixels show: the documented convention, no package code."""
    rows, columns = shape
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] * pixel_size[0] - shift[1] + np.zeros(columns)
    x = (np.arange(columns) - (columns - 1) / 2) * pixel_size[1] - shift[0] + np.zeros((rows, 1))
    angle = np.radians(rotation)
    return np.stack([np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x], axis=-1)


def same(first: Any, second: Any, tolerance: float = 2e-3) -> None:
    """Equal to a share of the height of the density, or to a thousandth of an Ångström."""
    image, other = np.asarray(first.image, np.float64), np.asarray(second.image, np.float64)
    scale = 1.0 if first.mode == "constant_current" else max(image.max(), other.max())
    np.testing.assert_allclose(image, other, rtol=0, atol=tolerance * scale)


@law
@given(surfaces(), poses, st.floats(1.0, 4.0))
def test_images_show_the_density_at_the_pixels(surface: Surface, pose: dict[str, Any], height: float) -> None:
    frame = simulate_stm(surface.density(), height=height, **pose)
    view = {key: value for key, value in pose.items() if key != "mode"}
    points = pixel_points(**view)
    wave = surface(np.dstack([points, np.full(points.shape[:2], surface.top)]))  # without the decay
    if pose["mode"] == "constant_height":
        expected = wave * np.exp(-surface.decay * height)
        np.testing.assert_allclose(frame.image, expected, rtol=0, atol=2e-3 * expected.max())
        assert frame.isovalue is None
    else:
        # The mean of all waves is zero, so the plane at `height` has the mean exp(-q height).
        constant = sum(a * np.cos(phase) for h, k, a, phase in surface.waves if h == k == 0)
        np.testing.assert_allclose(
            frame.isovalue, (1 + constant) * np.exp(-surface.decay * height), rtol=1e-6
        )
        expected = np.log(wave / frame.isovalue) / surface.decay
        np.testing.assert_allclose(frame.image, np.maximum(expected, 0), rtol=0, atol=2e-3)


@law
@given(surfaces(), poses, st.integers(-3, 3), st.integers(-3, 3))
def test_shift_by_a_lattice_vector_changes_nothing(
    surface: Surface, pose: dict[str, Any], i: int, j: int
) -> None:
    density = surface.density()
    angle = np.radians(pose["rotation"])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = np.asarray(pose["shift"]) + np.array([i, j]) @ surface.cell @ turn
    same(simulate_stm(density, **pose), simulate_stm(density, **{**pose, "shift": moved}), 1e-5)


@law
@given(surfaces(), st.integers(-20, 20), st.integers(-20, 20), angles, st.sampled_from(MODES))
def test_shift_by_whole_pixels_moves_the_image(
    surface: Surface, right: int, down: int, rotation: float, mode: Any
) -> None:
    density = surface.density()
    view: dict[str, Any] = {"shape": (80, 80), "rotation": rotation, "mode": mode}
    still = simulate_stm(density, **view).image
    moved = simulate_stm(density, shift=(right * 0.1, down * 0.1), **view).image
    np.testing.assert_allclose(
        moved[20 + down : 60 + down, 20 + right : 60 + right], still[20:60, 20:60], rtol=1e-4, atol=1e-6
    )


@law
@given(surfaces(), poses, st.integers(1, 3))
def test_quarter_turns_turn_the_image(surface: Surface, pose: dict[str, Any], turns: int) -> None:
    density = surface.density()
    still = simulate_stm(density, **{**pose, "rotation": 0.0})
    (x, y), shape, size = pose["shift"], pose["shape"], pose["pixel_size"]
    for _ in range(turns):
        x, y, shape, size = -y, x, shape[::-1], size[::-1]
    view = {"shape": shape, "pixel_size": size, "shift": (x, y), "rotation": 90.0 * turns}
    turned = simulate_stm(density, mode=pose["mode"], **view)
    np.testing.assert_allclose(turned.image, np.rot90(still.image, -turns), rtol=1e-4, atol=1e-6)


@law
@given(surfaces(), poses, st.integers(1, 2), st.integers(1, 3), st.integers(-1, 1), st.booleans())
def test_equivalent_cells_show_the_same(
    surface: Surface, pose: dict[str, Any], m: int, n: int, shear: int, swap: bool
) -> None:
    # Another basis of the lattice, left-handed or not, repeated: another grid over the same density.
    basis = np.array([[1, 0], [shear, 1]]) @ surface.cell * [[m], [n]]
    if swap:
        basis = basis[::-1]
    same(simulate_stm(surface.density(), **pose), simulate_stm(surface.density(cell=basis), **pose))


@law
@given(surfaces(), poses, st.floats(0, 1), st.integers(-2, 2))
def test_a_layer_across_the_boundary_shows_the_same(
    surface: Surface, pose: dict[str, Any], depth: float, beside: int
) -> None:
    # The layer, two atoms thick, anywhere along the vacuum, its atoms in any copy of the cell.
    plain = surface.volume()
    atoms = plain.atoms + Atoms("N", [(0.7, 0.4, surface.top - 1.8)])
    whole = dataclasses.replace(plain, atoms=atoms)
    planes = plain.values.shape[2]
    roll = round(depth * planes)
    moved = atoms.copy()
    moved.positions[:, 2] += roll / planes * surface.height
    moved.positions += beside * moved.cell[0]
    moved.wrap()
    rolled = dataclasses.replace(plain, values=np.roll(plain.values, roll, axis=2), atoms=moved)
    one, other = (LocalDensity.from_volume(volume, bias=0.5) for volume in (whole, rolled))
    np.testing.assert_allclose(one.heights, other.heights, atol=1e-9)
    same(simulate_stm(one, **pose), simulate_stm(other, **pose), 1e-5)


@law
@given(surfaces(), poses, st.tuples(lengths, lengths, lengths))
def test_origin_of_the_grid_changes_nothing(
    surface: Surface, pose: dict[str, Any], origin: tuple[float, float, float]
) -> None:
    # The same density, sampled from another point on; the atoms stay where they are.
    plain = surface.volume()
    shape, cell = plain.values.shape, plain.atoms.cell.array
    fractions = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    points = fractions @ cell + origin
    points[..., 2] = np.mod(points[..., 2], surface.height)
    moved = dataclasses.replace(plain, values=surface(points), origin=np.array(origin))
    one, other = (LocalDensity.from_volume(volume, bias=0.5) for volume in (plain, moved))
    same(simulate_stm(one, **pose), simulate_stm(other, **pose))


@law
@given(surfaces(), poses, st.integers(0, 2), st.booleans())
def test_axes_in_another_order_show_the_same(
    surface: Surface, pose: dict[str, Any], place: int, mirrored: bool
) -> None:
    # The vacuum as first, second or third cell vector: cyclic, or with the in-plane vectors exchanged.
    plain = surface.volume()
    order = np.roll([1, 0, 2] if mirrored else [0, 1, 2], place)
    atoms = plain.atoms.copy()
    atoms.set_cell(plain.atoms.cell.array[order])
    other = dataclasses.replace(plain, values=np.transpose(plain.values, order), atoms=atoms)
    one, two = (LocalDensity.from_volume(volume, bias=0.5) for volume in (plain, other))
    same(simulate_stm(one, **pose), simulate_stm(two, **pose), 1e-5)


@law
@given(surfaces(), poses)
def test_a_third_vector_that_points_down_shows_the_same_side(surface: Surface, pose: dict[str, Any]) -> None:
    plain = surface.volume()
    atoms = plain.atoms.copy()
    atoms.set_cell(plain.atoms.cell.array * [[1], [1], [-1]])
    values = np.roll(plain.values[:, :, ::-1], 1, axis=2)  # plane 0 stays, the others count downwards
    one, two = (
        LocalDensity.from_volume(volume, bias=0.5)
        for volume in (plain, dataclasses.replace(plain, values=values, atoms=atoms))
    )
    same(simulate_stm(one, **pose), simulate_stm(two, **pose), 1e-5)


@law
@given(surfaces(), poses)
def test_a_layer_that_stands_upright_is_laid_down(surface: Surface, pose: dict[str, Any]) -> None:
    # Cartesian axes (x, y, z) -> (z, x, y): the vacuum runs along x. The smallest rotation back leaves the
    # layer turned by a quarter within its plane.
    plain = surface.volume()
    atoms = plain.atoms.copy()
    atoms.set_cell(np.roll(plain.atoms.cell.array, 1, axis=1))
    atoms.positions = np.roll(plain.atoms.positions, 1, axis=1)
    upright = LocalDensity.from_volume(dataclasses.replace(plain, atoms=atoms), bias=0.5)
    turned = {**pose, "rotation": pose["rotation"] - 90.0}
    same(
        simulate_stm(LocalDensity.from_volume(plain, bias=0.5), **pose), simulate_stm(upright, **turned), 1e-5
    )


@law
@given(surfaces(), poses, st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
def test_tilted_vacuum_shows_the_same(surface: Surface, pose: dict[str, Any], tilt: Any) -> None:
    same(simulate_stm(surface.density(), **pose), simulate_stm(surface.density(tilt=tilt), **pose))


@law
@given(surfaces(), st.floats(0.5, 50), st.sampled_from(MODES))
def test_intensity_is_linear_and_height_does_not_care(surface: Surface, factor: float, mode: Any) -> None:
    density = surface.density()
    more = dataclasses.replace(density, values=density.values * factor)
    one, other = (simulate_stm(each, mode=mode, shape=(40, 30)) for each in (density, more))
    expected = one.image * factor if mode == "constant_height" else one.image
    np.testing.assert_allclose(other.image, expected, rtol=1e-4, atol=1e-6)


@law
@given(surfaces(), poses)
def test_the_tip_follows_the_density_of_its_isovalue(surface: Surface, pose: dict[str, Any]) -> None:
    """Both modes are one density: it is the isovalue at every height that constant current shows."""
    frame = simulate_stm(surface.density(), **{**pose, "mode": "constant_current"})
    view = {key: value for key, value in pose.items() if key != "mode"}
    there = surface(np.dstack([pixel_points(**view), frame.image + surface.top]))
    free = frame.image > 0  # not where the tip would go below the atoms
    np.testing.assert_allclose(there[free], frame.isovalue, rtol=1e-2)


@law
@given(st.floats(2.8, 4), st.integers(1, 90), st.floats(0, 360), lengths, lengths)
def test_stm_and_stem_of_a_crystal_fit_pixel_by_pixel(
    a: float, number: int, rotation: float, x: float, y: float
) -> None:
    # One atom a cell: both images have their maxima on it.
    cell = [(a, 0, 0), (0.3 * a, 1.2 * a, 0), (0, 0, 20)]
    crystal = Atoms([number], [(0.4, -0.9, 8.0)], cell=cell, pbc=(True, True, False))
    view: dict[str, Any] = {
        "shape": (90, 100),
        "pixel_size": (0.09, 0.11),
        "rotation": rotation,
        "shift": (x, y),
    }
    stem = simulate_stem(crystal, **view)
    stm = simulate_stm(crystal, surrogate=True, height=1.0, **view).image
    rows, columns = stm.shape
    for atom in stem.atoms:
        row, column = round(float(atom["y"])), round(float(atom["x"]))
        if 3 <= row < rows - 3 and 3 <= column < columns - 3:
            for image in (stm, stem.image):
                window = image[row - 2 : row + 3, column - 2 : column + 3]
                brightest = np.unravel_index(window.argmax(), window.shape)
                assert max(abs(brightest[0] - 2), abs(brightest[1] - 2)) <= 1


@pytest.mark.parametrize("mode", MODES)
def test_surrogate_has_no_bias_contrast(mode: Any) -> None:
    cell = [(2.5, 0, 0), (-1.25, 2.17, 0), (0, 0, 20)]
    crystal = Atoms("BN", [(0, 0, 10), (0, 1.45, 10)], cell=cell, pbc=(True, True, False))
    one, other = (
        simulate_stm(crystal, surrogate=True, bias=bias, mode=mode, shape=(32, 32)) for bias in (0.5, -0.5)
    )
    np.testing.assert_array_equal(one.image, other.image)
    assert one.bias is None
    assert one.engine == "surrogate"
    assert one.parameters()["surrogate"] is True


def test_surrogate_is_the_sum_it_says_it_is() -> None:
    cell = np.array([(2.5, 0, 0), (-1.25, 2.17, 0), (0, 0, 20)])
    crystal = Atoms("BN", [(0, 0, 9.3), (0.2, 1.45, 10)], cell=cell, pbc=(True, True, False))
    density = surrogate_density(crystal, kappa=1.1)
    steps = np.mgrid[-14:15, -14:15].reshape(2, -1).T @ cell[:2, :2]
    for i, j, k in [(0, 0, 10), (3, 5, 30), (7, 1, 45), (10, 12, 60)]:
        n, m, _ = density.values.shape
        point = np.array([*(i / n * cell[0, :2] + j / m * cell[1, :2]), 10 + density.heights[k]])
        expected = sum(
            np.exp(
                -2.2 * np.linalg.norm(np.column_stack([steps, np.zeros(len(steps))]) + atom - point, axis=1)
            ).sum()
            for atom in crystal.positions
        )
        np.testing.assert_allclose(density.values[i, j, k], expected * 1.1**3 / np.pi, rtol=5e-3)


@pytest.mark.parametrize("mode", MODES)
def test_surrogate_of_equivalent_cells_is_the_same(mode: Any) -> None:
    cell = [(2.5, 0, 0), (-1.25, 2.17, 0), (0, 0, 20)]
    crystal = Atoms("BN", [(0, 0, 10), (0, 1.45, 10.4)], cell=cell, pbc=(True, True, False))
    first = simulate_stm(crystal, surrogate=True, mode=mode)
    same(first, simulate_stm(crystal.repeat((2, 3, 1)), surrogate=True, mode=mode))
