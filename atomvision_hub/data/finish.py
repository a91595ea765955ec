"""The last step of a build: rejected inputs, picture, card and, at the very end, the manifest."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomvision_hub._files import atomic_path, sha256_file, write_bytes, write_json, write_text
from atomvision_hub.cards.dataset import ConfigFacts, DatasetFacts, dataset_header, render_dataset_card
from atomvision_hub.data.features import column_table, features_of
from atomvision_hub.data.interface import BuilderConfig, DatasetBuilder, Inputs, Rejection, ShardTask
from atomvision_hub.data.plan import Plan
from atomvision_hub.data.shards import ShardResult
from atomvision_hub.data.splits import SPLITS
from atomvision_hub.data.statistics import label_statistics, value_counts
from atomvision_hub.data.workspace import CARD, MANIFEST, REJECTED, Workspace
from atomvision_hub.errors import AtomVisionError

#: Where the example picture lies.
SAMPLES = "assets/samples.png"

_REJECTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "source", "step", "reason")])


def finish(
    builder: DatasetBuilder,
    inputs: Inputs,
    plan: Plan,
    workspace: Workspace,
    results: Mapping[ShardTask, ShardResult],
    configs: Mapping[str, BuilderConfig],
) -> dict[str, Any]:
    """Write everything of a dataset but its shards; return the manifest.

    Raises
    ------
    AtomVisionError
        When a config has no rows.
    """
    folder = workspace.folder
    before: dict[str, Any] = workspace.manifest or {"configs": {}, "files": {}}
    rejections = {*plan.rejections, *read_rejections(folder)}
    rejections.update(rejection for result in results.values() for rejection in result.rejections)
    write_rejections(folder, rejections)
    rejected = dict(sorted(Counter(rejection.step for rejection in rejections).items()))

    entries = dict(before["configs"])
    files = {path: facts for path, facts in before["files"].items() if path.startswith("data/")}
    for name, config in configs.items():
        shards = [result for task, result in results.items() if task.config == name]
        if not any(shard.rows for shard in shards):
            steps = ", ".join(f"{step} {count:,}" for step, count in rejected.items())
            raise AtomVisionError(
                f"config {name!r} has no rows, all inputs were rejected ({steps}): see {folder / REJECTED}"
            )
        splits = _splits({task.path: task.split for task in results if task.config == name}, shards)
        entries[name] = {"parameters": config.model_dump(mode="json"), "splits": splits}
        for shard in shards:
            if Path(shard.path).name.split("-")[0] in splits:
                files[shard.path] = {"sha256": shard.sha256, "bytes": shard.bytes, "rows": shard.rows}
            else:
                (folder / shard.path).unlink(missing_ok=True)  # a split of rejected inputs only

    manifest = {
        **workspace.identity,
        "configs": entries,
        "rejected": rejected,
        "warnings": list(plan.warnings),
    }
    manifest["environment"] = dict(workspace.identity["environment"])
    _write_samples(builder, manifest, files, folder)
    write_text(folder / CARD, card_of(builder, manifest, files, folder))
    for path in (CARD, REJECTED, SAMPLES):
        if (folder / path).is_file():
            files[path] = {"sha256": sha256_file(folder / path), "bytes": (folder / path).stat().st_size}
    manifest["files"] = files
    write_json(folder / MANIFEST, manifest)
    return manifest


def _splits(split_of_path: Mapping[str, str], shards: Iterable[ShardResult]) -> dict[str, Any]:
    rows: defaultdict[str, int] = defaultdict(int)
    size: defaultdict[str, int] = defaultdict(int)
    for shard in shards:
        rows[split_of_path[shard.path]] += shard.rows
        size[split_of_path[shard.path]] += shard.bytes
    return {split: {"rows": rows[split], "bytes": size[split]} for split in SPLITS if rows[split]}


def write_rejections(folder: Path, rejections: Iterable[Rejection]) -> None:
    """Write ``rejected.parquet``, sorted; it is there even when nothing was rejected."""
    rows = [{"id": r.id, "source": r.source, "step": r.step, "reason": r.reason} for r in sorted(rejections)]
    with atomic_path(folder / REJECTED) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_REJECTED_SCHEMA), temporary, compression="zstd")


def read_rejections(folder: Path) -> list[Rejection]:
    """Return what an earlier build of the folder rejected."""
    path = folder / REJECTED
    return [Rejection(**row) for row in pq.read_table(path).to_pylist()] if path.is_file() else []


def card_of(
    builder: DatasetBuilder, manifest: Mapping[str, Any], files: Mapping[str, Any], folder: Path
) -> str:
    """Return the card of a dataset, from its manifest and its Parquet files."""
    configs, infos = {}, {}
    for name, entry in manifest["configs"].items():
        record = builder.record(builder.config_model.model_validate(entry["parameters"]))
        configs[name] = ConfigFacts(
            description=entry["parameters"]["description"],
            parameters={k: v for k, v in entry["parameters"].items() if k != "description"},
            splits={split: facts["rows"] for split, facts in in_order(entry["splits"])},
            bytes=sum(facts["bytes"] for facts in entry["splits"].values()),
            columns=tuple(
                (line.name, line.type, line.unit, line.description) for line in column_table(record)
            ),
        )
        infos[name] = (features_of(record), _split_sizes(name, entry["splits"], files, folder))
    first = first_config(manifest["configs"])
    shards = {path: path.split("/")[2].split("-")[0] for path in files if path.startswith(f"data/{first}/")}
    facts = DatasetFacts(
        name=builder.name,
        text=builder.card,
        configs=configs,
        sources=manifest["sources"],
        rejected=manifest["rejected"],
        inputs=manifest["inputs"]["count"],
        split=manifest["split"],
        seed=manifest["seed"],
        limit=manifest["limit"],
        tiny=manifest["tiny"],
        warnings=manifest["warnings"],
        environment=manifest["environment"],
        schema_version=manifest["schema_version"],
        labels=label_statistics(folder, shards, builder.card),
        counts=value_counts(folder, shards, builder.card),
        picture=SAMPLES if (folder / SAMPLES).is_file() else None,
    )
    return render_dataset_card(facts, dataset_header(facts, infos))


def in_order(splits: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the splits that are there, in the order of `SPLITS` (JSON gives them back sorted by name)."""
    yield from ((split, splits[split]) for split in SPLITS if split in splits)


