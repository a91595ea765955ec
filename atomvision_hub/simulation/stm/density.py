"""The local density of states above a surface: what a tip sees, wherever it was computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform
from scipy.ndimage import shift as shift_grid

from atomvision_hub.errors import CrystalError, UsageError

if TYPE_CHECKING:
    from ase import Atoms

    from atomvision_hub.structures.volumes import Volume

Array = npt.NDArray[np.float64]
BiasReference = Literal["band_edge", "fermi"]

#: Heights that are kept of a volume, in Å above the topmost atom; no tip comes deeper.
LOWEST, HIGHEST = -1.0, 8.0
#: Vacuum (Å) without which there is no surface.
_MIN_GAP = 4.0
#: Steps (Å) in the plane on which heights are found, for at most so many points: the edges of a surface need
#: more than the grid of a calculation.
_FINE, _MOST_POINTS = 0.05, 160_000
_FLAT = 1e-6


@dataclass(frozen=True, slots=True)
class LocalDensity:
    """Local density of states, integrated over the energies that a bias opens, above the topmost atom.

    Attributes
    ----------
    values
        e/Å^3, [na, nb, nheights]: at ``origin + i / na * cell[0] + j / nb * cell[1]`` of the plane, with
        ``cell = atoms.cell[:2, :2]``, periodic, end points not repeated.
    heights
        Å above the topmost atom, ascending, (nheights,).
    atoms
        The layer: first two cell vectors in the xy plane, vacuum along +z, in one piece.
    bias
        Sample bias in V; positive integrates empty states. ``None`` where it means nothing (surrogate).
    bias_reference
        Where the window begins: at the ``"band_edge"`` or at the ``"fermi"`` level.
    window
        Lowest and highest energy, in eV from the Fermi level.
    broadening
        kT of the window's smooth edges, in eV; 0 for sharp ones.
    engine
        What computed it.
    parameters
        Its settings, plain JSON values.
    origin
        Point (x, y) of ``values[0, 0]``, in Å.
    """

    values: Array
    heights: Array
    atoms: Atoms
    bias: float | None
    bias_reference: BiasReference | None
    window: tuple[float, float] | None
    broadening: float | None
    engine: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        if self.values.ndim != 3 or self.values.shape[2] != len(self.heights) or len(self.heights) < 2:
            raise UsageError(
                f"density and heights do not fit: {self.values.shape} values for {len(self.heights)} heights"
            )
        if not (np.diff(self.heights) > 0).all():
            raise UsageError("the heights of a density must ascend")
        if self.bias_reference not in (None, *get_args(BiasReference)):
            raise UsageError(f"bias_reference must be 'band_edge' or 'fermi', not {self.bias_reference!r}")

    @classmethod
    def from_volume(
        cls,
        volume: Volume,
        *,
        bias: float,
        bias_reference: BiasReference = "fermi",
        window: tuple[float, float] | None = None,
        broadening: float = 0.0,
        engine: str = "volume",
        parameters: Mapping[str, Any] | None = None,
    ) -> LocalDensity:
        """Return what lies above the topmost atom of a volume.

        The vacuum is the widest gap between atoms along any cell vector; the layer is put together across the
        boundary of the cell, and turned by the smallest rotation that lays it into the xy plane (not at all
        when it lies there). Heights end in the middle of the vacuum, where the next layer begins.

        Parameters
        ----------
        volume
            A density in e/Å^3 that was integrated over the window, such as a PARCHG.
        bias
            Sample bias in V at which it was computed: the file does not say.
        bias_reference, window, broadening, engine, parameters
            As the attributes; the window is by default [0, bias] or [bias, 0].

        Raises
        ------
        CrystalError
            With step ``"volume"`` when it is no density or has no vacuum.
        """
        if volume.kind != "density":
            raise CrystalError(
                f"{volume.source} holds a {volume.kind}, not a density of states", step="volume"
            )
        if not math.isfinite(bias):
            raise UsageError(f"bias must be a finite number of volts, not {bias!r}")
        values, heights, atoms, origin = _above(volume)
        return cls(
            values=values,
            heights=heights,
            atoms=atoms,
            bias=float(bias),
            bias_reference=bias_reference,
            window=window or (min(0.0, float(bias)), max(0.0, float(bias))),
            broadening=broadening,
            engine=engine,
            parameters={"source": volume.source, **(parameters or {})},
            origin=origin,
        )

    def plane(self, height: float) -> Array:
        """Return the density at a height in Å, [na, nb]; log-linear between the planes of the grid."""
        heights = self.heights
        if not heights[0] - _FLAT <= height <= heights[-1] + _FLAT:
            raise UsageError(
                f"height {height:g} Å is outside this density, which reaches "
                f"from {heights[0]:.2f} to {heights[-1]:.2f} Å above the topmost atom"
            )
        above = int(np.clip(np.searchsorted(heights, height), 1, len(heights) - 1))
        share = (height - heights[above - 1]) / (heights[above] - heights[above - 1])
        if abs(share - round(share)) < 1e-9:
            return np.asarray(self.values[:, :, above - 1 + round(share)], dtype=np.float64)
        lower, upper = (np.log(positive(self.values[:, :, k])) for k in (above - 1, above))
        return np.asarray(np.exp((1 - share) * lower + share * upper))

    def surface(self, isovalue: float) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the height in Å at which the density falls to `isovalue` (e/Å^3) for good.

        The outermost crossing above the topmost atom, log-linear between planes. Where the density stays
        below `isovalue` (hollows of graphene) it is the height of greatest density, to which the crossing
        tends.

        Returns
        -------
        heights, reached
            Å above the topmost atom and whether there is a crossing, both on the grid of the density or,
            where that is coarser than 0.05 Å, on one that divides its steps.
        """
        first = max(0, int(np.searchsorted(self.heights, _FLAT)) - 1)
        heights, values = self.heights[first:], self.values[:, :, first:]
        dense = values >= isovalue
        crossed = np.flatnonzero(dense.any(axis=(0, 1)))
        if len(crossed) == 0 or crossed[-1] == len(heights) - 1:
            raise UsageError(
                f"the surface of {isovalue:.3g} e/Å^3 lies outside this density, which reaches from "
                f"{heights[0]:.2f} to {heights[-1]:.2f} Å above the topmost atom; choose another isovalue"
            )
        # Only planes near the surface count: those at which some points are dense and some are not, and a few
        # more as a spline may leave the range of its points. Hollows need all planes below.
        stop, start = min(int(crossed[-1]) + 3, len(heights)), 0
        if dense.any(axis=2).all():
            start = max(0, int((len(heights) - 1 - np.argmax(dense[:, :, ::-1], axis=2)).min()) - 2)
        surface, reached = _crossing(heights[start:stop], self._refined(values[:, :, start:stop]), isovalue)
        if start > 0 and not reached.all():
            surface, reached = _crossing(heights[:stop], self._refined(values[:, :, :stop]), isovalue)
        return surface, reached

    def _refined(self, values: Array) -> Array:
        """Return planes on a grid with steps of at most `_FINE`: periodic cubic splines, linear space."""
        cell = self.atoms.cell.array[:2, :2]
        steps = np.linalg.norm(cell, axis=1) / values.shape[:2]
        finest = max(_FINE, math.sqrt(abs(float(np.linalg.det(cell))) / _MOST_POINTS))
        factors = np.maximum(np.ceil(steps / finest - 1e-6), 1).astype(int)
        if factors.max() == 1:
            return values
        shape = tuple(int(n) for n in factors * values.shape[:2])
        planes = [
            affine_transform(plane, 1 / factors, output_shape=shape, order=3, mode="grid-wrap")
            for plane in np.moveaxis(values, 2, 0)
        ]
        return np.stack(planes, axis=2)


