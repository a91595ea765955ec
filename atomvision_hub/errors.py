"""Errors that reach the user: one line each, saying what, where and what to do next."""

from __future__ import annotations


class AtomVisionError(Exception):
    """Anything the user can mend; the command line prints its message alone and exits with `exit_code`."""

    exit_code = 1


class UsageError(AtomVisionError):
    """The command or configuration is wrong (exit code 2)."""

    exit_code = 2


class MissingExtraError(AtomVisionError):
    """An optional engine is not installed; the message names the extra that brings it."""


class NetworkNeededError(AtomVisionError):
    """The work needs a network or a file that a network would bring; the message names both."""


class CrystalError(AtomVisionError):
    """A structure cannot be used.

    Parameters
    ----------
    reason
        One line: what is wrong with the structure.
    step
        Where it was refused (``"read"``, ``"crystal"``, ``"two-dimensional"``, ``"duplicate"``, ...);
        becomes the `step` column of ``rejected.parquet``.
    """

    def __init__(self, reason: str, *, step: str = "crystal") -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step
