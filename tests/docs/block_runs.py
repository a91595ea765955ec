"""Execution of blocks: Python in one namespace a page, commands here or in a process of their own."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocks import Block
from forks import Forks

#: Options that start processes or ask for the shell around.
_OWN_PROCESS = {"--num-proc", "--dask", "--install-completion"}
_SLOW = ("atomvision build", "atomvision train", "accelerate launch")
#: Commands that may end with 3 as well, since inputs are rejected on purpose: densities that only GPAW
#: can compute, articles without a source.
_REJECTS = ("build stm2d", "build arxiv_figures")
#: A decimal number, and how near it must be: processors differ in the last digits.
_NUMBER = r"\d+\.\d+"
_SPLIT = re.compile(rf"({_NUMBER})")
_CLOSE = 0.02


def twin(command: str) -> str | None:
    """Return the twin of a command that ends in seconds, on files that are there; None for other packages."""
    if command.startswith("python atomvision/scripts/"):
        return None
    command = command.split("  #")[0].strip()
    command = re.sub(r"\.(dm4|emd)\b", ".tif", command).replace("ORG/", "atomvision/")
    command = command.replace("cluster my_dataset", "cluster larger_dataset")
    slow = command.startswith(_SLOW) and "--tiny" not in command
    command = command.replace("accelerate launch", "accelerate launch --quiet --num_processes 1")
    return f"{command} --tiny" if slow else command


@dataclass
class Page:
    """What the blocks of a page share.

    Parameters
    ----------
    environment
        Of commands in a process of their own.
    forks
        Runs the others.
    as_typed
        Whether twins of trainings go through `accelerate launch`, two processes each, or are forks.
    names
        Namespace of Python blocks that run in this process.
    printed
        What the last executed block printed.
    """

    environment: dict[str, str]
    forks: Forks
    as_typed: bool = False
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    printed: str = ""

    def run(self, block: Block) -> None:
        """Execute a block; raise AssertionError where it fails."""
        if block.language == "python" and block.mode == "run":
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(compile(block.code, str(block), "exec"), self.names)
            self.printed = stream.getvalue()
            return
        if block.language == "python":
            # The Hub's address is read when its client is imported: a process of its own.
            self.printed = self._process([sys.executable, "-c", block.code], block)
            return
        lines = block.commands()
        if block.mode == "tiny":
            lines = [line for command in lines if (line := twin(command))]
        assert lines, f"{block} has nothing to run"
        self.printed = "".join(self._command(line, block) for line in lines)

    def compare(self, block: Block) -> None:
        """Compare an output with what was printed: the words exactly, the numbers to `_CLOSE`."""
        told = _SPLIT.split(" ".join(block.code.split()))
        pattern = "".join(
            rf"({_NUMBER})" if number % 2 else re.escape(text).replace(r"\.\.\.", ".*?")
            for number, text in enumerate(told)
        )
        found = re.search(pattern, " ".join(self.printed.split()))
        assert found, f"{block}: {block.code.strip()}\nis not what was printed:\n{self.printed}"
        for ours, printed in zip(told[1::2], found.groups(), strict=True):
            assert math.isclose(float(ours), float(printed), rel_tol=_CLOSE), (
                f"{block} says {ours}, printed was {printed}:\n{self.printed}"
            )

    def _command(self, line: str, block: Block) -> str:
        words = self._fork(shlex.split(line, comments=True), block)
        if not words:
            # A second line keeps the shell alive: the Tab key's installation asks which one it runs in.
            return self._process(["bash", "-ec", f"{line}\n:"], block)
        code, printed = self.forks.run(words, Path(self.environment["HOME"]) / "printed.txt")
        assert code in _allowed(line), f"{block}: {line}\n{printed}"
        return printed

    def _fork(self, words: list[str], block: Block) -> list[str]:
        """Return the words of a command that a fork can run, none for one that needs a process of its own."""
        training = words[0] == "accelerate" or words[:2] == ["atomvision", "train"]
        if training and (block.mode != "tiny" or self.as_typed):
            return []
        if words[0] == "accelerate":
            return words[words.index("1") + 1 :]
        if training:
            return [f"training/train_{words[2]}.py", *words[3:]]
        return words if words[0] == "atomvision" and not _OWN_PROCESS & set(words) else []

    def _process(self, command: list[str], block: Block) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=240)
        assert done.returncode in _allowed(command[-1]), (
            f"{block}: {command[-1]}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout


def _allowed(command: str) -> set[int]:
    return {0, 3} if any(words in command for words in _REJECTS) else {0}


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return variables for commands: this environment's programs, a home that is nobody's, one thread."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1", "SCRATCH": "."} | more
