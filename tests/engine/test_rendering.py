"""Images rendered while training: the same whoever makes them, labelled truly, distributed as planned."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from ase import Atoms
from pydantic import ValidationError
from torch.utils.data import DataLoader

from atomvision_hub.analysis.lattice_fit import fit_lattice
from atomvision_hub.engine.config import LoopConfig
from atomvision_hub.engine.rendering import CrystalSet, RenderConfig, RenderedCrystals, RenderedImages
from atomvision_hub.engine.rendering import batches as rendering_batches
from atomvision_hub.engine.rendering.cpu import expected, make_images, where
from atomvision_hub.engine.rendering.device import DeviceRenderer, uniform
from atomvision_hub.engine.rendering.draws import Draws, draw, image_keys
from atomvision_hub.engine.rendering.draws import uniform as uniform_numpy
from atomvision_hub.errors import UsageError
from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.structures import LatticeClassification, classify_lattice, load_structures
from atomvision_hub.structures.record import LATTICES

SMALL = (48, 40)


@pytest.fixture(scope="module")
def crystals() -> CrystalSet:
    return CrystalSet.open("reference")


def config(**values: Any) -> RenderConfig:
    return RenderConfig(**({"shape": SMALL, "pixel_size": (0.1, 0.4), "periods": 1.5} | values))


def drawn(crystals: CrystalSet, render: RenderConfig, count: int, epoch: int = 1) -> tuple[CrystalSet, Draws]:
    seen = crystals.in_view(min(render.shape) * render.pixel_size[1], render.periods)
    places = np.arange(count)
    return seen, draw(seen, render, 0, epoch, places, places % len(seen))


def batches(
    crystals: CrystalSet, render: RenderConfig, *, batch_size: int = 8, on_device: bool | None = None
) -> RenderedCrystals:
    loop = LoopConfig(batch_size=batch_size)
    return RenderedCrystals(crystals, render, loop, Accelerator(cpu=True), on_device=on_device)


def test_labels_are_those_of_the_projected_lattice(crystals: CrystalSet) -> None:
    known = load_structures("reference")
    found: dict[str, LatticeClassification] = {name: classify_lattice(known[name]) for name in crystals.ids}
    assert [LATTICES[label] for label in crystals.labels] == [one.projected for one in found.values()]
    np.testing.assert_allclose(crystals.margins, [one.projected_margin for one in found.values()])


def test_images_without_effects_are_those_of_simulate_stem(crystals: CrystalSet) -> None:
    render = config(mirror=False)
    seen, draws = drawn(crystals, render, 6)
    images, known = make_images(seen, render, draws), load_structures("reference")
    for k in range(6):
        frame = simulate_stem(
            known[seen.ids[draws.crystal[k]]],
            shape=SMALL,
            pixel_size=draws.pixel_size[k],
            rotation=draws.rotation[k],
            shift=draws.shift[k],
        )
        difference = images[k].astype(int) - to_grey(frame.image)[0]
        # `project` may see another atom of the flattened layer first, nothing more.
        assert np.abs(difference).max() <= 1


def test_displaced_lines_show_the_crystal_where_the_beam_stood(crystals: CrystalSet) -> None:
    """Against a sum over atoms at the exact places, pixel by pixel."""
    bounds = {"drift": (0.02, 0.05), "line_jitter": (0.1, 0.3), "background": (0.0, 0.4)}
    render = config(acquisition="random", random=bounds, pixel_size=(0.1, 0.25))
    seen, draws = drawn(crystals, render, 3)
    rows, columns = np.mgrid[: SMALL[0], : SMALL[1]].astype(float)
    for k in range(3):
        size, crystal = draws.pixel_size[k], seen.crystals[draws.crystal[k]]
        assert draws.lines is not None
        assert draws.background is not None
        x, y = columns + draws.lines[k, :, :1] / size, rows + draws.lines[k, :, 1:] / size
        place, image = where(seen, render, draws, k), np.zeros(SMALL)
        sigma, reach = draws.sigma[k] / size, 8
        cells = crystal.projection.translations
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                points = crystal.projection.points + i * cells[0] + j * cells[1]
                points = points @ place.matrix + place.origin
                near = (np.abs(points - [SMALL[1] / 2, SMALL[0] / 2]) < 24 + 8 * sigma).all(axis=1)
                for (px, py), number in zip(points[near], crystal.projection.numbers[near], strict=True):
                    image += number**1.7 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
        image /= 2 * math.pi * draws.sigma[k] ** 2
        level, slope_x, slope_y = draws.background[k]
        plane = (
            level
            + slope_x * (np.arange(SMALL[1]) / (SMALL[1] - 1) - 0.5)
            + slope_y * (np.arange(SMALL[0]) / (SMALL[0] - 1) - 0.5)[:, None]
        )
        image += image.mean() * np.maximum(plane, 0)
        np.testing.assert_allclose(expected(seen, render, draws, k), image, atol=4e-4 * image.max())


@pytest.mark.parametrize("acquisition", ["ideal", "typical", "random"])
def test_the_device_expects_the_same_images(crystals: CrystalSet, acquisition: str) -> None:
    render = config(acquisition=acquisition, sigma=(0.5, 0.7), z_exponent=(1.6, 2.0))
    seen, draws = drawn(crystals, render, 7)
    found = DeviceRenderer(seen, render, torch.device("cpu")).expected(draws).numpy()
    for k in range(7):
        image = expected(seen, render, draws, k)
        np.testing.assert_allclose(found[k], image, atol=2e-6 * image.max())


def test_random_numbers_are_the_same_on_the_device() -> None:
    keys = image_keys(3, 5, np.arange(4))
    found = uniform(torch.from_numpy(keys.view(np.int64)), 3, 2000).numpy()
    np.testing.assert_allclose(found, uniform_numpy(keys, 3, 2000), atol=2e-7)
    assert 0 < found.min() <= found.max() < 1
    assert abs(found.mean() - 0.5) < 4 / math.sqrt(12 * found.size)
    assert np.abs(np.corrcoef(found)[np.triu_indices(4, 1)]).max() < 0.1


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("acquisition", ["good", "typical", "poor"])
def test_presets_have_the_statistics_of_the_numpy_path(
    crystals: CrystalSet, acquisition: str, on_device: bool
) -> None:
    """Mean, noise above the mean image and sharpness of 60 recordings of one crystal in one pose."""
    render = config(
        acquisition=acquisition, rotate=False, shift=False, mirror=False, pixel_size=(0.1, 0.1), periods=0
    )
    one = CrystalSet.of({"MoS2": load_structures("reference")["MoS2"]})
    draws = draw(one, render, 0, 1, np.arange(60), np.zeros(60, dtype=np.int64))
    if on_device:
        ours = DeviceRenderer(one, render, torch.device("cpu")).make(draws).numpy()
    else:
        ours = np.asarray(make_images(one, render, draws))
    crystal = load_structures("reference")["MoS2"]
    theirs = np.stack(
        [
            record_stem(crystal, acquisition, seed=seed, shape=SMALL, pixel_size=0.1).image
            for seed in range(60)
        ]
    ).astype(float)

    def statistics(images: np.ndarray) -> np.ndarray:
        # Of images as grey levels, relative to their means, so that their scale does not matter.
        low = images.min(axis=(1, 2), keepdims=True)
        part = (images - low) / (images.max(axis=(1, 2), keepdims=True) - low)
        steps = [np.abs(np.diff(part, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        return np.stack([part.mean(axis=(1, 2)), part.std(axis=(1, 2)), *steps])

    a, b = statistics(ours), statistics(theirs)
    errors = np.sqrt(a.var(axis=1) / 60 + b.var(axis=1) / 60)
    assert (np.abs(a.mean(axis=1) - b.mean(axis=1)) < 4.5 * errors).all()


def test_poses_fill_their_ranges(crystals: CrystalSet) -> None:
    render = RenderConfig(acquisition="random")
    seen = crystals.in_view(64, 3)
    places = np.arange(4000)
    draws = draw(seen, render, 0, 1, places, places % len(seen))
    longest = np.array([seen.crystals[i].longest for i in draws.crystal])
    low = np.maximum(0.05, 3 * longest / 256)
    assert (draws.pixel_size >= low).all()
    assert (draws.pixel_size <= 0.25).all()
    part = np.log(draws.pixel_size / low) / np.log(0.25 / low)
    for values in (part, draws.rotation / 360, draws.mirror.astype(float)):
        assert abs(values.mean() - 0.5) < 0.03
    assert abs(np.isinf(draws.dose).mean() - 0.05) < 0.02
    finite = np.log(draws.dose[np.isfinite(draws.dose)])
    assert math.log(50) <= finite.min() < math.log(60)
    assert math.log(4500) < finite.max() <= math.log(5000)


def test_a_pose_changes_the_image_and_not_the_lattice(crystals: CrystalSet) -> None:
    render = RenderConfig(shape=(128, 128), pixel_size=(0.15, 0.2), acquisition="ideal")
    clear = [i for i, one in enumerate(crystals.crystals) if crystals.margins[i] > 0.04 and one.longest < 6]
    names = [next(crystals.ids[i] for i in clear if crystals.labels[i] == label) for label in (0, 2)]
    one = CrystalSet.of({name: load_structures("reference")[name] for name in names})
    places = np.arange(6)
    draws = draw(one, render, 0, 1, places, places % 2)
    images = make_images(one, render, draws)
    assert set(draws.mirror) == {False, True}
    for k in range(6):
        fit = fit_lattice(images[k], float(draws.pixel_size[k]))
        assert fit.lattice == LATTICES[one.labels[k % 2]]
        assert not any(np.array_equal(images[k], images[j]) for j in range(k))


def test_an_image_does_not_depend_on_its_batch(crystals: CrystalSet) -> None:
    render = config(acquisition="random")
    seen, draws = drawn(crystals, render, 12)
    whole = make_images(seen, render, draws)
    device = DeviceRenderer(seen, render, torch.device("cpu"))
    both = device.make(draws)
    for start in range(0, 12, 4):
        part = draws.part(slice(start, start + 4))
        np.testing.assert_array_equal(make_images(seen, render, part), whole[start : start + 4])
        np.testing.assert_allclose(device.make(part), both[start : start + 4], atol=1 / 254)


def test_epochs_repeat_bit_for_bit_and_differ_from_each_other(crystals: CrystalSet) -> None:
    made = batches(crystals, config(acquisition="typical", views=2))
    first, second, again = (list(made.epoch(epoch)) for epoch in (1, 2, 1))
    assert len(first) == len(made)
    assert first[0].images.shape == (8, 1, *SMALL)
    assert first[0].images.dtype == torch.float32
    assert float(first[0].images.min()) == 0
    assert float(first[0].images.max()) == 1
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(one.images, other.images) for one, other in zip(first, second, strict=True))
    labels = np.concatenate([batch.labels for batch in first])
    assert len(labels) == 8 * len(made)


@pytest.mark.parametrize("at_once", [1, 2, 1000])
@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)
def test_batches_on_the_device_are_the_same_up_to_rounding(
    crystals: CrystalSet, device: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering_batches, "_PIXELS_AT_ONCE", at_once * 8 * math.prod(SMALL))
    render = config()
    # A process has one Accelerator, which other tests have made for the CPU.
    alone = SimpleNamespace(device=torch.device(device), num_processes=1, process_index=0)
    loop = LoopConfig(batch_size=8)
    made = RenderedCrystals(crystals, render, loop, cast("Accelerator", alone), on_device=True)
    count = 0
    for there, here in zip(made.epoch(3), batches(crystals, render).epoch(3), strict=True):
        assert there.images.device.type == device
        assert torch.equal(there.labels.cpu(), here.labels)
        assert torch.equal(there.pixel_size.cpu(), here.pixel_size)
        assert float((there.images.cpu() - here.images).abs().max()) <= 1.01 / 255
        count += 1
    assert count == len(made) > 3


def test_what_breaks_while_the_next_batches_are_made_is_told(
    crystals: CrystalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = batches(crystals, config(), on_device=True)
    arriving = made.epoch(1)
    next(arriving)

    def fail(*_: Any) -> None:
        raise ValueError("out of memory")

    monkeypatch.setattr(DeviceRenderer, "make", fail)
    with pytest.raises(ValueError, match="out of memory"):
        list(made.epoch(2))
    cast("Any", arriving).close()  # and a loop that stops early leaves no thread behind
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rendering")]


CHILD = """
import hashlib, json, sys
from accelerate import Accelerator
from atomvision_hub.engine.config import LoopConfig
from atomvision_hub.engine.rendering import batches as rendering_batches
from atomvision_hub.engine.rendering import CrystalSet, RenderConfig, RenderedCrystals

