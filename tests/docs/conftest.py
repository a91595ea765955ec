"""The loopback Hub of `tests/hub`, for pages that publish."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_HOME = Path(__file__).resolve().parents[1] / "hub" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("hub_fixtures", _HOME)
assert _SPEC is not None
assert _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
sys.modules["hub_fixtures"] = _FIXTURES
_SPEC.loader.exec_module(_FIXTURES)

_server = _FIXTURES._server
hub = _FIXTURES.hub


@pytest.fixture
def hub_token() -> str:
    """A token that may write."""
    return str(_FIXTURES.WRITE)
