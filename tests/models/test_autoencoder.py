"""Autoencoders: shapes, gradients, saving, messages, sampling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models import Autoencoder, VariationalAutoencoder, load_model

SMALL = {"latent": 6, "size": 16, "width": 8, "blocks": 1}


def awake(kind: type[Autoencoder], **more: object) -> Autoencoder:
    """A small network whose residual blocks do something, the same each time."""
    torch.manual_seed(0)
    model = kind(**{**SMALL, **more})  # type: ignore[arg-type]
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape))
    return model


def images(count: int = 3, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))


KINDS = pytest.mark.parametrize("kind", [Autoencoder, VariationalAutoencoder])


@KINDS
def test_code_and_image_have_the_promised_shapes(kind: type[Autoencoder]) -> None:
    model = awake(kind).eval()
    for count in (1, 3):
        codes = model.encode(images(count))
        assert codes.shape == (count, 6)
        again = model.reconstruct(images(count)).detach()
        assert again.shape == (count, 1, 16, 16)
        assert float(again.min()) >= 0
        assert float(again.max()) <= 1


@KINDS
def test_every_weight_learns(kind: type[Autoencoder]) -> None:
    model = awake(kind)
    if isinstance(model, VariationalAutoencoder):
        coded = model(images(), torch.randn(3, 6))
        total = coded.reconstruction.square().mean() + coded.log_variance.mean()
    else:
        total = model(images()).square().mean()
    total.backward()
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in model.parameters())


@KINDS
def test_saved_model_comes_back_the_same(kind: type[Autoencoder], tmp_path: Path) -> None:
    model = awake(kind, mean=0.3, std=0.2, known={"pixel_size": [0.1, 0.1]}).eval()
    model.save_pretrained(tmp_path)
    for again in (kind.from_pretrained(tmp_path), load_model(tmp_path)):
        assert type(again) is kind
        assert again.known == {"pixel_size": [0.1, 0.1]}
        assert torch.equal(again.reconstruct(images()), model.reconstruct(images()))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind.kind


def test_the_other_kind_is_refused_by_name(tmp_path: Path) -> None:
    awake(VariationalAutoencoder).save_pretrained(tmp_path)
    with pytest.raises(AtomVisionError, match="is a vae, not a autoencoder; load it with VariationalAuto"):
        Autoencoder.from_pretrained(tmp_path)


def test_pixel_variance_travels_with_the_weights(tmp_path: Path) -> None:
    model = VariationalAutoencoder(**SMALL)  # type: ignore[arg-type]
    model.pixel_variance.fill_(0.0123)
    model.save_pretrained(tmp_path)
    assert float(VariationalAutoencoder.from_pretrained(tmp_path).pixel_variance) == pytest.approx(0.0123)


@KINDS
def test_half_precision_and_compilation_agree(kind: type[Autoencoder]) -> None:
    model = awake(kind).eval()
    wanted = model.reconstruct(images())
    half = awake(kind).eval().to(torch.bfloat16)
    assert torch.allclose(half.reconstruct(images().bfloat16()).float(), wanted, atol=0.05)
    exported = torch.export.export(model, (images(),))  # what torch.compile traces, without its C++ compiler
    found = exported.module()(images())
    found = found.reconstruction if isinstance(model, VariationalAutoencoder) else found
    assert torch.allclose(found.clamp(0, 1), wanted, atol=1e-5)


def test_golden_slice() -> None:
    """The same weights give the same numbers in every version."""
    model = Autoencoder(**SMALL).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for number, value in enumerate(model.parameters()):
            value.copy_(torch.linspace(-0.1, 0.11, value.numel()).roll(number).view(value.shape))
        grid = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
        codes, again = model.encode(grid)[0, :3].tolist(), model(grid)[0, 0, :2, 5].tolist()
    assert [*codes, *again] == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [-3.1141233, 0.32257375, 0.36353427, 0.21757019, 0.24098754]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.rand(16, 16),
            r"takes images \[batch, 1, row, column\], not of shape \(16, 16\); add the axes",
        ),
        (torch.rand(1, 3, 16, 16), r"takes images \[batch, 1, row, column\]"),
        (torch.rand(1, 1, 24, 24), r"not \(1, 1, 24, 24\); prepare\(images\) makes them"),
        (255 * torch.rand(1, 1, 16, 16), "takes finite grey levels 0..1"),
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), "divide by 255"),
        (torch.full((1, 1, 16, 16), torch.nan), "takes finite grey levels"),
    ],
)
def test_wrong_images_are_refused_in_one_line(given: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Autoencoder(**SMALL).eval().encode(given)  # type: ignore[arg-type]


def test_shape_is_checked_in_training_too() -> None:
    with pytest.raises(UsageError, match="prepare"):
        Autoencoder(**SMALL)(torch.rand(1, 1, 24, 24))  # type: ignore[arg-type]


def test_wrong_codes_and_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"takes codes \[batch, 6\], not \(2, 5\)"):
        Autoencoder(**SMALL).decode(torch.zeros(2, 5))  # type: ignore[arg-type]
    for wrong, message in (
        ({"size": 20}, "multiple of 8, not 20"),
        ({"width": 12}, "multiple of 8, not 12"),
        ({"latent": 300}, "between 1 and 256 pixels, not 300"),
        ({"blocks": 0}, "1 or more, not 0"),
        ({"std": 0.0}, "must be positive"),
    ):
        with pytest.raises(UsageError, match=message):
            Autoencoder(**{**SMALL, **wrong})  # type: ignore[arg-type]


def test_prepare_averages_the_central_square() -> None:
    """Means of 4 x 4 pixels for a multiple, the centre of an oblong image, interpolation of a small one."""
    model = Autoencoder(**SMALL)  # type: ignore[arg-type]
    large = images(2, 64)
    wanted = large.view(2, 1, 16, 4, 16, 4).mean((3, 5))
    assert torch.allclose(model.prepare(large), wanted, atol=1e-6)
    wide = torch.cat([torch.zeros(2, 1, 64, 10), large, torch.ones(2, 1, 64, 10)], 3)
    assert torch.allclose(model.prepare(wide), wanted, atol=1e-6)
    assert model.prepare(images(1, 9)).shape == (1, 1, 16, 16)
    assert torch.allclose(model.prepare(torch.full((1, 1, 30, 41), 0.25)), torch.full((1, 1, 16, 16), 0.25))


def test_samples_follow_the_generator() -> None:
    model = awake(VariationalAutoencoder)
    assert isinstance(model, VariationalAutoencoder)
    first, second, other = (model.sample(4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == (4, 1, 16, 16)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    with pytest.raises(UsageError, match="1 image or more, not 0"):
        model.sample(0)


def test_variational_code_is_drawn_as_its_distribution_says() -> None:
    """Mean and variance of decoded draws, for a decoder that is a straight line along one number."""
    model = awake(VariationalAutoencoder).eval()
    assert isinstance(model, VariationalAutoencoder)
    given = images(1).expand(4000, -1, -1, -1)
    noise = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    seen = []
    model.decode = lambda codes: seen.append(codes) or codes  # type: ignore[assignment,func-returns-value]
    with torch.inference_mode():
        mean, log_variance = model.distribution(images(1))
        model(given, noise)
        model(given[:1])
    drawn = seen[0].numpy()
    assert np.allclose(drawn.mean(0), mean[0], atol=0.01)
    assert np.allclose(drawn.var(0), log_variance[0].exp(), rtol=0.1)
    assert torch.equal(seen[1], mean)
