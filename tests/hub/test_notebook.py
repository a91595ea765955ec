"""The notebook that trains and pushes, against the Hub on the loopback interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

#: Processor time that the whole notebook may take, in seconds: under a minute on one core.
SECONDS = 60


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_train_and_push(
    hub: Any, api: Any, client_environment: Any, run_notebook: Any, tmp_path: Path
) -> None:
    environment = client_environment(tmp_path / "home", "hf_alicewrites") | {"HF_HUB_OFFLINE": "0"}
    printed, seconds = run_notebook("train_and_push", environment, owner="alice")
    told = "\n".join(printed)
    assert seconds < SECONDS
    assert "stem2d is valid" in told
    assert "test accuracy " in told
    assert "published alice/stem2d-tiny v0.1.0 (commit " in told
    assert "published alice/lattice-classifier-tiny v0.1.0 (commit " in told
    # What the last cell loaded by name is what was built.
    assert told.count("{'train': 6, 'validation': 2, 'test': 4}") == 2
    assert "hf_" not in told
    tags = api().list_repo_refs("alice/lattice-classifier-tiny").tags
    assert [tag.name for tag in tags] == ["v0.1.0"]


def test_without_an_owner_nothing_is_pushed(repository: Path) -> None:
    """As it is committed: each cell that pushes or loads from the Hub asks for the owner first."""
    import nbformat

    book = nbformat.read(repository / "notebooks" / "train_and_push.ipynb", as_version=4)
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert "owner = None" in code[0]
    reaching = [text for text in code if "{owner}" in text]
    assert len(reaching) == 2
    assert all(text.startswith("if owner is") for text in reaching)
