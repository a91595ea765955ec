"""Whether a build gives the same bytes with any number of workers and after being killed.

    python benchmarks/prove_determinism.py [--source reference] [--store-dir DIR] [--config default ...]

Builds the same dataset with one process, with two, and with two that are killed (SIGKILL) half-way and then
resumed; compares the SHA-256 of every file; validates the result.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from _machine import machine_facts

from atomvision_hub._files import sha256_file, write_json
from atomvision_hub.data import validate_folder
from atomvision_hub.data.load import read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="reference")
    parser.add_argument("--store-dir", type=Path)
    parser.add_argument("--config", nargs="+", default=["default"])
    parser.add_argument("--keep", type=Path, help="move the first build here when all are equal")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/determinism-DATE.json")
    given = parser.parse_args()
    command = [sys.executable, "-m", "atomvision_hub.cli", "build", "stem2d", "--source", given.source]
    command += [part for name in given.config for part in ("--config", name)]
    command += ["--store-dir", str(given.store_dir)] if given.store_dir else []
    beside = given.keep.parent if given.keep else None
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as place:
        one, two, killed = (Path(place, name) for name in ("one", "two", "killed"))
        began = time.perf_counter()
        build([*command, "--out", str(one), "--num-proc", "1"])
        seconds = time.perf_counter() - began
        build([*command, "--out", str(two), "--num-proc", "2"])
        shards = len(list((one / "data").rglob("*.parquet")))
        kept = kill_half_way([*command, "--out", str(killed), "--num-proc", "2"], killed, shards // 2)
        build([*command, "--out", str(killed), "--num-proc", "1"])
        sums = [checksums(folder) for folder in (one, two, killed)]
        manifest = read_manifest(one)
        facts = {
            "machine": machine_facts(),
            "source": given.source,
            "inputs": manifest["inputs"],
            "configs": {name: entry["splits"] for name, entry in manifest["configs"].items()},
            "rejected": manifest["rejected"],
            "seconds_one_process": round(seconds, 1),
            "shards": shards,
            "shards_finished_when_killed": kept,
            "manifest_sha256": sums[0]["manifest.json"],
            "files": len(sums[0]),
            "equal_with_two_processes": sums[0] == sums[1],
            "equal_after_kill": sums[0] == sums[2],
            "problems_found_by_validate": validate_folder(one),
        }
        good = sums[0] == sums[1] == sums[2] and not facts["problems_found_by_validate"]
        if given.keep and good:
            one.rename(given.keep)
    date = datetime.now(UTC).date()
    out = given.out or Path(__file__).parent / "results" / f"determinism-{date}.json"
    write_json(out, facts)
    print({key: value for key, value in facts.items() if key not in ("machine", "inputs")})
    sys.exit(0 if good else 1)


def build(command: list[str]) -> None:
    """Run a build to its end."""
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        sys.exit(f"the build failed with code {code}")


def kill_half_way(command: list[str], folder: Path, wanted: int) -> int:
    """Start a build, kill it and its workers once `wanted` shards are there, return how many there are."""
    process = subprocess.Popen(command, start_new_session=True)
    while len(list(folder.glob("data/*/*.parquet"))) < wanted:
        if process.poll() is not None:
            sys.exit("the build ended before it could be killed; give it more to do")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if (folder / "manifest.json").exists():
        sys.exit("a killed build looks finished")
    return len(list(folder.glob("data/*/*.parquet")))


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a dataset."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


if __name__ == "__main__":
    main()
