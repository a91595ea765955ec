"""How well the convolution approximation agrees with multislice, crystal by crystal, and where it ends.

    OMP_NUM_THREADS=1 python benchmarks/bench_multislice.py --cache DIR \
        [--part materials thickness microscope convergence] \
        [--out benchmarks/results/multislice-DATE.json] [--picture docs/images/multislice.png]

Needs [multislice]. Scans are kept in the cache, so that an interrupted run goes on where it stopped; what is
not there yet is calculated, seconds to a minute a crystal on one core. Both images are compared over one
period: as Fourier series, which is exact, after one factor between their units.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _machine import PACKAGES, machine_facts
from ase import Atoms
from ase.build import bulk, surface
from scipy.optimize import minimize, minimize_scalar

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub._files import write_json
from atomvision_hub.simulation import GaussianPSF
from atomvision_hub.simulation.multislice import Multislice, PeriodScan, simulate_multislice, stored_scan
from atomvision_hub.structures import flat_layer

Floats = npt.NDArray[np.float64]

#: Embedded crystals from light to heavy: hexagonal, square and rectangular. Others have large cells without
#: symmetry, which cost minutes each.
_NAMES = (
    "graphene h-BN AlN silicene blue-P black-P MgCl2 GaN ZnO germanene TiS2-1T VS2 NiCl2 FeSe "
    "CrSBr GaSe ZrS2-1T MoS2 MoSe2 MoTe2 NbSe2 SnS2-1T SnSe In2Se3 Sb NiI2 HfS2-1T TaS2 "
    "WS2 WSe2 WTe2-1Tp PtS2-1T PtSe2-1T TlF PbO BiOCl Bi Bi2Te3 BiTeI"
)
MATERIALS = _NAMES.split()
#: Of the source, Å: of the preset `typical`.
SOURCE = 0.8
#: What `simulate_stem` does by default.
DEFAULT = (1.7, 0.5)
#: Frequencies (1/Å) beyond which no Gaussian that is tried has anything left.
_HIGHEST = 4.0


class Pair:
    """One crystal by both engines, as Fourier series over its period.

    Parameters
    ----------
    layer
        The crystal.
    scan
        Its multislice signal.
    source_size
        Full width at half maximum of the source, Å.
    """

    def __init__(self, layer: Atoms, scan: PeriodScan, source_size: float = SOURCE) -> None:
        reach = [int(_HIGHEST * length) + 1 for length in np.linalg.norm(scan.cell, axis=1)]
        h = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 2)
        length = np.linalg.norm(h @ np.linalg.inv(scan.cell).T, axis=1)
        h, self.length = h[length <= _HIGHEST], length[length <= _HIGHEST]
        place = {tuple(row): index for index, row in enumerate(h.tolist())}
        self.signal = np.zeros(len(h), dtype=np.complex128)
        for frequency, value in zip(*scan.series(source_size), strict=True):
            self.signal[place[tuple(int(n) for n in frequency)]] = value
        shares = layer.positions[:, :2] @ np.linalg.inv(scan.cell)
        self.waves = np.exp(-2j * np.pi * h @ shares.T)  # (frequencies, atoms)
        self.numbers = layer.numbers.astype(float)
        self.area = abs(float(np.linalg.det(scan.cell)))
        self.total = float(self.signal[self.length == 0].real[0]) * self.area
        # Elements that are nearly alike say nothing about the power of Z.
        self.tells_exponent = layer.numbers.max() > 1.25 * layer.numbers.min()

    def convolution(self, exponent: float, sigma: float) -> npt.NDArray[np.complex128]:
        """Return the series of the convolution image."""
        blur = np.exp(-2 * (np.pi * sigma * self.length) ** 2)
        return np.asarray(self.waves @ self.numbers**exponent * blur / self.area)

    def agreement(self, exponent: float, sigma: float) -> dict[str, float]:
        """Return correlation, normalised rms and errors of column intensities."""
        model, other = self.convolution(exponent, sigma), self.signal
        factor = np.vdot(model, other).real / np.vdot(model, model).real
        wave = self.length > 0
        spread = np.sqrt(np.vdot(other[wave], other[wave]).real)
        alike = np.vdot(model[wave], other[wave]).real
        alike /= np.sqrt(np.vdot(model[wave], model[wave]).real) * spread
        rest = np.sqrt(np.vdot(factor * model - other, factor * model - other).real)
        ours, theirs = ((self.waves.conj().T @ series).real for series in (model, other))
        ratio = (ours / ours.max()) / (theirs / theirs.max()) - 1
        return {
            "correlation": float(alike),
            "normalised_rms": float(rest / spread),
            "rms_of_mean": float(rest / other[~wave].real[0]),
            "column_error_max": float(np.abs(ratio).max()),
            "column_error_mean": float(np.abs(ratio).mean()),
            "factor": float(factor),
        }

    def rest(self, exponent: float, sigma: float) -> float:
        """Return the normalised rms."""
        return self.agreement(exponent, sigma)["normalised_rms"]

    def best(self) -> tuple[float, float]:
        """Return the exponent and width (Å) with the smallest rms; exponent 1.7 where elements are alike."""
        if not self.tells_exponent:
            found = minimize_scalar(
                lambda width: self.rest(DEFAULT[0], width), bounds=(0.2, 0.8), method="bounded"
            )
            return DEFAULT[0], float(found.x)
        return _minimum(lambda point: self.rest(*point))


def _minimum(function: Callable[[Floats], float]) -> tuple[float, float]:
    found = minimize(
        function, np.array([1.7, 0.45]), method="Nelder-Mead", bounds=[(0.5, 3.0), (0.2, 0.8)], tol=1e-4
    )
    return float(found.x[0]), float(found.x[1])


def describe(layer: Atoms, scan: PeriodScan, source_size: float = SOURCE) -> dict[str, Any]:
    """Return how both engines agree on a crystal with the default and with its best parameters."""
    pair = Pair(layer, scan, source_size)
    exponent, sigma = pair.best()
    return {
        "atoms": len(layer),
        "lightest": int(layer.numbers.min()),
        "heaviest": int(layer.numbers.max()),
        "thickness": round(float(np.ptp(layer.positions[:, 2])), 3),
        "area": round(pair.area, 3),
        "mean_signal": pair.total / pair.area,
        "highest_signal": float((pair.waves.conj().T @ pair.signal).real.max()),
        "standard_error": scan.facts["standard_error"],
        "default": pair.agreement(*DEFAULT),
        "best_exponent": exponent if pair.tells_exponent else None,
        "best_sigma": sigma,
        "best": pair.agreement(exponent, sigma),
    }


def materials(cache: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the agreement of every material, and the parameters that suit all."""
    crystals = load_structures("reference")
    pairs: dict[str, Pair] = {}
    table: dict[str, Any] = {}
    for name in names:
        started, layer = time.process_time(), flat_layer(crystals[name])
        scan = stored_scan(layer, cache=cache)
        pairs[name] = Pair(layer, scan)
        table[name] = describe(layer, scan) | {"without_source": describe(layer, scan, 0.0)}
        row = table[name]
        print(
            f"{name:10s} Z {row['lightest']:2d}-{row['heaviest']:2d}  r {row['default']['correlation']:.4f}  "
            f"rms {row['default']['normalised_rms']:.3f}  columns {row['default']['column_error_max']:.3f}  "
            f"best n {row['best_exponent'] or np.nan:.2f} sigma {row['best_sigma']:.3f} "
            f"rms {row['best']['normalised_rms']:.3f}  {time.process_time() - started:.0f} s",
            flush=True,
        )
    together = _minimum(lambda point: float(np.mean([pair.rest(*point) for pair in pairs.values()])))
    for name, pair in pairs.items():
        table[name]["together"] = pair.agreement(*together)
    return {
        "table": table,
        "best_for_all": {"z_exponent": together[0], "sigma": together[1]},
        "total_signal": total_signal(pairs),
    }


