"""Segmenter: any size and scale, views, restored ones too, pretrained weights from a file, clear mistakes."""

from __future__ import annotations

from pathlib import Path

import ase
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.models import Segmenter, load_model
from atomvision_hub.models.deconvolution import deconvolve
from atomvision_hub.models.pretrained import DEFAULT_SEGMENTER, pretrained_folder
from atomvision_hub.models.views import WIDTH, look_at, restore
from atomvision_hub.simulation import simulate_stem, to_grey

SMALL = {"encoder": "tu-efficientnet_lite0", "depth": 3, "decoder_channels": (16, 8, 8)}


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(**SMALL, outputs=2, known={"mask_radii": [0.5, 0.35], "threshold": 0.45}).eval()


@pytest.mark.parametrize("shape", [(64, 64), (50, 71), (1, 9)])
def test_any_size_gives_as_many_pixels(model: Segmenter, shape: tuple[int, int]) -> None:
    images = torch.rand(2, 1, *shape)
    assert model(images).shape == (2, 1, *shape)
    assert model(images, every=True).shape == (2, 2, *shape)


def test_padding_changes_no_whole_tile(model: Segmenter) -> None:
    """An image of the network's own multiple goes through without any padding."""
    images = torch.rand(1, 1, 64, 64)
    seen = look_at(images, model.views)
    direct = model.head(torch.cat([model.network(seen), seen], 1))[:, :1]
    assert torch.equal(model(images), direct)


def _blobs(places: list[tuple[float, float, float]], side: int = 64) -> torch.Tensor:
    """Return atoms (x, y, weight) of the profile that is undone."""
    grid = torch.arange(side).float()
    parts = [
        weight
        * torch.exp(-0.5 * ((grid - y) / WIDTH) ** 2)[:, None]
        * torch.exp(-0.5 * ((grid - x) / WIDTH) ** 2)
        for x, y, weight in places
    ]
    return sum(parts, torch.zeros(side, side))[None, None]


def test_restoring_parts_atoms_that_the_probe_merges() -> None:
    image = _blobs([(27, 32, 1.0), (37, 32, 1.0)])
    assert image[0, 0, 32, 32] > image[0, 0, 32, 27]  # one maximum, between the two
    restored = restore(image / image.mean(), WIDTH, [8, 40])
    assert restored.shape == (1, 2, 64, 64)
    last = restored[0, 1, 32]
    assert last[32] < 0.5 * last[26:29].max()
    assert int(last[:32].argmax()) in (26, 27, 28)


def test_restoring_keeps_faint_atoms_beside_strong_ones() -> None:
    image = _blobs([(24, 32, 1.0), (38, 32, 0.05)])
    restored = restore(image / image.mean(), WIDTH, [40])[0, 0, 32]
    assert int(restored[33:44].argmax()) + 33 in (37, 38, 39)


