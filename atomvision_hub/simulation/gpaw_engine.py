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
from dataclasses import dataclass, field, replace
from typing import Any

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import CrystalError, MissingExtraError, UsageError
from atomvision_hub.simulation import stm_recipe
from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity
from atomvision_hub.simulation.stm_recipe import Recipe
from atomvision_hub.structures.volumes import Volume

Floats = npt.NDArray[np.float64]


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
        Gap, Fermi level, moment, k-points and cutoff that were needed, `ringing` of each window (see
        `stm_recipe.ringing`), seconds of processor time, versions: JSON values.
    """

    atoms: ase.Atoms
    windows: tuple[Window, ...]
    facts: dict[str, Any] = field(default_factory=dict)


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
    layer = stm_recipe.calculated_cell(atoms, recipe)
    if len(layer) > recipe.max_atoms:
        raise CrystalError(f"{len(layer)} atoms, max_atoms allows {recipe.max_atoms}", step="dft")
    started = time.process_time()
    reach = max(abs(bias) for bias in biases) + 8 * recipe.broadening
    cutoff, length, bands = recipe.cutoff, recipe.k_length, recipe.empty_bands + len(layer)
    names = [(bias, reference) for reference in references for bias in biases]
    while True:
        calculator = _ground_state(layer, recipe, cutoff, length, bands, reach)
        energies, fermi = _energies(calculator)
        edges = stm_recipe.band_edges(energies)
        found = [stm_recipe.window_weights(energies, edges, *name, recipe) for name in names]
        if energies[..., -1].min() <= max(edges[1], 0.0) + reach:
            bands *= 2
            continue
        if length == recipe.k_length and stm_recipe.too_few_states(edges, [w for *_, w in found], recipe):
            length *= 3
            continue
        states = StateDensity(
            layer,
            tuple(
                Window(*name, low, high, _summed(calculator, weights))
                for name, (low, high, weights) in zip(names, found, strict=True)
            ),
        )
        ringing = [stm_recipe.ringing(full_density(states, window)) for window in states.windows]
        if cutoff > recipe.cutoff or max(ringing) <= recipe.ringing:
            break
        cutoff *= 1.5
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
        "seconds": round(time.process_time() - started, 1),
        **recipe.parameters(),
        "cutoff": cutoff,
        "ringing": [round(share, 4) for share in ringing],
    }
    return replace(states, facts=facts)


def full_density(states: StateDensity, window: Window) -> LocalDensity:
    """Return a window as it was calculated, with all its heights."""
    periodic = states.atoms.copy()
    periodic.pbc = True
    return LocalDensity.from_volume(Volume(window.values, periodic, "e/Å^3", "density"), bias=window.bias)


def _ground_state(
    layer: ase.Atoms, recipe: Recipe, cutoff: float, length: float, bands: int, reach: float
) -> Any:
    from gpaw import GPAW, PW, FermiDirac, KohnShamConvergenceError

    atoms = layer.copy()
    polarised = stm_recipe.is_polarised(atoms, recipe)
    if polarised:
        atoms.set_initial_magnetic_moments(stm_recipe.first_moments(atoms))
    counts = stm_recipe.k_points(atoms.cell.array, length)
    calculator = GPAW(
        mode=PW(cutoff),
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
