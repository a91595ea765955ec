"""The notebooks run from the first cell to the last; what is committed has no outputs that could go stale."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NOTEBOOKS = ("simulate_and_look", "train_and_push", "analyze_your_micrograph")


def test_all_notebooks_are_tested(repository: Path) -> None:
    assert {path.stem for path in (repository / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_committed(repository: Path, name: str) -> None:
    content = json.loads((repository / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = content["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["metadata"].get("tags") for cell in code].index(["parameters"]) == 0
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        for link in re.findall(r"\]\((?!http)([^)]+)\)", "".join(cell["source"])):
            assert (repository / "notebooks" / link).is_file(), link


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_simulate_and_look(run_notebook: Any) -> None:
    printed, _ = run_notebook("simulate_and_look", size=96)
    told = "\n".join(printed)
    assert "lattice hexagonal" in told
    assert "atoms of S are missing" in told


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_analyze_the_simulated_micrograph_and_a_file(run_notebook: Any, tmp_path: Path) -> None:
    printed, _ = run_notebook("analyze_your_micrograph")
    told = "\n".join(printed)
    assert "image 0: image, 320 x 320 px" in told
    assert "lattice: hexagonal" in told
    assert "MoS2 seen along (0, 0, 1)" in told
    for name in ("simulated.tif", "atoms.png", "atoms.csv"):
        assert (tmp_path / "analysis" / name).stat().st_size > 1000
    # A file of the reader's, which does not know its pixel size.
    rows, columns = np.mgrid[:160, :160]
    waves = np.cos(2 * np.pi * rows / 16) + np.cos(2 * np.pi * columns / 16)
    Image.fromarray(np.uint8(60 * (waves + 2))).save(tmp_path / "mine.png")
    printed, _ = run_notebook("analyze_your_micrograph", file="mine.png", folder="mine")
    told = "\n".join(printed)
    assert "image 0: " in told
    assert "nearest 16" in told
    assert " px apart" in told
    assert "MoS2 seen along" not in told
