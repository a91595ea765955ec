"""arxiv_figures: figures of microscopy articles on arXiv, with captions, rights and what they show.

    atomvision build arxiv_figures --source 'query:abs:"HAADF-STEM"' --limit 100 --out build/arxiv_figures
    python dataset_builders/arxiv_figures.py --source ids:my_articles.txt --out build/arxiv_figures

One article is one input; its figures are rows. `atomvision_hub.literature` finds and judges them, the engine
(`atomvision_hub.data.build`) does shards, splits, card and manifest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from ase.data import atomic_numbers
from ase.formula import Formula
from PIL import Image
from pydantic import Field

from atomvision_hub.cards.citations import ATOMVISION
from atomvision_hub.data import build as engine
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.images import STATUSES
from atomvision_hub.literature.licence import parse_licence
from atomvision_hub.literature.modality import MODALITIES
from atomvision_hub.literature.record import FigureRow
from atomvision_hub.literature.rows import figure_rows
from atomvision_hub.literature.sources import Articles, open_sources
from atomvision_hub.records import Record
from atomvision_hub.structures.formula import reduced_formula


class FiguresConfig(engine.BuilderConfig):
    """A YAML config: which figures, and how closely they are looked at."""

    relevant_only: bool = Field(True, description="Leave out what is no STM, STEM or TEM micrograph")
    look_at_links: bool = Field(True, description="Also look at images that may not be passed on")
    scale_bars: bool = Field(False, description="Read scale bars (extra [ocr])")
    items_per_shard: int = Field(64, ge=1, description="Articles per Parquet file")


class ArticleInputs(engine.Inputs):
    """The articles of a build.

    Parameters
    ----------
    found
        From `open_sources`.
    fetcher
        Gets their pages and images.
    """

    def __init__(self, found: Articles, fetcher: Fetcher) -> None:
        self.found = found
        self.fetcher = fetcher

    def items(self) -> Iterator[engine.Item | engine.Rejection]:
        """Return all articles; the group is the article without its version."""
        for item, source, reason in self.found.refused:
            yield engine.Rejection(item, source, "search", reason)
        for item, article in self.found.articles.items():
            yield engine.Item(item, article.arxiv_id, self.found.origins[item])

    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return older version -> newest version of an article."""
        older, wanted = self.found.older(), set(ids)
        return {item: kept for item, kept in older.items() if item in wanted and kept in wanted}

    def source_of(self, identifier: str) -> str:
        """Return the name of the source of an article."""
        return self.found.origins[identifier]

    def sources(self) -> list[engine.SourceFacts]:
        """Return the provenance of all sources."""
        return [
            engine.SourceFacts(
                name=info.name,
                description=info.description,
                citation=info.citation,
                licence="figure by figure, see the column `licence`",
                url="https://arxiv.org",
                version=info.version,
            )
            for info in self.found.infos
        ]


class ArxivFigures(engine.DatasetBuilder):
    """The dataset."""

    name = "arxiv_figures"
    script = Path(__file__)
    config_model = FiguresConfig
    group_column = "arxiv_id"
    group_name = "article"
    libraries = ("beautifulsoup4", "lxml")
    card: ClassVar[engine.CardText] = engine.CardText(
        title="AtomVision arxiv_figures: microscopy figures from arXiv",
        licence="other",
        licence_note="Each row carries the licence of its article (`licence`, `licence_url`, `conditions`), "
        "and an image only where that allows copies; all others are links. Labels, panels and the rest that "
        "was added here: CC BY 4.0. Metadata of arXiv: CC0.",
        template="dataset_arxiv_figures.md.j2",
        tags=("materials-science", "electron-microscopy", "stm", "stem", "tem", "arxiv", "figures"),
        task_categories=("image-classification", "image-to-text"),
        bibtex=(ATOMVISION,),
        label_columns=("modality",),
        classes=MODALITIES,
        count_columns=("licence", "rights", "image_status", "origin"),
    )

    def record(self, config: FiguresConfig) -> type[Record]:
        """Return the record of the config's rows."""
        return FigureRow

    def open(self, options: engine.BuildOptions) -> ArticleInputs:
        """Find the articles."""
        fetcher = Fetcher(options.cache("arxiv"))
        limit = options.limit or (100 if options.tiny else None)
        return ArticleInputs(
            open_sources(options.sources, fetcher, store_dir=options.store_dir, limit=limit), fetcher
        )

    def rows(self, inputs: ArticleInputs, identifier: str, config: FiguresConfig, seed: int) -> list[Record]:
        """Return the figures of one article."""
        rows = figure_rows(
            inputs.fetcher,
            inputs.found.articles[identifier],
            relevant_only=config.relevant_only,
            look_at_links=config.look_at_links,
            scale_bars=config.scale_bars,
        )
        return [row.model_copy(update={"formulas": list(map(spelled, row.formulas))}) for row in rows]

    def caption(self, row: Mapping[str, Any]) -> str:
        """Return article, figure, modality and licence."""
        return (
            f"{row['arxiv_id']} {row['label']}{row['part']}  {MODALITIES[row['modality']]}  {row['licence']}"
        )

    def check(self, table: pa.Table, config: FiguresConfig) -> Iterator[str]:
        """Yield the rows whose image does not fit their rights, their checksum or their panels."""
        for row in table.to_pylist():
            yield from (f"row {row['id']}: {problem}" for problem in _problems(row))


def spelled(formula: str) -> str:
    """Return a formula as the datasets of crystals spell it, so that they can be joined."""
    counts = Formula(formula).count()
    return reduced_formula(atomic_numbers[symbol] for symbol, count in counts.items() for _ in range(count))


def _problems(row: Mapping[str, Any]) -> Iterator[str]:
    image = (row["image"] or {}).get("bytes")
    allowed = parse_licence(row["licence_url"] or row["licence"]).allows_copies
    if row["rights"] == "bytes" and not allowed:
        yield f"its licence {row['licence']} does not allow copies"
    if (image is not None) != (STATUSES[row["image_status"]] == "included"):
        yield "image and image_status contradict each other"
    if image is not None:
        if row["rights"] != "bytes":
            yield "it holds an image that may not be passed on"
        if hashlib.sha256(image).hexdigest() != row["sha256"]:
            yield "the image differs from its checksum"
        if Image.open(io.BytesIO(image)).size != (row["width"], row["height"]):
            yield "the image has another size"
    panels = row["panels"]
    if len({len(column) for column in panels.values()}) > 1:
        yield "the columns of its panels differ in length"
    for left, top, right, bottom in zip(
        *(panels[s] for s in ("left", "top", "right", "bottom")), strict=False
    ):
        if not (0 <= left < right <= row["width"] and 0 <= top < bottom <= row["height"]):
            yield "a panel lies outside the image"


BUILDER = ArxivFigures()


def build(options: engine.BuildOptions) -> engine.BuildReport:
    """Build the dataset."""
    return engine.run_build(BUILDER, options)


if __name__ == "__main__":
    from atomvision_hub.cli import run_builder_script

    run_builder_script(__file__)
