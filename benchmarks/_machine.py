"""What the benchmarks share: on which machine a figure was taken, and timing that is fair to all sides."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "atomvision-hub",
    "numpy",
    "scipy",
    "torch",
    "jarvis-tools",
    "ase",
    "matplotlib",
    "pillow",
    "pyarrow",
)


def machine_facts(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return processor, cores, load, threads, library versions, date (UTC) and git commit."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := _version(name))},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_clean": _git("status", "--porcelain", "--untracked-files=no") == "",
    }


def interleaved(
    timers: Mapping[str, Callable[[], object]], repeats: int | Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Time functions side by side: one call of each in turn, so that all meet the same load of the machine.

    Parameters
    ----------
    timers
        What to call, by name. Each is called once beforehand.
    repeats
        How often, or how often for each; quick ones are called several times per turn.

    Returns
    -------
    By name, in seconds: `median`, `lowest` and `highest` of the wall time and `cpu_median` of the processor
    time, and `repeats`. On a busy machine compare processor times: long calls are interrupted more often.
    """
    counts = {name: repeats if isinstance(repeats, int) else repeats[name] for name in timers}
    turns = min(counts.values())
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    processor: dict[str, list[float]] = {name: [] for name in timers}
    for call in timers.values():
        call()
    for _ in range(turns):
        for name, call in timers.items():
            for _ in range(counts[name] // turns):
                started, used = time.perf_counter(), time.process_time()
                call()
                processor[name].append(time.process_time() - used)
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {
            "median": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "cpu_median": statistics.median(processor[name]),
            "repeats": len(values),
        }
        for name, values in seconds.items()
    }


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parent
    result = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
