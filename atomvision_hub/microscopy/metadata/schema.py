"""What is recorded about an experimental image: the schema, one field a fact, each with unit and origin.

Names of NeXus are paths of the application definition NXem and its base classes (FAIRmat's definitions of
2026); terms of the EM Glossary are given by IRI. Where neither has a term, or we are not sure of it, there is
none here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from atomvision_hub.microscopy.metadata.vocabulary import (
    check_date,
    check_formula,
    check_indices,
    check_licence,
    check_orcid,
)

#: Version of the schema; the first number changes when an old file would no longer validate.
SCHEMA_VERSION = "1.0"

_ENTRY = "/NXem/ENTRY"
_EVENT = f"{_ENTRY}/measurement/eventID"
_COLUMN = f"{_EVENT}/instrument/ebeam_column"
_OPTICS = f"{_EVENT}/instrument/optics"
_GLOSSARY = "https://purls.helmholtz-metadaten.de/emg/EMG_"

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Positive = Annotated[float, Field(gt=0)]
Indices = Annotated[tuple[int, ...], BeforeValidator(check_indices)]
Angle = Annotated[float, Field(ge=-360, le=360)]
Form = Literal[
    "nanocrystal", "nanoparticle", "nanowire", "nanosheet", "monolayer", "multilayer", "thin_film", "foil",
    "lamella", "powder", "bulk", "surface", "molecule", "other",
]  # fmt: skip
InstrumentKind = Literal["tem", "sem", "fib", "stm", "afm"]
Mode = Literal["tem", "stem", "sem", "fib", "diffraction", "stm", "afm", "optical"]


def _fact(
    description: str, example: Any, *, unit: str = "", nexus: str = "", glossary: str = "", **limits: Any
) -> Any:
    """Return a field that may be unknown (`None`), with what the JSON Schema and the template say of it."""
    extra: dict[str, Any] = {"unit": unit} if unit else {}
    if nexus:
        extra["nexus"] = nexus
    if glossary:
        extra["em_glossary"] = _GLOSSARY + glossary
    return Field(None, description=description, examples=[example], json_schema_extra=extra, **limits)


class Section(BaseModel):
    """Base of all sections: no unknown fields, no infinities, not changed after it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


class Sample(Section):
    """What was in the microscope."""

    name: Text | None = _fact(
        "Name of the specimen; images of one specimen share it",
        "Fe3O4-batch7-grid2",
        nexus=f"{_ENTRY}/sampleID/name",
        glossary="00000046",
    )
    material: Text | None = _fact("Name of the material", "magnetite")
    formula: Annotated[Text, AfterValidator(check_formula)] | None = _fact(
        "Chemical formula of what the image shows", "Fe3O4", nexus=f"{_ENTRY}/sampleID/chemical_formula"
    )
    space_group: int | None = _fact("Number of the space group, 1 to 230", 227, ge=1, le=230)
    facet: Indices | None = _fact("Facet that faces the viewer or bounds the crystal, hkl", [1, 1, 1])
    zone_axis: Indices | None = _fact("Crystal direction along the beam, uvw", [1, 1, 0])
    form: Form | None = _fact("Form of the sample", "nanocrystal", nexus=f"{_ENTRY}/sampleID/physical_form")
    synthesis: Text | None = _fact("How it was made, in a sentence", "hot-injection synthesis in oleylamine")
    substrate: Text | None = _fact("What carries it", "lacey carbon on a copper grid")
    thickness: Positive | None = _fact(
        "Thickness along the beam", 80.0, unit="Å", nexus=f"{_ENTRY}/sampleID/thickness"
    )


class Instrument(Section):
    """Which microscope it was."""

    vendor: Text | None = _fact(
        "Manufacturer", "FEI", nexus=f"{_ENTRY}/measurement/instrument/fabrication/vendor"
    )
    model: Text | None = _fact(
        "Model as the manufacturer calls it",
        "Titan 80-300",
        nexus=f"{_ENTRY}/measurement/instrument/fabrication/model",
    )
    name: Text | None = _fact(
        "Name of the microscope at its institution", "TEAM 0.5", nexus=f"{_ENTRY}/measurement/instrument/name"
    )
    kind: InstrumentKind | None = _fact(
        "Kind of microscope (a dedicated STEM is a tem)", "tem", nexus=f"{_ENTRY}/measurement/instrument/type"
    )
    voltage: Annotated[float, Field(gt=0, le=3500)] | None = _fact(
        "Acceleration voltage",
        300.0,
        unit="kV",
        nexus=f"{_COLUMN}/electron_source/voltage",
        glossary="00000004",
    )


