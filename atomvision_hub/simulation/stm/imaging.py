"""Scanning tunnelling microscope images in the approximation of Tersoff and Hamann."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.arguments import finite, image_shape, pair, pixel_sizes
from atomvision_hub.simulation.projection import pose
from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity
from atomvision_hub.simulation.stm.surrogate import ENGINE, surrogate_density

if TYPE_CHECKING:
    from ase import Atoms

Mode = Literal["constant_height", "constant_current"]
INTERPOLATION = "plane: periodic cubic spline; height: log-linear"
#: Unit of the images by mode.
UNITS: dict[Mode, str] = {"constant_height": "e/Å^3", "constant_current": "Å"}


@dataclass(frozen=True, slots=True)
class StmFrame:
    """A simulated image with its calibration and all that was chosen to make it.

    Attributes
    ----------
    image
        float32 [row, column], row 0 at the top. Constant height: local density of states in e/Å^3. Constant
        current: height of the tip in Å above the topmost atom.
    pixel_size
        Å per pixel along (rows, columns).
    mode
        ``"constant_height"`` or ``"constant_current"``.
    height
        Å above the topmost atom, of the plane shown or of the plane whose mean is `isovalue`; ``None`` where
        `isovalue` was given.
    isovalue
        Density of the surface shown, in e/Å^3; ``None`` at constant height.
    unreached
        Share of the surface where no height has the density `isovalue` (hollows of graphene); it shows the
        height of greatest density.
    rotation
        Turn of the crystal from +x towards +y, in degrees.
    shift
        Shift of the crystal (x, y), in Å.
    density
        What was imaged: bias, window, engine.
    """

    image: npt.NDArray[np.float32]
    pixel_size: tuple[float, float]
    mode: Mode
    height: float | None
    isovalue: float | None
    unreached: float
    rotation: float
    shift: tuple[float, float]
    density: LocalDensity

    @property
    def bias(self) -> float | None:
        """Sample bias in V; ``None`` for the surrogate."""
        return self.density.bias

    @property
    def bias_reference(self) -> BiasReference | None:
        """Where the window of energies begins; ``None`` for the surrogate."""
        return self.density.bias_reference

    @property
    def window(self) -> tuple[float, float] | None:
        """Lowest and highest energy in eV from the Fermi level; ``None`` for the surrogate."""
        return self.density.window

    @property
    def engine(self) -> str:
        """What computed the density."""
        return self.density.engine

    @property
    def interpolation(self) -> str:
        """How values between the points of the density's grid were found."""
        return INTERPOLATION

    @property
    def unit(self) -> str:
        """Unit of the image."""
        return UNITS[self.mode]

    def parameters(self) -> dict[str, Any]:
        """Return the columns of an `StmRow` that say how the image was made, by name."""
        density = self.density
        low, high = density.window or (None, None)
        return {
            "mode": get_args(Mode).index(self.mode),
            "unit": self.unit,
            "bias": density.bias,
            "bias_reference": density.bias_reference,
            "window_low": low,
            "window_high": high,
            "broadening": density.broadening,
            "height": self.height,
            "isovalue": self.isovalue,
            "unreached": self.unreached,
            "pixel_size": np.array(self.pixel_size),
            "rotation": self.rotation,
            "shift": np.array(self.shift),
            "interpolation": self.interpolation,
            "engine": density.engine,
            "engine_parameters": json.dumps(dict(density.parameters), sort_keys=True, ensure_ascii=False),
            "surrogate": density.engine == ENGINE,
        }