def first_config(configs: Iterable[str]) -> str:
    """Return the config that speaks for the dataset: the default one where there is one."""
    return min(configs, key=lambda name: (name != "default", name))


def _split_sizes(
    config: str, splits: Mapping[str, Any], files: Mapping[str, Any], folder: Path
) -> dict[str, tuple[int, int, int]]:
    """Return split -> (rows, bytes in memory, bytes on disk)."""
    sizes = {}
    for split, facts in in_order(splits):
        paths = [folder / path for path in files if path.startswith(f"data/{config}/{split}-")]
        in_memory = 0
        for path in paths:
            metadata = pq.read_metadata(path)
            in_memory += sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        sizes[split] = (facts["rows"], in_memory, facts["bytes"])
    return sizes


def _write_samples(
    builder: DatasetBuilder, manifest: Mapping[str, Any], files: Mapping[str, Any], folder: Path
) -> None:
    from atomvision_hub.data.samples import SAMPLES as ENOUGH
    from atomvision_hub.data.samples import draw_samples, pick_rows

    name = first_config(manifest["configs"])
    config = builder.config_model.model_validate(manifest["configs"][name]["parameters"])
    record = builder.record(config)
    if "image" not in record.model_fields:
        shutil.rmtree(folder / Path(SAMPLES).parent, ignore_errors=True)
        return
    splits = dict(in_order(manifest["configs"][name]["splits"]))
    label = builder.card.label_columns[0] if builder.card.label_columns else None
    rows: list[dict[str, Any]] = []
    for path in (p for s in splits for p in sorted(files) if p.startswith(f"data/{name}/{s}-")):
        # A small shard holds one material or so: of several, the picture says more.
        most = ENOUGH if files[path]["rows"] > ENOUGH else 2
        rows += pick_rows(folder / path, label, min(most, ENOUGH - len(rows)))
        if len(rows) == ENOUGH:
            break
    if not rows:  # links only
        shutil.rmtree(folder / Path(SAMPLES).parent, ignore_errors=True)
        return
    write_bytes(folder / SAMPLES, draw_samples(rows, builder.caption))
