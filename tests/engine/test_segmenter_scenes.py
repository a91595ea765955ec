"""Scenes on the device: the same masks as the simulator's, poses that fit, vacancies, counts of electrons."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import poisson as reference_poisson

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.engine.augment import draw_transforms
from atomvision_hub.engine.data import Rows
from atomvision_hub.engine.scenes import Chance, Conditions, Scenes, decode, draw, poisson
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.simulation.grey import to_grey
from atomvision_hub.simulation.targets import disk_mask

CPU = torch.device("cpu")
NAMES = ("MoS2", "graphene", "h-BN")
SIDE = 96


def frames(**changes: object) -> list[object]:
    crystals = load_structures("reference")
    poses = [{"rotation": 20.0 * i, "shift": (0.3 * i, 0.7)} for i in range(len(NAMES))]
    return [
        simulate_stem(crystals[name], shape=(SIDE, SIDE), **(pose | changes))
        for name, pose in zip(NAMES, poses, strict=True)
    ]


def rows_of(frames: list[object]) -> Rows:
    """Rows as a dataset gives them."""
    encoded, columns = [], {name: [] for name in ("atoms", "intensity_scale", "intensity_offset", "psf")}
    columns |= {"z_exponent": [], "pixel_size": []}
    for frame in frames:
        grey, scale, offset = to_grey(frame.image)
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "PNG")
        encoded.append(stream.getvalue())
        columns["atoms"].append({name: frame.atoms[name].tolist() for name in ("x", "y", "number")})
        columns["intensity_scale"].append(scale)
        columns["intensity_offset"].append(offset)
        columns["psf"].append(str(frame.psf))
        columns["z_exponent"].append(frame.z_exponent)
        columns["pixel_size"].append(list(frame.pixel_size))
    return Rows(encoded.__iter__, np.zeros(len(encoded), np.int64), columns)


@pytest.fixture(scope="module")
def pictures() -> list[object]:
    return frames()


@pytest.fixture(scope="module")
def scenes(pictures: list[object]) -> Scenes:
    (found,) = decode(rows_of(pictures), CPU)
    return found


ALL = np.arange(len(NAMES))


def test_as_they_are_images_and_masks_are_those_of_the_dataset(
    scenes: Scenes, pictures: list[object]
) -> None:
    drawn = draw(
        scenes, ALL, None, scenes.shape, Conditions.same(3, CPU), Chance(), (0.5, 0.7), contrast=True
    )
    for index, frame in enumerate(pictures):
        grey = to_grey(frame.image)[0]
        assert np.array_equal((drawn.images[index, 0] * 255).round().numpy(), grey)
        assert np.array_equal(drawn.masks[index, 0].numpy(), frame.mask)
        # A larger disk needs atoms outside the image that the table of 0.5 Å does not hold.
        larger = disk_mask(frame.atoms["x"], frame.atoms["y"], (SIDE, SIDE), frame.pixel_size, 0.7)
        assert np.array_equal(drawn.masks[index, 1].numpy(), larger)
    assert drawn.contrast is not None
    assert torch.equal(drawn.contrast > 0, drawn.masks[:, 0])
    # Graphene's atoms are all alike; sulphur is (16/42)^1.7 of molybdenum.
    shares = [sorted(set(part[part > 0].numpy().round(3).tolist())) for part in drawn.contrast]
    assert shares[1] == [1.0]
    assert shares[0] == pytest.approx([(16 / 42) ** 1.7, 1.0], abs=1e-3)


def test_turned_and_zoomed_images_and_masks_belong_together() -> None:
    """A crop, turned and zoomed, is what the simulator shows from there, mask and image."""
    crystal = load_structures("reference")["MoS2"]
    (scenes,) = decode(rows_of([simulate_stem(crystal, shape=(SIDE, SIDE))]), CPU)
    for degrees, zoom in ((0.0, 0.5), (30.0, 0.7), (90.0, 1.0)):
        angle, side = math.radians(degrees), 64
        part = zoom * side / SIDE
        turn = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
        drawn = draw(
            scenes,
            np.array([0]),
            torch.tensor([turn]) * part,
            (side, side),
            Conditions.same(1, CPU),
            Chance(),
            (0.5,),
        )
        # Turning the view by an angle shows the crystal turned back.
        direct = simulate_stem(crystal, shape=(side, side), pixel_size=0.1 * zoom, rotation=-degrees)
        assert np.mean(drawn.masks[0, 0].numpy() != direct.mask) < 2e-3
        image = to_grey(direct.image)[0].astype(float)
        ours = (drawn.images[0, 0] * 255).numpy()
        assert np.abs(ours - image).max() < 6
        assert np.corrcoef(ours.ravel(), image.ravel())[0, 1] > 0.9995


def test_random_poses_keep_masks_on_atoms(scenes: Scenes) -> None:
    """Bright spots of graphene lie inside the mask, whatever the pose."""
    transforms = draw_transforms(
        16, "pose", 1.0, torch.Generator().manual_seed(0), side=torch.linspace(0.3, 1, 16)
    )
    rows = np.full(16, 1)
    drawn = draw(scenes, rows, transforms, (48, 48), Conditions.same(16, CPU), Chance(), (0.5,))
    brightest = drawn.images[:, 0].flatten(1).argmax(1)
    assert drawn.masks[:, 0].flatten(1).gather(1, brightest[:, None]).all()
    inside = (drawn.images * drawn.masks).sum((1, 2, 3)) / drawn.masks.sum((1, 2, 3))
    outside = (drawn.images * ~drawn.masks).sum((1, 2, 3)) / (~drawn.masks).sum((1, 2, 3))
    assert (inside > 2 * outside).all()


def test_missing_atoms_leave_image_and_mask(scenes: Scenes, pictures: list[object]) -> None:
    """Taking out all atoms of one number of the table leaves what the simulator makes of the rest."""
    chance = torch.ones(3, scenes.atoms.shape[1])
    chance[0, 5] = 0.0
    conditions = Conditions.same(3, CPU, missing=0.05)
    drawn = draw(scenes, ALL, None, scenes.shape, conditions, Chance(atoms=chance), (0.5,))
    whole = draw(scenes, ALL, None, scenes.shape, Conditions.same(3, CPU), Chance(), (0.5,))
    atoms = pictures[0].atoms
    rest = np.delete(np.arange(len(atoms)), 5)
    expected = disk_mask(atoms["x"][rest], atoms["y"][rest], (SIDE, SIDE), pictures[0].pixel_size, 0.5)
    assert np.array_equal(drawn.masks[0, 0].numpy(), expected)
    assert torch.equal(drawn.masks[1:], whole.masks[1:])
    assert torch.equal(drawn.images[1:], whole.images[1:])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(rows - atoms["y"][5], columns - atoms["x"][5]) * 0.1
    gone = pictures[0].psf(radius) * float(atoms["number"][5]) ** pictures[0].z_exponent
    ideal = to_grey(np.clip(pictures[0].image - gone, 0, None))[0].astype(int)
    assert np.abs((drawn.images[0, 0] * 255).round().numpy() - ideal).max() <= 1


def test_expected_share_of_atoms_is_missing(scenes: Scenes) -> None:
    rows = np.zeros(200, np.int64)
    chance = torch.rand(200, scenes.atoms.shape[1], generator=torch.Generator().manual_seed(0))
    conditions = Conditions.same(200, CPU, missing=0.1)
    drawn = draw(scenes, rows, None, scenes.shape, conditions, Chance(atoms=chance), (0.1,))
    whole = draw(scenes, rows[:1], None, scenes.shape, Conditions.same(1, CPU), Chance(), (0.1,))
    # Sulphur atoms of a column share a disk: a column of two vanishes with a hundredth's chance only.
    numbers = scenes.atoms[0, :, 2]
    heavy = float((numbers == numbers.max()).sum())
    kept = (drawn.contrast if drawn.contrast is not None else drawn.masks[:, 0].float()).sum((1, 2)).mean()
    all_of_them = float(whole.masks.sum())
    columns = heavy + float((numbers[numbers > 0] < numbers.max()).sum()) / 2
    expected = all_of_them * (1 - (0.1 * heavy + 0.01 * (columns - heavy)) / columns)
    assert float(kept) == pytest.approx(expected, rel=0.01)


def test_dose_is_the_mean_count(scenes: Scenes) -> None:
    """The variance of an image of constant expectation is that of its dose."""
    flat = Scenes(
        torch.full((1, 200, 200), 100, dtype=torch.uint8),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([0.1], dtype=torch.float64),
        torch.tensor([[[-1e6, -1e6, 0.0]]]),
        None,
        None,
        np.zeros(1, np.int64),
    )
    chance = torch.rand(1, 200, 200, generator=torch.Generator().manual_seed(0))
    drawn = draw(
        flat, np.array([0]), None, (200, 200), Conditions.same(1, CPU, dose=300.0), Chance(chance), (0.5,)
    )
    counts = poisson(chance, torch.full_like(chance, 3.0))
    levels = (counts - counts.min()) / (counts.max() - counts.min())
    assert torch.allclose(drawn.images[:, 0], levels, atol=1 / 255)
    assert float(counts.mean()) == pytest.approx(3, abs=0.03)
    assert not drawn.masks.any()


@pytest.mark.parametrize("mean", [0.02, 0.7, 6.0, 11.9])
def test_poisson_is_the_exact_quantile_where_counts_are_few(mean: float) -> None:
    chance = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    counts = poisson(chance, torch.full_like(chance, mean))
    assert (counts.numpy() != reference_poisson.ppf(chance.double().numpy(), mean)).mean() < 1e-3


@pytest.mark.parametrize("mean", [12.5, 40.0, 1000.0])
def test_poisson_has_the_right_moments_where_counts_are_many(mean: float) -> None:
    chance = torch.rand(200_000, generator=torch.Generator().manual_seed(2))
    counts = poisson(chance, torch.full_like(chance, mean)).double()
    assert float(counts.mean()) == pytest.approx(mean, abs=4 * math.sqrt(mean / 200_000))
    assert float(counts.var()) == pytest.approx(mean, rel=0.02)
    wrong = counts.numpy() - reference_poisson.ppf(chance.double().numpy(), mean)
    assert np.abs(wrong).max() <= 1
    assert (wrong != 0).mean() < 0.02


def test_backgrounds_change_levels_but_no_mask(scenes: Scenes) -> None:
    conditions = Conditions(
        torch.full((3,), math.inf), torch.full((3,), 0.5), torch.tensor([[0.2, 0.0]] * 3), torch.zeros(3)
    )
    drawn = draw(scenes, ALL, None, scenes.shape, conditions, Chance(), (0.5,))
    whole = draw(scenes, ALL, None, scenes.shape, Conditions.same(3, CPU), Chance(), (0.5,))
    assert torch.equal(drawn.masks, whole.masks)
    left, right = drawn.images[..., :20].mean(), drawn.images[..., -20:].mean()
    assert right > left
    assert drawn.images.min() == 0
    assert drawn.images.max() == 1


def test_bitmaps_turn_with_their_images() -> None:
    """A disk given as a bitmap stays a disk of the right size under any pose."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disk = np.hypot(rows - 47.5, columns - 47.5) <= 12
    stream = io.BytesIO()
    Image.fromarray((200 * disk).astype(np.uint8)).save(stream, "PNG")
    table = Rows([stream.getvalue()].__iter__, np.zeros(1, np.int64), {"mask": [disk]})
    (scenes,) = decode(table, CPU)
    conditions = Conditions.same(1, CPU)
    same = draw(scenes, np.array([0]), None, scenes.shape, conditions, Chance(), ())
    assert np.array_equal(same.masks[0, 0].numpy(), disk)
    for angle in (0.3, 1.1):
        turn = torch.tensor([[[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]])
        drawn = draw(scenes, np.array([0]), 0.5 * turn, (SIDE, SIDE), conditions, Chance(), ())
        found = drawn.masks[0, 0].numpy()
        assert found.sum() == pytest.approx(math.pi * 24**2, rel=0.02)
        assert (np.hypot(rows - 47.5, columns - 47.5)[found]).max() < 25


def test_empty_and_full_bitmaps() -> None:
    images, masks = [], [np.zeros((8, 8), bool), np.ones((8, 8), bool)]
    for _ in masks:
        stream = io.BytesIO()
        Image.new("L", (8, 8), 100).save(stream, "PNG")
        images.append(stream.getvalue())
    (scenes,) = decode(Rows(images.__iter__, np.zeros(2, np.int64), {"mask": masks}), CPU)
    drawn = draw(scenes, np.arange(2), None, (8, 8), Conditions.same(2, CPU), Chance(), ())
    assert not drawn.masks[0].any()
    assert drawn.masks[1].all()
    assert torch.isfinite(drawn.images).all()


def test_central_squares_move_their_atoms(pictures: list[object]) -> None:
    (whole,) = decode(rows_of(pictures), CPU)
    (square,) = decode(rows_of(pictures), CPU, square=64)
    conditions = Conditions.same(3, CPU)
    large = draw(whole, ALL, None, whole.shape, conditions, Chance(), (0.5,))
    small = draw(square, ALL, None, (64, 64), conditions, Chance(), (0.5,))
    assert torch.equal(small.masks, large.masks[..., 16:80, 16:80])


def test_shapes_are_kept_apart(pictures: list[object]) -> None:
    other = simulate_stem(load_structures("reference")["graphene"], shape=(40, 60))
    found = decode(rows_of([pictures[0], other, pictures[1]]), CPU)
    assert [(group.shape, group.rows.tolist()) for group in found] == [((96, 96), [0, 2]), ((40, 60), [1])]


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(AtomVisionError, match="pixels that are not square"):
        decode(rows_of(frames(pixel_size=(0.1, 0.12))), CPU)
    (scenes,) = decode(rows_of(frames(psf="jarvis")), CPU)
    chance = Chance(atoms=torch.rand(3, scenes.atoms.shape[1]))
    with pytest.raises(UsageError, match=r"set training\.vacancies=0"):
        draw(scenes, ALL, None, scenes.shape, Conditions.same(3, CPU, missing=0.1), chance, (0.5,))
