"""Code blocks of Markdown pages: what they are, and whether their commands and options exist.

A block after ``<!-- tested: run -->`` is executed, one after ``<!-- tested: hub -->`` against a Hub
on the loopback interface, one after ``<!-- tested: tiny -->`` likewise, each command with ``--tiny`` and with
files that are there; every other one is parsed, its names and options are looked up.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import operator
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"<!--\s*tested:\s*(\w+)\s*-->")
_PROGRAMS = (
    "atomvision",
    "accelerate",
    "python",
    "pip",
    "make",
    "git",
    "cd",
    "hf",
    "dask",
    "export",
    "apt-get",
)


@dataclass(frozen=True)
class Block:
    """A block of code, `mode` is ``run``, ``hub``, ``tiny`` or ``parse``."""

    page: Path
    line: int
    language: str
    code: str
    mode: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Return the commands of a console or shell block; lines that end in a backslash are joined."""
        lines = re.sub(r"\\\n\s*", "", self.code).splitlines()
        if self.language == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]


def tiny(command: str) -> str | None:
    """Return the twin of a command that ends in seconds; None for what asks a network."""
    command = command.split("  #")[0].split("   #")[0].strip()
    if "--query" in command:
        return None
    command = command.replace("scan.dm4", "scan.tif").replace("ORG/", "atomvision/")
    command = command.replace("cluster my_dataset", "cluster larger_dataset")
    slow = command.startswith(("atomvision build", "atomvision train", "accelerate launch"))
    command = command.replace("accelerate launch", "accelerate launch --quiet --num_processes 1")
    return f"{command} --tiny" if slow else command


def pages() -> list[Path]:
    """Return README and the pages of the documentation."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Return the blocks of a page in their order."""
    mode = "parse"
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block" and (found := _MARK.search(token.content)):
            mode = found[1]
        elif token.type == "fence":
            yield Block(page, line, token.info.strip() or "text", token.content, mode)
            mode = "parse"
        elif token.type == "code_block":
            first = token.content.split()[0]
            kind = "bash" if first.split("=")[0] in _PROGRAMS else "text"
            yield Block(page, line, kind, token.content, "parse")


def check_python(code: str) -> None:
    """Compile, and look up everything that is imported from this package."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("atomvision_hub"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def check_command(command: str) -> None:
    """Check that a command line would be understood: its program, its options, the files it names."""
    words = shlex.split(command.split("  #")[0], comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words or words[0] == "export":
        return
    program, rest = words[0], words[1:]
    assert program in _PROGRAMS, f"{program} is a program that this test does not know"
    check = globals().get(f"_check_{program}")
    if check is not None:
        check(rest)


def _check_atomvision(words: list[str]) -> None:
    from atomvision_hub.cli import app

    command: Any = typer.main.get_command(app)
    # "..." stands for what a reader fills in; what is left must still be known words.
    words = [word for word in words if word != "..."]
    if words[:1] == ["train"] and len(words) > 1:
        _check_script(ROOT / "training" / f"train_{words[1]}.py", words[2:])
        return
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help"}
    for word in words:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            assert word.split("=")[0] in known, f"{command.name} has no option {word}"


def _check_accelerate(words: list[str]) -> None:
    from accelerate.commands.config import get_config_parser
    from accelerate.commands.launch import launch_command_parser

    if words[0] == "config":
        get_config_parser().parse_known_args(words[1:])
        return
    assert words[0] == "launch"
    given = launch_command_parser().parse_args(words[1:])
    _check_script(ROOT / given.training_script, given.training_script_args)


def _check_script(script: Path, words: list[str]) -> None:
    """Read the command line of a training script as it would itself."""
    from atomvision_hub.engine.config import parse_arguments

    assert script.is_file(), f"there is no {script.name}"
    found = re.search(r"parse_arguments\(([\w.]+),", script.read_text(encoding="utf-8"))
    assert found, f"{script.name} reads no command line"
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = operator.attrgetter(found[1])(module)
    if words == ["--help"]:
        return
    parse_arguments(config, "", [word for word in words if word != "..."])


def _check_python(words: list[str]) -> None:
    if words[0] == "-c":
        compile(words[1], "<documentation>", "exec")
        return
    if words[0] == "-m" or words[0].startswith("atomvision/"):
        return  # another package, or the scripts of usnistgov/atomvision
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    text = script.read_text(encoding="utf-8")
    for word in words[1:]:
        if word.startswith("--"):
            assert f'"{word.split("=")[0]}"' in text, f"{words[0]} has no option {word}"


def _check_pip(words: list[str]) -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for word in words:
        for extra in re.findall(r"atomvision-hub\[(.*?)\]", word):
            assert set(extra.split(",")) <= set(extras), f"there is no extra [{extra}]"


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets), f"make has no {' '.join(words)}"
