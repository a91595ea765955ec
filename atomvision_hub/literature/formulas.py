"""Chemical formulas and elements named in titles, abstracts and captions."""

from __future__ import annotations

import re

_SIMPLE = re.compile(r"\b(?:[A-Z][a-z]?[0-9]{0,3}){2,8}\b")


def formulas(text: str) -> tuple[str, ...]:
    """Return the reduced formulas named in `text`, each once, in order of appearance."""
    from ase.formula import Formula

    found: dict[str, None] = {}
    for match in _SIMPLE.finditer(text):
        try:
            formula = Formula(match.group(), strict=True)
        except ValueError:
            continue
        if any(character.isdigit() for character in match.group()):
            found.setdefault(format(formula.reduce()[0], "metal"))
    return tuple(found)


def elements(text: str) -> tuple[str, ...]:
    """Return the symbols of the elements in the formulas of `text`, sorted."""
    from ase.formula import Formula

    return tuple(sorted({symbol for formula in formulas(text) for symbol in Formula(formula).count()}))
