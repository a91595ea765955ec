"""The contract of all models: one suite, whatever they do.

A new model is one entry of `CASES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models import load_model
from atomvision_hub.models.base import _HOMES, HubModel

KNOWN = {"pixel_size": [0.05, 0.2], "field_of_view": [12.8, 25.6]}


def images(count: int, side: int) -> Tensor:
    """Lattices of Gaussians, one period each, grey levels 0..1."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rows = [
        (0.5 + 0.25 * (torch.cos(6.283 * x / period) + torch.cos(6.283 * y / period)))[None]
        for period in (8.0, 9.0, 11.0, 13.0)[:count]
    ]
    return torch.stack(rows)


def graphs(count: int) -> Any:
    """Graphs of columns that nobody had to find: the golden numbers shall not move with their detection."""
    from atomvision_hub.analysis import AtomTable
    from atomvision_hub.models.alignn import TorchGraph
    from atomvision_hub.models.graphs import GraphSettings, column_graph

    made = []
    for spacing in (8.0, 9.0, 11.0, 13.0)[:count]:
        places = np.arange(4.0, 64.0, spacing)
        x, y = (one.ravel() for one in np.meshgrid(places, places))
        ones = np.ones(len(x))
        levels = {"radius": 4 * ones, "max": ones, "min": 0.2 * ones, "mean": 0.6 * ones, "amplitude": ones}
        table = AtomTable(
            x=x,
            y=y,
            **levels,
            confidence=ones,
            edge=ones < 0,
            shape=(64, 64),
            pixel_size=(0.25, 0.25),
            width=(3.4, 3.4),
        )
        made.append(column_graph(table, GraphSettings(columns=24)))
    return TorchGraph.of(made)


def segmenter() -> HubModel:
    from atomvision_hub.models import Segmenter

    return Segmenter(encoder="tu-test_efficientnet", depth=4, decoder_channels=(16, 16, 8, 8), known=KNOWN)


def alignn() -> HubModel:
    from atomvision_hub.models import Alignn

    return Alignn(classes=5, hidden=16, embedding=16, layers=1, graph_layers=1, bins=8, known=KNOWN)


def super_resolution() -> HubModel:
    from atomvision_hub.models import SuperResolution

    return SuperResolution(channels=8, blocks=2, known=KNOWN)


def autoencoder() -> HubModel:
    from atomvision_hub.models import Autoencoder

    return Autoencoder(latent=16, size=32, width=8, blocks=1, known=KNOWN)


def variational() -> HubModel:
    from atomvision_hub.models import VariationalAutoencoder

    return VariationalAutoencoder(latent=8, size=32, width=8, blocks=1, known=KNOWN)


def classifier() -> Any:
    from atomvision_hub.models.classifier import make_classifier

    return make_classifier("test_resnet", ["hexagonal", "square", "rectangular"], input_size=64)


def lattice_network() -> Any:
    from atomvision_hub.models.lattice_network import make_lattice_network

    shape = {"candidates": 8, "width": 16, "layers": 1, "heads": 2, "pair_width": 8}
    return make_lattice_network(["hexagonal", "square", "rectangular"], **shape)


@dataclass(frozen=True)
class Case:
    """A model at toy size.

    Parameters
    ----------
    make, inputs
        The network, and a batch of so many examples.
    shape
        Of the answer to two examples.
    output
        The tensor of an answer.
    takes_images
        Whether its input is a batch of grey images.
    """

    make: Callable[[], Any]
    inputs: Callable[[int], Any]
    shape: tuple[int, ...]
    output: Callable[[Any], Tensor] = field(default=lambda answer: answer)
    takes_images: bool = True


CASES = {
    "segmenter": Case(segmenter, lambda n: images(n, 64), (2, 1, 64, 64)),
    "alignn": Case(alignn, graphs, (2, 5), takes_images=False),
    "super_resolution": Case(super_resolution, lambda n: images(n, 16), (2, 1, 64, 64)),
    "autoencoder": Case(autoencoder, lambda n: images(n, 32), (2, 1, 32, 32)),
    "classifier": Case(
        classifier, lambda n: images(n, 64).expand(-1, 3, -1, -1), (2, 3), lambda answer: answer.logits, False
    ),
    "lattice_network": Case(
        lattice_network,
        lambda n: images(n, 64).expand(-1, 3, -1, -1),
        (2, 3),
        lambda answer: answer.logits,
        False,
    ),
    "vae": Case(variational, lambda n: images(n, 32), (2, 1, 32, 32), lambda answer: answer.reconstruction),
}
#: Classes of transformers, which saves and loads them.
TRANSFORMERS = {"classifier", "lattice_network"}
ours = pytest.mark.parametrize("kind", sorted(set(CASES) - TRANSFORMERS))
every = pytest.mark.parametrize("kind", sorted(CASES))
with_images = pytest.mark.parametrize("kind", sorted(k for k, case in CASES.items() if case.takes_images))


def fresh(kind: str) -> Any:
    """A network whose weights all matter: those that start at zero get values too."""
    torch.manual_seed(0)
    model = CASES[kind].make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn(value.shape, generator=generator))
    return model.eval()


