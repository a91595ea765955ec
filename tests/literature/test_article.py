"""Figures of article pages: our own, real ones, and hostile ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from atomvision_hub.literature.article import Figure, Page, read_page
from atomvision_hub.literature.sites import ArticleError

AT = "https://arxiv.org/html/2401.00001v1"
FIGURE = (
    '<figure id="S1.F1" class="ltx_figure">{}<figcaption class="ltx_caption">'
    '<span class="ltx_tag ltx_tag_figure">Figure 1: </span>{}</figcaption></figure>'
)


def page(*figures: str, head: str = "", body: str = "") -> bytes:
    return (
        f"<html><head>{head}</head><body>{body}<article class='ltx_document'>{''.join(figures)}</article>"
    ).encode()


def read(content: bytes, address: str = AT) -> Page:
    found = read_page(content, address)
    assert found is not None
    return found


@cache
def real(path: Path) -> Page:
    return read(path.read_bytes())


def one(image: str = '<img class="ltx_graphics" src="x1.png">', caption: str = "Text", **more: str) -> Figure:
    (figure,) = read(page(FIGURE.format(image, caption), **more)).figures
    return figure


def test_label_and_caption() -> None:
    figure = one(caption="<span class='ltx_text'>An <em>STM</em> image</span><br>of\n  gold.")
    assert (figure.name, figure.label) == ("S1.F1", "Figure 1")
    assert figure.caption == "An STM image of gold."
    assert figure.image_url == f"{AT}/x1.png"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("MoS<sub class='ltx_sub'>2</sub>", "MoS2"),
        ("<math alttext='\\lambda_{1}=1'><mi>λ</mi></math>", "$\\lambda_{1}=1$"),
        ("MoS<math alttext='{}_{2}'><msub></msub></math>", "MoS$_{2}$"),
        (
            "<span class='ltx_Math'><span class='mjpage'><span aria-label='j_{2}'>j</span></span></span>",
            "$j_{2}$",
        ),
        ("a<math><mi>x</mi></math>b", "axb"),
        ("x<span class='ltx_note'>1 a footnote</span>", "x"),
        ("x<button class='sr-only'>Report issue for preceding element</button>", "x"),
        ("<span class='ltx_ERROR undefined'>\\foo</span> TEM", "\\foo TEM"),
        ("A &lt; B &amp; C", "A < B & C"),
    ],
)
def test_mathematics_stays_tex(markup: str, text: str) -> None:
    assert one(caption=markup).caption == text


@pytest.mark.parametrize(
    ("image", "more", "address"),
    [
        ('<img class="ltx_graphics" src="2401.00001v1/x1.png">', {}, f"{AT}/x1.png"),
        ('<img class="ltx_graphics" src="/html/2401.00001v1/x1.png">', {}, f"{AT}/x1.png"),
        ('<img class="ltx_graphics" src="x1.png">', {"head": '<base href="/html/9v1/">'}, "https://arxiv.org/html/9v1/x1.png"),
        ('<img class="ltx_graphics" src="s.png" srcset="m.png 1x, l.png 2x">', {}, f"{AT}/l.png"),
        ('<img class="ltx_graphics" src="s.png" srcset="m.png 100w, l.png 50w">', {}, f"{AT}/m.png"),
        ('<img class="ltx_graphics" src="s.png" srcset="nonsense">', {}, f"{AT}/s.png"),
        ('<a href="large.jpg"><img class="ltx_graphics" src="s.png"></a>', {}, f"{AT}/large.jpg"),
        ('<a href="page.html"><img class="ltx_graphics" src="s.png"></a>', {}, f"{AT}/s.png"),
        ('<object class="ltx_graphics" data="fig.svg" type="image/svg+xml"></object>', {}, f"{AT}/fig.svg"),
        ('<img class="ltx_graphics ltx_missing ltx_missing_image" src="">', {}, None),
        ('<img class="ltx_graphics" src="data:image/png;base64,AAAA">', {}, None),
        ('<img class="ltx_graphics" src="http://[broken">', {}, None),
        ('<img class="ltx_graphics" src="javascript:alert(1)">', {}, None),
        ('<img class="ltx_graphics" src="file:///etc/passwd">', {}, None),
    ],
)  # fmt: skip
def test_addresses_of_images(image: str, more: dict[str, str], address: str | None) -> None:
    figure = one(image, **more)
    assert figure.image_url == address
    assert bool(figure.note) == (address is None)


def test_sub_figures() -> None:
    inner = (
        '<figure id="S1.F1.sf{0}" class="ltx_figure"><img class="ltx_graphics" src="{0}.png"><figcaption>'
        '<span class="ltx_tag ltx_tag_figure">({0}) </span>part {0}</figcaption></figure>'
    )
    found = read(page(FIGURE.format(inner.format("a") + inner.format("b"), "Whole"))).figures
    assert [(f.name, f.figure, f.part, f.caption, f.part_caption) for f in found] == [
        ("S1.F1.sfa", "S1.F1", "a", "Whole", "part a"),
        ("S1.F1.sfb", "S1.F1", "b", "Whole", "part b"),
    ]


def test_several_images_without_letters() -> None:
    images = '<img class="ltx_graphics" id="g1" src="1.png"><img class="ltx_graphics" src="2.png">'
    images += '<img class="ltx_graphics" src="3.png"><img class="icon" src="logo.png">'
    found = read(page(FIGURE.format(images, "Whole"))).figures
    assert [figure.name for figure in found] == ["g1", "S1.F1", "S1.F1-2"]
    assert {figure.label for figure in found} == {"Figure 1"}


def test_two_figures_in_one_float() -> None:
    inner = (
        '<figure id="S1.F1.fig{0}" class="ltx_figure ltx_figure_panel ltx_minipage">'
        '<img class="ltx_graphics" src="{0}.png"><figcaption><span class="ltx_tag ltx_tag_figure">'
        '<span class="ltx_text">Figure {0}</span>: </span>Image {0}</figcaption></figure>'
    )
    table = '<figure class="ltx_table ltx_figure_panel"><img class="ltx_graphics" src="t.png"></figure>'
    outer = f'<figure id="S1.F1" class="ltx_figure">{inner.format(1)}{inner.format(2)}{table}</figure>'
    found = read(page(outer)).figures
    assert [(f.name, f.figure, f.label, f.part, f.caption) for f in found] == [
        ("S1.F1.fig1", "S1.F1.fig1", "Figure 1", "", "Image 1"),
        ("S1.F1.fig2", "S1.F1.fig2", "Figure 2", "", "Image 2"),
    ]


def test_what_is_no_figure() -> None:
    table = '<figure class="ltx_table"><img class="ltx_graphics" src="t.png"></figure>'
    algorithm = '<figure class="ltx_float ltx_algorithm"></figure>'
    found = read(page(table, algorithm, '<p class="ltx_ERROR">?</p>'))
    assert found == Page((), "", 1)


def test_figures_without_a_file() -> None:
    assert one("<svg></svg>").note == "drawn in the page itself (SVG)"
    assert one("").note == "the page has no image for this figure"


def test_figures_without_a_name() -> None:
    bare = '<figure class="ltx_figure"><img class="ltx_graphics" src="1.png"></figure>'
    assert [figure.name for figure in read(page(bare, bare)).figures] == ["F1", "F2"]


def test_names_have_few_characters() -> None:
    odd = '<figure class="ltx_figure" id="../x y\n|&quot;ä"><img class="ltx_graphics" src="1.png"></figure>'
    assert [figure.name for figure in read(page(odd, odd)).figures] == [".._x_y_", ".._x_y_-2"]


def test_pages_that_are_no_articles() -> None:
    assert read_page(b"<html><body>No HTML for this paper</body></html>", AT) is None
    assert read_page(b"", AT) is None
    assert read_page(bytes(range(256)) * 100, AT) is None


@pytest.mark.parametrize(
    ("head", "body", "licence"),
    [
        ("", "", ""),
        ("", '<a id="license-tr" href="/help">License: CC BY 4.0</a>', "License: CC BY 4.0"),
        ("", '<a rel="license" href="http://creativecommons.org/licenses/by/4.0/">x</a>', "http://creativecommons.org/licenses/by/4.0/"),
        ('<link rel="license" href="http://arxiv.org/licenses/nonexclusive-distrib/1.0/">', "", "http://arxiv.org/licenses/nonexclusive-distrib/1.0/"),
    ],
)  # fmt: skip
def test_licence_of_the_page(head: str, body: str, licence: str) -> None:
    assert read(page(head=head, body=body)).licence == licence


def test_hostile_pages() -> None:
    with pytest.raises(ArticleError, match="nests more than 512 elements; refused") as caught:
        read_page(page("<div>" * 100_000), AT)
    assert caught.value.step == "html"
    with pytest.raises(ArticleError, match="has more than 1000 figures"):
        read_page(page('<figure class="ltx_figure"></figure>' * 1500), AT)
    script = one(caption="<script>alert(1)</script>Text<style>x</style>")
    assert script.caption == "Text"
    assert one(
        caption="a&#xD800;&#0;\ud800b".encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    ).caption
    entities = page(FIGURE.format("", "&bomb;"), head='<!DOCTYPE x [<!ENTITY bomb "ha">]>')
    assert "ha" not in read(entities).figures[0].caption


@pytest.mark.parametrize(
    ("name", "files", "figures", "labels", "missing"),
    [
        ("1708.00137_engrafo/index.html", 4, 3, {"Figure 1", "Figure 2", "Figure 3"}, 0),
        ("1708.00137.html", 4, 3, {"Figure 1", "Figure 2", "Figure 3"}, 2),
        ("1803.07574.html", 30, 13, {f"Figure {n}" for n in range(1, 14)}, 30),
        ("1707.08043_engrafo/index.html", 0, 0, set(), 0),
    ],
)
def test_real_pages(
    shared_data: Path, name: str, files: int, figures: int, labels: set[str], missing: int
) -> None:
    found = real(shared_data / "literature" / "html" / name).figures
    assert len(found) == files
    assert len({figure.figure for figure in found}) == figures
    assert {figure.label for figure in found} == labels
    assert sum(figure.image_url is None for figure in found) == missing
    assert all(figure.caption and "ltx" not in figure.caption for figure in found)


def test_a_real_page_in_detail(shared_data: Path) -> None:
    page = real(shared_data / "literature" / "html" / "1708.00137_engrafo" / "index.html")
    found = {figure.name: figure for figure in page.figures}
    assert found["S5.F2.sf2"].part == "b"
    assert found["S5.F2.sf2"].image_url == f"{AT}/figure2b.png"
    assert found["S5.F2.sf2"].caption.startswith(
        "Classical process with ontological interpretation. (a) We assign"
    )
    assert "$\\lambda_{j}$, $j=1,2,\\dots$." in found["A1.F3"].caption
