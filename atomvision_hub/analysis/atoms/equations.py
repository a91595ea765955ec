"""Normal equations of a sum of Gaussians on a constant background, and their solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from atomvision_hub.analysis.atoms.overlaps import Pairs, light_inside, moments
from atomvision_hub.analysis.atoms.pixels import Array

_DAMPING = 1e-2  # of the normal equations: two peaks in one place share the light
_INNER = 8  # steps of conjugate gradients


@dataclass(frozen=True)
class Equations:
    """What a small change of every height and position does to the model, on the whole image.

    Unknowns are, for all peaks, the change of the height, then the shifts along x and along y, in widths and
    times the height; everything is in units of ``pi sigma_x sigma_y``, the square of a peak of height 1.

    Attributes
    ----------
    matrix
        Overlaps of these changes, shape (3 n, 3 n).
    diagonal
        Of the matrix.
    light
        Sums of the changes over the image.
    pull
        The same over the number of pixels: the background follows the peaks at once, so it is eliminated, at
        the cost of a matrix of rank one.
    near
        Which peaks touch.
    """

    matrix: sparse.csr_array
    diagonal: Array
    light: Array
    pull: Array
    near: Pairs

    @classmethod
    def of(
        cls, x: Array, y: Array, sigma: tuple[float, float], shape: tuple[int, int], near: Pairs
    ) -> Equations:
        """Set up the equations for peaks at places (px) in an image of (rows, columns)."""
        count, (rows, columns) = len(x), shape
        # Moments over the part of the image's sides where both Gaussians are: exact at the edges too.
        x0, x1, x2 = moments(near.middle_x, sigma[1], columns)
        y0, y1, y2 = moments(near.middle_y, sigma[0], rows)
        a, b = 0.5 * near.dx, 0.5 * near.dy
        ax, by = a * x0, b * y0
        hx, xh, xx = x1 - ax, x1 + ax, x2 - a * ax
        hy, yh, yy = (one * near.overlap for one in (y1 - by, y1 + by, y2 - b * by))
        y0 *= near.overlap
        pairs = ((x0, y0), (hx, y0), (x0, hy), (xh, y0), (xx, y0), (xh, hy), (x0, yh), (hx, yh), (x0, yy))
        # Rows of one peak have their entries in the same places: the matrix is written as it is stored.
        values = np.empty((3, len(near.i), 3))
        for k, (of_x, of_y) in enumerate(pairs):
            np.multiply(of_x, of_y, out=values[k // 3, :, k % 3])
        for k in range(3):
            values[k, near.own, k] = np.maximum(values[k, near.own, k], 1e-6) * (1 + _DAMPING)
        diagonal = np.concatenate([values[k, near.own, k] for k in range(3)])
        matrix = sparse.csr_array((values.ravel(), near.places, near.ends), shape=(3 * count, 3 * count))
        light_x, light_y = light_inside(x, sigma[1], columns), light_inside(y, sigma[0], rows)
        light = np.concatenate(
            [light_x[0] * light_y[0], light_x[1] * light_y[0], light_x[0] * light_y[1]]
        ) * (sigma[0] * sigma[1])
        # 0.98: what is approximate here must not turn the matrix indefinite.
        pull = 0.98 * light / (np.pi * sigma[0] * sigma[1] * (rows * columns))
        return cls(matrix, diagonal, light, pull, near)

    def solve(self, gradient: Array) -> Array:
        """Return the change of the unknowns that a gradient asks for."""
        return _conjugate_gradients(self._times, self.diagonal, gradient)

    def solve_with_width(self, gradient: Array, widening: float, height: Array) -> tuple[Array, float]:
        """Return the change of the unknowns and the relative growth of the common width.

        Parameters
        ----------
        gradient
            As of `solve`.
        widening
            Gradient of the width's own direction ``h g (p² + q² - 1)``, summed over the peaks.
        height
            Of the peaks.
        """
        near, count = self.near, len(height)
        # Overlaps of that direction with the others and with itself, in closed form: exact in the middle of
        # the image, and nearly so at its edges.
        a, b = 0.5 * near.dx, 0.5 * near.dy
        square = a * a + b * b
        reached = height[near.j] * near.overlap
        mixed = [square, a * (square - 1), b * (square - 1)]
        across = np.concatenate([np.bincount(near.i, reached * one, minlength=count) for one in mixed])
        light = float(height @ self.light[:count])
        across -= self.pull * light
        own = float(height[near.i] @ (reached * (1 - square) ** 2)) - light * float(
            height @ self.pull[:count]
        )
        own = max(own, 1e-12)

        def times(vector: Array) -> Array:
            most, width = vector[:-1], float(vector[-1])
            return np.append(self._times(most) + across * width, float(across @ most) + own * width)

        step = _conjugate_gradients(times, np.append(self.diagonal, own), np.append(gradient, widening))
        return step[:-1], float(step[-1])

    def _times(self, vector: Array) -> Array:
        return np.asarray(self.matrix @ vector - self.pull * float(self.light @ vector))


def _conjugate_gradients(times: Callable[[Array], Array], diagonal: Array, wanted: Array) -> Array:
    """Solve a few steps' worth of equations whose matrix only `times` knows, preconditioned by `diagonal`."""
    step, rest = np.zeros(len(wanted)), wanted
    search = rest / diagonal
    norm = first = float(rest @ search)
    for _ in range(_INNER):
        if norm <= 1e-4 * first:
            break
        image = times(search)
        curvature = float(search @ image)
        if curvature <= 0:
            break
        length = norm / curvature
        step += length * search
        image *= length
        rest = rest - image
        fresh = rest / diagonal
        norm, old = float(rest @ fresh), norm
        search *= norm / old
        search += fresh
    return step
