"""Graphs of columns and their classifier: what repeats are, laws of graphs, alignn's layers, mistakes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from atomvision_hub.analysis.atoms import AtomTable
from atomvision_hub.analysis.graphs import radius_graph
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models.alignn import Alignn, Draws, GraphStore, TorchGraph
from atomvision_hub.models.base import load_model
from atomvision_hub.models.graphs import (
    FEATURES,
    ColumnGraph,
    Graphs,
    GraphSettings,
    column_graph,
    graph_of_image,
    no_columns,
    read_levels,
)

SIDE = 24.0  # Å
HONEYCOMB = (np.array([[3.2, 0.0], [-1.6, 2.7713]]), [(0.0, 0.0, 1.0), (1 / 3, 2 / 3, 0.3)])
OBLONG = (np.array([[3.0, 0.0], [0.0, 9.0]]), [(0.0, 0.0, 1.0), (0.3, 0.2, 1.0), (0.5, 0.6, 0.5)])


def table(
    crystal: tuple[np.ndarray, list[tuple[float, float, float]]],
    *,
    rotation: float = 0.0,
    noise: float = 0.0,
    pixel_size: float | None = 0.1,
) -> AtomTable:
    """Columns of a crystal of (fraction, fraction, height) in a view of SIDE x SIDE Å."""
    cell, basis = crystal
    angle = np.deg2rad(rotation)
    cell = cell @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    steps = np.stack(np.meshgrid(np.arange(-20, 21), np.arange(-20, 21)), -1).reshape(-1, 2)
    places = np.concatenate([(steps + np.array([a, b])) @ cell for a, b, _ in basis]) + SIDE / 2
    heights = np.repeat([height for *_, height in basis], len(steps))
    places += np.random.default_rng(0).normal(0, noise, places.shape) if noise else 0
    inside = ((places >= 0) & (places < SIDE - 0.1)).all(1)
    x, y = places[inside].T / 0.1
    height = heights[inside]
    none = np.zeros(len(x))
    return AtomTable(
        x=x,
        y=y,
        radius=none + 5.9,
        max=height,
        min=0.5 * height,
        mean=0.7 * height,
        amplitude=height,
        confidence=none + 1,
        edge=none.astype(bool),
        shape=(240, 240),
        pixel_size=None if pixel_size is None else (pixel_size, pixel_size),
        width=(5.0, 5.0),
    )


def edges(graph: ColumnGraph, repeat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and sources of the edges of one kind."""
    source, target = graph.edges[:, graph.repeat == repeat]
    return graph.positions[target] - graph.positions[source], source


@pytest.fixture(scope="module")
def graphs() -> list[ColumnGraph]:
    return [column_graph(table(HONEYCOMB)), column_graph(table(OBLONG, rotation=20))]


@pytest.fixture(scope="module")
def model() -> Alignn:
    torch.manual_seed(0)
    known = {"graph": GraphSettings().to_dict(), "labels": list("abcde")}
    return Alignn(classes=5, hidden=16, embedding=16, bins=16, known=known).eval()


@pytest.mark.parametrize("crystal", [HONEYCOMB, OBLONG])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_repeats_are_translations_of_the_lattice(
    crystal: tuple[np.ndarray, list[tuple[float, float, float]]], noise: float
) -> None:
    graph = column_graph(table(crystal, noise=noise))
    vectors, source = edges(graph, repeat=True)
    steps = vectors @ np.linalg.inv(crystal[0])
    assert np.abs(steps - np.rint(steps)).max() < 0.02 + 5 * noise
    # One in a direction, the shortest: then the steps have no common divisor. Noise hides some of them.
    whole = np.rint(steps).astype(int)
    shortest = np.gcd(whole[:, 0], whole[:, 1]) == 1
    assert shortest.all() if noise == 0 else shortest.mean() > 0.9
    assert np.bincount(source).max() <= GraphSettings().repeats
    # Both of a basis are there, though the long one reaches past many columns.
    assert {(1, 0), (0, 1)} <= {tuple(np.abs(step)) for step in whole}


def test_columns_that_differ_in_brightness_alone_do_not_repeat() -> None:
    square = np.array([[3.0, 0.0], [0.0, 3.0]])
    doubled = column_graph(table((2 * square, [(0, 0, 1), (0.5, 0, 0.5), (0, 0.5, 0.5), (0.5, 0.5, 1)])))
    vectors, _ = edges(doubled, repeat=True)
    assert np.hypot(*vectors.T).min() == pytest.approx(3 * np.sqrt(2), abs=1e-3)


