"""Everything about multislice images but the engine: a stand-in whose image is known takes its place.

The stand-in's signal is the convolution image of the very atoms in the box. So what box, probe positions,
symmetries, Fourier series and pose make of it must be the image that `simulate_stem` renders.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from pydantic import ValidationError

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.errors import AtomVisionError, CrystalError, MissingExtraError, UsageError
from atomvision_hub.simulation.multislice import (
    Multislice,
    engine,
    scan_period,
    simulate_multislice,
    stored_scan,
)
from atomvision_hub.structures import flat_layer

REST = Multislice(phonons=1, displacement=0.0)
SIGMA = 0.5


def convolution(
    boxes: Iterable[Atoms], positions: np.ndarray, grid: Any, planes: Any, focus: float, settings: Multislice
) -> np.ndarray:
    """Sum Z^1.7 of a Gaussian around every atom of a periodic box."""
    signals = []
    for box in boxes:
        sides = box.cell.lengths()[:2]
        assert ((positions >= 0) & (positions <= sides)).all()
        away = positions[:, None] - box.positions[None, :, :2]
        away -= np.rint(away / sides) * sides
        gauss = np.exp(-(away**2).sum(-1) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
        signals.append(gauss @ box.numbers.astype(float) ** 1.7)
    return np.array(signals)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "annular_signal", convolution)
    monkeypatch.setattr(engine, "abtem_version", lambda: "stand-in")


def crystal(name: str) -> Atoms:
    return flat_layer(load_structures("reference")[name])


POSES: list[dict[str, Any]] = [
    {},
    {"rotation": 33.0, "shift": (0.37, -1.2), "pixel_size": (0.11, 0.17), "shape": (70, 90)},
    {"rotation": -101.0, "center": (1.3, 0.4)},
]


# Hexagonal, square, rectangular, centred, oblique; atoms on axes and off them; a glide line.
@pytest.mark.parametrize("name", ["graphene", "MoS2", "CuI", "FeSe", "SnS", "WTe2-1Tp", "MoCl3", "SbTeI"])
@pytest.mark.usefixtures("stand_in")
def test_one_period_gives_the_whole_image_in_any_pose(name: str) -> None:
    layer = crystal(name)
    scan = scan_period(layer, REST)
    for pose in POSES:
        view = {"shape": (64, 64), **pose}
        frame = simulate_multislice(layer, scan=scan, **view)
        expected = simulate_stem(layer, sigma=SIGMA, **view)
        assert np.abs(frame.image - expected.image).max() < 1e-3 * expected.image.max()
        # Same targets as the fast simulator, to the last pixel.
        assert np.array_equal(frame.mask, expected.mask)
        assert np.array_equal(frame.atoms, expected.atoms)


@pytest.mark.usefixtures("stand_in")
def test_the_image_does_not_depend_on_cell_or_origin() -> None:
    layer = crystal("SnS")
    other = layer.copy()
    other.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ layer.cell.array, scale_atoms=False)
    other.positions[1] += layer.cell[0]
    moved = layer.copy()
    moved.positions[:, :2] += (0.7, -0.3)
    view: dict[str, Any] = {"settings": REST, "shape": (50, 50), "rotation": 12}
    image = simulate_multislice(layer, **view).image
    for same in (
        simulate_multislice(other, **view).image,
        simulate_multislice(moved, center=(0.7, -0.3), **view).image,
    ):
        assert np.abs(same - image).max() < 1e-3 * image.max()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("name", "fewer"), [("MoS2", 4), ("graphene", 4), ("SnS", 1.5), ("FeSe", 3)])
def test_equivalent_positions_are_calculated_once(name: str, fewer: float) -> None:
    scan = scan_period(crystal(name), REST)
    assert scan.facts["probe_positions"] * fewer <= scan.values.size


@pytest.mark.usefixtures("stand_in")
def test_a_source_blurs_like_a_gaussian() -> None:
    layer = crystal("MoS2")
    sigma = 0.8 / np.sqrt(8 * np.log(2))
    blurred = simulate_multislice(layer, settings=REST, source_size=0.8, shape=(64, 64)).image
    expected = simulate_stem(layer, sigma=float(np.hypot(SIGMA, sigma)), shape=(64, 64)).image
    assert np.abs(blurred - expected).max() < 1e-3 * expected.max()


@pytest.mark.usefixtures("stand_in")
def test_thermal_motion_is_seeded_and_its_error_is_told() -> None:
    layer = crystal("MoS2")
    first, again, other = (scan_period(layer, Multislice(phonons=4), seed=seed).values for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    errors = [scan_period(layer, Multislice(phonons=n), seed=2).facts["standard_error"] for n in (1, 4, 64)]
    assert errors[0] == 0  # one configuration tells nothing about its error
    assert errors[1] > errors[2] > 0
    # A Gaussian that moves by a Gaussian is a wider one.
    wide = simulate_multislice(
        layer, settings=Multislice(phonons=64, displacement=0.15), shape=(64, 64)
    ).image
    expected = simulate_stem(layer, sigma=float(np.hypot(SIGMA, 0.15)), shape=(64, 64)).image
    assert np.corrcoef(wide.ravel(), expected.ravel())[0, 1] > 0.99
    assert abs(wide.mean() / expected.mean() - 1) < 0.04


def test_planes_scatter_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def watch(boxes: Any, positions: Any, grid: Any, planes: Any, focus: Any, settings: Any) -> np.ndarray:
        box = next(iter(boxes))
        seen.update(box=box, planes=np.array(planes), focus=focus, grid=grid)
        return np.ones((1, len(positions)))

    monkeypatch.setattr(engine, "annular_signal", watch)
    monkeypatch.setattr(engine, "abtem_version", lambda: "stand-in")
    layer = crystal("MoS2")
    scan = scan_period(layer, Multislice(phonons=1, displacement=0.0, defocus=5.0))
    heights = np.unique(layer.positions[:, 2].round(4))
    assert np.allclose(seen["planes"][:-1], np.diff(heights), atol=1e-3)
    starts = np.cumsum(seen["planes"]) - seen["planes"]
    slice_of = np.searchsorted(starts, seen["box"].positions[:, 2], side="right") - 1
    for number in range(3):
        elements = set(seen["box"].numbers[slice_of == number])
        assert elements == ({42} if number == 1 else {16})
    # A positive C1 is overfocus: the focus lies before the middle.
    assert seen["focus"] == pytest.approx(np.ptp(heights) / 2 - 5.0, abs=1e-3)
    assert min(scan.facts["box_size"]) >= 16
    # Antialiasing leaves two thirds of what the grid carries: enough for the outer angle.
    carried = [
        n / side / 3 * 0.04176 * 1e3 for n, side in zip(seen["grid"], scan.facts["box_size"], strict=True)
    ]
    assert min(carried) >= 200
    one = scan_period(layer, Multislice(phonons=1, displacement=0.0, slice_thickness=9.0))
    assert one.facts["slices"] == 1


@pytest.mark.usefixtures("stand_in")
def test_a_scan_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = crystal("WTe2-1Tp")
    first = stored_scan(layer, REST, cache=tmp_path)
    monkeypatch.setattr(engine, "annular_signal", None)  # calling it would fail
    again = stored_scan(layer, REST, cache=tmp_path)
    assert np.array_equal(first.values, again.values)
    assert (first.facts, first.limit) == (again.facts, again.limit)
    assert np.array_equal(first.series(0.5)[1], again.series(0.5)[1])
    for change in (
        lambda: stored_scan(crystal("WTe2"), REST, cache=tmp_path),
        lambda: stored_scan(layer, REST, seed=1, cache=tmp_path),
        lambda: stored_scan(layer, REST.model_copy(update={"inner": 70.0}), cache=tmp_path),
    ):
        with pytest.raises(TypeError):
            change()
    moved = layer.copy()
    moved.positions[0, 0] += 0.01
    with pytest.raises(TypeError):
        stored_scan(moved, REST, cache=tmp_path)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(AtomVisionError, match="damaged scan"):
        stored_scan(layer, REST, cache=tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": 90, "outer": 80}, "must be larger than inner"),
        ({"displacement": -0.1}, "displacement must be between 0 and 0.5"),
        ({"displacement": {"Mo": 0.7}}, "displacement must be between 0 and 0.5"),
        ({"displacement": 0.0}, "all the same: phonons=1"),
        ({"voltage": 0}, "greater than 0"),
        ({"volts": 80}, "not permitted"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Multislice(**values)


@pytest.mark.usefixtures("stand_in")
def test_crystals_and_arguments_that_make_no_sense() -> None:
    layer = crystal("MoS2")
    particle = Atoms("Au", positions=[(0, 0, 0)])
    with pytest.raises(UsageError, match="periodic along two vectors in the xy plane"):
        simulate_multislice(particle)
    tilted = layer.copy()
    tilted.rotate(10, "x", rotate_cell=True)
    with pytest.raises(UsageError, match="turn it so"):
        simulate_multislice(tilted)
    with pytest.raises(UsageError, match="names no value for S"):
        scan_period(layer, Multislice(displacement={"Mo": 0.06}))
    for wrong in ({"rotation": float("nan")}, {"source_size": -1.0}, {"mask_radius": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            simulate_multislice(layer, settings=REST, **wrong)
    with pytest.raises(CrystalError, match="too many") as caught:
        scan_period(layer * (1, 1, 1), REST.model_copy(update={"box": 900.0}))
    assert caught.value.step == "multislice"


def test_without_abtem_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(engine, "version", version)
    with pytest.raises(MissingExtraError, match=r"pip install 'atomvision-hub\[multislice\]'") as caught:
        simulate_multislice(crystal("graphene"))
    assert "\n" not in str(caught.value)
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [item.split(">=")[0] for item in project["optional-dependencies"]["multislice"]] == ["abtem"]
    assert not any(item.startswith("abtem") for item in project["dependencies"])
