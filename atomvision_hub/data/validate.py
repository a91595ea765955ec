"""Checking a dataset folder against its manifest, its card and itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from atomvision_hub._files import sha256_file
from atomvision_hub.data.builders import load_builder
from atomvision_hub.data.features import arrow_schema, features_of, fields_of, table_problems
from atomvision_hub.data.finish import read_rejections
from atomvision_hub.data.interface import DatasetBuilder
from atomvision_hub.data.load import read_manifest
from atomvision_hub.data.progress import Steps
from atomvision_hub.data.workspace import CARD, MANIFEST, REJECTED, STATE
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.records import Column, Record

_MEND = "run the same build again or download the file again"


def validate_folder(folder: Path | str, builder: DatasetBuilder | None = None) -> list[str]:
    """Return the problems of a dataset folder, one line each; none when it is valid.

    Checked are: files and checksums, schema and values of every shard, that every image decodes, that masks
    fit their atoms, that identifiers are unique and groups do not cross splits, that the card tells of the
    very features, configs and rows that are there, and that the rejected inputs are those counted.

    Parameters
    ----------
    folder
        The dataset.
    builder
        What made it; by default found by the name in the manifest.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
        builder = builder or load_builder(manifest["dataset"]).BUILDER
    except AtomVisionError as problem:
        return [str(problem)]
    return list(_Validation(folder, manifest, builder).problems())


