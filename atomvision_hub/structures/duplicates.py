"""The same crystal under several names."""

from __future__ import annotations

from collections.abc import Sequence

from atomvision_hub.structures.sources import Structures


def duplicates(structures: Structures, ids: Sequence[str]) -> dict[str, str]:
    """Return duplicate id -> id kept."""
    return {}
