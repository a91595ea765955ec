"""From an article to its figures: its page where there is one, else its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from atomvision_hub.errors import AtomVisionError
from atomvision_hub.literature.article import Figure, Page, read_page
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.images import Picture, read_picture
from atomvision_hub.literature.search import Article
from atomvision_hub.literature.sites import ArticleError
from atomvision_hub.literature.source import read_source, unpack

Origin = Literal["html", "ar5iv", "source"]
#: Largest files, in bytes: page, source, image; and all images of one article together.
PAGE_LIMIT: Final = 32 * 2**20
SOURCE_LIMIT: Final = 128 * 2**20
IMAGE_LIMIT: Final = 32 * 2**20
ARTICLE_LIMIT: Final = 512 * 2**20


@dataclass(frozen=True)
class Reading:
    """What was found of an article.

    Attributes
    ----------
    figures
        One entry an image file.
    stated
        What its own page says of the licence of this version; empty where it says nothing.
    origin
        ``"html"`` (arXiv's page), ``"ar5iv"`` or ``"source"``.
    """

    figures: tuple[Figure, ...]
    stated: str
    origin: Origin


def read_article(fetcher: Fetcher, article: Article) -> Reading:
    """Find the figures of an article.

    Raises
    ------
    ArticleError
        When none of the three roads leads to its figures.
    NetworkNeededError
        When the servers cannot be reached.
    """
    page, origin = _page(fetcher, article)
    if page is None or _lost_its_images(page):
        try:
            address = f"{fetcher.sites.eprint}/{article.key}"
            content = fetcher.get(address, limit=SOURCE_LIMIT).content
            if content is None:
                raise ArticleError("there is neither a page nor a source of the article", step="source")
            figures = read_source(unpack(content), address)
            return Reading(figures, "", "source")
        except ArticleError:
            if page is None:
                raise
    # ar5iv shows the newest version it knows; what it says of the licence may be about another version.
    return Reading(page.figures, page.licence if origin == "html" else "", origin)


def _lost_its_images(page: Page) -> bool:
    """Whether a conversion failed half-way, so that the source has more to show."""
    return not any(figure.image_url for figure in page.figures) and bool(page.errors or page.figures)


def _page(fetcher: Fetcher, article: Article) -> tuple[Page | None, Origin]:
    roads: tuple[tuple[Origin, str], ...] = (
        ("html", f"{fetcher.sites.html}/{article.key}"),
        ("ar5iv", f"{fetcher.sites.ar5iv}/{article.arxiv_id}"),
    )
    for origin, address in roads:
        try:
            answer = fetcher.get(address, limit=PAGE_LIMIT)
            page = read_page(answer.content, answer.url) if answer.content is not None else None
        except ArticleError:
            continue  # the next road may be better; the last one tells why none is
        if page is not None:
            return page, origin
    return None, "source"


def fetch_picture(fetcher: Fetcher, figure: Figure, budget: int) -> tuple[bytes | None, Picture]:
    """Return the image file of a figure and what it is.

    Parameters
    ----------
    fetcher
        Fetches it where it did not come with the article.
    figure
        Names it.
    budget
        Bytes that the images of this article may still take.
    """
    content = figure.content
    if content is None and figure.image_url is None:
        return None, Picture("missing", figure.note)
    if content is None:
        try:
            content = fetcher.get(str(figure.image_url), limit=min(IMAGE_LIMIT, max(budget, 0))).content
        except ArticleError as problem:
            return None, Picture("unreachable", _line(problem))
        if content is None:
            return None, Picture("missing", "the server does not have the image")
    elif len(content) > min(IMAGE_LIMIT, budget):
        return None, Picture("too_large", f"{len(content) / 2**20:.0f} MiB")
    return content, read_picture(content)


def _line(problem: AtomVisionError) -> str:
    return " ".join(str(problem).split())
