"""Worker processes of a training script: for what is done image by image on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

#: Imported once, by the process that the workers are forked from: they start in a moment then.
_PRELOADED = ("timm.utils", "atomvision_hub.engine.tasks.alignn", "atomvision_hub.engine.tasks.srgan.scores")


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes with one thread each, which end with their parent.

    They are not forked from this process, which may hold a GPU, but from a server that has only imported what
    they need; it stays for the next pool.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        return ProcessPoolExecutor(workers, context, initializer=_start)
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_die_with_parent, daemon=True).start()
    threadpool_limits(1)
    if hasattr(os, "nice"):
        os.nice(5)  # the process that feeds a GPU comes first


def _die_with_parent() -> None:
    # A killed parent cannot stop its workers, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
