"""Every block of code in README and documentation runs, or says why not and speaks of what exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from block_checks import check, check_command
from block_runs import Page, environment
from blocks import EXECUTED, ROOT, Block, blocks, pages
from prepared import PREPARED

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
BLOCKS = {name: list(blocks(page)) for name, page in PAGES.items()}
ALL = [block for found in BLOCKS.values() for block in found]


def test_every_block_is_executed_or_says_why_not() -> None:
    faults = [f"{block} {fault}" for block in ALL if (fault := block.fault())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nprint(1)\n```", "neither executed nor says why not"),
        ("    atomvision doctor", "neither executed nor says why not"),
        ("<!-- tested: run -->\n\nA paragraph.\n\n```python\nprint(1)\n```", "neither executed"),
        ("<!-- tested: options -->\n```console\n$ make docs\n```", "gives no reason"),
        ("<!-- tested: options (laziness) -->\n```console\n$ make docs\n```", "gives no reason"),
        ("<!-- tested: text (formula) -->\n```console\n$ make docs\n```", "is console, marked as text"),
        ("<!-- tested: later -->\n```console\n$ make docs\n```", "no test knows"),
        ("<!-- tested: run (hours) -->\n```console\n$ make docs\n```", "may only name an extra"),
    ],
)
def test_a_block_without_a_reason_is_found(text: str, fault: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    assert fault in next(blocks(page)).fault()


@pytest.mark.parametrize("name", [name for name, found in BLOCKS.items() if found])
def test_commands_options_and_names_exist(name: str) -> None:
    for block in BLOCKS[name]:
        try:
            check(block)
        except (Exception, SystemExit) as problem:
            raise AssertionError(f"{block}: {problem}") from problem


def _mutants(block: Block) -> list[str]:
    """Return the code with one word misspelt: an option, a key of a configuration, an imported name."""
    patterns = {
        "python": (r"(?<=import )\w+", r"(?<=[(,] )[a-z_]+(?==)"),
        "yaml": (r"^ *[a-z]+(?=:)",),
    }
    shell = (
        r"(?<=\s)-{1,2}[a-z][\w-]*",  # options
        r"(?<=[\s\"])[a-z]+\.[a-z_]+(?==)",  # keys of a configuration
        r"(?<=make )[\w-]+|(?<=atomvision )[a-z][\w-]*|(?<=hub\[)\w+",  # targets, commands, extras
        r"(?<=benchmarks/)\w+(?=\.py)",
    )
    words = patterns.get(block.language, shell)
    found = [match for word in words for match in re.finditer(word, block.code, flags=re.MULTILINE)]
    code = block.code
    return [
        f"{code[: match.end()]}zz{code[match.end() :]}" for match in found if "#" not in _before(code, match)
    ]


def _before(code: str, match: re.Match[str]) -> str:
    line = code[code.rfind("\n", 0, match.start()) + 1 : match.start()]
    return line.removeprefix("#SBATCH")


@pytest.mark.parametrize("block", [b for b in ALL if b.mode == "options" or b.extra], ids=str)
def test_a_misspelt_word_in_a_block_that_is_not_executed_is_found(block: Block) -> None:
    mutants = _mutants(block)
    assert mutants or block.language == "python", f"{block} has no word that could be wrong"
    for code in mutants:
        with pytest.raises((Exception, SystemExit)):
            check(Block(block.page, block.line, block.language, code, block.mode, block.reason))


def test_examples_of_help_texts_would_be_understood() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    from hooks import command_line

    examples = re.findall(r"^\$ (.*)", command_line(), flags=re.MULTILINE)
    assert len(examples) > 10
    for example in examples:
        check_command(example.split(" > ")[0])


def _executed(block: Block) -> bool:
    return block.mode in EXECUTED


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, found in BLOCKS.items() if any(map(_executed, found))])
def test_blocks_run_in_their_order_and_print_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    found = BLOCKS[name]
    if not any(block.executed for block in found):
        pytest.skip(f"the blocks of {name} need {', '.join({block.extra for block in found} - {''})}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training").symlink_to(ROOT / "training")
    variables = request.getfixturevalue("loopback")
    forks = request.getfixturevalue("forks")
    if any("hf download" in block.code for block in found):
        request.getfixturevalue("published_model")
    PREPARED.get(name, lambda folder: None)(tmp_path)
    # The front page goes through every door; elsewhere trainings are forks of their scripts.
    page = Page(environment(tmp_path, **variables), forks, as_typed=name == "README.md")
    for block in found:
        if block.mode == "tiny":  # its commands make what the lines in Python found ready
            for model in ("my_model", "my_segmenter"):
                if (tmp_path / model).is_symlink():
                    (tmp_path / model).unlink()
        if block.executed:
            page.run(block)
        elif block.mode == "output":
            page.compare(block)
