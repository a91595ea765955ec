"""Lengths a pixel, in whatever unit a file writes them, as Å."""

from __future__ import annotations

import math

#: Å in one unit; keys are normalised by `_bare`.
LENGTHS = {
    "m": 1e10,
    "meter": 1e10,
    "metre": 1e10,
    "cm": 1e8,
    "centimeter": 1e8,
    "mm": 1e7,
    "millimeter": 1e7,
    "um": 1e4,
    "micron": 1e4,
    "micrometer": 1e4,
    "nm": 10.0,
    "nanometer": 10.0,
    "a": 1.0,
    "å": 1.0,
    "ang": 1.0,
    "angstrom": 1.0,
    "angstroem": 1.0,
    "pm": 0.01,
    "picometer": 0.01,
    "inch": 2.54e8,
}


def _bare(unit: str) -> str:
    """Return a unit without case, blanks and the many ways to write µ, Å and a power."""
    text = unit.strip().strip("[]()\x00").replace("_", "").replace(" ", "")
    text = text.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    text = text.replace("\\u00B5", "u").replace("\\u00b5", "u").replace("\N{ANGSTROM SIGN}", "Å")
    text = text.replace("^", "").replace("**", "").replace("\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ONE}", "-1")
    return text.casefold()


def angstrom(value: float, unit: str | None) -> float | None:
    """Return a length in Å, ``None`` when unit or value tell none.

    Examples
    --------
    >>> angstrom(7.5, "pm"), angstrom(0.5, "µm"), angstrom(1, "px")
    (0.075, 5000.0, None)
    """
    factor = LENGTHS.get(_singular(_bare(unit or "")))
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    length = value * factor
    return length if 1e-6 < length < 1e12 else None


def per_angstrom(value: float, unit: str | None) -> float | None:
    """Return a reciprocal length in 1/Å (``1/nm``, ``nm^-1``, ...), ``None`` when the unit is another."""
    text = _bare(unit or "")
    if text.startswith("1/"):
        length = angstrom(1.0, text[2:])
    elif text.endswith("-1"):
        length = angstrom(1.0, text[:-2])
    else:
        return None
    return value / length if length and math.isfinite(value) and value > 0 else None


def is_angle(unit: str | None) -> bool:
    """Tell whether a unit is one of scattering angles, which only diffraction patterns have."""
    return _bare(unit or "") in ("rad", "mrad", "urad")


def _singular(text: str) -> str:
    if text.endswith("s") and text[:-1] in LENGTHS:
        return text[:-1]
    return text.replace("metre", "meter") if text.replace("metre", "meter") in LENGTHS else text
