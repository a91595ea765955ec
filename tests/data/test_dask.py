"""Builds on a Dask cluster: worker processes of this machine, with everything that can happen to them."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atomvision_hub.data import BuildReport, dask_engine
from atomvision_hub.data.dask_engine import read_cluster_file
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError

distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")

Build = Callable[..., BuildReport]
Checksums = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as running:
        yield running


@pytest.fixture
def slow_toy(tmp_path: Path) -> str:
    path = tmp_path / "slow.yaml"
    path.write_text("description: Stripes, slowly\nitems_per_shard: 4\ndelay: 0.05\n")
    return str(path)


def test_same_bytes_as_one_process(build_toy: Build, checksums: Checksums, cluster: Any) -> None:
    here = build_toy("here")
    there = build_toy("there", dask=cluster.scheduler_address)
    assert checksums(there.folder) == checksums(here.folder)


def test_a_killed_worker_is_replaced(
    build_toy: Build, checksums: Checksums, cluster: Any, slow_toy: str
) -> None:
    """One of three workers is killed while it works; nothing is lost and the bytes are the same."""
    alone = build_toy("alone", configs=[slow_toy])
    before = {worker.pid for worker in cluster.workers.values()}
    killed: list[int] = []

    def kill() -> None:
        time.sleep(0.3)
        killed.append(next(iter(cluster.workers.values())).pid)
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    together = build_toy("together", configs=[slow_toy], dask=cluster.scheduler_address)
    thread.join()
    assert killed[0] in before
    assert together.shards_written > 3
    assert checksums(together.folder) == checksums(alone.folder)
    assert not list(together.folder.rglob("*.part"))


def test_an_interrupted_build_goes_on_elsewhere(
    build_toy: Build, checksums: Checksums, cluster: Any, slow_toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards made on the cluster are kept by a build without one, and the other way round."""
    from atomvision_hub.data.workspace import Workspace

    alone = build_toy("alone", configs=[slow_toy])
    record = Workspace.record
    seen: list[str] = []

    def interrupt(self: Workspace, task: Any, result: Any) -> None:
        record(self, task, result)
        seen.append(task.name)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "record", interrupt)
    with pytest.raises(AtomVisionError, match="stopped; 2 finished"):
        build_toy("other", configs=[slow_toy], dask=cluster.scheduler_address)
    monkeypatch.undo()
    other = build_toy("other", configs=[slow_toy])
    assert other.shards_kept >= 3
    assert checksums(other.folder) == checksums(alone.folder)


def test_rejections_and_files_of_the_real_dataset(tmp_path: Path, checksums: Checksums, cluster: Any) -> None:
    """Relative paths mean the same to workers, which have another working folder."""
    from atomvision_hub.data import BuildOptions, load_builder

    builder = load_builder("stem2d")
    folders = [tmp_path / "one", tmp_path / "many"]
    for folder, dask in zip(folders, (None, cluster.scheduler_address), strict=True):
        builder.build(BuildOptions(dataset="stem2d", sources=["reference"], out=folder, tiny=True, dask=dask))
    assert checksums(folders[0]) == checksums(folders[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: replace(c, options=replace(c.options, out=Path("/nowhere/to/be/seen"))),
            r"worker on .* does not see /nowhere/to/be/seen; .* all workers share",
        ),
        (
            lambda c: replace(c, versions={**c.versions, "numpy": "1.2.3"}),
            r"worker on .* has numpy .*, this machine 1.2.3; install the same versions",
        ),
    ],
)
def test_a_worker_that_would_make_other_bytes(
    build_toy: Build, cluster: Any, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    portable = dask_engine._portable
    monkeypatch.setattr(dask_engine, "_portable", lambda maker: change(portable(maker)))
    with pytest.raises(AtomVisionError, match=message):
        build_toy(dask=cluster.scheduler_address)


def test_no_scheduler(build_toy: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomvision_hub.data.dask_engine.PATIENCE", 0.5)
    with pytest.raises(NetworkNeededError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 "):
        build_toy(dask="tcp://127.0.0.1:9")


def test_no_workers(build_toy: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomvision_hub.data.dask_engine.PATIENCE", 1.0)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as empty,
        pytest.raises(NetworkNeededError, match="has no workers; start some: `dask worker tcp"),
    ):
        build_toy(dask=empty.scheduler_address)


def test_cluster_file(build_toy: Build, checksums: Checksums, tmp_path: Path) -> None:
    file = tmp_path / "local.yaml"
    file.write_text("queue: local\njobs: 2\n")
    assert checksums(build_toy("file", dask=str(file)).folder) == checksums(build_toy("plain").folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queue: slum\njobs: 2\n", r"queue: Input should be 'local', 'slurm'"),
        ("queue: slurm\n", r"jobs: Field required"),
        ("queue: [", r"is no YAML"),
        (None, r"No such file or directory; give tcp://host:port or a YAML file"),
    ],
)
def test_wrong_cluster_file(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_cluster_file(path)


def test_slurm_job_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be handed to sbatch asks for what the file says (no batch queue is needed to see it)."""
    dask_jobqueue = pytest.importorskip("dask_jobqueue", reason="needs the extra [dask]")
    asked: list[int] = []
    monkeypatch.setattr(dask_jobqueue.SLURMCluster, "scale", lambda self, jobs: asked.append(jobs))
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "queue: slurm\njobs: 7\noptions: {cores: 1, memory: 2GB, walltime: '02:00:00', account: nano, "
        f"log_directory: {tmp_path}, local_directory: {tmp_path}}}\n"
    )
    with dask_engine._cluster(read_cluster_file(path)) as cluster:
        script = cluster.job_script()
    assert asked[0] == 7
    assert "#SBATCH -A nano" in script
    assert "#SBATCH -t 02:00:00" in script
    assert "--memory-limit" in script


def test_options_that_the_queue_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs the extra [dask]")
    path = tmp_path / "slurm.yaml"
    path.write_text("queue: slurm\njobs: 1\noptions: {cores: 1, memory: 2GB, colour: blue}\n")
    with pytest.raises(UsageError, match=r"options of queue 'slurm': .*colour"):
        dask_engine._cluster(read_cluster_file(path))
