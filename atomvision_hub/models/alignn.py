"""Graph classifier: an ALIGNN of the layers that alignn ships for torch alone, on graphs of atom columns.

Edges exchange messages with the columns they join, and with the edges they share a column with, by the angle
between them (Choudhary and DeCost, npj Comput. Mater. 7, 185, 2021, doi 10.1038/s41524-021-00650-1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from atomvision_hub.errors import UsageError
from atomvision_hub.models.base import HubModel
from atomvision_hub.models.graphs import FEATURES, ColumnGraph, Graphs, GraphSettings


@dataclass(frozen=True)
class TorchGraph:
    """A batch of graphs in flat tensors, with the graph of successive edges.

    Attributes
    ----------
    features
        Of the columns, float [n, f]; `models.graphs.FEATURES`.
    edges
        (from, to), int64 [2, e].
    lengths
        Of the edges in Å, float [e].
    repeat
        Whether an edge is a repeat (else a bond), bool [e].
    mismatch
        Relative difference of the surroundings of a repeat's ends, float [e].
    pairs
        (first, second) edges ``i -> j`` and ``j -> k`` of one kind, k not i, int64 [2, l].
    cosines
        Of the angle at j, float [l].
    graph
        Which graph a column belongs to, int64 [n].
    size
        Number of graphs.
    """

    features: Tensor
    edges: Tensor
    lengths: Tensor
    repeat: Tensor
    mismatch: Tensor
    pairs: Tensor
    cosines: Tensor
    graph: Tensor
    size: int

    def __len__(self) -> int:
        return self.size

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device."""
        return replace(
            self,
            **{
                field.name: getattr(self, field.name).to(device)
                for field in fields(self)
                if field.name != "size"
            },
        )

    @classmethod
    def of(cls, graphs: Sequence[ColumnGraph]) -> TorchGraph:
        """Return the batch of some graphs, on the CPU."""
        store = GraphStore(Graphs.join(graphs), torch.device("cpu"))
        return store.batch(torch.arange(len(graphs)))


@dataclass(frozen=True)
class Draws:
    """Random numbers that change the graphs of a batch.

    Attributes
    ----------
    centre
        0..1 [b]: of which column the window is the surroundings.
    window
        Part of the columns that a window holds [b].
    lost, chance
        Part of the columns that is left out [b], and a number 0..1 a column [b, most columns].
    jitter, moves
        Standard deviation of a shift of the columns in Å [b], and normal numbers [b, most columns, 2].
    """

    centre: Tensor
    window: Tensor
    lost: Tensor
    chance: Tensor
    jitter: Tensor
    moves: Tensor

    def take(self, rows: slice, device: torch.device) -> Draws:
        """Return the numbers of some rows on a device."""
        return Draws(
            *(getattr(self, field.name)[rows].to(device, non_blocking=True) for field in fields(self))
        )


