"""The row of an experimental image."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import numpy.typing as npt

from atomvision_hub.microscopy.frame import MicroscopeImage
from atomvision_hub.microscopy.metadata import Metadata
from atomvision_hub.microscopy.readers import UNCALIBRATED
from atomvision_hub.microscopy.view import View
from atomvision_hub.records import Column, Record

Pair = npt.NDArray[np.float64]


class ExperimentalRow(Record):
    """One image of an instrument file: as measured, as seen, and what is known about it."""

    id: Annotated[
        str, Column("string", "Unique row identifier: the file's, with @n for one of several images")
    ]
    image: Annotated[bytes, Column("image", "8-bit view; row 0 at the top")]
    raw: Annotated[
        bytes, Column("binary", "The measured intensities, lossless: a TIFF file in the detector's own type")
    ]
    dtype: Annotated[str, Column("string", "Type of the measured intensities (NumPy)")]
    shape: Annotated[npt.NDArray[np.int32], Column("int32", "Rows and columns", shape=(2,))]
    view_low: Annotated[float, Column("float64", "Measured intensity that the view shows as 0")]
    view_high: Annotated[float, Column("float64", "Measured intensity that the view shows as 255")]
    clipped: Annotated[float, Column("float64", "Share of the pixels beyond view_low and view_high")]
    calibrated: Annotated[bool, Column("bool", "Whether the pixel size, real or reciprocal, is known")]
    pixel_size: Annotated[
        Pair | None, Column("float64", "Pixel size (row, column)", "Å/px", shape=(2,), nullable=True)
    ]
    field_of_view: Annotated[
        Pair | None, Column("float64", "Height and width", "Å", shape=(2,), nullable=True)
    ]
    reciprocal_pixel_size: Annotated[
        Pair | None,
        Column(
            "float64", "Pixel size (row, column) of a diffraction pattern", "1/Å", shape=(2,), nullable=True
        ),
    ]
    calibration_source: Annotated[
        str | None, Column("string", "Where the pixel size was found", nullable=True)
    ]
    mode: Annotated[
        str | None,
        Column("string", "How the image was formed: tem, stem, sem, stm, diffraction, ...", nullable=True),
    ]
    detector: Annotated[
        str | None, Column("string", "Detector, camera or channel, as the file has it", nullable=True)
    ]
    specimen: Annotated[
        str, Column("string", "Specimen: its name, else the folder or the file; no split tears it apart")
    ]
    material: Annotated[str | None, Column("string", "Name of the material", nullable=True)]
    formula: Annotated[str | None, Column("string", "Chemical formula", nullable=True)]
    instrument: Annotated[str | None, Column("string", "Model of the microscope", nullable=True)]
    vendor: Annotated[str | None, Column("string", "Manufacturer of the microscope", nullable=True)]
    voltage: Annotated[float | None, Column("float64", "Acceleration voltage", "kV", nullable=True)]
    dwell_time: Annotated[float | None, Column("float64", "Time of the probe on a pixel", "s", nullable=True)]
    bias: Annotated[
        float | None, Column("float64", "Sample bias; positive images empty states", "V", nullable=True)
    ]
    setpoint: Annotated[float | None, Column("float64", "Current setpoint", "nA", nullable=True)]
    date: Annotated[str | None, Column("string", "Date of acquisition, ISO 8601", nullable=True)]
    operator_orcid: Annotated[str | None, Column("string", "ORCID iD of the operator", nullable=True)]
    institution: Annotated[str | None, Column("string", "Institution of the operator", nullable=True)]
    licence: Annotated[str | None, Column("string", "Licence of the image (SPDX)", nullable=True)]
    metadata: Annotated[
        str,
        Column("string", "All metadata as JSON (schema: `atomvision metadata schema`), each with its source"),
    ]
    name: Annotated[str, Column("string", "Label of the image in its file")]
    index: Annotated[int, Column("int32", "Number of the image in its file")]
    frame: Annotated[int, Column("int32", "Place in its stack")]
    frames: Annotated[int, Column("int32", "Length of its stack")]
    file: Annotated[str, Column("string", "Name of the file")]
    file_sha256: Annotated[str, Column("string", "SHA-256 of the file")]
    reader: Annotated[str, Column("string", "Library, version and format that read it")]
    notes: Annotated[list[str], Column("string", "What is odd", shape=(None,))]


def row_of(
    identifier: str,
    image: MicroscopeImage,
    metadata: Metadata,
    specimen: str,
    view: View,
    png: bytes,
    raw: bytes,
) -> ExperimentalRow:
    """Return an image and its metadata as a row.

    Parameters
    ----------
    identifier
        Of the row.
    image, metadata
        As read, and what is known in the end: calibration comes from the metadata, which a person may have
        completed.
    specimen
        Group of the split.
    view, png, raw
        The 8-bit view, the view encoded, the measured intensities encoded.
    """
    known = metadata.acquisition
    size = None if image.kind == "diffraction" else known.pixel_size
    extent = None if size is None else np.multiply(size, image.data.shape)
    reciprocal = image.reciprocal_pixel_size
    return ExperimentalRow(
        id=identifier,
        image=png,
        raw=raw,
        dtype=image.data.dtype.name,
        shape=np.array(image.data.shape, np.int32),
        view_low=view.low,
        view_high=view.high,
        clipped=view.clipped,
        calibrated=size is not None or reciprocal is not None,
        pixel_size=None if size is None else np.array(size),
        field_of_view=extent,
        reciprocal_pixel_size=None if reciprocal is None else np.array(reciprocal),
        calibration_source=None if size is None else metadata.sources["acquisition.pixel_size"],
        mode=known.mode,
        detector=known.detector,
        specimen=specimen,
        material=metadata.sample.material,
        formula=metadata.sample.formula,
        instrument=metadata.instrument.model,
        vendor=metadata.instrument.vendor,
        voltage=metadata.instrument.voltage,
        dwell_time=known.dwell_time,
        bias=metadata.scan_probe.bias,
        setpoint=metadata.scan_probe.setpoint,
        date=known.date,
        operator_orcid=metadata.people.operator_orcid,
        institution=metadata.people.institution,
        licence=metadata.people.licence,
        metadata=json.dumps(
            metadata.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False
        ),
        name=image.name,
        index=image.index,
        frame=image.frame,
        frames=image.frames,
        file=image.file.name,
        file_sha256=image.sha256,
        reader=image.reader,
        notes=[note for note in metadata.notes if size is None or note != UNCALIBRATED],
    )
