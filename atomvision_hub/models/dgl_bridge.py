"""Atom graphs for DGL, by the extra [dgl]: the one place that imports it.

DGL is no longer maintained; 1.1.3 is the last version that works beside current torch, on Python 3.11. The
graph networks of this package do not need it: this is a bridge for those who have models in DGL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atomvision_hub.analysis.graphs import AtomGraph
from atomvision_hub.errors import MissingExtraError


def to_dgl(graph: AtomGraph, features: npt.ArrayLike | None = None) -> tuple[Any, Any]:
    """Return a graph and its line graph for DGL, as ALIGNN and the AtomVision paper's code take them.

    Parameters
    ----------
    graph
        Atoms and edges; DGL numbers them alike.
    features
        Of the atoms, shape (n, ...): ``ndata["atom_features"]``.

    Returns
    -------
    graph
        ``dgl.DGLGraph`` with ``ndata["pos"]`` (x, y in Å) and ``edata["r"]``, the vector of an edge (Å).
    line_graph
        Its nodes are the edges, ``ndata["r"]`` their vectors; ``edata["h"]`` the cosines of the bond angles.

    Raises
    ------
    MissingExtraError
        Without DGL.
    """
    try:
        import dgl
    except ImportError as problem:
        raise MissingExtraError(
            "graphs for DGL need DGL, on Python 3.11; install it with: pip install 'atomvision-hub[dgl]'"
        ) from problem
    line = graph.line_graph()
    source, target = torch.from_numpy(graph.edges)
    result = dgl.graph((source, target), num_nodes=len(graph.positions))
    result.ndata["pos"] = torch.from_numpy(graph.positions)
    result.edata["r"] = torch.from_numpy(graph.vectors)
    if features is not None:
        result.ndata["atom_features"] = torch.from_numpy(np.array(features, np.float32))
    first, second = torch.from_numpy(line.pairs)
    angles = dgl.graph((first, second), num_nodes=graph.edges.shape[1])
    angles.ndata["r"] = result.edata["r"]
    angles.edata["h"] = torch.from_numpy(line.cosines)
    return result, angles