class _Validation:
    def __init__(self, folder: Path, manifest: Mapping[str, Any], builder: DatasetBuilder) -> None:
        self.folder = folder
        self.manifest = manifest
        self.builder = builder
        self.damaged: set[str] = set()

    def problems(self) -> Iterator[str]:
        """Yield all problems."""
        yield from self._files()
        shards = [path for path in sorted(self.manifest["files"]) if path.startswith("data/")]
        with Steps("validate", len(shards), "files") as advance:
            for name, entry in sorted(self.manifest["configs"].items()):
                config = self.builder.config_model.model_validate(entry["parameters"])
                yield from self._config(
                    name, entry, config, [p for p in shards if p.split("/")[1] == name], advance
                )
        if CARD not in self.damaged:
            yield from self._card()
        if REJECTED not in self.damaged:
            yield from self._rejected()

    def _files(self) -> Iterator[str]:
        listed = self.manifest["files"]
        if (self.folder / STATE / "build.json").exists():
            yield f"an interrupted build lies in {self.folder / STATE}; the same build command goes on"
        for name in (CARD, REJECTED):
            if name not in listed:
                yield f"{name} is not in the manifest; {_MEND}"
                self.damaged.add(name)
        for name, facts in sorted(listed.items()):
            path = self.folder / name
            if not path.is_file():
                yield f"{name} is missing; {_MEND}"
            elif path.stat().st_size != facts["bytes"] or sha256_file(path) != facts["sha256"]:
                yield f"{name} is damaged or was changed, its checksum is not the manifest's; {_MEND}"
            else:
                continue
            self.damaged.add(name)
        there = (path.relative_to(self.folder) for path in sorted(self.folder.rglob("*")) if path.is_file())
        for path in there:
            hidden = any(part.startswith(".") for part in path.parts)
            if not hidden and path.as_posix() not in listed and path.name != MANIFEST:
                yield f"{path} does not belong to the dataset; remove it"

    def _config(
        self, name: str, entry: Mapping[str, Any], config: Any, shards: list[str], advance: Callable[[], None]
    ) -> Iterator[str]:
        record = self.builder.record(config)
        schema = arrow_schema(record)
        owners: dict[str, str] = {}
        splits_of_group: dict[str, str] = {}
        crossing: set[str] = set()
        rows = dict.fromkeys(entry["splits"], 0)
        for path in shards:
            advance()
            split = path.split("/")[2].split("-")[0]
            if path in self.damaged:
                continue
            with pq.ParquetFile(self.folder / path) as file:
                if not _same_schema(file.schema_arrow, schema):
                    yield f"{path} has not the schema of {record.__name__}; build it again with this version"
                    continue
                rows[split] = rows.get(split, 0) + file.metadata.num_rows
                if file.metadata.num_rows != self.manifest["files"][path].get("rows"):
                    yield f"{path} has {file.metadata.num_rows} rows, the manifest says otherwise; {_MEND}"
                for index in range(file.num_row_groups):
                    table = file.read_row_group(index)
                    yield from (f"{path}: {problem}" for problem in self._rows(table, record, config))
                    for identifier in table.column("id").to_pylist():
                        if owners.setdefault(identifier, path) != path:
                            yield f"{path}: row {identifier} is also in {owners[identifier]}"
                    for group in self._groups(table):
                        if splits_of_group.setdefault(group, split) != split:
                            crossing.add(group)
        if crossing and self.manifest["split"]["by"] != "file":
            yield f"config {name}: {len(crossing)} group(s) cross splits, such as {min(crossing)}"
        wanted = {split: facts["rows"] for split, facts in entry["splits"].items()}
        if rows != wanted and not self.damaged:
            yield f"config {name} has {rows} rows, the manifest says {wanted}; {_MEND}"

    def _groups(self, table: pa.Table) -> set[str]:
        column = self.builder.group_column
        return set(table.column(column).to_pylist()) if column else set()

    def _rows(self, table: pa.Table, record: type[Record], config: Any) -> Iterator[str]:
        broken = list(table_problems(record, table))
        ids = table.column("id").to_pylist()
        if len(set(ids)) != len(ids):
            broken.append("identifiers occur twice")
        for name, column in fields_of(record).items():
            if not isinstance(column, Column) or column.kind != "image":
                continue
            for identifier, value in zip(ids, table.column(name).to_pylist(), strict=True):
                if value is None:
                    continue  # whether that is allowed was asked before
                try:
                    Image.open(io.BytesIO(value["bytes"])).load()
                except (OSError, ValueError, SyntaxError, TypeError) as problem:
                    broken.append(f"row {identifier}: {name} does not decode ({problem})")
        # Checks of the builder lean on sound values.
        yield from broken or self.builder.check(table, config)

    def _card(self) -> Iterator[str]:
        from datasets.info import DatasetInfosDict
        from datasets.utils.metadata import MetadataConfigs
        from huggingface_hub import DatasetCard

        data = DatasetCard((self.folder / CARD).read_text(encoding="utf-8")).data
        infos = DatasetInfosDict.from_dataset_card_data(data)
        configs = MetadataConfigs.from_dataset_card_data(data)
        names = set(self.manifest["configs"])
        if set(infos) != names or set(configs) != names:
            yield f"{CARD} has configs {sorted(set(infos) | set(configs))}, not {sorted(names)}; {_MEND}"
            return
        for name, entry in sorted(self.manifest["configs"].items()):
            record = self.builder.record(self.builder.config_model.model_validate(entry["parameters"]))
            if infos[name].features != features_of(record):
                yield f"{CARD}: features of config {name} are not those of the Parquet files; {_MEND}"
            told = {split: info.num_examples for split, info in infos[name].splits.items()}
            wanted = {split: facts["rows"] for split, facts in entry["splits"].items()}
            if told != wanted:
                yield f"{CARD}: config {name} has rows {told}, the Parquet files {wanted}; {_MEND}"

    def _rejected(self) -> Iterator[str]:
        counts: dict[str, int] = {}
        for rejection in read_rejections(self.folder):
            counts[rejection.step] = counts.get(rejection.step, 0) + 1
        if counts != self.manifest["rejected"]:
            yield f"{REJECTED} counts {counts}, the manifest {self.manifest['rejected']}; {_MEND}"


def _same_schema(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Compare types and the features' metadata; Parquet adds field numbers of its own."""
    metadata = (found.metadata or {}).get(b"huggingface")
    return bool(found.equals(wanted)) and metadata == wanted.metadata[b"huggingface"]
