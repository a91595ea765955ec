"""Two-dimensional Bravais lattices: reduction, distance to each class, and the class with its margin.

The four shortest primitive vectors of a plane lattice (u, v, u + v, u - v for a reduced obtuse basis u, v)
tell its class. With their lengths l1 <= l2 <= l3 <= l4:

* rectangular: u is orthogonal to v, that is l3 = l4;
* centred rectangular: l1 = l2 or l2 = l3 (a rhombic basis);
* square: l1 = l2 and l3 = l4; hexagonal: l1 = l2 = l3.

How far a lattice is from a class is measured by the smallest change |du| + |dv| of its reduced basis that
leads there: a rhombus whose edges differ by 0.02 Å is 0.02 Å from centred rectangular. Where no closed form
is known (square, hexagonal) the distance is a lower bound. All distances change by at most |du| + |dv| when
the basis does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomvision_hub.structures.record import LATTICES

HEXAGONAL, SQUARE, RECTANGULAR, CENTERED, OBLIQUE = range(5)


@dataclass(frozen=True, slots=True)
class Lattice2D:
    """A plane lattice.

    Parameters
    ----------
    a, b
        Edges of the conventional cell in Å, a <= b.
    gamma
        Angle of the conventional cell in degrees, at least 90.
    reduced
        Two shortest vectors of the lattice as rows, in Å, at an angle of 90 to 120 degrees. Array of shape
        (2, 2).
    """

    a: float
    b: float
    gamma: float
    reduced: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BravaisFit:
    """Class of a plane lattice, see `bravais_class`."""

    label: int
    margin: float
    distances: tuple[float, float, float, float]
    cell: Lattice2D

    @property
    def alternatives(self) -> tuple[tuple[str, float], ...]:
        """The other classes with their distances in Å, nearest first; oblique is never far."""
        others = [(LATTICES[k], d) for k, d in enumerate((*self.distances, 0.0)) if k != self.label]
        return tuple(sorted(others, key=lambda entry: entry[1]))


def reduce_basis(vectors: npt.ArrayLike) -> tuple[float, float, float, float]:
    """Return the two shortest vectors (ux, uy, vx, vy) of a lattice, at an angle of 90 to 120 degrees.

    Lagrange-Gauss reduction of the rows of a (2, 2) array, in plain floats: faster than arrays of this size.
    """
    (ux, uy), (vx, vy) = np.asarray(vectors, dtype=float).tolist()
    uu, vv = ux * ux + uy * uy, vx * vx + vy * vy
    while True:
        if vv < uu:
            ux, uy, uu, vx, vy, vv = vx, vy, vv, ux, uy, uu
        steps = round((ux * vx + uy * vy) / uu)
        # A tie (dot = uu / 2) must not go round for ever by rounding.
        shorter = (vx - steps * ux) ** 2 + (vy - steps * uy) ** 2
        if steps == 0 or shorter >= vv * (1 - 1e-12):
            break
        vx, vy, vv = vx - steps * ux, vy - steps * uy, shorter
    if ux * vx + uy * vy > 0:
        vx, vy = -vx, -vy
    return ux, uy, vx, vy


def bravais_class(vectors: npt.ArrayLike, tolerance: float = 0.05) -> BravaisFit:
    """Return the Bravais class of a plane lattice.

    The most symmetric class whose distance is within `tolerance` wins; between equally symmetric ones the
    nearer.

    Parameters
    ----------
    vectors
        Lattice vectors as rows in Å, shape (2, 2); any basis.
    tolerance
        Largest distance from a class, in Å, that is forgiven.

    Returns
    -------
    BravaisFit
        Its `margin` is a lower bound: no change of the reduced vectors with |du| + |dv| below it changes the
        class.
    """
    ux, uy, vx, vy = reduce_basis(vectors)
    uu, vv, uv = ux * ux + uy * uy, vx * vx + vy * vy, ux * vx + uy * vy
    u, v, w = math.sqrt(uu), math.sqrt(vv), math.sqrt(uu + vv + 2 * uv)
    right = -uv / v  # from the tip of u to the line that is orthogonal to v
    distances = (w - u, max(right, v - u), right, min(v - u, w - v))
    label = OBLIQUE
    for pair in ((HEXAGONAL, SQUARE), (RECTANGULAR, CENTERED)):
        nearest = min(pair, key=distances.__getitem__)
        if distances[nearest] <= tolerance:
            label = nearest
            break
    return BravaisFit(
        label,
        _margin(label, distances, tolerance),
        distances,
        _conventional(label, (ux, uy), (vx, vy), v - u < w - v),
    )


def _margin(label: int, distances: tuple[float, ...], tolerance: float) -> float:
    # No distance changes by more than the vectors do, so the class stays while the chosen distance stays
    # within the tolerance, those of more symmetric classes beyond it, and those of equally symmetric ones
    # above it.
    if label == OBLIQUE:
        return min(distances) - tolerance
    slack = [tolerance - distances[label]]
    equal = {HEXAGONAL: SQUARE, SQUARE: HEXAGONAL, RECTANGULAR: CENTERED, CENTERED: RECTANGULAR}[label]
    slack.append(max((distances[equal] - distances[label]) / 2, distances[equal] - tolerance))
    if label in (RECTANGULAR, CENTERED):
        slack += [distances[HEXAGONAL] - tolerance, distances[SQUARE] - tolerance]
    return max(0.0, min(slack))


def _conventional(
    label: int, u: tuple[float, float], v: tuple[float, float], rhombus_of_shortest: bool
) -> Lattice2D:
    reduced = np.array((u, v))
    p, q = u, v
    if label == CENTERED:
        if rhombus_of_shortest:
            p, q = (u[0] + v[0], u[1] + v[1]), (u[0] - v[0], u[1] - v[1])
        else:
            q = (u[0] + 2 * v[0], u[1] + 2 * v[1])
    a, b = math.hypot(*p), math.hypot(*q)
    cosine = -abs(p[0] * q[0] + p[1] * q[1]) / (a * b)
    return Lattice2D(min(a, b), max(a, b), math.degrees(math.acos(max(-1.0, cosine))), reduced)
