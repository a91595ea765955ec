"""Which crystal an image shows: lattices that it may have are tried until one explains it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError

from atomvision_hub.analysis.column_model.crystal import CrystalFit, fit_crystal
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.profiles import Profiles
from atomvision_hub.analysis.column_model.structure_factors import wave_power
from atomvision_hub.analysis.harmonics import NoLatticeError, refine
from atomvision_hub.analysis.lattice_fit import fit_lattice
from atomvision_hub.analysis.lattice_search import coarser_lattices, first_lattices, inverse_basis

Array = npt.NDArray[np.float64]

#: Residual over noise up to which a crystal is the answer, and up to which no other is looked for, as loose
#: columns explain the rest.
EXPLAINED, NEARLY = 1.08, 1.25

_CHANGED = 0.25  # share of changed columns up to which it is
_LARGEST, _LARGER = 0.2, 0.15  # cell relative to the image: one that was found, one that is only tried
_SAME = 0.02  # by how much the numbers that lead from one basis to another may miss whole ones
_GUESSES = 2
_DOUBLINGS, _CANDIDATES = 2, 2
_MOST_EXPECTED = 40  # sites of a cell that is tried after a smaller one
_FINEST = 0.6  # cycles per width up to which waves of a larger cell are looked for
_REACH = 6  # indices
_BINS = 2.0


def find_crystal(image: Array, probe: Probe, noise: float, *, nearly: float = NEARLY) -> CrystalFit | None:
    """Return the crystal that explains an image best, None where nothing repeats.

    Tried are, until one leaves little but noise, what repeats at first sight, what `fit_lattice` finds, and
    doubled and tripled cells of the best so far.

    Parameters
    ----------
    image
        Grey levels [row, column].
    probe
        Profile of a column.
    noise
        Standard deviation of a pixel, grey levels.
    nearly
        Residual over noise up to which a crystal is the answer; with 0 all are tried.
    """
    search = _Search(image, probe, noise, nearly)
    for basis in first_bases(image):
        if search.attempt(basis, _LARGEST):
            return search.best
    lattice = fit_lattice(image)
    if lattice.vectors_px is not None and search.attempt(lattice.vectors_px, _LARGEST):
        return search.best
    for _ in range(_DOUBLINGS):
        best = search.best
        if best is None or 2 * abs(float(np.linalg.det(best.basis))) > _LARGER * image.size:
            break
        for basis in larger_bases(best, probe)[:_CANDIDATES]:
            if search.attempt(basis, _LARGER):
                return search.best
        if search.best is best:
            break
    return search.best


class _Search:
    """Lattices tried so far, and the crystal with the shortest description."""

    def __init__(self, image: Array, probe: Probe, noise: float, nearly: float) -> None:
        self.image, self.probe, self.noise, self.nearly = image, probe, noise, nearly
        self.best: CrystalFit | None = None
        self._tried: list[Array] = []

    def attempt(self, basis: Array, largest: float) -> bool:
        """Try a basis, unless it is too large or known; return whether it explains the image."""
        area = abs(float(np.linalg.det(basis)))
        if area > largest * self.image.size:
            return False
        if self.best is not None:
            multiple = area / abs(float(np.linalg.det(self.best.basis)))
            if multiple * len(self.best.sites) > _MOST_EXPECTED:
                return False
        for other in self._tried:
            change = basis @ np.linalg.inv(other)
            # Whole numbers of determinant one: another basis of the same lattice.
            if np.abs(change - np.rint(change)).max() < _SAME and abs(np.linalg.det(change)) < 1.5:
                return False
        self._tried.append(basis)
        try:
            fit = fit_crystal(self.image, basis, self.probe, self.noise)
        except (LinAlgError, np.linalg.LinAlgError):  # columns that the image does not tell apart
            return False
        if fit is None:
            return False
        if self.best is None or fit.cost < self.best.cost:
            self.best = fit
        if fit.ratio < self.nearly and fit.changed < _CHANGED * fit.inside + 2:
            self.best = fit
            return True
        return False


def first_bases(image: Array) -> Iterator[Array]:
    """Yield bases of what repeats at first sight, refined; rows (x, y) in pixels.

    Superstructures are not looked for: columns that are missing here and there look like some.
    """
    grey = (image - image.min()) / max(float(np.ptp(image)), 1e-300)
    view, power, noise, finest, guesses = first_lattices(grey)
    for basis in guesses[:_GUESSES]:
        try:
            fit = refine(copy(view), inverse_basis(basis), finest, power, noise)
        except NoLatticeError:
            continue
        yield inverse_basis(fit.reciprocal)


def larger_bases(fit: CrystalFit, probe: Probe) -> list[Array]:
    """Return bases of the doubled and tripled cells, first the one whose waves are strongest in what is left.

    Parameters
    ----------
    fit
        Columns on the smaller cell.
    probe
        Profile of a column.
    """
    # What the crystal leaves with the usual height on every site.
    shape = (fit.left.shape[0], fit.left.shape[1])
    size = np.array(shape[::-1])
    left = fit.left + Profiles(fit.places, probe, shape).image(fit.heights - fit.usual)
    found = []
    for basis in coarser_lattices(fit.basis):
        indices = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].reshape(2, -1).T
        waves = indices @ inverse_basis(basis)
        # Within two bins of a wave of the smaller cell, the window shows that wave.
        old = waves @ fit.basis.T
        away = (old - np.rint(old)) @ inverse_basis(fit.basis) * size
        new = (np.hypot(*away.T) > _BINS) & (np.hypot(*waves.T) < _FINEST / probe.narrowest)
        if new.any():
            found.append((float(wave_power(left, waves[new]).mean()), basis))
    return [basis for _, basis in sorted(found, key=lambda entry: -entry[0])]
