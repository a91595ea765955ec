"""Local density of states of a layer from GPAW (plane waves, PAW): the optional engine behind STM images.

GPAW is imported here and nowhere else, inside functions. One ground state gives the windows of every bias.
Its own log goes to the file that ATOMVISION_GPAW_LOG names, else nowhere.
Method: Tersoff and Hamann, Phys. Rev. B 31, 805 (1985); GPAW: Mortensen et al., J. Chem. Phys. 160, 092503
(2024).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import AtomVisionError, CrystalError, MissingExtraError, UsageError
from atomvision_hub.structures import flat_layer
from atomvision_hub.structures.formula import reduced_formula

if TYPE_CHECKING:
    from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity

Floats = npt.NDArray[np.float64]

#: Open 3d shells: calculated spin-polarised, from a ferromagnetic guess that may relax to no moment.
_OPEN_SHELL = {"V", "Cr", "Mn", "Fe", "Co", "Ni"}
#: Metals without a net moment in the unit cell, which a ferromagnetic guess would trap in a false state.
_SPIN_PAIRED = {"FeS", "FeSe", "FeTe", "LiFeAs"}
_FIRST_MOMENT = 3.0  # Bohr magnetons on each open-shell atom, the guess
#: A bound (eV) for band energies that count as crossing the Fermi level.
_SAME_LEVEL = 1e-3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the ground state is found and which states an image collects.

    Parameters
    ----------
    cutoff
        Kinetic energy of the plane waves, eV.
    k_length
        k-points times lattice constant along each in-plane vector at least this, Å; hexagonal cells take a
        multiple of three so that K is among them.
    smearing
        Width of the Fermi-Dirac occupations of the ground state, eV.
    vacuum
        Empty space on either side of the layer, Å.
    empty_bands
        Bands above the occupied ones; raised when the window needs more.
    broadening
        kT of the smooth edges of the bias window, eV.
    gap_threshold
        With a gap above this, ``bias_reference="band_edge"`` counts from the band edge, eV.
    fewest_states
        A gapless layer with fewer states (irreducible k-points times bands) in a window is sampled three
        times as densely: at the Dirac point of graphene the usual mesh meets a single one.
    spin
        ``"paired"``, ``"polarised"``, or ``"auto"``: polarised where an open 3d shell asks for it.
    max_atoms
        Larger cells are refused.
    """

    cutoff: float = 350.0
    k_length: float = 30.0
    smearing: float = 0.05
    vacuum: float = 7.0
    empty_bands: int = 8
    broadening: float = 0.025
    gap_threshold: float = 0.1
    fewest_states: int = 4
    spin: Literal["auto", "paired", "polarised"] = "auto"
    max_atoms: int = 24

    def parameters(self) -> dict[str, Any]:
        """Return what the result depends on (a refusal by `max_atoms` does not change it)."""
        return {name: value for name, value in asdict(self).items() if name != "max_atoms"}


@dataclass(frozen=True, eq=False)
class Window:
    """States of one bias window.

    Parameters
    ----------
    bias
        Sample bias, V; positive collects empty states.
    reference
        Whether the window starts at the band edge or at the Fermi level.
    low, high
        Window relative to the Fermi level, eV.
    values
        Local density of states summed over the window, e/Å^3, shape (na, nb, nc).
    """

    bias: float
    reference: BiasReference
    low: float
    high: float
    values: Floats


@dataclass(frozen=True, eq=False)
class StateDensity:
    """What one ground state gave.

    Parameters
    ----------
    atoms
        The layer as calculated: third cell vector along z, layer in the middle.
    windows
        One per bias and reference.
    facts
        Gap, Fermi level, moment, k-points, versions: JSON values.
    """

    atoms: ase.Atoms
    windows: tuple[Window, ...]
    facts: dict[str, Any]


