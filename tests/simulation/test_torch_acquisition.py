"""The batched acquisition: the same images as NumPy's for the same draws, the same statistics for others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation import disk_mask, simulate_stem
from atomvision_hub.simulation.acquisition import (
    PRESETS,
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
    Step,
    Tilt,
    Vibration,
    acquire,
)
from atomvision_hub.simulation.torch.acquisition import AcquiredBatch, _scanned, acquire_batch, apply_dose
from atomvision_hub.structures import load_structures


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(rows: int = 60, columns: int = 70, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 5, (rows, columns))
    return ndimage.gaussian_filter(noise, 1.5).astype(np.float32)


@pytest.mark.parametrize(
    "step",
    [
        Vibration(rms=0.1),
        SourceSize(fwhm=0.8),
        Probe(voltage=200, semi_angle=22, defocus=40, astigmatism=20, astigmatism_angle=30),
        Background(level=0.3, slope=(0.2, -0.4)),
        Detector(gain=3, offset=5),
        Digitise(bits=8),
        Flyback(lag=0.1, settling=0.1),
    ],
    ids=lambda step: step.name,
)
@pytest.mark.parametrize("margin", [(0, 0), (7, 9)])
def test_steps_without_chance_give_the_same_images(step: Step, margin: tuple[int, int]) -> None:
    image = smooth()
    one = acquire(image, (0.1, 0.12), Acquisition((step,)), seed=0, margin=margin)
    both = torch.from_numpy(np.stack([image, 2 * image]))
    found = acquire_batch(both, (0.1, 0.12), Acquisition((step,)), generator=seeded(), margin=margin)
    tolerance = 1.0 if step.name == "digitise" else 2e-5 * float(one.image.max())
    np.testing.assert_allclose(found.images[0], one.image, atol=tolerance)
    if step.name not in ("digitise", "detector"):
        np.testing.assert_allclose(found.images[1], 2 * found.images[0], rtol=1e-4, atol=1e-4)
    if one.displacement is not None:
        assert found.displacement is not None
        np.testing.assert_allclose(found.displacement[0], one.displacement, atol=1e-6)


def distorted(seed: int, margin: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, AcquiredBatch, object]:
    """NumPy's recording, and torch's with the displacements that NumPy drew."""
    image = smooth(80, 90)
    steps = (Drift(fraction=0.05), LineJitter(rms=0.1), Flyback(lag=0.2, settling=0.1))
    one = acquire(image, 0.1, Acquisition(steps), seed=seed, margin=margin)
    assert one.displacement is not None
    along = 0.2 * np.exp(-np.arange(one.image.shape[1]) / (one.image.shape[1] - 1) / 0.1)
    lines = one.displacement[:, 0, :] - [along[0], 0]
    sizes = torch.full((1, 2), 0.1)
    offset, extra = torch.from_numpy(lines[None]).float(), torch.from_numpy(along).float()
    images = _scanned(torch.from_numpy(image[None]), sizes, offset, extra, margin)
    return image, AcquiredBatch(images, sizes, offset, extra, None, margin), one


@pytest.mark.parametrize("margin", [(0, 0), (10, 12)])
def test_the_same_displacements_give_the_same_image_and_places(margin: tuple[int, int]) -> None:
    _, found, one = distorted(3, margin)
    np.testing.assert_allclose(found.images[0], one.image, atol=2e-4)
    x, y = np.random.default_rng(0).uniform(-2, 85, (2, 40))
    for width in (0.0, 0.3):
        moved = found.move(torch.from_numpy(x[None]), torch.from_numpy(y[None]), width)
        for place, expected in zip(moved, one.move(x, y, width), strict=True):
            np.testing.assert_allclose(place[0], expected, atol=2e-3)


def test_masks_move_with_the_image() -> None:
    _, found, one = distorted(5)
    x, y = np.meshgrid(np.arange(8, 90, 13), np.arange(7, 80, 12))
    before = torch.from_numpy(disk_mask(x.ravel(), y.ravel(), (80, 90), (0.1, 0.1), 0.5))
    after = disk_mask(*one.move(x.ravel(), y.ravel(), 0.5), (80, 90), (0.1, 0.1), 0.5)
    moved = found.move_masks(before[None])[0].numpy()
    union, both = (moved | after).sum(), (moved & after).sum()
    assert both / union > 0.85  # whole pixels of disks with a radius of five
    assert (before.numpy() & after).sum() / (before.numpy() | after).sum() < 0.8
    classes = torch.stack([before, ~before])[None]
    np.testing.assert_array_equal(found.move_masks(classes)[0, 0].numpy(), moved)
    np.testing.assert_array_equal(found.move_masks(classes)[0, 1].numpy(), ~moved)


def test_masks_with_a_margin_move_into_the_view() -> None:
    acquisition = Acquisition((Drift(fraction=0.2),))
    labels = torch.arange(60 * 70).reshape(1, 60, 70)
    found = acquire_batch(
        torch.from_numpy(smooth()[None]), 0.1, acquisition, generator=seeded(1), margin=(10, 10)
    )
    moved = found.move_masks(labels)
    assert moved.shape == (1, 40, 50)
    assert found.displacement is not None
    shift = torch.round(found.displacement / 0.1).long()
    rows, columns = torch.meshgrid(torch.arange(10, 50), torch.arange(10, 60), indexing="ij")
    assert torch.equal(moved[0], (rows + shift[0, ..., 1]) * 70 + columns + shift[0, ..., 0])
    with pytest.raises(UsageError, match=r"do not fit images of \(40, 50\) pixels with a margin"):
        found.move_masks(labels[:, :-1])


def test_poisson_statistics_per_image() -> None:
    doses = torch.tensor([50.0, 500.0, 5000.0, 5e4])
    found = acquire_batch(torch.ones(4, 256, 256), 0.1, "good", generator=seeded(), dose=doses)
    expected = (doses * 0.01).numpy()
    n = 256**2
    means, variances = found.images.mean((1, 2)).numpy(), found.images.var((1, 2)).numpy()
    assert (np.abs(means - expected) < 5 * np.sqrt(expected / n)).all()
    assert (np.abs(variances - expected) < 5 * np.sqrt((expected + 2 * expected**2) / n)).all()
    assert torch.equal(found.images, found.images.round())
    assert found.electrons_per_intensity is not None
    np.testing.assert_allclose(found.electrons_per_intensity, expected, rtol=1e-5)


def test_dose_is_per_area_and_relative_to_the_mean_of_each_frame() -> None:
    images = torch.from_numpy(np.stack([smooth(200, 200, seed) for seed in range(3)]))
    images = images * torch.tensor([1.0, 7.0, 0.0])[:, None, None]
    sizes = torch.tensor([[0.1, 0.2], [0.3, 0.1], [0.1, 0.1]])
    found = apply_dose(images, torch.tensor([1000.0, 200.0, 100.0]), sizes, seeded())
    for k, expected in enumerate((20.0, 6.0)):
        assert float(found[k].mean()) == pytest.approx(expected, abs=5 * np.sqrt(expected / 4e4))
        ideal = images[k] / images[k].mean() * expected
        # Residuals over their expected spread have variance one.
        assert float(((found[k] - ideal) / ideal.sqrt()).var()) == pytest.approx(1, abs=0.04)
    assert not found[2].any()


def both(
    acquisition: Acquisition, measure: Callable[[np.ndarray, np.ndarray | None], float], count: int = 48
) -> tuple[np.ndarray, np.ndarray]:
    """A number of each recording, by NumPy and by torch."""
    image = smooth(64, 64)
    numpy_side = [acquire(image, 0.1, acquisition, seed=seed) for seed in range(count)]
    batch = torch.from_numpy(np.stack([image] * count))
    torch_side = acquire_batch(batch, 0.1, acquisition, generator=seeded(11))
    where = torch_side.displacement
    return (
        np.array([measure(one.image, one.displacement) for one in numpy_side]),
        np.array(
            [
                measure(torch_side.images[k].numpy(), None if where is None else where[k].numpy())
                for k in range(count)
            ]
        ),
    )


def jitter_power(_: np.ndarray, where: np.ndarray | None) -> float:
    """Share of the upper half of the frequencies in the power of line offsets: half of it for white noise."""
    assert where is not None
    power = np.abs(np.fft.rfft(where[:, 0, 0] - where[:, 0, 0].mean())) ** 2
    return float(power[len(power) // 2 :].sum() / power.sum())


@pytest.mark.parametrize(
    ("acquisition", "measure"),
    [
        (Acquisition((LineJitter(rms=0.2),)), lambda image, where: where[:, 0, 0].std()),
        (Acquisition((LineJitter(rms=0.2),)), jitter_power),
        (Acquisition((LineJitter(rms=0.2),)), lambda image, where: np.diff(image, axis=0).std()),
        (Acquisition((Drift(fraction=0.1),)), lambda image, where: where[-1, 0, 0] - where[0, 0, 0]),
        (Acquisition((Drift(fraction=0.1),)), lambda image, where: np.hypot(*(where[-1, 0] - where[0, 0]))),
        (Acquisition((Contamination(level=0.5, size=1),)), lambda image, where: image.std()),
        (Acquisition((Contamination(level=0.5, size=1),)), lambda image, where: image.mean()),
        (
            Acquisition((Contamination(level=50, size=1),)),
            lambda image, where: np.corrcoef(image[:, :-10].ravel(), image[:, 10:].ravel())[0, 1],
        ),
        (Acquisition((Dose(electrons=2000),)), lambda image, where: image.var()),
        (Acquisition((Detector(noise=3.0),)), lambda image, where: image.std()),
        (Acquisition.preset("typical"), lambda image, where: image.std()),
        (Acquisition.preset("typical"), lambda image, where: np.diff(image, axis=1).std()),
    ],
)
def test_statistics_agree(acquisition: Acquisition, measure: Callable[..., float]) -> None:
    one, two = both(acquisition, measure)
    error = np.sqrt(one.var() / len(one) + two.var() / len(two))
    assert abs(one.mean() - two.mean()) < 4 * error + 1e-4 * abs(one.mean())
    if one.std() > 1e-3 * abs(one.mean()):
        assert 0.55 < two.std() / one.std() < 1.8


def test_one_generator_one_result() -> None:
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(64, 64))
    batch = torch.from_numpy(np.stack([frame.image] * 3))
    for preset in PRESETS:
        first = acquire_batch(batch, 0.1, preset, generator=seeded(4)).images
        assert torch.equal(first, acquire_batch(batch, 0.1, preset, generator=seeded(4)).images)
        if preset == "ideal":
            assert torch.equal(first, batch)
        else:
            assert not torch.equal(first[0], first[1])
            assert not torch.equal(first, acquire_batch(batch, 0.1, preset, generator=seeded(5)).images)


def test_pixel_sizes_of_single_images() -> None:
    batch = torch.from_numpy(np.stack([smooth(), smooth()]))
    acquisition = Acquisition((SourceSize(fwhm=0.6),))
    found = acquire_batch(batch, torch.tensor([0.1, 0.2]), acquisition, generator=seeded()).images
    for k, size in enumerate((0.1, 0.2)):
        alone = acquire_batch(batch[:1], size, acquisition, generator=seeded()).images[0]
        np.testing.assert_allclose(found[k], alone, atol=1e-5)


def test_half_precision_outside_changes_nothing() -> None:
    batch = torch.from_numpy(smooth()[None])
    expected = acquire_batch(batch, 0.1, "typical", generator=seeded()).images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = acquire_batch(batch, 0.1, "typical", generator=seeded())
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: acquire_batch(torch.ones(9, 9), 0.1, "good", generator=seeded()), r"not \(9, 9\)"),
        (lambda: acquire_batch(torch.ones(1, 9, 9), 0.0, "good", generator=seeded()), "pixel_size must be"),
        (
            lambda: acquire_batch(torch.ones(2, 9, 9), torch.ones(3), "good", generator=seeded()),
            "pixel_size must be one number",
        ),
        (
            lambda: acquire_batch(torch.ones(2, 9, 9), -torch.ones(2), "good", generator=seeded()),
            "the smallest are -1",
        ),
        (
            lambda: acquire_batch(torch.ones(2, 9, 9), 0.1, "good", generator=seeded(), dose=torch.ones(3)),
            "the dose must be one number",
        ),
        (
            lambda: acquire_batch(torch.ones(2, 9, 9), 0.1, "good", generator=seeded(), margin=(5, 0)),
            "leaves nothing",
        ),
        (
            lambda: acquire_batch(
                torch.ones(2, 9, 9), 0.1, Acquisition((Tilt(angles=(1, 0)),)), generator=seeded()
            ),
            "tilt acts on a crystal",
        ),
        (
            lambda: acquire_batch(
                torch.ones(2, 9, 9),
                torch.tensor([0.1, 0.2]),
                Acquisition((Probe(semi_angle=20),)),
                generator=seeded(),
            ),
            "a probe needs one pixel size",
        ),
        (
            lambda: acquire_batch(
                torch.ones(2, 9, 9), 0.1, Acquisition((Flyback(lag=2),)), generator=seeded()
            ),
            "the beam runs backwards",
        ),
    ],
)
def test_mistakes(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    everything = Acquisition.preset("typical").with_steps(
        Probe(voltage=200, semi_angle=22),
        Contamination(level=0.3, size=2),
        Flyback(lag=0.1),
        Detector(noise=1),
    )
    images = torch.from_numpy(np.stack([smooth(64, 64)] * 8)).cuda()
    first, second = (
        acquire_batch(images, 0.1, everything, generator=torch.Generator("cuda").manual_seed(1))
        for _ in range(2)
    )
    assert torch.equal(first.images, second.images)
    assert first.images.amax((1, 2)).eq(255).all()
    steady = Acquisition((SourceSize(fwhm=0.8), Background(level=0.1, slope=(0.1, 0.2))))
    there = acquire_batch(images, 0.1, steady, generator=torch.Generator("cuda")).images.cpu()
    here = acquire_batch(images.cpu(), 0.1, steady, generator=seeded()).images
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5)
    electrons = apply_dose(images, 1e4, 0.1, torch.Generator("cuda").manual_seed(2))
    assert float(electrons.mean()) == pytest.approx(100, rel=0.01)
