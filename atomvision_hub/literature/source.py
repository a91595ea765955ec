"""Figures of an article's TeX source, for articles that have no page."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import PurePosixPath
from typing import Final

from atomvision_hub.literature.article import MOST_FIGURES, Figure
from atomvision_hub.literature.fetch import gunzip
from atomvision_hub.literature.sites import ArticleError
from atomvision_hub.literature.tex import plain

#: Limits of what is unpacked (in memory): bytes, files, characters of TeX after its \input.
MOST_BYTES: Final = 256 * 2**20
MOST_FILES: Final = 5000
MOST_TEX: Final = 16 * 2**20
#: Longest figure environment, in characters.
MOST_ENVIRONMENT: Final = 50_000
#: What \includegraphics tries, in this order, when a name has no ending.
_ENDINGS = (
    "",
    ".png",
    ".jpg",
    ".jpeg",
    ".pdf",
    ".eps",
    ".gif",
    ".webp",
    ".svg",
    ".ps",
    ".PNG",
    ".JPG",
    ".EPS",
)
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}]{1,200})\}|\\input\s+([\w./-]{1,200})")
_BEGIN = re.compile(r"\\begin\s*\{((?:wrap|sideways|SC|floating)?figure\*?)\}")
_COMMANDS = re.compile(
    r"\\(?P<name>includegraphics|epsfig|psfig|plotone|epsfbox|epsffile|caption\*?|captionof|label"
    r"|subfigure|subfloat|begin|end)(?![A-Za-z])\s*\*?\s*"
)
_OPTION = re.compile(r"\s*\[((?:[^][{}]|\{[^{}]*\})*)\]")
_FILE = re.compile(r"\s*(?:file|figure)\s*=\s*([^,]+)")


@dataclass(frozen=True)
class Source:
    """The files of an article's source.

    Attributes
    ----------
    files
        Path -> content, in the order of the archive; paths are relative and stay inside.
    """

    files: Mapping[str, bytes]


def unpack(content: bytes) -> Source:
    """Return the files of a source as arXiv sends it: a tar, a single TeX file, either compressed or not.

    Raises
    ------
    ArticleError
        When it is a PDF, no archive, or larger unpacked than any article (step ``"source"``).
    """
    if content.startswith(b"\x1f\x8b"):
        unpacked = bytearray()
        try:
            for piece in gunzip([content]):
                unpacked += piece
                if len(unpacked) > MOST_BYTES:
                    raise ArticleError(f"the source is larger than {MOST_BYTES >> 20} MiB", step="source")
        except zlib.error as problem:
            raise ArticleError(f"the source is no proper gzip: {problem}", step="source") from None
        content = bytes(unpacked)
    if content.startswith(b"%PDF"):
        raise ArticleError("the article has neither a page nor a TeX source, only a PDF", step="source")
    if b"\\documentclass" in content[:100_000] or b"\\documentstyle" in content[:100_000]:
        if not _is_tar(content):
            return Source({"main.tex": content})
    elif not _is_tar(content):
        raise ArticleError("the source is neither a tar archive nor TeX", step="source")
    return Source(dict(_members(content)))


def _is_tar(content: bytes) -> bool:
    return content[257:262] == b"ustar"


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of a tar; links, devices and paths that leave the archive are passed over."""
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for number, member in enumerate(archive):
                path = PurePosixPath(member.name)
                if number >= MOST_FILES:
                    raise ArticleError(f"the source has more than {MOST_FILES} files", step="source")
                if not member.isreg() or path.is_absolute() or ".." in path.parts:
                    continue
                total += member.size
                if total > MOST_BYTES:
                    raise ArticleError(f"the source is larger than {MOST_BYTES >> 20} MiB", step="source")
                stream = archive.extractfile(member)
                if stream is not None:
                    yield str(path), stream.read(MOST_BYTES)
    except (tarfile.TarError, OSError, ValueError, EOFError) as problem:
        reason = " ".join(str(problem).split())[:150]
        raise ArticleError(f"the source is a damaged archive: {reason}", step="source") from None


def read_source(source: Source, address: str) -> tuple[Figure, ...]:
    r"""Return the figures of a source: captions of its TeX, files named by \includegraphics.

    Parameters
    ----------
    source
        Its files.
    address
        Of the source; a file in it is addressed as ``address#path``.

    Raises
    ------
    ArticleError
        When there is no TeX document, or more than any article has (step ``"source"``).
    """
    tex = _document(source.files)
    folders = [""]
    if match := re.search(r"\\graphicspath\s*\{((?:\s*\{[^{}]{0,200}\}){1,50})\s*\}", tex):
        folders += re.findall(r"\{([^{}]*)\}", match[1])
    figures: list[Figure] = []
    number = 0
    begins = list(islice(_BEGIN.finditer(tex), 2 * MOST_FIGURES))
    for begin, after in zip_longest(begins, begins[1:]):
        # Figures do not hold figures: what is never closed ends where the next one begins.
        longest = min(begin.end() + MOST_ENVIRONMENT, after.start() if after else len(tex))
        end = tex.find(f"\\end{{{begin[1]}}}", begin.end(), longest)
        parsed = _environment(tex[begin.end() : end if end >= 0 else longest])
        if not parsed.files and not parsed.caption:
            continue
        number += 1
        figures += _figures(parsed, number, source.files, folders, address)
        if len(figures) > MOST_FIGURES:
            raise ArticleError(f"the source has more than {MOST_FIGURES} figures", step="source")
    return tuple(figures)


