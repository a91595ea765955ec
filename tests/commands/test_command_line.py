"""The command line as a whole: it teaches, every command helps and answers alike, machines get JSON."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from atomvision_hub.cli import app
from atomvision_hub.commands import completion, shared, welcome

#: Seconds of processor time that help may take; measured 0.25 on a core of 2.8 GHz.
HELP_SECONDS = 0.5
RUNNER = CliRunner()


def commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that do something, with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


ALL = dict(commands(typer.main.get_command(app)))
NAMES = pytest.mark.parametrize("words", list(ALL), ids=" ".join)
#: Print something else than results: another program's output, a demonstration, text that is the product.
WITHOUT_JSON = {("train",), ("demo",), ("metadata", "template"), ("metadata", "schema")}


def options(words: tuple[str, ...]) -> dict[str, Any]:
    """The options of a command by each of their names."""
    return {name: param for param in ALL[words].params for name in param.opts if name.startswith("-")}


def run(*arguments: object) -> Any:
    return RUNNER.invoke(app, [str(argument) for argument in arguments], prog_name="atomvision")


@NAMES
def test_help_of_every_command(words: tuple[str, ...]) -> None:
    told = run(*words, "--help")
    assert told.exit_code == 0
    assert "Usage: atomvision " + " ".join(words) in told.output
    text = str(ALL[words].help)
    # A verb first ("Build a dataset"), and a line to copy.
    assert re.match(r"[A-Z][a-z]+ ", text)
    assert f"Example: atomvision {' '.join(words)}" in text


@NAMES
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    for param in ALL[words].params:
        assert param.help, f"{param.name} says nothing"
        assert param.help.rstrip()[-1] in ".)", param.help


@NAMES
def test_the_example_of_the_help_is_a_line_that_parses(words: tuple[str, ...]) -> None:
    example = re.search(r"Example: atomvision (.*)", str(ALL[words].help))
    assert example is not None
    arguments = example[1].split(" > ")[0].split()[len(words) :]
    with ALL[words].make_context("example", arguments):
        pass


@NAMES
def test_an_unknown_option_is_wrong_usage_in_one_line(words: tuple[str, ...]) -> None:
    # Behind a task, options are the training script's.
    told = run(*words, "--no-such-option")
    assert told.exit_code == 2
    assert re.fullmatch(r"error: .*--no-such-option.*\n", told.stderr), told.stderr
    assert not told.stdout


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    told = run("buidl")
    assert told.exit_code == 2
    assert (
        told.stderr == "error: no such command 'buidl'. Did you mean 'build'?; atomvision --help tells more\n"
    )


def test_a_bad_value_is_wrong_usage_in_one_line(tmp_path: Path) -> None:
    told = run("build", "stem2d", "--out", tmp_path / "x", "--limit", "0")
    assert told.exit_code == 2
    assert told.stderr.startswith("error: invalid value for '--limit': ")
    assert told.stderr.endswith("atomvision build --help tells more\n")
    assert told.stderr.count("\n") == 1


def test_options_mean_the_same_everywhere() -> None:
    """One word a thing: the same long option has the same short form and the same kind of value."""
    forms: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {}
    for words in ALL:
        for param in ALL[words].params:
            for name in (opt for opt in param.opts if opt.startswith("--")):
                forms.setdefault(name, {})[words] = tuple(opt for opt in param.opts if len(opt) == 2)
    differing = {name: told for name, told in forms.items() if len(set(told.values())) > 1}
    assert not differing
    for words in ALL:
        known = options(words)
        assert ("--json" in known) != (words in WITHOUT_JSON), words
        # What writes results says where with --out, and its files have a short form.
        assert "--output" not in known
        assert ("--out" in known) == ("-o" in known)


def test_without_arguments_it_teaches() -> None:
    told = run()
    assert told.exit_code == 0
    assert told.stdout == welcome.GUIDE
    # Every command it names exists, and no command is forgotten in the list that it points to.
    top = {words[0] for words in ALL}
    named = set(re.findall(r"atomvision ([a-z][a-z-]+)", welcome.GUIDE))
    assert named <= top
    listed = run("--help").output
    assert all(re.search(rf"│ {name}\b", listed) for name in top)


def cpu_seconds(*arguments: str) -> float:
    """Processor time of a fresh process, the least of three; its output must be there."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "atomvision_hub.cli", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "atomvision" in done.stdout
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["build", "--help"], ["--version"]], ids=" ".join)
def test_help_is_quick(arguments: list[str]) -> None:
    assert cpu_seconds(*arguments) < HELP_SECONDS


