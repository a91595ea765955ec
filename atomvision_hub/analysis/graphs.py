"""Atoms -> radius graph -> line graph, as arrays; conventions as in ALIGNN.

Edges are directed and come in both directions. An edge ``i -> j`` carries the vector ``r_ij`` from i to j.
The line graph's nodes are these edges; it leads from ``i -> j`` to ``j -> k`` for all k but i, with the
cosine of the bond angle at j, between ``-r_ij`` and ``r_jk`` (Choudhary and DeCost, npj Comput. Mater. 7,
185, 2021, doi 10.1038/s41524-021-00650-1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from atomvision_hub.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from networkx import DiGraph

Indices = npt.NDArray[np.int32]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LineGraph:
    """Pairs of successive edges.

    Attributes
    ----------
    pairs
        Indices of edges (first, second), int32 [2, l].
    cosines
        Of the bond angle at the shared atom, -1..1, float32 [l].
    """

    pairs: Indices
    cosines: Values


@dataclass(frozen=True)
class AtomGraph:
    """Atoms and the directed edges between those that are near.

    Attributes
    ----------
    positions
        (x, y), float32 [n, 2], in Å.
    edges
        (from, to), int32 [2, e], ordered by from, then by distance.
    vectors
        From the first atom to the second, float32 [e, 2], in Å.
    lengths
        Float32 [e], in Å.
    """

    positions: Values
    edges: Indices
    vectors: Values
    lengths: Values

    def line_graph(self) -> LineGraph:
        """Return the graph of successive edges, without those that go straight back."""
        count, total = len(self.positions), self.edges.shape[1]
        source, target = self.edges
        degree = np.bincount(source, minlength=count)
        first_of = np.concatenate([[0], np.cumsum(degree)])
        # Every edge is followed by the edges that leave its target, which stand in one piece.
        follow = degree[target]
        first = np.repeat(np.arange(total, dtype=np.int32), follow)
        # From the number of a pair to that of its second edge: one shift for all that follow an edge.
        shift = (first_of[target] - (np.cumsum(follow) - follow)).astype(np.int32)
        second = np.arange(len(first), dtype=np.int32) + np.repeat(shift, follow)
        on = np.flatnonzero(target.take(second) != np.repeat(source, follow))
        first, second = first.take(on), second.take(on)
        x, y = (self.vectors / np.maximum(self.lengths, 1e-12)[:, None]).T.copy()
        cosines = -(x.take(first) * x.take(second) + y.take(first) * y.take(second))
        return LineGraph(np.stack([first, second]), np.clip(cosines, -1, 1, out=cosines))

    def to_networkx(self, attributes: dict[str, npt.NDArray[Any]] | None = None) -> DiGraph:
        """Return a networkx graph with ``pos`` of the nodes, ``vector`` and ``length`` of the edges.

        Parameters
        ----------
        attributes
            More columns of the atoms, by name, one value a node.
        """
        import networkx as nx

        graph = nx.DiGraph()
        columns = {name: np.asarray(values).tolist() for name, values in (attributes or {}).items()}
        for node, position in enumerate(self.positions.tolist()):
            graph.add_node(
                node, pos=tuple(position), **{name: values[node] for name, values in columns.items()}
            )
        vectors, lengths = self.vectors.tolist(), self.lengths.tolist()
        for edge, (source, target) in enumerate(self.edges.T.tolist()):
            graph.add_edge(source, target, vector=tuple(vectors[edge]), length=lengths[edge])
        return graph


def radius_graph(
    positions: npt.ArrayLike, cutoff: float = 4.0, max_neighbours: int | None = None
) -> AtomGraph:
    """Connect all atoms nearer than a cut-off.

    Parameters
    ----------
    positions
        (x, y) in Å, shape (n, 2).
    cutoff
        Longest edge, in Å; 4 Å as in the AtomVision paper.
    max_neighbours
        Keep only the nearest so many edges that leave an atom; then edges may lack their reverse.

    Returns
    -------
    AtomGraph

    Raises
    ------
    AnalysisError
        When positions are no finite [n, 2] array, or the cut-off is not positive.
    """
    points = np.asarray(positions, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise AnalysisError(f"a graph needs finite positions [n, 2] in Å, not an array of {points.shape}")
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise AnalysisError(f"the cut-off must be a positive length in Å, not {cutoff}")
    if max_neighbours is not None and max_neighbours < 1:
        raise AnalysisError(f"max_neighbours must be 1 or more, not {max_neighbours}")
    pairs = (
        cKDTree(points).query_pairs(cutoff, output_type="ndarray") if len(points) else np.zeros((0, 2), int)
    )
    source = np.concatenate([pairs[:, 0], pairs[:, 1]])
    target = np.concatenate([pairs[:, 1], pairs[:, 0]])
    vectors = points[target] - points[source]
    lengths = np.hypot(vectors[:, 0], vectors[:, 1])
    order = np.lexsort((target, lengths, source))
    if max_neighbours is not None:
        degree = np.bincount(source, minlength=len(points))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(degree) - degree, degree)
        order = order[rank < max_neighbours]
    return AtomGraph(
        points.astype(np.float32),
        np.stack([source, target])[:, order].astype(np.int32),
        vectors[order].astype(np.float32),
        lengths[order].astype(np.float32),
    )


def bond_angle_histogram(line_graph: LineGraph, bins: int = 200) -> Values:
    """Return the shares of bond-angle cosines in equal bins over -1..1, float32 [bins]; 0 without angles."""
    counts = np.histogram(line_graph.cosines, bins=bins, range=(-1, 1))[0]
    return np.asarray(counts / max(1, counts.sum()), np.float32)
