"""How fast atoms become graphs: radius graph of 4 Å and line graph with bond-angle cosines, one core.

    OMP_NUM_THREADS=1 python benchmarks/bench_graphs.py DATASET [--images N]
        [--out benchmarks/results/graphs-DAY.json]

Positions are those that `detect_atoms` finds in images of a `stem2d` dataset (validation split), so their
numbers are those of training. Beside it the graphs of the reference implementation's kind: a k-d tree, a
networkx graph, and networkx's line graph of its directed twin with the cosines in NumPy (the implementation
itself goes on to DGL, which takes the line graph there). Processor time; the calls of one image in turn.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from _machine import PACKAGES, interleaved, machine_facts
from scipy.spatial import KDTree

from atomvision_hub import load_dataset
from atomvision_hub._files import write_json
from atomvision_hub.analysis import detect_atoms, radius_graph

CUTOFF = 4.0  # Å


def positions(folder: Path, config: str, count: int) -> list[npt.NDArray[np.float64]]:
    """Return the detected columns of images, (x, y) in Å."""
    data = load_dataset(folder, config, split="validation")
    step = max(1, len(data) // count)
    chosen = [data[index] for index in range(0, len(data), step)][:count]
    return [detect_atoms(np.asarray(row["image"]), tuple(row["pixel_size"])).positions() for row in chosen]


def ours(points: npt.NDArray[np.float64]) -> tuple[int, int]:
    graph = radius_graph(points, CUTOFF)
    return graph.edges.shape[1], graph.line_graph().pairs.shape[1]


def by_networkx(points: npt.NDArray[np.float64]) -> tuple[int, int]:
    graph = nx.Graph()
    for index, point in enumerate(points):
        graph.add_node(index, pos=point)
    graph.add_edges_from(KDTree(points).query_pairs(CUTOFF))
    directed = graph.to_directed()
    line = nx.line_graph(directed)
    pairs = np.array([(i, j, k) for (i, j), (_, k) in line.edges if i != k]).reshape(-1, 3)
    back, on = points[pairs[:, 0]] - points[pairs[:, 1]], points[pairs[:, 2]] - points[pairs[:, 1]]
    cosines = (back * on).sum(1) / (np.linalg.norm(back, axis=1) * np.linalg.norm(on, axis=1))
    return directed.number_of_edges(), len(cosines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of a stem2d dataset")
    parser.add_argument("--config", default="rotated")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    clouds = positions(arguments.dataset, arguments.config, arguments.images)
    seconds: dict[str, list[float]] = {"ours": [], "networkx": []}
    sizes = []
    for points in clouds:
        sizes.append((len(points), *ours(points)))
        assert by_networkx(points) == sizes[-1][1:]
        timed = interleaved(
            {
                "ours": lambda points=points: ours(points),
                "networkx": lambda points=points: by_networkx(points),
            },
            repeats={"ours": 9, "networkx": 3},
        )
        for name, facts in timed.items():
            seconds[name].append(facts["cpu_median"])
    columns, edges, pairs = (float(value) for value in np.mean(sizes, axis=0))
    rng = np.random.default_rng(0)
    typical = rng.uniform(0, 25.6, (300, 2))  # as many columns as a dense image has
    result: dict[str, Any] = {
        "machine": machine_facts((*PACKAGES, "networkx")),
        "images": len(clouds),
        "mean": {"columns": columns, "edges": edges, "pairs_of_edges": pairs},
        "cpu_ms_mean": {name: 1e3 * float(np.mean(values)) for name, values in seconds.items()},
        "graphs_per_second": 1 / float(np.mean(seconds["ours"])),
        "ratio_of_sums": float(sum(seconds["networkx"]) / sum(seconds["ours"])),
        "random_300_columns_cpu_ms": 1e3
        * interleaved({"ours": lambda: ours(typical)}, repeats=30)["ours"]["cpu_median"],
    }
    for name, facts in result.items():
        if name != "machine":
            print(name, facts)
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
