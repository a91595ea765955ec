"""Laws of multislice images, computed by abTEM (``make test-multislice``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.simulation.multislice import Multislice, PeriodScan, scan_period, simulate_multislice
from atomvision_hub.structures import flat_layer

pytest.importorskip("abtem", reason="abTEM is not installed: pip install 'atomvision-hub[multislice]'")

#: At rest nothing is random. A finer grid than usual: heavy atoms bend the wave between its points.
REST = Multislice(phonons=1, displacement=0.0, box=12.0, margin=1.5, inner=50.0, outer=120.0)
VIEW: dict[str, Any] = {"shape": (64, 64), "pixel_size": 0.1, "source_size": 0.5}


def crystal(name: str) -> Atoms:
    return flat_layer(load_structures("reference")[name])


def lone(number: int) -> Atoms:
    """One atom in a cell so large that the probe sees no other."""
    return Atoms([number], positions=[(0, 0, 5)], cell=(8, 8, 10), pbc=(True, True, False))


def summed(scan: PeriodScan) -> float:
    """Cross-section of what is in a period, Å²."""
    return float(scan.values.mean() * abs(np.linalg.det(scan.cell)))


def largest(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max() / second.max())


def test_a_lone_atom_scatters_as_a_power_of_its_number() -> None:
    numbers = np.array([6, 14, 32, 79])

    def power(inner: float) -> tuple[float, np.ndarray]:
        settings = REST.model_copy(update={"inner": inner, "outer": 200.0})
        sections = np.array([summed(scan_period(lone(int(number)), settings)) for number in numbers])
        return float(np.polyfit(np.log(numbers), np.log(sections), 1)[0]), sections

    high, sections = power(100.0)
    assert 1.6 < high < 2.0
    # Light atoms follow Rutherford's square nearly; a heavy one bends the wave so much that it falls behind.
    slopes = np.diff(np.log(sections)) / np.diff(np.log(numbers))
    assert 1.8 < slopes[0] < 2.1
    assert (np.diff(slopes) < 0).all()
    assert slopes[-1] > 1.0
    # Rutherford's square is the limit of large angles; farther in, electrons screen more of a heavy nucleus.
    assert power(40.0)[0] < high - 0.05
    # Carbon scatters so weakly that Rutherford's formula holds: pi (2 Z / (a0 q²))² integrated over the ring,
    # relativistic, with q = 4 pi sin(theta / 2) / wavelength, less what screening takes.
    wave, lowest, highest = 0.04176, 0.100, 0.200
    gamma = 1 + 80 / 511.0
    rutherford = (gamma * 6 / 0.529) ** 2 * wave**4 / (4 * np.pi**3) * (1 / lowest**2 - 1 / highest**2)
    assert 0.7 * rutherford < sections[0] < 1.05 * rutherford


def test_a_lone_atom_is_round_and_lies_where_it_is() -> None:
    frame = simulate_multislice(lone(42), settings=REST, shape=(61, 61), pixel_size=0.1)
    assert np.unravel_index(frame.image.argmax(), frame.image.shape) == (30, 30)
    assert largest(frame.image.T, frame.image) < 0.01
    assert largest(frame.image[::-1], frame.image) < 0.01
    assert (frame.atoms["x"][0], frame.atoms["y"][0]) == (30, 30)


def test_no_more_than_the_beam_is_detected_and_nearly_all_of_it_by_the_whole_plane() -> None:
    whole = REST.model_copy(update={"inner": 1e-3, "outer": 200.0})
    for name in ("MoS2", "WSe2"):
        values = scan_period(crystal(name), whole).values
        assert values.max() <= 1 + 1e-4
        assert values.min() > 0.95
    ring = scan_period(crystal("MoS2"), REST).values
    assert 0 < ring.min() < ring.max() < 0.2


def test_rings_add_up() -> None:
    # One grid for all: it follows from the outer angle.
    inner, outer, both = (
        scan_period(
            crystal("graphene"),
            REST.model_copy(update={"inner": low, "outer": high, "margin": 250.0 / high}),
        ).values
        for low, high in ((60.0, 100.0), (100.0, 200.0), (60.0, 200.0))
    )
    assert np.allclose(inner + outer, both, rtol=0.03)


def test_moving_the_crystal_moves_the_image() -> None:
    still = crystal("MoS2")
    moved = still.copy()
    moved.positions[:, :2] += (0.7, -0.4)
    expected = simulate_multislice(still, settings=REST, shift=(0.7, -0.4), **VIEW).image
    assert largest(simulate_multislice(moved, settings=REST, **VIEW).image, expected) < 0.02


def test_turning_the_crystal_turns_the_image() -> None:
    still = crystal("SnS")
    turned = still.copy()
    turned.rotate(25, "z", rotate_cell=True)
    expected = simulate_multislice(still, settings=REST, rotation=25, **VIEW).image
    assert largest(simulate_multislice(turned, settings=REST, **VIEW).image, expected) < 0.02


def test_the_image_repeats_with_the_crystal() -> None:
    layer = crystal("MoS2")
    scan = scan_period(layer, REST)
    period = layer.cell.array[1, :2]
    first = simulate_multislice(layer, scan=scan, **VIEW).image
    assert largest(simulate_multislice(layer, scan=scan, shift=period, **VIEW).image, first) < 1e-5
    # A cell twice as large is scanned anew, in another box.
    double = scan_period(layer * (2, 1, 1), REST)
    assert largest(simulate_multislice(layer, scan=double, **VIEW).image, first) < 0.02


def test_the_mirrored_crystal_has_the_mirrored_image() -> None:
    # Three unlike atoms in an oblique cell: no mirror of its own.
    layer = Atoms(
        "BSiTi",
        positions=[(0, 0, 5), (1.1, 0.9, 6), (2.3, 0.2, 5)],
        cell=[(3.2, 0, 0), (0.5, 3.3, 0), (0, 0, 10)],
        pbc=(True, True, False),
    )
    mirrored = layer.copy()
    mirrored.positions[:, 0] *= -1
    mirrored.set_cell(layer.cell.array * np.array([-1, 1, 1]), scale_atoms=False)
    image = simulate_multislice(layer, settings=REST, shape=(65, 65), source_size=0.5).image
    other = simulate_multislice(mirrored, settings=REST, shape=(65, 65), source_size=0.5).image
    assert largest(other[:, ::-1], image) < 0.02


def test_symmetry_saves_time_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from atomvision_hub.simulation.multislice import scan as module

    layer = crystal("MoS2")
    quick = scan_period(layer, REST)
    monkeypatch.setattr(module, "_symmetries", lambda *_: (np.eye(2)[None], np.zeros((1, 2))))
    full = scan_period(layer, REST)
    assert full.facts["probe_positions"] > 3 * quick.facts["probe_positions"]
    images = [simulate_multislice(layer, scan=scan, **VIEW).image for scan in (quick, full)]
    assert largest(*images) < 0.02


def test_the_focus_is_where_it_is_said_to_be() -> None:
    """Overfocus (a positive C1) is before the middle, towards the gun: the lowest atoms are sharp."""
    atoms = Atoms("Au2", positions=[(0, 0, 0), (4, 4, 80)], cell=(8, 8, 100), pbc=(True, True, False))

    def brightness(defocus: float) -> tuple[float, float]:
        settings = REST.model_copy(update={"defocus": defocus})
        image = simulate_multislice(atoms, settings=settings, shape=(81, 81), pixel_size=0.1).image
        return float(image[40, 40]), float(image[0, 0])

    first, last = brightness(40.0)
    assert first > 2 * last
    first, last = brightness(-40.0)
    assert last > 2 * first
    first, last = brightness(0.0)
    assert first == pytest.approx(last, rel=0.15)


def test_thermal_motion_is_an_average_over_configurations() -> None:
    layer = crystal("MoS2")
    warm = Multislice(phonons=4, box=12.0, inner=50.0, outer=120.0)
    scan = scan_period(layer, warm)
    assert 0 < scan.facts["standard_error"] < 0.2
    assert np.array_equal(scan.values, scan_period(layer, warm).values)
    image = simulate_multislice(layer, scan=scan, **VIEW).image
    fast = simulate_stem(layer, shape=(64, 64), sigma=0.4).image
    assert np.corrcoef(image.ravel(), fast.ravel())[0, 1] > 0.95