def test_help_imports_no_numerics() -> None:
    code = """
import sys
from atomvision_hub.cli import app
loaded = {"numpy", "torch", "datasets", "ase", "pyarrow", "PIL", "pydantic", "yaml"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from atomvision_hub import load_structures, simulate_stem
    from atomvision_hub.simulation import to_grey

    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(160, 160), pixel_size=0.12)
    path = tmp_path_factory.mktemp("images") / "MoS2.png"
    Image.fromarray(np.asarray(to_grey(frame.image, bits=8)[0], np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "stem2d"
    told = run("build", "stem2d", "--source", "reference", "--tiny", "--out", folder, "--json")
    assert told.exit_code in (0, 3), told.stderr
    content = json.loads(told.stdout)
    assert content["dataset"] == "stem2d"
    assert content["folder"] == str(folder)
    assert sum(content["rows"]["default"].values()) == 12
    assert (told.exit_code == 3) == bool(content["rejected"])
    return folder


def one_object(told: Any, code: int = 0) -> dict[str, Any]:
    """The answer of a command with --json: one line, nothing else on standard output."""
    assert told.exit_code == code, told.output
    assert told.stdout.count("\n") == 1
    content: dict[str, Any] = json.loads(told.stdout)
    return content


def test_json_knows_no_number_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    shared.emit({"a": float("nan"), "b": [1.5, float("inf")], "path": Path("x"), "c": {"d": (None, True)}})
    assert capsys.readouterr().out == '{"a": null, "b": [1.5, null], "c": {"d": [null, true]}, "path": "x"}\n'


def test_json_of_validate(dataset: Path, tmp_path: Path) -> None:
    assert one_object(run("validate", dataset, "--json")) == {
        "folder": str(dataset),
        "problems": [],
        "valid": True,
    }
    told = run("validate", tmp_path, "--json")
    content = one_object(told, code=1)
    assert not content["valid"]
    assert content["problems"]
    assert f"error: {tmp_path} has {len(content['problems'])} problem(s)" in told.stderr


def test_json_of_predict_and_what_it_refuses(picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    told = run("predict", broken, picture, "--pixel-size", "0.12", "--json")
    content = one_object(told, code=3)
    assert content["image"] == str(picture)
    assert sum(content["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert told.stderr.startswith("error: ")
    assert run("predict", broken, "--json").exit_code == 1
    assert run("predict", picture, "--pixel-size", "-1").exit_code == 2


def test_json_of_analyze_and_spacings(picture: Path, tmp_path: Path) -> None:
    found = one_object(run("analyze", picture, "--pixel-size", "0.12", "--json"))
    assert found["atoms"]["count"] > 50
    image = tmp_path / "spacings.png"
    told = run("spacings", picture, "--pixel-size", "0.12", "--structure", "MoS2", "--json", "-o", image)
    assert one_object(told)["structure"] == "MoS2"
    assert image.read_bytes().startswith(b"\x89PNG")


def test_json_of_the_pictures(tmp_path: Path) -> None:
    image = tmp_path / "atoms.png"
    told = one_object(run("atoms-picture", "graphene", "--field-of-view", "12", "-o", image, "--json"))
    assert told["columns_found"] == told["columns"]
    assert told["vacancies_seen"] == told["vacancies"] == 3
    image = tmp_path / "stm.png"
    arguments = ("graphene", "--field-of-view", "5", "--surrogate", "-o", image, "--json")
    assert one_object(run("stm-picture", *arguments))["crystals"] == ["graphene"]
    assert image.is_file()


def test_json_of_metadata(picture: Path, tmp_path: Path) -> None:
    assert one_object(run("metadata", "extract", picture, "--json"))["provenance"]["shape"] == [160, 160]
    sidecar = tmp_path / "scan.yaml"
    sidecar.write_text("sample: {formula: Xy}\n")
    content = one_object(run("metadata", "validate", sidecar, "--json"), code=1)
    assert content["files"] == 1
    assert "sample.formula" in content["problems"][0]


def complete(line: str) -> list[str]:
    """What a shell is offered for a line; its last word is incomplete, perhaps empty."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from atomvision_hub.cli import main; main()"],
        env=os.environ
        | {"_ATOMVISION_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.split()


def test_the_shell_is_offered_names(repository: Path, dataset: Path) -> None:
    assert complete("atomvision val") == ["validate"]
    assert complete("atomvision build st") == ["stem2d", "stm2d"]
    configs = sorted(path.stem for path in (repository / "dataset_builders/configs/stm2d").glob("*.yaml"))
    assert complete("atomvision build stm2d --config ") == configs
    assert complete(f"atomvision cluster {dataset} --config ") == ["default"]
    tasks = sorted(path.stem.removeprefix("train_") for path in (repository / "training").glob("train_*.py"))
    assert complete("atomvision train ") == tasks
    named = complete("atomvision train classifier --config ")
    assert "classifier_small" in named
    assert not any(name.startswith("alignn") for name in named)
    assert "MoS2" in complete("atomvision stm-picture Mo")


def test_names_that_completion_knows_by_heart_are_the_real_ones() -> None:
    from atomvision_hub.analysis import PHASES
    from atomvision_hub.structures import load_structures
    from atomvision_hub.structures.jarvis import DATABASES

    assert completion.crystals("") == sorted(load_structures("reference"))
    assert set(completion.phases("")) == {*PHASES, *load_structures("reference")}
    known = {name.removeprefix("jarvis:") for name in completion.sources("jarvis:")}
    assert known == set(DATABASES)
