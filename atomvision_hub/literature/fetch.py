"""One polite way to the network: spaced requests, one connection, retries, limits, and a cache on disk."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx
from filelock import FileLock

from atomvision_hub import __version__
from atomvision_hub._files import write_bytes, write_json
from atomvision_hub.errors import NetworkNeededError, UsageError
from atomvision_hub.literature.sites import ARXIV_DELAY, AnswerError, ArticleError, Sites, is_loopback

#: Largest file that is taken unless the caller says otherwise, in bytes.
LIMIT: Final = 64 * 2**20
#: Longest time that one answer may take, in seconds: slow lines pass, endless drips do not.
DEADLINE: Final = 900.0
#: Longest pause that a server may ask for, in seconds; what asks for more is asked another day.
LONGEST_PAUSE: Final = 600.0
_ABSENT = {404, 410}
_BUSY = {429, 500, 502, 503, 504}
#: Refusals (403) in a row after which we take ourselves for blocked.
_REFUSALS = 3
_REDIRECT = {301, 302, 303, 307, 308}
_HOPS = 5


@dataclass(frozen=True)
class Answer:
    """What a server said, now or earlier.

    Attributes
    ----------
    url
        The address that answered, after redirects.
    content
        The body, decoded; `None` where the server has no such file.
    """

    url: str
    content: bytes | None

    @property
    def sha256(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.content or b"").hexdigest()


class Fetcher:
    """Fetches files and keeps them: what was fetched once is never asked for again.

    All processes that share the cache share one connection and one clock, so that a build with many workers
    is as polite as one with a single worker. That a file is absent is kept as well: remove the cache to ask
    anew.

    Parameters
    ----------
    cache
        Folder for what was fetched: bodies under the name of their SHA-256, and an index by address.
    sites
        Which servers may be asked.
    delay
        Seconds between two requests; by default 3 for servers, 0 for the loopback interface.
    retries
        Attempts after the first one when a server is busy or a line is cut.
    sleep
        Replaces `time.sleep` in tests.
    """

    def __init__(
        self,
        cache: Path,
        sites: Sites | None = None,
        *,
        delay: float | None = None,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cache = cache
        self.sites = sites or Sites.from_environment()
        self._delay = delay
        self._retries = retries
        self._sleep = sleep
        self._client: httpx.Client | None = None
        self._refusals = 0

    def get(self, address: str, *, limit: int = LIMIT, keep: Callable[[bytes], bool] | None = None) -> Answer:
        """Return a file from the cache or from its server.

        Parameters
        ----------
        address
            https, or http on the loopback interface.
        limit
            Largest body, in bytes.
        keep
            Whether an answer is worth keeping; by default all are.

        Raises
        ------
        ArticleError
            When this file cannot be had (step ``"fetch"``): refused address, too large, always cut.
        NetworkNeededError
            When the server cannot be reached or stays busy; what was fetched is kept.
        UsageError
            When arXiv would be asked without a contact.
        """
        if not self.sites.allows(address):
            raise ArticleError(f"{address[:200]} is not on a server of arXiv; not fetched", step="fetch")
        if (found := self._cached(address)) is not None:
            return _within(found, limit, address)
        user_agent(address)  # asks for a contact before anybody waits
        with FileLock(self.cache / "connection.lock"):
            if (found := self._cached(address)) is not None:  # another worker was quicker
                return _within(found, limit, address)
            url, content = self._retrying(address, limit)
            if content is None or keep is None or keep(content):
                self._store(address, url, content)
            return Answer(url, content)

    def _index(self, address: str) -> Path:
        name = hashlib.sha256(address.encode()).hexdigest()
        return self.cache / "index" / name[:2] / f"{name}.json"

    def _object(self, sha256: str) -> Path:
        return self.cache / "objects" / sha256[:2] / sha256

    def _cached(self, address: str) -> Answer | None:
        try:
            entry = json.loads(self._index(address).read_bytes())
            if entry["sha256"] is None:
                return Answer(entry["url"], None)
            answer = Answer(entry["url"], self._object(entry["sha256"]).read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # A damaged file is fetched again.
        return answer if answer.sha256 == entry["sha256"] else None

    def _store(self, address: str, url: str, content: bytes | None) -> None:
        sha256 = None if content is None else hashlib.sha256(content).hexdigest()
        if sha256 is not None and content is not None:
            write_bytes(self._object(sha256), content)
        write_json(self._index(address), {"address": address, "url": url, "sha256": sha256})

    def _retrying(self, address: str, limit: int) -> tuple[str, bytes | None]:
        host = urlsplit(address).netloc
        problem = ""
        for attempt in range(self._retries + 1):
            try:
                return self._follow(address, limit)
            except _BusyError as busy:
                if busy.error.status == httpx.codes.INTERNAL_SERVER_ERROR and attempt == self._retries:
                    raise busy.error from None  # this one file breaks the server
                problem, pause = f"is busy (answer {busy.error.status})", busy.pause
                if pause > LONGEST_PAUSE:
                    break
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                problem, pause = f"cannot be reached ({error})", 0.0
            except httpx.TransportError as error:
                problem, pause = f"cut the line ({type(error).__name__})", 0.0
            if attempt < self._retries:
                base = 0.05 if is_loopback(address) else ARXIV_DELAY
                self._sleep(max(pause, min(base * 2**attempt, LONGEST_PAUSE)))
        if problem.startswith("cut"):
            raise ArticleError(f"{address[:200]}: {host} {problem}, {attempt + 1} times", step="fetch")
        raise NetworkNeededError(
            f"{host} {problem}; what was fetched is kept in {self.cache}: run the same command again later"
        )

    def _follow(self, address: str, limit: int) -> tuple[str, bytes | None]:
        for _ in range(_HOPS):
            self._wait(address)
            with self._open(address) as answer:
                if answer.status_code in _REDIRECT:
                    address = urljoin(address, answer.headers.get("Location", ""))
                    if not self.sites.allows(address):
                        raise ArticleError(f"redirected to {address[:200]}, not followed", step="fetch")
                    continue
                if answer.status_code in _ABSENT:
                    return address, None
                body = _body(answer, address, limit)
                if answer.status_code == httpx.codes.OK:
                    self._refusals = 0
                    return address, body
                error = AnswerError(address, answer.status_code, body)
                if answer.status_code in _BUSY:
                    raise _BusyError(error, _retry_after(answer.headers.get("Retry-After", "")))
                self._refusals += answer.status_code == httpx.codes.FORBIDDEN
                if self._refusals == _REFUSALS:
                    raise NetworkNeededError(
                        f"{urlsplit(address).netloc} refuses to answer (403), perhaps to this machine: "
                        "read https://info.arxiv.org/help/robots.html and run the same command again tomorrow"
                    )
                raise error
        raise ArticleError(f"{address[:200]} is redirected for ever", step="fetch")

    @contextmanager
    def _open(self, address: str) -> Iterator[httpx.Response]:
        if self._client is None:
            # No connection is kept open: with many workers there is still only one at a time.
            self._client = httpx.Client(
                headers={"User-Agent": user_agent(address), "Accept-Encoding": "gzip"},
                timeout=60.0,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
                trust_env=not is_loopback(address),
            )
        try:
            with self._client.stream("GET", address) as answer:
                yield answer
        finally:
            (self.cache / "last_request").touch()

    def _wait(self, address: str) -> None:
        """Keep the distance to the end of any process's last request; the caller holds the lock."""
        default = 0.0 if is_loopback(address) else ARXIV_DELAY
        delay = default if self._delay is None else self._delay
        try:
            since = time.time() - (self.cache / "last_request").stat().st_mtime
        except OSError:
            return
        if since < delay:  # also when the clock was set back: then a whole delay
            self._sleep(delay - max(since, 0.0))


