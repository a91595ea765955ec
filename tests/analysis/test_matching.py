"""Which planes an image shows, and along which direction it looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ase.build import bulk

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.analysis import PHASES, AnalysisError, lattice_spacings, match_spacings, reflections
from atomvision_hub.structures import flat_layer

ZoneImage = Callable[..., npt.NDArray[np.float64]]


@pytest.mark.parametrize(
    ("name", "axis", "shown"),
    [
        ("Au", (1, 1, 0), {(1, 1, 1), (2, 0, 0)}),
        ("Au", (1, 0, 0), {(2, 0, 0), (2, 2, 0)}),
        ("Au", (1, 1, 1), {(2, 2, 0)}),
        ("Rh", (1, 1, 0), {(1, 1, 1), (2, 0, 0)}),
        ("Rh", (2, 1, 1), {(1, 1, 1), (2, 2, 0)}),
        ("Fe3O4", (1, 1, 0), {(4, 0, 0), (2, 2, 0), (3, 1, 1)}),
        ("Fe3O4", (1, 1, 1), {(2, 2, 0)}),
        ("Fe3O4", (1, 0, 0), {(2, 2, 0), (4, 0, 0)}),
        ("SnS", (1, 0, 0), {(0, 1, 1), (0, 2, 0)}),
        ("SnS", (0, 1, 0), {(4, 0, 0), (1, 0, 1), (2, 0, 1)}),
        ("SrTiO3", (1, 0, 0), {(1, 0, 0), (1, 1, 0), (2, 0, 0)}),
    ],
)
def test_zone_is_found(name: str, axis: tuple[int, int, int], shown: set, zone_image: ZoneImage) -> None:
    """The paper's crystals and usual standards, seen along low-index directions."""
    atoms = PHASES[name]()
    found = lattice_spacings(zone_image(atoms, axis), 0.15, calibration_uncertainty=0.02)
    matches = match_spacings(found, atoms)
    best = matches.zones[0]
    assert best.axis == axis
    assert best.scale == pytest.approx(1, abs=0.004)
    assert best.explained == pytest.approx(1)
    assert best.residual < 0.01
    plane_of = {hkl: plane for plane in reflections(atoms, 0.8) for hkl in plane.members}
    named = {plane_of[indices].hkl for indices in best.indices if indices is not None}
    assert shown <= named
    for peak, indices in zip(found.peaks, best.indices, strict=True):
        assert indices is not None
        assert peak.d == pytest.approx(plane_of[indices].d, rel=0.01)


def test_wrong_calibration_is_told(zone_image: ZoneImage) -> None:
    """Lengths 5 % off are still recognised by their angles, and the factor is reported."""
    atoms = PHASES["Au"]()
    found = lattice_spacings(zone_image(atoms, (1, 1, 0), scale=1.05), 0.15, calibration_uncertainty=0.03)
    best = match_spacings(found, atoms).zones[0]
    assert best.axis == (1, 1, 0)
    assert best.scale == pytest.approx(1.05, abs=0.003)


def test_another_crystal_does_not_fit(zone_image: ZoneImage) -> None:
    """Magnetite along [111] is no silicon: no zone explains it, or only with a poor score."""
    found = lattice_spacings(zone_image(PHASES["Fe3O4"](), (1, 0, 0)), 0.15, calibration_uncertainty=0.01)
    right = match_spacings(found, PHASES["Fe3O4"]()).zones[0].score
    for other in ("SnS", "Si", "Rh"):
        zones = match_spacings(found, PHASES[other]()).zones
        assert max((zone.score for zone in zones), default=0) < 0.3 * right


def test_extinct_planes_are_not_named(zone_image: ZoneImage) -> None:
    atoms = PHASES["Si"]()
    matches = match_spacings(lattice_spacings(zone_image(atoms, (1, 1, 0)), 0.15), atoms)
    named = {facet.hkl for facets in matches.facets for facet in facets}
    assert (1, 1, 1) in named
    assert (2, 0, 0) not in named


def test_facets_of_one_spacing() -> None:
    """One set of planes has no zone; its families are ranked, and their probabilities sum to one."""
    y = np.arange(200)[:, None] * 0.1
    image = np.cos(2 * np.pi * y / 2.05) + 0.3 * np.random.default_rng(0).normal(size=(200, 200))
    matches = match_spacings(lattice_spacings(image, 0.1), PHASES["Au"]())
    assert matches.zones == ()
    best = matches.facets[0][0]
    assert best.hkl == (2, 0, 0)
    assert best.deviation == pytest.approx(2.05 / 2.0393 - 1, abs=2e-3)
    assert abs(best.sigmas) < 1
    assert sum(facet.probability for facet in matches.facets[0]) == pytest.approx(1)


def test_layer_is_seen_along_its_normal() -> None:
    layer = flat_layer(load_structures("reference")["MoS2"])
    frame = simulate_stem(layer, shape=(256, 256), pixel_size=0.1, rotation=13)
    best = match_spacings(lattice_spacings(frame.image, 0.1), layer).zones[0]
    assert best.axis == (0, 0, 1)
    assert best.scale == pytest.approx(1, abs=1e-3)
    assert best.completeness > 0.8  # the weakest of its planes are beyond the twelve that were asked for


def test_nothing_found_matches_nothing() -> None:
    noise = np.random.default_rng(0).normal(size=(64, 64))
    matches = match_spacings(lattice_spacings(noise, 0.1), bulk("Au"))
    assert (matches.facets, matches.zones) == ((), ())


def test_uncalibrated_images_are_refused(zone_image: ZoneImage) -> None:
    found = lattice_spacings(zone_image(PHASES["Au"](), (1, 0, 0)), None)
    with pytest.raises(AnalysisError, match="not calibrated; give its pixel size"):
        match_spacings(found, PHASES["Au"]())


def test_strontium_titanate_of_a_real_microscope(shared_data: Path) -> None:
    """A real image of SrTiO3 is seen along <100>; its file's pixel size is 5 % too large."""
    microscopy = pytest.importorskip("atomvision_hub.microscopy")
    pytest.importorskip("rsciio")
    image = microscopy.read_images(shared_data / "microscopy" / "Acquisition_18.emd")[0]
    found = lattice_spacings(image.data[:512, :512], image.pixel_size, calibration_uncertainty=0.05)
    best = match_spacings(found, PHASES["SrTiO3"]()).zones[0]
    assert best.axis == (1, 0, 0)
    assert best.scale == pytest.approx(1.051, abs=0.005)
    assert best.explained > 0.95


def test_gold_particle_of_a_real_microscope(shared_data: Path) -> None:
    """A twinned particle seen along <110>: {111} planes at 70.5 degrees, lengths 9 % too short."""
    microscopy = pytest.importorskip("atomvision_hub.microscopy")
    pytest.importorskip("rsciio")
    image = microscopy.read_images(shared_data / "microscopy" / "Au_nanoparticle_HAADF.emd")[0]
    particle = image.data[600:1200, 1250:1750]
    found = lattice_spacings(particle, image.pixel_size, calibration_uncertainty=0.05)
    best = match_spacings(found, PHASES["Au"]()).zones[0]
    assert best.axis == (1, 1, 0)
    assert best.scale == pytest.approx(0.906, abs=0.01)
    assert best.indices[:2] == ((1, 1, 1), (1, 1, -1)) or None not in best.indices[:2]