@dataclass
class _Environment:
    """Caption and files of a figure; a file is (name, caption of its part, whether it is a part)."""

    caption: str = ""
    files: list[tuple[str, str, bool]] = field(default_factory=list)


def _figures(
    parsed: _Environment, number: int, files: Mapping[str, bytes], folders: list[str], address: str
) -> Iterator[Figure]:
    name, label = f"F{number}", f"Figure {number}"
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    if not parsed.files:
        yield Figure(name, name, label, "", parsed.caption, "", None, note="drawn by TeX, there is no file")
    for place, (wanted, part_caption, is_part) in enumerate(parsed.files, start=1):
        path = _resolve(wanted, files, folders)
        yield Figure(
            name=name if len(parsed.files) == 1 else f"{name}.{place}",
            figure=name,
            label=label,
            part=next(letters, "") if is_part else "",
            caption=parsed.caption,
            part_caption=part_caption,
            image_url=f"{address}#{path}" if path else None,
            content=files[path] if path else None,
            note="" if path else f"the source lacks the file {wanted[:100]!r}",
        )


def _document(files: Mapping[str, bytes]) -> str:
    r"""Return the main TeX file without comments, with what it \inputs in place."""
    texts = {
        path: _COMMENT.sub(r"\1", _decode(content))
        for path, content in files.items()
        if path.lower().endswith((".tex", ".ltx", ".latex")) and len(content) <= MOST_TEX
    }
    mains = [path for path, text in texts.items() if "\\documentclass" in text or "\\documentstyle" in text]
    if not mains:
        raise ArticleError("the source has no TeX document", step="source")
    budget = [MOST_TEX]

    def expand(path: str, depth: int) -> str:
        text = texts[path]
        budget[0] -= len(text)
        if depth > 8 or budget[0] < 0:
            raise ArticleError(f"the source inputs more than {MOST_TEX >> 20} MiB of TeX", step="source")

        def insert(match: re.Match[str]) -> str:
            name = (match[1] or match[2]).strip().removeprefix("./")
            found = next((n for n in (name, f"{name}.tex") if n in texts and n != path), None)
            return expand(found, depth + 1) if found else ""

        return _INPUT.sub(insert, text)

    # Supplements come as documents of their own; the article is the longest.
    return max((expand(path, 0) for path in mains), key=len)


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # what older sources are written in


def _environment(body: str, depth: int = 0) -> _Environment:
    """Read caption and files of one figure environment."""
    found = _Environment()
    position = 0
    part: int | None = None  # where the files of the sub-figure that is open begin
    while match := _COMMANDS.search(body, position):
        name = match["name"].rstrip("*")
        options, position = _optional(body, match.end())
        argument, position = _argument(body, position)
        if name == "captionof":
            argument, position = _argument(body, position)
        if name in ("subfigure", "subfloat"):
            inner = _environment(argument, depth + 1) if depth < 2 else _Environment()
            found.files += [(file, plain(options), True) for file, _, _ in inner.files]
        elif name in ("begin", "end"):
            if argument.startswith("subfigure"):
                part = len(found.files) if name == "begin" else None
        elif name.startswith("caption"):
            if part is None:
                found.caption = plain(argument)
            else:
                found.files[part:] = [(file, plain(argument), True) for file, _, _ in found.files[part:]]
        elif name != "label" and argument:
            file = _FILE.match(argument)
            found.files.append((file[1] if file else argument, "", part is not None))
    return found


def _optional(text: str, start: int) -> tuple[str, int]:
    found = ""
    while (match := _OPTION.match(text, start)) is not None:
        found, start = match[1], match.end()
    return found, start


def _argument(text: str, start: int) -> tuple[str, int]:
    """Return the balanced group in braces that starts here, and where it ends."""
    while start < len(text) and text[start].isspace():
        start += 1
    if start >= len(text) or text[start] != "{":
        return "", start
    depth = 0
    for index in range(start, len(text)):
        character = text[index]
        if text[index - 1] == "\\" and text[max(0, index - 2)] != "\\":
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start + 1 : index], index + 1
    return text[start + 1 :], len(text)


def _resolve(name: str, files: Mapping[str, bytes], folders: list[str]) -> str | None:
    name = re.sub(r'[{}"]', "", name).strip().removeprefix("./")
    for folder in folders:
        stem = f"{folder.strip().removeprefix('./').rstrip('/')}/{name}".lstrip("/")
        for ending in _ENDINGS:
            if stem + ending in files:
                return stem + ending
    return None
