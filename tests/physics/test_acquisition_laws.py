"""Laws of recording: statistics of the dose, no effect, conservation, geometry, reproducibility."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.special import j1

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation import simulate_stem
from atomvision_hub.simulation.acquisition import (
    PRESETS,
    STEPS,
    Acquisition,
    Background,
    Contamination,
    Detector,
    Digitise,
    Dose,
    Drift,
    Flyback,
    LineJitter,
    Probe,
    RecordedFrame,
    SourceSize,
    Tilt,
    Vibration,
    acquire,
    from_record,
    probe_intensity,
    record_stem,
    wavelength,
)
from atomvision_hub.structures import load_structures

SEEDS = st.integers(0, 2**32 - 1)
CRYSTALS = load_structures("reference")
EVERYTHING = (
    Vibration(rms=0.08),
    SourceSize(fwhm=0.8),
    Contamination(level=0.2, size=5),
    Background(level=0.1, slope=(0.2, -0.1)),
    Drift(fraction=0.02),
    LineJitter(rms=0.1),
    Flyback(lag=0.1, settling=0.05),
    Dose(electrons=2000),
    Detector(gain=3, offset=20, noise=0.5),
    Digitise(bits=12),
)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 5, (40, 50))


@given(dose=st.floats(1, 1e5), pixel=st.floats(0.05, 0.5), seed=SEEDS)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_dose_is_the_mean_of_electrons_per_area(dose: float, pixel: float, seed: int) -> None:
    found = acquire(np.full((64, 64), 3.0), pixel, Acquisition((Dose(electrons=dose),)), seed=seed).image
    expected = dose * pixel**2
    assert found.mean() == pytest.approx(expected, abs=6 * np.sqrt(expected / found.size))
    assert np.array_equal(found, np.rint(found))
    # Poisson: the variance is the mean (its own error from the fourth moment).
    spread = np.sqrt((expected + 2 * expected**2) / found.size)
    assert found.var() == pytest.approx(expected, abs=6 * spread)


@given(seed=SEEDS)
@settings(deadline=None, derandomize=True, max_examples=10)
def test_noise_of_pixels_is_independent(seed: int) -> None:
    found = acquire(np.ones((128, 128)), 0.1, Acquisition((Dose(electrons=1000),)), seed=seed).image
    noise = found - found.mean()
    for shift in ((0, 1), (1, 0), (1, 1)):
        assert abs((noise * np.roll(noise, shift, (0, 1))).mean() / noise.var()) < 5 / 128


def test_much_dose_is_the_ideal_image() -> None:
    ideal = image()
    found = acquire(ideal, 0.1, Acquisition((Dose(electrons=1e12),)), seed=0)
    back = found.image / found.notes["electrons_per_intensity"]
    np.testing.assert_allclose(back, ideal, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(STEPS) - {"dose"}))
@given(seed=SEEDS, rows=st.integers(1, 30), margin=st.integers(0, 5))
@settings(deadline=None, derandomize=True, max_examples=10)
def test_steps_without_strength_change_no_bit(name: str, seed: int, rows: int, margin: int) -> None:
    ideal = np.random.default_rng(seed).uniform(0, 5, (rows + 2 * margin, 17 + 2 * margin))
    found = acquire(ideal, 0.1, Acquisition((STEPS[name](),)), seed=seed, margin=(margin, margin))
    inner = slice(margin, rows + margin), slice(margin, 17 + margin)
    np.testing.assert_array_equal(found.image, ideal[inner].astype(np.float32))
    assert found.displacement is None


def test_an_acquisition_without_steps_changes_no_bit() -> None:
    np.testing.assert_array_equal(acquire(image(), 0.1, "ideal", seed=0).image, image().astype(np.float32))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_come_back_from_their_record(preset: str) -> None:
    first = record_stem(CRYSTALS["MoS2"], preset, seed=7, shape=(64, 48), rotation=12.3, shift=(0.4, -1))
    told = first.parameters()
    acquisition, seed = from_record(told.pop("acquisition"))
    again = record_stem(CRYSTALS["MoS2"], acquisition, seed=seed, shape=(64, 48), **told)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.atoms, again.atoms)
    other = record_stem(CRYSTALS["MoS2"], preset, seed=8, shape=(64, 48), rotation=12.3, shift=(0.4, -1))
    assert (preset == "ideal") == np.array_equal(first.image, other.image)


def test_ideal_is_the_simulated_image_to_the_bit() -> None:
    frame = record_stem(CRYSTALS["h-BN"], "ideal", seed=0, rotation=10)
    np.testing.assert_array_equal(frame.image, simulate_stem(CRYSTALS["h-BN"], rotation=10).image)
    np.testing.assert_array_equal(frame.mask, frame.ideal.mask)


def test_everything_together_comes_back() -> None:
    acquisition = Acquisition(EVERYTHING)
    assert Acquisition.from_dict(json.loads(json.dumps(acquisition.to_dict()))) == acquisition
    assert [step.rank for step in acquisition.steps] == sorted(step.rank for step in EVERYTHING)
    one = record_stem(CRYSTALS["MoS2"], acquisition, seed=3, shape=(80, 80))
    two = record_stem(CRYSTALS["MoS2"], Acquisition(EVERYTHING[::-1]), seed=3, shape=(80, 80))
    np.testing.assert_array_equal(one.image, two.image)
    assert one.image.max() == 2**12 - 1
    assert one.image.min() == 0


@given(seed=SEEDS, left_out=st.sets(st.sampled_from([step.name for step in EVERYTHING])))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_leaving_out_steps_leaves_what_the_others_draw(seed: int, left_out: set[str]) -> None:
    """Distortions are the same whatever else happens; the film is, whatever margin the others ask for."""
    acquisition = Acquisition(EVERYTHING)
    full = record_stem(CRYSTALS["MoS2"], acquisition, seed=seed, shape=(40, 40)).recorded
    less = record_stem(CRYSTALS["MoS2"], acquisition.without(*left_out), seed=seed, shape=(40, 40)).recorded
    if not left_out & {"drift", "line_jitter", "flyback"}:
        assert full.displacement is not None
        assert less.displacement is not None
        np.testing.assert_array_equal(full.displacement, less.displacement)
    if "drift" not in left_out:
        assert full.notes["drift_direction"] == less.notes["drift_direction"]


@given(seed=SEEDS)
@settings(deadline=None, derandomize=True, max_examples=10)
def test_the_film_does_not_depend_on_the_margin(seed: int) -> None:
    film = Acquisition((Contamination(level=0.5, size=2),))
    wide = acquire(np.ones((60, 50)), 0.1, film, seed=seed, margin=(10, 5)).image
    narrow = acquire(np.ones((40, 40)), 0.1, film, seed=seed).image
    np.testing.assert_allclose(wide, narrow, rtol=1e-5)


def test_the_film_has_its_correlation_length() -> None:
    film = Acquisition((Contamination(level=1, size=0.8),))
    films = np.array([acquire(np.ones((96, 96)), 0.1, film, seed=seed).image for seed in range(30)]) - 2
    # Thickness is cut off at zero for the lowest 2 %, which changes the correlation by a few percent.
    along = (films[:, :, :-8] * films[:, :, 8:]).mean() / films.var()
    down = (films[:, :-8] * films[:, 8:]).mean() / films.var()
    assert along == pytest.approx(np.exp(-0.5), abs=0.05)
    assert down == pytest.approx(np.exp(-0.5), abs=0.05)


@given(rms=st.floats(0.02, 0.5))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_vibration_widens_an_atom_by_its_variance(rms: float) -> None:
    atom = Atoms("Mo", positions=[[0, 0, 0]])
    still = record_stem(atom, "ideal", seed=0, shape=(121, 121), sigma=0.4).image
    moving = record_stem(atom, Acquisition((Vibration(rms=rms),)), seed=0, shape=(121, 121), sigma=0.4).image
    x = (np.arange(121) - 60) * 0.1
    variance = [float((one.sum(0) * x**2).sum() / one.sum()) for one in (still, moving)]
    assert variance[1] - variance[0] == pytest.approx(rms**2, rel=0.02, abs=2e-4)
    assert moving.sum() == pytest.approx(still.sum(), rel=1e-3)


def test_source_size_is_a_full_width_at_half_maximum() -> None:
    point = np.zeros((101, 101))
    point[50, 50] = 1
    line = acquire(point, 0.05, Acquisition((SourceSize(fwhm=1.0),)), seed=0).image[50]
    above = np.nonzero(line >= line.max() / 2)[0]
    assert (above[-1] - above[0] + 1) * 0.05 == pytest.approx(1.0, abs=0.06)


class TestProbe:
    """The contrast transfer function's probe."""

    def test_wavelength(self) -> None:
        assert wavelength(300) == pytest.approx(0.019687, rel=1e-4)  # Kirkland 2010, table
        assert wavelength(80) == pytest.approx(0.041757, rel=1e-4)

    @pytest.mark.parametrize(("voltage", "angle"), [(60, 25), (200, 20), (300, 30)])
    def test_without_aberrations_it_is_the_airy_pattern(self, voltage: float, angle: float) -> None:
        n, size = 720, 0.15
        intensity = np.fft.fftshift(probe_intensity((n, n), (size, size), voltage=voltage, semi_angle=angle))
        assert intensity.sum() == pytest.approx(1)
        r = np.hypot(*np.meshgrid(*[(np.arange(n) - n // 2) * size] * 2))[n // 2, n // 2 + 1 : n // 2 + 100]
        v = 2 * np.pi * 1e-3 * angle / wavelength(voltage) * r
        # The Airy pattern of integral one: its peak is pi (alpha / lambda)².
        peak = np.pi * (1e-3 * angle / wavelength(voltage)) ** 2
        airy = peak * (2 * j1(v) / v) ** 2
        found = intensity[n // 2, n // 2 + 1 : n // 2 + 100] / size**2
        # The soft rim of the aperture, a pixel of reciprocal space, is worth half a percent here.
        np.testing.assert_allclose(found, airy, atol=0.007 * peak)
        assert intensity[n // 2, n // 2] / size**2 == pytest.approx(peak, rel=0.007)

    @given(defocus=st.floats(-100, 100), astigmatism=st.floats(0, 50), angle=st.floats(0, 180))
    @settings(deadline=None, derandomize=True, max_examples=15)
    def test_intensity_is_conserved_and_the_sharpest_is_in_focus(
        self, defocus: float, astigmatism: float, angle: float
    ) -> None:
        shape, size = (128, 128), (0.1, 0.1)
        sharp = probe_intensity(shape, size, voltage=300, semi_angle=20)
        blurred = probe_intensity(
            shape,
            size,
            voltage=300,
            semi_angle=20,
            defocus=defocus,
            astigmatism=astigmatism,
            astigmatism_angle=angle,
        )
        assert blurred.sum() == pytest.approx(1)
        assert blurred.max() <= sharp.max() * (1 + 1e-9)

    def test_astigmatism_has_a_direction(self) -> None:
        def widths(angle: float) -> np.ndarray:
            values = np.fft.fftshift(
                probe_intensity(
                    (256, 256),
                    (0.1, 0.1),
                    voltage=300,
                    semi_angle=20,
                    defocus=60,
                    astigmatism=60,
                    astigmatism_angle=angle,
                )
            )
            r = (np.arange(256) - 128) * 0.1
            return np.array([(values.sum(1 - axis) * r**2).sum() for axis in (0, 1)])

        np.testing.assert_allclose(widths(0), widths(90)[::-1], rtol=1e-6)
        assert widths(0)[1] > 2 * widths(0)[0]

    def test_coarse_pixels_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"needs pixels of .* Å or finer"):
            acquire(image(), 0.5, Acquisition((Probe(semi_angle=30),)), seed=0)

    def test_it_keeps_the_light_of_a_crystal(self) -> None:
        probe = Probe(semi_angle=22, voltage=200, defocus=30)
        frame = record_stem(CRYSTALS["MoS2"], Acquisition((probe,)), seed=0, sigma=0.15)
        assert frame.image.mean() == pytest.approx(frame.ideal.image.mean(), rel=0.03)


def distances(frame: RecordedFrame, edge: float) -> np.ndarray:
    """Return how far from the table's atoms a least-squares fit of a Gaussian to the image finds each, px."""
    yy, xx = np.indices(frame.image.shape)
    table, found = frame.atoms, []
    rows, columns = frame.image.shape
    inner = (table["x"] > edge) & (table["x"] < columns - 1 - edge)
    inner &= (table["y"] > edge) & (table["y"] < rows - 1 - edge)
    for x, y in zip(table["x"][inner].astype(float), table["y"][inner].astype(float), strict=True):
        near = np.hypot(xx - x, yy - y) < 5
        u, v, values = xx[near], yy[near], frame.image[near].astype(float)

        def misfit(p: np.ndarray, u: np.ndarray = u, v: np.ndarray = v, values: np.ndarray = values) -> Any:
            return p[0] * np.exp(-((u - p[1]) ** 2 + (v - p[2]) ** 2) / (2 * p[3] ** 2)) + p[4] - values

        fit = least_squares(misfit, [values.max(), x, y, 3.0, 0.0]).x
        found.append(np.hypot(fit[1] - x, fit[2] - y))
    return np.array(found)


def test_atoms_are_where_the_table_says() -> None:
    steady = Acquisition((Drift(fraction=0.05), Flyback(lag=0.1, settling=0.1)))
    shaken = steady.with_steps(LineJitter(rms=0.1))
    view: dict[str, Any] = {"shape": (128, 128), "sigma": 0.3, "rotation": 17}
    for acquisition, bound in ((steady, 0.05), (shaken, 0.2)):
        frames = [record_stem(CRYSTALS["graphene"], acquisition, seed=seed, **view) for seed in range(3)]
        errors = np.concatenate([distances(frame, 16) for frame in frames])
        # One pixel rms a line: the mean over the lines of an atom is known much better.
        assert np.sqrt((errors**2).mean()) < bound


@given(fraction=st.floats(0.001, 0.2), seed=SEEDS, x=st.floats(30, 70), y=st.floats(30, 70))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_drift_moves_a_point_by_what_has_passed_of_the_frame(
    fraction: float, seed: int, x: float, y: float
) -> None:
    """A spot's centroid in the recorded image, against the way at the time of its line."""
    yy, xx = np.mgrid[:101, :101]
    spot = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 3.0**2))
    recorded = acquire(spot, 0.1, Acquisition((Drift(fraction=fraction),)), seed=seed)
    angle = np.radians(recorded.notes["drift_direction"])
    way = fraction * 101 * np.array([np.cos(angle), np.sin(angle)])  # px, first line to last
    # The line on which the spot is seen: y' = y + way_y (y' / 100 - 1/2).
    seen_y = (y - way[1] / 2) / (1 - way[1] / 100)
    seen_x = x + way[0] * (seen_y / 100 - 0.5)
    np.testing.assert_allclose(recorded.move(x, y), (seen_x, seen_y), atol=1e-4)
    np.testing.assert_allclose(recorded.move(x, y, 0.5), (seen_x, seen_y), atol=1e-3)
    weights = recorded.image.astype(float)
    centroid = np.array([(weights * xx).sum(), (weights * yy).sum()]) / weights.sum()
    np.testing.assert_allclose(centroid, (seen_x, seen_y), atol=0.02)


def test_what_drifts_in_from_outside_has_its_atoms_and_its_mask() -> None:
    crystal = CRYSTALS["MoS2"]
    for seed in range(4):
        frame = record_stem(crystal, Acquisition((Drift(fraction=0.3),)), seed=seed, shape=(64, 64))
        assert frame.recorded.displacement is not None
        # The beam stands on the crystal at p + D(p): sample an ideal image that is wide enough there.
        wide = simulate_stem(crystal, shape=(164, 164))
        rows, columns = np.indices((64, 64)) + 50
        place = frame.recorded.displacement / 0.1
        expected = ndimage.map_coordinates(
            wide.image.astype(float), [rows + place[..., 1], columns + place[..., 0]], order=3
        )
        np.testing.assert_allclose(frame.image, expected, atol=2e-3 * expected.max())
        # Every atom that the beam passed at less than the radius is in the mask, and nothing else.
        table = wide.atoms
        beam = np.stack([columns + place[..., 0], rows + place[..., 1]], -1)[..., None, :]
        near = np.hypot(*np.moveaxis(beam - np.stack([table["x"], table["y"]], -1), -1, 0)).min(-1)
        assert frame.mask[near < 3.5].all()
        assert not frame.mask[near > 7.5].any()
        assert frame.atoms["visible"].sum() > 0
        assert set(np.unique(frame.atoms["column"])) == set(range(int(frame.atoms["column"].max()) + 1))


def test_flyback_shows_the_start_of_a_line_too_early() -> None:
    ramp = np.tile(np.arange(100.0), (4, 1))
    recorded = acquire(ramp, 0.1, Acquisition((Flyback(lag=0.2, settling=0.05),)), seed=0, margin=(0, 10))
    # The ramp gives the beam's place: two pixels too far right at first, right in the end.
    off = recorded.image[0] - np.arange(10, 90)
    assert off[0] == pytest.approx(2, abs=1e-3)
    assert off[-1] == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(off, 2 * np.exp(-np.arange(80) / 79 / 0.05), atol=1e-3)


def test_jitter_has_its_standard_deviation_and_moves_whole_lines() -> None:
    recorded = acquire(np.ones((4000, 8)), 0.1, Acquisition((LineJitter(rms=0.2),)), seed=0)
    assert recorded.displacement is not None
    assert recorded.displacement[:, 0, 0].std() == pytest.approx(0.2, rel=0.05)
    assert not recorded.displacement[..., 1].any()
    assert not np.ptp(recorded.displacement[..., 0], axis=1).any()


def test_background_and_contamination_add_their_mean() -> None:
    ideal = image() + 1
    rise = acquire(ideal, 0.1, Acquisition((Background(level=0.5, slope=(0.4, 0)),)), seed=0).image - ideal
    assert rise.mean() == pytest.approx(0.5 * ideal.mean(), rel=1e-4)
    assert (rise[:, -1] - rise[:, 0]).mean() == pytest.approx(0.4 * ideal.mean(), rel=1e-4)
    film = acquire(ideal, 0.1, Acquisition((Contamination(level=0.3, size=1),)), seed=0).image - ideal
    assert film.mean() == pytest.approx(0.3 * ideal.mean(), rel=1e-4)
    assert film.min() >= -1e-5
    assert film.std() > 0.05 * ideal.mean()


def test_detector_counts() -> None:
    values = acquire(np.ones((300, 300)), 1.0, Acquisition((Detector(gain=4, offset=10, noise=2),)), seed=0)
    assert values.image.mean() == pytest.approx(14, abs=0.05)
    assert values.image.std() == pytest.approx(2, rel=0.02)


def test_tilt_foreshortens() -> None:
    flat = record_stem(CRYSTALS["graphene"], "ideal", seed=0)
    tilted = record_stem(CRYSTALS["graphene"], Acquisition((Tilt(angles=(0, 30)),)), seed=0)
    # Along x by cos 30 degrees, so as many more atoms are in view.
    assert len(tilted.atoms) == pytest.approx(len(flat.atoms) / np.cos(np.radians(30)), rel=0.05)
    with pytest.raises(UsageError, match="use record_stem instead of acquire"):
        acquire(image(), 0.1, Acquisition((Tilt(angles=(1, 0)),)), seed=0)


@given(rotation=st.floats(0, 360), angle=st.floats(1, 40))
@settings(deadline=None, derandomize=True, max_examples=10)
def test_tilt_is_about_the_axes_of_the_image(rotation: float, angle: float) -> None:
    """Two atoms above each other part across the axis, by their distance times the sine, however turned."""
    pair = Atoms("Mo2", positions=[[0, 0, 0], [0, 0, 3]])
    for angles, axis in (((angle, 0), "y"), ((0, angle), "x")):
        tilt = Acquisition((Tilt(angles=angles),))
        frame = record_stem(pair, tilt, seed=0, rotation=rotation, center=(0, 0))
        apart = {name: np.ptp(frame.atoms[name]) * 0.1 for name in "xy"}
        assert apart.pop(axis) == pytest.approx(3 * np.sin(np.radians(angle)), abs=1e-4)
        assert apart.popitem()[1] == pytest.approx(0, abs=1e-4)
        assert sorted(frame.atoms["z"]) == [0, 3]
        assert frame.atoms["x"].mean() == pytest.approx(127.5, abs=1e-3)


@pytest.mark.parametrize("name", ["MoS2", "graphene"])
@given(tilt=st.tuples(st.floats(-30, 30), st.floats(-30, 30)))
@settings(deadline=None, derandomize=True, max_examples=5)
def test_tilt_keeps_what_an_area_of_the_layer_scatters(name: str, tilt: tuple[float, float]) -> None:
    """A layer seen at an angle shows more atoms an area, by one over the cosine of its normal."""
    view: dict[str, Any] = {"seed": 0, "shape": (128, 128), "pixel_size": 0.5}
    flat = record_stem(CRYSTALS[name], "ideal", **view).image
    seen = record_stem(CRYSTALS[name], Acquisition((Tilt(angles=tilt),)), **view).image
    a, b = np.radians(tilt)
    assert seen.mean() / flat.mean() == pytest.approx(1 / (np.cos(a) * np.cos(b)), rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Acquisition.preset("best"), "there is no preset 'best'; there are: ideal"),
        (lambda: Acquisition((Dose(electrons=1), Dose(electrons=2))), "dose is there twice"),
        (lambda: Drift(fraction=-1), "drift: fraction must not be negative"),
        (lambda: Dose(electrons=0), "electrons must be positive.*leave the step out"),
        (lambda: Background(slope=1), "slope must be two numbers"),
        (lambda: Drift(fraction="much"), "fraction must be finite, not 'much'"),
        (lambda: Acquisition.from_dict([{"step": "dose"}]), "step dose needs electrons"),
        (lambda: Acquisition.from_dict(["dose"]), "there is no step 'dose'; there are: tilt"),
        (lambda: from_record("good"), "JSON with steps and seed, not 'good'"),
        (
            lambda: acquire(image(), 0.1, Acquisition((Flyback(lag=3),)), seed=0),
            "the beam runs backwards",
        ),
        (lambda: acquire(image(), 0.1, Acquisition((Dose(electrons=1e30),)), seed=0), "cannot be counted"),
        (lambda: acquire(image(), 0.1, "good", seed=0, margin=(20, 0)), "leaves nothing"),
        (lambda: Dose(electrons=float("nan")), "dose: electrons must be finite"),
        (lambda: Acquisition.from_dict([{"step": "magic"}]), "there is no step 'magic'"),
        (lambda: Acquisition.from_dict([{"step": "dose", "volts": 1}]), "step dose has no volts"),
        (lambda: acquire(np.zeros((9, 9)), 0.1, "good", seed=0), "the image holds no intensity"),
        (lambda: acquire(np.zeros(9), 0.1, "good", seed=0), r"finite array \[row, column\]"),
        (lambda: acquire(image(), 0.1, "good", seed=-1), "the seed must be a whole number"),
        (lambda: acquire(image(), 0.0, "good", seed=0), "pixel_size"),
        (lambda: acquire(image(), 0.1, Acquisition((Digitise(bits=40),)), seed=0), "up to 16"),
    ],
)
def test_mistakes(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
