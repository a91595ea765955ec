"""How long one simulated image takes, and how exact it is, beside jarvis-tools and the published pipeline.

    python benchmarks/bench_render.py [--repeats N] [--out benchmarks/results/render-DATE.json]

In one run, on one thread, turn by turn: `simulate_stem` with and without its targets; `STEMConv` of
jarvis-tools; the published pipeline (STEMConv, then a JPEG by matplotlib), written anew; and the batched
torch renderer in images per second. The view is 256 x 256 pixels of 0.1 Å of MoS2, rotated. Errors are the
largest deviations from a float64 sum over atoms of each side's own profile, relative to the maximum.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _machine import interleaved, machine_facts
from ase import Atoms

from atomvision_hub._files import write_json
from atomvision_hub.simulation import GaussianPSF, JarvisPSF, RadialPSF, simulate_stem

SHAPE, PIXEL_SIZE, ROTATION = (256, 256), 0.1, 17.0
BATCHES = {"cpu": (1, 8, 32, 128), "cuda": (1, 32, 256, 1024)}


def mos2(sulphurs: int = 2) -> Atoms:
    """Monolayer MoS2; with one sulphur no two atoms overlap, which STEMConv cannot draw."""
    a = 3.19
    third = a / np.sqrt(3)
    positions = [(0, 0, 10), (0, third, 11.56), (0, third, 8.44)][: 1 + sulphurs]
    cell = [(a, 0, 0), (-a / 2, a * np.sqrt(3) / 2, 0), (0, 0, 20)]
    return Atoms([42, 16, 16][: 1 + sulphurs], positions=positions, cell=cell, pbc=(True, True, False))


def jarvis_image(atoms: Atoms, *, eps: float = 0.6) -> npt.NDArray[np.float64]:
    """Return the image of jarvis-tools as a user gets it (transposed to [row, column])."""
    from jarvis.analysis.stem.convolution_apprx import STEMConv
    from jarvis.core.atoms import Atoms as JarvisAtoms

    crystal = JarvisAtoms(
        lattice_mat=atoms.cell.array,
        elements=atoms.get_chemical_symbols(),
        coords=atoms.positions,
        cartesian=True,
    )
    render = STEMConv(output_size=list(SHAPE)).simulate_surface
    return np.asarray(render(crystal, px_scale=PIXEL_SIZE, rot=-ROTATION, eps=eps)[0]).T


def published_image(atoms: Atoms) -> bytes:
    """Return a JPEG as the published datasets were made: a figure without axes, saved by matplotlib."""
    import matplotlib.pyplot as plt

    plt.imshow(jarvis_image(atoms), cmap="gray", interpolation="gaussian")
    plt.axis("off")
    stream = io.BytesIO()
    plt.savefig(stream, format="jpg")
    plt.close()
    return stream.getvalue()


def direct_sum(atoms: Atoms, psf: RadialPSF, center: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the float64 sum over atoms, term by term."""
    angle = np.radians(ROTATION)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    row = (np.arange(SHAPE[0]) - (SHAPE[0] - 1) / 2)[:, None] * PIXEL_SIZE
    column = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) * PIXEL_SIZE
    image = np.zeros(SHAPE)
    for i in range(-16, 17):
        for j in range(-16, 17):
            for number, position in zip(atoms.numbers, atoms.positions, strict=True):
                x, y = turn @ (position[:2] + i * atoms.cell[0, :2] + j * atoms.cell[1, :2] - center)
                image += number**1.7 * psf(np.hypot(row - y, column - x))
    return image


