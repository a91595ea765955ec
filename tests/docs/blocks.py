"""Code blocks of Markdown pages, and what the mark before each says of its test.

A block is executed (`EXECUTED`), compared with what the block before it printed (``output``), or it carries
the reason why it is not executed (`REASONS`); nothing else is allowed, see `Block.fault`::

    <!-- tested: run -->                    as it stands
    <!-- tested: run (extra abtem) -->      as it stands where that package is installed
    <!-- tested: tiny -->                   against a Hub and an arXiv on loopback, each command by its `twin`
    <!-- tested: hub -->                    as it stands, against a Hub on loopback
    <!-- tested: output -->                 what the block before it printed; "..." stands for anything
    <!-- tested: options (cluster) -->      programs, files, options, names are looked up
    <!-- tested: text (formula) -->         nothing that a machine could run
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ("run", "hub", "tiny")
#: Why a block is not executed, by mode.
REASONS = {
    "options": {
        "hours": "works for minutes to hours, or needs the full data",
        "cluster": "needs several GPUs, several machines or a queue",
        "installation": "changes what is installed, or is the test suite itself",
    },
    "text": {
        "formula": "mathematics",
        "layout": "names of files",
    },
}
#: Folders whose pages are documentation; `tests` hold data in Markdown, cards are tested as cards.
_FOLDERS = ("docs", "dataset_builders", "training", "benchmarks", "notebooks", "app")
_MARK = re.compile(r"<!--\s*tested:\s*(.*?)\s*-->")
_PARTS = re.compile(r"(\w+)(?:\s+\(([\w ]+)\))?")


@dataclass(frozen=True)
class Block:
    """A block of code with its mark: `mode` and, where there is one, `reason`."""

    page: Path
    line: int
    language: str
    code: str
    mode: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"

    @property
    def extra(self) -> str:
        """Package that the block needs beyond the default environment."""
        return self.reason.removeprefix("extra ") if self.mode in EXECUTED else ""

    @property
    def executed(self) -> bool:
        """Whether the block is executed here."""
        return self.mode in EXECUTED and (not self.extra or importlib.util.find_spec(self.extra) is not None)

    def fault(self) -> str:
        """Return what is wrong with the mark, empty if nothing."""
        if not self.mode:
            return "is neither executed nor says why not; see tests/docs/blocks.py for the mark before it"
        if self.mode in EXECUTED:
            return "" if not self.reason or self.reason.startswith("extra ") else "may only name an extra"
        if self.mode == "output":
            return "has a reason and an output" if self.reason else ""
        if self.mode not in REASONS:
            return f"has the mark {self.mode!r}, which no test knows"
        if self.reason not in REASONS[self.mode]:
            return f"gives no reason of {', '.join(REASONS[self.mode])}"
        is_text = self.language == "text"
        return "" if is_text == (self.mode == "text") else f"is {self.language}, marked as {self.mode}"

    def commands(self) -> list[str]:
        """Return the commands of a console or shell block, lines joined, variables filled in."""
        lines = re.sub(r"\\\n\s*", "", self.code).splitlines()
        if self.language == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        found: list[str] = []
        variables: dict[str, str] = {}
        open_line = ""
        for line in lines:
            plain = re.sub(r"(^|\s+)#.*", "", line).strip()
            open_line = f"{open_line} {plain}" if open_line else plain
            try:
                words = shlex.split(open_line)
            except ValueError:  # a quotation that goes on in the next line
                continue
            name, is_assignment, value = (words[0] if len(words) == 1 else "").partition("=")
            if is_assignment:
                variables[name] = value
            elif words:
                for known, text in variables.items():
                    open_line = open_line.replace(f"${known}", text)
                found += [one.strip() for one in open_line.split(";")]
            open_line = ""
        return found


def pages() -> list[Path]:
    """Return every page of the repository that is documentation."""
    inner = (path for folder in _FOLDERS for path in sorted((ROOT / folder).rglob("*.md")))
    return [*sorted(ROOT.glob("*.md")), *inner, ROOT / "model_cards" / "README.md"]


def blocks(page: Path) -> Iterator[Block]:
    """Return the blocks of a page in their order; indented ones are blocks as well."""
    mark = ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block" and (found := _MARK.search(token.content)):
            mark = found[1]
        elif token.type in ("fence", "code_block"):
            parts = _PARTS.fullmatch(mark)
            mode, reason = (parts[1], parts[2] or "") if parts else (mark, "")
            yield Block(page, line, token.info.strip() or "text", token.content, mode, reason)
            mark = ""
        elif token.type not in ("html_block",) and mark and token.nesting >= 0:
            mark = ""  # a mark stands right before its block
