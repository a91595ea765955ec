r"""Chemical formulas and elements named in titles, abstracts and captions.

A candidate counts where `ase.formula.Formula` (maintained, already a dependency) can read it and its
spelling is that of a compound, so that "PSF", "CI" or "HeLa" are none. chemnlp, which the paper's authors
published, was judged and left: it needs ChemDataExtractor 1.3 and DAWG 0.8, unmaintained for years, and
brings linters as dependencies.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from math import gcd, lcm
from typing import Final

from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

LONGEST: Final = 100_000  # characters read of a text

# Capitals alone are mostly abbreviations: PSF, CI, FIB, UV. These few are compounds.
_CAPITALS: Final = frozenset(
    {"BN", "CO", "NO", "HF", "HI", "KF", "KI", "WC", "VN", "VC", "UC", "VO", "HCN", "KCN", "KOH"}
)
_WORDS: Final = frozenset({"NaN", "CoRe", "PoS", "CaN", "CoV", "NiCE", "HoW", "AsI"})
# Elements that no ordinary compound holds: what spells one is a word ("HeLa").
_UNUSUAL: Final = frozenset(
    chemical_symbols[z] for z in (2, 10, 18, 36, 54, 61, *range(84, 90), 91, *range(93, 119))
)
_MOLECULES: Final = frozenset(
    {"H2", "N2", "O2", "O3", "F2", "Cl2", "Br2", "I2", "P4", "S8", "C60", "C70", "C84"}
)
_NAMES: Final = {
    "graphene": "C",
    "graphite": "C",
    "graphitic": "C",
    "carbon nanotube": "C",
    "carbon nanotubes": "C",
    "hexagonal boron nitride": "BN",
    "boron nitride": "BN",
    "h-bn": "BN",
    "hbn": "BN",
    "phosphorene": "P",
    "black phosphorus": "P",
    "silicene": "Si",
    "germanene": "Ge",
    "stanene": "Sn",
    "borophene": "B",
    "antimonene": "Sb",
    "bismuthene": "Bi",
    "tellurene": "Te",
    "molybdenum disulfide": "MoS2",
    "molybdenum disulphide": "MoS2",
    "molybdenum diselenide": "MoSe2",
    "tungsten disulfide": "WS2",
    "tungsten disulphide": "WS2",
    "tungsten diselenide": "WSe2",
    "gallium arsenide": "GaAs",
    "gallium nitride": "GaN",
    "strontium titanate": "SrTiO3",
    "magnetite": "Fe3O4",
    "hematite": "Fe2O3",
}
# Names that are verbs, planets or everyday words too (lead, mercury, tin) are left out.
_ELEMENT_NAMES: Final = {
    "hydrogen": "H", "lithium": "Li", "boron": "B", "carbon": "C", "nitrogen": "N", "oxygen": "O",
    "fluorine": "F", "sodium": "Na", "magnesium": "Mg", "aluminum": "Al", "aluminium": "Al",
    "silicon": "Si", "phosphorus": "P", "sulfur": "S", "sulphur": "S", "chlorine": "Cl", "potassium": "K",
    "calcium": "Ca", "titanium": "Ti", "vanadium": "V", "chromium": "Cr", "manganese": "Mn", "iron": "Fe",
    "cobalt": "Co", "nickel": "Ni", "copper": "Cu", "zinc": "Zn", "gallium": "Ga", "germanium": "Ge",
    "arsenic": "As", "selenium": "Se", "strontium": "Sr", "yttrium": "Y", "zirconium": "Zr",
    "niobium": "Nb", "molybdenum": "Mo", "ruthenium": "Ru", "rhodium": "Rh", "palladium": "Pd",
    "silver": "Ag", "cadmium": "Cd", "indium": "In", "antimony": "Sb", "tellurium": "Te", "cesium": "Cs",
    "caesium": "Cs", "barium": "Ba", "lanthanum": "La", "cerium": "Ce", "hafnium": "Hf", "tantalum": "Ta",
    "tungsten": "W", "rhenium": "Re", "osmium": "Os", "iridium": "Ir", "platinum": "Pt", "gold": "Au",
    "thallium": "Tl", "bismuth": "Bi", "uranium": "U",
}  # fmt: skip

_NAME: Final = re.compile(
    r"(?<![A-Za-z])(?i:"
    + "|".join(sorted((*_NAMES, *_ELEMENT_NAMES), key=len, reverse=True))
    + r")(?![A-Za-z])"
)
_SYMBOL = "(?:" + "|".join(sorted(chemical_symbols[1:], key=len, reverse=True)) + ")"
_NUMBER = r"(?:[1-9][0-9]{0,2}(?:\.[0-9]{1,4})?|0\.[0-9]{1,4})"
# An amount that is a letter: x, 1-x, 2-y, 6+δ, 1-x-y. It tells the element, not the formula.
_VARIABLE = r"(?:(?:[0-9](?:\.[0-9]{1,2})?[-+±])?[xyzδn](?![a-wz])(?:-[xyz])?)"
_AMOUNT = rf"(?:{_VARIABLE}|{_NUMBER})"
_GROUP = rf"\((?:{_SYMBOL}{_AMOUNT}?,? ?){{1,4}}\)(?:{_AMOUNT}|(?={_SYMBOL}))"
_CANDIDATE: Final = re.compile(
    rf"(?<![A-Za-z0-9.\\])(?P<formula>(?:{_SYMBOL}{_AMOUNT}?|{_GROUP}){{1,12}})"
    r"(?:(?P<rest>Tx)|(?P<plane> ?\([0-9-]{3,6}\)|\[[0-9-]{3,6}\]))?(?![A-Za-z0-9(])"
)
# A lone symbol counts beside one of these words; symbols that are words or letters of panels do not.
_LONE: Final = re.compile(
    rf"(?<![A-Za-z0-9.-])({_SYMBOL})(?:(?:-doped|-intercalated|-terminated|-induced)(?![a-z])|"
    r" (?:ad)?(?:atoms?|films?|islands?|clusters?|nano[a-z]{3,12}|(?:mono|bi|tri)?layers?|impurit(?:y|ies)|"
    r"dopants?|vacanc(?:y|ies)|substrates?|surfaces?|single crystals?|columns?|foils?|tips?)(?![a-z]))"
)
_NO_LONE: Final = frozenset(
    {"In", "As", "At", "He", "No", "I", "V", "C", "B", "F", "S", "K", "Y", "H", "N", "O", "P", "U"}
)
_PIECE: Final = re.compile(
    rf"(?P<open>\()|(?:(?P<symbol>{_SYMBOL})|(?P<close>\)))"
    rf"(?:(?P<variable>{_VARIABLE})|(?P<number>{_NUMBER}))?"
)


def formulas(text: str) -> tuple[str, ...]:
    """Return the reduced formulas named in a text, each once, in order of appearance.

    Subscripts are read as plain digits, TeX, HTML text or Unicode; decimal amounts become whole numbers
    (``La0.7Sr0.3MnO3`` gives ``La7Sr3Mn10O30``); elements keep the order in which they are written.
    Formulas with unknown amounts (``Nd2-xCexCuO4``) are left out, their elements are in `elements`. Single
    elements count as surfaces (``Au(111)``), common molecules and names such as graphene.
    """
    return tuple(dict.fromkeys(formula for formula, _ in _read(text) if formula))


def elements(text: str) -> tuple[str, ...]:
    """Return the symbols of all elements in the formulas and element names of a text, by atomic number."""
    found = {symbol for _, symbols in _read(text) for symbol in symbols}
    return tuple(sorted(found, key=atomic_numbers.__getitem__))


def _read(text: str) -> list[tuple[str | None, frozenset[str]]]:
    """Return formula (None where amounts are unknown or only an element is named) and elements, in order."""
    text = plain_chemistry(text)
    found: list[tuple[int, str | None, frozenset[str]]] = []
    for match in _NAME.finditer(text):
        name = match.group().lower()
        formula = _NAMES.get(name)
        symbols = Formula(formula).count() if formula else [_ELEMENT_NAMES[name]]
        found.append((match.start(), formula, frozenset(symbols)))
    for match in _LONE.finditer(text):
        symbol = match.group(1)
        found += [(match.start(), None, frozenset({symbol}))] if symbol not in _NO_LONE else []
    for match in _CANDIDATE.finditer(text):
        word = match.group("formula")
        counts, variable = _counts(word)
        variable = variable or "," in word or bool(match.group("rest"))
        if counts and _is_chemistry(word, counts, surface=bool(match.group("plane")), variable=variable):
            found.append((match.start(), None if variable else _reduced(counts), frozenset(counts)))
    return [(formula, symbols) for _, formula, symbols in sorted(found, key=lambda item: item[0])]


def _counts(word: str) -> tuple[dict[str, Fraction], bool]:
    """Return element -> amount in the order written; and whether an amount is a letter (counted as 1)."""
    levels: list[dict[str, Fraction]] = [{}]
    variable = False
    for match in _PIECE.finditer(word):
        if match.group("open"):
            levels.append({})
            continue
        amount = Fraction(match.group("number") or 1)
        variable = variable or bool(match.group("variable"))
        if match.group("close"):
            amounts = {symbol: inner * amount for symbol, inner in levels.pop().items()}
        else:
            amounts = {match.group("symbol"): amount}
        for symbol, value in amounts.items():
            levels[-1][symbol] = levels[-1].get(symbol, Fraction(0)) + value
    return levels[0], variable


def _is_chemistry(word: str, counts: dict[str, Fraction], *, surface: bool, variable: bool) -> bool:
    """Tell a formula from an abbreviation, a word or a label by its spelling."""
    if len(counts) == 1:
        return surface or word in _MOLECULES
    if word in _WORDS or not _UNUSUAL.isdisjoint(counts):
        return False
    if any(len(symbol) == 2 for symbol in counts):
        return True
    # Only one-letter symbols from here on.
    if not any(character.isdigit() for character in word):
        return word in _CAPITALS and not variable
    numbers = [int(number) for number in re.findall(r"[0-9]+", word) if "." not in word]
    organic = {"C", "H"} <= counts.keys()
    return organic or all(1 < number < 10 for number in numbers)


def _reduced(counts: dict[str, Fraction]) -> str | None:
    scale = lcm(*(amount.denominator for amount in counts.values()))
    whole = {symbol: int(amount * scale) for symbol, amount in counts.items()}
    divisor = gcd(*whole.values())
    word = "".join(s + (str(n // divisor) if n // divisor > 1 else "") for s, n in whole.items())
    return word if Formula(word, strict=True).count() == {s: n // divisor for s, n in whole.items()} else None


_SUPERSCRIPT: Final = re.compile(r"[\u00b2\u00b3\u00b9\u2070-\u207f]+")
_TEX_FONT: Final = re.compile(
    r"\\(?:mathrm|mathbf|mathit|text|textrm|rm|it|bf|ce|mathsf|hbox|mbox)(?![A-Za-z])"
)
_TEX_SUPERSCRIPT: Final = re.compile(r"\$?\^\{?[0-9+*\\a-z-]{0,12}\}?\$?")
_TEX_SUBSCRIPT: Final = re.compile(r"_ ?\{? ?([0-9xyzδ.+-]{1,9}) ?\}?")
_TWICE: Final = re.compile(r"(?<=[A-Za-z)]) ([0-9]{1,2}) ?_\{?\1\}?")
_APART: Final = re.compile(
    rf"(?<![A-Za-z0-9])((?:{_SYMBOL}[0-9]{{0,2}}){{2,6}}) ([2-9])(?= ?(?:[),;]|\.(?![0-9])|$|"
    r"(?:and|on|in|with|is|monolayers?|bilayers?|layers?|films?|crystals?|surfaces?|nano[a-z]{1,12}|flakes?|substrates?)\b))"
)
_SPELLED: Final = {
    "\\delta": "δ",
    "\\alpha": "α",
    "\\beta": "β",
    "\\gamma": "γ",
    "\\pm": "±",
    "\\cdot": "·",
    "\\,": "",
}


def plain_chemistry(text: str) -> str:
    """Return a text with subscripts of TeX and Unicode as plain digits, charges and markup removed."""
    text = _SUPERSCRIPT.sub(" ", text[:LONGEST])
    text = unicodedata.normalize("NFKC", text)[:LONGEST]
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text)
    for spelled, plain in _SPELLED.items():
        text = text.replace(spelled, plain)
    text = _TWICE.sub(r"\1", text)
    text = _TEX_FONT.sub("", text)
    text = re.sub(r"\{ ?([A-Za-z0-9()]{1,12}) ?\}(?=[$_A-Z])", r"\1", text)
    text = _TEX_SUBSCRIPT.sub(r"\1", _TEX_SUPERSCRIPT.sub(" ", text)) if "_" in text or "^" in text else text
    text = re.sub(r"[${}]", "", text)
    return _APART.sub(r"\1\2", " ".join(text.split()))
