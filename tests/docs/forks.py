"""Commands in forks of one process that has imported what they import: a tenth of the time of starting anew.

`python forks.py` reads requests from its standard input, a JSON object a line, and answers with exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_WARM = (
    "accelerate",
    "datasets",
    "matplotlib.pyplot",
    "timm",
    "torch",
    "transformers",
    "atomvision_hub.cli",
    "atomvision_hub.engine.tasks.classifier",
    "atomvision_hub.engine.tasks.segmenter",
    "atomvision_hub.inference",
    "atomvision_hub.models.lattice_network",
)


class Forks:
    """The process as tests see it.

    Parameters
    ----------
    environment
        Variables of all commands; those of the Hub count when its client is imported, so they are fixed.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def run(self, words: list[str], output: Path) -> tuple[int, str]:
        """Return exit code and output of ``atomvision ...`` or ``SCRIPT.py ...`` in the present folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"words": words, "folder": str(Path.cwd()), "output": str(output)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, output.read_text(encoding="utf-8")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _child(words: list[str], folder: str, output: str) -> int:
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.chdir(folder)
    sys.argv = list(words)
    try:
        if words[0] == "atomvision":
            from atomvision_hub.cli import main

            main()
        else:
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - told to who asked
        traceback.print_exc()
        return 1
    return 0


def _without_gpaw(name: str, known: Callable[[str], str] = metadata.version) -> str:
    """Return versions as for a reader without GPAW, which takes minutes for a crystal that does not ship."""
    if name == "gpaw":
        raise metadata.PackageNotFoundError(name)
    return known(name)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what imports print is no answer
    for module in _WARM:
        importlib.import_module(module)
    metadata.version = _without_gpaw
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            code = _child(**request)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
