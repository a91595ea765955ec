"""What `analyze` answers to images as microscopists have them: right, refused for a reason, or wrong.

    python benchmarks/bench_micrographs.py [--half tuning|held-out|both] [--kinds TEXT] [--variants N]
        [--segmenter none] [--out benchmarks/results/micrographs-DATE.json]

On one thread, times of the processor. The scenes are those of `_micrographs`: even variants were looked at
while thresholds were chosen, odd ones were not. A run of one half adds to the file. An answer is

* *right*: the true class is named, and the cell is the true one (three shortest distances within 8 %, area
  within 6 % of what the told pixel size makes of it);
* *open*: the cell is the true one, another class is named, and the true one has a probability of 5 % or more;
* *refused*: no lattice, with a reason, or an error of one line;
* *wrong*: everything else.

*Covered* are true a, b, gamma within two standard errors without that of the pixel size.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine_facts
from _micrographs import LATTICE, SCENES, Array, Scene, scene

from atomvision_hub import analyze
from atomvision_hub._files import write_json
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.inference.lattice_parameters import conventional
from atomvision_hub.inference.lattice_result import LatticeParameters
from atomvision_hub.microscopy import MicroscopeImage
from atomvision_hub.structures.lattice import bravais_class, reduce_basis
from atomvision_hub.structures.record import LATTICES

Row = dict[str, Any]
HALVES = ("tuning", "held-out")
#: Largest relative differences of a cell that is right: of its shortest distances, and of its area.
LENGTHS, AREA = 0.08, 0.06
#: Probability of the true class from which an answer counts as open.
OPEN = 0.05
TOLERANCE = 0.05


def judged(seen: Scene, segmenter: str | None) -> Row:
    """Return the verdict on an image, and what was said."""
    # An array whose instrument is known.
    given = MicroscopeImage(seen.image, None, "image", 0, Path(), "", "", kind=seen.kind)
    start = time.process_time()
    try:
        found = analyze(given, pixel_size=seen.pixel_size, segmenter=segmenter)
    except AtomVisionError as problem:
        row: Row = {"verdict": "refused", "said": str(problem)}
    else:
        row = {"warnings": list(found.warnings), "chance": None}
        if found.parameters is None:
            row |= {"verdict": "refused", "said": found.no_lattice}
        else:
            row |= compared(found.parameters, seen)
    row["seconds"] = time.process_time() - start
    row["good"] = row["verdict"] == "right" or (row["verdict"] == "refused" and seen.expected != LATTICE)
    return row


def compared(found: LatticeParameters, seen: Scene) -> Row:
    """Return how an answer compares with the lattice that it should be."""
    said = (
        f"{found.lattice} {found.probabilities[found.lattice]:.2f}, a {found.a:.3f} ± {found.a_error:.3f}, "
        f"b {found.b:.3f} ± {found.b_error:.3f} {found.unit}, {found.gamma:.2f} ± {found.gamma_error:.2f}°"
    )
    row: Row = {"verdict": "wrong", "said": said, "probability": found.probabilities[found.lattice]}
    for truth in seen.lattices:
        # What a perfect measurement would tell with the pixel size that was told, or in pixels.
        expected = truth * (seen.told if seen.told else 1 / seen.true_size)
        if not _same(_primitive(found), expected):
            continue
        tolerance = TOLERANCE * float(np.hypot(*expected[0]) / np.hypot(*truth[0]))
        label = bravais_class(expected, tolerance).label
        chance = found.probabilities[LATTICES[label]]
        row["chance"] = chance
        if found.lattice != LATTICES[label]:
            row["verdict"] = "open" if chance >= OPEN else "wrong"
            continue
        edges = conventional(np.array(reduce_basis(expected)).reshape(2, 2), label)
        a, b = (float(np.hypot(*edge)) for edge in edges)
        gamma = math.degrees(math.acos(float(edges[0] @ edges[1]) / (a * b)))
        pulls = (
            (found.a - a) / found.a_error,
            (found.b - b) / found.b_error,
            (found.gamma - gamma) / found.gamma_error,
        )
        return row | {
            "verdict": "right",
            "pulls": list(pulls),
            "errors": [found.a_error / a, found.b_error / b, found.gamma_error],
        }
    return row


def _primitive(found: LatticeParameters) -> Array:
    edges = np.array(found.vectors)
    if found.lattice == "centered_rectangular":
        edges = np.array([edges.sum(axis=0), edges[0] - edges[1]]) / 2
    return np.array(reduce_basis(edges)).reshape(2, 2)


def _same(one: Array, other: Array) -> bool:
    first, second = (np.sort(np.hypot(*np.vstack([basis, basis.sum(axis=0)]).T)) for basis in (one, other))
    area = abs(float(np.linalg.det(one) / np.linalg.det(other)))
    return bool((np.abs(first / second - 1) <= LENGTHS).all()) and abs(area - 1) <= AREA


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return counts of verdicts, how many intervals hold the truth, and times."""
    counts = {
        name: sum(row["verdict"] == name for row in rows) for name in ("right", "open", "refused", "wrong")
    }
    pulls = np.array([row["pulls"] for row in rows if "pulls" in row])
    seconds = [row["seconds"] for row in rows]
    return {
        "images": len(rows),
        **counts,
        "as_expected": sum(row["good"] for row in rows),
        "wrong_and_sure": sum(row["verdict"] == "wrong" and row["probability"] >= 0.7 for row in rows),
        "covered": None if not len(pulls) else [float(part) for part in (np.abs(pulls) <= 2).mean(axis=0)],
        "covered_all_three": None if not len(pulls) else float((np.abs(pulls) <= 2).all(axis=1).mean()),
        "seconds": {"median": float(np.median(seconds)), "highest": float(max(seconds))},
    }


