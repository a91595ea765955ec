"""Whether what a block says exists: programs, files, options, configuration keys, names of the package."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import operator
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import typer
import yaml
from blocks import ROOT, Block

#: Options of Slurm's sbatch that the pages use, as its manual names them.
_SBATCH = {"--job-name", "--gpus", "--time", "--requeue"}


def check(block: Block) -> None:
    """Raise where a block speaks of something that is not there."""
    if block.language == "python":
        check_python(block.code)
    elif block.language in ("console", "bash"):
        for command in block.commands():
            check_command(command)
        for line in re.findall(r"^#SBATCH (.*)", block.code, flags=re.MULTILINE):
            unknown = {word.split("=")[0] for word in line.split()} - _SBATCH
            assert not unknown, f"sbatch has no option {' '.join(sorted(unknown))}"
    elif block.language == "yaml":
        _check_cluster(block.code)


def check_python(code: str) -> None:
    """Compile, look up what is imported, and the names of arguments of what was imported."""
    known: dict[str, Any] = {}
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"
                known[name.asname or name.name] = getattr(module, name.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            _check_arguments(node.func.id, known[node.func.id], node)


def _check_arguments(name: str, called: Any, node: ast.Call) -> None:
    parameters = inspect.signature(called).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names = {parameter.name for parameter in parameters}
        for keyword in node.keywords:
            assert keyword.arg is None or keyword.arg in names, f"{name} has no argument {keyword.arg}"


def check_command(command: str) -> None:
    """Check that a command line would be understood: its program, its options, the files it names."""
    words = [word.strip("[]") for word in shlex.split(command, comments=True)]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    words = [word for chain in _chained(words) for word in chain]
    program, rest = Path(words[0]).name, words[1:]
    checker = globals().get(f"_check_{program}")
    assert checker is not None, f"{program} is a program that this test does not know"
    checker(rest)


def _chained(words: list[str]) -> list[list[str]]:
    """Return the last command of ``a && b``; the ones before it only go to a place."""
    while "&&" in words:
        at = words.index("&&")
        assert words[0] in ("cd", "git"), f"{words[0]} && ... is not looked at by this test"
        rest = words[at + 1 :]
        if rest[0] == "cd":
            return [words[:at]]
        words = rest
    return [words]


def _options(command: Any) -> set[str]:
    names = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    return {*names, "--help"}


def _check_click(command: Any, words: list[str], name: str) -> None:
    # "..." stands for what a reader fills in; what is left must still be known words.
    words = [word for word in words if word != "..."]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{name} has no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = _options(command)
    for word in words:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            assert word.split("=")[0] in known, f"{name} {command.name} has no option {word}"


def _check_atomvision(words: list[str]) -> None:
    from atomvision_hub.cli import app

    if words[:1] == ["train"] and len(words) > 1:
        _check_script(ROOT / "training" / f"train_{words[1]}.py", words[2:])
    else:
        _check_click(typer.main.get_command(app), words, "atomvision")


def _check_hf(words: list[str]) -> None:
    # Its commands are made when they are called: their help is what they can be asked about.
    program = Path(sys.executable).parent / "hf"
    told = subprocess.run([program, words[0], "--help"], capture_output=True, text=True, check=True).stdout
    for word in words:
        assert not word.startswith("-") or re.search(rf"{re.escape(word)}\b", told), (
            f"hf has no option {word}"
        )


def _check_dask(words: list[str]) -> None:
    commands = {entry.name: entry for entry in entry_points(group="dask_cli")}
    assert words[0] in commands, f"dask has no command {words[0]}"
    _check_click(commands[words[0]].load(), words[1:], "dask")


def _check_accelerate(words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert words[0] == "launch", f"accelerate {words[0]} is not looked at by this test"
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
    words = [str(ROOT / word) if word.startswith("model_cards/") else word for word in words]
    parse_arguments(config, "", [word for word in words if word != "..."])


def _check_python(words: list[str]) -> None:
    if words[0] == "-c":
        check_python(words[1])
        return
    if words[0].startswith("atomvision/"):
        return  # the scripts of usnistgov/atomvision
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    text = script.read_text(encoding="utf-8")
    for number, word in enumerate(words[1:]):
        is_command = number == 0 and re.fullmatch(r"[a-z]+", word)  # of a script that has several
        if word.startswith("-") or is_command:
            assert f'"{word.split("=")[0]}"' in text, f"{words[0]} does not know {word}"
    if "--set" in words:  # handed on to a training script
        trained = re.search(r"train_\w+\.py", text)
        assert trained, f"{words[0]} starts no training"
        _check_script(ROOT / "training" / trained[0], words[words.index("--set") :])


def _check_pip(words: list[str]) -> None:
    from pip._internal.commands import create_command

    known = create_command(words[0]).parser
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words[1:]:
        if word.startswith("-"):
            assert known.has_option(word), f"pip {words[0]} has no option {word}"
        elif found := re.fullmatch(r"([\w.-]+)(?:\[(.*?)\]?)?", word):
            assert found[1] in (project["name"], "."), f"{found[1]} is not this package"
            unknown = set((found[2] or "").split(",")) - {"", *project["optional-dependencies"]}
            assert not unknown, f"there is no extra {unknown}"


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets), f"make has no {' '.join(words)}"


def _check_git(words: list[str]) -> None:
    assert words[0] == "clone", f"git {words[0]} is not looked at by this test"


def _check_cluster(text: str) -> None:
    """Read a file for `--dask` as the command does, and write the job script that a queue would get."""
    from dask_jobqueue.slurm import SLURMJob

    from atomvision_hub.data.dask_engine import ClusterFile

    content = yaml.safe_load(text)
    shipped = yaml.safe_load((ROOT / "docs" / "slurm.yaml").read_text(encoding="utf-8"))
    assert content == shipped, "docs/slurm.yaml says something else"
    file = ClusterFile.model_validate(content)
    assert SLURMJob(scheduler="tcp://127.0.0.1:8786", name="worker", **file.options).job_script()
