"""Super-resolution: how low resolution is made, what batches depend on, how images are judged."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.engine.augment import sample
from atomvision_hub.engine.data import Rows
from atomvision_hub.engine.tasks import srgan
from atomvision_hub.engine.tasks.srgan import scores as srgan_scores
from atomvision_hub.errors import AtomVisionError, UsageError

CPU = torch.device("cpu")


def settings(**values: Any) -> srgan.SrganTraining:
    return srgan.SrganTraining(
        **{"crop": 32, "view": 64, "batch_size": 4, "degradation": "physical"} | values
    )


def views(count: int = 6, side: int = 64) -> srgan.Views:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    zeros = np.zeros(count, np.int64)
    return srgan.Views(images, np.full(count, 0.2), np.full(count, 0.01), zeros, zeros)


def process(index: int, count: int) -> Any:
    return SimpleNamespace(device=CPU, num_processes=count, process_index=index)


def test_bicubic_is_the_reduction_of_pillow() -> None:
    truth = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)
    truth = np.asarray(Image.fromarray(truth).resize((96, 128), Image.Resampling.BICUBIC))
    ones = torch.ones(1)
    found = srgan.Degrade("bicubic")(
        torch.from_numpy(truth.copy())[None, None] / 255, ones, ones, ones, ones, None
    )
    expected = np.asarray(Image.fromarray(truth).resize((24, 32), Image.Resampling.BICUBIC))
    assert found.shape == (1, 1, 32, 24)
    levels = (255 * found[0, 0]).numpy()
    assert np.allclose(levels, levels.round(), atol=1e-3)
    assert np.abs(levels - expected).max() <= 1.01  # Pillow rounds between its two passes


def test_physical_counts_are_electrons() -> None:
    """Unbiased in the grey scale of the truth; the variance is that of the counted electrons."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 1, 16, 16, generator=generator)
    background, area, dose = 0.25, 0.01, 700.0
    mean = float(truth.mean()) + background
    many = truth.expand(4000, 1, 16, 16)
    each = [torch.full((4000,), value) for value in (background, mean, area, dose)]
    low = srgan.Degrade("physical")(many, *each, generator)
    binned = torch.nn.functional.avg_pool2d(truth, 4)[0, 0]
    expected = (binned + background) / mean * dose * 16 * area  # electrons of a pixel
    assert float(expected.mean()) == pytest.approx(dose * 0.16, rel=1e-5)
    gain = dose * 16 * area / mean
    electrons = (low[:, 0] + background) * gain
    assert torch.allclose(electrons, electrons.round(), atol=1e-2)
    assert torch.allclose(electrons.mean(0), expected, rtol=0.01)
    assert torch.allclose(electrons.var(0), expected, rtol=0.12)
    each[-1] = torch.full((4000,), 1e9)
    assert torch.allclose(srgan.Degrade("physical")(many, *each, generator)[0, 0], binned, atol=2e-3)


def test_a_dose_needs_a_pixel_size() -> None:
    unknown = dataclasses.replace(views(), area=np.full(6, math.nan))
    with pytest.raises(UsageError, match=r"set data\.pixel_size .*or training\.degradation=bicubic"):
        srgan.Prepared(unknown, settings(), CPU)
    srgan.Prepared(unknown, settings(degradation="bicubic"), CPU)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 1.0])
def test_crops_keep_the_pixel_size_and_stay_inside(part: float) -> None:
    transforms = srgan.draw_crops(200, part, torch.Generator().manual_seed(0)).double()
    turn = transforms[:, :, :2] / part
    unit = torch.eye(2, dtype=torch.float64).expand(200, 2, 2)
    assert torch.allclose(turn @ turn.transpose(1, 2), unit, atol=1e-6)
    signs = torch.linalg.det(turn).round()
    assert {-1.0, 1.0} == set(signs.tolist())
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)], dtype=torch.float64)
    assert float((transforms @ corners.T).abs().max()) <= 1 + 1e-6
    angles = torch.atan2(turn[:, 1, 0], turn[:, 0, 0]).rad2deg()
    assert len(angles.div(10).round().unique()) > (30 if part < 0.7 else 3)


def test_batches_do_not_depend_on_the_number_of_processes() -> None:
    data = srgan.Prepared(views(), settings(), CPU)
    alone = list(srgan.Batches(data, settings(), process(0, 1)).epoch(3))
    parts = [list(srgan.Batches(data, settings(), process(index, 2)).epoch(3)) for index in range(2)]
    assert len(alone) == len(srgan.Batches(data, settings(), process(0, 1))) == 1
    for step, (low, truth) in enumerate(alone):
        assert low.shape == (4, 1, 8, 8)
        assert truth.shape == (4, 1, 32, 32)
        assert torch.equal(low, torch.cat([part[step][0] for part in parts]))
        assert torch.equal(truth, torch.cat([part[step][1] for part in parts]))
    again = next(iter(srgan.Batches(data, settings(), process(0, 1)).epoch(4)))[0]
    assert not torch.equal(again, alone[0][0])


