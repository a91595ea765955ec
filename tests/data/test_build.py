from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atomvision_hub.data import BuildReport, validate_folder
from atomvision_hub.data.build import BuildInterruptedError
from atomvision_hub.data.shards import ShardMaker
from atomvision_hub.errors import AtomVisionError, UsageError

Build = Callable[..., BuildReport]
Checksums = Callable[[Path], dict[str, str]]

# Tests that start processes end when these do, however long a busy machine takes: only a hang ends here.
PATIENT = pytest.mark.timeout(3600)

# A build in a process of its own: `python -c CODE SCRIPT OUT CONFIG NUM_PROC`.
CODE = """
import sys
from pathlib import Path
from atomvision_hub.data import BuildOptions, load_builder
from atomvision_hub.errors import AtomVisionError

if __name__ == "__main__":
    script, out, config, num_proc = sys.argv[1:]
    options = BuildOptions(
        dataset="toy", sources=["60"], out=Path(out), configs=[config], num_proc=int(num_proc)
    )
    try:
        load_builder(script).build(options)
    except AtomVisionError as problem:
        sys.exit(f"error: {problem}")
"""


@pytest.fixture
def held_config(tmp_path: Path) -> Path:
    """The default config under its own name; each process stops after two or three shards until `release`.

    However slow or fast the machine is, two processes are held before the build is complete.
    """
    folder = tmp_path / "configs"
    folder.mkdir()
    path = folder / "default.yaml"
    path.write_text(
        f"description: Small stripes\nitems_per_shard: 8\nhold_after: 20\nrelease: {tmp_path / 'release'}\n"
    )
    return path


def release(config: Path) -> None:
    """Let held builds go on."""
    (config.parent.parent / "release").touch()


