"""Where each file format keeps each fact: the table that `extract` reads.

A tag is the end of the dotted path under which the reader keeps it; of several tags of one field the first
that has a usable value counts. A converter returns the value in the unit of the schema, or `None` where the
entry means "not recorded" (zero volts, an empty text): nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

Converter = Callable[[Any], Any]

#: Texts that instruments write where nobody told them anything.
_SILENT = frozenset(("", "none", "n/a", "unknown", "not available", "default", "[]"))


class Rule(NamedTuple):
    """One line of the table: a field, where a format keeps it, and how its entry becomes the value."""

    field: str
    tag: str
    convert: Converter


def text(entry: Any) -> str | None:
    """Return a text without surrounding blanks; `None` where it is empty or says nothing."""
    if isinstance(entry, bytes):
        entry = entry.decode("utf-8", "replace")
    if not isinstance(entry, str):
        return None
    bare = re.sub(r"\s+", " ", entry.replace("\0", " ")).strip()
    silent = bare.lower() in _SILENT or re.fullmatch(r"\d+ (bytes|values)", bare)
    return None if silent else bare[:2000]


def number(scale: float = 1.0) -> Converter:
    """Return a converter to a finite number times `scale`; units behind the number are not read."""

    def convert(entry: Any) -> float | None:
        value = _number(entry)
        return None if value is None else _clean(value * scale)

    return convert


def positive(scale: float = 1.0) -> Converter:
    """Return a converter like `number` for which zero and below mean "not recorded"."""

    def convert(entry: Any) -> float | None:
        value = _number(entry)
        return _clean(value * scale) if value is not None and value > 0 else None

    return convert


def quantity(units: Mapping[str, float]) -> Converter:
    """Return a converter of texts such as ``"5.0E-10 A"``: factors by unit; other units give `None`."""

    def convert(entry: Any) -> float | None:
        match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*([^\d\s]\S*)\s*", entry) if isinstance(entry, str) else None
        if match is None or match.group(2) not in units or (value := _number(match.group(1))) is None:
            return None
        return _clean(value * units[match.group(2)])

    return convert


def ratio(entry: Any) -> float | None:
    """Return an EXIF ratio, a pair of whole numbers, as a number above zero."""
    parts = [_number(part) for part in entry] if isinstance(entry, list | tuple) else []
    if len(parts) != 2 or not parts[0] or not parts[1] or parts[0] / parts[1] < 0:
        return None
    return _clean(parts[0] / parts[1])


def word(words: Mapping[str, str]) -> Converter:
    """Return a converter by a table of words: the first key that the entry contains, whatever its case."""

    def convert(entry: Any) -> str | None:
        found = str(text(entry) or entry).lower()
        return next((value for key, value in words.items() if key.lower() in found), None)

    return convert


def exactly(words: Mapping[str, str]) -> Converter:
    """Return a converter by a table of entries that must fit entirely."""
    return lambda entry: words.get(str(entry).strip())


def unix_time(entry: Any) -> str | None:
    """Return seconds since 1970 as a moment in UTC."""
    seconds = _number(entry)
    return datetime.fromtimestamp(int(seconds), UTC).isoformat() if seconds and 0 < seconds < 1e11 else None


def file_time(entry: Any) -> str | None:
    """Return a Windows time (100 ns since 1601) as a moment in UTC."""
    ticks = _number(entry)
    if not ticks or not 1.2e17 < ticks < 2e17:
        return None
    return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(seconds=int(ticks / 1e7))).isoformat()


def moment(*formats: str) -> Converter:
    """Return a converter of local times, by the formats of `datetime.strptime`; ISO 8601 without formats."""

    def convert(entry: Any) -> str | None:
        bare = text(entry) or ""
        for form in formats or ("",):
            try:
                when = datetime.strptime(bare, form) if form else datetime.fromisoformat(bare)
                return when.isoformat()
            except ValueError:
                continue
        return None

    return convert


def day_month(entry: Any) -> str | None:
    """Return a date such as ``8/29/2017`` whose order of day and month is beyond doubt, else `None`."""
    match = (
        re.fullmatch(r"\s*(\d{1,2})[/.](\d{1,2})[/.](\d{4})\s*", entry) if isinstance(entry, str) else None
    )
    if match is None:
        return None
    first, second, year = (int(part) for part in match.groups())
    if first <= 12 and second <= 12 and first != second:
        return None
    month, day = (first, second) if second > 12 or first == second else (second, first)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def _number(entry: Any) -> float | None:
    try:
        value = float(entry)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _clean(value: float) -> float:
    # 2.5000000000000002e-06 and the like come from decimal texts and from single precision.
    return float(f"{value:.7g}") + 0.0


_DEGREES = math.degrees(1.0)
_ASCTIME = "%a %b %d %H:%M:%S %Y"
_FEI_BEAMS = {"EBeam": "sem", "IBeam": "fib", "IRBeam": "optical"}
_TIA_MODE = {"stem": "stem", "diffraction": "diffraction", "tem": "tem"}

#: Gatan DM3 and DM4 (DigitalMicrograph), also TIFF written by it.
DIGITAL_MICROGRAPH = (
    Rule("sample.name", "Session Info.Specimen", text),
    Rule("sample.name", "Microscope Info.Specimen", text),
    Rule("instrument.name", "Session Info.Microscope", text),
    Rule("instrument.name", "Microscope Info.Microscope", text),
    # "Microscope Info.Name" is the driver by which DigitalMicrograph reaches the microscope, not its model.
    Rule("instrument.voltage", "Microscope Info.Voltage", positive(1e-3)),
    # The imaging mode is "DIFFRACTION" while a probe scans: the operation mode comes first.
    Rule("acquisition.mode", "Microscope Info.Operation Mode", word({"scanning": "stem"})),
    Rule("acquisition.mode", "Microscope Info.Imaging Mode", word({"diffraction": "diffraction"})),
    Rule("acquisition.mode", "Microscope Info.Operation Mode", word({"imaging": "tem"})),
    Rule("acquisition.detector", "Acquisition.Device.Name", text),
    Rule("acquisition.detector", "DataBar.Signal Name", text),
    Rule("acquisition.detector", "DataBar.Device Name", text),
    Rule("acquisition.magnification", "Microscope Info.Indicated Magnification", positive()),
    Rule("acquisition.dwell_time", "DigiScan.Sample Time", positive(1e-6)),
    Rule("acquisition.scan_rotation", "DigiScan.Rotation", number()),
    Rule("acquisition.exposure_time", "DataBar.Exposure Time (s)", positive()),
    Rule("acquisition.exposure_time", "High Level.Exposure (s)", positive()),
    Rule("acquisition.beam_current", "Microscope Info.Probe Current (nA)", positive(1e3)),
    Rule("acquisition.camera_length", "Microscope Info.STEM Camera Length", positive(1e-3)),
    Rule("acquisition.tilt_alpha", "Stage Position.Stage Alpha", number()),
    Rule("acquisition.tilt_beta", "Stage Position.Stage Beta", number()),
    Rule("acquisition.date", "DataBar.Acquisition Time (OS)", file_time),
    Rule("acquisition.date", "DigiScan.TimeStamp", moment(_ASCTIME)),
    Rule("acquisition.date", "DataBar.Acquisition Date", day_month),
    Rule("people.operator", "Session Info.Operator", text),
    Rule("people.operator", "Microscope Info.Operator", text),
)

#: Velox EMD (Thermo Fisher): SI units, angles in radians, all entries as text.
VELOX = (
    Rule("instrument.vendor", "Instrument.Manufacturer", text),
    Rule("instrument.model", "Instrument.InstrumentModel", text),
    Rule("instrument.model", "Instrument.InstrumentClass", text),
    Rule("instrument.voltage", "Optics.AccelerationVoltage", positive(1e-3)),
    Rule("acquisition.mode", "Optics.OperatingMode", exactly({"1": "tem", "2": "stem"})),
    Rule("acquisition.detector", "BinaryResult.Detector", text),
    Rule("acquisition.magnification", "Optics.NominalMagnification", positive()),
    Rule("acquisition.dwell_time", "Scan.DwellTime", positive()),
    Rule("acquisition.frame_time", "Scan.FrameTime", positive()),
    Rule("acquisition.scan_rotation", "Scan.ScanRotation", number(_DEGREES)),
    Rule("acquisition.exposure_time", "DetectorMetadata.ExposureTime", positive()),
    Rule("acquisition.convergence_angle", "Optics.BeamConvergence", positive(1e3)),
    Rule("acquisition.camera_length", "Optics.CameraLength", positive()),
    Rule("acquisition.defocus", "Optics.Defocus", number(1e10)),
    Rule("acquisition.tilt_alpha", "Stage.AlphaTilt", number(_DEGREES)),
    Rule("acquisition.tilt_beta", "Stage.BetaTilt", number(_DEGREES)),
    Rule("acquisition.date", "Acquisition.AcquisitionStartDatetime.DateTime", unix_time),
)

#: Berkeley EMD: SI units, the convergence angle in radians.
BERKELEY = (
    Rule("sample.name", "sample.sample name", text),
    Rule("sample.name", "sample.name", text),
    Rule("sample.material", "sample.material", text),
    Rule("instrument.name", "microscope.name", text),
    Rule("instrument.voltage", "microscope.high tension", positive(1e-3)),
    Rule("instrument.voltage", "microscope.voltage", positive(1e-3)),
    Rule("acquisition.magnification", "microscope.magnification", positive()),
    Rule("acquisition.dwell_time", "microscope.dwell time", positive()),
    Rule("acquisition.convergence_angle", "microscope.convergence angle", positive(1e3)),
    Rule("acquisition.camera_length", "microscope.camera length", positive()),
    Rule("acquisition.defocus", "microscope.defocus", number(1e10)),
    Rule("people.operator", "user.name", text),
    Rule("people.operator", "user.User name", text),
    Rule("people.institution", "user.institution", text),
)

#: SER with EMI (TIA, Thermo Fisher).
TIA = (
    Rule("instrument.vendor", "ObjectInfo.Manufacturer", text),
    Rule("instrument.model", "ExperimentalDescription.Microscope", text),
    Rule("instrument.voltage", "MicroscopeConditions.AcceleratingVoltage", positive(1e-3)),
    Rule("instrument.voltage", "ExperimentalDescription.High tension_kV", positive()),
    Rule("acquisition.mode", "ExperimentalDescription.Mode", word(_TIA_MODE)),
    Rule("acquisition.detector", "AcquireInfo.CameraNamePath", text),
    Rule("acquisition.magnification", "ExperimentalDescription.Magnification_x", positive()),
    Rule("acquisition.camera_length", "ExperimentalDescription.Camera length_m", positive()),
    Rule("acquisition.defocus", "ExperimentalDescription.Defocus_um", number(1e4)),
    Rule("acquisition.tilt_alpha", "ExperimentalDescription.Stage A_deg", number()),
    Rule("acquisition.tilt_beta", "ExperimentalDescription.Stage B_deg", number()),
    Rule("acquisition.date", "ser_header_parameters.Time", unix_time),
    Rule("acquisition.date", "ObjectInfo.AcquireDate", moment(_ASCTIME)),
    Rule("people.operator", "ExperimentalDescription.User", text),
)

#: MRC with the extended header of FEI: SI units but for the tilts (degree) and the high tension (V).
MRC = (
    Rule("instrument.voltage", "fei_header.ht", positive(1e-3)),
    Rule("acquisition.magnification", "fei_header.magnification", positive()),
    Rule("acquisition.exposure_time", "fei_header.exp_time", positive()),
    Rule("acquisition.defocus", "fei_header.defocus", number(1e10)),
    Rule("acquisition.tilt_alpha", "fei_header.a_tilt", number()),
    Rule("acquisition.tilt_beta", "fei_header.b_tilt", number()),
)

#: TIFF of scanning microscopes of FEI: SI units, angles in radians.
FEI_TIFF = (
    Rule("instrument.model", "fei_metadata.System.SystemType", text),
    Rule("instrument.kind", "fei_metadata.System.Type", exactly({"DualBeam": "fib", "SEM": "sem"})),
    Rule("instrument.voltage", "fei_metadata.Beam.HV", positive(1e-3)),
    Rule("acquisition.mode", "fei_metadata.Beam.Beam", exactly(_FEI_BEAMS)),
    Rule("acquisition.detector", "fei_metadata.Detectors.Name", text),
    Rule("acquisition.dwell_time", "fei_metadata.Scan.Dwelltime", positive()),
    Rule("acquisition.frame_time", "fei_metadata.Scan.FrameTime", positive()),
    Rule("acquisition.beam_current", "fei_metadata.EBeam.BeamCurrent", positive(1e12)),
    Rule("acquisition.scan_rotation", "fei_metadata.Beam.ScanRotation", number(_DEGREES)),
    Rule("acquisition.tilt_alpha", "fei_metadata.Stage.StageT", number(_DEGREES)),
    Rule("acquisition.date", "fei_metadata.PrivateFei.TimeOfCreation", moment("%d.%m.%Y %H:%M:%S")),
    Rule("people.operator", "fei_metadata.User.User", text),
)

#: TIFF of Olympus Soft Imaging Solutions (cameras on transmission microscopes).
OLYMPUS = (
    Rule("acquisition.detector", "sis_metadata.cameraname", text),
    Rule("acquisition.magnification", "sis_metadata.magnification", positive()),
    Rule("acquisition.exposure_time", "ExifTag.ExposureTime", ratio),
    Rule("acquisition.date", "sis_metadata.datetime", moment()),
)

#: Scans of Nanonis: SI units; the sign of the bias is that of the sample.
NANONIS = (
    Rule("acquisition.scan_rotation", "SCAN_ANGLE", number()),
    Rule("acquisition.frame_time", "ACQ_TIME", positive()),
    Rule("scan_probe.bias", "BIAS", number()),
    Rule("scan_probe.bias", "Bias>Bias (V)", number()),
    Rule("scan_probe.setpoint", "Z-CONTROLLER.Setpoint", quantity({"A": 1e9, "nA": 1.0, "pA": 1e-3})),
)

#: Texts that readers keep under these tags name their format; the tables are tried in this order.
TABLES: dict[str, tuple[Rule, ...]] = {
    "DigitalMicrograph": DIGITAL_MICROGRAPH,
    "Velox EMD": VELOX,
    "Berkeley EMD": BERKELEY,
    "SER/EMI": TIA,
    "MRC": MRC,
    "FEI TIFF": FEI_TIFF,
    "Olympus TIFF": OLYMPUS,
    "Nanonis": NANONIS,
}