def test_training_sees_atoms_as_wide_as_the_data() -> None:
    """A column that is turned and cropped keeps its width to a percent."""
    y, x = np.mgrid[:128, :128] - 63.3
    image = torch.from_numpy(np.exp(-(x**2 + y**2) / 50)).float()[None, None]
    transform = torch.tensor([[[0.43, -0.25, 0.0], [0.25, 0.43, 0.0]]])  # half the side, 30 degrees
    found = sample(image, transform, 64)[0, 0].double().numpy()
    v, u = np.mgrid[:64, :64]
    total = found.sum()
    centre = [(found * axis).sum() / total for axis in (v, u)]
    width = math.sqrt(((v - centre[0]) ** 2 * found).sum() / total)
    assert width == pytest.approx(5.0, rel=0.02)


def test_views_are_cropped_never_resampled(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (70, 90), dtype=np.uint8)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    Image.fromarray(values).save(files[0])
    Image.fromarray(values).convert("RGB").save(files[1])
    rows = Rows(files.__iter__, np.zeros(2, np.int64))
    found = srgan.decode_views(rows, 64, 0.1)
    assert np.array_equal(found.images[0, 0], values[3:67, 13:77])
    assert np.array_equal(found.images[0], found.images[1])
    assert (found.left[0], found.top[0]) == (13, 3)
    assert np.allclose(found.area, 0.01)
    assert np.array_equal(found.rows(np.array([1])).images, found.images[1:])
    with pytest.raises(AtomVisionError, match=r"a\.png has 70 x 90 px, fewer than training\.view=80"):
        srgan.decode_views(rows, 80)
    source = SimpleNamespace(splits={"train": rows})
    assert srgan.view_side(source, settings(view=256)) == 64
    with pytest.raises(UsageError, match=r"training\.crop=128 does not fit views of 64 px .* 70 px"):
        srgan.view_side(source, settings(view=256, crop=128))


def test_rates_of_both_phases() -> None:
    config = settings(learning_rate=1e-4, pretrain_learning_rate=1e-3, warmup=0.1)
    rates = [srgan.rate(step, 100, 300, config) for step in range(300)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[99] == pytest.approx(1e-4, rel=0.02)
    assert rates[100] == rates[249] == pytest.approx(1e-4)
    assert rates[299] == pytest.approx(1e-4 / 50)


def test_losses_against_hand_made_figures() -> None:
    logits = torch.tensor([0.0, 2.0])
    assert float(srgan.fooled(logits)) == pytest.approx((math.log(2) + math.log1p(math.exp(-2))) / 2)
    assert float(srgan.caught(torch.tensor([50.0]), torch.tensor([-50.0]))) == pytest.approx(0, abs=1e-6)
    assert float(srgan.caught(logits[:1], logits[:1])) == pytest.approx(math.log(2))
    truth = torch.zeros(1, 1, 8, 8)
    assert float(srgan.psnr(truth + 0.1, truth)) == pytest.approx(20)


def test_unsound_settings_are_one_line() -> None:
    with pytest.raises(ValueError, match="the smaller one first"):
        settings(dose=(500, 50))
    with pytest.raises(ValueError, match="pretrain_epochs is a part of epochs"):
        settings(epochs=3, pretrain_epochs=4)


@pytest.fixture(scope="module")
def scene() -> srgan_scores.Scene:
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(128, 128), pixel_size=0.1)
    truth = (frame.image / frame.image.max()).astype(np.float32)
    columns = srgan_scores.columns_of_row(
        {name: frame.atoms[name] for name in frame.atoms.dtype.names}, truth.shape, frame.pixel_size, 1.7
    )
    return srgan_scores.Scene(truth, columns, (0.1, 0.1))


def test_atoms_lost_and_invented_are_counted(scene: srgan_scores.Scene) -> None:
    assert scene.columns is not None
    perfect = srgan_scores.judge_image(scene.truth, scene)
    assert perfect[0] == 100
    assert perfect[1] == pytest.approx(1)
    right = perfect[2]
    assert right > 20
    assert perfect[3:5] == [0, 0]
    assert math.sqrt(perfect[5] / right) < 0.02
    y, x = np.mgrid[:128, :128]
    inner = scene.columns.positions / 0.1
    middle = inner[np.argmin(((inner - 64) ** 2).sum(1))]
    hole = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / 50)
    lost = scene.truth - hole * scene.truth[round(middle[1]), round(middle[0])]
    found = srgan_scores.judge_image(lost.astype(np.float32), scene)
    assert found[2:5] == [right - 1, 1, 0]
    # The centre of a hexagon is empty: an atom put there is false.
    distance = np.sqrt(((np.stack([x, y], -1)[:, :, None] - inner) ** 2).sum(-1)).min(-1)
    distance[:40], distance[-40:], distance[:, :40], distance[:, -40:] = 0, 0, 0, 0
    row, column = np.unravel_index(int(np.argmax(distance)), distance.shape)
    extra = np.exp(-((x - column) ** 2 + (y - row) ** 2) / 50)
    found = srgan_scores.judge_image((scene.truth + 0.6 * extra).astype(np.float32), scene)
    assert found[2:5] == [right, 0, 1]
    moved = np.roll(scene.truth, 2, axis=1)
    found = srgan_scores.judge_image(moved, scene)
    assert math.sqrt(found[5] / found[2]) == pytest.approx(0.2, abs=0.02)


