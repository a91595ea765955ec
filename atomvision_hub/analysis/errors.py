"""What cannot be analysed."""

from __future__ import annotations

from atomvision_hub.errors import AtomVisionError


class AnalysisError(AtomVisionError):
    """An image or a crystal cannot be analysed.

    Parameters
    ----------
    reason
        One line: what is wrong.
    """

    step = "analysis"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