class Acquisition(Section):
    """How the image was taken."""

    mode: Mode | None = _fact("How the image was formed", "stem", nexus=f"{_EVENT}/type")
    detector: Text | None = _fact("Detector, camera or channel", "HAADF")
    pixel_size: tuple[Positive, Positive] | None = _fact(
        "Pixel size along rows and columns: (row, column)", [0.075, 0.075], unit="Å/px"
    )
    field_of_view: tuple[Positive, Positive] | None = _fact(
        "Height and width of the image", [153.6, 153.6], unit="Å", nexus=f"{_OPTICS}/field_of_view"
    )
    magnification: Positive | None = _fact(
        "Magnification that the instrument shows", 910000.0, nexus=f"{_OPTICS}/magnification"
    )
    dwell_time: Positive | None = _fact(
        "Time that the probe rests on a pixel",
        2.5e-06,
        unit="s",
        nexus=f"{_COLUMN}/scan_controller/dwell_time",
        glossary="00000015",
    )
    exposure_time: Positive | None = _fact("Exposure of a camera frame", 0.5, unit="s")
    frame_time: Positive | None = _fact("Time of one scanned frame", 12.6, unit="s")
    beam_current: Positive | None = _fact(
        "Current of the probe", 50.0, unit="pA", nexus=f"{_OPTICS}/probe_current", glossary="00000006"
    )
    incident_dose: Positive | None = _fact(
        "Electrons that fell on the sample during this image", 2000.0, unit="e/Å²"
    )
    dose: Positive | None = _fact("Electrons that were detected", 150.0, unit="e/Å²")
    convergence_angle: Positive | None = _fact(
        "Semi-angle of the convergent probe",
        25.0,
        unit="mrad",
        nexus=f"{_OPTICS}/semi_convergence_angle",
        glossary="00000010",
    )
    collection_angles: tuple[Annotated[float, Field(ge=0)], Positive] | None = _fact(
        "Inner and outer angle of the detector", [60.0, 200.0], unit="mrad"
    )
    camera_length: Positive | None = _fact(
        "Camera length", 0.115, unit="m", nexus=f"{_OPTICS}/camera_length", glossary="00000008"
    )
    defocus: float | None = _fact(
        "Defocus as the instrument shows it", -450.0, unit="Å", nexus=f"{_OPTICS}/defocus"
    )
    tilt_alpha: Angle | None = _fact(
        "First tilt of the stage", 12.5, unit="degree", nexus=f"{_EVENT}/instrument/stageID/tilt1"
    )
    tilt_beta: Angle | None = _fact(
        "Second tilt of the stage", -3.1, unit="degree", nexus=f"{_EVENT}/instrument/stageID/tilt2"
    )
    scan_rotation: Angle | None = _fact("Rotation of the scan against the stage", 90.0, unit="degree")
    temperature: Positive | None = _fact("Temperature of the sample", 77.0, unit="K")
    date: Annotated[str, BeforeValidator(check_date)] | None = _fact(
        "Date or moment of acquisition, ISO 8601; without zone it is local time",
        "2023-05-31T14:05:00",
        nexus=f"{_EVENT}/start_time",
    )


class ScanProbe(Section):
    """What only scanning-probe images have."""

    mode: Literal["constant_current", "constant_height"] | None = _fact(
        "Feedback on or off", "constant_current"
    )
    bias: Annotated[float, Field(ge=-100, le=100)] | None = _fact(
        "Sample bias: positive images empty states", -0.05, unit="V"
    )
    setpoint: float | None = _fact("Current setpoint of the feedback", 0.5, unit="nA")


class People(Section):
    """Who took the image and what others may do with it."""

    operator: Text | None = _fact("Name of the operator", "Jane Doe", nexus=f"{_ENTRY}/userID/name")
    operator_orcid: Annotated[str, AfterValidator(check_orcid)] | None = _fact(
        "ORCID iD of the operator", "0000-0002-1825-0097", nexus=f"{_ENTRY}/userID/identifierNAME"
    )
    institution: Text | None = _fact(
        "Institution of the operator", "Example University", nexus=f"{_ENTRY}/userID/affiliation"
    )
    licence: Annotated[str, AfterValidator(check_licence)] | None = _fact(
        "Licence of the image as SPDX identifier", "CC-BY-4.0"
    )
    citation: Text | None = _fact(
        "What to cite: a DOI where there is one",
        "10.1021/acs.jcim.2c01533",
        nexus=f"{_ENTRY}/citeID/doi",
    )