def test_part_of_an_image_and_columns_nobody_tells(scene: srgan_scores.Scene) -> None:
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(128, 128), pixel_size=0.1)
    atoms = {name: frame.atoms[name] for name in frame.atoms.dtype.names}
    part = scene.truth[20:116, 10:106]
    told = srgan_scores.columns_of_row(atoms, part.shape, (0.1, 0.1), 1.7, corner=(10, 20))
    scores = srgan_scores.judge_image(part, srgan_scores.Scene(part, told, (0.1, 0.1)))
    assert scores[2] > 20
    assert scores[3:5] == [0, 0]
    guessed = srgan_scores.columns_found(part, (0.1, 0.1))
    scores = srgan_scores.judge_image(part, srgan_scores.Scene(part, guessed, (0.1, 0.1)))
    assert scores[3:] == [0, 0, 0]
    assert np.isnan(srgan_scores.judge_image(part, srgan_scores.Scene(part))[2:]).all()


def test_simple_methods_and_smoothing() -> None:
    truth = np.stack([np.kron(np.eye(4), np.ones((8, 8)))] * 2).astype(np.float32)
    low = truth.reshape(2, 8, 4, 8, 4).mean((2, 4))
    methods = srgan_scores.simple_methods(low, 0.8)
    assert list(methods) == ["bicubic", "lanczos", "smoothed_bicubic"]
    assert all(images.shape == truth.shape for images in methods.values())
    assert srgan_scores.choose_smoothing(low, methods["bicubic"]) == 0
    noisy = low + np.random.default_rng(0).normal(0, 0.5, low.shape).astype(np.float32)
    assert srgan_scores.choose_smoothing(noisy, methods["bicubic"]) > 0.3


def test_figures_and_their_intervals() -> None:
    generator = np.random.default_rng(0)
    scores = np.column_stack(
        [
            generator.normal(30, 2, 40),
            generator.uniform(0.8, 1, 40),
            generator.integers(20, 60, 40),
            generator.integers(0, 5, 40),
            generator.integers(0, 5, 40),
            generator.uniform(0, 0.1, 40),
        ]
    )
    scores[30:, 2:] = np.nan  # atoms were sought in 30 of them
    found = srgan_scores.summarise(scores)
    right, missed, false, squares = np.nansum(scores[:, 2:], 0)
    assert found["psnr"]["value"] == pytest.approx(scores[:, 0].mean())
    assert (found["psnr"]["n"], found["missing_atoms"]["n"]) == (40, 30)
    assert found["missing_atoms"]["value"] == pytest.approx(missed / (right + missed))
    assert found["hallucinated_atoms"]["value"] == pytest.approx(false / (right + false))
    assert found["position_error"]["value"] == pytest.approx(math.sqrt(squares / right))
    low, high = found["psnr"]["interval"]
    half = 1.96 * scores[:, 0].std() / math.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    # Copies of an image are no further observations.
    copies = np.repeat(scores, 4, axis=0)
    grouped = srgan_scores.summarise(copies, np.repeat(np.arange(40), 4))
    assert grouped["psnr"]["groups"] == 40
    assert np.ptp(grouped["psnr"]["interval"]) == pytest.approx(high - low, rel=0.15)
    facts = srgan_scores.metric_facts({"bicubic": scores - 1, "ours": scores}, "ours", None)
    assert facts["psnr"]["baselines"]["bicubic"] == pytest.approx(scores[:, 0].mean() - 1)
    none = scores[:1].copy()
    none[0, 2:] = 0
    assert srgan_scores.summarise(none)["position_error"]["value"] is None


def test_processes_judge_alike(scene: srgan_scores.Scene) -> None:
    methods = {"same": np.stack([scene.truth] * 2), "darker": np.stack([0.9 * scene.truth] * 2)}
    alone = srgan_scores.judge_images(methods, [scene, srgan_scores.Scene(scene.truth)])
    assert np.isnan(alone["same"][1, 2:]).all()
    both = srgan_scores.judge_images(methods, [scene, srgan_scores.Scene(scene.truth)], workers=2)
    assert all(np.array_equal(alone[name], both[name], equal_nan=True) for name in methods)
    assert alone["darker"][0, 0] < 40
