"""The sources of a build: ``query:TEXT``, ``ids:FILE``, ``feed:FILE`` and ``jarvis:arxiv``, joined."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from atomvision_hub import __version__
from atomvision_hub._files import sha256_file, write_json
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.relevance import assess
from atomvision_hub.literature.search import Article, look_up, parse_id, read_feed, read_ids, search

KINDS: Final = ("query:TEXT", "ids:FILE", "feed:FILE", "jarvis:arxiv")
_CITATION = "arXiv.org e-print archive, https://arxiv.org; metadata are CC0"
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class SourceInfo:
    """Provenance of one source.

    Attributes
    ----------
    name
        As given, files without their folder.
    description
        One sentence.
    citation
        Whom to cite.
    version
        SHA-256 of what came out of it: two builds with the same one are made from the same articles.
    """

    name: str
    description: str
    citation: str
    version: str


@dataclass
class Articles:
    """The articles of a build, each once, in the order of the sources.

    Attributes
    ----------
    articles
        Item id -> article.
    refused
        (Item id, source, reason) of what could not be found.
    """

    articles: dict[str, Article] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    infos: list[SourceInfo] = field(default_factory=list)

    def add(self, info: SourceInfo, articles: Sequence[Article]) -> None:
        """Join the articles of a source; what an earlier one has given is left out."""
        self.infos.append(info)
        for article in articles:
            if article.item_id not in self.articles:
                self.articles[article.item_id] = article
                self.origins[article.item_id] = info.name

    def older(self) -> dict[str, str]:
        """Return item id -> that of a newer version of the same article."""
        newest: dict[str, Article] = {}
        for article in self.articles.values():
            best = newest.setdefault(article.arxiv_id, article)
            if article.version > best.version:
                newest[article.arxiv_id] = article
        return {
            item: newest[article.arxiv_id].item_id
            for item, article in self.articles.items()
            if newest[article.arxiv_id] is not article
        }


def open_sources(
    sources: Sequence[str],
    fetcher: Fetcher,
    *,
    store_dir: Path | None = None,
    limit: int | None = None,
) -> Articles:
    """Find the articles of all sources.

    Parameters
    ----------
    sources
        Any of `KINDS`.
    fetcher
        Asks arXiv; what was asked once comes from its cache, so that workers find the same articles.
    store_dir
        Folder with the files of jarvis-tools.
    limit
        Use only the first articles.

    Raises
    ------
    UsageError
        When a source is none of `KINDS`, a file cannot be read, or arXiv refuses a query.
    NetworkNeededError
        When arXiv, or the file of jarvis-tools, cannot be had.
    """
    found = Articles()
    for source in sources:
        kind, _, rest = source.partition(":")
        if kind == "query" and rest.strip():
            articles = search(fetcher, rest.strip(), limit)
            found.add(
                _info(source, f"arXiv articles found by the search {rest.strip()!r}", articles), articles
            )
        elif kind == "ids" and rest:
            articles, refused = _listed(fetcher, Path(rest), limit)
            name = f"ids:{Path(rest).name}"
            found.add(_info(name, "arXiv articles of a list of identifiers", articles), articles)
            found.refused += [(item, name, reason) for item, reason in refused]
        elif kind == "feed" and rest:
            articles = read_feed(Path(rest))
            name = f"feed:{Path(rest).name}"
            found.add(_info(name, "arXiv articles of a saved answer of the search API", articles), articles)
        elif source == "jarvis:arxiv":
            articles = _jarvis(fetcher.cache, store_dir)
            info = _info(source, "arXiv articles in the metadata that jarvis-tools provides", articles)
            found.add(info, articles)
        else:
            raise UsageError(f"{source!r} is no source of articles; write one of {', '.join(KINDS)}")
    for item in list(found.articles)[limit:] if limit is not None else ():
        del found.articles[item], found.origins[item]
    return found


def _info(name: str, description: str, articles: Sequence[Article]) -> SourceInfo:
    digest = hashlib.sha256("\n".join(article.key for article in articles).encode())
    return SourceInfo(name, description, _CITATION, digest.hexdigest())


def _listed(fetcher: Fetcher, path: Path, limit: int | None) -> tuple[list[Article], list[tuple[str, str]]]:
    keys: dict[tuple[str, int], None] = {}
    refused: list[tuple[str, str]] = []
    for line in read_ids(path)[:limit]:
        key = parse_id(line)
        if key is None:
            refused.append((_UNSAFE.sub("_", line)[:80], f"{line[:80]!r} is no identifier of arXiv"))
        else:
            keys[key] = None
    found = look_up(fetcher, list(keys))
    for name, version in keys.keys() - found.keys():
        item = (f"{name}v{version}" if version else name).replace("/", "_")
        refused.append((item, "arXiv does not know this identifier"))
    return [found[key] for key in keys if key in found], sorted(set(refused))


def _jarvis(cache: Path, store_dir: Path | None) -> list[Article]:
    """Return the articles of jarvis-tools' arXiv data set that speak of microscopy.

    The file holds 1.8 million articles; reading all abstracts takes half an hour, so what came out is kept.
    """
    from jarvis.core.utils import get_cache_dir
    from jarvis.db import figshare

    url, member = figshare.get_db_info()["arXiv"][:2]
    folder = store_dir or Path(get_cache_dir("jarvis_data"))
    path = folder / f"{member}.zip"
    if not path.is_file():
        _download(figshare.data, store_dir, url, path)
    try:
        kept = cache / "jarvis" / f"{sha256_file(path)}-{__version__}.json"
        if not kept.is_file():
            entries = [
                asdict(article) for article in map(_entry, _quietly(figshare.data, store_dir)) if article
            ]
            write_json(kept, entries)
        return [_article(record) for record in json.loads(kept.read_bytes())]
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as problem:
        raise AtomVisionError(f"{path} is not jarvis-tools' arXiv file ({problem}); remove it") from None


def _download(data: Any, store_dir: Path | None, url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _quietly(data, store_dir)
    except (OSError, ValueError, zipfile.BadZipFile) as problem:
        path.unlink(missing_ok=True)  # half a download would be taken for the file
        raise NetworkNeededError(
            f"cannot download {url} ({type(problem).__name__}); fetch it as {path} or give --store-dir"
        ) from None


def _quietly(data: Any, store_dir: Path | None) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return data("arXiv", store_dir=str(store_dir) if store_dir else None)


def _entry(entry: dict[str, Any]) -> Article | None:
    """Return an entry, in the layout of arXiv's metadata snapshot, when it speaks of microscopy."""
    if not isinstance(entry, dict):
        raise TypeError(f"an entry is {type(entry).__name__}")
    key = parse_id(str(entry.get("id", "")))
    title, abstract = (" ".join(str(entry.get(name) or "").split()) for name in ("title", "abstract"))
    if key is None or not assess("", title=title, abstract=abstract).matched:
        return None
    versions = [version for version in entry.get("versions") or () if isinstance(version, dict)]
    parsed = entry.get("authors_parsed")
    if isinstance(parsed, list):
        authors = tuple(" ".join(f"{name[1]} {name[0]}".split()) for name in parsed if len(name) > 1)
    else:
        authors = tuple(filter(None, (name.strip() for name in str(entry.get("authors") or "").split(","))))
    return Article(
        arxiv_id=key[0],
        version=0,  # the file is years old: the newest version is looked up when its turn comes
        title=title,
        abstract=abstract,
        authors=authors,
        categories=tuple(str(entry.get("categories") or "").split()),
        published=_date(str(versions[0].get("created", ""))) if versions else "",
        doi=str(entry["doi"]) if entry.get("doi") else None,
    )


def _date(text: str) -> str:
    """Return ``Mon, 2 Apr 2007 19:18:42 GMT`` as ``2007-04-02``."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).strftime("%Y-%m-%d")
    except (TypeError, ValueError):
        return ""


def _article(record: dict[str, Any]) -> Article:
    lists = {name: tuple(record[name]) for name in ("authors", "categories")}
    return Article(**{**record, **lists})
