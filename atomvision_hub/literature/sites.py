"""Which servers are asked, and how politely; and what an article can be refused for."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from urllib.parse import SplitResult, urlsplit

from atomvision_hub.errors import AtomVisionError, UsageError

#: Seconds between two requests that arXiv asks of its clients (https://info.arxiv.org/help/api/tou.html).
ARXIV_DELAY = 3.0
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class ArticleError(AtomVisionError):
    """An article, or a file of it, cannot be used.

    Parameters
    ----------
    reason
        One line: what is wrong.
    step
        Where it was refused (``"search"``, ``"fetch"``, ``"html"``, ``"source"``); becomes the `step` column
        of ``rejected.parquet``.
    """

    def __init__(self, reason: str, *, step: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step


class AnswerError(ArticleError):
    """A server answered with an error; `status` and `body` are what it said."""

    def __init__(self, address: str, status: int, body: bytes) -> None:
        super().__init__(f"{address[:200]} answered {status}", step="fetch")
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Sites:
    """Base addresses of the services; https, or plain http on the loopback interface.

    Attributes
    ----------
    api
        Search API with Atom answers.
    html
        LaTeXML pages of articles that have one.
    ar5iv
        LaTeXML pages of older articles.
    oai
        OAI-PMH endpoint, for licences.
    eprint
        Sources of articles.
    """

    api: str = "https://export.arxiv.org/api/query"
    html: str = "https://arxiv.org/html"
    ar5iv: str = "https://ar5iv.labs.arxiv.org/html"
    oai: str = "https://oaipmh.arxiv.org/oai"
    eprint: str = "https://export.arxiv.org/e-print"

    def __post_init__(self) -> None:
        for field in fields(self):
            address = getattr(self, field.name)
            if not _safe(urlsplit(address)):
                raise UsageError(
                    f"ATOMVISION_ARXIV_{field.name.upper()}={address} is no https address (nor one of this "
                    "machine); mend or unset it"
                )

    @classmethod
    def from_environment(cls) -> Sites:
        """Return arXiv's own services, but for those that ``ATOMVISION_ARXIV_API``, ``_HTML``, ... name."""
        names = [field.name for field in fields(cls)]
        given = {name: os.environ.get(f"ATOMVISION_ARXIV_{name.upper()}", "") for name in names}
        return cls(**{name: address.rstrip("/") for name, address in given.items() if address})

    def allows(self, address: str) -> bool:
        """Whether a file may be fetched from here: hosts of the services, and all of arXiv while one is."""
        try:
            parts = urlsplit(address)
            host = parts.hostname or ""
        except ValueError:
            return False
        hosts = {urlsplit(getattr(self, field.name)).netloc for field in fields(self)}
        ours = parts.netloc in hosts
        arxiv = (host == "arxiv.org" or host.endswith(".arxiv.org")) and any(
            name.endswith("arxiv.org") for name in hosts
        )
        return _safe(parts) and (ours or arxiv)


def is_loopback(address: str) -> bool:
    """Whether an address is on this very machine."""
    return (urlsplit(address).hostname or "") in _LOOPBACK


def _safe(parts: SplitResult) -> bool:
    if not parts.hostname or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
