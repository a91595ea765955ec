"""Label statistics of a dataset, read back from its Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from atomvision_hub.cards.dataset import CardText, LabelComparison, LabelCounts, LabelFacts
from atomvision_hub.data.splits import SPLITS


def label_statistics(folder: Path, shards: Mapping[str, str], text: CardText) -> LabelFacts:
    """Count the classes of a dataset.

    Parameters
    ----------
    folder
        The dataset.
    shards
        Path of a shard -> its split; the shards of one config.
    text
        Names the label columns, their classes and the pairs to compare.
    """
    columns = list(text.label_columns)
    if not columns:
        return LabelFacts()
    classes = text.classes
    counts: dict[str, dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]] = {c: {} for c in columns}
    matrices = {pair: np.zeros((len(classes), len(classes)), np.int64) for pair in text.compare}
    for path, split in sorted(shards.items(), key=lambda shard: (SPLITS.index(shard[1]), shard[0])):
        table = pq.read_table(folder / path, columns=columns)
        labels = {column: table.column(column).to_numpy() for column in columns}
        for column in columns:
            found = np.bincount(labels[column], minlength=len(classes))
            counts[column][split] = counts[column].get(split, 0) + found
        for first, second in text.compare:
            np.add.at(matrices[first, second], (labels[first], labels[second]), 1)
    return LabelFacts(
        counts=tuple(
            LabelCounts(
                column=column,
                splits={
                    split: dict(zip(classes, map(int, found), strict=True))
                    for split, found in counts[column].items()
                },
            )
            for column in columns
        ),
        comparisons=tuple(
            LabelComparison(
                first=first,
                second=second,
                rows=int(matrix.sum()),
                differ=int(matrix.sum() - np.trace(matrix)),
                guessed=int(matrix.max(axis=1).sum()),
                matrix=tuple(tuple(map(int, line)) for line in matrix),
            )
            for (first, second), matrix in matrices.items()
        ),
    )
