"""Multislice by abTEM, the optional engine: imported here and nowhere else, inside functions.

abTEM: J. Madsen and T. Susi, Open Research Europe 1, 24 (2021), doi 10.12688/openreseurope.13015.2; GPL.
Method: J. M. Cowley and A. F. Moodie, Acta Cryst. 10, 609 (1957); E. J. Kirkland, Advanced Computing in
Electron Microscopy, Springer 2010. Scattering factors: I. Lobato and D. Van Dyck, Acta Cryst. A 70, 636
(2014).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from atomvision_hub.errors import MissingExtraError
from atomvision_hub.simulation.multislice.settings import Multislice

if TYPE_CHECKING:
    from ase import Atoms

Floats = npt.NDArray[np.float64]

#: Probes that are calculated at once: more need more memory and are no faster.
_BATCH = 64
#: One core, no progress bars, plans of the Fourier transform that do not depend on the machine's mood.
_CONFIG = {
    "device": "cpu",
    "precision": "float32",
    "dask.lazy": False,
    "diagnostics.progress_bar": False,
    "fft": "fftw",
    "fftw.threads": 1,
    "fftw.planning_effort": "FFTW_ESTIMATE",
}


def abtem_version() -> str:
    """Return the version of abTEM.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    try:
        return f"abtem {version('abtem')}"
    except PackageNotFoundError:
        raise MissingExtraError(
            "multislice images need abTEM: pip install 'atomvision-hub[multislice]', "
            "or use simulate_stem, the convolution approximation"
        ) from None


def annular_signal(
    boxes: Iterable[Atoms],
    positions: Floats,
    grid: tuple[int, int],
    planes: tuple[float, ...],
    focus: float,
    settings: Multislice,
) -> Floats:
    """Return the share of the beam that the detector collects at every probe position.

    Parameters
    ----------
    boxes
        Configurations of the same specimen in an orthorhombic, periodic box; the beam runs along +z, and all
        atoms of one scattering plane have one z within its slice.
    positions
        Of the probe, (n, 2), in Å along the box's x and y.
    grid
        Points of wave and potential along the box's x and y.
    planes
        Thickness of the slices, Å: each scatters at its entrance face and is then propagated through, so that
        they are the distances of the planes. Their sum is the height of the box.
    focus
        Depth of the Gaussian focus below the first plane, Å.
    settings
        Microscope.

    Returns
    -------
    float64 array (configurations, n).
    """
    import abtem

    signals = []
    with abtem.config.set(_CONFIG):
        probe = abtem.Probe(
            energy=1e3 * settings.voltage,
            semiangle_cutoff=settings.semi_angle,
            # abTEM's defocus is -C1: the depth of the focus.
            aberrations={"defocus": focus, "Cs": 1e7 * settings.spherical},
        )
        detector = abtem.AnnularDetector(settings.inner, settings.outer)
        for atoms in boxes:
            potential = abtem.PotentialArray(
                _projected(atoms, grid, planes),
                slice_thickness=planes,
                extent=tuple(atoms.cell.lengths()[:2]),
            )
            parts = [
                probe.scan(
                    scan=abtem.CustomScan(positions[start : start + _BATCH]),
                    potential=potential,
                    detectors=detector,
                )
                for start in range(0, len(positions), _BATCH)
            ]
            signals.append(np.concatenate([np.asarray(part.array, dtype=np.float64) for part in parts]))
    return np.array(signals)


def _projected(atoms: Atoms, grid: tuple[int, int], planes: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Return the projected potential (V Å) of every slice, (slices, *grid).

    Made of abTEM's scattering factors with exact phases. Its own potentials share an atom out among the four
    nearest points of the grid, which at the angles of a detector changes what the atom scatters by several
    per cent with its place between them.
    """
    from abtem.parametrizations import LobatoParametrization

    sides = atoms.cell.lengths()[:2]
    kx, ky = (np.fft.fftfreq(n, side / n) for n, side in zip(grid, sides, strict=True))
    squared = kx[:, None] ** 2 + ky[None, :] ** 2
    plane = np.searchsorted(np.cumsum(planes), atoms.positions[:, 2])
    factors = LobatoParametrization()
    slices = np.zeros((len(planes), *grid), dtype=np.complex128)
    for number in np.unique(atoms.numbers):
        symbol = chemical_symbols[number]
        factor = np.asarray(factors.projected_scattering_factor(symbol)(squared), dtype=np.float64)
        for index in range(len(planes)):
            x, y = atoms.positions[(atoms.numbers == number) & (plane == index), :2].T
            phases = np.exp(-2j * np.pi * np.outer(kx, x)) @ np.exp(-2j * np.pi * np.outer(y, ky))
            slices[index] += factor * phases
    return np.asarray(np.fft.ifft2(slices).real * (np.prod(grid) / np.prod(sides)), dtype=np.float32)
