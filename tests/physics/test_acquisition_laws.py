"""Laws of recording: statistics of the dose, limits without effect, conservation, geometry, reproducibility."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.analysis import detect_atoms
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
    SourceSize,
    Tilt,
    Vibration,
    acquire,
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
    Flyback(lag=0.5),
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


@pytest.mark.parametrize("name", sorted(STEPS))
def test_steps_without_strength_change_no_bit(name: str) -> None:
    ideal = image()
    found = acquire(ideal, 0.1, Acquisition((STEPS[name](),)) if name != "scan" else "ideal", seed=1)
    np.testing.assert_array_equal(found.image, ideal.astype(np.float32))
    assert found.displacement is None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_come_back_from_their_record(preset: str) -> None:
    first = record_stem(CRYSTALS["MoS2"], preset, seed=7, shape=(64, 48))
    told = json.loads(json.dumps(first.parameters()["acquisition"]))
    again = record_stem(
        CRYSTALS["MoS2"], Acquisition.from_dict(told["steps"]), seed=told["seed"], shape=(64, 48)
    )
    np.testing.assert_array_equal(first.image, again.image)
    other = record_stem(CRYSTALS["MoS2"], preset, seed=8, shape=(64, 48))
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


def test_leaving_out_one_step_leaves_the_noise_of_the_others() -> None:
    ideal = image()
    full = Acquisition((LineJitter(rms=0.3), Dose(electrons=1e4), Detector(noise=2.0)))
    one = acquire(ideal, 0.1, full, seed=5).displacement
    two = acquire(ideal, 0.1, full.without("dose", "detector"), seed=5).displacement
    np.testing.assert_array_equal(one, two)


@given(rms=st.floats(0.02, 0.5))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_vibration_widens_an_atom_by_its_variance(rms: float) -> None:
    from ase import Atoms

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

    def test_airy_radius(self) -> None:
        """Without aberrations: first dark ring at 0.61 wavelengths over the semi-angle."""
        intensity = np.fft.fftshift(probe_intensity((512, 512), (0.05, 0.05), voltage=200, semi_angle=20))
        line = intensity[256, 256:]
        dark = 1 + np.argmax(np.diff(line) > 0)
        assert dark * 0.05 == pytest.approx(0.61 * wavelength(200) / 0.02, abs=0.08)
        assert intensity.sum() == pytest.approx(1)

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


@given(seed=SEEDS)
@settings(deadline=None, derandomize=True, max_examples=8)
def test_atoms_are_where_the_table_says(seed: int) -> None:
    acquisition = Acquisition((Drift(fraction=0.02), LineJitter(rms=0.03), Flyback(lag=0.3)))
    frame = record_stem(CRYSTALS["graphene"], acquisition, seed=seed, shape=(160, 160), sigma=0.3)
    found = detect_atoms(frame.image, 0.1, width=0.3)
    table = frame.atoms
    inner = (table["x"] > 12) & (table["x"] < 147) & (table["y"] > 12) & (table["y"] < 147)
    distance = np.hypot(
        table["x"][inner][:, None] - found.x[None], table["y"][inner][:, None] - found.y[None]
    ).min(1)
    # A jitter of 0.3 px a line over the six lines of an atom's core: its centre follows their mean.
    assert np.sqrt((distance**2).mean()) < 0.35
    moved = np.hypot(table["x"] - frame.ideal.atoms["x"], table["y"] - frame.ideal.atoms["y"])
    assert moved.max() > 0.8


def test_drift_shears_a_line_by_its_fraction() -> None:
    recorded = acquire(image(), 0.1, Acquisition((Drift(fraction=0.1),)), seed=2)
    assert recorded.displacement is not None
    way = recorded.displacement[-1, 0] - recorded.displacement[0, 0]
    assert np.hypot(*way) == pytest.approx(0.1 * 5.0)
    angle = np.radians(recorded.notes["drift_direction"])
    np.testing.assert_allclose(way, 0.5 * np.array([np.cos(angle), np.sin(angle)]), atol=1e-12)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Acquisition.preset("best"), "there is no preset 'best'; there are: ideal"),
        (lambda: Acquisition((Dose(), Dose())), "dose is there twice"),
        (lambda: Dose(electrons=-1), "dose: electrons must not be negative"),
        (lambda: Dose(electrons=float("nan")), "dose: electrons must be finite"),
        (lambda: Acquisition.from_dict([{"step": "magic"}]), "there is no step 'magic'"),
        (lambda: Acquisition.from_dict([{"step": "dose", "volts": 1}]), "step dose has no volts"),
        (lambda: acquire(np.zeros((9, 9)), 0.1, "good", seed=0), "the image holds no intensity"),
        (lambda: acquire(np.zeros(9), 0.1, "good", seed=0), r"finite array \[row, column\]"),
        (lambda: acquire(image(), 0.1, "good", seed=-1), "the seed must be a whole number"),
        (lambda: acquire(image(), 0.0, "good", seed=0), "pixel_size"),
        (lambda: acquire(image(), 0.1, Acquisition((Digitise(bits=40),)), seed=0), "up to 32"),
    ],
    ids=["preset", "twice", "negative", "nan", "step", "key", "dark", "shape", "seed", "pixel", "bits"],
)
def test_mistakes(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