def main() -> None:
    """Judge all scenes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=(*HALVES, "both"), default="both")
    parser.add_argument("--kinds", default="", help="only scenes whose name holds this text")
    parser.add_argument("--variants", type=int, default=1000, help="at most so many of each scene")
    parser.add_argument("--segmenter", default=None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: dict[str, list[Row]] = {half: [] for half in HALVES}
    for kind, (_, count) in SCENES.items():
        if options.kinds not in kind:
            continue
        for variant in range(min(count, options.variants)):
            half = HALVES[variant % 2]
            if options.half not in (half, "both"):
                continue
            seen = scene(kind, variant)
            row = {"kind": kind, "variant": variant, "expected": seen.expected} | judged(
                seen, options.segmenter
            )
            rows[half].append(row)
            mark = "  " if row["good"] else "! "
            told = f"{row['verdict']}, {row['said']} ({row['seconds']:.1f} s)"
            print(f"{mark}{kind} {variant}: {told}", flush=True)
    kinds = [kind for kind in SCENES if any(row["kind"] == kind for half in HALVES for row in rows[half])]
    machine = machine_facts()
    result: dict[str, Any] = {
        "halves": {
            half: {
                "all": summary(rows[half]),
                "by_kind": {
                    kind: summary([r for r in rows[half] if r["kind"] == kind])
                    for kind in kinds
                    if any(r["kind"] == kind for r in rows[half])
                },
            }
            for half in HALVES
            if rows[half]
        },
    }
    for half, told in result["halves"].items():
        print(f"\n{half}: {told['all']}")
        for kind, counts in told["by_kind"].items():
            print(
                f"  {kind:34} "
                + "  ".join(
                    f"{name} {counts[name]}"
                    for name in ("images", "right", "open", "refused", "wrong", "wrong_and_sure")
                )
            )
    if options.out:
        known = json.loads(options.out.read_text()) if options.out.exists() else {"halves": {}, "rows": {}}
        known["halves"] |= {half: told | {"machine": machine} for half, told in result["halves"].items()}
        known["rows"] |= {half: kept for half, kept in rows.items() if kept}
        write_json(options.out, known)


if __name__ == "__main__":
    main()
