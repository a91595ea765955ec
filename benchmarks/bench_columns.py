"""Which columns `analyze` finds in recordings of crystals: peaks, and columns fitted to the image.

    python benchmarks/bench_columns.py [--every 4] [--seed 3] [--out benchmarks/results/columns-DAY.json]
    python benchmarks/bench_columns.py --picture docs/images/probes.png

Every fourth of the embedded reference monolayers, 256 x 256 px of 0.1 Å, recorded with the presets `good`,
`typical` (source size, jitter, drift) and `poor`, and the first two with a probe that is narrower and has
tails: 30 % of its intensity in a Gaussian of 1.0 Å, the rest in one of 0.4 Å. A column is found within
0.25 Å; atoms within 0.05 Å of each other are one. A recording is right where at least 95 % of its columns
are found and of the found ones are columns.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _machine import machine_facts
from rich.progress import track
from scipy.spatial import cKDTree

from atomvision_hub import analyze, load_structures
from atomvision_hub._files import write_json
from atomvision_hub.analysis import fit_columns
from atomvision_hub.simulation.acquisition import record_stem
from atomvision_hub.simulation.psf import parse_psf

Points = npt.NDArray[np.float64]
TAILS = "gaussian(sigma=[0.4, 1.0], weight=[0.7, 0.3])"
RECORDINGS = {
    "good": ("good", "gaussian(sigma=0.5)"),
    "typical": ("typical", "gaussian(sigma=0.5)"),
    "poor": ("poor", "gaussian(sigma=0.5)"),
    "good, tails": ("good", TAILS),
    "typical, tails": ("typical", TAILS),
}
NEAR, EDGE, ENOUGH = 2.5, 3.0, 0.95  # px, px, share


def true_columns(atoms: Any, side: int) -> Points:
    """Return the places of the columns of a table of atoms, px, those near the edge left out."""
    _, first = np.unique(np.asarray(atoms["column"]), return_index=True)
    points = np.stack([np.asarray(atoms["x"]), np.asarray(atoms["y"])], 1)[first].astype(np.float64)
    return points[((points > EDGE) & (points < side - 1 - EDGE)).all(1)]


def score(found: Points, truth: Points, side: int) -> dict[str, float]:
    """Return the shares of columns found and of finds that are columns, and their error in px."""
    inner = found[((found > EDGE) & (found < side - 1 - EDGE)).all(1)]
    far = np.full(len(truth), np.inf) if not len(found) else cKDTree(found).query(truth)[0]
    # A find near the edge may belong to a column beyond it.
    away = cKDTree(truth).query(inner)[0] if len(inner) else np.empty(0)
    hits = far[far < NEAR]
    return {
        "recall": float((far < NEAR).mean()),
        "precision": float((away < NEAR).mean()) if len(away) else 0.0,
        "rms_angstrom": float(np.sqrt((hits**2).mean()) * 0.1) if len(hits) else float("nan"),
    }


def draw(path: Path) -> None:
    """Draw the columns of one recording with a profile that is assumed and with that which is found."""
    from matplotlib.figure import Figure

    recorded = record_stem(
        load_structures("reference")["PtS2-1T"], "good", seed=1, rotation=17, psf=RECORDINGS["good, tails"][1]
    )
    fits = {
        "assumed: Gaussian of 0.5 Å": fit_columns(recorded.image, 0.1),
        "found with the columns": fit_columns(recorded.image, 0.1, width=None),
    }
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    radii = np.linspace(0, 25, 200)
    for axes, (name, fit) in zip((left, middle), fits.items(), strict=True):
        assert fit is not None
        axes.imshow(recorded.image, cmap="gray")
        x, y, height = fit.x[fit.inside], fit.y[fit.inside], fit.height[fit.inside]
        axes.scatter(x, y, s=120 * np.sqrt(height / height.max()), facecolors="none", edgecolors="tab:orange")
        axes.set(xlim=(60, 160), ylim=(160, 60), xticks=[], yticks=[])
        axes.set_title(
            f"{name}\n{fit.site.max() + 1} columns a cell, leaves {fit.ratio:.2f} times the noise",
            fontsize=10,
        )
        profile = sum(high * np.exp(-0.5 * (radii / wide) ** 2) for high, wide in fit.probe.parts)
        right.plot(radii / 10, profile, label=name)
    true = parse_psf(TAILS)
    right.plot(radii / 10, true(radii / 10) / true.peak, "k:", label="true")
    right.set(xlabel="distance from the column (Å)", ylabel="intensity", yscale="log", ylim=(1e-4, 1.5))
    right.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=4, help="take every so-manieth crystal")
    parser.add_argument("--seed", type=int, default=3, help="of noise and rotation")
    parser.add_argument("--picture", type=Path, help="draw what a wrong profile does, and nothing else")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.picture:
        draw(args.picture)
        return
    crystals = load_structures("reference")
    rows: list[dict[str, Any]] = []
    for name in track(list(crystals)[:: args.every], description="recordings"):
        for recording, (preset, psf) in RECORDINGS.items():
            rotation = 3.0 + 14 * args.seed
            recorded = record_stem(crystals[name], preset, seed=args.seed, rotation=rotation, psf=psf)
            truth = true_columns(recorded.atoms, 256)
            row: dict[str, Any] = {"crystal": name, "preset": recording, "columns": len(truth)}
            for kind in ("peaks", "fitted"):
                start = time.perf_counter()
                fit = kind == "fitted"
                result = analyze(recorded.image, pixel_size=0.1, classifier="none", fit_columns=fit)
                seconds = time.perf_counter() - start
                found = np.stack([result.atoms.x, result.atoms.y], 1)
                row[kind] = score(found, truth, 256) | {"seconds": seconds, "residual": result.residual}
            rows.append(row)
    summary: dict[str, dict[str, Any]] = {}
    for preset in RECORDINGS:
        chosen = [row for row in rows if row["preset"] == preset]
        summary[preset] = {"recordings": len(chosen)}
        for kind in ("peaks", "fitted"):
            scores = [row[kind] for row in chosen]
            summary[preset][kind] = {
                "right": sum(min(one["recall"], one["precision"]) >= ENOUGH for one in scores),
                **{
                    f"median_{key}": float(np.nanmedian([one[key] for one in scores]))
                    for key in ("recall", "precision", "rms_angstrom", "seconds")
                },
            }
        summary[preset]["explained"] = sum(row["fitted"]["residual"] is not None for row in chosen)
        print(preset, summary[preset], flush=True)
    for row in rows:
        if min(row["fitted"]["recall"], row["fitted"]["precision"]) < ENOUGH:
            print("not right:", row["crystal"], row["preset"], row["fitted"])
    if args.out:
        write_json(
            args.out, {"machine": machine_facts(), "seed": args.seed, "summary": summary, "recordings": rows}
        )


if __name__ == "__main__":
    main()
