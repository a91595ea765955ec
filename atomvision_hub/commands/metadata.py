"""`atomvision metadata`: template, extract, validate, schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from atomvision_hub.commands.shared import JsonLinesOption, JsonOption, emit, exit_code, note
from atomvision_hub.errors import AtomVisionError, UsageError

app = typer.Typer(
    help="Metadata of experimental images: what the file tells, and what people add in a YAML beside it.",
    no_args_is_help=True,
)

#: Larger folders are walked, but not forever.
_MOST_FILES = 100_000


class Form(StrEnum):
    """How metadata are printed."""

    yaml = "yaml"
    json = "json"


@app.command()
def template(
    example: Annotated[
        str | None,
        typer.Option(help="Print a filled template instead: Fe3O4, Rh, SnS (figure 11 of the paper)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write instead of printing.")
    ] = None,
) -> None:
    """Print a YAML to fill in: every field with meaning, unit and example.

    Example: atomvision metadata template --out scan.dm4.yaml
    """
    from atomvision_hub.microscopy import metadata

    content = metadata.template() if example is None else metadata.example(example)
    if out is None:
        typer.echo(content, nl=False)
        return
    if out.exists():
        raise UsageError(f"{out} exists; take another name or remove it")
    from atomvision_hub._files import write_text

    write_text(out, content)
    typer.echo(f"{out}: fill it in, then atomvision metadata validate {out}")


@app.command(no_args_is_help=True)
def extract(
    files: Annotated[list[Path], typer.Argument(help="Instrument files.")],
    form: Annotated[
        Form, typer.Option("--format", help="yaml (with comments) or json (one line an image).")
    ] = Form.yaml,
    sidecars: Annotated[
        bool, typer.Option(help="Complete it with the YAML beside the image and of its folder.")
    ] = True,
    as_json: JsonLinesOption = False,
) -> None:
    """Print what instrument files tell about their images, each value with its origin.

    Exit code 3: some files were refused.

    Example: atomvision metadata extract scan.dm4
    """
    from atomvision_hub.microscopy import metadata, read_images

    failed = 0
    for file in files:
        try:
            found = [metadata.extract(image) for image in read_images(file)]
            if sidecars:
                beside = metadata.find_sidecars(file)
                found = [metadata.complete(facts, beside) for facts in found]
        except AtomVisionError as error:
            # The other files still get their answer.
            note(f"error: {error}")
            failed += 1
            continue
        for number, facts in enumerate(found):
            if form is Form.json or as_json:
                emit(facts.model_dump(mode="json"))
            else:
                several = len(files) + len(found) > 2
                typer.echo(
                    ("---\n" if several and (number or file is not files[0]) else "")
                    + metadata.to_yaml(facts),
                    nl=False,
                )
    raise typer.Exit(exit_code(len(files) - failed, failed))


@app.command(no_args_is_help=True)
def validate(
    paths: Annotated[list[Path], typer.Argument(help="YAML files, instrument files, or folders with both.")],
    as_json: JsonOption = False,
) -> None:
    """Check YAML files: one line a problem, with file, line, field and remedy.

    Of an instrument file its YAML is checked together with what the file says; contradictions are notes.

    Example: atomvision metadata validate my_images/
    """
    from atomvision_hub.microscopy import metadata

    checked = 0
    problems: list[str] = []
    notes: list[str] = []
    for file in (file for path in paths for file in _files_of(path)):
        checked += 1
        try:
            if file.suffix == ".yaml":
                metadata.read_sidecar(file)
            elif file.suffix.lower() in (".yaml", ".yml"):
                problems.append(f"{file}: is not read; end its name in .yaml")
            else:
                notes += [f"{file}: {found}" for found in _notes(file)]
        except metadata.MetadataError as error:
            problems += map(str, error.problems)
        except AtomVisionError as error:
            problems.append(str(error))
    for text in notes:
        note(f"note: {text}")
    for text in problems:
        note(f"problem: {text}")
    if not checked:
        raise UsageError("no YAML file found there; write one with atomvision metadata template")
    if as_json:
        emit({"files": checked, "valid": not problems, "problems": problems, "notes": notes})
    if problems:
        raise AtomVisionError(f"{len(problems)} problem(s) in {checked} file(s)")
    if not as_json:
        typer.echo(f"{checked} file(s) valid")


def _files_of(path: Path) -> Iterator[Path]:
    """Yield a file, or the YAML files of a folder in order."""
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if not path.is_dir():
        yield path
        return
    names = sorted(
        file for file in path.rglob("*") if file.suffix.lower() in (".yaml", ".yml") and file.is_file()
    )
    if len(names) > _MOST_FILES:
        raise UsageError(f"{path} has more than {_MOST_FILES:,} YAML files; check its parts")
    yield from names


def _notes(file: Path) -> list[str]:
    """Return what is odd about an instrument file and the YAML that speaks of it."""
    from atomvision_hub.microscopy import metadata, read_images

    beside = metadata.find_sidecars(file)
    noted = (
        note
        for image in read_images(file)
        for note in metadata.complete(metadata.extract(image), beside).notes
    )
    return list(dict.fromkeys(noted))


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for people instead.")] = False,
) -> None:
    """Print the JSON Schema, with units, NeXus paths and terms of the EM Glossary.

    Example: atomvision metadata schema > metadata.schema.json
    """
    from atomvision_hub.microscopy import metadata

    if markdown:
        typer.echo(metadata.field_table(), nl=False)
    else:
        typer.echo(json.dumps(metadata.json_schema(), indent=2, ensure_ascii=False, sort_keys=True))
