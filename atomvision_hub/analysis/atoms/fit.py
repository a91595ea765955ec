"""Fit of a sum of Gaussians of one width: all peaks at once, by Gauss-Newton steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import cKDTree

from atomvision_hub.analysis.atoms.overlaps import Pairs, light_inside, moments
from atomvision_hub.analysis.atoms.pixels import Array

MERGED = 2.0  # widths; of two columns closer than this, which show one maximum, the brighter is told

_REACH = 3.0  # half side of a peak's window in widths of a column: exp(-4.5)
_STEPS = 6  # most Gauss-Newton steps of a pass
_CONVERGED = 0.15  # widths; the last pass ends when nine of ten columns moved no farther
_GROSS, _FINE = 0.05, 0.005  # relative errors of the width
_WIDTHS = (0.5, 2.5)  # smallest and largest width, relative to where the search starts
_DAMPING = 1e-2  # of the normal equations: two peaks in one place share the light
_INNER = 8  # steps of conjugate gradients for a step of the fit


class Fit:
    """Sum of Gaussians of one width on a constant background, fitted to an image by least squares.

    Each Gaussian lives in a window of `_REACH` widths, and only near ones touch: time and memory grow with
    the number of peaks, however large the image. A Gauss-Newton step moves all heights and positions; with
    ``g`` a Gaussian and ``p, q`` distances from its centre in widths, the model changes by ``g, p g, q g``,
    whose overlaps are known in closed form.
    """

    def __init__(
        self, image: npt.NDArray[np.float32], sigma: tuple[float, float], refine: bool = False
    ) -> None:
        self.image, self.sigma, self.background = image, sigma, 0.0
        self.first, self.scale, self.refine = sigma, 1.0, refine
        self.x = self.y = self.height = np.zeros(0)

    def add(self, x: Array, y: Array, height: Array) -> None:
        """Put in more peaks, at places (px) and with heights to start from."""
        self.x, self.y = np.append(self.x, x), np.append(self.y, y)
        self.height = np.append(self.height, height)

    def run(self, *, last: bool = False) -> None:
        """Fit heights, positions, background and the common width: in one step, the last pass to the end."""
        rows, columns = self.image.shape
        near: Pairs | None = None
        before = 0.0
        for _ in range(_STEPS if len(self.x) else 0):
            window = Window(self)
            error = window.cut(window.rest())
            along = np.einsum("nvu,nu->nv", error, window.profile_x)
            across = np.einsum("nvu,nv->nu", error, window.profile_y)
            raw = (
                np.einsum("nv,nv->n", along, window.profile_y),
                np.einsum("nu,nu,nu->n", across, window.profile_x, window.p),
                np.einsum("nv,nv,nv->n", along, window.profile_y, window.q),
            )
            # Peaks move little in a pass: who touches whom is looked up once.
            near = Pairs.of(self._scaled()) if near is None else near.moved(self._scaled())
            change = self._solve(np.concatenate(raw).astype(float), near)
            growth = 0.0
            if self.refine:
                # The width's own direction, without what the heights can do: h g (p² + q² - 1).
                squares = np.einsum("nu,nu,nu->n", across, window.profile_x, window.p**2)
                squares += np.einsum("nv,nv,nv->n", along, window.profile_y, window.q**2)
                mutual = near.overlap * (1 - 0.25 * (near.dx**2 + near.dy**2)) ** 2
                power = float(self.height[near.i] @ (self.height[near.j] * mutual))
                growth = float((self.height * (squares - raw[0])).sum())
                growth /= max(np.pi * self.sigma[0] * self.sigma[1] * power, 1e-12)
                # Heights follow the width and slow it down: the rest of a geometric series (Aitken 1926).
                ratio = growth / before if before else 0.0
                before = growth
                growth /= 1 - min(max(ratio, 0.0), 0.75)
                # Missing columns look like width: before the last pass only gross errors count.
                growth = float(np.clip(growth, -0.1, 0.1)) if last or abs(growth) > _GROSS else 0.0
            safe = np.maximum(self.height, 1e-6)
            self.height = np.maximum(self.height + change[0], 1e-6)
            gain_x, gain_y = np.clip(change[1] / safe, -0.3, 0.3), np.clip(change[2] / safe, -0.3, 0.3)
            # Columns outside the view, whose flank is inside, are fitted too.
            out_x, out_y = 1.5 * self.sigma[1], 1.5 * self.sigma[0]
            self.x = np.clip(self.x + self.sigma[1] * gain_x, -out_x, columns + out_x)
            self.y = np.clip(self.y + self.sigma[0] * gain_y, -out_y, rows + out_y)
            self.scale = float(np.clip(self.scale * np.exp(growth), *_WIDTHS))
            self.sigma = (self.scale * self.first[0], self.scale * self.first[1])
            # Newton's steps square the error. Peaks that will be merged may wander for long.
            alone = np.ones(len(self.x), bool)
            close = near.overlap > np.exp(-0.25 * MERGED**2)
            close[near.own] = False
            alone[near.i[close]] = False
            far = np.count_nonzero(np.maximum(np.abs(gain_x), np.abs(gain_y))[alone] > _CONVERGED)
            if not last and abs(growth) <= _GROSS:
                break
            if abs(growth) <= _FINE and far <= 0.1 * np.count_nonzero(alone):
                break

    def rest(self) -> npt.NDArray[np.float32]:
        """Return what the model leaves of the image."""
        return Window(self).rest()

    def _solve(self, gradient: Array, near: Pairs) -> Array:
        """Return the step (height; shifts in widths times height), shape (3, n), of the normal equations."""
        count, (rows, columns) = len(self.x), self.image.shape
        # Moments over the part of the image's sides where both Gaussians are: exact at the edges too.
        x0, x1, x2 = moments(self.x, near.i, near.dx, self.sigma[1], columns)
        y0, y1, y2 = moments(self.y, near.i, near.dy, self.sigma[0], rows)
        hx, xh, xx = x1 - 0.5 * near.dx * x0, x1 + 0.5 * near.dx * x0, x2 - 0.25 * near.dx**2 * x0
        hy, yh, yy = y1 - 0.5 * near.dy * y0, y1 + 0.5 * near.dy * y0, y2 - 0.25 * near.dy**2 * y0
        blocks = (x0 * y0, hx * y0, x0 * hy, xh * y0, xx * y0, xh * hy, x0 * yh, hx * yh, x0 * yy)
        # Rows of one peak have their entries in the same places: the matrix is written as it is stored.
        values = np.empty((3, len(near.i), 3))
        for k, block in enumerate(blocks):
            np.multiply(block, near.overlap, out=values[k // 3, :, k % 3])
        for k in range(3):
            values[k, near.own, k] = np.maximum(values[k, near.own, k], 1e-6) * (1 + _DAMPING)
        diagonal = np.concatenate([values[k, near.own, k] for k in range(3)])
        matrix = sparse.csr_array((values.ravel(), near.places, near.ends), shape=(3 * count, 3 * count))
        area = np.pi * self.sigma[0] * self.sigma[1]
        # The background follows the heights at once: it is eliminated, at the cost of a matrix of rank one.
        light_x, light_y = (
            light_inside(self.x, self.sigma[1], columns),
            light_inside(self.y, self.sigma[0], rows),
        )
        light = np.concatenate(
            [light_x[0] * light_y[0], light_x[1] * light_y[0], light_x[0] * light_y[1]]
        ) * (self.sigma[0] * self.sigma[1])
        # 0.98: what is approximate here must not turn the matrix indefinite.
        pull = 0.98 * light / (area * self.image.size)
        step, rest = np.zeros(3 * count), gradient / area
        search = fresh = rest / diagonal
        norm = first = float(rest @ fresh)
        for _ in range(_INNER):
            if norm <= 1e-4 * first:
                break
            image = matrix @ search - pull * float(light @ search)
            curvature = float(search @ image)
            if curvature <= 0:
                break
            length = norm / curvature
            step += length * search
            rest = rest - length * image
            fresh = rest / diagonal
            norm, old = float(rest @ fresh), norm
            search = fresh + norm / old * search
        return step.reshape(3, count)

    def drop(self, lowest: Array, apart: float) -> None:
        """Remove peaks below `lowest` and those nearer than `apart` (widths) to a brighter that stays."""
        self.keep(self.height > lowest)
        if len(self.x) < 2:
            return
        pairs = cKDTree(self._scaled()).query_pairs(apart, output_type="ndarray")
        swap = self.height[pairs[:, 0]] < self.height[pairs[:, 1]]
        pairs[swap] = pairs[swap, ::-1]
        stay = np.ones(len(self.x), bool)
        for brighter, weaker in pairs[np.argsort(-self.height[pairs[:, 0]], kind="stable")].tolist():
            if stay[brighter]:
                stay[weaker] = False
        self.keep(stay)

    def _scaled(self) -> Array:
        return np.stack([self.x / self.sigma[1], self.y / self.sigma[0]], axis=1)

    def keep(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Remove all other peaks."""
        self.x, self.y, self.height = self.x[chosen], self.y[chosen], self.height[chosen]