@pytest.mark.parametrize("side", [96, 97, 250])
def test_restoring_in_blocks_is_the_same_as_in_one(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(1, 1, side, 40)
    blocks = restore(images, 2.4, [5])
    monkeypatch.setattr("atomvision_hub.models.views._BLOCK", 1000)
    torch.testing.assert_close(blocks, restore(images, 2.4, [5]), rtol=1e-4, atol=1e-5)


def test_restored_views_do_not_depend_on_autocast() -> None:
    images = torch.rand(1, 1, 64, 64)
    exact = look_at(images, ("restored_40",))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(look_at(images, ("restored_40",)), exact)


def test_training_goes_on_from_a_trained_segmenter(tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained = Segmenter(**SMALL)
    trained.save_pretrained(tmp_path / "trained")
    model = Segmenter(**SMALL)
    assert "trained" in model.load_trained(str(tmp_path / "trained"))
    images = torch.rand(1, 1, 32, 32)
    assert torch.equal(model.eval()(images), trained.eval()(images))
    with pytest.raises(UsageError, match="stride=1, not 2"):
        Segmenter(**SMALL, stride=2).load_trained(str(tmp_path / "trained"))


def test_gain_and_offset_do_not_matter(model: Segmenter) -> None:
    images = torch.rand(1, 1, 48, 48)
    torch.testing.assert_close(model(0.3 * images + 0.5), model(images), atol=1e-3, rtol=1e-3)


def test_views_are_even_and_the_logarithm_lifts_faint_atoms() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[..., 8, 8], image[..., 20, 20] = 1.0, 1 / 45
    seen = look_at(image, ("linear", "root", "log"))
    assert seen.shape == (1, 3, 32, 32)
    torch.testing.assert_close(seen.mean((2, 3)), torch.zeros(1, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.var((2, 3), correction=0), torch.ones(1, 3), atol=1e-4, rtol=0)
    faint = ((seen[..., 20, 20] - seen[..., 0, 0]) / (seen[..., 8, 8] - seen[..., 0, 0]))[0]
    assert faint[0] == pytest.approx(1 / 45, rel=1e-3)
    assert faint[0] < faint[1] < faint[2]
    assert faint[2] > 0.5
    assert torch.isfinite(look_at(torch.full((1, 1, 8, 8), 0.7), ("linear", "log"))).all()


def test_probabilities_by_radius(model: Segmenter) -> None:
    images = torch.rand(1, 1, 32, 32)
    logits = model(images, every=True)
    assert torch.equal(model.predict(images), logits[:, :1].sigmoid())
    assert torch.equal(model.predict(images, radius=0.35), logits[:, 1:].sigmoid())
    assert model.threshold == 0.45
    with pytest.raises(UsageError, match=r"knows disks of \[0\.5, 0\.35\] Å, not 0\.7"):
        model.predict(images, radius=0.7)


def test_saved_and_loaded_is_the_same(model: Segmenter, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 1, 40, 40)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Segmenter)
    assert torch.equal(loaded(images), model(images))
    assert loaded.known == model.known


def test_every_weight_is_used() -> None:
    """Stages that a shallow U-Net does not look at are gone: two processes would wait for their gradients."""
    model = Segmenter(**SMALL, outputs=2)
    model(torch.rand(2, 1, 32, 32), every=True).sum().backward()
    assert all(value.grad is not None for value in model.parameters())


def test_shipped_size_is_small() -> None:
    model = Segmenter(outputs=3)
    assert 4 * sum(value.numel() for value in model.state_dict().values()) < 6e6


def test_half_precision(model: Segmenter) -> None:
    images = torch.rand(1, 1, 32, 32)
    low = Segmenter(**SMALL, outputs=2).eval()
    low.load_state_dict(model.state_dict())
    low = low.to(torch.bfloat16)
    assert low(images.to(torch.bfloat16)).dtype == torch.bfloat16
    torch.testing.assert_close(low.predict(images), model.predict(images), atol=0.05, rtol=0)


def test_encoder_starts_from_a_file(tmp_path: Path) -> None:
    """A file with the weights of the whole network of timm fits its first stages."""
    torch.manual_seed(1)
    weights = timm.create_model("efficientnet_lite0").state_dict()
    save_file(weights, tmp_path / "lite0.safetensors")
    model = Segmenter(**SMALL, views=("linear", "root", "log"))
    assert "lite0.safetensors" in model.load_encoder(str(tmp_path / "lite0.safetensors"))
    ours = model.network.encoder.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.items())
    # Other numbers of views: the colours again and again, scaled.
    six = Segmenter(**SMALL)
    six.load_encoder(str(tmp_path / "lite0.safetensors"))
    stem = six.network.encoder.model.conv_stem.weight
    torch.testing.assert_close(stem[:, 3], weights["conv_stem.weight"][:, 0] * 3 / 6)
    with pytest.raises(AtomVisionError, match="holds no weights of tu-efficientnet_lite1 with 6 channels"):
        Segmenter(**(SMALL | {"encoder": "tu-efficientnet_lite1"})).load_encoder(
            str(tmp_path / "lite0.safetensors")
        )


def test_encoder_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Segmenter(**SMALL)
    with pytest.raises(AtomVisionError, match=r"there is no file .*none\.safetensors"):
        model.load_encoder(str(tmp_path / "none.safetensors"))
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x02no safetensors")
    with pytest.raises(AtomVisionError, match="is no safetensors file"):
        model.load_encoder(str(tmp_path / "pickle.pth"))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(smp.encoders, "get_encoder", offline)
    with pytest.raises(NetworkNeededError, match=r"cannot be had \(OSError\); connect"):
        model.load_encoder("imagenet")


def test_published_weights_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Segmenter(**SMALL).network.encoder
    monkeypatch.setattr(smp.encoders, "get_encoder", lambda *_, **__: other)
    model = Segmenter(**SMALL)
    assert model.load_encoder("imagenet") == "ImageNet (imagenet)"
    assert torch.equal(model.network.encoder.model.conv_stem.weight, other.model.conv_stem.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "tu-efficientnet_light0"}, "knows no encoder 'tu-efficientnet_light0'; near: .*lite0"),
        ({"depth": 4, "decoder_channels": (16, 8)}, r"as many decoder_channels, not 4 and \[16, 8\]"),
        ({"views": ("square",)}, "views must be some of linear, root, log"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Segmenter(**arguments)


def test_wrong_images_are_named(model: Segmenter) -> None:
    with pytest.raises(UsageError, match=r"a segmenter takes images \[batch, 1, row, column\]"):
        model(torch.rand(32, 32))
    with pytest.raises(UsageError, match="divide by 255"):
        model(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))