def _within(answer: Answer, limit: int, address: str) -> Answer:
    # What is kept was perhaps fetched under another limit; the cache must not change the rows.
    if answer.content is not None and len(answer.content) > limit:
        raise _too_large(address, limit)
    return answer


def _too_large(address: str, limit: int) -> ArticleError:
    return ArticleError(f"{address[:200]} is larger than {limit / 2**20:.3g} MiB", step="fetch")


def user_agent(address: str) -> str:
    """Return the User-Agent, which names a contact to real servers.

    Raises
    ------
    UsageError
        When ``ATOMVISION_CONTACT`` is not set.
    """
    contact = os.environ.get("ATOMVISION_CONTACT", "").strip()
    if not contact.isprintable() or not contact.isascii() or (not contact and not is_loopback(address)):
        raise UsageError(
            "set ATOMVISION_CONTACT to your e-mail address: arXiv wants to know whom a program belongs to"
        )
    return f"atomvision-hub/{__version__} (dataset builder; contact: {contact or 'loopback test'})"


class _BusyError(Exception):
    """The server asks to come back later, after so many seconds if it says so."""

    def __init__(self, error: AnswerError, pause: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause


def _retry_after(value: str) -> float:
    """Return the pause that a server asks for, in seconds (RFC 9110, 10.2.3: a number or a date)."""
    if value.strip().isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _body(answer: httpx.Response, address: str, limit: int) -> bytes:
    """Read a body piece by piece, no more than `limit` bytes decoded and no longer than `DEADLINE`."""
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise ArticleError(f"{address[:200]} comes in unknown encoding {encoding[:20]!r}", step="fetch")
    end = time.monotonic() + DEADLINE
    chunks: Iterable[bytes] = answer.iter_raw()
    if encoding.endswith("gzip"):
        chunks = gunzip(chunks)
    content = bytearray()
    try:
        for chunk in chunks:
            content += chunk
            if len(content) > limit:
                raise _too_large(address, limit)
            if time.monotonic() > end:
                raise ArticleError(f"{address[:200]} takes longer than {DEADLINE:g} s", step="fetch")
    except zlib.error as error:
        raise ArticleError(f"{address[:200]} is no proper gzip: {error}", step="fetch") from None
    return bytes(content)


def gunzip(chunks: Iterable[bytes], piece: int = 2**20) -> Iterator[bytes]:
    """Decompress gzip in pieces of bounded size, so that a bomb can be stopped while it explodes.

    Raises
    ------
    zlib.error
        When the data are no gzip or end too early.
    """
    decoder: Any = zlib.decompressobj(wbits=31)
    started = False
    for chunk in chunks:
        data, started = chunk, True
        while data:
            if decoder.eof:  # gzip files may be joined; what follows and is no gzip is padding
                if not data.startswith(b"\x1f\x8b"):
                    return
                decoder = zlib.decompressobj(wbits=31)
            yield decoder.decompress(data, piece)
            data = decoder.unconsumed_tail or (decoder.unused_data if decoder.eof else b"")
    if started and not decoder.eof:
        raise zlib.error("the data end too early")