class GraphStore:
    """Many graphs on a device; batches of them are put together there, without a loop over graphs.

    Parameters
    ----------
    graphs
        In flat arrays.
    device
        Where they lie.
    """

    def __init__(self, graphs: Graphs, device: torch.device) -> None:
        def put(values: Any) -> Tensor:
            return torch.from_numpy(values).to(device)

        self.device, self.size = device, len(graphs)
        self.most = int(graphs.nodes.max(initial=1))
        self.nodes, self.links = put(graphs.nodes), put(graphs.links)
        self._sizes = torch.from_numpy(np.stack([graphs.nodes, graphs.links], axis=1))
        self.first_node = self.nodes.cumsum(0) - self.nodes
        self.first_link = self.links.cumsum(0) - self.links
        self.positions, self.features = put(graphs.positions), put(graphs.features)
        self.edges, self.repeat, self.mismatch = put(graphs.edges), put(graphs.repeat), put(graphs.mismatch)

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Tensor, draws: Draws | None = None) -> TorchGraph:
        """Return the batch of some graphs, as they are or changed by `draws`.

        Parameters
        ----------
        rows
            Which, int64 [b], on the CPU: the sizes of the batch are known there, and nobody has to wait for
            the device to tell them.
        """
        total, links = self._sizes[rows].sum(0).tolist()
        rows = rows.to(self.device, non_blocking=True)
        counts = self.nodes[rows]
        graph, local = _spread(counts, total)
        node = self.first_node[rows][graph] + local
        positions, features = self.positions[node], self.features[node]
        stay = None
        if draws is not None and total:
            rank = _window(positions, graph, local, counts, draws)
            stay = rank < (draws.window * counts).ceil()[graph]
            stay &= draws.chance[graph, local] >= draws.lost[graph]
            positions = positions + draws.jitter[graph, None] * draws.moves[graph, local]
        which, local = _spread(self.links[rows], links)
        link = self.first_link[rows][which] + local
        edges = self.edges[:, link].long() + (counts.cumsum(0) - counts)[which]
        repeat, mismatch = self.repeat[link], self.mismatch[link]
        if stay is not None:
            on = (stay[edges[0]] & stay[edges[1]]).nonzero()[:, 0]
            edges, repeat, mismatch = (stay.cumsum(0) - 1)[edges[:, on]], repeat[on], mismatch[on]
            kept = stay.nonzero()[:, 0]
            positions, features, graph = positions[kept], features[kept], graph[kept]
        vectors = positions[edges[1]] - positions[edges[0]]
        lengths = vectors.norm(dim=1).clamp_min(1e-6)
        pairs = _successors(edges, repeat, len(positions))
        unit = vectors / lengths[:, None]
        cosines = -(unit[pairs[0]] * unit[pairs[1]]).sum(1).clamp(-1, 1)
        return TorchGraph(features, edges, lengths, repeat, mismatch, pairs, cosines, graph, len(rows))


def _spread(counts: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Return for every member of groups of these sizes (`total` in all) its group and its number within."""
    groups = torch.arange(len(counts), device=counts.device)
    group = torch.repeat_interleave(groups, counts, output_size=total)
    within = torch.arange(len(group), device=counts.device) - (counts.cumsum(0) - counts)[group]
    return group, within


def _count(group: Tensor, groups: int) -> Tensor:
    """Return the sizes of groups; unlike `bincount` without waiting for the device."""
    return group.new_zeros(groups).scatter_add_(0, group, torch.ones_like(group))


def _window(positions: Tensor, graph: Tensor, local: Tensor, counts: Tensor, draws: Draws) -> Tensor:
    """Return the rank of every column by its distance from the column in the window's centre."""
    # An empty graph has no centre: any index will do, nobody asks for it.
    middle = torch.minimum((draws.centre * counts).long(), (counts - 1).clamp_min(0))
    centre = (counts.cumsum(0) - counts + middle).clamp_max(max(len(positions) - 1, 0))
    distance = (positions - positions[centre][graph]).square().sum(1)
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(graph[order], stable=True)]
    return torch.empty_like(local).scatter_(0, order, local)


def _successors(edges: Tensor, repeat: Tensor, nodes: int) -> Tensor:
    """Return the pairs of successive edges of one kind; edges are ordered by from, bonds first."""
    source, target = 2 * edges + repeat.long()
    degree = _count(source, 2 * nodes)
    first, within = _spread(degree[target])
    second = (degree.cumsum(0) - degree)[target][first] + within
    on = (edges[1][second] != edges[0][first]).nonzero()[:, 0]
    return torch.stack([first[on], second[on]])


