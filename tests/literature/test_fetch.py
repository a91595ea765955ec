"""Fetching: polite, repeated, limited, kept."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from atomvision_hub.errors import NetworkNeededError, UsageError
from atomvision_hub.literature.fetch import Fetcher, gunzip, user_agent
from atomvision_hub.literature.sites import AnswerError, ArticleError, Sites

PAGE = "/html/2401.00001v1"


def test_what_was_fetched_is_never_asked_for_again(fetcher: Fetcher, arxiv_server: Any) -> None:
    first = fetcher.get(arxiv_server.url + PAGE)
    again = Fetcher(fetcher.cache, arxiv_server.sites).get(arxiv_server.url + PAGE)
    assert first == again
    assert b"ltx_document" in (first.content or b"")
    assert len(arxiv_server.requests()) == 1


def test_the_cache_knows_limits_too(fetcher: Fetcher, arxiv_server: Any) -> None:
    size = len(fetcher.get(arxiv_server.url + PAGE).content or b"")
    with pytest.raises(ArticleError, match="is larger than"):
        fetcher.get(arxiv_server.url + PAGE, limit=size - 1)
    assert fetcher.get(arxiv_server.url + PAGE, limit=size).content


def test_absent_files_are_remembered_too(fetcher: Fetcher, arxiv_server: Any) -> None:
    assert fetcher.get(arxiv_server.url + "/html/0000.00000v1").content is None
    assert fetcher.get(arxiv_server.url + "/html/0000.00000v1").content is None
    assert len(arxiv_server.requests()) == 1


def test_a_damaged_cache_heals(fetcher: Fetcher, arxiv_server: Any) -> None:
    whole = fetcher.get(arxiv_server.url + PAGE)
    kept = fetcher.cache / "objects" / whole.sha256[:2] / whole.sha256
    kept.write_bytes(b"half")
    assert fetcher.get(arxiv_server.url + PAGE) == whole
    next((fetcher.cache / "index").rglob("*.json")).write_text("{")
    assert fetcher.get(arxiv_server.url + PAGE) == whole
    assert len(arxiv_server.requests()) == 3


def test_equal_files_are_kept_once(fetcher: Fetcher, arxiv_server: Any) -> None:
    for _ in range(2):
        fetcher.get(arxiv_server.url + PAGE)
        fetcher.get(arxiv_server.url + PAGE + "/")
    assert len([path for path in (fetcher.cache / "objects").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_servers_are_asked_again_later(slow_fetcher: Any, arxiv_server: Any, status: int) -> None:
    make, pauses = slow_fetcher
    arxiv_server.fault(PAGE, "status", status=status, times=3)
    assert make().get(arxiv_server.url + PAGE).content
    assert pauses == [0.05, 0.1, 0.2]
    assert len(arxiv_server.requests()) == 4


def test_retry_after_is_honoured(slow_fetcher: Any, arxiv_server: Any) -> None:
    make, pauses = slow_fetcher
    arxiv_server.fault(PAGE, "status", status=503, headers={"Retry-After": "17"})
    arxiv_server.fault(
        PAGE, "status", status=429, headers={"Retry-After": formatdate(time.time() + 40, usegmt=True)}
    )
    arxiv_server.fault(PAGE, "status", status=429, headers={"Retry-After": "soon"})
    assert make().get(arxiv_server.url + PAGE).content
    assert pauses[0] == 17
    assert 35 < pauses[1] <= 40
    assert pauses[2] == 0.2


def test_a_server_that_wants_hours_is_left_alone(slow_fetcher: Any, arxiv_server: Any) -> None:
    make, pauses = slow_fetcher
    arxiv_server.fault(PAGE, "status", status=429, headers={"Retry-After": "7200"})
    with pytest.raises(NetworkNeededError, match=r"is busy \(answer 429\); what was fetched is kept in"):
        make().get(arxiv_server.url + PAGE)
    assert pauses == []
    assert len(arxiv_server.requests()) == 1


def test_a_server_that_stays_busy(slow_fetcher: Any, arxiv_server: Any) -> None:
    make, pauses = slow_fetcher
    arxiv_server.fault(PAGE, "status", status=503, times=99)
    with pytest.raises(NetworkNeededError, match="run the same command again later"):
        make(retries=2).get(arxiv_server.url + PAGE)
    assert len(pauses) == 2


def test_cut_lines(slow_fetcher: Any, arxiv_server: Any) -> None:
    make, pauses = slow_fetcher
    arxiv_server.fault(PAGE, "cut", times=2)
    assert make().get(arxiv_server.url + PAGE).content
    assert len(pauses) == 2
    arxiv_server.fault("/html/2401.00002v2", "cut", times=99)
    with pytest.raises(ArticleError, match=r"cut the line \(RemoteProtocolError\), 3 times") as caught:
        make(retries=2).get(arxiv_server.url + "/html/2401.00002v2")
    assert caught.value.step == "fetch"


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = Sites(html="http://127.0.0.1:9/html")
    fetcher = Fetcher(tmp_path, sites, sleep=lambda _: None)
    with pytest.raises(NetworkNeededError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        fetcher.get("http://127.0.0.1:9/html/1")
    assert "\n" not in str(caught.value)


def test_other_answers_are_errors(fetcher: Fetcher, arxiv_server: Any) -> None:
    arxiv_server.fault(PAGE, "status", status=400)
    with pytest.raises(AnswerError, match="answered 400") as caught:
        fetcher.get(arxiv_server.url + PAGE)
    assert caught.value.body == b"busy"
    assert fetcher.get(arxiv_server.url + PAGE).content  # and are not kept


def test_one_file_may_break_the_server(slow_fetcher: Any, arxiv_server: Any) -> None:
    make, pauses = slow_fetcher
    arxiv_server.fault(PAGE, "status", status=500, times=3)
    with pytest.raises(AnswerError, match="answered 500"):
        make(retries=2).get(arxiv_server.url + PAGE)
    assert len(pauses) == 2


def test_refusals_in_a_row_mean_that_we_are_blocked(fetcher: Fetcher, arxiv_server: Any) -> None:
    arxiv_server.fault("/html/", "status", status=403, times=99)
    for version in (1, 2):
        with pytest.raises(AnswerError, match="answered 403"):
            fetcher.get(f"{arxiv_server.url}/html/2401.00001v{version}")
    with pytest.raises(NetworkNeededError, match=r"refuses to answer \(403\), perhaps to this machine"):
        fetcher.get(f"{arxiv_server.url}/html/2401.00001v3")


@pytest.mark.parametrize("path", ["endless.png", "gzip_bomb.png"])
def test_size_is_limited_while_it_comes(fetcher: Fetcher, arxiv_server: Any, path: str) -> None:
    with pytest.raises(ArticleError, match="is larger than 4 MiB"):
        fetcher.get(f"{arxiv_server.url}/html/{path}", limit=2**22)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/x.png",
        "https://example.org/x.png",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/x",
        "https://user@arxiv.org/x",
        "http://[broken",
        "//arxiv.org/x",
        "https://arxiv.org/x",  # all services are on the loopback interface here
    ],
)
def test_nothing_is_fetched_from_elsewhere(fetcher: Fetcher, address: str) -> None:
    with pytest.raises(ArticleError, match="is not on a server of arXiv; not fetched"):
        fetcher.get(address)


def test_redirects_do_not_lead_elsewhere(fetcher: Fetcher, arxiv_server: Any) -> None:
    arxiv_server.fault(
        PAGE, "status", status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"}
    )
    with pytest.raises(ArticleError, match=r"redirected to http://169\.254\.169\.254/.*, not followed"):
        fetcher.get(arxiv_server.url + PAGE)
    arxiv_server.fault(PAGE, "status", status=302, headers={"Location": PAGE}, times=99)
    with pytest.raises(ArticleError, match="is redirected for ever"):
        fetcher.get(arxiv_server.url + PAGE)


def test_requests_keep_their_distance(arxiv_server: Any, tmp_path: Path) -> None:
    fetcher = Fetcher(tmp_path, arxiv_server.sites, delay=0.3)
    for version in range(1, 4):
        fetcher.get(f"{arxiv_server.url}/html/0000.00000v{version}")
        fetcher.get(f"{arxiv_server.url}/html/0000.00000v{version}")
    times = [request["time"] for request in arxiv_server.requests()]
    assert len(times) == 3
    assert all(later - earlier >= 0.29 for earlier, later in pairwise(times))


def test_arxiv_is_asked_every_three_seconds(tmp_path: Path) -> None:
    pauses: list[float] = []
    fetcher = Fetcher(tmp_path, Sites(), sleep=pauses.append)
    fetcher._wait("https://arxiv.org/html/1")
    assert pauses == []
    (tmp_path / "last_request").touch()
    fetcher._wait("https://arxiv.org/html/1")
    assert 2.9 < pauses[0] <= 3


def test_all_workers_share_one_connection(arxiv_server: Any, tmp_path: Path) -> None:
    def work(number: int) -> None:
        fetcher = Fetcher(tmp_path, arxiv_server.sites)
        for version in range(1, 8):
            fetcher.get(f"{arxiv_server.url}/html/{number}.00000v{version}")
            fetcher.get(arxiv_server.url + PAGE)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arxiv_server.most_at_once() == 1
    assert len(arxiv_server.requests()) == 4 * 7 + 1


def test_the_client_says_who_it_is(
    fetcher: Fetcher, arxiv_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOMVISION_CONTACT", "ada@example.org")
    fetcher.get(arxiv_server.url + PAGE)
    agent = arxiv_server.requests()[0]["agent"]
    assert agent.startswith("atomvision-hub/")
    assert "ada@example.org" in agent
    monkeypatch.delenv("ATOMVISION_CONTACT")
    with pytest.raises(UsageError, match="set ATOMVISION_CONTACT to your e-mail address"):
        user_agent("https://arxiv.org/html/1")
    with pytest.raises(UsageError, match="set ATOMVISION_CONTACT"):  # before anything is asked
        Fetcher(fetcher.cache, Sites()).get("https://arxiv.org/html/2401.00001v1")


def test_sites_are_https_or_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMVISION_ARXIV_HTML", "http://mirror.example.org/html")
    with pytest.raises(UsageError, match=r"_HTML=http://mirror\.example\.org/html is no https"):
        Sites.from_environment()
    monkeypatch.setenv("ATOMVISION_ARXIV_HTML", "https://mirror.example.org/html/")
    sites = Sites.from_environment()
    assert sites.html == "https://mirror.example.org/html"
    assert sites.allows("https://mirror.example.org/x.png")
    assert sites.allows("https://static.arxiv.org/x.png")
    assert not sites.allows("https://notarxiv.org/x.png")
    assert not sites.allows("http://arxiv.org/x.png")


def test_gunzip_in_pieces() -> None:
    import gzip

    content = bytes(range(256)) * 1000
    joined = gzip.compress(content) + gzip.compress(b"more") + b"padding"
    pieces = [joined[start : start + 100] for start in range(0, len(joined), 100)]
    assert b"".join(gunzip(pieces, piece=777)) == content + b"more"
