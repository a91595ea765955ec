"""What all commands share: exit codes, ``--json``, and how an error reads."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from atomvision_hub.errors import AtomVisionError

#: Exit codes of all commands.
DONE, FAILED, WRONG_USAGE, DONE_WITH_REJECTS = 0, 1, 2, 3

#: ``--json`` of commands that give one answer, and of those that answer each of several inputs.
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; messages go to standard error.")
]
JsonLinesOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object a line and image; messages go to standard error."),
]
PixelSizeOption = Annotated[
    float | None, typer.Option(min=1e-6, help="Å/px; without it what the file or a YAML beside it says.")
]


def emit(content: Mapping[str, Any]) -> None:
    """Print an answer for machines: one line of JSON on standard output, what is not finite as null."""
    typer.echo(json.dumps(_finite(content), ensure_ascii=False, sort_keys=True, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    """Return `value` with null for numbers that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def note(text: str) -> None:
    """Print a remark where results do not go."""
    typer.echo(text, err=True)


def exit_code(answered: int, refused: int) -> int:
    """Return the exit code of a command that answers each of several inputs."""
    if not refused:
        return DONE
    return DONE_WITH_REJECTS if answered else FAILED


def explain(error: BaseException) -> tuple[str, int] | None:
    """Give the line to print and the exit code for an error that the user can mend, `None` for a defect."""
    if isinstance(error, AtomVisionError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; finished work is kept, the same command goes on", FAILED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"error: no space left{where}; free some and run the same command again, it goes on", FAILED
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError | FileNotFoundError):
        return f"error: {error.strerror}: {error.filename}", FAILED
    return _wrong_usage(error)


def _wrong_usage(error: BaseException) -> tuple[str, int] | None:
    """Give an error of the command line's grammar (unknown option, bad value) as one line like all others."""
    # typer has no public name for the base class of these; they tell their message and where they arose.
    message = getattr(error, "format_message", None)
    if not callable(message) or type(error).__name__ == "NoArgsIsHelpError":
        return None
    context = getattr(error, "ctx", None)
    text = " ".join(str(message()).split()).rstrip(".").replace("Value error, ", "")
    command = context.command_path if context is not None else "atomvision"
    return f"error: {text[:1].lower()}{text[1:]}; {command} --help tells more", WRONG_USAGE