def gpaw_version() -> str:
    """Return the versions of GPAW and of its atomic setups.

    Raises
    ------
    MissingExtraError
        Where GPAW is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"gpaw {version('gpaw')}, gpaw-data {version('gpaw-data')}"
    except PackageNotFoundError:
        raise MissingExtraError(
            "real STM images of a structure need GPAW: CC=g++ pip install 'atomvision-hub[stm]' "
            "(builds with a C++ compiler), or choose the geometric surrogate"
        ) from None


def state_density(
    atoms: ase.Atoms,
    *,
    biases: Sequence[float] = (0.5, -0.5),
    references: Sequence[BiasReference] = ("band_edge",),
    recipe: Recipe | None = None,
) -> StateDensity:
    """Run GPAW on a layer and sum its states over bias windows.

    Parameters
    ----------
    atoms
        Two-dimensional crystal; turned and centred by `flat_layer`.
    biases
        Sample biases, V.
    references
        Where windows start; one window for each bias and reference.
    recipe
        Numerical parameters.

    Raises
    ------
    UsageError
        When a bias is zero or not finite: its window is empty.
    MissingExtraError
        Where GPAW is not installed.
    CrystalError
        With step ``"dft"`` when the cell is too large or the calculation does not converge.
    """
    if not biases or not all(0 < abs(bias) < np.inf for bias in biases):
        raise UsageError(f"biases must be finite and not zero, in V, not {list(biases)}")
    version = gpaw_version()
    recipe = recipe or Recipe()
    layer = calculated_cell(atoms, recipe)
    if len(layer) > recipe.max_atoms:
        raise CrystalError(f"{len(layer)} atoms, max_atoms allows {recipe.max_atoms}", step="dft")
    started = time.perf_counter()
    reach = max(abs(bias) for bias in biases) + 8 * recipe.broadening
    bands = recipe.empty_bands + len(layer)
    length = recipe.k_length
    while True:
        calculator = _ground_state(layer, recipe, length, bands, reach)
        energies, fermi = _energies(calculator)
        edges = band_edges(energies)
        found = [
            window_weights(energies, edges, bias, reference, recipe)
            for reference in references
            for bias in biases
        ]
        if energies[..., -1].min() <= max(edges[1], 0.0) + reach:
            bands *= 2
        elif length == recipe.k_length and _too_few(edges, [weights for *_, weights in found], recipe):
            length *= 3
        else:
            break
    names = [(bias, reference) for reference in references for bias in biases]
    windows = tuple(
        Window(bias, reference, low, high, _summed(calculator, weights))
        for (bias, reference), (low, high, weights) in zip(names, found, strict=True)
    )
    ibz = calculator.dft.ibzwfs.ibz
    facts = {
        "engine": "gpaw",
        "version": version,
        "functional": "PBE",
        "fermi_level": round(fermi, 4),
        "gap": round(max(edges[1] - edges[0], 0.0), 4),
        "spin_treatment": "polarised" if calculator.dft.ibzwfs.nspins == 2 else "paired",
        "moment": round(float(calculator.get_magnetic_moment()), 3),
        "k_points": [int(n) for n in ibz.bz.size_c[:2]],
        "k_irreducible": len(ibz),
        "bands": int(energies.shape[-1]),
        "seconds": round(time.perf_counter() - started, 1),
        **recipe.parameters(),
    }
    return StateDensity(layer, windows, facts)


def calculated_cell(atoms: ase.Atoms, recipe: Recipe) -> ase.Atoms:
    """Return the layer in the middle of a cell with the recipe's vacuum on either side."""
    layer = flat_layer(atoms)
    z = layer.positions[:, 2]
    height = float(np.ptp(z)) + 2 * recipe.vacuum
    positions = layer.positions.copy()
    positions[:, 2] += height / 2 - (z.min() + z.max()) / 2
    cell = layer.cell.array.copy()
    cell[2] = 0.0, 0.0, height
    return ase.Atoms(layer.numbers, positions=positions, cell=cell, pbc=(True, True, False))