def simulate_stm(
    source: LocalDensity | Atoms,
    *,
    bias: float | None = None,
    mode: Mode = "constant_height",
    height: float = 2.0,
    isovalue: float | None = None,
    shape: tuple[int, int] = (256, 256),
    pixel_size: float | Sequence[float] | npt.NDArray[np.float64] = 0.1,
    rotation: float = 0.0,
    shift: Sequence[float] | npt.NDArray[np.float64] = (0.0, 0.0),
    surrogate: bool = False,
    engine: str | None = None,
    bias_reference: BiasReference | None = None,
    engine_options: Mapping[str, Any] | None = None,
) -> StmFrame:
    """Simulate an STM image: the density of states where an s-wave tip would be.

    Image and crystal meet as in `simulate_stem`: the centre of the image shows the Cartesian origin, moved by
    `shift`, so that both images of one crystal fit pixel by pixel.

    Parameters
    ----------
    source
        A local density of states, or a crystal whose density `engine` then gives.
    bias
        Sample bias in V; positive images empty states. A density brings its own.
    mode
        ``"constant_height"`` shows the density in a plane, ``"constant_current"`` the height of the outermost
        surface of constant density.
    height
        Å above the topmost atom: of the plane, or of the plane whose mean density is the isovalue.
    isovalue
        Density of the surface in e/Å^3, in place of `height`.
    shape
        Rows and columns.
    pixel_size
        Å per pixel, one number or (row, column).
    rotation
        Turn of the crystal about the image centre in degrees, from +x (columns) towards +y (rows, downwards).
    shift
        Shift (x, y) of the crystal after the turn, in Å.
    surrogate
        The same as ``engine="surrogate"``.
    engine
        For a crystal: ``"gpaw"``, a density of states that comes with the package or is computed now (needs
        the extra ``[stm]``), or ``"surrogate"``, s orbitals without a bias.
    bias_reference
        Where GPAW's window of energies begins: by default at the ``"band_edge"`` when there is a gap;
        ``"fermi"`` always at the Fermi level.
    engine_options
        Further arguments of `stm_library.local_densities`: `recipe`, `cache`.

    Raises
    ------
    UsageError
        When an argument makes no sense, or a crystal comes without an engine.

    References
    ----------
    J. Tersoff and D. R. Hamann, Phys. Rev. Lett. 50, 1998 (1983), doi 10.1103/PhysRevLett.50.1998, eq. 5;
    Phys. Rev. B 31, 805 (1985), doi 10.1103/PhysRevB.31.805.
    """
    rows, columns = image_shape(shape)
    size = pixel_sizes(pixel_size)
    place = pair("shift", shift, "Å (x, y)")
    if mode not in get_args(Mode):
        raise UsageError(f"mode must be 'constant_height' or 'constant_current', not {mode!r}")
    if isovalue is not None and (mode == "constant_height" or not (finite(isovalue) and isovalue > 0)):
        raise UsageError(f"isovalue is a positive density in e/Å^3 for constant_current, not {isovalue!r}")
    for name, value in (("rotation", rotation), ("height", height)):
        if not finite(value):
            raise UsageError(f"{name} must be a finite number, not {value!r}")
    engine = ENGINE if surrogate else engine
    density = _density(source, bias, engine, bias_reference, engine_options or {})
    level, unreached = None, 0.0
    if mode == "constant_height":
        grid = density.plane(height)
    else:
        level = float(density.plane(height).mean()) if isovalue is None else float(isovalue)
        grid, reached = density.surface(level)
        unreached = float(1 - reached.mean())
    image = _on_pixels(grid, density, (rows, columns), size, float(rotation), place)
    np.maximum(image, 0, out=image)  # neither is ever below zero, but splines overshoot
    return StmFrame(
        image=image,
        pixel_size=size,
        mode=mode,
        height=float(height) if isovalue is None else None,
        isovalue=level,
        unreached=unreached,
        rotation=float(rotation),
        shift=place,
        density=density,
    )


def _density(
    source: LocalDensity | Atoms,
    bias: float | None,
    engine: str | None,
    reference: BiasReference | None,
    options: Mapping[str, Any],
) -> LocalDensity:
    """Return the density that is imaged."""
    if bias is not None and not finite(bias):
        raise UsageError(f"bias must be a finite number of volts, not {bias!r}")
    if isinstance(source, LocalDensity):
        for name, asked, given in (
            ("engine", engine, source.engine),
            ("bias (V)", bias, source.bias),
            ("bias_reference", reference, source.bias_reference),
        ):
            if asked is not None and asked != given:
                raise UsageError(
                    f"the density has {name} {given}, not {asked}; give a crystal to compute another"
                )
        return source
    if engine == ENGINE:
        return surrogate_density(source)
    if engine == "gpaw":
        from atomvision_hub.simulation.stm_library import local_densities

        if bias is None:
            raise UsageError("the GPAW engine needs a bias in V; positive images empty states")
        return local_densities(source, [bias], reference or "band_edge", **options)[0]
    if engine is not None:
        raise UsageError(f"engine must be 'gpaw' or 'surrogate', not {engine!r}")
    raise UsageError(
        "a crystal has no density of states of its own: pass a LocalDensity, engine='gpaw' (for most crystals"
        " pip install 'atomvision-hub[stm]'), or surrogate=True for s orbitals without electronic structure"
    )


def _on_pixels(
    grid: npt.NDArray[np.float64],
    density: LocalDensity,
    shape: tuple[int, int],
    size: tuple[float, float],
    rotation: float,
    shift: tuple[float, float],
) -> npt.NDArray[np.float32]:
    """Return a periodic grid over the cell at the centres of all pixels, by cubic splines."""
    place = pose(shape, size, rotation, shift)
    # Pixel (x, y) -> point -> grid index (i, j): one affine map.
    to_grid = np.linalg.inv(density.atoms.cell.array[:2, :2]) * grid.shape
    matrix = np.linalg.inv(place.matrix) @ to_grid
    start = -place.origin @ matrix - np.asarray(density.origin) @ to_grid
    # From here on pixels are (row, column).
    image = affine_transform(
        grid, matrix[::-1].T, offset=start, output_shape=shape, order=3, mode="grid-wrap", output=np.float64
    )
    return np.asarray(image, dtype=np.float32)
