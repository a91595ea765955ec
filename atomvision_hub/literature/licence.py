"""What may be passed on of an article, and under which conditions.

The rule
--------
- **bytes**: the article is under CC BY, CC BY-SA, CC BY-NC, CC BY-ND, CC BY-NC-SA, CC BY-NC-ND, CC0 or the
  public domain mark. All of them allow copies of the unchanged work, in whole or in part, free of charge.
  Figures are passed on byte for byte, never cropped or converted (no "derivative"), with authors, title,
  link and licence in the row ("attribution"). What else holds for the user stands in the row's
  `conditions`: ``noncommercial``, ``noderivatives``, ``sharealike``.
- **link**: everything else. arXiv's own non-exclusive licence allows arXiv alone to distribute; unknown
  licences allow nothing; and a figure that its caption credits to somebody else is not covered by the
  licence of the article.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atomvision_hub.literature.safe_xml import parse_xml
from atomvision_hub.literature.sites import ArticleError

if TYPE_CHECKING:
    from lxml.etree import _Element

    from atomvision_hub.literature.fetch import Fetcher
    from atomvision_hub.literature.search import Article

_RAW = "{http://arxiv.org/OAI/arXivRaw/}"
_ADDRESS = re.compile(
    r"https?://creativecommons\.org/(?:licenses/(?P<terms>by(?:-nc)?(?:-sa|-nd)?)|publicdomain/(?P<free>zero|mark))"
    r"/(?P<version>\d\.\d)(?:/[a-z]{0,4})?/?"
)
_NAME = re.compile(
    r"(?:licen[cs]e: ?)?cc[ -]?(?P<terms>by(?:[ -]nc)?(?:[ -](?:sa|nd))?|0|zero)(?:[ -](?P<version>\d\.\d))?",
    re.IGNORECASE,
)
_ARXIV = re.compile(
    r"https?://arxiv\.org/licenses/nonexclusive-distrib/1\.0/?|(?:licen[cs]e: ?)?arxiv\.org perpetual.*",
    re.IGNORECASE,
)
_CONDITIONS = {"by": "attribution", "nc": "noncommercial", "nd": "noderivatives", "sa": "sharealike"}
# Citations have up to two digits here: [001] is a direction in a crystal.
_CREDITED = re.compile(
    r"\b(?:reproduced|reprinted|redrawn|reused|adapted|adopted|modified|taken|copied|extracted)\b.{0,30}?"
    r"\b(?:from|after)\b.{0,60}?(?:\brefs?\b|\breference|\[ ?\d{1,2} ?[],;–-]|\bet al\b)"
    r"|\bcourtesy of\b|\b(?:image|photo|figure|picture) credits?\b|\bwith (?:kind )?permission\b"
    r"|\bpermission (?:of|from|by)\b|©|\bcopyright\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Licence:
    """A licence.

    Attributes
    ----------
    name
        ``"cc-by-4.0"``, ``"cc0-1.0"``, ``"arxiv-nonexclusive-1.0"``, ``"other"`` or ``"unknown"``.
    url
        Its text; empty where it is not known.
    conditions
        Any of ``attribution``, ``noncommercial``, ``noderivatives``, ``sharealike``.
    allows_copies
        Whether unchanged copies may be passed on.
    """

    name: str
    url: str
    conditions: tuple[str, ...] = ()
    allows_copies: bool = False


UNKNOWN: Final = Licence("unknown", "")


def parse_licence(text: str) -> Licence:
    """Return the licence that an address or the name on an arXiv page stands for."""
    text = " ".join(text.split())
    if not text:
        return UNKNOWN
    if _ARXIV.fullmatch(text):
        return Licence("arxiv-nonexclusive-1.0", "http://arxiv.org/licenses/nonexclusive-distrib/1.0/")
    match = _ADDRESS.fullmatch(text) or _NAME.fullmatch(text)
    if match is None:
        return Licence("other", text if text.startswith(("http://", "https://")) else "")
    terms = (match["terms"] or "").lower().replace(" ", "-")
    if "free" in match.groupdict() and match["free"]:
        terms = match["free"]
    if terms in ("zero", "0", "mark"):
        name, path = ("pdm-1.0", "mark") if terms == "mark" else ("cc0-1.0", "zero")
        return Licence(name, f"https://creativecommons.org/publicdomain/{path}/1.0/", (), True)
    version = match["version"]
    if version is None:  # a name without version pins no licence text
        return Licence("other", "")
    conditions = tuple(_CONDITIONS[part] for part in terms.split("-"))
    url = f"https://creativecommons.org/licenses/{terms}/{version}/"
    return Licence(f"cc-{terms}-{version}", url, conditions, True)


def licence_of(fetcher: Fetcher, article: Article, stated: str) -> Licence:
    """Return the licence of an article.

    Parameters
    ----------
    fetcher
        Asks arXiv's OAI-PMH service where the page says nothing.
    article
        Identifier and version.
    stated
        What the article's own page says, which is about this very version; may be empty.

    Notes
    -----
    OAI-PMH knows the licence of the newest version only: that of an older one is unknown.
    """
    if stated and (licence := parse_licence(stated)).name != "other":
        return licence
    raw = _record(fetcher, article)
    if raw is None or (article.version and article.version != _newest(raw)):
        return UNKNOWN
    return parse_licence(raw.findtext(f"{_RAW}license", ""))


def newest_version(fetcher: Fetcher, article: Article) -> int:
    """Return the number of the newest version of an article, 0 where OAI-PMH does not know it."""
    raw = _record(fetcher, article)
    return 0 if raw is None else _newest(raw)


def _record(fetcher: Fetcher, article: Article) -> _Element | None:
    query = f"verb=GetRecord&identifier=oai:arXiv.org:{article.arxiv_id}&metadataPrefix=arXivRaw"
    try:
        content = fetcher.get(f"{fetcher.sites.oai}?{query}", limit=2**20).content
        if content is None:
            return None
        raw = parse_xml(content, "the answer of OAI-PMH", step="licence").find(f".//{_RAW}arXivRaw")
    except ArticleError:
        return None
    return raw if raw is not None and raw.findtext(f"{_RAW}id", "").strip() == article.arxiv_id else None


def _newest(raw: _Element) -> int:
    numbers = [version.get("version", "").removeprefix("v") for version in raw.iterfind(f"{_RAW}version")]
    return max((int(number) for number in numbers if number.isascii() and number.isdigit()), default=0)


def is_credited(caption: str) -> bool:
    """Whether a caption credits its figure to somebody else, whose rights the article cannot grant."""
    return _CREDITED.search(caption) is not None