def start(script: Path, out: Path, config: Path | str, num_proc: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, str(script), str(out), str(config), str(num_proc)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_shards(out: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until a build has noted so many shards as finished: files alone lie there a little before that."""
    while len(list(out.glob(".build/default*.json"))) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def test_a_dataset_is_complete(build_toy: Build, tmp_path: Path) -> None:
    report = build_toy()
    assert report.rows == {"default": {"train": 34, "validation": 6, "test": 13}}
    assert report.rejected == {"duplicate": 1, "luck": 6}
    folder = report.folder
    assert sum(report.rows["default"].values()) + sum(report.rejected.values()) == 60
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "manifest.json",
        "rejected.parquet",
        "data",
        "assets",
    }
    rejected = pq.read_table(folder / "rejected.parquet").to_pylist()
    assert rejected[0] == {
        "id": "n0005",
        "source": "numbers",
        "step": "duplicate",
        "reason": "the same as n0003, which is kept",
    }
    assert [row["id"] for row in rejected[1:]] == ["n0007", "n0017", "n0027", "n0037", "n0047", "n0057"]


def test_rejected_parquet_is_there_when_nothing_was_rejected(build_toy: Build) -> None:
    report = build_toy(count=4)
    assert report.rejected == {}
    assert pq.read_table(report.folder / "rejected.parquet").num_rows == 0


def test_datasets_loads_the_folder(build_toy: Build, tmp_path: Path) -> None:
    import datasets

    report = build_toy(configs=["default", "wide"])
    for config, side in (("default", 16), ("wide", 24)):
        loaded = datasets.load_dataset(str(report.folder), config, cache_dir=str(tmp_path / "cache"))
        assert {split: rows.num_rows for split, rows in loaded.items()} == report.rows[config]
        assert loaded["train"][0]["image"].size == (side, side)
    assert loaded["train"].features["stripes"].names == ["few", "many"]


def test_row_groups_are_small(build_toy: Build, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("description: One shard a split\nitems_per_shard: 1000\n")
    report = build_toy(count=300, configs=[str(tmp_path / "big.yaml")])
    file = pq.ParquetFile(report.folder / "data/big/train-00000-of-00001.parquet")
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    assert len(groups) == 2
    assert groups[0].num_rows == 100
    assert groups[0].column(0).has_offset_index


def test_large_images_make_small_row_groups(
    build_toy: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held in memory is bounded in bytes too."""
    monkeypatch.setattr("atomvision_hub.data.shards.GROUP_BYTES", 1)
    report = build_toy()
    with pq.ParquetFile(next(report.folder.glob("data/default/train-*"))) as file:
        assert file.num_row_groups == file.metadata.num_rows > 1


def test_bytes_do_not_depend_on_workers_or_order(build_toy: Build, checksums: Checksums) -> None:
    together = build_toy("together", configs=["default", "wide"])
    build_toy("apart", configs=["wide"], num_proc=2)
    apart = build_toy("apart", configs=["default"], num_proc=2)
    assert checksums(apart.folder) == checksums(together.folder)
    assert apart.rows == together.rows


def test_the_split_does_not_depend_on_the_seed(build_toy: Build) -> None:
    first, second = build_toy("first", seed=0), build_toy("second", seed=1)
    ids = [
        pq.read_table(report.folder / "data/default/test-00000-of-00002.parquet")["id"].to_pylist()
        for report in (first, second)
    ]
    assert ids[0] == ids[1]
    images = [
        pq.read_table(report.folder / "data/default/test-00000-of-00002.parquet")["image"].to_pylist()
        for report in (first, second)
    ]
    assert images[0] != images[1]


def test_a_second_build_keeps_what_is_there(build_toy: Build, checksums: Checksums) -> None:
    first = build_toy()
    before = checksums(first.folder)
    second = build_toy()
    assert (first.shards_written, first.shards_kept) == (8, 0)
    assert (second.shards_written, second.shards_kept) == (0, 8)
    assert build_toy(resume=False).shards_written == 8
    assert checksums(first.folder) == before


def test_a_damaged_shard_is_made_again(build_toy: Build, checksums: Checksums) -> None:
    report = build_toy()
    before = checksums(report.folder)
    shard = report.folder / "data/default/train-00002-of-00005.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (report.folder / "data/default/test-00000-of-00002.parquet").unlink()
    assert build_toy().shards_written == 2
    assert checksums(report.folder) == before


def test_an_interrupted_build_goes_on(
    build_toy: Build, checksums: Checksums, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = build_toy("whole", configs=["default", "wide"])
    make, made = ShardMaker.make, []

    def interrupted(self: ShardMaker, task: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task)
        return make(self, task)

    monkeypatch.setattr(ShardMaker, "make", interrupted)
    with pytest.raises(
        BuildInterruptedError, match=r"3 finished shard\(s\) are kept in .*the same command goes on"
    ):
        build_toy("stopped", configs=["default"])
    monkeypatch.undo()
    stopped = tmp_path / "stopped"
    assert not (stopped / "manifest.json").exists()
    assert not (stopped / "README.md").exists()
    assert "no manifest.json: it is no finished dataset" in validate_folder(stopped)[0]
    # Asked for another config, it also finishes the one that was left.
    assert build_toy("stopped", configs=["wide"]).shards_kept == 3
    assert checksums(stopped) == checksums(whole.folder)


@PATIENT
@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_killed_build_goes_on(
    toy_script: Path, held_config: Path, tmp_path: Path, checksums: Checksums, num_proc: int
) -> None:
    process = start(toy_script, tmp_path / "killed", held_config, num_proc)
    wait_for_shards(tmp_path / "killed", process, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # until its workers have ended, too: they hold the other end of the pipe
    assert not (tmp_path / "killed" / "manifest.json").exists()
    release(held_config)
    again = start(toy_script, tmp_path / "killed", held_config, 1)
    _, told = again.communicate()
    assert again.returncode == 0
    assert "finished shard(s) kept" in told
    whole = start(toy_script, tmp_path / "whole", held_config, 1)
    whole.communicate()
    assert whole.returncode == 0
    assert checksums(tmp_path / "killed") == checksums(tmp_path / "whole")


@PATIENT
@pytest.mark.parametrize("num_proc", [1, 2])
def test_ctrl_c_is_one_line(toy_script: Path, held_config: Path, tmp_path: Path, num_proc: int) -> None:
    process = start(toy_script, tmp_path / "out", held_config, num_proc)
    wait_for_shards(tmp_path / "out", process, 1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
    release(held_config)  # workers finish the shard that they are at
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("error: stopped; ")
    assert errors.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.part"))


@PATIENT
def test_two_builds_in_one_folder(
    toy_script: Path, held_config: Path, tmp_path: Path, build_toy: Build
) -> None:
    process = start(toy_script, tmp_path / "toy", held_config, 1)
    wait_for_shards(tmp_path / "toy", process, 1)
    with pytest.raises(AtomVisionError, match="another build works in"):
        build_toy(configs=[str(held_config)])
    release(held_config)
    process.communicate()
    assert process.returncode == 0
    assert not (tmp_path / "toy" / ".build").exists()


def test_full_disk(build_toy: Build, monkeypatch: pytest.MonkeyPatch, checksums: Checksums) -> None:
    make, made = ShardMaker.make, []

    def full(self: ShardMaker, task: Any) -> Any:
        if len(made) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(task)
        return make(self, task)

    monkeypatch.setattr(ShardMaker, "make", full)
    with pytest.raises(
        AtomVisionError, match=r"cannot write to .*: no space left on device; 2 finished shard"
    ):
        build_toy("full")
    monkeypatch.undo()
    assert build_toy("full").shards_kept == 2


def test_a_dead_worker_is_one_line(build_toy: Build, tmp_path: Path) -> None:
    (tmp_path / "deadly.yaml").write_text("description: Kills its workers\nside: -666\n")
    with pytest.raises(AtomVisionError, match=r"a worker died.*smaller --num-proc"):
        build_toy(configs=[str(tmp_path / "deadly.yaml"), "wide"], num_proc=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"was built with seed 0, not 1; choose another --out"),
        ({"count": 40}, r"was built with source numbers \(60\), not numbers \(40\)"),
        ({"limit": 10}, "was built with limit None, not 10"),
        ({"tiny": True}, "was built with tiny False, not True"),
    ],
)
def test_a_folder_is_one_dataset(build_toy: Build, checksums: Checksums, change: Any, message: str) -> None:
    report = build_toy()
    before = checksums(report.folder)
    for resume in (True, False):
        with pytest.raises(UsageError, match=message):
            build_toy(**change, resume=resume)
    assert checksums(report.folder) == before


def test_another_dataset_is_refused(build_toy: Build) -> None:
    folder = build_toy().folder
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "dataset": "stem2d"}))
    with pytest.raises(UsageError, match="was built with dataset stem2d, not toy"):
        build_toy()