def test_deconvolution_parts_columns_sooner_than_richardson_and_lucy() -> None:
    # Two columns 0.66 Å apart under a profile of 0.5 Å: one blob.
    image = _blobs([(28.0, 32, 1.0), (34.6, 32, 1.0)])
    ratio = image / image.mean()
    parted = {
        undo.__name__: (found[29] + found[34]) / 2 - found[31]
        for undo in (restore, deconvolve)
        for found in [undo(ratio, WIDTH, [20])[0, 0, 32]]
    }
    assert parted["deconvolve"] > 2
    assert parted["deconvolve"] > 2 * max(parted["restore"], 0.1)


def test_deconvolution_explains_the_image_with_nothing_negative() -> None:
    image = _blobs([(24, 32, 1.0), (38, 32, 0.05), (3, 60, 0.6)])
    ratio = image / image.mean()
    few, many = deconvolve(ratio, WIDTH, [5, 60])[0]
    assert min(float(few.min()), float(many.min())) >= 0
    # Blurred again, away from the edge, it is the image.
    kernel = torch.exp(-0.5 * (torch.arange(-16, 17) / WIDTH).square())
    kernel = kernel / kernel.sum()
    once = torch.nn.functional.conv2d(many[None, None], kernel[None, None, :, None])
    again = torch.nn.functional.conv2d(once, kernel[None, None, None, :])[0, 0]
    left = (again - ratio[0, 0, 16:-16, 16:-16]).abs().max() / ratio.max()
    assert float(left) < 0.01


def test_views_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="restored_N, deconvolved_N, not"):
        Segmenter(**SMALL | {"views": ["root", "restored_0"]})


def test_fitted_columns_answer_where_they_explain_the_image(tmp_path: Path) -> None:
    """Two columns under one blob: the network draws one disk, the columns draw both."""
    cell = ase.Atoms("Mo2S", [(1, 1, 5), (1.6, 1, 5), (3.5, 4, 5)], cell=[5, 6, 10], pbc=[True, True, False])
    frame = simulate_stem(cell, shape=(160, 160), rotation=11)
    image = torch.from_numpy(to_grey(frame.image)[0] / 255).float()[None, None]
    network = Segmenter.from_pretrained(pretrained_folder(DEFAULT_SEGMENTER)).eval()
    truth = torch.from_numpy(frame.mask)

    def overlap(answer: torch.Tensor) -> float:
        mask = answer[0, 0] >= network.threshold
        return float((mask & truth).sum() / (mask | truth).sum())

    alone, fitted = overlap(network.predict(image)), overlap(network.predict(image, pixel_size=0.1))
    assert fitted > 0.98
    assert fitted > alone + 0.02
    answer = network.predict(image, radius=0.35, pixel_size=[0.1])
    assert answer.shape == image.shape
    assert float(answer.min()) >= 0
    assert float(answer.max()) <= 1


def test_a_network_that_disagrees_with_the_columns_keeps_its_answer(model: Segmenter) -> None:
    image = _blobs([(20, 32, 1.0), (40, 32, 1.0)])
    assert torch.equal(model.predict(image, pixel_size=0.1), model.predict(image))
    # Noise has no columns, and coarse pixels none that could be fitted.
    assert torch.equal(model.predict(image, pixel_size=0.6), model.predict(image))


@pytest.mark.parametrize("size", [0.0, float("nan"), [0.1, 0.1], -1.0])
def test_a_pixel_size_that_is_none_is_refused(model: Segmenter, size: float | list[float]) -> None:
    with pytest.raises(UsageError, match="give Å/px, one number or one for each image"):
        model.predict(torch.rand(1, 1, 32, 32), pixel_size=size)


def test_masks_without_a_radius_are_no_disks_of_columns() -> None:
    plain = Segmenter(**SMALL)
    with pytest.raises(UsageError, match="no radius"):
        plain.predict(torch.rand(1, 1, 32, 32), pixel_size=0.1)