def test_bonds_and_pairs_are_those_of_the_analysis() -> None:
    settings = GraphSettings(repeats=0, neighbours=99, columns=9999)
    columns = table(HONEYCOMB)
    batch = TorchGraph.of([column_graph(columns, settings)])
    theirs = radius_graph(columns.positions(), 4.0)
    assert torch.equal(batch.edges, torch.from_numpy(theirs.edges).long())
    assert torch.allclose(batch.lengths, torch.from_numpy(theirs.lengths), atol=1e-5)
    line = theirs.line_graph()
    assert torch.equal(batch.pairs, torch.from_numpy(line.pairs).long())
    assert torch.allclose(batch.cosines, torch.from_numpy(line.cosines), atol=1e-4)


def test_pairs_join_edges_of_one_kind(graphs: list[ColumnGraph]) -> None:
    batch = TorchGraph.of(graphs)
    first, second = batch.pairs
    assert torch.equal(batch.repeat[first], batch.repeat[second])
    assert torch.equal(batch.edges[1][first], batch.edges[0][second])
    assert (batch.edges[0][first] != batch.edges[1][second]).all()
    assert torch.equal(batch.graph[batch.edges[0]], batch.graph[batch.edges[1]])
    assert len(batch) == 2


def test_lengths_need_no_pixel_size() -> None:
    settings = GraphSettings(repeats=0)
    bare = column_graph(table(HONEYCOMB, pixel_size=None), settings)
    vectors, _ = edges(bare, repeat=False)
    # The nearest neighbours of the honeycomb come to lie 2 Å apart.
    assert np.hypot(*vectors.T).min() == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("rotation", [17.0, 90.0])
def test_answers_do_not_turn_with_the_crystal(model: Alignn, rotation: float) -> None:
    def inner(angle: float) -> torch.Tensor:
        # A round window, so that the same columns are in both.
        columns = table(OBLONG, rotation=angle)
        away = np.hypot(*(columns.positions() - SIDE / 2).T)
        graph = column_graph(columns, GraphSettings(columns=int((away < 7.6).sum()), reach=7.0))
        answer: torch.Tensor = model(TorchGraph.of([graph]))
        return answer

    with torch.inference_mode():
        assert torch.allclose(inner(0.0), inner(rotation), atol=2e-3)


def test_layers_are_those_of_alignn(graphs: list[ColumnGraph], model: Alignn) -> None:
    from alignn.models.alignn_atomwise_pure import ALIGNNConvPure
    from alignn.torch_graph_builder import TorchGraph as Theirs

    batch = TorchGraph.of(graphs)
    theirs = ALIGNNConvPure(16, 16)
    node, edge = next(iter(cast("Any", model.alignn_layers)))
    theirs.node_update.load_state_dict(node.state_dict())
    theirs.edge_update.load_state_dict(edge.state_dict())
    x, y = torch.randn(len(batch.features), 16), torch.randn(len(batch.lengths), 16)
    z = torch.randn(len(batch.cosines), 16)
    (source, target), (first, second) = batch.edges, batch.pairs
    with torch.inference_mode():
        expected = theirs(Theirs(len(x), source, target), Theirs(len(y), first, second), x, y, z)
        ours_x, m = node.forward_tensors(source, target, len(x), x, y)
        ours = (ours_x, *edge.forward_tensors(first, second, len(y), m, z))
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_batches_answer_like_single_graphs(model: Alignn, graphs: list[ColumnGraph]) -> None:
    empty = column_graph(no_columns((64, 64)))
    with torch.inference_mode():
        together = model(TorchGraph.of([graphs[0], empty, graphs[1]]))
        alone = torch.cat([model(TorchGraph.of([graph])) for graph in (graphs[0], empty, graphs[1])])
        assert model.embed(TorchGraph.of(graphs)).shape == (2, 16)
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.isfinite().all()
    nothing = GraphStore(Graphs.join([empty]), torch.device("cpu"))
    one = torch.ones(1)
    draws = Draws(one / 2, one / 2, 0 * one, torch.ones(1, 1), one, torch.ones(1, 1, 2))
    assert len(nothing.batch(torch.tensor([0]), draws).features) == 0


def test_gradients_reach_every_weight(graphs: list[ColumnGraph]) -> None:
    torch.manual_seed(1)
    network = Alignn(classes=3, hidden=8, embedding=8, bins=8)
    loss = torch.nn.functional.cross_entropy(network(TorchGraph.of(graphs)), torch.tensor([0, 2]))
    torch.autograd.backward(loss)
    without = [name for name, value in network.named_parameters() if value.grad is None]
    assert not without
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


