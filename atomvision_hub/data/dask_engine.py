"""Making shards on a Dask cluster: a scheduler's address, or a file that describes a batch queue.

The tasks are those of a build on one machine (`shards.run_tasks`), so are the bytes. Dask brings queues,
retries of what a lost worker was making, and the ways onto SLURM, PBS and others (dask-jobqueue); the
folder of the dataset must be on a file system that all workers share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from atomvision_hub.data.interface import BuildOptions, ShardTask
from atomvision_hub.data.shards import ShardContext, ShardMaker, ShardResult
from atomvision_hub.errors import AtomVisionError, MissingExtraError, NetworkNeededError, UsageError

#: Seconds to wait for the scheduler, and for the first worker of an address.
PATIENCE = 30.0
#: How often Dask tries a task again whose worker was lost.
RETRIES = 3

_SCHEMES = ("tcp://", "tls://", "ucx://", "ws://", "wss://")
_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
}


class ClusterFile(BaseModel):
    """A cluster to start for one build.

    Parameters
    ----------
    queue
        The batch system, or ``local`` for processes of this machine.
    jobs
        How many jobs to ask for.
    options
        Handed to the cluster class of dask-jobqueue (``cores``, ``memory``, ``walltime``, ``account``, ...).
    """

    model_config = ConfigDict(extra="forbid")

    queue: Literal["local", "slurm", "pbs", "sge", "lsf", "htcondor", "oar", "moab"]
    jobs: PositiveInt
    options: dict[str, Any] = Field(default_factory=dict)


def run_on_dask(
    maker: ShardMaker, tasks: Sequence[ShardTask], where: str
) -> Iterator[tuple[ShardTask, ShardResult]]:
    """Yield tasks with their results as workers finish them.

    Parameters
    ----------
    maker
        Knows builder, configs and options; every worker opens its own.
    tasks
        What to do.
    where
        Address of a scheduler (``tcp://host:port``) or a YAML file, see `ClusterFile`.

    Raises
    ------
    MissingExtraError
        Without Dask.
    NetworkNeededError
        When the scheduler does not answer or has no workers.
    AtomVisionError
        When a worker has other versions, does not see the folder, or dies again and again.
    """
    try:
        import distributed
    except ImportError:
        raise MissingExtraError("--dask needs Dask: pip install 'atomvision-hub[dask]'") from None
    if not tasks:
        return
    context = _portable(maker)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_client(where))
        futures = {}
        for task in tasks:
            future = client.submit(_make, context, task, key=_key(context, task), retries=RETRIES, pure=False)
            futures[future] = task
        # What is still queued must not go on when this process gives up.
        stack.callback(client.cancel, list(futures))
        for future in distributed.as_completed(futures, loop=client.loop):
            try:
                result = future.result()
            except distributed.KilledWorker:
                raise AtomVisionError(
                    f"workers died again and again over {futures[future].path}, perhaps for want of memory; "
                    "give them more and run the same command, it goes on"
                ) from None
            if isinstance(result, str):
                raise AtomVisionError(result)
            yield futures[future], result


@contextlib.contextmanager
def _client(where: str) -> Iterator[Any]:
    import distributed

    with contextlib.ExitStack() as stack:
        if where.startswith(_SCHEMES):
            target: Any = where
        else:
            target = stack.enter_context(_cluster(read_cluster_file(Path(where))))
        try:
            client = stack.enter_context(distributed.Client(target, timeout=PATIENCE, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as problem:
            raise NetworkNeededError(
                f"no Dask scheduler answers at {where} ({problem}); start one with `dask scheduler`"
            ) from None
        if isinstance(target, str):
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise NetworkNeededError(
                    f"the scheduler at {where} has no workers; start some: `dask worker {where} --nthreads 1`"
                ) from None
        yield client


def read_cluster_file(path: Path) -> ClusterFile:
    """Read a YAML file that describes a cluster.

    Raises
    ------
    UsageError
        When it is not there or says something else.
    """
    try:
        return ClusterFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise UsageError(
            f"--dask {path}: {problem.strerror}; give tcp://host:port or a YAML file (queue, jobs, options)"
        ) from None
    except yaml.YAMLError as problem:
        raise UsageError(f"{path} is no YAML: {' '.join(str(problem).split())}") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _cluster(file: ClusterFile) -> Any:
    import distributed

    if file.queue == "local":
        options = {"threads_per_worker": 1, "dashboard_address": None, **file.options}
        return distributed.LocalCluster(n_workers=file.jobs, **options)
    try:
        import dask_jobqueue
    except ImportError:
        raise MissingExtraError(
            f"queue {file.queue!r} needs dask-jobqueue: pip install 'atomvision-hub[dask]'"
        ) from None
    try:
        cluster = getattr(dask_jobqueue, _QUEUES[file.queue])(**file.options)
    except (TypeError, ValueError) as problem:
        raise UsageError(f"options of queue {file.queue!r}: {problem}") from None
    cluster.scale(jobs=file.jobs)
    return cluster


def _portable(maker: ShardMaker) -> ShardContext:
    """Return what a worker on another machine needs, in another folder and perhaps another installation."""
    from atomvision_hub.data.builders import available_builders

    builder, options = maker.builder, maker.options
    shipped = available_builders().get(builder.name)
    ours = shipped is not None and shipped.resolve() == builder.script.resolve()

    def absolute(path: Path | None) -> Path | None:
        return path and path.absolute()

    portable: BuildOptions = dataclasses.replace(
        options,
        sources=[str(Path(s).absolute()) if Path(s).exists() else s for s in options.sources],
        out=options.out.absolute(),
        store_dir=absolute(options.store_dir),
        split_file=absolute(options.split_file),
        cache_dir=absolute(options.cache_dir),
        configs=(),
        dask=None,
    )
    configs: dict[str, Mapping[str, Any]] = {
        name: config.model_dump(mode="json") for name, config in maker.configs.items()
    }
    name = builder.name if ours else str(builder.script.resolve())
    return ShardContext(name, portable, configs, maker.schemas, _versions(builder.libraries))


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return what must be equal on all machines; the processor's own BLAS kernel may differ."""
    from atomvision_hub.data.workspace import environment

    return {name: version for name, version in environment(libraries).items() if name != "blas"}


def _key(context: ShardContext, task: ShardTask) -> str:
    # Unique to this dataset folder: two builds on one scheduler must not share results.
    where = hashlib.blake2b(f"{context.options.out}:{os.getpid()}".encode(), digest_size=6).hexdigest()
    return f"{Path(context.builder).stem}-{where}-{task.name}"


_LOCK = threading.Lock()
_MAKERS: dict[str, ShardMaker] = {}


def _make(context: ShardContext, task: ShardTask) -> ShardResult | str:
    """Make a shard in a worker; a string is what the user has to mend (trying again would not help)."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # A worker with several threads makes one shard at a time: not every library below is thread-safe.
    with _LOCK, threadpool_limits(1):
        host = socket.gethostname()
        try:
            if not (context.options.out / ".build").is_dir():
                return (
                    f"worker on {host} does not see {context.options.out}; "
                    "choose an --out on a file system that all workers share"
                )
            maker = _opened(context)
            if (other := _versions(maker.builder.libraries)) != context.versions:
                name = next(n for n, v in context.versions.items() if other.get(n) != v)
                return (
                    f"worker on {host} has {name} {other.get(name)}, this machine {context.versions[name]}; "
                    "install the same versions everywhere, the bytes depend on them"
                )
            return maker.make(task)
        except AtomVisionError as problem:
            return str(problem)


def _opened(context: ShardContext) -> ShardMaker:
    plain = dataclasses.replace(context, schemas={})
    key = hashlib.sha256(
        json.dumps(dataclasses.asdict(plain), default=str, sort_keys=True).encode()
    ).hexdigest()
    if key not in _MAKERS:
        _MAKERS.clear()  # inputs can be large; a worker serves one build at a time
        _MAKERS[key] = ShardMaker.open(context)
    return _MAKERS[key]
