"""Telling how far the work is: a bar on a terminal, a sparse line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

#: Seconds between two lines where there is no terminal.
INTERVAL = 30.0


def say(text: str) -> None:
    """Write one line to standard error, where results do not go."""
    print(text, file=sys.stderr, flush=True)


class Steps:
    """Progress over a known number of things; a context manager that gives the function to advance it.

    Parameters
    ----------
    title
        What is done.
    total
        How many things there are.
    unit
        What they are.
    """

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn(self.unit), TimeRemainingColumn())
            self._bar = Progress(
                TextColumn(self.title), *columns, console=Console(stderr=True), transient=True
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, count: int = 1) -> None:
        """Note that `count` more things are done."""
        self.done += count
        now = time.monotonic()
        if self._bar is not None:
            self._bar.advance(self._task, count)
        elif now - self._last >= INTERVAL:
            self._last = now
            rate = self.done / (now - self._started)
            say(f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f} a second")
