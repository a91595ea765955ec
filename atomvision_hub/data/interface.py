"""What the build engine and a dataset builder agree on."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from atomvision_hub.cards.dataset import CardText, SourceFacts
from atomvision_hub.records import Record


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """One call of ``atomvision build``.

    Parameters
    ----------
    dataset
        Name of the builder.
    sources
        Where the inputs come from; several are joined.
    out
        Folder of the dataset.
    configs
        Names of configs in ``dataset_builders/configs/<dataset>/``, or YAML files.
    limit
        Use only the first inputs.
    num_proc
        Worker processes; the bytes do not depend on it.
    seed
        Seed of everything random in the rows; the split does not depend on it.
    tiny
        A dozen inputs and small images.
    resume
        Go on with an interrupted build; else start afresh.
    store_dir
        Folder with downloaded files, handed to the sources.
    split_file
        JSON file with a split, instead of the hash of the group.
    cache_dir
        Where downloads and what was computed at length are kept; the rows do not depend on it.
    dask
        Address of a dask scheduler (``tcp://host:port``) or YAML file of a dask-jobqueue cluster that makes
        the shards, instead of processes of this machine.
    """

    dataset: str
    sources: Sequence[str]
    out: Path
    configs: Sequence[str] = ("default",)
    limit: int | None = None
    num_proc: int = 1
    seed: int = 0
    tiny: bool = False
    resume: bool = True
    store_dir: Path | None = None
    split_file: Path | None = None
    cache_dir: Path | None = None
    dask: str | None = None

    def cache(self, name: str) -> Path:
        """Return a folder of the cache, made if need be (in `cache_dir`, ATOMVISION_CACHE or ~/.cache)."""
        base = self.cache_dir or os.environ.get("ATOMVISION_CACHE") or "~/.cache/atomvision"
        folder = Path(base).expanduser() / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build made.

    Parameters
    ----------
    folder
        The dataset.
    rows
        Config -> split -> number of rows, for all configs of the folder.
    rejected
        Step -> number of rejected inputs.
    seconds
        Wall time.
    shards_written, shards_kept
        Shards made now, and shards found finished.
    warnings
        One line each: what the user should know about this build.
    """

    folder: Path
    rows: dict[str, dict[str, int]]
    rejected: dict[str, int]
    seconds: float
    shards_written: int = 0
    shards_kept: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One input of a dataset, before it is opened: identifier, group that no split tears apart, source."""

    id: str
    group: str
    source: str


@dataclass(frozen=True, slots=True, order=True)
class Rejection:
    """One input that became no row, as in ``rejected.parquet``."""

    id: str
    source: str
    step: str
    reason: str


class BuilderConfig(BaseModel):
    """Base of the YAML configs of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(min_length=1, description="One sentence for the card")
    items_per_shard: int = Field(512, ge=1, description="Inputs per Parquet file")

    def tiny(self) -> Self:
        """Return the small twin of this config."""
        return self


class Inputs(ABC):
    """The opened inputs of a build; opened again, with equal results, in every worker."""

    @abstractmethod
    def items(self) -> Iterable[Item | Rejection]:
        """Return all inputs in a stable order, cheaply; those that cannot be told apart are rejected here."""

    @abstractmethod
    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return duplicate id -> id that is kept."""

    @abstractmethod
    def source_of(self, identifier: str) -> str:
        """Return the name of the source of an input."""

    @abstractmethod
    def sources(self) -> list[SourceFacts]:
        """Return the provenance of all sources."""


class DatasetBuilder(ABC):
    """A dataset: what its rows are and how one input becomes rows. The engine does everything else."""

    #: Name of the dataset and of its Hub repository.
    name: ClassVar[str]
    #: The script itself (``Path(__file__)``), which every worker loads again; configs lie beside it.
    script: ClassVar[Path]
    #: Model of the YAML configs.
    config_model: ClassVar[type[BuilderConfig]]
    #: Column that no split tears apart.
    group_column: ClassVar[str | None] = None
    #: What a group is, for the card.
    group_name: ClassVar[str] = "group"
    #: Distributions that the rows depend on beside those of every dataset, see `workspace.environment`.
    libraries: ClassVar[tuple[str, ...]] = ()
    #: What the card says about every dataset of this kind.
    card: ClassVar[CardText]

    @abstractmethod
    def record(self, config: Any) -> type[Record]:
        """Return the record of the config's rows."""

    @abstractmethod
    def open(self, options: BuildOptions) -> Inputs:
        """Open the inputs; called once in the parent and once in each worker."""

    @abstractmethod
    def rows(self, inputs: Any, identifier: str, config: Any, seed: int) -> Sequence[Record]:
        """Return the rows of one input.

        Raises
        ------
        AtomVisionError
            With an attribute `step` (such as `CrystalError`) when the input is to be rejected.
        """

    def caption(self, row: Mapping[str, Any]) -> str:
        """Return one short line under which a row is shown in the example picture."""
        return str(row.get("id", ""))

    def check(self, table: pa.Table, config: Any) -> Iterator[str]:
        """Yield what is wrong with rows beyond their schema, for ``atomvision validate``."""
        yield from ()


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One Parquet file to make: independent of all others and of the number of workers."""

    config: str
    split: str
    index: int
    total: int
    ids: tuple[str, ...] = field(repr=False)

    @property
    def path(self) -> str:
        """Path of the file in the dataset folder."""
        return f"data/{self.config}/{self.split}-{self.index:05d}-of-{self.total:05d}.parquet"

    @property
    def name(self) -> str:
        """Name of the shard's state file."""
        return f"{self.config}-{self.split}-{self.index:05d}"
