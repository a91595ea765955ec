"""STM images from a volume: ours beside jarvis-tools', on a grid of 40 x 40 x 500 points.

    python benchmarks/bench_stm.py [--turns 3] [--out benchmarks/results/stm-DATE.json]

The volume is a sum of decaying exponentials over MoS2, written as a VASP PARCHG that both sides read.
jarvis-tools makes its image as it does by default (interpolated, 50 Å); ours shows the same 50 Å with pixels
of 0.1 Å. Set OMP_NUM_THREADS=1 for figures of one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _machine import interleaved, machine_facts
from ase import Atoms

from atomvision_hub._files import write_json, write_text
from atomvision_hub.simulation.stm import LocalDensity, simulate_stm, surrogate_density
from atomvision_hub.structures.volumes import read_volume

GRID = (40, 40, 500)
FIELD_OF_VIEW = 50.0


def mos2() -> Atoms:
    """Return monolayer MoS2, its lower S in the plane z = 0 because jarvis-tools wants slabs there."""
    a = 3.19
    third = a / np.sqrt(3)
    return Atoms(
        "MoS2",
        positions=[(0, 0, 1.56), (0, third, 3.12), (0, third, 0)],
        cell=[(a, 0, 0), (-a / 2, a * np.sqrt(3) / 2, 0), (0, 0, 20)],
        pbc=True,
    )


def write_parchg(path: Path, atoms: Atoms) -> None:
    """Write exponentials around the atoms as VASP writes a partial density."""
    cell = atoms.cell.array
    fractions = np.stack(np.meshgrid(*(np.arange(n) / n for n in GRID), indexing="ij"), axis=-1)
    points, values = fractions @ cell, np.zeros(GRID)
    for position in atoms.positions:
        for i in range(-1, 2):
            for j in range(-1, 2):
                values += np.exp(
                    -2.2 * np.linalg.norm(points - position - i * cell[0] - j * cell[1], axis=-1)
                )
    lines = [
        "MoS2",
        "1.0",
        *(" ".join(f"{x:.10f}" for x in vector) for vector in cell),
        "Mo S",
        "1 2",
        "Direct",
    ]
    lines += [" ".join(f"{x:.12f}" for x in row) for row in atoms.get_scaled_positions()]
    lines += ["", " ".join(map(str, GRID))]
    flat = (values * atoms.get_volume()).ravel(order="F")
    lines += [" ".join(f"{x:.11E}" for x in row) for row in flat.reshape(-1, 5)]
    write_text(path, "\n".join(lines) + "\n")


def same_plane(path: Path, jarvis: Any) -> dict[str, float]:
    """Return how our values compare with jarvis-tools' at the grid points of its plane."""
    density = LocalDensity.from_volume(read_volume(path), bias=0.5)
    plane = jarvis.chg[:, :, jarvis.zcut]
    ours = density.plane(jarvis.zcut / jarvis.nz * jarvis.c - density.atoms.positions[:, 2].max())
    ratio = plane / (ours * jarvis.atoms.volume)
    return {
        "correlation": float(np.corrcoef(plane.ravel(), ours.ravel())[0, 1]),
        "largest_relative_deviation": float(np.abs(ratio - 1).max()),
    }


def main() -> None:
    """Run everything and print or write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--turns", type=int, default=3, help="images by jarvis-tools; ours are made more often"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    options = parser.parse_args()
    out = options.out.resolve() if options.out else None

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        from jarvis.analysis.stm.tersoff_hamann import TersoffHamannSTM

        path = Path("PARCHG")
        write_parchg(path, mos2())
        volume = read_volume(path)
        density = LocalDensity.from_volume(volume, bias=0.5)
        jarvis = TersoffHamannSTM(chg_name=str(path), min_size=FIELD_OF_VIEW)
        pixels = round(FIELD_OF_VIEW / 0.1)
        view: dict[str, Any] = {"shape": (pixels, pixels), "pixel_size": 0.1}

        def theirs() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                jarvis.constant_height(filename="height.png")

        def their_current() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                jarvis.constant_current(filename="current.png")

        timers = {
            "jarvis-tools, constant height": theirs,
            "jarvis-tools, constant current": their_current,
            "constant height, 500 x 500": lambda: simulate_stm(density, **view),
            "constant current, 500 x 500": lambda: simulate_stm(density, mode="constant_current", **view),
            "constant height, 256 x 256": lambda: simulate_stm(density),
            "constant current, 256 x 256": lambda: simulate_stm(density, mode="constant_current"),
            "read_volume": lambda: read_volume(path),
            "jarvis-tools, reading": lambda: TersoffHamannSTM(chg_name=str(path)),
            "LocalDensity.from_volume": lambda: LocalDensity.from_volume(volume, bias=0.5),
            "surrogate_density": lambda: surrogate_density(density.atoms),
        }
        n = options.turns
        repeats = dict.fromkeys(timers, 10 * n) | {
            name: n for name in timers if "jarvis" in name or "read" in name
        }
        seconds = interleaved(timers, repeats)
        agreement = same_plane(path, jarvis)

    faster = {
        mode: seconds[f"jarvis-tools, {mode}"]["cpu_median"] / seconds[f"{mode}, 500 x 500"]["cpu_median"]
        for mode in ("constant height", "constant current")
    }
    result = {
        "machine": machine_facts(),
        "grid": GRID,
        "field_of_view": FIELD_OF_VIEW,
        "seconds": seconds,
        "times_faster_than_jarvis": faster,
        "same_plane": agreement,
    }
    print(f"{result['machine']['cpu']}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}\n")
    for name, times in seconds.items():
        print(
            f"{name:32s} {times['median'] * 1e3:10.2f} ms   ({times['cpu_median'] * 1e3:.2f} processor time)"
        )
    for mode, factor in faster.items():
        print(f"{mode}: {factor:.0f} times as fast as jarvis-tools, by processor time")
    print("same plane: r = {correlation:.9f}, deviation {largest_relative_deviation:.1e}".format(**agreement))
    if out:
        write_json(out, result)


if __name__ == "__main__":
    main()
