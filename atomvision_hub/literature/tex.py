"""TeX as words."""

from __future__ import annotations

import re
import unicodedata

# What a command brings along that is no word of the caption.
_ASIDE = re.compile(
    r"\\(?:label|cite\w*|footnote\w*|vspace\*?|hspace\*?|color)\s*(?:\[[^][]*\])*\s*\{[^{}]*\}"
)
_LETTERS = {"\\AA": "Å", "\\aa": "å", "\\ss": "ß", "\\o": "ø", "\\O": "Ø", "\\micro": "µ", "\\degree": "°"}
_ACCENTS = dict(zip("\"'`^~=.", "\u0308\u0301\u0300\u0302\u0303\u0304\u0307", strict=True))
_ACCENT = re.compile(r"\\([\"'`^~=.])\s*\{?\\?([A-Za-z])\}?")
_LETTER = re.compile("|".join(rf"{re.escape(name)}(?![A-Za-z])" for name in _LETTERS))
_COMMAND = re.compile(r"\\(?:[A-Za-z]+\*?[ ]?|!)")
_SPACE = re.compile(r"\\\\(?:\[[^]]{0,20}\])?|\\[,;: ]|~")
_QUANTITY = re.compile(r"\\(?:SI|qty)\s*(?:\[[^][]{0,80}\])?\{([^{}]{0,80})\}\s*\{([^{}]{0,80})\}")
_UNITS = {
    "kilo": "k",
    "milli": "m",
    "micro": "µ",
    "nano": "n",
    "pico": "p",
    "femto": "f",
    "percent": "%",
    "metre": "m",
    "meter": "m",
    "angstrom": "Å",
    "volt": "V",
    "ampere": "A",
    "electronvolt": "eV",
    "kelvin": "K",
    "second": "s",
    "hour": "h",
    "tesla": "T",
    "hertz": "Hz",
    "pascal": "Pa",
    "degree": "°",
}
_MATH = re.compile(r"\$[^$]{0,2000}\$")


def plain(tex: str) -> str:
    """Return TeX as words; mathematics stays TeX between dollar signs."""
    words = _ASIDE.sub("", tex.replace("\\(", "$").replace("\\)", "$"))
    words = _QUANTITY.sub(lambda match: f"{match[1]} {_unit(match[2])}", words)
    pieces, position = [], 0
    for match in _MATH.finditer(words):
        pieces += [_words(words[position : match.start()]), match[0]]
        position = match.end()
    return " ".join("".join([*pieces, _words(words[position:])]).split())


def _unit(tex: str) -> str:
    r"""Return a unit of siunitx, such as ``\nano\meter``, as people write it."""
    return re.sub(r"\\([a-zA-Z]+)\s*", lambda match: _UNITS.get(match[1], match[1]), tex)


def _words(tex: str) -> str:
    text = _ACCENT.sub(lambda match: unicodedata.normalize("NFC", match[2] + _ACCENTS[match[1]]), tex)
    text = _LETTER.sub(lambda match: _LETTERS[match[0]], text)
    text = _COMMAND.sub("", _SPACE.sub(" ", text))
    text = re.sub(r"(?<!\\)[{}]", "", text)
    text = re.sub(r"\\([%&#_${}])", r"\1", text).replace("---", "—").replace("--", "–")
    return text.replace("``", "“").replace("''", "”")
