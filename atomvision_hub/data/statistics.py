"""Label statistics and value counts of a dataset, read back from its Parquet files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from atomvision_hub.cards.dataset import CardText, LabelComparison, LabelCounts, LabelFacts, ValueCounts
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


#: Values of a column that the card names.
NAMED = 20


def value_counts(folder: Path, shards: Mapping[str, str], text: CardText) -> tuple[ValueCounts, ...]:
    """Count the values of the columns that the card tells about.

    Parameters
    ----------
    folder
        The dataset.
    shards
        Path of a shard -> its split; the shards of one config.
    text
        Names the columns: strings or classes; a missing value counts as ``"unknown"``.
    """
    found: dict[str, dict[str, Counter[str]]] = {column: {} for column in text.count_columns}
    for path, split in sorted(shards.items(), key=lambda shard: (SPLITS.index(shard[1]), shard[0])):
        there = set(pq.read_schema(folder / path).names)
        for column in (c for c in text.count_columns if c in there):
            table = pq.read_table(folder / path, columns=[column])
            names = _class_names(table.schema.metadata, column)
            values = table.column(column).to_pylist()
            named = ("unknown" if v is None else names[v] if names else str(v) for v in values)
            found[column].setdefault(split, Counter()).update(named)
    return tuple(_most_frequent(column, splits) for column, splits in found.items() if splits)


def _class_names(metadata: Mapping[bytes, bytes], column: str) -> list[str]:
    feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
    return list(feature.get("names", ()))


def _most_frequent(column: str, splits: Mapping[str, Counter[str]]) -> ValueCounts:
    total = sum(splits.values(), Counter[str]())
    order = sorted(total, key=lambda value: (-total[value], value))
    values = tuple((v, {split: count[v] for split, count in splits.items()}) for v in order[:NAMED])
    return ValueCounts(column=column, values=values, others=sum(total[v] for v in order[NAMED:]))
