"""Telling how far a build is: a bar on a terminal, a sparse line elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from atomvision_hub.data.interface import ShardTask

#: Seconds between two lines where there is no terminal.
INTERVAL = 30.0


class Progress:
    """Progress of one build, on standard error.

    Parameters
    ----------
    title
        What is built.
    """

    def __init__(self, title: str) -> None:
        self.title = title

    def say(self, text: str) -> None:
        """Write one line."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def over(self, tasks: Sequence[ShardTask], kept: int) -> Iterator[Callable[[ShardTask], None]]:
        """Yield what to call after each task."""
        inputs = sum(len(task.ids) for task in tasks)
        if kept:
            self.say(f"{self.title}: {kept} finished shard(s) kept, {len(tasks)} to make")
        if sys.stderr.isatty():
            yield from self._bar(inputs)
            return
        started = last = time.monotonic()
        done = 0

        def advance(task: ShardTask) -> None:
            nonlocal done, last
            done += len(task.ids)
            now = time.monotonic()
            if now - last >= INTERVAL:
                last = now
                self.say(
                    f"{self.title}: {done:,} of {inputs:,} inputs, {done / (now - started):,.0f} a second"
                )

        yield advance

    def _bar(self, inputs: int) -> Iterator[Callable[[ShardTask], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn(self.title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("inputs"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task_id = bar.add_task(self.title, total=inputs)
            yield lambda task: bar.advance(task_id, len(task.ids))
