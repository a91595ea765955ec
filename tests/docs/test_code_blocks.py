"""Every block of code in README and documentation runs, or at least names what exists."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from blocks import ROOT, Block, blocks, check_command, check_python, pages, tiny

PAGES = pages()
BLOCKS = {page: list(blocks(page)) for page in PAGES}
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_names_in_the_documentation_exist(page: Path) -> None:
    for block in BLOCKS[page]:
        try:
            if block.language == "python":
                check_python(block.code)
            if block.language in ("console", "bash"):
                for command in block.commands():
                    check_command(command)
        except (Exception, SystemExit) as problem:
            raise AssertionError(f"{block}: {problem}") from problem


def _environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | more


def _run(block: Block, names: dict[str, Any], environment: dict[str, str]) -> None:
    if block.language == "python" and block.mode == "run":
        exec(compile(block.code, str(block), "exec"), names)
        return
    # The Hub's address is read when its client is imported: a process of its own.
    python = [[sys.executable, "-c", block.code]] if block.language == "python" else []
    lines = block.commands()
    if block.mode == "tiny":
        lines = [twin for line in lines if (twin := tiny(line))]
    commands = python or [["bash", "-ec", line] for line in lines]
    assert commands, f"{block} has nothing to run"
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        # 3 says that inputs were rejected: densities of states that only GPAW can compute.
        allowed = {0, 3} if "build stm2d" in command[-1] else {0}
        assert done.returncode in allowed, f"{block}: {command[-1]}\n{done.stdout}\n{done.stderr}"


def _pages_with(*modes: str) -> list[Any]:
    found = [page for page in PAGES if any(block.mode in modes for block in BLOCKS[page])]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in found]


@pytest.mark.slow
@pytest.mark.parametrize("page", _pages_with("run", "hub", "tiny"))
def test_blocks_marked_as_tested_run_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training").symlink_to(ROOT / "training")
    environment = _environment()
    if any(block.mode in ("hub", "tiny") for block in BLOCKS[page]):
        hub = request.getfixturevalue("hub")
        environment = _environment(
            HF_ENDPOINT=hub.url,
            HF_TOKEN=request.getfixturevalue("hub_token"),
            HF_HOME=str(tmp_path / "home"),
            HF_HUB_DISABLE_XET="1",
            HF_HUB_OFFLINE="0",
        )
    if page.name == "README.md":
        _prepare(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.mode == "tiny":  # its commands make what the lines in Python found ready
            for name in ("my_model", "my_segmenter"):
                (tmp_path / name).unlink()
        if block.mode != "parse":
            _run(block, names, environment)


def _prepare(folder: Path) -> None:
    """Lay out what the README's lines speak of: a dataset, models, a micrograph."""
    from atomvision_hub import load_structures
    from atomvision_hub.data import BuildOptions, load_builder
    from atomvision_hub.microscopy import write_demo_file
    from atomvision_hub.models.pretrained import pretrained_folder
    from atomvision_hub.simulation.acquisition import record_stem

    scan = record_stem(load_structures("reference")["MoS2"], "good", seed=1)
    write_demo_file(folder / "scan.tif", scan.image.astype("uint8"), scan.ideal.pixel_size)
    for name in ("my_images", "folder"):
        (folder / name).mkdir()
        write_demo_file(folder / name / "scan.tif", scan.image.astype("uint8"), scan.ideal.pixel_size)
    grey = Image.fromarray(scan.image.astype("uint8"))
    grey.save(folder / "image.png")
    for part, label in itertools.product(("train", "test"), ("hexagonal", "square")):
        (folder / "images" / part / label).mkdir(parents=True)
        for turn in (0, 90):
            grey.rotate(turn).save(folder / "images" / part / label / f"{turn}.png")
    (folder / "my_model").symlink_to(pretrained_folder("lattice-classifier-small"))
    (folder / "my_segmenter").symlink_to(pretrained_folder("atom-segmenter-small"))
    common = {"dataset": "stem2d", "sources": ("reference",)}
    small = {"out": folder / "my_dataset", "configs": ("default", "rotated", "defects"), "tiny": True}
    load_builder("stem2d").build(BuildOptions(**common, **small))
    # A map needs a dozen images of the test split.
    load_builder("stem2d").build(BuildOptions(**common, out=folder / "larger_dataset", configs=("rotated",)))


def test_every_mark_is_one_that_is_known() -> None:
    marks = {block.mode for found in BLOCKS.values() for block in found}
    assert marks == {"run", "hub", "tiny", "parse"}
