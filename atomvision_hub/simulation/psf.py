"""Radially symmetric point-spread functions, each normalised to an integral of one over the plane.

In the convolution approximation an image is the projected crystal convolved with the intensity profile of
the probe. The profile is a free choice here: a Gaussian or a sum of Gaussians (exact and fast, as it
separates), a table, or any function of the radius. All but functions have a text that stands in a dataset row
and gives them back.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import UsageError

Array = npt.NDArray[np.float64]

#: A Gaussian is followed to this many sigma, where it has fallen to 2.7e-7 of its peak. Only what lies
#: further along a row or a column is left out: 4e-8 of the intensity of a dense crystal.
GAUSSIAN_REACH = 5.5
#: A function without a declared reach is searched for its end up to this radius (Å).
_FAR = 60.0


class RadialPSF(ABC):
    """A point-spread function: its value (1/Å²) as a function of the radius (Å), with integral one.

    Attributes
    ----------
    reach
        Radius beyond which the function is zero or negligible, in Å.
    """

    reach: float

    @abstractmethod
    def __call__(self, radius: npt.ArrayLike) -> Array:
        """Return the value at `radius` (Å), in 1/Å²."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the text that `parse_psf` understands."""

    @property
    def peak(self) -> float:
        """Value at radius zero, in 1/Å²: divide an image by it for profiles of height one."""
        return float(self(0.0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RadialPSF) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return str(self)


class GaussianPSF(RadialPSF):
    """A Gaussian, or a weighted sum of Gaussians.

    ``psf(r) = sum_k w_k exp(-r² / 2 sigma_k²) / (2 pi sigma_k²)`` with ``sum_k w_k = 1``.

    Parameters
    ----------
    sigma
        Standard deviation in Å, or one per term.
    weight
        Share of each term; scaled to sum to one. Equal shares by default.

    Raises
    ------
    UsageError
        When a sigma is not positive or the weights do not fit.
    """

    def __init__(self, sigma: float | Sequence[float] = 0.5, weight: Sequence[float] | None = None) -> None:
        sigmas = np.atleast_1d(np.asarray(sigma, dtype=np.float64))
        weights = np.ones(len(sigmas)) if weight is None else np.asarray(weight, dtype=np.float64)
        if sigmas.ndim != 1 or not np.all(np.isfinite(sigmas)) or not np.all(sigmas > 0):
            raise UsageError(f"sigma must be a positive length in Å, not {sigma!r}")
        if weights.shape != sigmas.shape or not np.all(np.isfinite(weights)) or not weights.sum() > 0:
            raise UsageError(f"weight must hold one number per sigma with a positive sum, not {weight!r}")
        self.sigmas: tuple[float, ...] = tuple(sigmas.tolist())
        self.weights: tuple[float, ...] = tuple((weights / weights.sum()).tolist())
        self.reach = GAUSSIAN_REACH * max(self.sigmas)

    def __call__(self, radius: npt.ArrayLike) -> Array:
        """Return the value at `radius` (Å), in 1/Å²."""
        squared = np.square(np.asarray(radius, dtype=np.float64))
        value = np.zeros_like(squared)
        for weight, sigma in zip(self.weights, self.sigmas, strict=True):
            value += weight / (2 * math.pi * sigma**2) * np.exp(-squared / (2 * sigma**2))
        return value

    def __str__(self) -> str:
        if len(self.sigmas) == 1:
            return f"gaussian(sigma={self.sigmas[0]!r})"
        return f"gaussian(sigma={list(self.sigmas)}, weight={list(self.weights)})"


class TabulatedPSF(RadialPSF):
    """A table of values over the radius, interpolated linearly, zero beyond its end.

    Parameters
    ----------
    radius
        Radii in Å, increasing from zero.
    value
        Values at the radii in any unit; scaled so that the integral over the plane is one.

    Raises
    ------
    UsageError
        When the table is not increasing, not finite or has no positive integral.
    """

    def __init__(self, radius: npt.ArrayLike, value: npt.ArrayLike) -> None:
        r = np.array(radius, dtype=np.float64)
        v = np.array(value, dtype=np.float64)
        if r.ndim != 1 or len(r) < 2 or r.shape != v.shape or r[0] != 0 or not np.all(np.diff(r) > 0):
            raise UsageError("a tabulated psf needs radii in Å increasing from 0 and one value for each")
        # r * (linear in r) is a parabola on each interval, for which Simpson's rule is exact.
        middle = (r[1:] + r[:-1]) / 2 * (v[1:] + v[:-1]) / 2
        integral = (
            2 * math.pi * float(np.sum(np.diff(r) / 6 * (r[:-1] * v[:-1] + 4 * middle + r[1:] * v[1:])))
        )
        if not (math.isfinite(integral) and integral > 0):
            raise UsageError("a tabulated psf needs finite values with a positive integral over the plane")
        # A table that is normalised already is kept to the last digit, so that its text gives it back.
        self.radii = r
        self.values = v if abs(integral - 1) < 1e-12 else v / integral
        self.reach = float(r[-1])

    def __call__(self, radius: npt.ArrayLike) -> Array:
        """Return the value at `radius` (Å), in 1/Å²."""
        r = np.asarray(radius, dtype=np.float64)
        return np.asarray(np.interp(r, self.radii, self.values, right=0.0), dtype=np.float64)

    def __str__(self) -> str:
        return f"tabulated(radius={self.radii.tolist()}, value={self.values.tolist()})"


class JarvisPSF(TabulatedPSF):
    """The profile of jarvis-tools' ``STEMConv``: a Gaussian plus half a Lorentzian, cut at 2 Å.

    ``exp(-r² / 2 w²) + 0.5 / (1 + (2 r / w)²)`` with w = 0.5 Å, on 100 radii from 0 to 4 w, between which it
    is interpolated linearly. ``STEMConv`` scales the profile to height one; here it is normalised like every
    other, so its images are ours divided by `peak`. The paper (Choudhary et al., J. Chem. Inf. Model. 2023,
    doi 10.1021/acs.jcim.2c01533) describes the Gaussian alone.
    """

    width = 0.5
    lorentzian_share = 0.5

    def __init__(self) -> None:
        r = np.linspace(0.0, 4 * self.width, 100)
        lorentzian = 1 / (1 + (2 * r / self.width) ** 2)
        super().__init__(r, np.exp(-(r**2) / (2 * self.width**2)) + self.lorentzian_share * lorentzian)

    def __str__(self) -> str:
        return "jarvis"


class FunctionPSF(RadialPSF):
    """Any function of the radius, evaluated exactly at every pixel and scaled to an integral of one.

    Parameters
    ----------
    function
        Takes an array of radii (Å) and returns values of the same shape, in any unit.
    reach
        Radius in Å beyond which it is taken as zero. Found by itself for functions that fall off faster than
        1/r²: where all that lies beyond carries less than 1e-8 of the integral.

    Raises
    ------
    UsageError
        When the function is not finite, has no positive integral, or does not end within 60 Å.
    """

    def __init__(self, function: Callable[[Array], npt.ArrayLike], *, reach: float | None = None) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        declared = reach if reach is not None else getattr(function, "reach", None)
        self.reach = self._find_reach() if declared is None else float(declared)
        if not (math.isfinite(self.reach) and self.reach > 0):
            raise UsageError(f"psf {self.name}: reach must be a positive length in Å, not {declared!r}")
        nodes, weights = np.polynomial.legendre.leggauss(16)
        edges = np.linspace(0.0, self.reach, 513)
        half = np.diff(edges)[:, None] / 2
        r = edges[:-1, None] + half * (1 + nodes)
        integral = float(np.sum(2 * math.pi * r * half * weights * self._raw(r)))
        if not (math.isfinite(integral) and integral > 0):
            raise UsageError(
                f"psf {self.name}: its integral over the plane is {integral}, but must be positive"
            )
        self._integral = integral
        self._raw(np.zeros(1))

    def _raw(self, radius: Array) -> Array:
        value = np.asarray(self.function(radius), dtype=np.float64)
        if value.shape != radius.shape or not np.all(np.isfinite(value)):
            raise UsageError(
                f"psf {self.name}: must return one finite value per radius (Å), from 0 to its reach"
            )
        return value

    def _find_reach(self) -> float:
        r = np.linspace(0.0, _FAR, 12001)
        ring = np.abs(r * self._raw(r))
        beyond = np.cumsum(ring[::-1])[::-1]
        inside = np.flatnonzero(beyond > 1e-8 * beyond[0])
        if len(inside) == 0 or inside[-1] > 0.9 * len(r):
            raise UsageError(
                f"psf {self.name}: does not fall off within {_FAR:g} Å; "
                "cut it with FunctionPSF(function, reach=...) in Å"
            )
        return float(r[inside[-1] + 1])

    def __call__(self, radius: npt.ArrayLike) -> Array:
        """Return the value at `radius` (Å), in 1/Å²."""
        r = np.asarray(radius, dtype=np.float64)
        return np.asarray(np.where(r <= self.reach, self._raw(r), 0.0) / self._integral, dtype=np.float64)

    def __str__(self) -> str:
        return f"function({self.name})"


_TEXT = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_ARGUMENT = re.compile(r"\s*(\w+)\s*=\s*(\[[^\]]*\]|[^,\[\]]+?)\s*(?:,|$)", re.DOTALL)
_NAMED: dict[str, tuple[Callable[..., RadialPSF], frozenset[str]]] = {
    "gaussian": (GaussianPSF, frozenset({"sigma", "weight"})),
    "jarvis": (JarvisPSF, frozenset()),
    "tabulated": (TabulatedPSF, frozenset({"radius", "value"})),
}


@cache
def parse_psf(text: str) -> RadialPSF:
    """Return the point-spread function that a text such as ``"gaussian(sigma=0.5)"`` names.

    Parameters
    ----------
    text
        ``"gaussian(sigma=0.5)"``, ``"gaussian(sigma=[0.4, 1.0], weight=[0.8, 0.2])"``, ``"jarvis"`` or
        ``"tabulated(radius=[...], value=[...])"``; lengths in Å. It is what ``str(psf)`` gives and what the
        `psf` column of a dataset holds.

    Raises
    ------
    UsageError
        When the text names no known function or its arguments do not fit.
    """
    match = _TEXT.fullmatch(text)
    name = match[1] if match else ""
    if match is None or name not in _NAMED:
        raise UsageError(
            f"unknown psf {text[:60]!r}: choose gaussian(sigma=0.5), jarvis, "
            "tabulated(radius=[...], value=[...]), or pass a function of the radius in Å"
        )
    make, allowed = _NAMED[name]
    arguments: dict[str, Any] = {}
    rest = match[2] or ""
    while rest.strip():
        argument = _ARGUMENT.match(rest)
        try:
            if argument is None or argument[1] not in allowed:
                raise ValueError
            arguments[argument[1]] = json.loads(argument[2])
            rest = rest[argument.end() :]
        except ValueError:
            takes = ", ".join(sorted(allowed)) or "no arguments"
            raise UsageError(f"cannot read psf {text[:60]!r}: {name} takes {takes}") from None
    try:
        return make(**arguments)
    except (TypeError, ValueError):
        raise UsageError(f"cannot read psf {text[:60]!r}: an argument is missing or not a number") from None


_gaussian = cache(GaussianPSF)


def as_psf(psf: str | RadialPSF | Callable[[Array], npt.ArrayLike], sigma: float = 0.5) -> RadialPSF:
    """Return the `psf` of `simulate_stem` as a `RadialPSF`; plain ``"gaussian"`` takes `sigma` (Å)."""
    if isinstance(psf, RadialPSF):
        return psf
    if isinstance(psf, str):
        return _gaussian(sigma) if psf == "gaussian" else parse_psf(psf)
    if callable(psf):
        return FunctionPSF(psf)
    raise UsageError(f"psf must be a name, a RadialPSF or a function of the radius in Å, not {psf!r}")