def test_saved_and_loaded_answers_are_equal(model: Alignn, graphs: list[ColumnGraph], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Alignn)
    assert loaded.graph_settings == GraphSettings()
    with torch.inference_mode():
        assert torch.equal(loaded(TorchGraph.of(graphs)), model(TorchGraph.of(graphs)))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(kind: torch.dtype, tmp_path: Path, graphs: list[ColumnGraph]) -> None:
    torch.manual_seed(0)
    network = Alignn(classes=5, hidden=16, embedding=16, bins=16).eval()
    with torch.inference_mode():
        exact = network(TorchGraph.of(graphs)).softmax(-1)
        rough = network.to(kind)(TorchGraph.of(graphs)).float().softmax(-1)
    assert torch.allclose(exact, rough, atol=0.05)


def test_mixed_precision_trains(graphs: list[ColumnGraph]) -> None:
    torch.manual_seed(0)
    network, batch = Alignn(classes=5, hidden=16, embedding=16, bins=16), TorchGraph.of(graphs)
    exact = network(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(batch)
    assert torch.allclose(exact.softmax(-1), rough.float().softmax(-1), atol=0.05)
    torch.autograd.backward(rough.float().logsumexp(-1).sum())
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())


def test_wrong_inputs_are_named(model: Alignn, graphs: list[ColumnGraph]) -> None:
    batch = TorchGraph.of(graphs)
    with pytest.raises(UsageError, match=r"takes a TorchGraph, not Tensor; make one of images"):
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UsageError, match=r"columns \[n, 7\], not of shape \(\d+, 3\)"):
        model(replace(batch, features=batch.features[:, :3]))
    with pytest.raises(UsageError, match="finite features"):
        model(replace(batch, features=batch.features * torch.nan))
    with pytest.raises(UsageError, match=r"edges up to 14 Å, the longest here is .* the pixel size in Å/px"):
        model(replace(batch, lengths=batch.lengths * 100))


def test_windows_hold_the_nearest_columns(graphs: list[ColumnGraph]) -> None:
    store = GraphStore(Graphs.join(graphs), torch.device("cpu"))
    ones = torch.ones(2)

    def draws(window: float, lost: float, jitter: float) -> Draws:
        generator = torch.Generator().manual_seed(0)
        return Draws(
            0.5 * ones,
            window * ones,
            lost * ones,
            torch.rand((2, store.most), generator=generator),
            jitter * ones,
            torch.randn((2, store.most, 2), generator=generator),
        )

    rows = torch.tensor([1, 0])
    whole, same = store.batch(rows), store.batch(rows, draws(1, 0, 0))
    assert all(
        torch.equal(getattr(whole, name), getattr(same, name)) for name in ("features", "pairs", "lengths")
    )
    half = store.batch(rows, draws(0.5, 0, 0))
    counts = torch.bincount(half.graph)
    assert counts.tolist() == [-(-len(graphs[row]) // 2) for row in rows]
    # What is left of the second graph is the surroundings of its middle column.
    positions = graphs[0].positions
    distance = np.hypot(*(positions - positions[len(positions) // 2]).T)
    near = np.sort(distance)[: int(counts[1])]
    assert near.max() < distance[np.argsort(distance)[int(counts[1])]] + 1e-4
    lengths = half.lengths[half.graph[half.edges[0]] == 1]
    assert set(lengths.numpy().round(2)) <= set(whole.lengths.numpy().round(2))
    thinned = store.batch(rows, draws(1, 0.3, 0.05))
    assert 0.5 < len(thinned.features) / len(whole.features) < 0.9
    assert thinned.edges.max() < len(thinned.features)


def test_graphs_keep_their_file(graphs: list[ColumnGraph], tmp_path: Path) -> None:
    joined = Graphs.join(graphs)
    joined.save(tmp_path / "graphs.npz")
    loaded = Graphs.load(tmp_path / "graphs.npz")
    assert all(np.array_equal(getattr(joined, name), getattr(loaded, name)) for name in vars(joined))
    assert [path.name for path in tmp_path.iterdir()] == ["graphs.npz"]


def test_images_without_columns_give_empty_graphs() -> None:
    graph = graph_of_image(np.zeros((32, 32)), 0.1, GraphSettings())
    assert len(graph) == 0
    assert graph.features.shape == (0, len(FEATURES))
    assert graph.edges.shape == (2, 0)
    # Pixels as wide as the columns: nothing to see, but no reason to stop.
    assert len(graph_of_image(np.ones((32, 32)), 3.0, GraphSettings())) == 0
    with pytest.raises(AtomVisionError, match="an image of the dataset cannot be read"):
        read_levels(b"no image")


@pytest.mark.slow
def test_neither_dgl_nor_network_nor_torch_where_it_is_not_needed() -> None:
    code = """
import socket, sys
sys.modules["dgl"] = None  # importing it fails
def refuse(*_): raise AssertionError("network")
socket.socket.connect = refuse
import atomvision_hub.models.graphs
assert "torch" not in sys.modules
import atomvision_hub.models.alignn as ours
assert not {"alignn", "matplotlib"} & set(sys.modules)
ours.Alignn(classes=2)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
