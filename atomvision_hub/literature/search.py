"""Which articles: searches, lists of identifiers, saved feeds and the arXiv data set of jarvis-tools."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.safe_xml import parse_xml
from atomvision_hub.literature.sites import AnswerError, ArticleError

if TYPE_CHECKING:
    import arxiv

#: Articles on one page of a search; arXiv allows 2,000 and answers small pages faster.
PAGE: Final = 100
_ID = re.compile(r"(?P<id>\d{4}\.\d{4,5}|[a-z-]{2,20}(?:\.[A-Z]{2})?/\d{7})(?:v(?P<version>[1-9]\d{0,2}))?")
_PREFIX = re.compile(
    r"(?:https?://)?(?:export\.)?arxiv\.org/(?:abs|pdf|html|e-print|src)/|arxiv:", re.IGNORECASE
)
_ATOM = "{http://www.w3.org/2005/Atom}"


@dataclass(frozen=True)
class Article:
    """One version of an article, as arXiv's metadata describe it (they are CC0).

    Attributes
    ----------
    arxiv_id
        Identifier without version: ``"2104.12255"`` or ``"quant-ph/0201082"``.
    version
        Number of the version; 0 where the source does not say.
    published
        Date of the first version, ``YYYY-MM-DD``; empty where the source does not say.
    """

    arxiv_id: str
    version: int
    title: str
    abstract: str
    authors: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    published: str = ""
    doi: str | None = None

    @property
    def key(self) -> str:
        """Identifier with version."""
        return f"{self.arxiv_id}v{self.version}" if self.version else self.arxiv_id

    @property
    def item_id(self) -> str:
        """The key in the characters that identifiers of rows may have."""
        return self.key.replace("/", "_")


def parse_id(text: str) -> tuple[str, int] | None:
    """Return identifier and version (0: not given) from an identifier or address, `None` if it is neither."""
    match = _ID.fullmatch(_PREFIX.sub("", text.strip(), count=1).removesuffix(".pdf"))
    return (match["id"], int(match["version"] or 0)) if match else None


def search(fetcher: Fetcher, query: str, limit: int | None) -> list[Article]:
    """Return the articles that a query finds, the most relevant ones first.

    Parameters
    ----------
    fetcher
        Asks arXiv and keeps the pages.
    query
        In the language of arXiv's API, such as ``abs:STEM AND cat:cond-mat.mtrl-sci``.
    limit
        Take only the first ones; arXiv gives 30,000 at most.

    Raises
    ------
    UsageError
        When arXiv does not understand the query.
    NetworkNeededError
        When arXiv cannot be reached or answers nothing useful.
    """
    import arxiv

    client = _client(fetcher.sites.api, lambda url: fetcher.get(url, keep=_worth_keeping).content)
    return _articles(client, arxiv.Search(query, max_results=limit))


def look_up(fetcher: Fetcher, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Article]:
    """Return the articles with these identifiers and versions (0: the newest); unknown ones are left out."""
    import arxiv

    client = _client(fetcher.sites.api, lambda url: fetcher.get(url, keep=_worth_keeping).content)
    found: dict[tuple[str, int], Article] = {}
    for batch in _batches(keys, PAGE):
        names = [f"{name}v{version}" if version else name for name, version in batch]
        by_id: dict[str, list[Article]] = {}
        for article in _articles(client, arxiv.Search(id_list=names, max_results=len(names))):
            by_id.setdefault(article.arxiv_id, []).append(article)
        for name, version in batch:
            for article in by_id.get(name, ()):
                if version in (0, article.version):
                    found[name, version] = article
    return found


def read_feed(path: Path) -> list[Article]:
    """Return the articles of a saved answer of arXiv's search.

    Raises
    ------
    UsageError
        When the file cannot be read, is no Atom feed or holds an error.
    """
    import arxiv

    try:
        content = path.read_bytes()
        entries = len(parse_xml(content, f"{path}", step="search").findall(f"{_ATOM}entry"))
    except (OSError, ArticleError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem.reason
        raise UsageError(
            f"cannot read the feed {path}: {reason}; save an answer of arXiv's API there"
        ) from None
    if not entries:
        return []
    # All of it is one page, whatever the feed says of the pages after it.
    return _articles(
        _client("https://saved.invalid", lambda _: content), arxiv.Search("", max_results=entries)
    )


def read_ids(path: Path) -> list[str]:
    """Return the lines of a file of identifiers, without comments (``#``) and blanks.

    Raises
    ------
    UsageError
        When the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"cannot read the identifiers in {path}: {problem}; write one a line") from None
    return [line for text in lines if (line := text.split("#")[0].strip())]


