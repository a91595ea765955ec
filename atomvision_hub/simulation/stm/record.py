"""The row of a simulated STM image."""

from __future__ import annotations

from typing import Annotated, get_args

import numpy as np
import numpy.typing as npt

from atomvision_hub.records import Column
from atomvision_hub.simulation.stm.imaging import Mode
from atomvision_hub.structures.record import MaterialColumns

#: Modes in the order of their integers.
MODES: tuple[str, ...] = get_args(Mode)


class StmRow(MaterialColumns):
    """One simulated STM image with everything needed to make it again; joins `stem2d` by `material_id`."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "Simulated image, grey levels; row 0 at the top")]
    intensity_scale: Annotated[
        float, Column("float64", "Value = intensity_offset + intensity_scale * grey level, in `unit`")
    ]
    intensity_offset: Annotated[float, Column("float64", "Value of grey level 0, in `unit`")]
    unit: Annotated[
        str,
        Column("string", "Unit of the values: e/Å^3 (local density of states) or Å (height above top atom)"),
    ]
    mode: Annotated[int, Column("class_label", "What the tip kept constant", names=MODES)]
    bias: Annotated[
        float | None,
        Column(
            "float64", "Sample bias; positive images empty states; none for surrogates", "V", nullable=True
        ),
    ]
    bias_reference: Annotated[
        str | None,
        Column("string", "Where the energy window begins: band_edge or fermi", nullable=True),
    ]
    window_low: Annotated[
        float | None,
        Column("float64", "Lower end of the energy window, from the Fermi level", "eV", nullable=True),
    ]
    window_high: Annotated[
        float | None,
        Column("float64", "Upper end of the energy window, from the Fermi level", "eV", nullable=True),
    ]
    broadening: Annotated[
        float | None,
        Column("float64", "kT of the window's smooth edges; 0 for sharp ones", "eV", nullable=True),
    ]
    height: Annotated[
        float | None,
        Column(
            "float64",
            "Height above the topmost atom: of the plane, or of the plane whose mean is `isovalue`",
            "Å",
            nullable=True,
        ),
    ]
    isovalue: Annotated[
        float | None,
        Column("float64", "Density of the surface that constant current follows", "e/Å^3", nullable=True),
    ]
    unreached: Annotated[
        float,
        Column("float64", "Share without any height of that density; shows the height of greatest density"),
    ]
    pixel_size: Annotated[
        npt.NDArray[np.float64], Column("float64", "Pixel size along rows (y) and columns (x)", "Å/px", (2,))
    ]
    rotation: Annotated[float, Column("float64", "Rotation of the crystal from x towards y", "degree")]
    shift: Annotated[
        npt.NDArray[np.float64], Column("float64", "Shift of the crystal along x and y", "Å", (2,))
    ]
    interpolation: Annotated[str, Column("string", "How values between the points of the volume were found")]
    engine: Annotated[str, Column("string", "What computed the density of states")]
    engine_parameters: Annotated[str, Column("string", "Settings of the engine, as JSON")]
    surrogate: Annotated[
        bool, Column("bool", "True for s orbitals without electronic structure, false for computed states")
    ]
