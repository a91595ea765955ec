"""Checks of single values: chemical formulas, ORCID iDs, licences, facets, dates."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from ase.data import chemical_symbols

#: Licences by their SPDX identifier that data are published under; others as ``LicenseRef-NAME``.
LICENCES: tuple[str, ...] = (
    "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-PDDC", "ODbL-1.0", "ODC-By-1.0", "PDDL-1.0", "CDLA-Permissive-2.0",
    "NIST-PD", "MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "MPL-2.0", "LGPL-3.0-only",
    "LGPL-3.0-or-later", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later",
)  # fmt: skip

_ELEMENTS = frozenset(chemical_symbols[1:])
_FORMULA_TOKEN = re.compile(r"([A-Z][a-z]?)|(\d+(?:\.\d+)?)|([()\[\]])|(·)")
_PAIRS = {")": "(", "]": "["}


def check_formula(text: str) -> str:
    """Return a chemical formula unchanged.

    Element symbols with counts (``"Fe3O4"``, ``"Mo0.5W0.5S2"``), groups in brackets, and adducts after a
    middle dot (``"CuSO4·5H2O"``).

    Raises
    ------
    ValueError
        Naming the first part that is no element, count or bracket.
    """
    position, open_brackets, previous = 0, [], "start"
    while position < len(text):
        token = _FORMULA_TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"is no chemical formula: cannot read {text[position:]!r}")
        element, count, bracket, _ = token.groups()
        if element and element not in _ELEMENTS:
            raise ValueError(f"is no chemical formula: {element!r} is no element")
        if count and (previous == "open" or (previous == "start" and position == 0) or float(count) == 0):
            raise ValueError(f"is no chemical formula: the count {count!r} belongs to nothing")
        if bracket in ("(", "["):
            open_brackets.append(bracket)
        elif bracket and (not open_brackets or open_brackets.pop() != _PAIRS[bracket] or previous == "open"):
            raise ValueError("is no chemical formula: its brackets do not match")
        previous = "open" if bracket in ("(", "[") else "start" if token.group(4) else "part"
        position = token.end()
    if open_brackets or previous != "part":
        raise ValueError("is no chemical formula: it ends too early")
    return text


def check_orcid(text: str) -> str:
    """Return an ORCID iD as ``0000-0000-0000-0000``; the address form is accepted too.

    The last character is a checksum (ISO 7064, MOD 11-2), so that a typing error is found.
    """
    identifier = re.sub(r"^(https?://)?(www\.)?orcid\.org/", "", text.strip(), flags=re.IGNORECASE).upper()
    if not re.fullmatch(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", identifier, flags=re.ASCII):
        raise ValueError("is no ORCID iD: it has the form 0000-0000-0000-0000")
    digits, last = identifier.replace("-", "")[:-1], identifier[-1]
    total = 0
    for digit in digits:
        total = (total + int(digit)) * 2
    if "0123456789X"[(12 - total % 11) % 11] != last:
        raise ValueError("is no ORCID iD: its checksum does not fit, so a digit must be wrong")
    return identifier


def check_licence(text: str) -> str:
    """Return the SPDX identifier of a licence, in SPDX spelling."""
    known = {name.lower(): name for name in LICENCES}
    if text.lower() in known:
        return known[text.lower()]
    if re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", text):
        return text
    near = difflib.get_close_matches(text.lower().replace(" ", "-"), list(known), n=1, cutoff=0.5)
    hint = f"did you mean {known[near[0]]}? " if near else ""
    raise ValueError(f"is no SPDX identifier known here; {hint}Others are written LicenseRef-NAME")


def check_indices(value: Any) -> Any:
    """Return Miller indices (three integers, or four with h + k + i = 0) as a tuple.

    A text such as ``"1 1 -1"``, ``"(111)"`` or ``"[1-10]"`` is read too.
    """
    if isinstance(value, str):
        bare = value.strip().strip("()[]{}<>")
        parts = bare.replace(",", " ").split()
        if len(parts) == 1 and re.fullmatch(r"(-?\d){3,4}", bare):
            parts = re.findall(r"-?\d", bare)
        if not all(re.fullmatch(r"[+-]?\d+", part) for part in parts):
            raise ValueError("are no Miller indices: write three whole numbers such as [1, 1, 1]")
        value = [int(part) for part in parts]
    if isinstance(value, Sequence) and all(type(index) is int for index in value):
        indices = tuple(value)
        if len(indices) in (3, 4) and any(indices):
            if len(indices) == 4 and sum(indices[:3]) != 0:
                raise ValueError("are no four-index Miller indices: h + k + i must be 0")
            return indices
    raise ValueError("are no Miller indices: write three whole numbers, not all zero, such as [1, 1, 1]")


def check_date(value: Any) -> str:
    """Return a date, or a date with time, in ISO 8601; a time without zone is the instrument's local time."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        text = value.strip()
        try:
            return date.fromisoformat(text).isoformat() if len(text) <= 10 else _moment(text).isoformat()
        except ValueError:
            pass
    raise ValueError("is no ISO 8601 date: write 2023-05-31 or 2023-05-31T14:05:00+02:00")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
