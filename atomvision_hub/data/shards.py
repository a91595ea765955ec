"""Making shards: independent tasks, in this process or in a pool of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context, parent_process
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from atomvision_hub._files import atomic_path, sha256_file
from atomvision_hub.data.features import table_of
from atomvision_hub.data.interface import (
    BuilderConfig,
    BuildOptions,
    DatasetBuilder,
    Inputs,
    Rejection,
    ShardTask,
)
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.records import Record

#: Rows per row group: small enough for the Hub's viewer, and what bounds the memory of a build.
ROW_GROUP = 100
#: Bytes of images after which a row group ends early: a hundred frames of a camera do not fit into memory.
GROUP_BYTES = 64 * 2**20
#: Fixed options of every Parquet file, so that equal rows give equal bytes. Content-defined chunks let the
#: Hub store only what changed between two versions.
WRITER: dict[str, Any] = {
    "version": "2.6",
    "compression": "zstd",
    "write_page_index": True,
    "use_content_defined_chunking": True,
    "use_dictionary": False,
}


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A finished shard, as its state file and the manifest know it."""

    path: str
    sha256: str
    bytes: int
    rows: int
    rejections: tuple[Rejection, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the content of the state file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardResult:
        """Read the content of a state file."""
        rejections = tuple(Rejection(**entry) for entry in content["rejections"])
        return cls(**{**content, "rejections": rejections})


@dataclass(frozen=True)
class ShardContext:
    """All a worker needs to know; plain values, so that it travels to a fresh process."""

    builder: str
    options: BuildOptions
    configs: Mapping[str, Mapping[str, Any]]
    schemas: Mapping[str, pa.Schema]
    versions: Mapping[str, str] = field(default_factory=dict)


class ShardMaker:
    """Turns tasks into files.

    Parameters
    ----------
    builder, inputs
        The dataset and its opened inputs.
    configs
        Name -> config.
    schemas
        Name of the config -> Arrow schema with the metadata of `datasets`.
    options
        Of the build.
    """

    def __init__(
        self,
        builder: DatasetBuilder,
        inputs: Inputs,
        configs: Mapping[str, BuilderConfig],
        schemas: Mapping[str, pa.Schema],
        options: BuildOptions,
    ) -> None:
        self.builder = builder
        self.inputs = inputs
        self.configs = configs
        self.schemas = schemas
        self.options = options

    @classmethod
    def open(cls, context: ShardContext) -> ShardMaker:
        """Open builder and inputs anew, in a worker."""
        from atomvision_hub.data.builders import load_builder

        builder = load_builder(context.builder).BUILDER
        configs = {name: builder.config_model.model_validate(c) for name, c in context.configs.items()}
        return cls(builder, builder.open(context.options), configs, context.schemas, context.options)

    def make(self, task: ShardTask) -> ShardResult:
        """Write the file of a task and return what it holds."""
        config = self.configs[task.config]
        record = self.builder.record(config)
        rejections: list[Rejection] = []
        path = self.options.out / task.path
        rows = 0
        with atomic_path(path) as temporary:
            with pq.ParquetWriter(temporary, self.schemas[task.config], **WRITER) as writer:
                for group in _grouped(self._rows(task, config, rejections)):
                    writer.write_table(table_of(record, group), row_group_size=ROW_GROUP)
                    rows += len(group)
            sha256, size = sha256_file(temporary), temporary.stat().st_size
        return ShardResult(task.path, sha256, size, rows, tuple(rejections))

    def _rows(self, task: ShardTask, config: BuilderConfig, rejections: list[Rejection]) -> Iterator[Record]:
        for identifier in task.ids:
            try:
                yield from self.builder.rows(self.inputs, identifier, config, self.options.seed)
            except AtomVisionError as problem:
                step = getattr(problem, "step", None)
                if step is None:
                    raise
                source = self.inputs.source_of(identifier)
                rejections.append(Rejection(identifier, source, step, " ".join(str(problem).split())))


def _grouped(rows: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value) for _, value in row if isinstance(value, bytes))
        if len(group) == ROW_GROUP or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def run_tasks(
    maker: ShardMaker, tasks: Sequence[ShardTask], num_proc: int
) -> Iterator[tuple[ShardTask, ShardResult]]:
    """Yield tasks with their results as they finish.

    Parameters
    ----------
    maker
        Makes the shards itself when one process suffices.
    tasks
        What to do.
    num_proc
        Worker processes, each with one BLAS thread: sums of floats must not depend on the number of threads.

    Raises
    ------
    AtomVisionError
        When a worker dies; also whatever a task raises.
    """
    if num_proc <= 1 or len(tasks) <= 1:
        with threadpool_limits(1):
            yield from ((task, maker.make(task)) for task in tasks)
        return
    context = ShardContext(
        str(maker.builder.script),
        maker.options,
        {name: config.model_dump(mode="json") for name, config in maker.configs.items()},
        maker.schemas,
    )
    pool = ProcessPoolExecutor(
        min(num_proc, len(tasks)), get_context("spawn"), initializer=_start_worker, initargs=(context,)
    )
    waiting = list(reversed(tasks))
    running: dict[Future[ShardResult], ShardTask] = {}
    try:
        while waiting or running:
            # No queue: after an interruption only what is being made now has to end.
            while waiting and len(running) < num_proc:
                task = waiting.pop()
                with _without_interrupts():
                    running[pool.submit(_make, task)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise AtomVisionError(
            "a worker died, perhaps for want of memory; the same command goes on, try a smaller --num-proc"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C, also in the processes that are started meanwhile: it is the parent's business."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_MAKER: ShardMaker | None = None


def _start_worker(context: ShardContext) -> None:
    global _MAKER
    threading.Thread(target=_die_with_parent, daemon=True).start()
    threadpool_limits(1)
    _MAKER = ShardMaker.open(context)


def _die_with_parent() -> None:
    # A killed parent cannot stop its workers, and they would wait for tasks for ever.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(task: ShardTask) -> ShardResult:
    assert _MAKER is not None
    return _MAKER.make(task)
