"""Super-resolution: any grey scale and size, tiles without seams, saved and loaded; content loss."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.models import super_resolution
from atomvision_hub.models.base import load_model
from atomvision_hub.models.perceptual import Content, make_features
from atomvision_hub.models.super_resolution import Discriminator, SuperResolution, enlarge


@pytest.fixture
def model() -> SuperResolution:
    torch.manual_seed(0)
    made = SuperResolution(channels=8, blocks=2, known={"pixel_size": [0.4, 0.4]})
    torch.nn.init.normal_(made.tail[-1].weight, std=0.1)  # as if it had learned something
    return made.eval()


def test_starts_as_bicubic_and_keeps_pixels_aligned() -> None:
    images = torch.rand(2, 1, 9, 14)
    made = SuperResolution(channels=4, blocks=1).eval()(images)
    assert made.shape == (2, 1, 36, 56)
    assert torch.allclose(made, enlarge(images), atol=1e-5)
    pillow = Image.fromarray(images[0, 0].numpy()).resize((56, 36), Image.Resampling.BICUBIC)
    assert np.allclose(made[0, 0].detach(), np.asarray(pillow), atol=1e-5)
    # Aligned by area: four fine pixels share the place of a coarse one, so a ramp stays the same ramp.
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    inner = enlarge(ramp)[0, 0, 32, 16:48]
    assert torch.allclose(inner, (torch.arange(16.0, 48.0) + 0.5) / 4 - 0.5, atol=1e-5)


def test_knows_no_grey_scale(model: SuperResolution) -> None:
    images = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(1))
    answer = model(images)
    assert not torch.allclose(answer, enlarge(images), atol=1e-2)
    assert torch.allclose(model(0.3 * images + 0.2), 0.3 * answer + 0.2, atol=1e-5)
    counts = (200 * images[0, 0]).numpy()
    assert np.allclose(model.upscale(counts).image, 200 * answer[0, 0].detach(), atol=1e-2)


def test_every_grey_level_can_be_reached() -> None:
    """The reference ends in tanh, beside a target that goes beyond 1."""
    torch.manual_seed(0)
    model = SuperResolution(channels=8, blocks=1)
    low, target = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 32, 32).mul(6).sub(3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = float((model(low) - target).square().mean().detach())
    for _ in range(25):
        loss = (model(low) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.8 * first
    assert float(model(low).detach().abs().max()) > 1.5


def test_round_trip_and_kind(model: SuperResolution, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, SuperResolution)
    assert loaded.known == {"pixel_size": [0.4, 0.4]}
    images = torch.rand(1, 1, 16, 16)
    assert torch.equal(loaded(images), model(images))


def test_upscale_tells_the_new_calibration(model: SuperResolution) -> None:
    image = np.random.default_rng(0).integers(0, 60000, (20, 24)).astype(np.uint16)
    found = model.upscale(image, pixel_size=(0.4, 0.5))
    assert found.image.shape == (80, 96)
    assert found.image.dtype == np.float32
    assert found.pixel_size == pytest.approx((0.1, 0.125))
    assert model.upscale(image).pixel_size is None
    assert np.allclose(model.upscale(np.full((16, 16), 7)).image, 7)


def test_tiles_have_no_seams(model: SuperResolution, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(100, 5, (50, 71)).astype(np.float32)
    whole = model.upscale(image).image
    monkeypatch.setattr(super_resolution, "_TILE", 16)
    assert np.allclose(model.upscale(image).image, whole, atol=1e-3)


def test_gradients_reach_all_weights(model: SuperResolution) -> None:
    model.train()
    model(torch.rand(1, 1, 8, 8)).square().sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model: SuperResolution, dtype: torch.dtype) -> None:
    images = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    exact = model(images)
    found = model.to(dtype)(images.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), exact, atol=0.05)


def test_mistakes_are_one_line(model: SuperResolution) -> None:
    with pytest.raises(UsageError, match=r"super-resolution takes images \[batch, 1, row, column\]"):
        model(torch.rand(1, 3, 16, 16))
    with pytest.raises(UsageError, match=r"finite grey levels 0\.\.1, these go from 0 to 255"):
        model(torch.tensor([0.0, 255.0]).repeat(1, 1, 8, 4))
    with pytest.raises(UsageError, match="8 px or more a side, not 4 x 16"):
        model(torch.rand(1, 1, 4, 16))
    with pytest.raises(UsageError, match=r"grey image \[row, column\] of 8 px or more, not \(3, 16, 16\)"):
        model.upscale(np.zeros((3, 16, 16)))
    with pytest.raises(UsageError, match="not finite"):
        model.upscale(np.full((16, 16), np.nan))
    with pytest.raises(UsageError, match="pixel size must be positive"):
        model.upscale(np.zeros((16, 16)), pixel_size=-0.4)


def test_discriminator_judges_patches_of_any_image_alone() -> None:
    torch.manual_seed(0)
    critic = Discriminator(4)
    images, low = torch.rand(3, 1, 48, 64), torch.rand(3, 1, 12, 16)
    logits = critic(images, low)
    assert logits.shape == (3, 1, 3, 4)
    assert torch.allclose(critic(images[:1], low[:1]), logits[:1], atol=1e-5)
    # Gain and offset of the recording do not matter.
    assert torch.allclose(critic(0.3 * images + 0.5, 0.3 * low + 0.5), logits, atol=1e-3)


def test_discriminator_learns_to_tell_true_images_from_answers_that_are_a_little_wrong() -> None:
    torch.manual_seed(0)
    truth = torch.nn.functional.interpolate(torch.rand(8, 1, 12, 12), size=48, mode="bicubic").clamp(0, 1)
    low = torch.nn.functional.avg_pool2d(truth, 4)
    made = truth + 0.01 * torch.nn.functional.avg_pool2d(torch.randn(8, 1, 50, 50), 3, 1)
    critic = Discriminator(8)
    learn = torch.optim.Adam(critic.parameters(), lr=1e-3)
    for _ in range(40):
        true, false = critic(truth, low), critic(made, low)
        loss = torch.nn.functional.softplus(-true).mean() + torch.nn.functional.softplus(false).mean()
        learn.zero_grad()
        loss.backward()
        learn.step()
    assert float(loss.detach()) < 1.0  # 2 ln 2 = 1.386: nothing learned


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "vgg.safetensors"
    state = make_features("vgg16", 9).state_dict()
    save_file({f"features.{name}": value for name, value in state.items()}, path)
    return path


def test_features_are_those_of_torchvision() -> None:
    from torchvision.models.vgg import cfgs, make_layers

    for network, letter in (("vgg16", "D"), ("vgg19", "E")):
        theirs = make_layers(cfgs[letter])
        ours = make_features(network, 1000)
        assert [type(one) for one in ours] == [type(one) for one in theirs]
        assert {n: v.shape for n, v in ours.state_dict().items()} == {
            n: v.shape for n, v in theirs.state_dict().items()
        }


def test_content_loss(weights: Path) -> None:
    content = Content("vgg16:4", weights)
    images, truth = torch.rand(2, 2, 1, 16, 16).unbind(0)
    truth[0] = images[0]
    found = content(images.requires_grad_(), truth)
    assert found.shape == (2,)
    assert found[0] == 0
    assert found[1] > 0
    network = make_features("vgg16", 4)
    network.load_state_dict(content.features.state_dict())
    one, two = (
        network((grey[1:].expand(-1, 3, -1, -1) - content.mean) / content.std) for grey in (images, truth)
    )
    assert found[1].item() == pytest.approx((one - two).square().mean().item(), rel=1e-5)
    found.sum().backward()
    assert images.grad is not None
    assert not any(value.requires_grad for value in content.parameters())
    assert "SHA-256" in content.origin
    assert torch.equal(Content("pixels")(images, truth), (images - truth).square().mean((1, 2, 3)))


def test_content_mistakes(weights: Path, tmp_path: Path) -> None:
    for name in ("vgg11:4", "vgg19", "vgg16:0", "vgg16:32", "vgg19:x"):
        with pytest.raises(UsageError, match=r"content is vgg16:N or vgg19:N"):
            Content(name, weights)
    with pytest.raises(UsageError, match=r"has no features\.10\.(weight|bias), which vgg16:16 needs"):
        Content("vgg16:16", weights)
    with pytest.raises(UsageError, match="there is no file"):
        Content("vgg16:4", tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(AtomVisionError, match="is no safetensors file"):
        Content("vgg16:4", tmp_path / "bad.safetensors")
    save_file({"features.0.weight": torch.zeros(1), "features.0.bias": torch.zeros(64)}, tmp_path / "odd")
    with pytest.raises(UsageError, match="does not fit vgg16:1"):
        Content("vgg16:1", tmp_path / "odd")


@pytest.fixture(scope="module")
def converter(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert", repository / "benchmarks" / "convert_vgg16.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


def test_converter_reads_arrays_and_nothing_else(
    converter: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    arrays = {"VGG16_0": {"Conv_0": {"kernel": np.ones((3, 3, 3, 64), np.float32)}}}
    for protocol in (3, 4):
        found = converter.ArraysOnly(io.BytesIO(pickle.dumps(arrays, protocol=protocol))).load()
        assert np.array_equal(found["VGG16_0"]["Conv_0"]["kernel"], np.ones((3, 3, 3, 64)))
    with pytest.raises(pickle.UnpicklingError, match=r"print is no part of an array"):
        converter.ArraysOnly(io.BytesIO(pickle.dumps({"a": _Evil()}))).load()
    assert not capsys.readouterr().out


def test_converted_kernels_give_the_same_answers(converter: ModuleType) -> None:
    generator = np.random.default_rng(0)
    network = make_features("vgg16", 1000)
    layers = {}
    convolutions = [one for one in network if isinstance(one, torch.nn.Conv2d)]
    for number, one in enumerate(convolutions):
        outgoing, incoming = one.weight.shape[:2]
        kernel = generator.normal(size=(3, 3, incoming, outgoing)).astype(np.float32)
        layers[f"Conv_{number}"] = {"kernel": kernel, "bias": np.zeros(outgoing, np.float32)}
    found = converter.convert({"VGG16_0": layers})
    assert len(found) == 26
    # Flax convolves [row, column, in] with [row, column, in, out], which at one place is a plain sum.
    image = generator.normal(size=(3, 3, 3)).astype(np.float32)
    expected = np.einsum("rci,rcio->o", image, layers["Conv_0"]["kernel"])
    tensor = torch.from_numpy(image.transpose(2, 0, 1))[None]
    answer = torch.nn.functional.conv2d(tensor, found["features.0.weight"])[0, :, 0, 0]
    assert np.allclose(answer, expected, atol=1e-4)


def test_weights_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    asked = []

    def fetch(url: str, **options: object) -> dict[str, torch.Tensor]:
        asked.append((url, options))
        return {f"features.{name}": value for name, value in make_features("vgg19", 4).state_dict().items()}

    def fail(url: str, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    assert "vgg19-dcbb9e9d.pth" in Content("vgg19:4").origin
    (url, options), *rest = asked
    assert url.startswith("https://download.pytorch.org/")
    assert options == {"progress": False, "check_hash": True, "weights_only": True}
    assert not rest
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(NetworkNeededError, match=r"weights of vgg19 cannot be had .*data\.content_weights="):
        Content("vgg19:4")