def _batches(keys: Iterable[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    rest = iter(keys)
    while batch := list(islice(rest, size)):
        yield batch


def _worth_keeping(page: bytes) -> bool:
    """Whether a page of a search is final: arXiv sometimes gives empty pages where there is more."""
    return (b"<entry" in page or b":totalResults>0<" in page) and b"/api/errors" not in page


def _articles(client: arxiv.Client, query: arxiv.Search) -> list[Article]:
    import arxiv

    articles: dict[str, Article] = {}
    try:
        for result in client.results(query):
            if (article := _article(result)) is not None:
                articles.setdefault(article.key, article)
    except AnswerError as problem:
        raise UsageError(f"arXiv refuses the search: {_explanation(problem)}; mend the query") from None
    except ArticleError as problem:
        raise NetworkNeededError(f"the search failed: {problem}; run the same command again later") from None
    except arxiv.ArxivError as problem:
        raise NetworkNeededError(
            f"the search failed: {_line(problem.message)} ({problem.url}); run the same command again later"
        ) from None
    return list(articles.values())


def _article(result: arxiv.Result) -> Article | None:
    key = parse_id(result.entry_id)
    if key is None:
        return None
    return Article(
        arxiv_id=key[0],
        version=key[1],
        title=_line(result.title),
        abstract=_line(result.summary),
        authors=tuple(_line(author.name) for author in result.authors),
        categories=tuple(result.categories),
        published=result.published.strftime("%Y-%m-%d"),
        doi=result.doi or None,
    )


def _explanation(problem: AnswerError) -> str:
    try:
        return _refusal(problem.body) or str(problem)
    except ArticleError:
        return str(problem)


def _line(text: str) -> str:
    return " ".join(text.split())


def _client(address: str, fetch: Callable[[str], bytes | None]) -> arxiv.Client:
    """Return a client of the `arxiv` package that asks through our own fetcher.

    The fetcher keeps the distance between requests and repeats what fails; a delay of the client's own would
    slow down what is in the cache. Its repetitions are for pages that come back empty by mistake.
    """
    import arxiv

    class Session:
        def get(self, url: str, **_: Any) -> Any:
            content = fetch(url)
            if content is None:
                raise AtomVisionError(f"there is no search service at {address}; unset ATOMVISION_ARXIV_API")
            if (refusal := _refusal(content)) is not None:
                raise UsageError(f"arXiv refuses the search: {refusal}; mend the query")
            return type("Page", (), {"status_code": 200, "content": content})

    client = arxiv.Client(page_size=PAGE, delay_seconds=0.0, num_retries=3)
    client.query_url_format = address.replace("{", "{{").replace("}", "}}") + "?{}"
    client._session = Session()  # noqa: SLF001 - the one place where its requests can be led elsewhere
    return client


def _refusal(page: bytes) -> str | None:
    """Return why arXiv refuses a search: it says so in an entry that is no article."""
    # Also turns away what the client's own parser, which forgives much, would take.
    for entry in parse_xml(page, "the answer", step="search").iterfind(f"{_ATOM}entry"):
        if "/api/errors" in entry.findtext(f"{_ATOM}id", ""):
            return _line(entry.findtext(f"{_ATOM}summary", ""))[:300]
    return None
