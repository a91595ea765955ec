"""The row of a simulated STEM image."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt

from atomvision_hub.records import Column, Record
from atomvision_hub.structures.defects import KINDS
from atomvision_hub.structures.record import MaterialColumns


class AtomColumns(Record):
    """Atoms whose disk touches the image, one entry an atom."""

    x: Annotated[
        npt.NDArray[np.float32],
        Column("float32", "Column coordinate; pixel centres are integers", "px", (None,)),
    ]
    y: Annotated[
        npt.NDArray[np.float32],
        Column("float32", "Row coordinate; pixel centres are integers", "px", (None,)),
    ]
    z: Annotated[npt.NDArray[np.float32], Column("float32", "Height along the beam", "Å", (None,))]
    number: Annotated[npt.NDArray[np.uint8], Column("uint8", "Atomic number", shape=(None,))]
    index: Annotated[
        npt.NDArray[np.int32], Column("int32", "Index of the atom in the crystal's cell", shape=(None,))
    ]
    column: Annotated[
        npt.NDArray[np.int32], Column("int32", "Atoms with equal values overlap in projection", shape=(None,))
    ]
    visible: Annotated[
        npt.NDArray[np.bool_], Column("bool", "Whether the centre lies inside the image", shape=(None,))
    ]


class StemRow(MaterialColumns):
    """One simulated STEM image with its targets and everything needed to render it again."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "Simulated image, grey levels; row 0 at the top")]
    intensity_scale: Annotated[
        float, Column("float64", "Intensity = intensity_offset + intensity_scale * grey level", "Z^n/Å²")
    ]
    intensity_offset: Annotated[float, Column("float64", "Intensity of grey level 0", "Z^n/Å²")]
    mask: Annotated[
        bytes, Column("image", "255 where a pixel centre is within mask_radius of an atom, else 0")
    ]
    mask_radius: Annotated[float, Column("float32", "Radius of the disks of the mask", "Å")]
    atoms: AtomColumns
    pixel_size: Annotated[
        npt.NDArray[np.float64], Column("float64", "Pixel size along rows (y) and columns (x)", "Å/px", (2,))
    ]
    rotation: Annotated[float, Column("float64", "Rotation of the crystal from x towards y", "degree")]
    shift: Annotated[
        npt.NDArray[np.float64], Column("float64", "Shift of the crystal along x and y", "Å", (2,))
    ]
    z_exponent: Annotated[float, Column("float64", "Exponent n of the atomic number")]
    psf: Annotated[str, Column("string", "Point-spread function with its parameters")]


class RecordedStemRow(StemRow):
    """One STEM image as a detector records it; mask and atoms moved along with what it shows."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "Recorded image, grey levels; row 0 at the top")]
    intensity_scale: Annotated[
        float,
        Column("float64", "Recorded value = intensity_offset + intensity_scale * grey level, in `unit`"),
    ]
    intensity_offset: Annotated[float, Column("float64", "Recorded value of grey level 0, in `unit`")]
    unit: Annotated[
        str,
        Column(
            "string",
            "Of the recorded values: Z^n/Å² without a dose, electrons/px, or counts/px of a detector",
        ),
    ]
    acquisition: Annotated[
        str,
        Column(
            "string",
            "What made the recorded image from the ideal one, JSON: seed, steps with their parameters, and "
            "notes on what the steps chose",
        ),
    ]


class PairedStemRow(StemRow):
    """One crystal in one pose by two simulators: convolution (`image`) and multislice."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "Convolution approximation, grey levels; row 0 at the top")]
    multislice_image: Annotated[
        bytes, Column("image", "Multislice with frozen phonons, grey levels, same pose and pixels")
    ]
    multislice_scale: Annotated[
        float,
        Column("float64", "Share of the beam = multislice_offset + multislice_scale * grey level"),
    ]
    multislice_offset: Annotated[float, Column("float64", "Share of the beam of grey level 0")]
    multislice: Annotated[
        str,
        Column(
            "string",
            "What made the multislice image, JSON: engine, microscope (kV, mrad, Å), source size, thermal "
            "displacement, accuracy, statistical error",
        ),
    ]


class DefectColumns(Record):
    """Point defects in view and as far outside as they matter for the image, one entry a defect."""

    kind: Annotated[
        npt.NDArray[np.int64], Column("class_label", "Kind of the defect", shape=(None,), names=KINDS)
    ]
    x: Annotated[
        npt.NDArray[np.float32],
        Column("float32", "Column coordinate of the site; pixel centres are integers", "px", (None,)),
    ]
    y: Annotated[
        npt.NDArray[np.float32],
        Column("float32", "Row coordinate of the site; pixel centres are integers", "px", (None,)),
    ]
    z: Annotated[npt.NDArray[np.float32], Column("float32", "Height along the beam", "Å", (None,))]
    before: Annotated[
        npt.NDArray[np.uint8], Column("uint8", "Atomic number in the pristine crystal", shape=(None,))
    ]
    after: Annotated[npt.NDArray[np.uint8], Column("uint8", "Atomic number now, 0: vacant", shape=(None,))]
    site: Annotated[
        npt.NDArray[np.int32],
        Column("int32", "Index of the site in the supercell, as `atoms.index`", shape=(None,)),
    ]
    visible: Annotated[
        npt.NDArray[np.bool_], Column("bool", "Whether the site lies inside the image", shape=(None,))
    ]


class _Defective(Record):
    defects: DefectColumns
    supercell: Annotated[
        npt.NDArray[np.int32],
        Column(
            "int32",
            "How often the cell is repeated along its first two vectors before sites are changed; "
            "`atoms.index` counts in this supercell",
            shape=(2,),
        ),
    ]


class DefectiveStemRow(_Defective, StemRow):
    """One simulated STEM image of a crystal with point defects; material and labels of the pristine one."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "Simulated image, grey levels; row 0 at the top")]


class RecordedDefectiveStemRow(_Defective, RecordedStemRow):
    """One recorded STEM image of a crystal with point defects; material and labels of the pristine one."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "Recorded image, grey levels; row 0 at the top")]
