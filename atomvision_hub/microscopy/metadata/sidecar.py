"""Metadata that people write: YAML beside an image or for a whole folder.

``scan.dm4.yaml`` or ``scan.yaml`` beside ``scan.dm4`` speaks of that image, ``metadata.yaml`` of all images
in its folder. What a person wrote beside the image counts before what is written for the folder, and both
before the file; where they contradict the file, a note says so.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from atomvision_hub.errors import AtomVisionError
from atomvision_hub.microscopy.metadata.schema import FIELDS, SECTIONS, Facts, Metadata, choices, extra

#: Name of the YAML that speaks of all images in its folder.
FOLDER_FILE = "metadata.yaml"
#: A sidecar larger than this is none.
MAX_BYTES = 64 * 1024
_MAX_DEPTH = 12


@dataclass(frozen=True)
class Problem:
    """One thing to mend in a YAML file.

    Parameters
    ----------
    file
        The file.
    line
        Line in it, from 1; 0 where the whole file is meant.
    field
        Dotted field, empty where the whole file is meant.
    reason
        What is wrong and what to do.
    """

    file: Path
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        line = f"{place}: {self.field} {self.reason}" if self.field else f"{place}: {self.reason}"
        # Keys and values come from a file: no control characters to the terminal.
        return "".join(letter if letter.isprintable() else "?" for letter in line)


class MetadataError(AtomVisionError):
    """A sidecar file cannot be used; `problems` has everything that is wrong in it.

    Parameters
    ----------
    problems
        At least one.
    """

    step = "metadata"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        self.reason = "; ".join(str(problem) for problem in self.problems)
        super().__init__(self.reason)


def find_sidecars(path: Path | str) -> list[Path]:
    """Return the YAML files that speak of an image, from the general to the particular."""
    path = Path(path)
    names = dict.fromkeys((FOLDER_FILE, path.stem + ".yaml", path.name + ".yaml"))
    return [path.with_name(name) for name in names if name != path.name and path.with_name(name).is_file()]


def read_sidecar(path: Path | str) -> Facts:
    """Return what a YAML file says.

    Raises
    ------
    MetadataError
        Naming all problems of the file at once.
    """
    path = Path(path)
    text = _text(path)
    try:
        lines = _lines(path, text)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = str(getattr(error, "problem", None) or error).splitlines()[0]
        reason = f"is no valid YAML: {what}; write 'field: value' with spaces, no tabs"
        raise MetadataError([Problem(path, mark.line + 1 if mark else 0, "", reason)]) from None
    except ValueError as error:  # a date such as 2023-02-30
        raise MetadataError([Problem(path, 0, "", f"is no valid YAML: {error}; put it in quotes")]) from None
    if content is None:
        return Facts()
    if not isinstance(content, dict):
        raise MetadataError(
            [Problem(path, 1, "", f"has no sections; begin with one of {', '.join(SECTIONS)}")]
        )
    # A section of which everything was left out is None in YAML.
    content = {key: entry for key, entry in content.items() if entry is not None}
    problems = []
    if content.pop("provenance", None) is not None:
        reason = "is written by the reader; take the section out"
        problems.append(Problem(path, lines.get("provenance", 0), "provenance", reason))
    try:
        facts = Facts.model_validate(content)
    except ValidationError as error:
        problems += _explain(path, lines, error)
    if problems:
        raise MetadataError(sorted(problems, key=lambda problem: problem.line))
    return facts


def complete(metadata: Metadata, sidecars: Sequence[Path]) -> Metadata:
    """Return metadata with what people wrote beside the image.

    Parameters
    ----------
    metadata
        What the file told.
    sidecars
        YAML files from the general to the particular, as `find_sidecars` gives them; later ones count more.

    Raises
    ------
    MetadataError
        For a file that does not follow the schema.
    """
    values, sources, notes = metadata.values(), dict(metadata.sources), list(metadata.notes)
    for path in map(Path, sidecars):
        origin = f"{'folder' if path.name == FOLDER_FILE else 'sidecar'}: {path.name}"
        for field, value in read_sidecar(path).values().items():
            told = sources.get(field, "")
            if told.startswith(("file:", "reader")) and not _alike(values[field], value):
                notes.append(
                    f"{field}: {origin} says {value!r}, {told} says {values[field]!r}; used the former"
                )
            values[field], sources[field] = value, origin
    _derive_view(values, sources)
    return Metadata.of(values, sources, tuple(dict.fromkeys(notes)))


def _derive_view(values: dict[str, Any], sources: dict[str, str]) -> None:
    """Keep pixel size and field of view together: what was not told follows from the other."""
    shape = values.get("provenance.shape")
    if shape is None:
        return
    size, view = "acquisition.pixel_size", "acquisition.field_of_view"
    if size in values and (view not in values or sources[view].startswith("derived")):
        values[view] = tuple(length * step for length, step in zip(shape, values[size], strict=True))
        sources[view] = "derived: pixel size times rows and columns"
    elif view in values and size not in values:
        values[size] = tuple(extent / length for length, extent in zip(shape, values[view], strict=True))
        sources[size] = "derived: field of view by rows and columns"


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-12)
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(_alike(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        reason = (
            f"is larger than {MAX_BYTES // 1024} KiB, too long for metadata; keep data in files of their own"
        )
        raise MetadataError([Problem(path, 0, "", reason)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise MetadataError([Problem(path, line, "", "is not UTF-8; save it as UTF-8")]) from None


def _lines(path: Path, text: str) -> dict[str, int]:
    """Return dotted field -> line, having refused what would unfold (anchors), nest too deep or repeat."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise MetadataError(
                [Problem(path, line, "", "has an anchor or alias (& or *); write the value out")]
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise MetadataError([Problem(path, line, "", f"nests deeper than {_MAX_DEPTH} levels")])
    lines: dict[str, int] = {}
    problems = []
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for field, line in _walk(root) if root is not None else ():
        if field in lines:
            problems.append(Problem(path, line, field, f"stands here and in line {lines[field]}; keep one"))
        lines[field] = line
    if problems:
        raise MetadataError(problems)
    return lines


