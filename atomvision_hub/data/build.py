"""The build engine: inputs -> plan -> shards -> a finished dataset folder.

A dataset is built in the same way whatever it holds: the inputs are assigned to splits and to shards of a
fixed number of inputs; every shard is made on its own, by whichever worker is free; what is finished is
noted in ``.build/`` and not made again; card and manifest come last. So the bytes depend neither on the
number of workers nor on interruptions, and an unfinished folder never looks finished.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atomvision_hub.cards.dataset import CardText, SourceFacts
from atomvision_hub.data.config import read_config
from atomvision_hub.data.features import arrow_schema
from atomvision_hub.data.finish import finish, in_order
from atomvision_hub.data.interface import (
    BuilderConfig,
    BuildOptions,
    BuildReport,
    DatasetBuilder,
    Inputs,
    Item,
    Rejection,
    ShardTask,
)
from atomvision_hub.data.load import SCHEMA_VERSION
from atomvision_hub.data.plan import Plan, make_plan
from atomvision_hub.data.progress import Steps, say
from atomvision_hub.data.shards import ShardMaker, ShardResult, run_tasks
from atomvision_hub.data.workspace import Workspace, environment, locked
from atomvision_hub.errors import AtomVisionError

__all__ = [
    "BuildInterruptedError",
    "BuildOptions",
    "BuildReport",
    "BuilderConfig",
    "CardText",
    "DatasetBuilder",
    "Inputs",
    "Item",
    "Rejection",
    "SourceFacts",
    "run_build",
]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class BuildInterruptedError(AtomVisionError):
    """The build was stopped with Ctrl-C; what is finished is kept."""


def run_build(builder: DatasetBuilder, options: BuildOptions) -> BuildReport:
    """Build a dataset, or go on with an interrupted build, or add configs to a finished one.

    Parameters
    ----------
    builder
        What to build.
    options
        Of the command line.

    Raises
    ------
    UsageError
        When the folder holds something else, or options or configs are wrong.
    BuildInterruptedError
        After Ctrl-C.
    AtomVisionError
        When the disk is full or no input could be used.
    """
    started = time.perf_counter()
    configs = _read_configs(builder, options)
    inputs = builder.open(options)
    plan = make_plan(inputs, options, builder.group_name)
    results: dict[ShardTask, ShardResult] = {}
    try:
        with locked(options.out):
            workspace = Workspace(
                options.out,
                _identity(builder, inputs, plan, options),
                {name: config.model_dump(mode="json") for name, config in configs.items()},
                resume=options.resume,
            )
            every = {name: builder.config_model.model_validate(c) for name, c in workspace.configs.items()}
            tasks = [task for name, config in sorted(every.items()) for task in plan.tasks(name, config)]
            for task in tasks:
                if (result := workspace.finished(task)) is not None:
                    results[task] = result
            kept = len(results)
            todo = [task for task in tasks if task not in results]
            schemas = {name: arrow_schema(builder.record(config)) for name, config in every.items()}
            maker = ShardMaker(builder, inputs, every, schemas, options)
            if kept:
                say(f"{builder.name}: {kept} finished shard(s) kept, {len(todo)} to make")
            with Steps(builder.name, sum(len(task.ids) for task in todo), "inputs") as advance:
                for task, result in _run(maker, todo, options):
                    workspace.record(task, result)
                    results[task] = result
                    advance(len(task.ids))
            manifest = finish(builder, inputs, plan, workspace, results, every)
            workspace.close()
    except KeyboardInterrupt:
        raise BuildInterruptedError(
            f"stopped; {len(results)} finished shard(s) are kept in {options.out}, the same command goes on"
        ) from None
    except OSError as problem:
        if problem.errno not in _NO_ROOM:
            raise
        reason = os.strerror(problem.errno).lower()
        raise AtomVisionError(
            f"cannot write to {options.out}: {reason}; {len(results)} finished shard(s) are kept there: "
            "mend that, and the same command goes on"
        ) from None
    for warning in plan.warnings:
        say(f"warning: {warning}")
    return BuildReport(
        folder=options.out,
        rows={
            name: {s: facts["rows"] for s, facts in in_order(entry["splits"])}
            for name, entry in _ordered(manifest)
        },
        rejected=dict(manifest["rejected"]),
        seconds=time.perf_counter() - started,
        shards_written=len(todo),
        shards_kept=kept,
        warnings=plan.warnings,
    )


def _run(
    maker: ShardMaker, todo: Sequence[ShardTask], options: BuildOptions
) -> Iterator[tuple[ShardTask, ShardResult]]:
    if options.dask is None:
        return run_tasks(maker, todo, options.num_proc)
    from atomvision_hub.data.dask_engine import run_on_dask

    return run_on_dask(maker, todo, options.dask)


def _ordered(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the configs, the default one first."""
    yield from sorted(manifest["configs"].items(), key=lambda entry: (entry[0] != "default", entry[0]))


def _read_configs(builder: DatasetBuilder, options: BuildOptions) -> dict[str, Any]:
    folder = builder.script.parent / "configs" / builder.name
    configs = dict(read_config(name, folder, builder.config_model) for name in options.configs)
    return {name: config.tiny() if options.tiny else config for name, config in configs.items()}


def _identity(builder: DatasetBuilder, inputs: Inputs, plan: Plan, options: BuildOptions) -> dict[str, Any]:
    """Return what two builds must share to share a folder, see `workspace.IDENTITY`."""
    return {
        "dataset": builder.name,
        "schema_version": SCHEMA_VERSION,
        "sources": [source.model_dump() for source in inputs.sources()],
        "limit": options.limit,
        "tiny": options.tiny,
        "seed": options.seed,
        "split": plan.split_facts,
        "inputs": {"count": plan.count, "fingerprint": plan.fingerprint},
        "environment": environment(builder.libraries),
    }