def k_points(cell: npt.ArrayLike, length: float) -> tuple[int, int]:
    """Return the k-points along the in-plane vectors of a cell."""
    vectors = np.asarray(cell, float)[:2]
    a, b = np.linalg.norm(vectors, axis=1)
    counts = [int(np.ceil(length / side - 1e-9)) for side in (a, b)]
    cosine = abs(float(vectors[0] @ vectors[1]) / (a * b))
    if abs(a - b) < 0.02 * a and abs(cosine - 0.5) < 0.02:
        counts = [-(-count // 3) * 3 for count in counts]
    return counts[0], counts[1]


def is_polarised(atoms: ase.Atoms, recipe: Recipe) -> bool:
    """Whether a layer is calculated with two spins."""
    if recipe.spin != "auto":
        return recipe.spin == "polarised"
    return bool(_OPEN_SHELL & set(atoms.symbols)) and reduced_formula(atoms.numbers) not in _SPIN_PAIRED


def band_edges(energies: Floats) -> tuple[float, float]:
    """Return valence maximum and conduction minimum (eV, relative to the Fermi level); (0, 0) of a metal.

    A band that reaches over the Fermi level makes a metal. (`get_homo_lumo` looks at occupations at single
    k-points and gives metallic NbSe2 a gap.)

    Parameters
    ----------
    energies
        Band energies, eV, shape (spins, k-points, bands), relative to the Fermi level.
    """
    lowest, highest = energies.min(axis=1), energies.max(axis=1)
    if bool(((lowest < -_SAME_LEVEL) & (highest > _SAME_LEVEL)).any()):
        return 0.0, 0.0
    filled, empty = highest[highest <= _SAME_LEVEL], lowest[lowest >= -_SAME_LEVEL]
    if not filled.size or not empty.size:
        raise AtomVisionError("no bands on one side of the Fermi level; raise empty_bands")
    return float(filled.max()), float(max(empty.min(), filled.max()))


def window_weights(
    energies: Floats, edges: tuple[float, float], bias: float, reference: BiasReference, recipe: Recipe
) -> tuple[float, float, Floats]:
    """Return the window (eV from the Fermi level) and the weight of each state in it.

    The window is [E, E + eV] (empty states) or [E - e|V|, E] (filled ones), E the band edge or the Fermi
    level. Its edges are Fermi functions of width `broadening`; at a band edge there is nothing beyond that
    could enter, so the inner edge is left out there and the states at the very edge count in full.
    """
    from scipy.special import expit

    gapped = edges[1] - edges[0] > recipe.gap_threshold
    start = (edges[1] if bias > 0 else edges[0]) if gapped and reference == "band_edge" else 0.0
    sign = 1.0 if bias > 0 else -1.0
    away = sign * (energies - start)  # energy into the window
    weights = expit((abs(bias) - away) / recipe.broadening)
    if gapped:
        weights = weights * (sign * energies > 0)
    if not (gapped and reference == "band_edge"):
        weights = weights * expit(away / recipe.broadening)
    low, high = sorted((start, start + bias))
    return low, high, weights


def _too_few(edges: tuple[float, float], weights: Sequence[Floats], recipe: Recipe) -> bool:
    """Whether a gapless layer shows too few states in a window for its mesh."""
    if edges[1] - edges[0] > recipe.gap_threshold:
        return False
    return any(int((window > 0.5).sum()) < recipe.fewest_states for window in weights)


def _ground_state(layer: ase.Atoms, recipe: Recipe, length: float, bands: int, reach: float) -> Any:
    from gpaw import GPAW, PW, FermiDirac, KohnShamConvergenceError

    atoms = layer.copy()
    polarised = is_polarised(atoms, recipe)
    if polarised:
        atoms.set_initial_magnetic_moments(
            [_FIRST_MOMENT if s in _OPEN_SHELL else 0.0 for s in atoms.symbols]
        )
    counts = k_points(atoms.cell.array, length)
    calculator = GPAW(
        mode=PW(recipe.cutoff),
        xc="PBE",
        kpts={"size": (*counts, 1), "gamma": True},
        occupations=FermiDirac(recipe.smearing),
        spinpol=polarised,
        nbands=-bands,
        poissonsolver={"dipolelayer": "xy"},
        convergence={"bands": f"CBM+{reach:.3f}"},
        maxiter=200,
        txt=os.environ.get("ATOMVISION_GPAW_LOG"),
    )
    atoms.calc = calculator
    try:
        atoms.get_potential_energy()
    except KohnShamConvergenceError:
        raise CrystalError("GPAW did not reach self-consistency in 200 iterations", step="dft") from None
    except Exception as problem:  # noqa: BLE001  # no setup for an element, atoms too close, ...
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise CrystalError(f"GPAW cannot calculate it: {reason}", step="dft") from None
    return calculator


def _energies(calculator: Any) -> tuple[Floats, float]:
    fermi = float(calculator.get_fermi_level())
    return np.asarray(calculator.eigenvalues(), np.float64) - fermi, fermi


def _summed(calculator: Any, weights: Floats) -> Floats:
    """Return the density (e/Å^3) of all states with the given weights, shape (na, nb, nc).

    Only the pseudo wave functions are summed: outside the PAW spheres, where a tip is, they are the true
    ones. The irreducible k-points stand for all only after the sum is symmetrised.
    """
    from ase.units import Bohr

    dft = calculator.dft
    density = dft.density.nt_sR.new(zeroed=True)
    for wave in dft.ibzwfs:
        occupations = wave.weight * wave.spin_degeneracy * weights[wave.spin, wave.k]
        wave.psit_nX.abs_square(weights=occupations, out=density[wave.spin])
    symmetries = dft.ibzwfs.ibz.symmetries
    density.symmetrize(symmetries.rotation_scc, symmetries.translation_sc)
    full = density.to_pbc_grid() if not density.desc.pbc_c.all() else density
    return np.asarray(full.data.sum(axis=0) / Bohr**3, np.float64)


def local_density(
    atoms: ase.Atoms,
    *,
    bias: float,
    bias_reference: BiasReference = "band_edge",
    recipe: Recipe | None = None,
    cache: Path | None = None,
) -> LocalDensity:
    """Return the local density of states of a layer at one bias: shipped, cached, or computed now.

    Parameters
    ----------
    atoms
        Two-dimensional crystal.
    bias
        Sample bias, V.
    bias_reference
        Where the window starts.
    recipe
        Numerical parameters.
    cache
        Folder of computed volumes; by default `stm_library.default_cache`.

    Raises
    ------
    MissingExtraError
        Where the volume is neither shipped nor cached and GPAW is not installed.
    CrystalError
        With step ``"dft"``, see `state_density`.
    """
    from atomvision_hub.simulation import stm_library

    # The opposite bias comes with the same ground state and is kept for the next call.
    biases = (bias, -bias)
    return stm_library.local_densities(
        atoms, biases, bias_reference, recipe=recipe, cache=cache or stm_library.default_cache()
    )[0]
