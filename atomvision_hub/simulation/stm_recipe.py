"""What a density-of-states calculation decides before and after it: recipe, mesh, spins, gap, windows.

No engine is needed here; `gpaw_engine` follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import AtomVisionError
from atomvision_hub.structures import flat_layer
from atomvision_hub.structures.formula import reduced_formula

if TYPE_CHECKING:
    from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity

Floats = npt.NDArray[np.float64]

#: Open 3d shells: calculated spin-polarised, from a ferromagnetic guess that may relax to no moment.
_OPEN_SHELL = {"V", "Cr", "Mn", "Fe", "Co", "Ni"}
#: Metals without a net moment in the unit cell, which a ferromagnetic guess would trap in a false state.
_SPIN_PAIRED = {"FeS", "FeSe", "FeTe", "LiFeAs"}
#: The guess, Bohr magnetons on each atom with an open shell.
_FIRST_MOMENT = 3.0
#: A bound (eV) for band energies that count as crossing the Fermi level.
_SAME_LEVEL = 1e-3


#: Waves shorter than 0.9 Å (wave numbers above this, 1/Å) cannot reach the plane of an image: on 2 Å a wave
#: number G decays by exp(-2 G) or so, a thousandth of what the mean keeps.
_SHORT_WAVES = 7.0
#: Å above the topmost atom, and the density (e/Å^3) without which a plane shows no states.
_PLANE, _NO_STATES = 2.0, 1e-9


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the ground state is found and which states an image collects.

    Parameters
    ----------
    cutoff
        Kinetic energy of the plane waves, eV.
    ringing
        With more `ringing` than this in an image's plane the cutoff is raised by half.
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
    ringing: float = 0.15
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


def too_few_states(edges: tuple[float, float], weights: Sequence[Floats], recipe: Recipe) -> bool:
    """Whether a gapless layer shows too few states in a window for its mesh."""
    if edges[1] - edges[0] > recipe.gap_threshold:
        return False
    return any(int((window > 0.5).sum()) < recipe.fewest_states for window in weights)


def first_moments(atoms: ase.Atoms) -> list[float]:
    """Return the ferromagnetic guess: a moment on every atom with an open 3d shell."""
    return [_FIRST_MOMENT if symbol in _OPEN_SHELL else 0.0 for symbol in atoms.symbols]


def ringing(density: LocalDensity) -> float:
    """Return the share of an image's contrast that no state can have: waves too short to reach its plane.

    A cutoff that is too low for localised 3d and 2p orbitals leaves it in the vacuum (planar ZnO: 30 % at
    350 eV, 6 % at 525 eV). Root mean square over the plane 2 Å above the topmost atom.
    """
    plane = density.plane(_PLANE)
    if plane.max() < _NO_STATES:
        return 0.0
    cell = density.atoms.cell.array[:2, :2]
    orders = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in plane.shape), indexing="ij"), axis=-1)
    waves = np.linalg.norm(orders @ (2 * np.pi * np.linalg.inv(cell).T), axis=-1)
    power = np.abs(np.fft.fft2(plane)) ** 2
    contrast = float(power[waves > 0].sum())
    return float(np.sqrt(power[waves > _SHORT_WAVES].sum() / contrast)) if contrast else 0.0
