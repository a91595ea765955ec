"""The articles of the server: honest ones, each on another road."""

from __future__ import annotations

import gzip
from pathlib import Path

from .pages import (
    ARXIV,
    CC_BY,
    CC_BY_NC_ND,
    CREDITED,
    HAADF,
    PLOT,
    STM,
    TEM,
    Entry,
    compound,
    figure,
    lattice,
    page,
    source_files,
    tar,
    with_bar,
)


def panel(letter: str, source: str, caption: str) -> str:
    """A sub-figure as newer LaTeXML writes it."""
    return (
        f'<div class="ltx_flex_cell"><figure id="S1.F5.sf{letter}" class="ltx_figure ltx_figure_panel">'
        f'<img class="ltx_graphics" src="{source}"><figcaption class="ltx_caption">'
        f'<span class="ltx_tag ltx_tag_figure">({letter}) </span>{caption}</figcaption></figure></div>'
    )


PANELS = (
    '<figure id="S1.F5" class="ltx_figure"><div class="ltx_flex_figure">'
    + panel("a", "x5.png", "STM image, filled states")
    + panel("b", "x6.webp", "STM image, empty states")
    + '</div><figcaption class="ltx_caption"><span class="ltx_tag ltx_tag_figure">Figure 5: </span>'
    "STM images of Si(001).</figcaption></figure>"
)


def entries() -> list[Entry]:
    """Return the articles that every search finds, in its order."""
    return [
        Entry(
            "2401.00001v1",
            "Defects in MoS2",
            html=page(
                figure(1, HAADF, "x1.png"),
                figure(2, STM, "x2.jpg"),
                figure(3, PLOT, "x3.png"),
                figure(4, CREDITED, "x4.png"),
                PANELS,
                licence="CC BY 4.0",
                head='<base href="/html/2401.00001v1/">',
            ),
            files={
                "x1.png": compound(),
                "x2.jpg": lattice(kind="JPEG"),
                "x3.png": lattice(period=31),
                "x4.png": lattice(period=17),
                "x5.png": lattice(period=8),
                "x6.webp": lattice(period=14, kind="WEBP"),
            },
        ),
        Entry(
            "2401.00002v2",
            "Charge order in NbSe2",
            licence=ARXIV,
            html=page(figure(1, STM, "2401.00002v2/x1.png")),
            files={"x1.png": lattice(period=21)},
        ),
        Entry(
            "1706.00003v1",
            "Superlattices",
            licence=CC_BY_NC_ND,
            ar5iv=page(figure(1, TEM, "/ar5iv/1706.00003/assets/x1.png")),
            files={"assets/x1.png": lattice(period=25)},
        ),
        Entry("cond-mat/0101004v1", "Silicon surfaces", source=tar(source_files())),
        Entry("2401.00005v1", "Only a PDF", licence=CC_BY, source=b"%PDF-1.5 ..."),
        Entry(
            "2401.00006v1",
            "Drawn by TeX",
            licence=CC_BY,
            source=gzip.compress(
                b"\\documentclass{article}\\begin{document}\\begin{figure}\\caption{TEM image}\\end{figure}",
                mtime=0,
            ),
        ),
        Entry("2401.00007v1", "No figures at all", licence=CC_BY, html=page(licence="CC BY 4.0")),
        Entry("2401.00008v1", "Neither page nor source", licence=CC_BY),
        Entry(
            "2401.00009v1",
            "An older version",
            licence=CC_BY,
            newest="v3",
            html=page(figure(1, TEM, "x1.gif")),
            files={"x1.gif": lattice(period=19, kind="GIF")},
        ),
    ]


def lost() -> Entry:
    """An article whose page has lost its images, while its source has them."""
    missing = figure(1, STM, "").replace('class="ltx_graphics', 'class="ltx_missing ltx_graphics')
    return Entry("2401.00010v1", "Lost images", licence=CC_BY, html=page(missing), source=tar(source_files()))


def mixed() -> Entry:
    """An article with a figure of two files that show different things."""
    both = "(a) STM image of Au(111) at 5 K. (b) Differential conductance spectra, tip height fixed."
    inner = "".join(panel(letter, f"{letter}.png", "") for letter in "ab")
    whole = (
        f'<figure id="S1.F5" class="ltx_figure">{inner}<figcaption class="ltx_caption">'
        f'<span class="ltx_tag ltx_tag_figure">Figure 1: </span>{both}</figcaption></figure>'
    )
    files = {"a.png": lattice(), "b.png": lattice(period=30)}
    return Entry("2401.00011v1", "Gold", html=page(whole, licence="CC BY 4.0"), files=files)


def scaled() -> Entry:
    """An article with a scale bar."""
    files = {"x1.png": with_bar()}
    return Entry(
        "2401.00012v1", "A scale", html=page(figure(1, TEM, "x1.png"), licence="CC0 1.0"), files=files
    )


def real_entries(html: Path) -> list[Entry]:
    """Return articles with real LaTeXML pages."""
    folder = html / "1708.00137_engrafo"
    return [
        Entry(
            "1708.00137v1",
            "Contextuality",
            licence=CC_BY,
            html=(folder / "index.html").read_bytes(),
            files={path.name: path.read_bytes() for path in folder.glob("*.png")},
        ),
        Entry("1803.07574v1", "Water", licence=ARXIV, html=(html / "1803.07574.html").read_bytes()),
        Entry(
            "1707.08043v1",
            "Varieties",
            licence=CC_BY,
            html=(html / "1707.08043_engrafo/index.html").read_bytes(),
        ),
    ]
