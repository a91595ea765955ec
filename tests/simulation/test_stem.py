"""Images against a slow direct sum, the frame's contents, and arguments that make no sense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk, nanotube
from ase.cluster import Octahedron

from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.simulation import FunctionPSF, GaussianPSF, TabulatedPSF, simulate_stem
from atomvision_hub.simulation.record import AtomColumns, StemRow

Direct = Callable[..., npt.NDArray[np.float64]]


def gaussian(sigma: float) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    return lambda r: np.exp(-(r**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


@pytest.mark.parametrize(
    ("shape", "pixel_size", "rotation", "shift", "sigma"),
    [
        ((256, 256), (0.1, 0.1), 0.0, (0.0, 0.0), 0.5),
        ((256, 256), (0.1, 0.1), 23.4, (0.31, -1.7), 0.5),
        ((100, 300), (0.13, 0.07), -141.0, (5.0, 2.0), 0.4),
        ((33, 65), (0.2, 0.3), 77.0, (0.0, 0.05), 1.1),
        ((1, 1), (0.1, 0.1), 0.0, (0.0, 0.0), 0.5),
        ((64, 64), (0.1, 0.1), 10.0, (0.0, 0.0), 0.08),
    ],
)
def test_image_is_the_direct_sum(
    mos2: Atoms,
    direct: Direct,
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    rotation: float,
    shift: tuple[float, float],
    sigma: float,
) -> None:
    pose = {"shape": shape, "pixel_size": pixel_size, "rotation": rotation, "shift": shift}
    expected = direct(mos2, gaussian(sigma), **pose)
    image = simulate_stem(mos2, sigma=sigma, **pose).image
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6 * expected.max())


def test_large_images_are_as_accurate(mos2: Atoms) -> None:
    # Wider than one panel and more atoms than one block: the parts meet without a seam.
    whole = simulate_stem(mos2, shape=(600, 700), pixel_size=0.15, rotation=9.0)
    part = simulate_stem(mos2, shape=(100, 100), pixel_size=0.15, rotation=9.0)
    np.testing.assert_allclose(whole.image[250:350, 300:400], part.image, atol=1e-6 * part.image.max())


def test_any_radial_function_is_the_direct_sum(mos2: Atoms, direct: Direct) -> None:
    def cone(r: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.clip(1 - r / 0.8, 0, None)

    pose = {"shape": (90, 120), "pixel_size": (0.11, 0.1), "rotation": 33.0, "shift": (0.2, 0.7)}
    expected = direct(mos2, lambda r: cone(r) / (np.pi * 0.8**2 / 3), **pose)
    for psf in (cone, TabulatedPSF([0, 0.8], [1, 0])):
        image = simulate_stem(mos2, psf=psf, **pose).image
        np.testing.assert_allclose(image, expected, atol=1e-5 * expected.max())


def test_gaussian_by_stamps_equals_gaussian_by_products(mos2: Atoms) -> None:
    profile = GaussianPSF([0.35, 0.9], [0.8, 0.2])
    fast = simulate_stem(mos2, psf=profile, rotation=5).image
    slow = simulate_stem(mos2, psf=FunctionPSF(profile), rotation=5).image
    np.testing.assert_allclose(fast, slow, atol=1e-5 * slow.max())


def test_overlapping_atoms_add(mos2: Atoms) -> None:
    image = simulate_stem(mos2, shape=(5, 5), pixel_size=0.1, sigma=0.2, center=(0, 3.19 / np.sqrt(3))).image
    two_s = 2 * 16**1.7 / (2 * np.pi * 0.2**2)
    assert image[2, 2] == pytest.approx(two_s, rel=1e-4)


def test_conventions_of_axes() -> None:
    atom = Atoms("C", positions=[(1.0, 2.0, 0.0)])
    frame = simulate_stem(atom, shape=(101, 81), pixel_size=(0.1, 0.05), center=(0, 0))
    assert (frame.atoms["x"][0], frame.atoms["y"][0]) == pytest.approx((40 + 20, 50 + 20))
    assert np.unravel_index(frame.image.argmax(), frame.image.shape) == (70, 60)
    # A quarter turn leads from +x to +y, that is downwards.
    turned = simulate_stem(
        Atoms("C", positions=[(1, 0, 0)]), shape=(41, 41), rotation=90, center=(0, 0), shift=(0.5, 0)
    )
    assert (turned.atoms["x"][0], turned.atoms["y"][0]) == pytest.approx((25, 30))


def test_particles_are_centred_and_not_repeated() -> None:
    gold = Octahedron("Au", 4)
    gold.pbc = False
    gold.positions += (30, -20, 5)
    frame = simulate_stem(gold, shape=(256, 256), pixel_size=0.1)
    assert len(frame.atoms) == len(gold)
    assert frame.atoms["visible"].all()
    assert frame.atoms["x"].min() + frame.atoms["x"].max() == pytest.approx(255, abs=1e-3)
    assert frame.image.sum() * 0.01 == pytest.approx(len(gold) * 79**1.7, rel=1e-5)


def test_wires_repeat_along_one_direction_only() -> None:
    tube = nanotube(6, 0, length=1)
    tube.rotate(90, "y", rotate_cell=True)
    tube.positions += (0, 3, 0)
    frame = simulate_stem(tube, shape=(200, 300), pixel_size=0.1)
    period = tube.cell.lengths()[2]
    along_x = int(np.ceil(30 / period)) * len(tube)
    assert abs(frame.atoms["visible"].sum() - along_x) <= len(tube)
    assert frame.image[[0, -1]].max() < 1e-4 * frame.image.max()
    profile = frame.image.sum(1)
    middle = (profile * np.arange(200)).sum() / profile.sum()
    assert middle == pytest.approx(99.5, abs=1e-3)  # centred across, wherever the cell put it


def test_bulk_along_a_zone_axis_with_a_thickness() -> None:
    primitive, cubic = bulk("Cu", a=3.6), bulk("Cu", a=3.6, cubic=True)
    view = {"shape": (90, 72), "pixel_size": 0.1}
    one = simulate_stem(cubic, thickness=3.6, **view).image
    np.testing.assert_allclose(simulate_stem(primitive, thickness=3.6, **view).image, one, rtol=1e-5)
    np.testing.assert_allclose(simulate_stem(cubic, **view).image, one, rtol=1e-5)
    thick = simulate_stem(primitive, thickness=18.0, **view)
    np.testing.assert_allclose(thick.image, 5 * one, rtol=1e-5)
    assert thick.atoms["z"].min() >= -1e-5
    assert thick.atoms["z"].max() < 18
    assert np.bincount(thick.atoms["column"]).tolist() == [5] * len(np.unique(thick.atoms["column"]))


def test_cells_larger_than_the_view(graphene: Atoms) -> None:
    large = graphene.repeat((40, 40, 1))
    small = simulate_stem(graphene, shape=(64, 64))
    frame = simulate_stem(large, shape=(64, 64))
    np.testing.assert_allclose(frame.image, small.image, atol=1e-6 * small.image.max())
    assert len(frame.atoms) == len(small.atoms)


def test_parameters_are_the_columns_of_a_row(mos2: Atoms) -> None:
    frame = simulate_stem(mos2, shape=(64, 80), pixel_size=(0.1, 0.12), rotation=12, shift=(1, 2), sigma=0.45)
    parameters = frame.parameters()
    assert set(parameters) <= set(StemRow.model_fields)
    assert parameters["psf"] == "gaussian(sigma=0.45)"
    again = simulate_stem(mos2, shape=(64, 80), **parameters)
    assert np.array_equal(again.image, frame.image)
    assert np.array_equal(again.mask, frame.mask)
    assert list(frame.atoms.dtype.names or ()) == list(AtomColumns.model_fields)


def test_the_crystal_is_left_alone(mos2: Atoms) -> None:
    before = mos2.copy()
    simulate_stem(mos2, rotation=10, shift=(3, 4)).mask.sum()
    assert mos2 == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_size": -0.1}, "pixel_size must be positive"),
        ({"pixel_size": 0}, "pixel_size must be positive"),
        ({"pixel_size": (0.1, 0.1, 0.1)}, "pixel_size must be two finite numbers"),
        ({"pixel_size": "0.1"}, "pixel_size must be"),
        ({"pixel_size": float("nan")}, "pixel_size must be two finite numbers"),
        ({"shape": (0, 10)}, "shape must be two positive whole numbers"),
        ({"shape": 256}, "shape must be two positive whole numbers"),
        ({"shape": (10.0, 10.0)}, "shape must be two positive whole numbers"),
        ({"shape": (100_000, 100_000)}, "37.3 GiB; at most 16384 a side"),
        ({"rotation": float("nan")}, "rotation must be a finite number"),
        ({"rotation": None}, "rotation must be a finite number"),
        ({"shift": (0, float("inf"))}, "shift must be two finite numbers"),
        ({"z_exponent": float("nan")}, "z_exponent must be a finite number"),
        ({"sigma": 0}, "sigma must be a positive length"),
        ({"sigma": float("nan")}, "sigma must be a positive length"),
        ({"mask_radius": -1}, "mask_radius must be positive"),
        ({"psf": "airy"}, "unknown psf 'airy'"),
        ({"psf": 3}, "psf must be a name"),
        ({"center": (0, float("nan"))}, "center must be two finite lengths"),
        ({"thickness": 10.0}, "thickness needs a crystal that repeats along all three"),
        ({"pixel_size": 500.0}, "the view would hold about"),
    ],
)
def test_bad_arguments_are_one_clear_line(mos2: Atoms, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        simulate_stem(mos2, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_thickness_must_be_positive() -> None:
    with pytest.raises(UsageError, match="thickness must be a positive length"):
        simulate_stem(bulk("Cu"), thickness=-1)


def test_bad_crystals_are_one_clear_line(mos2: Atoms) -> None:
    with pytest.raises(CrystalError, match="no atoms"):
        simulate_stem(Atoms())
    broken = mos2.copy()
    broken.positions[1, 2] = np.nan
    with pytest.raises(CrystalError, match="not a finite number"):
        simulate_stem(broken)
    with pytest.raises(CrystalError, match="atomic number"):
        simulate_stem(Atoms("X", cell=[1, 1, 1], pbc=True))
    edge_on = Atoms("C", cell=[(0, 0, 3), (3, 0, 0), (0, 3, 0)], pbc=True)
    with pytest.raises(UsageError, match="do not span the image plane"):
        simulate_stem(edge_on)