def _walk(node: yaml.Node, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            field = f"{prefix}{key.value}"
            yield field, key.start_mark.line + 1 if key.start_mark else 0
            yield from _walk(value, f"{field}.")


def _explain(path: Path, lines: dict[str, int], error: ValidationError) -> Iterator[Problem]:
    """Yield what pydantic found as something that a person can mend, one a field."""
    seen: set[str] = set()
    for found in error.errors(include_url=False):
        field = ".".join(str(part) for part in found["loc"][:2])
        if field not in seen:
            seen.add(field)
            yield Problem(path, lines.get(field, 0), field, _remedy(field, found))


def _remedy(field: str, found: Any) -> str:
    section, _, name = field.partition(".")
    if found["type"] in ("extra_forbidden", "invalid_key"):
        known = list(SECTIONS[section].model_fields) if name else [*SECTIONS, "schema_version"]
        near = difflib.get_close_matches(name or section, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"is unknown; {hint}"
    if field not in FIELDS:
        if section == "schema_version":
            return f"is {found['input']!r}, but this version reads 1.0; write schema_version: '1.0'"
        return (
            f"is no section; write its fields below it, such as {next(iter(SECTIONS[section].model_fields))}"
        )
    if found["type"] == "value_error":
        return f"({found['input']!r}) {found['ctx']['error']}"
    if words := choices(field):
        return f"is {found['input']!r}; write one of {', '.join(words)}"
    unit = f" in {extra(field)['unit']}" if "unit" in extra(field) else ""
    return f"is {found['input']!r}: {found['msg'].lower()}{unit}; for example {FIELDS[field].examples[0]}"  # type: ignore[index]
