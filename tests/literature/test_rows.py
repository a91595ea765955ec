"""From an article to its rows, on every road and past every trap."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atomvision_hub.errors import NetworkNeededError
from atomvision_hub.literature import source
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.images import STATUSES
from atomvision_hub.literature.modality import MODALITIES
from atomvision_hub.literature.reading import read_article
from atomvision_hub.literature.record import FigureRow
from atomvision_hub.literature.rows import figure_rows
from atomvision_hub.literature.search import Article
from atomvision_hub.literature.sites import ArticleError


def article(key: str) -> Article:
    name, version = key.rsplit("v", 1)
    return Article(
        name, int(version), "A title", "An abstract.", ("Ada Author",), ("cond-mat",), "2024-01-02"
    )


def rows(fetcher: Fetcher, key: str, **options: Any) -> list[FigureRow]:
    return list(figure_rows(fetcher, article(key), **({"relevant_only": False} | options)))


def status(row: FigureRow) -> str:
    return STATUSES[row.image_status]


def test_an_open_article(fetcher: Fetcher, arxiv_server: Any) -> None:
    found = {row.id: row for row in rows(fetcher, "2401.00001v1")}
    assert list(found) == [
        "2401.00001v1_S1.F1",
        "2401.00001v1_S1.F2",
        "2401.00001v1_S1.F3",
        "2401.00001v1_S1.F4",
        "2401.00001v1_S1.F5.sfa",
        "2401.00001v1_S1.F5.sfb",
    ]
    first = found["2401.00001v1_S1.F1"]
    served = fetcher.get(str(first.image_url)).content
    assert first.image == served  # byte for byte
    assert first.sha256 == hashlib.sha256(served or b"").hexdigest()
    assert (first.width, first.height, first.format) == (430, 200, "PNG")
    assert (first.rights, first.licence, list(first.conditions)) == ("bytes", "cc-by-4.0", ["attribution"])
    assert MODALITIES[first.modality] == "stem"
    assert first.relevant
    assert "MoS2" in first.formulas
    assert first.url == "https://arxiv.org/abs/2401.00001v1"
    assert first.pixel_size is None
    assert not found["2401.00001v1_S1.F3"].relevant
    credited = found["2401.00001v1_S1.F4"]
    assert (credited.image, credited.rights, status(credited)) == (None, "link", "credited")
    assert credited.sha256 is not None  # it was looked at
    second = found["2401.00001v1_S1.F5.sfb"]
    assert (second.part, second.part_caption, second.format) == ("b", "STM image, empty states", "WEBP")
    assert arxiv_server.requests("/oai") == []  # the page says what its licence is


def test_an_article_without_version(fetcher: Fetcher) -> None:
    from dataclasses import replace

    (row,) = figure_rows(fetcher, replace(article("2401.00002v2"), version=0))
    assert (row.id, row.version, row.licence) == ("2401.00002v2_S1.F1", 2, "arxiv-nonexclusive-1.0")


def test_nothing_more_is_asked_about_articles_without_micrographs(real_server: Any, tmp_path: Path) -> None:
    real_server.forget()
    fetcher = Fetcher(tmp_path, real_server.sites)
    assert rows(fetcher, "1708.00137v1", relevant_only=True) == []
    assert len(real_server.requests()) == 1


def test_panels(fetcher: Fetcher) -> None:
    row = rows(fetcher, "2401.00001v1")[0]
    assert row.panels.letter == ["a", "b"]
    assert row.panels.left[0] < row.panels.right[0] <= row.panels.left[1] < row.panels.right[1] <= 430
    assert "HAADF" in row.panels.caption[0]


def test_relevant_figures_alone(fetcher: Fetcher, arxiv_server: Any) -> None:
    assert len(rows(fetcher, "2401.00001v1", relevant_only=True)) == 5
    assert arxiv_server.requests("x3.png") == []


def test_links_are_looked_at_or_not(fetcher: Fetcher, arxiv_server: Any) -> None:
    (row,) = rows(fetcher, "2401.00002v2", look_at_links=False)
    assert (row.image, row.sha256, row.width, len(row.panels.left)) == (None, None, None, 0)
    assert arxiv_server.requests("x1.png") == []
    (row,) = rows(fetcher, "2401.00002v2")
    assert (row.image, status(row), row.rights, row.licence) == (
        None,
        "licence",
        "link",
        "arxiv-nonexclusive-1.0",
    )
    assert row.image_note == "licence arxiv-nonexclusive-1.0 does not allow copies"
    assert row.image_url == f"{arxiv_server.url}/html/2401.00002v2/x1.png"
    assert (row.width, row.height) == (200, 200)


def test_ar5iv_and_source(fetcher: Fetcher) -> None:
    (row,) = rows(fetcher, "1706.00003v1")
    assert (row.origin, row.rights, list(row.conditions)) == (
        "ar5iv",
        "bytes",
        ["attribution", "noncommercial", "noderivatives"],
    )
    assert row.image is not None
    found = rows(fetcher, "cond-mat/0101004v1")
    assert [(row.id.rsplit("_", 1)[1], status(row), row.format, row.part) for row in found] == [
        ("F1", "licence", "PNG", ""),
        ("F2.1", "vector", "PDF", "a"),
        ("F2.2", "vector", "EPS", "b"),
        ("F3", "missing", "", ""),
    ]
    assert {(row.origin, row.licence) for row in found} == {("source", "unknown")}
    assert found[0].id == "cond-mat_0101004v1_F1"
    assert str(found[0].image_url).endswith("/e-print/cond-mat/0101004v1#figs/stm.png")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("2401.00005v1", "neither a page nor a TeX source, only a PDF"),
        ("2401.00008v1", "there is neither a page nor a source of the article"),
        ("2402.00003v1", "the source is larger than 16 MiB"),
        ("2402.00005v1", "there is neither a page nor a source of the article"),
        ("2402.00007v1", "the source is neither a tar archive nor TeX"),
        ("2402.00008v1", "the source is no proper gzip"),
        ("2402.00009v1", "only a PDF"),
    ],
)
def test_articles_that_cannot_be_read(
    fetcher: Fetcher, key: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MOST_BYTES", 16 * 2**20)
    with pytest.raises(ArticleError, match=reason) as caught:
        read_article(fetcher, article(key))
    assert caught.value.step == "source"
    assert "\n" not in str(caught.value)


def test_an_article_without_figures(fetcher: Fetcher) -> None:
    assert rows(fetcher, "2401.00007v1") == []


def test_a_page_that_lost_its_images(fetcher: Fetcher) -> None:
    found = rows(fetcher, "2401.00010v1")
    assert {row.origin for row in found} == {"source"}
    assert (status(found[0]), found[0].rights) == ("included", "bytes")


def test_parts_that_show_something_else(fetcher: Fetcher) -> None:
    image, spectra = rows(fetcher, "2401.00011v1")
    assert (image.part, image.relevant) == ("a", True)
    assert (spectra.part, spectra.relevant) == ("b", False)
    assert image.caption == spectra.caption


def test_scale_bars(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomvision_hub.literature import scale_bar

    bar = scale_bar.ScaleBar(length=50.0, pixels=40.0, text="5 nm", box=(10, 180, 50, 184))
    monkeypatch.setattr(scale_bar, "read_scale_bar", lambda image: bar if image.width == 200 else None)
    whole, single, *_ = rows(fetcher, "2401.00001v1", scale_bars=True)
    assert (single.pixel_size, single.scale_bars.text) == (1.25, ["5 nm"])
    assert whole.pixel_size is None  # of two panels, neither may speak for the other
    assert set(whole.scale_bars.panel) <= {0, 1}


def test_bad_images(fetcher: Fetcher, arxiv_server: Any) -> None:
    found = rows(fetcher, "2402.00001v1")
    assert [status(row) for row in found] == [
        "too_large",  # 100 megapixels
        "broken",  # 80 MB of text in a small file
        "broken",  # cut
        "included",  # fewer rows than it says: black below, as browsers show it
        "format",  # a page in place of an image
        "missing",
        "unreachable",  # endless
        "unreachable",  # a gzip bomb as content encoding
        "unreachable",  # another server
        "missing",  # file:
        "unreachable",  # an address of the cloud
        "missing",  # data:
        "missing",  # no address at all
        "vector",
        "vector",
        "vector",
        "included",
    ]
    assert all((row.image is None) == (status(row) != "included") for row in found)
    assert all(bool(row.image_note) == (row.image is None) and "\n" not in row.image_note for row in found)
    assert "10000 x 10000 pixels" in found[0].image_note
    assert "not on a server of arXiv; not fetched" in found[8].image_note


def test_archives_that_reach_out(fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = rows(fetcher, "2402.00002v1")
    assert [status(row) for row in found] == ["included", "missing", "missing"]
    assert not list(tmp_path.rglob("escaped*"))


def test_a_bomb_for_a_licence_means_unknown(fetcher: Fetcher) -> None:
    (row,) = rows(fetcher, "2402.00004v1")
    assert (row.licence, row.image) == ("unknown", None)


def test_a_base_that_leads_elsewhere(fetcher: Fetcher) -> None:
    (row,) = rows(fetcher, "2402.00006v1")
    assert (status(row), row.image_url) == ("unreachable", "https://elsewhere.invalid/x1.png")


def test_images_share_a_budget(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomvision_hub.literature import rows as room

    monkeypatch.setattr(room, "ARTICLE_LIMIT", 30_000)
    found = [status(row) for row in rows(fetcher, "2401.00001v1")]
    assert found[0] == "included"
    assert "unreachable" in found


def test_a_server_that_is_gone(fetcher: Fetcher, arxiv_server: Any) -> None:
    fetcher._retries = 0
    arxiv_server.fault("/html/2401.00001v1", "status", status=503, times=99)
    with pytest.raises(NetworkNeededError):
        rows(fetcher, "2401.00001v1")


def test_images_decode(fetcher: Fetcher) -> None:
    for row in rows(fetcher, "2401.00001v1"):
        if row.image is not None:
            assert Image.open(io.BytesIO(row.image)).size == (row.width, row.height)


def test_real_articles(real_server: Any, tmp_path: Path) -> None:
    fetcher = Fetcher(tmp_path, real_server.sites)
    found = rows(fetcher, "1708.00137v1")
    assert [status(row) for row in found] == ["included"] * 4
    assert {row.licence for row in found} == {"cc-by-4.0"}
    assert not any(row.relevant for row in found)
    missing = rows(fetcher, "1803.07574v1")
    assert len(missing) == 30
    assert {status(row) for row in missing} == {"missing"}
    assert rows(fetcher, "1707.08043v1") == []
