"""Figures of an article page as LaTeXML writes it (arXiv's own pages, ar5iv)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from atomvision_hub.literature.sites import ArticleError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

#: More image files than any honest article has, and elements inside each other than any page needs; parsers
#: take the square of the latter in time.
MOST_FIGURES: Final = 1000
DEEPEST: Final = 512
_LETTER = re.compile(r"\(?\s*([A-Za-z]|[ivx]{1,4}|\d{1,2})\s*[).:]?")
_NUMBERED = re.compile(r"\s*(?:supplementary |extended data )?fig", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_IMAGE = re.compile(r"\.(png|jpe?g|gif|webp|svg|pdf|eps)$", re.IGNORECASE)
_TAG = re.compile(rb"<(/?)([a-z][a-z0-9]*)[^<>]*?(/?)>", re.IGNORECASE)
_VOID = set(b"area base br col embed hr img input link meta param source track wbr".split())
_MAIN = ".ltx_document, .ltx_page_main, .ltx_page_content"
_LICENCE = "#license-tr, .abs-license a[href], a[rel~=license][href], link[rel~=license][href]"


@dataclass(frozen=True)
class Figure:
    """One image file of a figure, or a figure without any.

    Attributes
    ----------
    name
        Unique in the article, such as ``"S5.F2.sf1"``.
    figure
        Name of the whole figure, ``"S5.F2"``.
    label
        As printed, ``"Figure 2"``; empty where there is none.
    part
        Letter of the sub-figure; empty where the figure has one image.
    caption
        Of the whole figure, mathematics as TeX between dollar signs.
    part_caption
        Of the sub-figure.
    image_url
        Where the image file is; `None` where there is none.
    content
        The image file, where it came with the article.
    note
        Why there is no image file.
    """

    name: str
    figure: str
    label: str
    part: str
    caption: str
    part_caption: str
    image_url: str | None
    content: bytes | None = None
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What an article page holds.

    Attributes
    ----------
    figures
        In the order of the page.
    licence
        Address or name of the licence that the page states; empty where it states none.
    errors
        Places where the conversion failed.
    """

    figures: tuple[Figure, ...]
    licence: str
    errors: int


def read_page(content: bytes, address: str) -> Page | None:
    """Return the figures of an article page.

    Parameters
    ----------
    content
        HTML.
    address
        Where it came from; addresses of images are relative to it.

    Returns
    -------
    Page or None
        `None` when the page is no LaTeXML article, as servers send where they have none.

    Raises
    ------
    ArticleError
        When the page has more figures than an article can have, or is nested too deeply (step ``"html"``).
    """
    from bs4 import BeautifulSoup

    if _depth(content) > DEEPEST:
        raise ArticleError(f"{address[:200]} nests more than {DEEPEST} elements; refused", step="html")
    soup = BeautifulSoup(content, "lxml")
    if soup.select_one(_MAIN) is None:
        return None
    place = soup.select_one(_LICENCE)
    href = str(place.get("href") or "") if place is not None else ""
    text = _words(place) if place is not None else ""
    figures: dict[str, Figure] = {}
    for figure in soup.select("figure.ltx_figure"):
        if figure.find_parent("figure", class_="ltx_figure") is None:
            for found in _files(figure, soup, address, len(figures)):
                figures[_unused(found.name, figures)] = found
        if len(figures) > MOST_FIGURES:
            raise ArticleError(f"{address[:200]} has more than {MOST_FIGURES} figures", step="html")
    return Page(
        tuple(_renamed(name, figure) for name, figure in figures.items()),
        href if "creativecommons" in href else text or href,
        len(soup.select(".ltx_ERROR")),
    )


def _depth(content: bytes) -> int:
    """Return how many elements are open at once, at most."""
    depth = deepest = 0
    for closing, name, empty in _TAG.findall(content):
        if closing:
            depth = max(0, depth - 1)
        elif not empty and name.lower() not in _VOID:
            depth += 1
            deepest = max(deepest, depth)
    return deepest


