"""Columns that describe a material, shared by every dataset made from crystals."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt

from atomvision_hub.records import Column, Record

#: The five two-dimensional Bravais lattices in the order of their integer labels (the paper's order; its
#: "rhombus" and "parallelogram" are the last two).
LATTICES: tuple[str, ...] = ("hexagonal", "square", "rectangular", "centered_rectangular", "oblique")


class MaterialColumns(Record):
    """Identity, provenance and lattice labels of a material."""

    material_id: Annotated[
        str, Column("string", "Identifier of the material, joins the configs and datasets")
    ]
    formula: Annotated[str, Column("string", "Reduced chemical formula; compositions never cross splits")]
    prototype: Annotated[
        str,
        Column(
            "string",
            "Structure prototype: anonymous formula, layer group, sizes of the sets of equivalent atoms",
        ),
    ]
    source: Annotated[str, Column("string", "Where the structure comes from")]
    source_id: Annotated[str, Column("string", "Identifier of the structure at its source")]
    lattice: Annotated[
        int, Column("class_label", "Bravais lattice of the crystal's translations", names=LATTICES)
    ]
    lattice_legacy: Annotated[
        int,
        Column("class_label", "Label by the rounded cell lengths, as in AtomVision (2023)", names=LATTICES),
    ]
    lattice_projected: Annotated[
        int,
        Column(
            "class_label", "Bravais lattice of the projected atom columns, all an image shows", names=LATTICES
        ),
    ]
    lattice_margin: Annotated[
        float, Column("float32", "Smallest change of the lattice vectors that changes `lattice`", "Å")
    ]
    lattice_projected_margin: Annotated[
        float,
        Column("float32", "Smallest change of the lattice vectors that changes `lattice_projected`", "Å"),
    ]
    a: Annotated[float, Column("float32", "Shorter edge of the conventional cell of `lattice`", "Å")]
    b: Annotated[float, Column("float32", "Longer edge of the conventional cell of `lattice`", "Å")]
    gamma: Annotated[
        float, Column("float32", "Angle of the conventional cell of `lattice`, at least 90", "degree")
    ]
    projected_a: Annotated[
        float, Column("float32", "Shorter edge of the conventional cell of `lattice_projected`", "Å")
    ]
    projected_b: Annotated[
        float, Column("float32", "Longer edge of the conventional cell of `lattice_projected`", "Å")
    ]
    projected_gamma: Annotated[
        float,
        Column("float32", "Angle of the conventional cell of `lattice_projected`, at least 90", "degree"),
    ]


class StructureRow(MaterialColumns):
    """One crystal, without an image: the `structures` config, for rendering on the fly."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    cell: Annotated[
        npt.NDArray[np.float64],
        Column("float64", "Lattice vectors as rows, vacuum along z", "Å", shape=(3, 3)),
    ]
    numbers: Annotated[npt.NDArray[np.uint8], Column("uint8", "Atomic numbers", shape=(None,))]
    positions: Annotated[
        npt.NDArray[np.float64], Column("float64", "Cartesian positions", "Å", shape=(None, 3))
    ]
