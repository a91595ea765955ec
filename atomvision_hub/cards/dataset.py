"""Dataset cards: facts in, README.md out; a missing fact is an error, never a blank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.exceptions import UndefinedError
from pydantic import BaseModel, ConfigDict, Field

from atomvision_hub.errors import AtomVisionError

_TEMPLATES = Path(__file__).with_name("templates")
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFacts(_Facts):
    """Provenance of one source; all of it is required.

    `version` is what pins the source: a release, or the checksum of its file.
    """

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    url: str
    version: str = Field(min_length=1)


class CardText(_Facts):
    """What the card says about every dataset of one kind.

    `licence` (a Hub identifier) covers what the builder makes; `licence_note` says whose the inputs are.
    `label_columns` share `classes`; `compare` are pairs of them whose disagreement is reported.
    `count_columns` are columns of strings or classes whose values are counted.
    """

    title: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    licence_note: str = Field(min_length=1)
    template: str = Field(min_length=1)
    tags: tuple[str, ...]
    task_categories: tuple[str, ...]
    bibtex: tuple[str, ...] = Field(min_length=1)
    label_columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    compare: tuple[tuple[str, str], ...] = ()
    count_columns: tuple[str, ...] = ()


class LabelCounts(_Facts):
    """Split -> class -> rows, of one label column."""

    column: str
    splits: dict[str, dict[str, int]]


class ValueCounts(_Facts):
    """Value -> split -> rows of one column, the most frequent values first; `others` are not named."""

    column: str
    values: tuple[tuple[str, dict[str, int]], ...]
    others: int = 0


class LabelComparison(_Facts):
    """How two label columns agree: matrix[first][second], rows that differ, rows a guess gets right."""

    first: str
    second: str
    rows: int
    differ: int
    guessed: int
    matrix: tuple[tuple[int, ...], ...]


class LabelFacts(_Facts):
    """Label statistics."""

    counts: tuple[LabelCounts, ...] = ()
    comparisons: tuple[LabelComparison, ...] = ()


class ConfigFacts(_Facts):
    """One config: columns are (name, type, unit, description)."""

    description: str = Field(min_length=1)
    parameters: dict[str, Any]
    splits: dict[str, int] = Field(min_length=1)
    bytes: int
    columns: tuple[tuple[str, str, str, str], ...] = Field(min_length=1)


class DatasetFacts(_Facts):
    """Everything a dataset card is made of."""

    name: str
    text: CardText
    configs: dict[str, ConfigFacts] = Field(min_length=1)
    sources: tuple[SourceFacts, ...] = Field(min_length=1)
    rejected: dict[str, int]
    inputs: int
    split: dict[str, Any]
    seed: int
    limit: int | None
    tiny: bool
    warnings: tuple[str, ...]
    environment: dict[str, str]
    schema_version: int
    labels: LabelFacts
    counts: tuple[ValueCounts, ...] = ()
    picture: str | None


def render_dataset_card(facts: DatasetFacts, header: str) -> str:
    """Return the card.

    Parameters
    ----------
    facts
        What to tell.
    header
        YAML block, see `dataset_header`.

    Raises
    ------
    AtomVisionError
        When the template asks for a fact that is not there.
    """
    # Markdown for the Hub, which sanitises it; HTML escaping would spoil formulas.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda part, whole: f"{100 * part / whole:.1f} %" if whole else "–"
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:,.1f} MB"
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    try:
        body = environment.get_template(facts.text.template).render(facts=facts, **dict(facts))
    except UndefinedError as problem:
        raise AtomVisionError(f"the card of {facts.name} lacks a fact: {problem}") from None
    return f"---\n{header.strip()}\n---\n\n{body.strip()}\n"


def dataset_header(
    facts: DatasetFacts, infos: Mapping[str, tuple[Any, Mapping[str, tuple[int, int, int]]]]
) -> str:
    """Return the YAML block of a card, as the Hub and `datasets` read it.

    Parameters
    ----------
    facts
        Of the card.
    infos
        Config -> (features, {split: (rows, bytes in memory, bytes on disk)}).
    """
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    names = sorted(facts.configs, key=lambda name: (name != "default", name))
    rows = max(sum(config.splits.values()) for config in facts.configs.values())
    size = next((label for limit, label in _SIZES if rows < limit), "1M<n<10M")
    data = DatasetCardData(
        license=facts.text.licence,
        pretty_name=facts.text.title,
        tags=list(facts.text.tags),
        task_categories=list(facts.text.task_categories),
        size_categories=[size],
    )
    described = {}
    for name in names:
        features, splits = infos[name]
        table = SplitDict()
        for split, (count, in_memory, _) in splits.items():
            table.add(SplitInfo(split, num_bytes=in_memory, num_examples=count))
        described[name] = DatasetInfo(
            config_name=name,
            features=features,
            splits=table,
            download_size=sum(on_disk for _, _, on_disk in splits.values()),
            dataset_size=sum(in_memory for _, in_memory, _ in splits.values()),
        )
    DatasetInfosDict(described).to_dataset_card_data(data)
    MetadataConfigs(
        {
            name: {"data_files": [{"split": s, "path": f"data/{name}/{s}-*"} for s in infos[name][1]]}
            for name in names
        }
    ).to_dataset_card_data(data)
    return str(data.to_yaml())
