"""Computes the densities of states that come with the package, with GPAW; and how far they are converged.

    OMP_NUM_THREADS=1 python benchmarks/make_stm_library.py [--limit N] [--only NAME ...] [--seconds 600]
    OMP_NUM_THREADS=1 python benchmarks/make_stm_library.py --converge graphene MoS2 NbSe2

One process a material, the cheapest first; those whose volume is there are left out, so that the same command
goes on where it was stopped. Each volume is packed, unpacked and compared with the calculated one.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import ase
import numpy as np
from _machine import machine_facts

from atomvision_hub._files import write_bytes, write_json
from atomvision_hub.simulation import gpaw_engine, stm_library
from atomvision_hub.simulation.gpaw_engine import StateDensity, full_density
from atomvision_hub.simulation.stm import BiasReference, LocalDensity, Mode, simulate_stm
from atomvision_hub.simulation.stm_recipe import Recipe, calculated_cell, is_polarised, k_points
from atomvision_hub.structures import flat_layer, load_structures

BIASES = (0.5, -0.5)
PACKAGES = ("atomvision-hub", "gpaw", "gpaw-data", "ase", "numpy", "scipy")
RESULTS = Path(__file__).with_name("results")
#: Facts that are the recipe's, not found for each material.
SAME_FOR_ALL = set(Recipe().parameters()) - {"cutoff", "ringing"}
#: Electrons of closed shells, for the estimate of the cost.
_CLOSED = (0, 2, 10, 18, 28, 36, 46, 54, 78)
#: What convergence is measured with: one thing finer at a time.
FINER = {
    "cutoff 500 eV": Recipe(cutoff=500.0),
    "k_length 60 Å": Recipe(k_length=60.0),
    "vacuum 9 Å": Recipe(vacuum=9.0),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, help="the cheapest N materials")
    parser.add_argument("--only", nargs="+", help="these materials")
    parser.add_argument("--seconds", type=float, default=600.0, help="given up after that processor time")
    parser.add_argument("--converge", nargs="+", metavar="NAME", help="measure convergence instead")
    parser.add_argument("--volumes", type=Path, default=stm_library.SHIPPED)
    parser.add_argument("--out", type=Path, help="results file")
    options = parser.parse_args()
    date = time.strftime("%Y-%m-%d", time.gmtime())
    if options.converge:
        converge(options.converge, options.out or RESULTS / f"stm-convergence-{date}.json")
        return
    crystals = load_structures("reference")
    names = options.only or sorted(crystals, key=lambda name: cost(crystals[name]))[: options.limit]
    out = options.out or RESULTS / f"stm-library-{date}.json"
    for name in names:
        path = options.volumes / f"{stm_library.file_stem(crystals[name], Recipe())}-{name}.npz"
        if not path.is_file():
            record(out, apart(name, path, options.seconds))


def cost(atoms: ase.Atoms) -> float:
    """Return roughly how a calculation costs: bands times volume times k-points."""
    cell = calculated_cell(atoms, Recipe())
    valence = sum(number - max(n for n in _CLOSED if n < number) for number in atoms.numbers)
    spins = 2.5 if is_polarised(atoms, Recipe()) else 1.0
    points = np.prod(k_points(cell.cell.array, Recipe().k_length))
    return float((valence / 2 + 8 + len(cell)) * cell.get_volume() * points * spins)


def apart(name: str, path: Path, seconds: float) -> dict[str, Any]:
    """Compute one material in a process of its own, so that its memory is its own too."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=compute, args=(name, path, seconds, sender))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        found = {"error": f"ended without a result; {seconds:g} s of processor time were allowed"}
    process.join()
    return {"name": name, **found}


def compute(name: str, path: Path, seconds: float, sender: Connection) -> None:
    """Compute a material, write its volume and send what was found."""
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
    started = time.perf_counter()
    atoms = load_structures("reference")[name]
    try:
        states = gpaw_engine.state_density(atoms, biases=BIASES, references=get_args(BiasReference))
    except Exception as problem:  # noqa: BLE001  # whatever GPAW meets goes into the results
        sender.send({"error": f"{type(problem).__name__}: {problem}"})
        return
    wall = round(time.perf_counter() - started, 1)
    content = stm_library.pack(states)
    write_bytes(path, content)
    sender.send(
        {
            **{key: value for key, value in states.facts.items() if key not in SAME_FOR_ALL},
            "wall_seconds": wall,
            "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "grid": list(states.windows[0].values.shape),
            "bytes": len(content),
            **agreement(states, content, flat_layer(atoms)),
        }
    )


def agreement(states: StateDensity, content: bytes, layer: ase.Atoms) -> dict[str, float]:
    """Compare images of the packed volume with those of the calculated one; the worst of all."""
    packed = stm_library.unpack(content, layer, BIASES, "band_edge") or []
    full = [full_density(states, w) for w in states.windows if w.reference == "band_edge"]
    pairs = [compare(*pair) for pair in zip(full, packed, strict=True)]
    return {
        "packed_r": round(min(pair["r"] for pair in pairs), 7),
        "packed_difference": round(max(pair["difference"] for pair in pairs), 5),
    }


def compare(first: LocalDensity, second: LocalDensity) -> dict[str, float]:
    """Return the correlation of images and their largest difference as a share of the largest value."""
    correlations, differences = [], []
    for mode in get_args(Mode):
        a, b = (simulate_stm(density, mode=mode).image.astype(float) for density in (first, second))
        correlations.append(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
        differences.append(float(np.abs(a - b).max() / np.abs(a).max()))
    mean = float(second.plane(2.0).mean() / first.plane(2.0).mean())
    return {"r": min(correlations), "difference": max(differences), "mean_ratio": mean}


def converge(names: list[str], out: Path) -> None:
    """Compare the recipe with finer ones."""
    crystals = load_structures("reference")
    for name in names:
        base = gpaw_engine.state_density(crystals[name], biases=BIASES)
        for what, recipe in FINER.items():
            finer = gpaw_engine.state_density(crystals[name], biases=BIASES, recipe=recipe)
            for old, new in zip(base.windows, finer.windows, strict=True):
                found = compare(full_density(base, old), full_density(finer, new))
                rounded = {key: round(value, 5) for key, value in found.items()}
                record(
                    out,
                    {
                        "name": f"{name}, {what}, {old.bias:+g} V",
                        **rounded,
                        "seconds": finer.facts["seconds"],
                    },
                )


def record(out: Path, found: dict[str, Any]) -> None:
    """Add a result to the file and print it."""
    print(json.dumps(found, ensure_ascii=False), flush=True)
    results = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"materials": []}
    kept = [entry for entry in results["materials"] if entry["name"] != found["name"]]
    results.update(
        materials=[*kept, found],
        command=" ".join(["OMP_NUM_THREADS=1 python benchmarks/make_stm_library.py", *sys.argv[1:]]),
        recipe=Recipe().parameters(),
        machine=machine_facts(PACKAGES),
    )
    write_json(out, results)


if __name__ == "__main__":
    main()
