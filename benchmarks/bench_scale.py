"""A large build: rate, memory and disk from the first shard to the last.

    python benchmarks/bench_scale.py --source jarvis:twod_matpd --store-dir DIR [--count N] [--out FILE.json]

Crystals of a source are repeated with random in-plane strain (so that they are no duplicates) and written in
the layout of `jarvis:alex_pbe_2d_all`; then the ordinary command builds `stem2d` from that file, while this
script looks at finished shards, processor time and memory of its processes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from _machine import machine_facts
from ase.data import chemical_symbols

from atomvision_hub import load_structures
from atomvision_hub._files import write_json
from atomvision_hub.errors import CrystalError
from atomvision_hub.structures import flat_layer

#: Largest strain: beyond the differences of one material between two functionals, still the same chemistry.
STRAIN = 0.04
#: The database whose file is imitated.
DATABASE = "alex_pbe_2d_all"
#: Seconds between two looks.
LOOK = 1.0


def strained(source: str, store_dir: Path | None, count: int, seed: int) -> list[dict[str, Any]]:
    """Return `count` entries in the layout of jarvis-tools."""
    structures = load_structures(source, store_dir=store_dir)
    layers = []
    for identifier in structures:
        try:
            layers.append((identifier, flat_layer(structures[identifier])))
        except CrystalError:
            continue
    generator = np.random.default_rng(seed)
    entries = []
    for number in range(count):
        identifier, layer = layers[number % len(layers)]
        deformation = np.eye(3)
        xx, yy, xy = generator.uniform(-STRAIN, STRAIN, 3)
        deformation[:2, :2] += [[xx, xy / 2], [xy / 2, yy]]
        cell = layer.cell.array @ deformation
        lengths = np.linalg.norm(cell, axis=1)
        cosine = float(cell[0] @ cell[1] / (lengths[0] * lengths[1]))
        entries.append(
            {
                "id": f"{identifier}-{number // len(layers)}",
                "atoms": {
                    "lattice_mat": cell.tolist(),
                    "coords": layer.get_scaled_positions().tolist(),
                    "elements": [chemical_symbols[z] for z in layer.numbers],
                    "abc": lengths.tolist(),
                    "angles": [90.0, 90.0, float(np.degrees(np.arccos(cosine)))],
                    "cartesian": False,
                    "props": [""] * len(layer),
                },
            }
        )
    return entries


def write_database(entries: list[dict[str, Any]], folder: Path) -> Path:
    """Write entries as jarvis-tools would download them."""
    from jarvis.db import figshare

    member = figshare.get_db_info()[DATABASE][1]
    path = folder / f"{member}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(member, json.dumps(entries))
    return path


def watch(command: list[str], out: Path) -> dict[str, Any]:
    """Run a build and look at it until it ends; return what was seen."""
    started = time.time()
    parent = psutil.Popen(command)
    looks: list[dict[str, float]] = []
    while parent.poll() is None:
        shards = list((out / ".build").glob("*-*.json"))
        rows = sum(json.loads(path.read_text())["rows"] for path in shards) if shards else 0
        memory = processor = 0.0
        largest = 0.0
        for process in [parent, *parent.children(recursive=True)]:
            try:
                # Private memory: what is shared between the processes is there once.
                private = process.memory_full_info().uss
                processor += sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
            memory, largest = memory + private, max(largest, private)
        looks.append(
            {
                "seconds": time.time() - started,
                "cpu_seconds": processor,
                "shards": len(shards),
                "rows": rows,
                "memory": memory,
                "largest": largest,
            }
        )
        time.sleep(LOOK)
    return {"returncode": parent.returncode, "seconds": time.time() - started, "looks": looks}


def tenths(looks: list[dict[str, float]], rows: int) -> list[dict[str, float]]:
    """Return rate and memory for each tenth of the rows."""
    result = []
    making = [look for look in looks if look["rows"] > 0]
    last = max(
        (look for look in looks if look["seconds"] < making[0]["seconds"]), key=lambda look: look["seconds"]
    )
    for tenth in range(1, 11):
        reached = next((look for look in making if look["rows"] >= rows * tenth / 10 - 1), making[-1])
        made = reached["rows"] - last["rows"]
        if made <= 0:
            continue
        result.append(
            {
                "rows": reached["rows"],
                "rows_per_s": made / (reached["seconds"] - last["seconds"]),
                "cpu_ms_per_row": 1e3 * (reached["cpu_seconds"] - last["cpu_seconds"]) / made,
                "memory_mb_all": reached["memory"] / 1e6,
                "memory_mb_largest": reached["largest"] / 1e6,
            }
        )
        last = reached
    return result


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", default="reference")
    parser.add_argument("--store-dir", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Folder for the dataset, kept; else a temporary one")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        entries = strained(arguments.source, arguments.store_dir, arguments.count, arguments.seed)
        database = write_database(entries, folder)
        del entries
        out = arguments.keep or folder / "stem2d"
        command = [sys.executable, "-m", "atomvision_hub.cli", "build", "stem2d"]
        command += ["--source", f"jarvis:{DATABASE}", "--store-dir", str(folder), "--out", str(out)]
        command += ["--num-proc", str(arguments.num_proc)]
        seen = watch(command, out)
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        rows = sum(split["rows"] for split in manifest["configs"]["default"]["splits"].values())
        first = next(look["seconds"] for look in seen["looks"] if look["rows"] > 0)
        checked = subprocess.run(
            [sys.executable, "-m", "atomvision_hub.cli", "validate", str(out)],
            check=False,
            capture_output=True,
            text=True,
        )
        facts = {
            "machine": machine_facts(),
            "command": " ".join(["atomvision", *command[3:]]).replace(str(folder), "DIR"),
            "crystals": arguments.count,
            "source": arguments.source,
            "strain": STRAIN,
            "seed": arguments.seed,
            "num_proc": arguments.num_proc,
            "returncode": seen["returncode"],
            "rows": rows,
            "rejected": manifest["rejected"],
            "seconds": seen["seconds"],
            "seconds_until_first_shard": first,
            "rows_per_s_overall": rows / seen["seconds"],
            "cpu_ms_per_row_overall": 1e3 * max(look["cpu_seconds"] for look in seen["looks"]) / rows,
            "peak_memory_mb_all": max(look["memory"] for look in seen["looks"]) / 1e6,
            "peak_memory_mb_largest_process": max(look["largest"] for look in seen["looks"]) / 1e6,
            "tenths": tenths(seen["looks"], rows),
            "database_mb": database.stat().st_size / 1e6,
            "dataset_mb": sum(facts["bytes"] for facts in manifest["files"].values()) / 1e6,
            "validate": checked.stdout.strip() or checked.stderr.strip()[-300:],
        }
    print(json.dumps(facts, indent=2))
    if arguments.out:
        write_json(arguments.out, facts)


if __name__ == "__main__":
    main()
