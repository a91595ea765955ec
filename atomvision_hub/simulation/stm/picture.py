"""A picture of crystals as both microscopes see them: STM at either bias beside STEM, one field of view."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from atomvision_hub.errors import UsageError
from atomvision_hub.simulation.stem import simulate_stem
from atomvision_hub.simulation.stm.density import LocalDensity
from atomvision_hub.simulation.stm.imaging import Mode, simulate_stm

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes

_PIXEL_SIZE = 0.05  # Å/px: finer than the page


def stm_and_stem_picture(
    crystals: Mapping[str, Atoms],
    *,
    bias: float = 0.5,
    mode: Mode = "constant_height",
    field_of_view: float = 20.0,
    rotation: float = 0.0,
    surrogate: bool = False,
    engine_options: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a PNG: a row for each crystal, with STM at +bias, STM at -bias, and STEM.

    Beside figure 3 of K. Choudhary et al., J. Chem. Inf. Model. 2023, doi 10.1021/acs.jcim.2c01533. All
    images of a row show the same part of the crystal, so that they can be laid over each other.

    Parameters
    ----------
    crystals
        Layers by name.
    bias
        Magnitude of the sample bias in V.
    mode
        What the tip keeps constant.
    field_of_view
        Side of the images in Å.
    rotation
        Turn of the crystals in degrees.
    surrogate
        Use s orbitals instead of computed densities; said in the picture.
    engine_options
        Further arguments of `stm_library.local_densities`: `recipe`, `cache`.

    Raises
    ------
    UsageError
        When there is no crystal or the field of view is not positive.
    MissingExtraError
        When a density neither comes with the package nor can be computed.
    """
    from matplotlib.figure import Figure

    if not crystals:
        raise UsageError("no crystal to show; name one, such as MoS2")
    if not (math.isfinite(field_of_view) and 1 <= field_of_view <= 200) or bias == 0:
        raise UsageError("field_of_view is a length from 1 to 200 Å, bias a voltage other than 0")
    pixels = round(field_of_view / _PIXEL_SIZE)
    view: dict[str, Any] = {"shape": (pixels, pixels), "pixel_size": _PIXEL_SIZE, "rotation": rotation}
    figure = Figure(figsize=(8.6, 2.8 * len(crystals) + 0.45), layout="constrained")
    grid = figure.subplots(len(crystals), 3, squeeze=False)
    for axes, (name, atoms) in zip(grid, crystals.items(), strict=True):
        source = _densities(atoms, abs(bias), surrogate, engine_options or {})
        for place, density in zip(axes[:2], source, strict=True):
            frame = simulate_stm(density, mode=mode, **view)
            _show(place, frame.image, "afmhot", field_of_view)
        # The crystal of the density, so that all three images show one piece of it.
        stem = simulate_stem(source[0].atoms, **view)
        _show(axes[2], stem.image, "gray", field_of_view)
        axes[0].set_ylabel(name, fontsize=12)
    sign = "s orbitals, no bias" if surrogate else f"{abs(bias):g} V"
    titles = (
        ("STM, " + sign, "STM, " + sign) if surrogate else (f"STM, +{sign}", f"STM, \N{MINUS SIGN}{sign}")
    )
    for place, title in zip(grid[0], (*titles, "STEM"), strict=True):
        place.set_title(title, fontsize=11)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _densities(
    atoms: Atoms, bias: float, surrogate: bool, options: Mapping[str, Any]
) -> tuple[LocalDensity, LocalDensity]:
    if surrogate:
        from atomvision_hub.simulation.stm.surrogate import surrogate_density

        density = surrogate_density(atoms)
        return density, density
    from atomvision_hub.simulation.stm_library import local_densities

    empty, filled = local_densities(atoms, [bias, -bias], **options)
    return empty, filled


def _show(place: Axes, image: Any, colours: str, field_of_view: float) -> None:
    """Draw one image with its scale bar: a round length near a quarter of the view."""
    from matplotlib.patches import Rectangle

    low, high = np.percentile(image, (0.5, 99.5))
    place.imshow(image, cmap=colours, vmin=low, vmax=max(high, low + 1e-30), interpolation="antialiased")
    place.set(xticks=[], yticks=[])
    length = _round_length(field_of_view / 4)
    rows, columns = image.shape
    bar, left, top = length / field_of_view * columns, 0.04 * columns, 0.86 * rows
    pad = 0.02 * columns
    box = Rectangle((left, top), bar + 2 * pad, 0.11 * rows, color="black", alpha=0.65, lw=0)
    line = Rectangle((left + pad, top + 0.078 * rows), bar, 0.016 * rows, color="white", lw=0)
    place.add_patch(box)
    place.add_patch(line)
    place.text(
        left + pad + bar / 2, top + 0.066 * rows, f"{length:g} Å", color="white", ha="center", fontsize=8
    )


def _round_length(length: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= length * 1.001)
