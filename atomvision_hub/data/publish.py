"""Publishing a finished folder on the Hugging Face Hub under a version tag that never moves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PushReport:
    """What a push did; `str` gives the line for the user.

    Parameters
    ----------
    repo_id, repo_type
        The repository.
    tag
        Version.
    commit
        Commit that the tag names, 40 hexadecimal digits.
    url
        Page of the version.
    published
        False when the very same content was already published under this tag.
    """

    repo_id: str
    repo_type: Literal["dataset", "model"]
    tag: str
    commit: str
    url: str
    published: bool

    def __str__(self) -> str:
        done = "published" if self.published else "already published, nothing to do:"
        return f"{done} {self.repo_id} {self.tag} ({self.commit[:12]}), {self.url}"


def push_dataset(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    tag: str,
    private: bool = False,
    token: str | None = None,
) -> PushReport:
    """Publish a dataset folder and tag it."""
    raise NotImplementedError


def push_model(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    tag: str,
    private: bool = False,
    token: str | None = None,
) -> PushReport:
    """Publish a model folder and tag it."""
    raise NotImplementedError
