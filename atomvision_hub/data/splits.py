"""Which split a row belongs to: by the hash of its group, or as a file says."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomvision_hub.errors import UsageError

#: Names of the splits, in the order of the card.
SPLITS: tuple[str, ...] = ("train", "validation", "test")
#: Share of the groups in each split.
FRACTIONS: tuple[float, ...] = (0.65, 0.10, 0.25)

_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def split_of(group: str, fractions: tuple[float, ...] = FRACTIONS, seed: int = 0) -> str:
    """Return the split of a group (formula, article, specimen).

    The group is hashed, not shuffled: it stays in its split when materials are added or left out, in every
    dataset and for every seed of the images, so that rows of two builds may be joined without a leak.

    Parameters
    ----------
    group
        What must not be torn apart, for crystals the reduced formula.
    fractions
        Shares of `SPLITS`; they add up to 1.
    seed
        Another seed gives another, independent split.
    """
    digest = hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    edge = 0.0
    for name, fraction in zip(SPLITS, fractions, strict=True):
        edge += fraction
        if position < edge:
            return name
    return SPLITS[-1]


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A split given from outside.

    Parameters
    ----------
    splits
        Row or material id -> split name.
    sha256
        Checksum of the file's bytes.
    """

    splits: Mapping[str, str]
    sha256: str


def read_split_file(path: Path) -> SplitFile:
    """Read a split from JSON.

    Two forms are understood: ``{"train": {id: label}, "test": {id: label}}`` (also lists of ids), as
    jarvis_leaderboard publishes them, and ``{id: split}``. Ids may carry the suffix of an image file.

    Raises
    ------
    UsageError
        When the file is absent, is not JSON, has another form or puts one id into two splits.
    """
    try:
        content = path.read_bytes()
        data = json.loads(content)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such split file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise UsageError(f"{path} is not a JSON split file: {problem}") from None
    splits: dict[str, str] = {}
    for raw, name in _pairs(path, data):
        split = _ALIASES.get(name, name)
        if split not in SPLITS:
            raise UsageError(f"{path}: split {name!r} is unknown; use one of {', '.join(SPLITS)}")
        identifier = _without_suffix(raw)
        if splits.setdefault(identifier, split) != split:
            raise UsageError(f"{path}: {identifier} is in {splits[identifier]} and in {split}")
    if not splits:
        raise UsageError(f"{path} names no ids")
    return SplitFile(splits, hashlib.sha256(content).hexdigest())


def _pairs(path: Path, data: Any) -> list[tuple[str, str]]:
    if isinstance(data, dict) and all(isinstance(value, (dict, list)) for value in data.values()):
        return [(str(identifier), name) for name, members in data.items() for identifier in members]
    if isinstance(data, dict) and all(isinstance(value, str) for value in data.values()):
        return list(data.items())
    raise UsageError(
        f'{path} has neither form of a split file: {{"train": {{id: label}}, ...}} or {{id: split}}'
    )


def _without_suffix(identifier: str) -> str:
    for suffix in _IMAGE_SUFFIXES:
        if identifier.lower().endswith(suffix):
            return identifier[: -len(suffix)]
    return identifier


def crossing_groups(rows: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the groups that occur in more than one split, sorted.

    Parameters
    ----------
    rows
        Row id -> (group, split).
    """
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for group, split in rows.values():
        seen[group].add(split)
    return sorted(group for group, splits in seen.items() if len(splits) > 1)
