"""Searches, lists of identifiers, saved feeds, and the data set of jarvis-tools."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.search import parse_id, read_feed, read_ids, search
from atomvision_hub.literature.sources import open_sources

OURS = [
    "2401.00001v1",
    "2401.00002v2",
    "1706.00003v1",
    "cond-mat/0101004v1",
    "2401.00005v1",
    "2401.00006v1",
    "2401.00007v1",
    "2401.00008v1",
    "2401.00009v1",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2104.12255", ("2104.12255", 0)),
        ("2104.12255v12", ("2104.12255", 12)),
        ("arXiv:0704.0001v1", ("0704.0001", 1)),
        ("https://arxiv.org/abs/quant-ph/0201082v1", ("quant-ph/0201082", 1)),
        ("http://arxiv.org/pdf/2104.12255v1.pdf", ("2104.12255", 1)),
        ("math.GT/0309136", ("math.GT/0309136", 0)),
        ("2104.12255v0", None),
        ("2104.12255/../x", None),
        ("210.12255", None),
        ("https://example.org/abs/2104.12255", None),
        ("", None),
    ],
)
def test_identifiers(text: str, found: tuple[str, int] | None) -> None:
    assert parse_id(text) == found


def test_a_search_of_several_pages(fetcher: Fetcher, arxiv_server: Any) -> None:
    articles = search(fetcher, "all:STM", None)
    assert [article.key for article in articles] == OURS
    assert len(arxiv_server.requests("/api")) == 3
    first = articles[0]
    assert first.title == "Defects in MoS2"
    assert (
        first.abstract == "We study Defects in MoS2 by scanning tunneling microscopy and electron microscopy."
    )
    assert first.authors == ("Ada Author", "Bo Bräuer")
    assert first.categories == ("cond-mat.mtrl-sci", "cond-mat.mes-hall")
    assert (first.published, first.doi) == ("2024-01-02", "10.1000/2401.00001")
    assert articles[3].item_id == "cond-mat_0101004v1"


def test_a_search_comes_from_the_cache(fetcher: Fetcher, arxiv_server: Any) -> None:
    first = search(fetcher, "all:STM", 5)
    assert len(first) == 5
    assert len(arxiv_server.requests()) == 2
    assert search(fetcher, "all:STM", 5) == first
    assert search(fetcher, "nothing", None) == search(fetcher, "nothing", None) == []
    assert len(arxiv_server.requests()) == 3


def test_pages_that_are_empty_by_mistake(fetcher: Fetcher, arxiv_server: Any) -> None:
    arxiv_server.fault("start=4", "empty", times=2)
    assert len(search(fetcher, "all:STM", None)) == len(OURS)
    arxiv_server.fault("search_query=other&", "empty", times=1)
    arxiv_server.fault("search_query=more", "status", status=503, times=1)
    assert len(search(fetcher, "more", None)) == len(OURS)


def test_pages_that_stay_empty(fetcher: Fetcher, arxiv_server: Any) -> None:
    arxiv_server.fault("start=4", "empty", times=99)
    with pytest.raises(NetworkNeededError, match="the search failed: Page of results was unexpectedly empty"):
        search(fetcher, "all:STM", None)


def test_refused_queries(fetcher: Fetcher) -> None:
    with pytest.raises(UsageError, match="arXiv refuses the search: incorrect query; mend the query"):
        search(fetcher, "wrong", None)


def test_entity_bombs_in_answers(fetcher: Fetcher) -> None:
    with pytest.raises(
        NetworkNeededError, match=r"the answer (declares a document type|is no well-formed XML)"
    ):
        search(fetcher, "bomb", None)


def test_lists_of_identifiers(fetcher: Fetcher, arxiv_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(
        "# mine\n2401.00002v2\n\nhttps://arxiv.org/abs/cond-mat/0101004  # old\n2401.00001\n9999.99999\n"
        "2401.00001v7\nnonsense/../x\n2401.00002v2\n"
    )
    found = open_sources([f"ids:{path}"], fetcher)
    assert list(found.articles) == ["2401.00002v2", "cond-mat_0101004v1", "2401.00001v1"]
    assert found.refused == [
        ("2401.00001v7", "ids:ids.txt", "arXiv does not know this identifier"),
        ("9999.99999", "ids:ids.txt", "arXiv does not know this identifier"),
        ("nonsense_.._x", "ids:ids.txt", "'nonsense/../x' is no identifier of arXiv"),
    ]
    assert len(arxiv_server.requests()) == 1
    with pytest.raises(UsageError, match="cannot read the identifiers in"):
        read_ids(tmp_path / "none.txt")


def test_sources_are_joined(fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("2401.00001v1\n2401.00009v1\n")
    found = open_sources([f"ids:{tmp_path / 'ids.txt'}", "query:all:STM"], fetcher)
    assert len(found.articles) == len(OURS)
    assert found.origins["2401.00009v1"] == "ids:ids.txt"
    assert [info.name for info in found.infos] == ["ids:ids.txt", "query:all:STM"]
    assert len(open_sources(["query:all:STM"], fetcher, limit=2).articles) == 2


def test_versions_of_one_article(fetcher: Fetcher) -> None:
    from dataclasses import replace

    found = open_sources(["query:all:STM"], fetcher)
    info, article = found.infos[0], found.articles["2401.00001v1"]
    found.add(info, [replace(article, version=3), replace(article, version=2)])
    assert found.older() == {"2401.00001v1": "2401.00001v3", "2401.00001v2": "2401.00001v3"}


@pytest.mark.parametrize("source", ["reference", "query:", "query: ", "ids:", "jarvis:other", "feed:"])
def test_unknown_sources(fetcher: Fetcher, source: str) -> None:
    with pytest.raises(UsageError, match="is no source of articles; write one of query:TEXT, ids:FILE"):
        open_sources([source], fetcher)


# --- saved feeds ---


def test_saved_feeds(fetcher: Fetcher, arxiv_server: Any, tmp_path: Path) -> None:
    url = f"{arxiv_server.url}/api?search_query=all:STM&start=4"
    (tmp_path / "page.xml").write_bytes(fetcher.get(url).content or b"")
    assert [article.key for article in read_feed(tmp_path / "page.xml")] == OURS[4:8]


def test_saved_feeds_mean_no_harm(tmp_path: Path, repository: Path) -> None:
    bomb = '<!DOCTYPE feed [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><feed xmlns="http://www.w3.org/2005/Atom">&b;</feed>'
    for name, text, reason in [
        ("bomb", bomb, "declares a document type"),
        ("utf16", bomb.encode("utf-16"), "declares a document type"),
        ("outside", bomb.replace('"ha"', 'SYSTEM "file:///etc/passwd"'), "declares a document type"),
        ("html", "<html><p>Not found</html>", "is no well-formed XML"),
        ("empty", "", "is no well-formed XML"),
    ]:
        path = tmp_path / f"{name}.xml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UsageError, match=rf"cannot read the feed .*{name}.xml {reason}") as caught:
            read_feed(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot read the feed"):
        read_feed(tmp_path / "none.xml")


def test_real_feeds(shared_data: Path) -> None:
    folder = shared_data / "literature" / "feeds"
    pages = [read_feed(path) for path in sorted(folder.glob("q_testing_*"))]
    assert [len(page) for page in pages] == [10, 10, 10]
    assert read_feed(next(folder.glob("id_0000*"))) == []
    (zero,) = read_feed(next(folder.glob("id_2104*")))
    assert (zero.key, zero.title, zero.categories) == ("2104.12255v1", "0", ("cs.CR",))
    assert read_feed(folder / "au_del_maestro.xml")[0].authors == ("Adrian Del Maestro",)
    with pytest.raises(UsageError, match="arXiv refuses the search: incorrect id format for abc"):
        read_feed(next(folder.glob("id_abc*")))


def test_real_pages_of_a_search(real_server: Any, tmp_path: Path) -> None:
    articles = search(Fetcher(tmp_path, real_server.sites), "all:testing", 25)
    assert len({article.key for article in articles}) == 25
    assert articles[0].key == "2202.12139v1"


# --- jarvis-tools ---


def write_store(folder: Path, entries: Any) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(folder / "arXivdataset.json.zip", "w") as archive:
        archive.writestr("arXivdataset.json", json.dumps(entries))
    return folder


ENTRIES = [
    {
        "id": "0704.0001",
        "authors": "C. Bal\\'azs, E. L. Berger",
        "authors_parsed": [["Balázs", "C.", ""], ["Berger", "E. L.", ""]],
        "title": "Scanning tunneling\n  microscopy of graphene",
        "categories": "cond-mat.mtrl-sci physics.ins-det",
        "abstract": "  We show STM images.\n",
        "doi": "10.1/x",
        "versions": [
            {"version": "v1", "created": "Mon, 2 Apr 2007 19:18:42 GMT"},
            {"version": "v2", "created": "Tue, 24 Jul 2007 20:10:27 GMT"},
        ],
    },
    {
        "id": "0704.0002",
        "title": "Embryonic stem cells and the system",
        "abstract": "It stems from.",
        "versions": [],
    },
    {"id": "no id", "title": "STM", "abstract": "STM images"},
    {
        "id": "0704.0003",
        "title": "TEM images of Au",
        "abstract": "HRTEM images are shown.",
        "authors": "A. B, C. D",
    },
]


def test_articles_of_jarvis_tools(fetcher: Fetcher, arxiv_server: Any, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", ENTRIES)
    found = open_sources(["jarvis:arxiv"], fetcher, store_dir=store)
    assert list(found.articles) == ["0704.0001", "0704.0003"]
    first = found.articles["0704.0001"]
    assert first.title == "Scanning tunneling microscopy of graphene"
    assert first.authors == ("C. Balázs", "E. L. Berger")
    assert (first.published, first.doi) == ("2007-04-02", "10.1/x")
    assert found.articles["0704.0003"].authors == ("A. B", "C. D")
    assert open_sources(["jarvis:arxiv"], fetcher, store_dir=store).articles == found.articles
    assert arxiv_server.requests() == []


@pytest.mark.parametrize("entries", [{"a": 1}, [3], "text"])
def test_another_file_in_its_place(fetcher: Fetcher, tmp_path: Path, entries: Any) -> None:
    store = write_store(tmp_path / "store", entries)
    with pytest.raises(AtomVisionError, match="is not jarvis-tools' arXiv file"):
        open_sources(["jarvis:arxiv"], fetcher, store_dir=store)


def test_without_a_network(fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jarvis.db import figshare

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(figshare.requests, "get", refuse)
    with pytest.raises(
        NetworkNeededError, match=r"cannot download https://.*; fetch it as .* or give --store-dir"
    ):
        open_sources(["jarvis:arxiv"], fetcher, store_dir=tmp_path / "store")
