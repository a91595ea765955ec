"""Fixtures for all tests."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# The suite runs offline: clients that would look at the real Hub fail at once instead of waiting.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# A suite started in the background ignores Ctrl-C, and so would the commands whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Caches of `datasets` and the Hub client: of this session alone, and removed with it.
_HOME = tempfile.TemporaryDirectory(prefix="atomvision-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _HOME.name


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real third-party inputs; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("ATOMVISION_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "structures").is_dir():
        pytest.skip(f"no real inputs at {folder}; set ATOMVISION_TEST_DATA to a folder that has them")
    return folder


@pytest.fixture
def run_notebook(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that executes a notebook of `notebooks/` in a folder of its own.

    Called as ``run_notebook(name, environment={}, **parameters)``: the parameters take the place of those in
    its cell of parameters. Returns the text that each cell printed, and the processor time in seconds.
    """

    def run(
        name: str, environment: dict[str, str] | None = None, **parameters: Any
    ) -> tuple[list[str], float]:
        import nbformat
        from nbclient import NotebookClient

        book = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
        place = next(i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
        given = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
        book.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
        client = NotebookClient(
            book, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        settings = {"PATH": path, "IPYTHONDIR": str(tmp_path / ".ipython"), "MPLBACKEND": "agg"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        client.execute(env=os.environ | (environment or {}) | settings)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        printed = [
            "".join(output.get("text", "") for output in cell.outputs)
            for cell in book.cells
            if cell.cell_type == "code"
        ]
        return printed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return run