class Window:
    """The pixels around each peak of a fit, and the peak's profile there."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.reach = [int(np.ceil(_REACH * side)) for side in fit.sigma]
        row, column = np.rint(fit.y), np.rint(fit.x)
        v, u = (np.arange(-n, n + 1, dtype=np.float32) for n in self.reach)
        self.q = (v + (row - fit.y).astype(np.float32)[:, None]) / np.float32(fit.sigma[0])
        self.p = (u + (column - fit.x).astype(np.float32)[:, None]) / np.float32(fit.sigma[1])
        self.profile_y, self.profile_x = np.exp(-0.5 * self.q * self.q), np.exp(-0.5 * self.p * self.p)
        # The image gets a frame as wide as a window and the flight of peaks outside the view.
        self.frame = [2 * n + 2 for n in self.reach]
        self.width = fit.image.shape[1] + 2 * self.frame[1]
        corner = (row + (self.frame[0] - self.reach[0])) * self.width + column
        offsets = np.add.outer(np.arange(len(v)) * self.width, np.arange(len(u)))
        first = corner.astype(np.intp) + (self.frame[1] - self.reach[1])
        self.pixels = first[:, None, None] + offsets

    def cut(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the windows of an image, zero outside it, float32 [n, rows, columns]."""
        (top, left), (rows, columns) = self.frame, image.shape
        padded = np.zeros((rows + 2 * top, self.width), np.float32)
        padded[top : top + rows, left : left + columns] = image
        windows: npt.NDArray[np.float32] = padded.ravel()[self.pixels]
        return windows

    def rest(self) -> npt.NDArray[np.float32]:
        """Return the image without the model; sets the background to what makes its mean vanish."""
        fit, (top, left) = self.fit, self.frame
        peaks = self.profile_y[:, :, None] * self.profile_x[:, None, :]
        peaks *= np.asarray(fit.height, np.float32)[:, None, None]
        rows = fit.image.shape[0] + 2 * top
        model = np.bincount(self.pixels.ravel(), peaks.ravel(), minlength=rows * self.width)
        model = model.reshape(rows, self.width)[top : rows - top, left : self.width - left]
        rest = fit.image - model.astype(np.float32)
        fit.background = float(rest.mean())
        return np.asarray(rest - np.float32(fit.background))
