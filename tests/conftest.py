"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

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