if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    render = RenderConfig(shape=(48, 40), pixel_size=(0.1, 0.4), periods=1.5, acquisition="random",
                          views=2, workers=int(sys.argv[2]))
    made = RenderedCrystals(CrystalSet.open("reference"), render, LoopConfig(batch_size=8), accelerator)
    # Two epochs: workers stay.
    found = [[[hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in batch.images]
              for batch in made.epoch(epoch)] for epoch in (1, 2)]
    name = f"{sys.argv[1]}/{accelerator.num_processes}-{accelerator.process_index}.json"
    open(name, "w").write(json.dumps(found))
"""


def test_two_processes_with_workers_make_the_batches_of_one_and_never_the_same_image(
    crystals: CrystalSet, tmp_path: Path
) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    # On CPU accelerate starts two real processes only this way.
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    more = "--mixed_precision no --dynamo_backend no --main_process_port 0"
    command = [sys.executable, *launch.split(), *more.split()]
    done = subprocess.run(
        [*command, str(script), str(tmp_path), "1"],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / f"2-{index}.json").read_text()) for index in (0, 1))
    import hashlib

    alone = batches(crystals, config(acquisition="random", views=2))
    for epoch in (1, 2):
        mine = [
            [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in batch.images]
            for batch in alone.epoch(epoch)
        ]
        assert [a + b for a, b in zip(one[epoch - 1], two[epoch - 1], strict=True)] == mine
    every = [digest for part in (one, two) for epoch in part for batch in epoch for digest in batch]
    assert len(set(every)) == len(every)


def _listed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return items


def test_a_dataset_gives_every_worker_other_images(crystals: CrystalSet) -> None:
    images = RenderedImages(crystals, config(acquisition="typical", views=2), targets=True)
    loader = DataLoader(images, batch_size=5, num_workers=2, collate_fn=_listed, persistent_workers=True)
    seen: set[bytes] = set()
    for epoch in (0, 1):
        images.set_epoch(epoch)
        loaded = [item for batch in loader for item in batch]
        assert len(loaded) == len(images)
        for index in (0, 3, len(images) - 1):
            item = images[index]
            assert torch.equal(item["image"], loaded[index]["image"])
            assert item["label"] == crystals.labels[item["index"]]
        seen |= {item["image"].numpy().tobytes() for item in loaded}
    assert len(seen) == 2 * len(images)
    with pytest.raises(IndexError, match="images an epoch"):
        images[len(images)]


@pytest.mark.parametrize("acquisition", ["ideal", "random"])
def test_masks_and_atoms_lie_where_the_image_shows_them(crystals: CrystalSet, acquisition: str) -> None:
    """A sum of Gaussians at the listed places is the image, far from its edges."""
    none = (0.0, 0.0)
    bounds = {"source_size": none, "vibration": none, "background": none, "slope": none, "noise_free": 1.0}
    render = config(
        acquisition=acquisition,
        random=bounds | {"drift": (0.05, 0.1), "line_jitter": (0.0, 0.02)},
        shape=(96, 80),
        pixel_size=(0.1, 0.2),
        sigma=(0.4, 0.4),
    )
    images = RenderedImages(crystals, render, targets=True)
    rows, columns = np.mgrid[:96, :80]
    for index in range(0, len(images), 9):
        item = images[index]
        picture, mask, atoms = item["image"][0].numpy(), item["mask"].numpy(), item["atoms"].numpy()
        drawn_again = np.zeros((96, 80))
        for x, y, number in atoms:
            squared = (columns - x) ** 2 + (rows - y) ** 2
            drawn_again += number**1.7 * np.exp(-squared * item["pixel_size"] ** 2 / (2 * 0.4**2))
            if 0 <= round(y) < 96 and 0 <= round(x) < 80:
                assert mask[round(float(y)), round(float(x))]
        inner = (slice(16, -16), slice(16, -16))
        same = np.corrcoef(drawn_again[inner].ravel(), picture[inner].ravel())[0, 1]
        assert same > (0.9999 if acquisition == "ideal" else 0.99)


def test_crystals_that_are_too_large_or_unclear_are_listed(crystals: CrystalSet) -> None:
    longest = max(one.longest for one in crystals.crystals)
    seen = crystals.in_view(3 * longest - 0.01, 3)
    assert len(seen) < len(crystals)
    assert set(seen.left_out) == set(crystals.ids) - set(seen.ids)
    assert "periods of" in next(iter(seen.left_out.values()))
    clear = CrystalSet.of(load_structures("reference"), margin=0.04)
    assert (clear.margins >= 0.04).all()
    assert all("margin" in reason for reason in clear.left_out.values())


def test_random_crystals_can_be_drawn() -> None:
    made = CrystalSet.open("synthetic:6")
    assert len(made) + len(made.left_out) == 6
    assert len(list(batches(made, config(), batch_size=2).epoch(1))) >= 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"pixel_size": (0.2, 0.1)}, r"\[lowest, highest\]"),
        ({"pixel_size": (0.0, 0.1)}, "starts above zero"),
        ({"pixel_size": (0.1, 0.9)}, r"0\.83 sigma"),
        ({"acquisition": "perfect"}, "'ideal', 'good', 'typical', 'poor' or 'random'"),
        ({"random": {"dose": (10, float("inf"))}}, "finite"),
        ({"random": {"noise_free": 1.5}}, "less than or equal to 1"),
        ({"random": {"jitter": (0, 1)}}, "Extra inputs"),
        ({"shape": (8, 64)}, "greater than or equal to 16"),
        ({"views": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_ranges_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RenderConfig(**values)


def test_wrong_sources_are_refused_in_one_line(crystals: CrystalSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no crystal shows 3 periods in 0\.5 Å"):
        crystals.in_view(0.5, 3)
    with pytest.raises(UsageError, match="has no splits"):
        CrystalSet.open("reference", "train")
    with pytest.raises(UsageError, match="no crystal to draw; x: "):
        CrystalSet.of({"x": Atoms("H")})
    with pytest.raises(UsageError, match="mask_radius must be positive"):
        RenderedImages(crystals, mask_radius=0)