def _crossing(heights: Array, values: Array, isovalue: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the heights of the outermost crossings, of greatest density elsewhere, and where is which."""
    last = len(heights) - 1
    dense = values >= isovalue
    dense[:, :, last] = False
    reached = np.asarray(dense.any(axis=2))
    below = np.where(reached, last - np.argmax(dense[:, :, ::-1], axis=2), 0)
    lower, upper = _log_at(values, below), _log_at(values, below + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (lower - math.log(isovalue)) / (lower - upper)
    crossing = heights[below] + share * (heights[below + 1] - heights[below])
    if not reached.all():
        crossing = np.where(reached, crossing, _densest(heights, values))
    return np.maximum(crossing, 0.0), reached


def _densest(heights: Array, values: Array) -> Array:
    """Return the height of greatest density, [na, nb]: the vertex of a parabola through three planes."""
    best = np.argmax(values, axis=2)
    if len(heights) < 3:
        return np.asarray(heights[best])
    inner = np.clip(best, 1, len(heights) - 2)
    low, mid, high = (_log_at(values, inner + step) for step in (-1, 0, 1))
    bend = low - 2 * mid + high
    vertex = np.divide(low - high, 2 * bend, out=np.zeros_like(bend), where=bend < 0)
    step = (heights[inner + 1] - heights[inner - 1]) / 2
    return np.asarray(heights[best] + np.where(best == inner, vertex * step, 0.0))


def _log_at(values: Array, index: npt.NDArray[np.int64]) -> Array:
    """Return the logarithm of the density at one plane of every grid point, [na, nb]."""
    chosen = np.take_along_axis(values, index[:, :, None], axis=2)[:, :, 0]
    return np.asarray(np.log(positive(chosen)))


def positive(values: npt.NDArray[Any]) -> Array:
    """Return values whose logarithm exists: Fourier grids dip below zero where nearly nothing is."""
    return np.asarray(np.maximum(values, 1e-30), dtype=np.float64)


def _above(volume: Volume) -> tuple[Array, Array, Atoms, tuple[float, float]]:
    """Return values, heights, layer and origin of what lies above the topmost atom."""
    import ase

    cell = volume.atoms.cell.array
    if volume.values.ndim != 3 or len(volume.atoms) == 0 or abs(np.linalg.det(cell)) < _FLAT:
        raise CrystalError(
            f"{volume.source or 'the volume'}: a grid over a cell with atoms is needed", step="volume"
        )
    fractions = (volume.atoms.positions - volume.origin) @ np.linalg.inv(cell)
    axis, cut = _vacuum(fractions, cell, volume.source)
    order = [(1, 2, 0), (2, 0, 1), (0, 1, 2)][axis]
    turn = _into_plane(cell[order[0]], cell[order[1]])
    # Cut in the vacuum instead of through the layer; whole planes move along.
    fractions[:, axis] -= np.floor(fractions[:, axis] - cut)
    vectors, origin = cell[list(order)] @ turn, volume.origin @ turn
    positions = fractions[:, list(order)] @ vectors + origin
    values, step = np.transpose(volume.values, order), vectors[2] / volume.values.shape[axis]
    if step[2] < 0:
        values, origin, step = values[:, :, ::-1], origin + vectors[2] - step, -step
    top = positions[:, 2].max()
    gap = abs(vectors[2, 2]) - (top - positions[:, 2].min())
    first = math.ceil((top + LOWEST - origin[2]) / step[2] - _FLAT)
    last = math.floor((top + min(HIGHEST, gap / 2) - origin[2]) / step[2] + _FLAT)
    planes = np.arange(first, last + 1)
    heights = origin[2] + planes * step[2] - top
    slab = np.ascontiguousarray(values[:, :, planes % values.shape[2]], dtype=np.float64)
    if np.abs(step[:2]).max() * len(planes) > _FLAT:
        slab = _straighten(slab, planes, step[:2], vectors[:2, :2])
    height = abs(vectors[2, 2])
    layer = ase.Atoms(
        numbers=volume.atoms.numbers,
        positions=positions,
        cell=[[*vectors[0, :2], 0.0], [*vectors[1, :2], 0.0], [0.0, 0.0, height]],
        pbc=(True, True, False),
    )
    return slab, heights, layer, (float(origin[0]), float(origin[1]))


def _vacuum(fractions: Array, cell: Array, source: str) -> tuple[int, float]:
    """Return the axis of the widest gap between atoms and the fraction in its middle."""
    along = np.sort(fractions % 1.0, axis=0)
    gaps = np.diff(along, axis=0, append=along[:1] + 1.0)
    last = gaps.argmax(axis=0)
    shares = gaps.max(axis=0)
    widths = shares / np.linalg.norm(np.linalg.inv(cell), axis=0)
    axis = int(np.argmax(widths + (1e-9 * np.arange(3))))  # in doubt along c
    if widths[axis] < _MIN_GAP:
        raise CrystalError(
            f"{source}: the widest gap between atoms is {widths[axis]:.1f} Å; "
            f"a surface needs a vacuum of {_MIN_GAP:g} Å",
            step="volume",
        )
    return axis, float(along[last[axis], axis] + shares[axis] / 2 - 1.0)


def _into_plane(u: Array, v: Array) -> Array:
    """Return the matrix (for rows) of the smallest rotation that lays the plane of u and v into xy."""
    normal = np.cross(u, v)
    if np.abs(normal[:2]).max() <= _FLAT * abs(normal[2]):
        return np.eye(3)
    x, y, z = (normal / math.copysign(float(np.linalg.norm(normal)), normal[2] or 1.0)).tolist()
    w = 1.0 + z
    return np.array(((1 - x * x / w, -x * y / w, x), (-x * y / w, 1 - y * y / w, y), (-x, -y, z)))


def _straighten(slab: Array, planes: npt.NDArray[np.int64], step: Array, cell: Array) -> Array:
    """Return planes of a tilted cell as they lie above each other: periodic cubic shifts."""
    per_plane = step @ np.linalg.inv(cell) * slab.shape[:2]
    return np.stack(
        [
            shift_grid(slab[:, :, k], planes[k] * per_plane, order=3, mode="grid-wrap")
            for k in range(len(planes))
        ],
        axis=2,
    )