def test_other_files_are_left_alone(build_toy: Build, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other files \(thesis.tex\); choose an empty --out"):
        build_toy()
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["thesis.tex"]


def test_a_config_of_the_same_name_is_refused(build_toy: Build, tmp_path: Path) -> None:
    build_toy()
    other = tmp_path / "default.yaml"
    other.write_text("description: Small stripes\nitems_per_shard: 8\nside: 99\n")
    with pytest.raises(UsageError, match=r"config 'default': side 16, not 99; .*another name"):
        build_toy(configs=[str(other)])


def test_an_unfinished_build_can_be_dropped(
    build_toy: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make, made = ShardMaker.make, []

    def interrupted(self: ShardMaker, task: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(task)
        return make(self, task)

    monkeypatch.setattr(ShardMaker, "make", interrupted)
    with pytest.raises(BuildInterruptedError):
        build_toy(seed=0)
    monkeypatch.undo()
    with pytest.raises(
        UsageError, match="seed 0, not 1; choose another --out, or start afresh with --no-resume"
    ):
        build_toy(seed=1)
    report = build_toy(seed=1, resume=False)
    assert report.shards_kept == 0
    assert json.loads((report.folder / "manifest.json").read_text())["seed"] == 1


def test_nothing_usable(build_toy: Build, tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("description: Refuses all\nrefuse_all: true\n")
    with pytest.raises(
        AtomVisionError, match=r"no rows, all inputs were rejected \(duplicate 1, luck 59\): see"
    ):
        build_toy(configs=[str(tmp_path / "none.yaml")])
    assert pq.read_table(tmp_path / "toy" / "rejected.parquet").num_rows == 60
    assert not (tmp_path / "toy" / "manifest.json").exists()


def test_a_split_of_rejects_only_has_no_files(build_toy: Build, tmp_path: Path) -> None:
    splits = {f"n{number:04d}": "train" for number in range(10)} | {"n0007": "test", "n0099": "test"}
    (tmp_path / "split.json").write_text(json.dumps(splits))
    report = build_toy(count=10, split_file=tmp_path / "split.json")
    assert report.rows == {"default": {"train": 8}}
    assert not list(report.folder.glob("data/default/test*"))
    assert report.warnings[0] == "1 of 11 ids of the split file are not in the source"


def test_split_file(build_toy: Build, tmp_path: Path, toy: Any) -> None:
    content = {
        "train": {f"n{number:04d}.jpg": 0 for number in (0, 2, 4)},
        "test": {"n0001.jpg": 1, "x.jpg": 0},
    }
    (tmp_path / "split.json").write_text(json.dumps(content))
    report = build_toy(count=6, split_file=tmp_path / "split.json")
    assert report.rows == {"default": {"train": 3, "test": 1}}
    # n0003 is not named; n0005 is its duplicate.
    assert report.rejected == {"duplicate": 1, "split": 1}
    assert report.warnings == (
        "1 of 5 ids of the split file are not in the source",
        "1 compositions cross the splits of the split file (such as group0)",
    )
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert manifest["split"]["crossing_groups"] == ["group0"]
    assert "1 compositions occur in more than one split" in (report.folder / "README.md").read_text()
    assert validate_folder(report.folder, toy.BUILDER) == []


def test_tiny_has_every_split(build_toy: Build) -> None:
    report = build_toy(tiny=True)
    assert report.rows == {"default": {"train": 4, "validation": 2, "test": 4}}


def test_no_inputs(build_toy: Build) -> None:
    with pytest.raises(UsageError, match="0: nothing to build from; give another --source"):
        build_toy(count=0)


def test_unknown_builder() -> None:
    from atomvision_hub.data import available_builders, load_builder

    assert "stem2d" in available_builders()
    with pytest.raises(UsageError, match=r"no dataset builder 'stem3d'; there are: .*stem2d"):
        load_builder("stem3d")
