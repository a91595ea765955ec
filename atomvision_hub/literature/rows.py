"""From the figures of an article to rows: judged by caption, looked at, and kept within their rights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from atomvision_hub.literature.article import Figure
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.formulas import elements, formulas
from atomvision_hub.literature.images import STATUSES, ImageStatus, Picture
from atomvision_hub.literature.licence import Licence, is_credited, licence_of, newest_version
from atomvision_hub.literature.modality import MODALITIES
from atomvision_hub.literature.panels import split_caption, split_panels
from atomvision_hub.literature.reading import ARTICLE_LIMIT, fetch_picture, read_article
from atomvision_hub.literature.record import FigureRow, PanelColumns, ScaleBarColumns
from atomvision_hub.literature.relevance import assess
from atomvision_hub.literature.search import Article


def figure_rows(
    fetcher: Fetcher,
    article: Article,
    *,
    relevant_only: bool = True,
    look_at_links: bool = True,
    scale_bars: bool = False,
) -> Iterator[FigureRow]:
    """Yield the rows of an article's figures.

    Parameters
    ----------
    fetcher
        Fetches page, licence and images.
    article
        Which one.
    relevant_only
        Leave out what is no STM, STEM or TEM micrograph by its caption.
    look_at_links
        Also look at images that may not be passed on, for their size, panels and checksum.
    scale_bars
        Read scale bars (extra ``[ocr]``).

    Raises
    ------
    ArticleError
        When the article cannot be read.
    """
    if not article.version:
        article = replace(article, version=newest_version(fetcher, article))
    reading = read_article(fetcher, article)
    chosen = []
    for figure in reading.figures:
        words = _words(figure)
        judged = assess(words, title=article.title, abstract=article.abstract)
        if judged.relevant or not relevant_only:
            chosen.append((figure, words, judged))
    if not chosen:
        return
    licence = licence_of(fetcher, article, reading.stated)
    budget = ARTICLE_LIMIT
    for figure, words, judged in chosen:
        allowed, why, note = _rights(licence, words)
        content, picture = None, Picture(why, note)
        if allowed or look_at_links:
            content, picture = fetch_picture(fetcher, figure, budget)
            budget -= len(content or b"")
        # A file that cannot be used is told as such, whatever its rights.
        if picture.status == "included" and not allowed:
            picture = replace(picture, status=why, note=note)
        yield FigureRow(
            id=f"{article.item_id}_{figure.name}",
            image=content if picture.status == "included" else None,
            image_status=STATUSES.index(picture.status),
            image_note=picture.note,
            rights="bytes" if allowed else "link",
            modality=MODALITIES.index(judged.modality),
            relevant=judged.relevant,
            confidence=judged.confidence,
            evidence=list(judged.evidence),
            origin=reading.origin,
            **_image_columns(content, picture.image, picture.format, words, scale_bars),
            **_figure_columns(figure),
            **_article_columns(article, licence, words),
        )


def _words(figure: Figure) -> str:
    """Return what the captions say of this very file: other parts of the figure may show something else."""
    caption = figure.caption
    texts = split_caption(caption) if figure.part else {}
    own = texts.pop(figure.part, None)
    if own is not None:
        for text in texts.values():
            if text and text not in own:
                caption = caption.replace(text, " ")
    return f"{caption} {figure.part_caption}".strip()


def _rights(licence: Licence, caption: str) -> tuple[bool, ImageStatus, str]:
    """Return whether bytes may be passed on, and the status and reason if not."""
    if not licence.allows_copies:
        return False, "licence", f"licence {licence.name} does not allow copies"
    if is_credited(caption):
        return False, "credited", "the caption credits somebody else"
    return True, "included", ""


def _image_columns(
    content: bytes | None, image: Image.Image | None, kind: str, caption: str, scale_bars: bool
) -> dict[str, Any]:
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    letters: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    bars: list[tuple[int, float, float, str]] = []
    if image is not None:
        panels = split_panels(image, caption)
        boxes, letters, captions = panels.boxes, panels.letters, panels.captions
        if scale_bars:
            from atomvision_hub.literature.scale_bar import read_scale_bar

            for index, box in enumerate(boxes):
                if (bar := read_scale_bar(image.crop(box))) is not None:
                    bars.append((index, bar.length, bar.pixels, bar.text))
    sides = np.array(boxes, np.int32).reshape(-1, 4)
    return {
        "sha256": hashlib.sha256(content).hexdigest() if content is not None else None,
        "format": kind,
        "width": image.width if image is not None else None,
        "height": image.height if image is not None else None,
        "pixel_size": bars[0][1] / bars[0][2] if len(boxes) == len(bars) == 1 else None,
        "panels": PanelColumns(
            letter=list(letters),
            left=sides[:, 0],
            top=sides[:, 1],
            right=sides[:, 2],
            bottom=sides[:, 3],
            caption=list(captions),
        ),
        "scale_bars": ScaleBarColumns(
            panel=np.array([bar[0] for bar in bars], np.int32),
            length=np.array([bar[1] for bar in bars], np.float64),
            pixels=np.array([bar[2] for bar in bars], np.float64),
            text=[bar[3] for bar in bars],
        ),
    }


def _figure_columns(figure: Figure) -> dict[str, Any]:
    return {
        "caption": figure.caption,
        "label": figure.label,
        "figure": figure.figure,
        "part": figure.part,
        "part_caption": figure.part_caption,
        "image_url": figure.image_url,
    }


def _article_columns(article: Article, licence: Licence, caption: str) -> dict[str, Any]:
    text = "\n".join((caption, article.title, article.abstract))
    return {
        "formulas": list(formulas(text)),
        "elements": list(elements(text)),
        "licence": licence.name,
        "licence_url": licence.url,
        "conditions": list(licence.conditions),
        "arxiv_id": article.arxiv_id,
        "version": article.version,
        "url": f"https://arxiv.org/abs/{article.key}",
        "title": article.title,
        "abstract": article.abstract,
        "authors": list(article.authors),
        "categories": list(article.categories),
        "published": article.published,
        "doi": article.doi,
    }
