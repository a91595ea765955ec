"""The words by which captions name a microscopy; whether a mention shows an image or only speaks of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

Modality = Literal["stm", "stem", "tem", "afm", "sem", "diffraction", "other_microscopy", "none"]
MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)
Role = Literal["image", "named", "spoken"]
"""How a mention is meant: with a word for a picture, as the name of a panel, or only spoken of."""

# Every quantifier below is bounded or runs over one class of characters that the next piece cannot eat:
# matching time grows with the length of the text alone. A caption is judged by its beginning.
LONGEST: Final = 20_000

_SCOPY = r"[ -]?micro(?:scop(?:y|e|es|ic|ical|ically)|graphs?|graphic|graphy)\b"
_TUNNEL = r"scanning[ -]tunnell?ing"
_ANNULAR = r"(?i:(?:(?:high|low|medium)[ -]angle[ -])?annular[ -]dark[ -]?field)"
_BEAM = r"BF|DF|ADF|(?i:(?:bright|dark)[ -]?field)"
_WORD = r"(?!S?TEM\b|SEM\b|scanning|transmission|electron|tunnel)[a-z-]{1,20}"
_LIGHT = (
    r"(?:optical|light|laser|fluorescen(?:t|ce)|confocal|polari[sz]ed|(?:bright|dark)[ -]?field|"
    r"two[ -]photon|super[ -]resolution|microscop(?:y|ic)|reflected)"
)
_LIGHT_IMAGE = r"(?:images?|imaging|micrographs?|microscop(?:y|e|es|ic)|photomicrographs?|snapshots)\b"
# Abbreviations count in capitals alone: "stem cells" and "it stems from" are no microscopy.

# (keyword, modality, pattern): the first that matches at a place wins, so longer names come first.
_TERMS: Final[tuple[tuple[str, Modality, str], ...]] = (
    (
        "scanning transmission electron microscopy",
        "stem",
        rf"(?i:scanning[ -]transmission[ -]electron{_SCOPY})",
    ),
    ("HAADF", "stem", rf"(?:[HML]?AADF|ADF|{_ANNULAR})(?:[-/ ]{{1,3}}S?TEM)?(?![A-Za-z0-9])"),
    ("ABF", "stem", r"(?:i?ABF|(?i:annular bright[ -]?field))[- ](?:S?TEM|images?|micrographs?)(?![A-Za-z])"),
    ("iDPC", "stem", r"iDPC(?:[- ]STEM)?(?![A-Za-z])"),
    ("Z-contrast", "stem", r"(?i:z[ -]contrast)(?= (?i:imag|micrograph|S?TEM))"),
    ("STEM", "stem", rf"(?:(?:{_BEAM}|AC|Cs|HR|4D|HV|[Cc]ryo)[- ]?){{0,2}}STEMs?(?![A-Za-z0-9])"),
    (
        "scanning tunneling microscopy",
        "stm",
        rf"(?i:{_TUNNEL}(?:{_SCOPY}|[ -]topograph\w{{0,4}}|[ -]images?))",
    ),
    ("scanning tunneling spectroscopy", "stm", rf"(?i:{_TUNNEL}[ -]spectr\w{{1,9}})"),
    ("STM", "stm", r"(?:(?:LT|UHV|HT|EC|SP|ec|qPlus|[Cc]ryo)[- ]?){0,2}STMs?(?![A-Za-z0-9])"),
    (
        "conductance map",
        "stm",
        r"(?i:(?:d[ij]/dv|(?:differential|tunnell?ing) conductance|ldos|qpi)[ -]maps?\b)",
    ),
    ("tunneling current image", "stm", r"(?i:tunnell?ing[ -]current (?:images?|maps?))\b"),
    (
        "constant-current image",
        "stm",
        r"(?i:constant[ -](?:current|height)[ -](?:images?|topograph\w{0,4}))\b",
    ),
    ("HRTEM", "tem", r"(?:(?:AC|Cs)[- ]?)?HR[- ]?TEM(?![A-Za-z0-9])|HREM(?![A-Za-z0-9])"),
    ("transmission electron microscopy", "tem", rf"(?i:transmission[ -]electron{_SCOPY})"),
    ("cryo-TEM", "tem", r"(?i:cryo(?:genic)?)[- ]?TEM(?![A-Za-z0-9])"),
    ("TEM", "tem", rf"(?:(?:{_BEAM}|EF|LC|AC|XS?|E|(?i:in[- ]situ))[- ]?){{0,2}}TEMs?(?![A-Za-z0-9_]|\$?_)"),
    ("AFM", "afm", r"(?:(?:nc|NC|HS|C|c|PF|LT)[- ]?)?(?:AFM|KPFM|MFM|PFM)(?![A-Za-z0-9])"),
    (
        "atomic force microscopy",
        "afm",
        r"(?i:(?:atomic|magnetic|kelvin[ -]probe)[ -]force[ -]microscop\w{1,3})",
    ),
    ("SEM", "sem", r"(?:(?:FE|FEG|HR|E|FIB|[Cc]ryo)[-/ ]?)?SEM(?![A-Za-z0-9])"),
    ("scanning electron microscopy", "sem", rf"(?i:scanning[ -]electron(?:ic)?(?:{_SCOPY}| spectroscopy))"),
    (
        "cryo-EM",
        "other_microscopy",
        r"(?i:cryo(?:genic)?[- ](?:EM|electron[ -]microscop\w{1,3}))(?![A-Za-z0-9])",
    ),
    ("LEEM", "other_microscopy", r"(?:LEEM|PEEM|EBSD)(?![A-Za-z0-9])"),
    (
        "electron micrograph",
        "other_microscopy",
        rf"(?i:electron(?:{_SCOPY}| (?:holograph|tomogra)\w{{1,5}}))",
    ),
    ("light microscopy", "other_microscopy", rf"(?i:{_LIGHT}[ -](?:{_WORD} ){{0,2}}{_LIGHT_IMAGE})"),
    ("immunostaining", "other_microscopy", r"(?i:immunostain\w{1,3})"),
    (
        "map",
        "other_microscopy",
        rf"(?i:(?:EDX|EDS|EELS|raman|elemental?|spectral|PL) (?:{_WORD} ){{0,2}}map(?:ping)?s?)\b",
    ),
    (
        "tomography",
        "other_microscopy",
        rf"(?i:(?:x-ray|computed|synchrotron) (?:{_WORD} ){{0,2}}tomogra\w{{1,5}})",
    ),
    ("micrograph", "other_microscopy", r"(?i:(?:photo)?micrographs?)\b"),
    ("diffraction", "diffraction", r"(?:SAED|SADP?|CBED|NBED|LEED|RHEED|P?XRD)(?![A-Za-z0-9])"),
    ("diffraction", "diffraction", r"(?i:diffract(?:ion|ogra\w{1,3})(?: patterns?)?)"),
)
_PATTERN: Final = re.compile(
    "(?<![A-Za-z0-9])(?:" + "|".join(f"(?P<t{index}>{term[2]})" for index, term in enumerate(_TERMS)) + ")"
)

_PICTURE = (
    r"(?i:images?|imaging|imaged|micro-?gra?g?phs?|micrography|pictures?|scans?|topograph\w{0,5}|photographs?|"
    r"snapshots?|frames?|views?|photos?|series)"
)
_PICTURE_AT_END: Final = re.compile(rf"(?:{_PICTURE}|(?i:graphs?))$")
_PICTURE_NEAR: Final = re.compile(rf"(?:[ )-]{{1,2}}[\w-]{{1,14}}){{0,2}}?[ )-]{{1,2}}{_PICTURE}\b")
_PICTURE_AFTER: Final = re.compile(rf"[^.;]{{0,40}}?\b{_PICTURE}\b")
_PICTURE_BEFORE: Final = re.compile(rf"\b{_PICTURE}\b[^.;]{{0,60}}$")
# The word after a mention that makes it a thing or a doing, not a picture.
_THING_AFTER: Final = re.compile(
    r"(?:[- ](?:electron|sample|image)?[- ]?)?(?i:grids?|holders?|tips?|lamellae?|specimens?|chambers?|"
    r"heads?|junctions?|instruments?|experiments?|set-?ups?|measurements?|scanners?|spectr\w{1,9}|"
    r"cryostats?|(?:image )?(?:simulations?|calculations?|analysis by)|detectors?|contrast transfer|"
    r"image intensit\w{1,3}|modes?|waves?|cell|polari[sz]\w{1,6}|education|students?|"
    r"fields?|careers?|disciplines|workforce|majors|size distributions?|sizes?|line profiles?)(?![a-z])"
)
# Energy-dispersive and loss signals taken in the microscope: pictures only where the words say so.
_SIGNAL_AFTER: Final = re.compile(r"[-/ ]{1,3}(?:EDX|EDS|EDXS|EELS|CL|STS)(?![A-Za-z])")
_SIMULATED: Final = re.compile(
    r"(?i:simulat(?:ed|ion|ions)|multi-?slice|calculated|computed|theoretical|modell?ed|synthetic|predicted)"
)
_EXPERIMENT: Final = re.compile(r"(?i:experiment\w{0,4}|measured|recorded|observed|acquired|unseen|real)")
_DERIVED_BEFORE: Final = re.compile(
    r"(?i:(?:determined|measured|calculated|extracted|derived|estimated|counted|evaluated|computed|analy[sz]ed|"
    r"quantifi\w{2,6}|based|distributions?|histograms?|profiles?|FFTs?|transforms?|(?:power )?spectr\w{1,3}|"
    r"diameters?|thickness(?:es)?|statistics|sizes|diffraction patterns?|functions?|trained|loss|errors?|"
    r"accuracy)\b[^.;]{0,40}\b(?:from|by|on|using|via|with|in|inside|of|for|through)"
    r"(?: (?:the|a|an|each|corresponding|experimental|several|[0-9]{1,4}|multiple)){0,3}"
    r"(?: [a-z-]{1,15})? ?\(?)$"
)
_DRAWN_BEFORE: Final = re.compile(
    r"(?i:\b(?:schematics?|sketch(?:es)?|drawings?|diagrams?|illustrations?|cartoons?|flow ?charts?|"
    r"architecture|set-?ups?|geometry|principle|photo(?:graph)?s? of (?:the|a|an|our))\b[^.;]{0,60})$"
)
_STATISTICS_BEFORE: Final = re.compile(
    r"(?:±|\+/-|\\pm|(?i:error bars?|means?|average|errors?)[^.;]{0,40})[ \w$]{0,12}\(?$"
)
_STATISTICS_AFTER: Final = re.compile(r"\)?[,;]? ?\(?[nN] ?=")
_CLAUSE: Final = re.compile(r"[.;](?=\s)|(?<![\w])\(?[A-Za-z](?:(?:, ?| ?[-&] ?| and )[A-Za-z]){0,4}\)|:\s")
_DEFINED: Final = re.compile(r"\((STM|STEM|TEM|SEM|AFM)s?\)")
_EXPLAINED: Final = re.compile(r"\b(STM|STEM|TEM|SEM|AFM)s? \(([A-Za-z -]{8,60})\)")
_OPTICS: Final = re.compile(r"(?i:micro|electron|tunnel|imag|atom|scanning)")


@dataclass(frozen=True)
class Mention:
    """One place of a text that names a microscopy: keyword of the table, modality, role, words, position."""

    keyword: str
    modality: Modality
    role: Role
    phrase: str
    start: int


def plain(text: str) -> str:
    """Return `text` with plain dashes, single spaces and compatible characters folded, cut at `LONGEST`."""
    text = unicodedata.normalize("NFKC", text[:LONGEST])
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text)
    return " ".join(text.split())[:LONGEST]


def mentions(text: str) -> tuple[Mention, ...]:
    """Return all mentions in a text that `plain` has prepared, in order."""
    homonyms = _homonyms(text)
    return tuple(_read(text, homonyms))


def _read(text: str, homonyms: frozenset[str]) -> Iterator[Mention]:
    breaks = [0, *(match.end() for match in _CLAUSE.finditer(text)), len(text)]
    place = 0
    for match in _PATTERN.finditer(text):
        assert match.lastgroup is not None
        keyword, modality, _ = _TERMS[int(match.lastgroup[1:])]
        while breaks[place + 1] <= match.start() and place + 2 < len(breaks):
            place += 1
        begin, end = breaks[place], max(breaks[place + 1], match.end())
        before, after = (
            text[max(begin, match.start() - 160) : match.start()],
            text[match.end() : min(end, match.end() + 160)],
        )
        if match.group().rstrip("s") in homonyms or _is_standard_error(
            match.group(), before, text[match.end() : match.end() + 12]
        ):
            continue
        yield Mention(
            keyword, modality, _role(before, match.group(), after), _phrase(text, match), match.start()
        )


def _role(before: str, words: str, after: str) -> Role:
    if "tunnel" in words.lower() and "spectr" in words.lower():
        return "spoken"
    whole = before + words + after
    if _SIMULATED.search(before[-60:] + words + after[:40]) and not _EXPERIMENT.search(whole):
        return "spoken"
    if _DRAWN_BEFORE.search(before) or _THING_AFTER.match(after):
        return "spoken"
    if _DERIVED_BEFORE.search(before) and not _PICTURE_BEFORE.search(before):
        return "spoken"
    if _PICTURE_AT_END.search(words) or _PICTURE_AFTER.match(after) or _PICTURE_BEFORE.search(before):
        return "image"
    return "spoken" if _SIGNAL_AFTER.match(after) else "named"


def _phrase(text: str, match: re.Match[str]) -> str:
    """Return the mention with the word for a picture that follows closely."""
    tail = _PICTURE_NEAR.match(text[match.end() : match.end() + 50])
    return match.group() + (tail.group() if tail else "")


def _is_standard_error(words: str, before: str, after: str) -> bool:
    return words == "SEM" and bool(_STATISTICS_BEFORE.search(before[-60:]) or _STATISTICS_AFTER.match(after))


def _homonyms(text: str) -> frozenset[str]:
    """Return abbreviations that the text spells out as something else, as in "short-term memory (STM)"."""
    pairs = [
        (match.group(1), text[max(0, match.start() - 80) : match.start()])
        for match in _DEFINED.finditer(text)
    ]
    pairs += [(match.group(1), match.group(2)) for match in _EXPLAINED.finditer(text)]
    return frozenset(name for name, spelled in pairs if _spells_other(name, spelled))


def _spells_other(name: str, spelled: str) -> bool:
    words = re.findall(r"[A-Za-z]+", spelled)[-len(name) - 2 :]
    initials = {word[0].upper() for word in words}
    return name[0] in initials and name[-1] in initials and not _OPTICS.search(" ".join(words))
