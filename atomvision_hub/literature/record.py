"""What a row of figures from the literature is made of."""

from __future__ import annotations

from typing import Annotated, Any

from atomvision_hub.literature.images import STATUSES
from atomvision_hub.literature.modality import MODALITIES
from atomvision_hub.records import Column, Record


class PanelColumns(Record):
    """The panels of a figure: equally long columns, boxes in pixels of the image."""

    letter: Annotated[Any, Column("string", "Letter; empty where there is none", shape=(None,))]
    left: Annotated[Any, Column("int32", "First column of the panel", "px", (None,))]
    top: Annotated[Any, Column("int32", "First row of the panel", "px", (None,))]
    right: Annotated[Any, Column("int32", "Column after the last one", "px", (None,))]
    bottom: Annotated[Any, Column("int32", "Row after the last one", "px", (None,))]
    caption: Annotated[Any, Column("string", "What the caption says of this panel", shape=(None,))]


class ScaleBarColumns(Record):
    """Scale bars that were read with certainty, one entry each."""

    panel: Annotated[Any, Column("int32", "Index of its panel in `panels`", shape=(None,))]
    length: Annotated[Any, Column("float64", "What the text beside the bar says", "Å", (None,))]
    pixels: Annotated[Any, Column("float64", "Length of the bar", "px", (None,))]
    text: Annotated[Any, Column("string", "The text as read", shape=(None,))]


class FigureRow(Record):
    """One image file of a figure, with what article, caption and image say of it."""

    id: Annotated[str, Column("string", "Article, version and figure")]
    image: Annotated[
        bytes | None,
        Column("image", "The image file byte for byte, where it may be passed on", nullable=True),
    ]
    caption: Annotated[str, Column("string", "Caption of the whole figure; mathematics as TeX between $")]
    label: Annotated[str, Column("string", "Label as printed, such as 'Figure 2'")]
    figure: Annotated[str, Column("string", "Name of the figure in the article; its files share it")]
    part: Annotated[str, Column("string", "Letter of the sub-figure, where the figure has several files")]
    part_caption: Annotated[str, Column("string", "Caption of the sub-figure")]
    modality: Annotated[
        int, Column("class_label", "What the caption says the figure shows", names=MODALITIES)
    ]
    relevant: Annotated[bool, Column("bool", "Whether it is an STM, STEM or TEM micrograph, by its caption")]
    confidence: Annotated[float, Column("float32", "Estimated probability that `relevant` is right")]
    evidence: Annotated[Any, Column("string", "Phrases that decided about the modality", shape=(None,))]
    formulas: Annotated[
        Any,
        Column(
            "string",
            "Reduced formulas named in caption, title or abstract, spelled as in the crystals' datasets",
            shape=(None,),
        ),
    ]
    elements: Annotated[Any, Column("string", "Elements in these formulas", shape=(None,))]
    image_url: Annotated[
        str | None,
        Column("string", "Where the image file is; after # the file in a source archive", nullable=True),
    ]
    image_status: Annotated[
        int, Column("class_label", "Whether the image is included, or why not", names=STATUSES)
    ]
    image_note: Annotated[str, Column("string", "Why the image is not included, in words")]
    sha256: Annotated[
        str | None, Column("string", "SHA-256 of the image file, where it was looked at", nullable=True)
    ]
    format: Annotated[str, Column("string", "PNG, JPEG, GIF, WEBP, PDF, EPS, SVG; empty if unknown")]
    width: Annotated[int | None, Column("int32", "Columns of the image", "px", nullable=True)]
    height: Annotated[int | None, Column("int32", "Rows of the image", "px", nullable=True)]
    pixel_size: Annotated[
        float | None,
        Column("float64", "Pixel size of a figure of one panel, by its scale bar", "Å/px", nullable=True),
    ]
    panels: PanelColumns
    scale_bars: ScaleBarColumns
    rights: Annotated[str, Column("string", "'bytes': the image may be passed on; 'link': only its address")]
    licence: Annotated[str, Column("string", "Licence of the article, such as 'cc-by-4.0', or 'unknown'")]
    licence_url: Annotated[str, Column("string", "Text of the licence")]
    conditions: Annotated[
        Any,
        Column(
            "string", "Of the licence: attribution, noncommercial, noderivatives, sharealike", shape=(None,)
        ),
    ]
    arxiv_id: Annotated[str, Column("string", "Article, without version; no split tears it apart")]
    version: Annotated[int, Column("int32", "Version of the article; 0 where it is not known")]
    url: Annotated[str, Column("string", "Page of the article, to be named when the figure is used")]
    title: Annotated[str, Column("string", "Title of the article")]
    abstract: Annotated[str, Column("string", "Abstract of the article (arXiv's metadata are CC0)")]
    authors: Annotated[Any, Column("string", "Authors, to be named when the figure is used", shape=(None,))]
    categories: Annotated[Any, Column("string", "Categories of arXiv, the primary one first", shape=(None,))]
    published: Annotated[str, Column("string", "Date of the first version, YYYY-MM-DD")]
    doi: Annotated[str | None, Column("string", "DOI of the published article", nullable=True)]
    origin: Annotated[str, Column("string", "Where the figure was found: 'html', 'ar5iv' or 'source'")]