class Provenance(Section):
    """Where the pixels come from; written by the reader, never by hand."""

    file: Text | None = _fact(
        "Name of the file, without folders", "scan.dm4", nexus=f"{_ENTRY}/noteID/file_name"
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = _fact(
        "SHA-256 of the file", "0" * 64, nexus=f"{_ENTRY}/noteID/checksum"
    )
    image: Text | None = _fact("Which image of the file: detector or frame", "HAADF")
    index: Annotated[int, Field(ge=0)] | None = _fact("Number of the image in the file, from 0", 0)
    shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = _fact(
        "Rows and columns", [2048, 2048], unit="px"
    )
    reader: Text | None = _fact("Reader and its version", "rosettasciio 0.15 digitalmicrograph")


def _unquoted(version: Any) -> Any:
    # YAML reads 1.0 without quotes as a number.
    return str(version) if isinstance(version, float) else version


class Facts(Section):
    """All sections, as a person writes them beside an image: nothing is required."""

    schema_version: Annotated[Literal["1.0"], BeforeValidator(_unquoted)] = Field(
        "1.0", description="Version of this schema"
    )
    sample: Sample = Field(Sample(), description="What was in the microscope")
    instrument: Instrument = Field(Instrument(), description="Which microscope it was")
    acquisition: Acquisition = Field(Acquisition(), description="How the image was taken")
    scan_probe: ScanProbe = Field(ScanProbe(), description="What only scanning-probe images have")
    people: People = Field(People(), description="Who took the image and what others may do with it")
    provenance: Provenance = Field(
        Provenance(), description="Where the pixels come from; written by the reader, never by hand"
    )

    def values(self) -> dict[str, Any]:
        """Return what is known: dotted field (``"sample.formula"``) -> value."""
        return {path: value for path in FIELDS if (value := self.get(path)) is not None}

    def get(self, path: str) -> Any:
        """Return the value of a dotted field, `None` where it is unknown."""
        section, name = path.split(".")
        return getattr(getattr(self, section), name)


class Metadata(Facts):
    """What is known about one image, and where each value comes from."""

    sources: dict[str, str] = Field(
        default_factory=dict,
        description="Dotted field -> origin: 'file: TAG', 'sidecar: FILE', 'folder: FILE', 'reader: ...', "
        "'derived: ...'",
    )
    notes: tuple[str, ...] = Field(
        (), description="What is odd: values that contradict each other or could not be used"
    )

    @model_validator(mode="after")
    def _each_value_has_a_source(self) -> Self:
        known, told = set(self.values()), set(self.sources)
        if known != told:
            field = sorted(known ^ told)[0]
            raise ValueError(f"{field} has {'no source' if field in known else 'a source but no value'}")
        return self

    @classmethod
    def of(
        cls, values: Mapping[str, Any], sources: Mapping[str, str], notes: tuple[str, ...] = ()
    ) -> Metadata:
        """Return metadata from dotted fields and their sources."""
        return cls(**nested(values), sources=dict(sources), notes=notes)


def nested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return dotted fields as sections."""
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, name = path.split(".")
        sections.setdefault(section, {})[name] = value
    return sections


#: Section -> model, in the order of templates and tables.
SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Facts.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            yield f"{section}.{name}", field


#: Dotted field -> declaration, in the order of templates and tables.
FIELDS: dict[str, FieldInfo] = dict(_fields())


def extra(path: str) -> dict[str, Any]:
    """Return unit, NeXus path and EM Glossary IRI of a field, as far as they exist."""
    found = FIELDS[path].json_schema_extra
    return dict(found) if isinstance(found, dict) else {}


def choices(path: str) -> tuple[str, ...]:
    """Return the words that a field may have, empty where it is free."""
    for option in (FIELDS[path].annotation, *get_args(FIELDS[path].annotation)):
        words = get_args(option)
        if words and all(isinstance(word, str) for word in words):
            return words
    return ()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `Metadata` (draft 2020-12), with units and terms."""
    schema = Metadata.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"AtomVision image metadata {SCHEMA_VERSION}",
        **{key: value for key, value in schema.items() if key != "title"},
    }
