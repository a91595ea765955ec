"""What the documentation takes from the package itself: the command line, columns of datasets, cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "model_cards"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and the cards with their pictures."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    files.append(File.generated(config, "cards/datasets.md", content=dataset_columns()))
    for card in sorted(CARDS.glob("*/README.md")):
        name = card.parent.name
        files.append(File.generated(config, f"cards/{name}.md", content=_without_header(card, name)))
        for picture in sorted(card.parent.glob("*.png")):
            files.append(File.generated(config, f"cards/{name}/{picture.name}", abs_src_path=str(picture)))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the cards into the navigation."""
    pages = [{"Datasets: columns": "cards/datasets.md"}]
    pages += [
        {card.parent.name: f"cards/{card.parent.name}.md"} for card in sorted(CARDS.glob("*/README.md"))
    ]
    assert config.nav is not None
    config.nav.insert(-1, {"Cards": pages})
    return config


def _without_header(card: Path, name: str) -> str:
    """Return a card's text without its YAML, its pictures where the site has them."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)/]+)\)", rf"![\1]({name}/\2)", text)


def command_line() -> str:
    """Return a page with every command, its arguments and options, as `--help` has them."""
    from atomvision_hub.cli import app

    root = typer.main.get_command(app)
    lines = ["# Command line", "", (root.help or "").strip(), ""]
    for name, command in _commands(root, "atomvision"):
        lines += [f"## `{name}`", "", *_paragraphs(command.help)]
        lines += _parameters(command)
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    # typer's classes are its own copies of click's: told apart by what they have.
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, inner in command.commands.items():
        yield from _commands(inner, f"{name} {word}")


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield a help text as Markdown; what it gives as an example is there to be copied."""
    for paragraph in (text or "").replace("\b", "").split("\n\n"):
        words, is_example, example = _plain(paragraph).partition("Example: ")
        if words:
            yield from (words.strip(), "")
        if is_example:
            yield from ("```console", f"$ {example}", "```", "")


def _parameters(command: Any) -> list[str]:
    context = typer.Context(command)
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            rows.append(f"| `{_plain(record[0])}` | {_plain(record[1])} |")
    return ["| argument, option | |", "|---|---|", *rows, ""] if rows else []


def _plain(text: str | None) -> str:
    """Return a help text as one line of Markdown for a table or a paragraph."""
    return re.sub(r"\s+", " ", (text or "").replace("\b", "")).replace("|", "\\|").strip()


def dataset_columns() -> str:
    """Return a page with the columns of every dataset, from the declarations that make their features."""
    from atomvision_hub.data.builders import available_builders, load_builder
    from atomvision_hub.data.config import read_config
    from atomvision_hub.data.features import column_table

    lines = ["# Columns of the datasets", "", "What one row holds, as declared in the package.", ""]
    for name, script in available_builders().items():
        builder = load_builder(name).BUILDER
        _, config = read_config("default", script.parent / "configs" / name, builder.config_model)
        lines += [
            f"## {name}, config `default`",
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        for line in column_table(builder.record(config)):
            lines.append(
                f"| `{line.name}` | {_plain(line.type)} | {line.unit} | {_plain(line.description)} |"
            )
        lines.append("")
    return "\n".join(lines)
