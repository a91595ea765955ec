"""What publishing and loading share: version tags and the Hub's errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_TAG = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


def parse_tag(tag: str) -> tuple[int, int, int] | None:
    """Return the numbers of a version tag ``vX.Y.Z``, `None` for any other name."""
    match = _TAG.fullmatch(tag)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def newest_tag(tags: Iterable[str]) -> str | None:
    """Return the highest version among `tags`, ignoring names that are no versions."""
    return max(
        (tag for tag in tags if parse_tag(tag)), key=lambda tag: parse_tag(tag) or (0, 0, 0), default=None
    )


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn the Hub client's exceptions into one line each."""
    yield
