"""Scan lines that are displaced in an image of a crystal: they are found, and moved back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError

from atomvision_hub.analysis.column_model.cells import find_crystal
from atomvision_hub.analysis.column_model.crystal import CrystalFit, fit_crystal
from atomvision_hub.analysis.column_model.probe import Probe
from atomvision_hub.analysis.column_model.profiles import Profiles, pixel_noise, rounding_noise
from atomvision_hub.analysis.scan_lines import Lines, Model, displaced_lines

Array = npt.NDArray[np.float64]

#: Root mean square displacement (px) up to which lines count as straight.
STRAIGHT = 0.02

_SCANNED = 2.0  # noise over that of rounding: an image with less is no scan
_NUMBER = 3.0  # what the displacement of a line costs, as chi-squared
_PERIODIC = 0.25  # share of their power that one wave may have of displacements that come from the scan
_SLOW = 2  # periods over the image up to which waves are drift


@dataclass(frozen=True)
class Straightened:
    """An image whose lines were moved back.

    Parameters
    ----------
    image
        Grey levels [row, column].
    noise
        Standard deviation of a pixel.
    crystal
        That explains it, ``None`` where nothing repeats.
    offsets
        By how much a line of the recorded image shows the crystal displaced, (x, y) in pixels, (rows, 2);
        ``None`` where lines are straight.
    """

    image: Array
    noise: float
    crystal: CrystalFit | None
    offsets: Array | None = None


def straighten(grey: Array, probe: Probe) -> Straightened:
    """Return the crystal that an image shows, and the image with its lines where the crystal has them.

    A crystal with a larger cell, whose rows of columns are displaced, looks like displaced lines: where their
    displacements repeat, such cells are tried first.

    Parameters
    ----------
    grey
        Grey levels [row, column].
    probe
        Profile of a column.
    """
    noise = pixel_noise(grey, probe.narrowest)
    crystal = find_crystal(grey, probe, noise)
    straight = Straightened(grey, noise, crystal)
    if crystal is None or noise < _SCANNED * rounding_noise(grey):
        return straight
    lines = displaced_lines(grey, model_of(crystal, probe))
    if max(lines.rms) <= STRAIGHT:
        return straight
    image, quiet = _moved_back(grey, crystal, lines, probe)
    found = find_crystal(image, probe, quiet)
    if found is None:
        return straight
    price = _NUMBER * len(grey) * sum(rms > 0 for rms in lines.rms)
    if found.cost + price >= _cost(crystal, noise, quiet):
        return straight
    if _periodic(lines.offsets):
        larger = find_crystal(grey, probe, noise, nearly=0.0)
        if larger is not None and _cost(larger, noise, quiet) <= found.cost + price:
            return replace(straight, crystal=larger)
    # Once more: what was displaced had blurred the crystal too.
    lines = displaced_lines(grey, model_of(found, probe))
    image, quiet = _moved_back(grey, found, lines, probe)
    return Straightened(image, quiet, refitted(image, found.basis, probe, quiet) or found, lines.offsets)


def straighten_by(grey: Array, crystal: CrystalFit, probe: Probe) -> Straightened:
    """Return an image with its lines where a crystal has them, and the crystal fitted to it anew."""
    lines = displaced_lines(grey, model_of(crystal, probe))
    image, noise = _moved_back(grey, crystal, lines, probe)
    columns = crystal.sites, crystal.site_heights
    found = refitted(image, crystal.basis, probe, noise, columns)
    return Straightened(image, noise, found, lines.offsets)


def refitted(
    image: Array,
    basis: Array,
    probe: Probe,
    noise: float,
    columns: tuple[Array, Array] | None = None,
) -> CrystalFit | None:
    """Return a crystal of this lattice, ``None`` also where its columns cannot be told apart."""
    try:
        return fit_crystal(image, basis, probe, noise, columns)
    except (LinAlgError, np.linalg.LinAlgError):
        return None


def model_of(crystal: CrystalFit, probe: Probe) -> Model:
    """Return the sum of a crystal's columns as `displaced_lines` wants it."""
    rows, columns = crystal.left.shape

    def model(room: int) -> tuple[Array, Array, Array]:
        profiles = Profiles(crystal.places + room, probe, (rows + 2 * room, columns + 2 * room))
        along, down = profiles.slopes(crystal.heights)
        return profiles.image(crystal.heights) + crystal.ground, along, down

    return model


def recorded_places(x: Array, y: Array, offsets: Array, width: float) -> tuple[Array, Array]:
    """Return where columns are in an image whose lines are displaced: where a fit of a Gaussian finds each.

    That is the mean over its lines, weighted by the square of what each shows of it.
    """
    away = (np.arange(len(offsets)) - y.clip(0, len(offsets) - 1)[:, None]) / width
    weights = np.exp(-(away**2))
    mean = weights @ offsets / weights.sum(1, keepdims=True)
    return x + mean[:, 0], y + mean[:, 1]


def _moved_back(grey: Array, crystal: CrystalFit, lines: Lines, probe: Probe) -> tuple[Array, float]:
    """Return the image that straight lines would have shown, with the noise of every pixel as it is."""
    image = grey - lines.moved + model_of(crystal, probe)(0)[0]
    return image, pixel_noise(image, probe.narrowest)


def _cost(crystal: CrystalFit, noise: float, other: float) -> float:
    """Return a crystal's description length for pixels of another noise."""
    squares = crystal.ratio**2 * crystal.left.size
    return crystal.cost + squares * ((noise / other) ** 2 - 1)


def _periodic(offsets: Array) -> bool:
    """Return whether one wave makes much of the displacements, as of rows of atoms, not of a scan."""
    power = np.abs(np.fft.rfft(offsets, axis=0)) ** 2
    whole = power[1:].sum(0)
    return bool((power[_SLOW + 1 :].max(0) > _PERIODIC * whole).any())
