"""Jinja as all model cards use it: a missing fact is an error, never a blank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).with_name("templates")


def environment() -> Environment:
    """Return the environment with the filters of the cards."""
    # Markdown for the Hub, which sanitises it; HTML escaping would spoil names.
    made = Environment(  # noqa: S701
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    made.filters["score"] = _score
    made.filters["words"] = lambda name: name.replace("_", " ")
    made.filters["figure"] = figure
    made.filters["result"] = _result
    made.filters["cell"] = _cell
    made.filters["minutes"] = lambda seconds: (
        f"{seconds / 60:.0f}" if seconds >= 120 else f"{seconds / 60:.1f}"
    )
    return made


def figure(value: float | None, unit: str) -> str:
    """Return a figure with its unit, to the digits that mean something; shares in percent."""
    if value is None:
        return "–"
    if unit == "1":
        return f"{100 * value:.2f} %" if value > 0.98 or value < 0.02 else f"{100 * value:.1f} %"
    return f"{value:.4g} {unit}"


def _score(score: Any) -> str:
    if score.value is None:
        return "– (no such rows)"
    if score.interval is None:
        return f"{100 * score.value:.1f} %"
    low, high = score.interval
    return f"{100 * score.value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def _result(result: Any) -> str:
    shown = figure(result.value, result.unit)
    if result.value is None or result.interval is None:
        return shown
    low, high = (
        figure(value, result.unit).removesuffix(" %").removesuffix(f" {result.unit}")
        for value in result.interval
    )
    return f"{shown} ({low}–{high})"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", r"\|").replace("\n", " ")
