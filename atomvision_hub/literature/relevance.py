"""Whether a figure is an STM, STEM or TEM micrograph, by its caption and the abstract of its article.

Published figures were found by keywords in abstract and caption (Choudhary et al., J. Chem. Inf. Model. 2023,
doi 10.1021/acs.jcim.2c01533). Here each keyword is read in its clause: an image that is shown counts,
a size measured from images, a simulation, a tip or a grid does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from atomvision_hub.literature.modality import MODALITIES, Mention, Modality, mentions, plain

__all__ = ["MODALITIES", "Assessment", "Modality", "assess"]

WANTED: Final[frozenset[Modality]] = frozenset({"stm", "stem", "tem"})
# Probability that the answer `relevant` is right, by what it rests on: (right + 1) / (cases + 2) on the
# tune half of the labels. "settings" and "context" do not occur there and "spoken" once: cautious
# guesses.
CONFIDENCE: Final = {
    "image": 0.98,
    "named": 0.90,
    "settings": 0.80,
    "context": 0.60,
    "spoken": 0.70,
    "other": 0.98,
    "nothing": 0.98,
}

_ORDER: Final[tuple[frozenset[Modality], ...]] = (
    WANTED,
    frozenset({"afm", "sem"}),
    frozenset({"other_microscopy"}),
    frozenset({"diffraction"}),
)
# Bias and tunnelling current in one caption: an STM image whose caption needs no name.
_BIAS: Final = re.compile(
    r"(?:\bV(?:_\{?\w{1,6}\}?|[a-z]{1,6})?\$? ?= ?|(?i:bias)[^.;]{0,30}?)[-+]?\d[\d.]{0,5} ?m?V\b"
)
_VOLTAGE: Final = re.compile(r"\b\d[\d.]{0,5} ?m?V\b")
_TOPOGRAPH: Final = re.compile(r"(?i:\btopograph\w{0,5}\b)")
_CURRENT: Final = re.compile(r"\b\d[\d.]{0,5} ?[pn]A\b")
_PICTURE: Final = re.compile(r"(?i:\b(?:topograph\w{0,5}|images?|micrographs?)\b)")
_ATOMIC: Final = re.compile(
    r"(?i:\b(?:atomic(?:ally)?[ -]resol\w{2,5}|topograph(?:y|ies|s|ic)?\b|scale bars?|"
    r"(?:plan[ -]view|cross[ -]section(?:al)?|filtered|raw|large[ -]scale|high[ -]resolution) images?))"
)


@dataclass(frozen=True)
class Assessment:
    """What a caption says about its figure.

    Attributes
    ----------
    modality
        The best of `MODALITIES`.
    confidence
        Estimated probability that `relevant` is right, 0 to 1.
    evidence
        Phrases that decided, from the caption or else from title and abstract (dashes and spaces normalised).
    relevant
        The figure shows an STM, STEM or TEM micrograph recorded in experiment.
    matched
        Names of the keywords found in caption, title or abstract, sorted.
    """

    modality: Modality
    confidence: float
    evidence: tuple[str, ...]
    relevant: bool
    matched: tuple[str, ...]


def assess(caption: str, *, title: str = "", abstract: str = "") -> Assessment:
    """Judge a figure by its caption; title and abstract help only where the caption names no method.

    The time is linear in the length of the texts, of which the first 20,000 characters are read.
    """
    caption = plain(caption)
    named = mentions(caption)
    around = mentions(plain(f"{title} . {abstract}"))
    matched = tuple(sorted({mention.keyword for mention in named + around if mention.modality in WANTED}))
    shown = [mention for mention in named if mention.role != "spoken"]
    for group in _ORDER[:1] if not shown else _ORDER:
        chosen = [mention for mention in shown if mention.modality in group]
        if chosen:
            return _verdict(chosen, matched, spoken=any(mention.modality in WANTED for mention in named))
    return _without_name(caption, named, around, matched)


def _verdict(chosen: list[Mention], matched: tuple[str, ...], *, spoken: bool) -> Assessment:
    modality = chosen[0].modality
    evidence = tuple(dict.fromkeys(mention.phrase for mention in chosen))
    if modality in WANTED:
        basis = "image" if any(mention.role == "image" for mention in chosen) else "named"
        return Assessment(modality, CONFIDENCE[basis], evidence, True, matched)
    return Assessment(modality, CONFIDENCE["spoken" if spoken else "other"], evidence, False, matched)


def _without_name(
    caption: str, named: tuple[Mention, ...], around: tuple[Mention, ...], matched: tuple[str, ...]
) -> Assessment:
    """Judge a caption that shows no named method: by tunnelling settings, or by the article's only method."""
    current = _CURRENT.search(caption)
    bias = (_VOLTAGE if _TOPOGRAPH.search(caption) else _BIAS).search(caption)
    if bias and current and _PICTURE.search(caption):
        return Assessment("stm", CONFIDENCE["settings"], (bias.group(), current.group()), True, matched)
    methods = {mention.modality for mention in around if mention.modality in WANTED | {"afm", "sem"}}
    look = _ATOMIC.search(caption)
    if not named and look and len(methods) == 1 and methods <= WANTED:
        word = next(mention.phrase for mention in around if mention.modality in methods)
        return Assessment(methods.pop(), CONFIDENCE["context"], (look.group(), word), True, matched)
    spoken = [mention for mention in named if mention.modality in WANTED]
    evidence = tuple(dict.fromkeys(mention.phrase for mention in spoken))
    return Assessment("none", CONFIDENCE["spoken" if spoken else "nothing"], evidence, False, matched)