def answer(kind: str, model: nn.Module, given: Any) -> Tensor:
    with torch.no_grad():
        return CASES[kind].output(model(given))


def test_every_kind_is_under_contract() -> None:
    assert set(CASES) == set(_HOMES) | TRANSFORMERS


@every
def test_forward_and_backward(kind: str) -> None:
    case, model = CASES[kind], fresh(kind).train()
    found = case.output(model(case.inputs(2)))
    assert found.shape == case.shape
    assert found.isfinite().all()
    (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    idle = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert not idle, f"no gradient reaches {idle}"


@ours
def test_saved_and_reloaded_it_answers_the_same(kind: str, tmp_path: Path) -> None:
    case, model = CASES[kind], fresh(kind)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    given = case.inputs(2)
    for again in (load_model(tmp_path), type(model).from_pretrained(tmp_path)):
        assert type(again) is type(model)
        assert not again.training
        assert again.arguments == model.arguments
        assert again.known == KNOWN
        assert torch.equal(answer(kind, again, given), answer(kind, model, given))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == kind


@pytest.mark.parametrize("kind", sorted(TRANSFORMERS))
def test_saved_classifier_is_one_of_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    model, given = fresh(kind), CASES[kind].inputs(2)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(answer(kind, again, given), answer(kind, model, given))


@ours
def test_damaged_and_foreign_folders_are_one_line(kind: str, tmp_path: Path) -> None:
    model = fresh(kind)
    model.save_pretrained(tmp_path)
    other = next(name for name in sorted(_HOMES) if name != kind)
    with pytest.raises(AtomVisionError, match=f"is a {kind}, not a {other}"):
        type(CASES[other].make()).from_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AtomVisionError, match="do not fit or are damaged"):
        load_model(tmp_path)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(AtomVisionError, match=r"no model\.safetensors"):
        load_model(tmp_path)


@with_images
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[0, 0], r"takes images .* not of shape|takes images .* not \("),
        (lambda x: x.repeat(1, 3, 1, 1), r"takes images \[batch, 1, .*not"),
        (lambda x: (255 * x).to(torch.uint8), "float images with values 0..1, not torch.uint8"),
        (lambda x: 255 * x, "grey levels 0..1, these go from"),
        (lambda x: x * torch.nan, "finite grey levels"),
        (lambda x: x[:0], "empty batch"),
    ],
)
def test_wrong_images_are_one_line(kind: str, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        fresh(kind)(spoil(CASES[kind].inputs(2)))
    assert "\n" not in str(caught.value)


def test_wrong_graphs_are_one_line() -> None:
    with pytest.raises(UsageError, match="takes a TorchGraph, not Tensor"):
        fresh("alignn")(images(1, 64))


@every
def test_one_example_is_answered_as_in_a_batch(kind: str) -> None:
    case, model = CASES[kind], fresh(kind)
    both = answer(kind, model, case.inputs(2))
    torch.testing.assert_close(answer(kind, model, case.inputs(1)), both[:1], rtol=1e-4, atol=1e-5)


@every
def test_half_precision_is_nearly_the_same(kind: str) -> None:
    case, model = CASES[kind], fresh(kind)
    given = case.inputs(2)
    exact = answer(kind, model, given)
    with torch.autocast("cpu", torch.bfloat16):
        near = answer(kind, model, given).float()
    assert near.isfinite().all()
    assert float((near - exact).norm() / exact.norm()) < 0.05


@every
def test_compiled_it_answers_the_same(kind: str) -> None:
    """Captured as a graph; no compiler of C++ is asked, which a user may lack."""
    case, model = CASES[kind], fresh(kind)
    given = case.inputs(2)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(
        answer(kind, compiled, given), answer(kind, model, given), rtol=1e-4, atol=1e-5
    )


#: Five numbers of the answer to two examples, from the run that wrote this line (torch 2.14.1, CPU).
GOLDEN: dict[str, list[float]] = {
    "alignn": [0.22878, 0.55789, 0.66762, -0.05941, 0.66402],
    "autoencoder": [0.20852, 0.25553, 0.2382, 0.2537, 0.23223],
    "classifier": [-0.07842, 0.05449, 0.04242, -0.08496, 0.0433],
    "lattice_network": [-0.3139, -0.052, -0.0735, -0.3207, -0.1278],
    "segmenter": [0.00239, -0.01504, -0.04135, -0.04477, -0.05138],
    "super_resolution": [1.02546, 0.92759, 0.90194, 0.5017, 0.28517],
    "vae": [0.23282, 0.25609, 0.24672, 0.25458, 0.24837],
}


@every
def test_golden_slice(kind: str) -> None:
    found = answer(kind, fresh(kind), CASES[kind].inputs(2)).flatten()
    picked = found[torch.linspace(0, len(found) - 1, 5).long()]
    torch.testing.assert_close(picked, torch.tensor(GOLDEN[kind]), rtol=1e-3, atol=1e-4)