def _files(figure: Tag, soup: BeautifulSoup, address: str, before: int) -> Iterator[Figure]:
    name = _name(figure, f"F{before + 1}")
    label, caption = _caption(figure)
    whole = Figure(name, name, label, "", caption, "", None)
    files = [tag for tag in figure.select("img, object, embed") if _is_graphic(tag)]
    for tag in files:
        found = replace(whole, name=_name(tag, name) if len(files) > 1 else name)
        inner = tag.find_parent("figure")
        if inner is not None and inner is not figure:
            own = _name(inner, found.name)
            part, words = _caption(inner)
            if _NUMBERED.match(part):  # two figures side by side in one float
                found = Figure(own, own, part, "", words, "", None)
            else:
                found = replace(found, name=own, part=_letter(part), part_caption=words)
        url = _address(tag, soup, address)
        yield replace(found, image_url=url, note="" if url else "the image is missing in the page")
    if not files:
        drawn = figure.find("svg") is not None
        note = "drawn in the page itself (SVG)" if drawn else "the page has no image for this figure"
        yield replace(whole, note=note)


def _name(tag: Tag, otherwise: str) -> str:
    """Return the id of an element in characters that a row's identifier may have."""
    return _UNSAFE.sub("_", str(tag.get("id") or ""))[:60] or otherwise


def _is_graphic(tag: Tag) -> bool:
    if tag.find_parent("figure", class_="ltx_figure") is not tag.find_parent("figure"):
        return False  # in a table beside the figure
    return "ltx_graphics" in tag.get_attribute_list("class") or tag.name in ("object", "embed")


def _address(tag: Tag, soup: BeautifulSoup, address: str) -> str | None:
    """Return the address of the largest version of an image."""
    source = str(tag.get("src") or tag.get("data") or "").strip()
    link = tag.find_parent("a")
    if link is not None and _IMAGE.search(str(link.get("href") or "")):
        source = str(link["href"]).strip()
    sizes = [entry.split() for entry in str(tag.get("srcset") or "").split(",") if entry.strip()]
    if sizes and all(len(entry) == 2 and entry[1][:-1].replace(".", "", 1).isdigit() for entry in sizes):
        source = max(sizes, key=lambda entry: float(entry[1][:-1]))[0]
    if not source:
        return None
    base = soup.find("base", href=True)
    folder = address.rstrip("/") + "/"
    if base is None and source.split("/")[0] == urlsplit(address).path.rstrip("/").rsplit("/", 1)[-1]:
        folder = address.rstrip("/")  # a page at html/ID names its files either x1.png or ID/x1.png
    try:
        found = urljoin(urljoin(address, str(base["href"])) if base is not None else folder, source)
        return found if urlsplit(found).scheme in ("http", "https") else None
    except ValueError:
        return None


def _caption(figure: Tag) -> tuple[str, str]:
    """Return label and text of the caption that belongs to this figure and not to one inside."""
    for caption in figure.find_all("figcaption"):
        if caption.find_parent("figure") is not figure:
            continue
        tag = caption.find(class_="ltx_tag")
        label = _words(tag).strip(" :.") if tag is not None else ""
        if tag is not None:
            tag.extract()
        text = _text(caption)
        if tag is not None:
            caption.insert(0, tag)  # the caption is asked for again, once for each image
        return label, text
    return "", ""


def _text(element: Tag) -> str:
    """Return the words of an element, mathematics as TeX."""
    from bs4.element import NavigableString

    for math in element.select("math[alttext], .ltx_Math"):
        labelled = math if math.has_attr("alttext") else math.select_one("[aria-label]")
        tex = str((labelled.get("alttext") or labelled.get("aria-label") or "") if labelled else "").strip()
        # {}_{2} is how LaTeXML writes an index without a base.
        math.replace_with(NavigableString(f"${tex.removeprefix('{}')}$" if tex else math.get_text()))
    for block in element.select("br, p, div, li"):
        block.append(" ")
    for aside in element.select("script, style, button, .ltx_note"):
        aside.extract()
    return _words(element)


def _words(element: Tag) -> str:
    return " ".join(element.get_text().split())


def _letter(label: str) -> str:
    match = _LETTER.fullmatch(label.strip())
    return match.group(1).lower() if match else ""


def _unused(name: str, taken: dict[str, Figure]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _renamed(name: str, figure: Figure) -> Figure:
    return figure if figure.name == name else replace(figure, name=name)