def total_signal(pairs: dict[str, Pair]) -> dict[str, Any]:
    """Return the power of Z that the signal summed over a cell follows from material to material."""
    totals = np.log([pair.total for pair in pairs.values()])

    def spread(exponent: float) -> float:
        sums = np.log([np.sum(pair.numbers**exponent) for pair in pairs.values()])
        return float(np.std(totals - sums))

    found = minimize_scalar(spread, bounds=(1, 2.5), method="bounded")
    sums = np.log([np.sum(pair.numbers**found.x) for pair in pairs.values()])
    return {
        "z_exponent": float(found.x),
        "relative_spread": spread(float(found.x)),
        "spread_with_1.7": spread(1.7),
        "share_of_beam_per_Z_n_and_A2": float(np.exp(np.mean(totals - sums))),
        "deviations": {
            name: float(rest)
            for name, rest in zip(pairs, totals - sums - np.mean(totals - sums), strict=True)
        },
    }


def stacks() -> dict[str, Callable[[int], Atoms]]:
    """Return specimens of n layers, the beam along the normal."""
    crystals = load_structures("reference")

    def stacked(name: str, distance: float, *, turned: bool = False) -> Callable[[int], Atoms]:
        layer = flat_layer(crystals[name])

        def make(count: int) -> Atoms:
            whole = layer.copy()
            for number in range(1, count):
                other = layer.copy()
                if turned and number % 2:
                    # 2H: the other layer is turned by 180 degrees, so that metal lies on chalcogen.
                    other.positions[:, :2] *= -1
                    first = other.positions[other.numbers == other.numbers.max()][0, :2]
                    other.positions[:, :2] += layer.positions[layer.numbers == 16][0, :2] - first
                other.positions[:, 2] += number * distance
                whole += other
            return whole

        return make

    def gold(count: int) -> Atoms:
        slab = surface(bulk("Au", "fcc", a=4.078, cubic=True), (0, 0, 1), (count + 1) // 2, vacuum=5)
        slab.pbc = (True, True, False)
        heights = np.unique(slab.positions[:, 2].round(3))[:count]
        return slab[np.isin(slab.positions[:, 2].round(3), heights)]

    return {
        "MoS2, 2H": stacked("MoS2", 6.15, turned=True),
        "PtSe2, 1T": stacked("PtSe2-1T", 5.08),
        "Au [001]": gold,
    }


#: Å.
THICKEST = 36.0


def thickness(cache: Path) -> dict[str, Any]:
    """Return the agreement of stacks of layers, and how their signal grows."""
    result: dict[str, Any] = {}
    for name, make in stacks().items():
        rows: list[dict[str, Any]] = []
        for count in (1, 2, 4, 8, 16):
            specimen = make(count)
            if np.ptp(specimen.positions[:, 2]) > THICKEST:
                break
            scan = stored_scan(specimen, Multislice(phonons=8), cache=cache)
            rows.append({"layers": count, **describe(specimen, scan)})
            # In the convolution the total is linear, and every column is the sum of its atoms.
            ours = Pair(specimen, scan)
            peak = float((ours.waves.conj().T @ ours.convolution(*DEFAULT)).real.max())
            rows[-1]["highest_over_convolution"] = rows[-1]["highest_signal"] / peak
            rows[-1]["mean_over_linear"] = rows[-1]["mean_signal"] / (count * rows[0]["mean_signal"])
            row = rows[-1]
            print(
                f"{name} x {count}: {row['thickness']:.1f} Å, r {row['default']['correlation']:.4f}, "
                f"mean/linear {row['mean_over_linear']:.3f}, highest/convolution "
                f"{row['highest_over_convolution'] / rows[0]['highest_over_convolution']:.3f}, "
                f"best n {row['best_exponent'] or np.nan:.2f} "
                f"columns {row['default']['column_error_max']:.3f}",
                flush=True,
            )
        result[name] = rows
    return result


#: Of microscopes: voltage (kV), convergence, inner and outer angle (mrad), C1 (Å).
MICROSCOPES = {
    "80 kV, 30 mrad, 60-200": Multislice(),
    "60 kV, 30 mrad, 60-200": Multislice(voltage=60),
    "80 kV, 30 mrad, 90-200": Multislice(inner=90),
    "80 kV, 30 mrad, 40-200": Multislice(inner=40),
    "80 kV, 30 mrad, 60-200, defocus 50 Å": Multislice(defocus=50),
    "200 kV, 25 mrad, 60-200": Multislice(voltage=200, semi_angle=25),
    "300 kV, 20 mrad, 60-200": Multislice(voltage=300, semi_angle=20),
}


def microscopes(cache: Path, names: Sequence[str] = ("MoS2",)) -> dict[str, Any]:
    """Return the agreement for other microscopes."""
    crystals = load_structures("reference")
    result: dict[str, Any] = {}
    for label, settings in MICROSCOPES.items():
        result[label] = {}
        for name in names:
            layer = flat_layer(crystals[name])
            row = result[label][name] = describe(layer, stored_scan(layer, settings, cache=cache))
            print(
                f"{label:40s} {name:6s} r {row['default']['correlation']:.4f} "
                f"best n {row['best_exponent'] or np.nan:.2f} sigma {row['best_sigma']:.3f} "
                f"rms {row['best']['normalised_rms']:.3f} r {row['best']['correlation']:.4f} "
                f"columns {row['best']['column_error_max']:.3f}",
                flush=True,
            )
    return result


#: One accuracy setting changed at a time; those of the crystal at rest beside a crystal at rest.
ACCURACY: dict[str, dict[str, Any]] = {
    "planes within 0.05 Å": {"slice_thickness": 0.05},
    "planes within 1 Å": {"slice_thickness": 1.0},
    "one plane": {"slice_thickness": 99.0},
    "box of 24 Å": {"box": 24.0},
    "box of 11 Å": {"box": 11.0},
    "grid for 300 mrad": {"margin": 1.5},
}
THERMAL: dict[str, dict[str, Any]] = {
    "another seed": {"seed": 1},
    "displacement 0.05 Å": {"displacement": 0.05},
    "displacement 0.10 Å": {"displacement": 0.1},
    "at rest": {"phonons": 1, "displacement": 0.0},
}


def convergence(cache: Path, names: Sequence[str] = ("MoS2",)) -> dict[str, Any]:
    """Return by how much the image changes with each accuracy setting."""
    crystals = load_structures("reference")
    result: dict[str, Any] = {}
    rest = Multislice(phonons=1, displacement=0.0)
    for name in names:
        layer = flat_layer(crystals[name])

        def image(settings: Multislice, seed: int = 0, layer: Atoms = layer) -> Floats:
            scan = stored_scan(layer, settings, seed=seed, cache=cache)
            view = simulate_multislice(layer, scan=scan, source_size=SOURCE, shape=(128, 128), rotation=17)
            return np.asarray(view.image, dtype=np.float64)

        result[name] = {}
        for base, changes in ((rest, ACCURACY), (Multislice(), THERMAL)):
            reference = image(base)
            for label, change in changes.items():
                seed = int(change.get("seed", 0))
                fields = {key: value for key, value in change.items() if key != "seed"}
                other = image(base.model_copy(update=fields), seed)
                result[name][label] = {
                    "rms_of_mean": float(np.sqrt(np.mean((other - reference) ** 2)) / reference.mean()),
                    "change_of_mean": float(other.mean() / reference.mean() - 1),
                    "change_of_highest": float(other.max() / reference.max() - 1),
                }
                row = result[name][label]
                print(
                    f"{name:8s} {label:32s} rms {row['rms_of_mean']:.4f}  mean {row['change_of_mean']:+.4f}  "
                    f"highest {row['change_of_highest']:+.4f}",
                    flush=True,
                )
    return result


def picture(cache: Path, path: Path, names: Sequence[str], shared: tuple[float, float]) -> None:
    """Draw pairs of images, their difference, and a profile."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    crystals = load_structures("reference")
    figure, axes = plt.subplots(4, len(names), figsize=(2.3 * len(names), 9.3), layout="constrained")
    for column, name in zip(axes.T, names, strict=True):
        layer = flat_layer(crystals[name])
        view: dict[str, Any] = {"shape": (160, 160), "pixel_size": 0.1, "rotation": 10.0}
        theirs = simulate_multislice(
            layer, scan=stored_scan(layer, cache=cache), source_size=SOURCE, **view
        ).image
        ours = simulate_stem(layer, z_exponent=shared[0], psf=GaussianPSF(shared[1]), **view).image
        ours = ours * float((ours * theirs).sum() / (ours * ours).sum())
        top = max(ours.max(), theirs.max())
        for axis, image in zip(column, (ours, theirs), strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=top)
        axis = column[2]
        shown = axis.imshow((ours - theirs) / top, cmap="RdBu_r", vmin=-0.15, vmax=0.15)
        row = np.unravel_index(theirs.argmax(), theirs.shape)[0]
        x = np.arange(160) * 0.1
        column[3].plot(x, 100 * theirs[row], color="black", label="multislice")
        column[3].plot(x, 100 * ours[row], color="tab:red", lw=1, label="convolution")
        column[3].set(xlim=(0, 10), ylim=(0, None), xlabel="Å")
        column[0].set_title(name)
        for axis in column[:3]:
            axis.set(xticks=[], yticks=[])
    labels = (
        "convolution",
        "multislice",
        "difference / maximum",
        "row of the brightest pixel,\n% of the beam",
    )
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    axes[3, 0].legend(frameon=False, fontsize=7)
    figure.colorbar(shown, ax=axes[2, :].tolist(), fraction=0.02, pad=0.01)
    figure.suptitle(
        f"80 kV, 30 mrad, 60-200 mrad, source {SOURCE} Å; convolution: Z^{shared[0]:.2f}, "
        f"Gaussian of {shared[1]:.2f} Å, one factor each",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("materials", "thickness", "microscope", "convergence")
    parser.add_argument("--part", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--materials", nargs="*", default=MATERIALS, help="embedded crystals")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the scans")
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--picture", type=Path, help="PNG of pairs")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": machine_facts((*PACKAGES, "abtem")),
        "settings": Multislice().model_dump(mode="json") | {"source_size": SOURCE, "seed": 0},
        "default": {"z_exponent": DEFAULT[0], "sigma": DEFAULT[1]},
    }
    if "convergence" in options.part:
        result["convergence"] = convergence(options.cache)
    if "materials" in options.part:
        result["materials"] = materials(options.cache, options.materials)
    if "microscope" in options.part:
        result["microscope"] = microscopes(options.cache)
    if "thickness" in options.part:
        result["thickness"] = thickness(options.cache)
    if options.out:
        write_json(options.out, result)
    if options.picture:
        chosen = result.get("materials", {}).get("best_for_all", {"z_exponent": 1.7, "sigma": 0.5})
        picture(
            options.cache,
            options.picture,
            ("graphene", "MoS2", "WSe2", "SnSe", "PtSe2-1T", "Bi2Te3"),
            (chosen["z_exponent"], chosen["sigma"]),
        )


if __name__ == "__main__":
    main()