class Alignn(HubModel):
    """Classes of graphs of atom columns.

    Beside the columns, edges and pairs of edges are read out, bonds and repeats each for themselves: columns
    get weighted means of their neighbours, which know nothing of the edges where all columns are alike.

    Parameters
    ----------
    classes
        Number of classes.
    hidden, embedding
        Width of the layers, and of the first layers behind the distances and angles.
    layers, graph_layers
        Updates with and without the graph of successive edges.
    bins
        Gaussians that distances, angles and ratios are expanded in.
    reach
        Longest distance that is expanded, in Å.
    ratios
        Whether pairs of edges carry the ratio of their lengths and the projection of one on the other beside
        the cosine of their angle: equal lengths and right angles are what tells lattices apart.
    known
        ``graph``: the `GraphSettings` that images become graphs by; ``labels``.
    """

    kind: ClassVar[str] = "alignn"
    task: ClassVar[str] = "graph-ml"

    def __init__(
        self,
        *,
        classes: int,
        hidden: int = 64,
        embedding: int = 64,
        layers: int = 2,
        graph_layers: int = 2,
        bins: int = 64,
        reach: float = 14.0,
        ratios: bool = True,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = {
            "classes": classes,
            "hidden": hidden,
            "embedding": embedding,
            "layers": layers,
            "graph_layers": graph_layers,
            "bins": bins,
            "reach": reach,
            "ratios": ratios,
        }
        super().__init__(arguments=arguments, known=known)
        # Here, since alignn imports matplotlib's pyplot.
        from alignn.models.utils import MLPLayer

        self.ratios = ratios
        self.distance_bins = Bins(0.0, reach, 2 * bins)
        self.pair_bins = Bins(-1.0, 1.0, bins)
        self.atom_embedding = MLPLayer(len(FEATURES), hidden)
        self.edge_embedding = nn.Sequential(MLPLayer(2 * bins + 2, embedding), MLPLayer(embedding, hidden))
        self.pair_embedding = nn.Sequential(
            MLPLayer((3 if ratios else 1) * bins, embedding), MLPLayer(embedding, hidden)
        )
        convolution = _convolution()
        self.alignn_layers = nn.ModuleList(
            nn.ModuleList([convolution(hidden, hidden), convolution(hidden, hidden)]) for _ in range(layers)
        )
        self.graph_layers = nn.ModuleList(convolution(hidden, hidden) for _ in range(graph_layers))
        self.readout = MLPLayer(5 * hidden, hidden)
        self.head = nn.Linear(hidden, classes)

    @property
    def graph_settings(self) -> GraphSettings:
        """How images become graphs for these weights."""
        return GraphSettings(**self.known.get("graph", {}))

    def forward(self, graph: TorchGraph) -> Tensor:
        """Return the logits of a batch of graphs, [b, classes]."""
        logits: Tensor = self.head(self.embed(graph))
        return logits

    def embed(self, graph: TorchGraph) -> Tensor:
        """Return the pooled features of every graph, [b, hidden]: what the last linear layer sees."""
        self._check(graph)
        kind = self.head.weight.dtype
        nodes, edges = len(graph.features), len(graph.lengths)
        source, target = graph.edges
        first, second = graph.pairs
        lengths = graph.lengths.float()
        marks = torch.stack([graph.repeat.float(), graph.mismatch.float()], 1)
        distances = torch.cat([self.distance_bins(lengths), marks], 1)
        cosines = graph.cosines.float()
        angles = [self.pair_bins(cosines)]
        if self.ratios:
            ratio = lengths[second] / lengths[first]
            projection = cosines * ratio
            angles += [self.pair_bins(value.clamp(-1, 1)) for value in (ratio.log(), projection)]
        x = self.atom_embedding(graph.features.to(kind))
        y = self.edge_embedding(distances.to(kind))
        z = self.pair_embedding(torch.cat(angles, 1).to(kind))
        for node_update, edge_update in cast("Any", self.alignn_layers):
            x, y = node_update.forward_tensors(source, target, nodes, x, y)
            y, z = edge_update.forward_tensors(first, second, edges, y, z)
        for layer in cast("Any", self.graph_layers):
            x, y = layer.forward_tensors(source, target, nodes, x, y)
        edge_group = 2 * graph.graph[source] + graph.repeat
        means = [
            _means(x, graph.graph, graph.size),
            _means(y, edge_group, 2 * graph.size).reshape(graph.size, -1),
            _means(z, edge_group[first], 2 * graph.size).reshape(graph.size, -1),
        ]
        pooled: Tensor = self.readout(torch.cat(means, 1).to(kind))
        return pooled

    def _check(self, graph: TorchGraph) -> None:
        if not isinstance(graph, TorchGraph):
            raise UsageError(
                f"Alignn takes a TorchGraph, not {type(graph).__name__}; make one of images with "
                "TorchGraph.of([graph_of_image(image, pixel_size, model.graph_settings)])"
            )
        if graph.features.ndim != 2 or graph.features.shape[1] != len(FEATURES):
            raise UsageError(
                f"Alignn takes the features {', '.join(FEATURES)} of columns [n, {len(FEATURES)}], "
                f"not of shape {tuple(graph.features.shape)}"
            )
        if graph.size == 0:
            raise UsageError("Alignn got an empty batch of graphs")
        # While training, looking at values would make the device wait.
        if self.training or torch.compiler.is_compiling():
            return
        if not bool(graph.features.isfinite().all()):
            raise UsageError("Alignn takes finite features of columns; these hold nan or infinite values")
        reach = float(self.arguments["reach"])
        longest = float(graph.lengths.max()) if len(graph.lengths) else 0.0
        if not longest <= reach * 1.01:
            raise UsageError(
                f"Alignn knows edges up to {reach:g} Å, the longest here is {longest:.4g}; "
                "make the graph with model.graph_settings and the pixel size in Å/px"
            )


class Bins(nn.Module):
    """Values expanded in Gaussians a width apart.

    Parameters
    ----------
    low, high
        First and last centre.
    count
        How many.
    """

    centers: Tensor

    def __init__(self, low: float, high: float, count: int) -> None:
        super().__init__()
        self.width = (high - low) / max(count - 1, 1)
        self.register_buffer("centers", torch.linspace(low, high, count), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return [..., count] of values [...]."""
        scaled = (values[..., None] - self.centers.float()) / self.width
        # Exponents end where a Gaussian is nothing: denormal numbers are slow.
        return torch.exp(-scaled.square().clamp_max(25.0))


def _means(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the means over groups in single precision, 0 of empty ones."""
    total = values.new_zeros((groups, values.shape[1]), dtype=torch.float32)
    total = total.index_add(0, group, values.float())
    return total / _count(group, groups).clamp_min(1)[:, None]


def _convolution() -> Any:
    from alignn.models.alignn_atomwise_pure import EdgeGatedGraphConvPure
    from torch.nn import functional

    class EdgeGated(EdgeGatedGraphConvPure):  # type: ignore[misc, unused-ignore]
        """alignn's layer, gathering and summing by operations whose gradients need no sorting."""

        def forward_tensors(
            self, src: Tensor, dst: Tensor, num_nodes: int, x: Tensor, y: Tensor
        ) -> tuple[Tensor, Tensor]:
            m = (
                self.src_gate(x).index_select(0, src)
                + self.dst_gate(x).index_select(0, dst)
                + self.edge_gate(y)
            )
            gate = torch.sigmoid(m)
            message = gate * self.dst_update(x).index_select(0, src)
            # One sum for both, in single precision: sums of many bf16 numbers lose their last ones.
            both = torch.cat([message, gate], 1).float()
            total = both.new_zeros((num_nodes, both.shape[1])).index_add(0, dst, both)
            above, below = total.chunk(2, 1)
            h = self.src_update(x) + (above / (below + 1e-6)).to(m.dtype)
            return x + functional.silu(self.bn_nodes(h)), y + functional.silu(self.bn_edges(m))

    return EdgeGated