def errors() -> dict[str, float]:
    """Return the largest relative errors of both sides."""
    found = {}
    for name, atoms in (("MoS2", mos2()), ("MoS, no overlapping atoms", mos2(sulphurs=1))):
        gaussian = direct_sum(atoms, GaussianPSF(0.5), np.zeros(2))
        ours = simulate_stem(atoms, shape=SHAPE, pixel_size=PIXEL_SIZE, rotation=ROTATION).image
        found[f"simulate_stem, {name}"] = _largest(ours, gaussian)
        # STEMConv shows the mean of its supercell, 3 x the cells that fill the view, in the image centre.
        cells = 3 * (PIXEL_SIZE * (np.array(SHAPE) - 1) // atoms.cell.lengths()[:2] + 1)
        center = atoms.positions[:, :2].mean(0) + ((cells - 1) / 2) @ atoms.cell[:2, :2]
        center -= np.round(center @ np.linalg.inv(atoms.cell[:2, :2])) @ atoms.cell[:2, :2]
        profile = direct_sum(atoms, JarvisPSF(), center)
        jarvis = jarvis_image(atoms) * JarvisPSF().peak
        found[f"STEMConv, {name}"] = _largest(jarvis, profile)
        inner = slice(25, -25)
        found[f"STEMConv, {name}, without its edge"] = _largest(jarvis[inner, inner], profile[inner, inner])
        ours = simulate_stem(
            atoms,
            shape=SHAPE,
            pixel_size=PIXEL_SIZE,
            rotation=ROTATION,
            psf="jarvis",
            center=(center[0], center[1]),
        ).image
        found[f'simulate_stem(psf="jarvis"), {name}'] = _largest(ours, profile)
    return found


def _largest(image: npt.NDArray[Any], reference: npt.NDArray[np.float64]) -> float:
    return float(np.abs(image - reference).max() / reference.max())


def torch_rates(repeats: int) -> dict[str, Any]:
    """Return images per second of the batched renderer by device and batch size, and its arithmetic."""
    import torch

    from atomvision_hub.simulation.torch import CrystalBatch, StemRenderer

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = CrystalBatch.from_atoms([mos2()], join_overlapping=True, device=device)
    rates: dict[str, float] = {}
    for fuse in (False, True) if device == "cuda" else (False,):
        renderer = StemRenderer(SHAPE, pixel_size=PIXEL_SIZE, fuse=fuse)
        for batch in BATCHES[device]:
            rotation = torch.rand(batch, device=device) * 360
            seconds = []
            with torch.inference_mode():
                for _ in range(repeats + 2):
                    if device == "cuda":
                        torch.cuda.synchronize()
                    started = time.perf_counter()
                    renderer(one, rotation=rotation)
                    if device == "cuda":
                        torch.cuda.synchronize()
                    seconds.append(time.perf_counter() - started)
            rates[f"batch {batch}{', fused' if fuse else ''}"] = batch / statistics.median(seconds[2:])
    # Atoms in reach of the view: 5.5 sigma around it, one per cell and distinct position (two in MoS2).
    side = SHAPE[0] * PIXEL_SIZE + 2 * reach()
    atoms = 2 * side**2 / abs(float(np.linalg.det(mos2().cell[:2, :2])))
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread",
        "images_per_second": rates,
        "positions_in_reach": round(atoms),
        "megaflop_per_image": 2 * SHAPE[0] * SHAPE[1] * atoms / 1e6,
        "megabyte_per_image": 4 * SHAPE[0] * SHAPE[1] / 1e6,
    }


def reach() -> float:
    """Return how far the default Gaussian is followed, in Å."""
    return GaussianPSF(0.5).reach


def main() -> None:
    """Run everything and print or write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=15, help="turns; quick calls are repeated within a turn"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    options = parser.parse_args()

    layer = mos2()
    view: dict[str, Any] = {"shape": SHAPE, "pixel_size": PIXEL_SIZE, "rotation": ROTATION}

    def with_targets() -> None:
        frame = simulate_stem(layer, **view)
        assert len(frame.atoms) > 0
        assert frame.mask.any()

    timers = {
        "simulate_stem": lambda: simulate_stem(layer, **view),
        "simulate_stem, atom table, mask": with_targets,
        'simulate_stem(psf="jarvis")': lambda: simulate_stem(layer, **view, psf="jarvis"),
        "jarvis-tools STEMConv": lambda: jarvis_image(layer),
        "published pipeline (STEMConv, matplotlib JPEG)": lambda: published_image(layer),
    }
    n = options.repeats
    repeats = dict.fromkeys(timers, n) | {"simulate_stem": 20 * n, "simulate_stem, atom table, mask": 10 * n}
    seconds = interleaved(timers, repeats)
    ours, theirs = (seconds[name]["cpu_median"] for name in ("simulate_stem", "jarvis-tools STEMConv"))
    result = {
        "machine": machine_facts(),
        "view": {"crystal": "MoS2 monolayer", **{k: str(v) for k, v in view.items()}},
        "seconds_per_image": seconds,
        "times_faster_than_stemconv": theirs / ours,
        "largest_relative_error": errors(),
        "torch": torch_rates(max(3, n // 3)),
    }
    print(f"{result['machine']['cpu']}, one thread, {result['machine']['date']}\n")
    for name, times in seconds.items():
        wall, low, cpu = (times[key] * 1e3 for key in ("median", "lowest", "cpu_median"))
        print(f"{name:50s} {wall:8.3f} ms   ({low:.3f} lowest, {cpu:.3f} processor time)")
    print(f"\nBy processor time simulate_stem is {theirs / ours:.0f} times as fast as STEMConv\n")
    for name, error in result["largest_relative_error"].items():
        print(f"{name:60s} largest error {error:.1e}")
    print(f"\ntorch renderer, {result['torch']['device']}:")
    for name, rate in result["torch"]["images_per_second"].items():
        print(f"{name:30s} {rate:12,.0f} images/s")
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
