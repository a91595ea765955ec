"""The bridge to DGL says what DGL itself says (`make test-dgl`, in an environment of its own)."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from atomvision_hub.analysis import radius_graph
from atomvision_hub.errors import MissingExtraError

HAS_DGL = importlib.util.find_spec("dgl") is not None
needs_dgl = pytest.mark.skipif(not HAS_DGL, reason="DGL is not installed; make test-dgl runs this")


def cloud(count: int = 25) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 10, (count, 2))


@needs_dgl
def test_graph_and_line_graph_are_those_of_dgl() -> None:
    import torch

    from atomvision_hub.models.dgl_bridge import to_dgl

    graph = radius_graph(cloud(), cutoff=4.0)
    features = np.arange(50.0).reshape(25, 2)
    result, angles = to_dgl(graph, features)
    assert (result.num_nodes(), result.num_edges()) == (25, graph.edges.shape[1])
    np.testing.assert_array_equal(result.ndata["atom_features"].numpy(), features)
    source, target = result.edges()
    np.testing.assert_allclose(
        (result.ndata["pos"][target] - result.ndata["pos"][source]).numpy(), result.edata["r"], atol=1e-5
    )
    theirs = result.line_graph(shared=True, backtracking=False)
    pairs = [set(zip(*(ends.tolist() for ends in one.edges()), strict=True)) for one in (angles, theirs)]
    assert pairs[0] == pairs[1]
    # Cosines by DGL's message passing, as the reference implementation computes them.
    angles.apply_edges(
        lambda edges: {
            "theirs": torch.nn.functional.cosine_similarity(-edges.src["r"], edges.dst["r"], dim=1)
        }
    )
    np.testing.assert_allclose(angles.edata["h"], angles.edata["theirs"], atol=1e-5)


@needs_dgl
def test_graphs_batch_and_may_be_empty() -> None:
    import dgl

    from atomvision_hub.models.dgl_bridge import to_dgl

    both = [to_dgl(radius_graph(points), np.ones((len(points), 3))) for points in (cloud(), cloud(1))]
    batch = dgl.batch([graph for graph, _ in both])
    assert batch.num_nodes() == 26
    assert both[1][1].num_nodes() == 0


@pytest.mark.skipif(HAS_DGL, reason="DGL is installed")
def test_without_dgl_the_extra_is_named() -> None:
    from atomvision_hub.models.dgl_bridge import to_dgl

    with pytest.raises(MissingExtraError, match=r"\[dgl\]"):
        to_dgl(radius_graph(cloud()))
