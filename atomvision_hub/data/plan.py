"""What a build will do, decided before it starts and independent of workers and interruptions."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atomvision_hub.data.interface import BuilderConfig, BuildOptions, Inputs, Item, Rejection, ShardTask
from atomvision_hub.data.splits import SPLITS, SplitFile, crossing_groups, read_split_file, split_of
from atomvision_hub.errors import UsageError

#: Inputs per split of a ``--tiny`` build.
TINY = {"train": 6, "validation": 2, "test": 4}

_ID = re.compile(r"[A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Plan:
    """The inputs of a build, split and freed of duplicates.

    Parameters
    ----------
    members
        Split -> items, in the order of the source.
    rejections
        Inputs that are refused before they are opened.
    split_facts
        How the split was made, for the manifest.
    warnings
        One line each.
    """

    members: Mapping[str, tuple[Item, ...]]
    rejections: tuple[Rejection, ...]
    split_facts: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of inputs, rejected ones included."""
        return sum(len(items) for items in self.members.values()) + len(self.rejections)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of inputs, groups and splits: two builds with the same one make the same rows."""
        digest = hashlib.sha256()
        for split, items in self.members.items():
            for item in items:
                digest.update(f"{split}\t{item.id}\t{item.group}\t{item.source}\n".encode())
        return digest.hexdigest()

    def tasks(self, name: str, config: BuilderConfig) -> list[ShardTask]:
        """Return the shards of a config: fixed numbers of inputs, split by split."""
        tasks = []
        size = config.items_per_shard
        for split, items in self.members.items():
            total = -(-len(items) // size)
            for index in range(total):
                ids = tuple(item.id for item in items[index * size : (index + 1) * size])
                tasks.append(ShardTask(name, split, index, total, ids))
        return tasks


def make_plan(inputs: Inputs, options: BuildOptions, group: str = "group") -> Plan:
    """Assign every input to a split and find the duplicates; `group` says what no split tears apart.

    Raises
    ------
    UsageError
        When there are no inputs, or two carry the same identifier.
    """
    split_file = read_split_file(options.split_file) if options.split_file else None
    items: dict[str, Item] = {}
    rejections: list[Rejection] = []
    for entry in inputs.items():
        if isinstance(entry, Rejection):
            rejections.append(entry)
            continue
        if entry.id in items or not _ID.fullmatch(entry.id):
            what = "occurs twice" if entry.id in items else "has characters other than A-Z a-z 0-9 . _ + -"
            raise UsageError(f"identifier {entry.id!r} of {entry.source} {what}; rename it at its source")
        items[entry.id] = entry
    if not items and not rejections:
        raise UsageError(f"{', '.join(options.sources)}: nothing to build from; give another --source")

    splits = {item.id: _split(item, split_file) for item in items.values()}
    if options.tiny:
        items = {item.id: item for item in _tiny(items, splits)}
        rejections = rejections[: sum(TINY.values())]
    for duplicate, kept in inputs.duplicates(tuple(items)).items():
        item = items.pop(duplicate)
        rejections.append(Rejection(item.id, item.source, "duplicate", f"the same as {kept}, which is kept"))

    members: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items.values():
        split = splits[item.id]
        if split is None:
            reason = f"not named in the split file {options.split_file.name if options.split_file else ''}"
            rejections.append(Rejection(item.id, item.source, "split", reason))
        else:
            members[split].append(item)
    facts, warnings = _split_facts(split_file, items, splits, group)
    return Plan(
        {split: tuple(members[split]) for split in SPLITS if members[split]},
        tuple(sorted(rejections)),
        facts,
        tuple(warnings),
    )


def _split(item: Item, split_file: SplitFile | None) -> str | None:
    return split_file.splits.get(item.id) if split_file else split_of(item.group)


def _tiny(items: Mapping[str, Item], splits: Mapping[str, str | None]) -> list[Item]:
    # In the order of a hash: sources are sorted, and their first dozen may all be of one kind.
    wanted = dict(TINY)
    chosen = []
    for item in sorted(items.values(), key=lambda item: hashlib.blake2b(item.id.encode()).digest()):
        split = splits[item.id]
        if split is not None and wanted[split]:
            wanted[split] -= 1
            chosen.append(item)
    return chosen


def _split_facts(
    split_file: SplitFile | None, items: Mapping[str, Item], splits: Mapping[str, str | None], group: str
) -> tuple[dict[str, Any], list[str]]:
    if split_file is None:
        return {"by": "hash of the group", "group": group}, []
    unknown = len(split_file.splits.keys() - splits.keys())
    crossing = crossing_groups(
        {item.id: (item.group, split) for item in items.values() if (split := splits[item.id]) is not None}
    )
    warnings = []
    if unknown:
        warnings.append(
            f"{unknown:,} of {len(split_file.splits):,} ids of the split file are not in the source"
        )
    if crossing:
        example = ", ".join(crossing[:3])
        warnings.append(
            f"{len(crossing):,} compositions cross the splits of the split file (such as {example})"
        )
    facts = {
        "by": "file",
        "sha256": split_file.sha256,
        "unknown_ids": unknown,
        "crossing_groups": crossing,
    }
    return facts, warnings
