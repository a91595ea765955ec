"""Whatever comes in: a value or an `ArticleError`, never another exception."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atomvision_hub.literature.article import read_page
from atomvision_hub.literature.images import STATUSES, read_picture
from atomvision_hub.literature.licence import is_credited, parse_licence
from atomvision_hub.literature.safe_xml import parse_xml
from atomvision_hub.literature.search import parse_id
from atomvision_hub.literature.sites import ArticleError, Sites
from atomvision_hub.literature.source import Source, read_source, unpack
from atomvision_hub.literature.tex import plain

AT = "https://arxiv.org/html/2401.00001v1"
TEX = rb"""\documentclass{a}\graphicspath{{f/}}\begin{figure}\subfigure[A]{\includegraphics[width=1]{x}}
\begin{subfigure}{1cm}\includegraphics{y}\caption{B}\end{subfigure}
\caption[s]{MoS$_2$ \"o~\cite{z}}\end{figure}"""
PAGE = b"""<html><base href="/html/"><body class="ltx_document"><figure id="F1" class="ltx_figure">
<figure class="ltx_figure"><img class="ltx_graphics" src="x.png" srcset="a 1x, b 2x"></figure><a href="y.png">
<object class="ltx_graphics" data="z.svg"></object></a><figcaption><span class="ltx_tag">Figure 1: </span>
<math alttext="{}_{2}"><mi>2</mi></math><span class="ltx_note">n</span></figcaption></figure></body></html>"""
FEED = b"""<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><entry><id>x</id></entry></feed>"""


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("main.tex", TEX), ("f/x.png", b"1"), ("ä" * 120 + ".png", b"2")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(stream, kind)
    return stream.getvalue()


@st.composite
def damaged(draw: st.DrawFn, *seeds: bytes) -> bytes:
    """A file with some bytes changed, and perhaps cut."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 12))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(len(content) // 2, len(content)))])


def quietly(examples: int) -> settings:
    return settings(deadline=None, derandomize=True, max_examples=examples)


@quietly(150)
@given(damaged(*(picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP"))))
def test_images(content: bytes) -> None:
    found = read_picture(content)
    assert found.status in STATUSES
    assert (found.image is not None) == (found.status == "included")
    assert "\n" not in found.note


@quietly(150)
@given(damaged(archive(), gzip.compress(archive(), mtime=0), TEX))
def test_sources(content: bytes) -> None:
    with contextlib.suppress(ArticleError):
        source = unpack(content)
        assert not any(path.startswith("/") or ".." in path.split("/") for path in source.files)
        read_source(source, AT)


@quietly(100)
@given(damaged(TEX, TEX * 3))
def test_documents(content: bytes) -> None:
    with contextlib.suppress(ArticleError):
        for figure in read_source(Source({"main.tex": content, "f/x.png": b""}), AT):
            figure.caption.encode("utf-8")


@quietly(150)
@given(damaged(PAGE, PAGE.replace(b"</figure>", b"")))
def test_pages(content: bytes) -> None:
    with contextlib.suppress(ArticleError):
        page = read_page(content, AT)
        for figure in page.figures if page else ():
            (figure.caption + figure.label + figure.name).encode("utf-8")
            assert (figure.image_url is None) == bool(figure.note)


@quietly(100)
@given(damaged(FEED))
def test_xml(content: bytes) -> None:
    with contextlib.suppress(ArticleError):
        parse_xml(content, "it", step="search")


@quietly(150)
@given(st.text(alphabet=st.sampled_from("\\{}[]$%~'\"`^abAI&#_ \n-"), max_size=60))
def test_tex_never_breaks(text: str) -> None:
    assert "\n" not in plain(text)


@quietly(100)
@given(st.text(max_size=80))
def test_words_never_break(text: str) -> None:
    is_credited(text)
    Sites().allows(text)
    assert parse_licence(text).allows_copies is False
    assert parse_id(text) is None


@quietly(60)
@given(st.integers(0, 9999), st.integers(0, 99999), st.integers(0, 999))
def test_identifiers_survive(month: int, number: int, version: int) -> None:
    name = f"{month:04d}.{number:05d}"
    text = f"https://arxiv.org/abs/{name}v{version}" if version else name
    assert parse_id(text) == (name, version)
