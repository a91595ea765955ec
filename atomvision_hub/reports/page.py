"""Jinja as all reports use it: everything that comes from outside is escaped, pictures are inlined."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    png: bytes
    caption: str

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def render(template: str, **values: Any) -> str:
    """Return a page; a value that is missing is an error, never a blank."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["cell"] = cell
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment.get_template(template).render(**values)


def shown(text: Any) -> str:
    """Return text without control characters, also those that turn the direction of reading."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def cell(value: Any, digits: int = 4) -> str:
    """Return a value as a table shows it."""
    if value is None or value == "":
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(entry, digits) for entry in value) or "\N{EN DASH}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(entry, digits)}" for name, entry in value.items()) or "\N{EN DASH}"
    return shown(value)
