"""The schema as something to fill in, and as a table to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from atomvision_hub.errors import UsageError
from atomvision_hub.microscopy.metadata.schema import (
    FIELDS,
    SCHEMA_VERSION,
    SECTIONS,
    Facts,
    Metadata,
    choices,
    extra,
)

_INTRODUCTION = (
    "Written by `atomvision metadata schema --markdown`; the JSON Schema is `atomvision metadata schema`. "
    "Every field may be unknown; nothing is guessed. Paths are those of the NeXus application definition "
    "[NXem](https://fairmat-nfdi.github.io/nexus_definitions/classes/applications/NXem.html), terms "
    "those of the [EM Glossary](https://emglossary.helmholtz-metadaten.de); a blank means that there is no "
    "such term or that we are not sure of it."
)
_PRECEDENCE = (
    "What is written beside the image (`scan.dm4.yaml`, then `scan.yaml`) counts before what is written for "
    "its folder (`metadata.yaml`), and both before the file itself. Where a person contradicts the file, the "
    "person's value is used and `notes` tells both."
)


def template() -> str:
    """Return YAML with all fields that a person can fill in, each with comment, unit and example."""
    lines = [
        "# Metadata of an experimental image. Fill in what you know, leave the rest empty or take it out.",
        "# Save it beside the image as IMAGE.yaml, or as metadata.yaml for all images of a folder.",
        "# Check it: atomvision metadata validate FILE",
        f"schema_version: '{SCHEMA_VERSION}'",
    ]
    for section, model in SECTIONS.items():
        if section == "provenance":
            continue
        lines += ["", f"{section}:  # {Facts.model_fields[section].description}"]
        for name in model.model_fields:
            lines += [f"  # {_comment(f'{section}.{name}')}", f"  {name}:"]
    return "\n".join(lines) + "\n"


def _comment(path: str) -> str:
    field = FIELDS[path]
    unit = f" [{extra(path)['unit']}]" if "unit" in extra(path) else ""
    words = choices(path)
    hint = f"one of {', '.join(words)}" if words else f"for example {_example(path)}"
    return f"{field.description}{unit}: {hint}"


def _example(path: str) -> str:
    return json.dumps((FIELDS[path].examples or [None])[0], ensure_ascii=False).strip('"')


def examples() -> list[str]:
    """Return the names of the filled templates that ship with the package."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")
    )


def example(name: str) -> str:
    """Return a filled template by its name, such as ``"Fe3O4"``.

    Raises
    ------
    UsageError
        For a name that is not there.
    """
    known = {entry.lower(): entry for entry in examples()}
    if name.lower() not in known:
        raise UsageError(f"no example {name!r}; there are {', '.join(known.values())}")
    content: str = (_folder() / f"{known[name.lower()]}.yaml").read_text(encoding="utf-8")
    return content


def _folder() -> Any:
    return files("atomvision_hub.microscopy.metadata") / "examples"


def field_table() -> str:
    """Return the schema as a page of Markdown: what ``docs/metadata.md`` holds."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield f"# Metadata of experimental images (schema {SCHEMA_VERSION})"
    yield ""
    yield _INTRODUCTION
    for section, model in SECTIONS.items():
        yield ""
        yield f"## {section}"
        yield ""
        yield f"{Facts.model_fields[section].description}."
        yield ""
        yield "| field | meaning | unit | example or words | NeXus | EM Glossary |"
        yield "|---|---|---|---|---|---|"
        for name in model.model_fields:
            path = f"{section}.{name}"
            facts = extra(path)
            words = ", ".join(choices(path)) or f"`{_example(path)}`"
            nexus = f"`{facts['nexus'].removeprefix('/NXem/ENTRY/')}`" if "nexus" in facts else ""
            iri = facts.get("em_glossary", "")
            term = f"[{iri.rsplit('/', 1)[-1]}]({iri})" if iri else ""
            meaning = FIELDS[path].description
            yield f"| `{name}` | {meaning} | {facts.get('unit', '')} | {words} | {nexus} | {term} |"
    yield ""
    yield "NeXus paths are below `/NXem/ENTRY/`; `eventID`, `stageID`, `userID` stand for `event1` and so on."
    yield ""
    yield "## Beside the sections"
    yield ""
    yield "| field | meaning |"
    yield "|---|---|"
    for name in ("schema_version", "sources", "notes"):
        yield f"| `{name}` | {Metadata.model_fields[name].description} |"
    yield ""
    yield "## Who is believed"
    yield ""
    yield _PRECEDENCE


def to_yaml(metadata: Metadata) -> str:
    """Return what is known of an image as YAML, each value with a comment that says where it comes from.

    Provenance stands in comments: the result can be filled up and saved beside the image.
    """
    lines = [f"schema_version: '{SCHEMA_VERSION}'"]
    current = ""
    for path, value in metadata.values().items():
        section, name = path.split(".")
        mark = "# " if section == "provenance" else ""
        if section != current:
            lines.append(f"{mark}{section}:")
            current = section
        lines.append(f"{mark}  {name}: {_scalar(value)}  # {metadata.sources[path]}")
    lines += [f"# note: {note}" for note in metadata.notes]
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value)
    # JSON texts, numbers and lists are YAML; words that YAML takes for something else stay in quotes.
    reserved = isinstance(value, str) and value.lower() in (
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
        "y",
        "n",
    )
    return str(value) if plain and not reserved else json.dumps(value, ensure_ascii=False)
