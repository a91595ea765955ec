"""What instrument files tell, in the units of the schema: tags of each format, and real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.microscopy import MicroscopeImage, read_images
from atomvision_hub.microscopy.metadata import FIELDS, Metadata, extract
from atomvision_hub.microscopy.metadata.tags import TABLES, day_month, file_time, unix_time


def _image(tags: dict[str, Any], **changes: Any) -> MicroscopeImage:
    facts: dict[str, Any] = {
        "data": np.zeros((4, 6), np.uint16),
        "pixel_size": (0.5, 0.25),
        "name": "HAADF",
        "index": 1,
        "file": Path("folder") / "scan.dm4",
        "sha256": "0" * 64,
        "reader": "reader 1.0",
        "original": {"original_metadata": tags, "metadata": {}},
    }
    return MicroscopeImage(**{**facts, **changes})


def _told(tags: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = extract(_image(tags, **changes)).values()
    return {path: value for path, value in found.items() if not path.startswith("provenance.")}


CALIBRATION = {"acquisition.pixel_size": (0.5, 0.25), "acquisition.field_of_view": (2.0, 1.5)}
GATAN = {
    "ImageList": {
        "TagGroup0": {
            "ImageTags": {
                "Microscope Info": {
                    "Voltage": 300000.0,
                    "Operation Mode": "SCANNING",
                    "Imaging Mode": "DIFFRACTION",
                    "Indicated Magnification": 1e7,
                    "Probe Current (nA)": 0.0,
                    "STEM Camera Length": 77.0,
                    "Stage Position": {"Stage Alpha": 24.5, "Stage Beta": -1.0},
                    "Name": "driver",
                },
                "Session Info": {"Specimen": "Precipitate", "Operator": "", "Microscope": "Scope"},
                "DataBar": {"Device Name": "DigiScan", "Acquisition Time (OS)": 1.3220483561436376e17},
                "DigiScan": {"Sample Time": 32.4, "Rotation": 0.0},
            }
        }
    }
}


def test_calibration_and_provenance_come_from_the_reader() -> None:
    found = extract(_image({}))
    assert found.values() == {
        **CALIBRATION,
        "provenance.file": "scan.dm4",
        "provenance.sha256": "0" * 64,
        "provenance.image": "HAADF",
        "provenance.index": 1,
        "provenance.shape": (4, 6),
        "provenance.reader": "reader 1.0",
    }
    assert found.sources["acquisition.field_of_view"].startswith("derived")
    assert extract(_image({}, pixel_size=None)).get("acquisition.pixel_size") is None


def test_gatan() -> None:
    """Volt to kV, µs to s, mm to m; a probe current of zero is none; the driver is no model."""
    assert _told(GATAN) == {
        **CALIBRATION,
        "sample.name": "Precipitate",
        "instrument.name": "Scope",
        "instrument.voltage": 300.0,
        "acquisition.mode": "stem",
        "acquisition.detector": "DigiScan",
        "acquisition.magnification": 1e7,
        "acquisition.dwell_time": 3.24e-5,
        "acquisition.scan_rotation": 0.0,
        "acquisition.camera_length": 0.077,
        "acquisition.tilt_alpha": 24.5,
        "acquisition.tilt_beta": -1.0,
        "acquisition.date": "2019-12-10T20:32:41+00:00",
    }
    assert extract(_image(GATAN)).sources["instrument.voltage"] == "file: Microscope Info.Voltage"


def test_velox() -> None:
    """Texts in SI units, angles in radians."""
    tags = {
        "Instrument": {"Manufacturer": "FEI Company", "InstrumentClass": "Titan"},
        "Optics": {
            "AccelerationVoltage": "300000",
            "OperatingMode": "2",
            "BeamConvergence": "0.0179034323264196",
            "Defocus": "4.4829711078990285e-008",
            "CameraLength": "0.1829",
        },
        "Stage": {"AlphaTilt": "0.0174532925", "BetaTilt": "0"},
        "Scan": {"DwellTime": "2.5000000000000002e-006", "ScanRotation": "1.5707963267948966"},
        "BinaryResult": {"Detector": "HAADF"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1565710322"}},
    }
    assert _told(tags) == {
        **CALIBRATION,
        "instrument.vendor": "FEI Company",
        "instrument.model": "Titan",
        "instrument.voltage": 300.0,
        "acquisition.mode": "stem",
        "acquisition.detector": "HAADF",
        "acquisition.dwell_time": 2.5e-6,
        "acquisition.convergence_angle": 17.90343,
        "acquisition.camera_length": 0.1829,
        "acquisition.defocus": 448.2971,
        "acquisition.tilt_alpha": 1.0,
        "acquisition.tilt_beta": 0.0,
        "acquisition.scan_rotation": 90.0,
        "acquisition.date": "2019-08-13T15:32:02+00:00",
    }


def test_nanonis() -> None:
    """Setpoint to nA, the sign of the bias kept, feedback from the controller."""
    header = {
        "BIAS": "-5.000E-2",
        "REC_DATE": "29.04.2023",
        "REC_TIME": "01:22:24",
        "SCAN_ANGLE": "1.351E+2",
        "ACQ_TIME": "92.0",
        "Z-CONTROLLER": {"Name": "log Current", "on": "1", "Setpoint": "2.500E-11 A"},
    }
    told = _told({"nanonis": header}, kind="stm", name="Z forward")
    assert told == {
        **CALIBRATION,
        "instrument.kind": "stm",
        "acquisition.mode": "stm",
        "acquisition.detector": "Z forward",
        "acquisition.scan_rotation": 135.1,
        "acquisition.frame_time": 92.0,
        "acquisition.date": "2023-04-29T01:22:24",
        "scan_probe.mode": "constant_current",
        "scan_probe.bias": -0.05,
        "scan_probe.setpoint": 0.025,
    }
    header["Z-CONTROLLER"]["Setpoint"] = "-20.0 Hz"  # type: ignore[index]
    header["Z-CONTROLLER"]["Name"] = "PLL"  # type: ignore[index]
    force = _told({"nanonis": header})
    assert "scan_probe.setpoint" not in force, "a frequency shift is no current"
    assert "instrument.kind" not in force


def test_reciprocal_axes_are_diffraction_whatever_the_tags_say() -> None:
    told = _told(GATAN, kind="diffraction", pixel_size=None)
    assert told["acquisition.mode"] == "diffraction"


def test_silence_is_not_a_value() -> None:
    """Zeros, empty texts, placeholders of instruments and damaged numbers stay unknown."""
    tags = {
        "Microscope Info": {"Voltage": 0.0, "Probe Current (nA)": -1, "Indicated Magnification": "NaN"},
        "Session Info": {"Operator": "  ", "Specimen": "[]"},
        "Optics": {"AccelerationVoltage": "", "OperatingMode": "7"},
        "fei_metadata": {"Beam": {"HV": ""}},
        "BinaryResult": {"Detector": "None"},
        "DigiScan": {"Sample Time": "inf"},
    }
    assert _told(tags) == CALIBRATION


def test_values_that_the_schema_refuses_become_notes() -> None:
    found = extract(_image({"Microscope Info": {"Voltage": 9e9}, "Stage": {"AlphaTilt": "1e6"}}))
    assert found.get("instrument.voltage") is None
    assert found.get("acquisition.tilt_alpha") is None
    assert any("instrument.voltage: the file's 9000000.0 was not used" in note for note in found.notes)


def test_notes_of_the_reader_are_kept() -> None:
    assert extract(_image({}, notes=("odd", "odd"))).notes == ("odd",)


def test_ambiguous_dates_are_not_guessed() -> None:
    """3/4/2016 may be of March or April: no date, but a note; 8/29/2017 and 5/5/2016 are beyond doubt."""
    found = extract(_image({"DataBar": {"Acquisition Date": "3/4/2016"}}))
    assert found.get("acquisition.date") is None
    assert "add acquisition.date by hand" in found.notes[0]
    assert day_month("8/29/2017") == "2017-08-29"
    assert day_month("29.8.2017") == "2017-08-29"
    assert day_month("5/5/2016") == "2016-05-05"
    assert day_month("3/4/2016") is None
    assert day_month("31/31/2016") is None
    assert unix_time("0") is None
    assert file_time(1.0) is None


def test_the_table_names_fields_of_the_schema() -> None:
    for rules in TABLES.values():
        for rule in rules:
            assert rule.field in FIELDS, rule


def test_deep_and_odd_tags_do_no_harm() -> None:
    tags: dict[str, Any] = {"Voltage": [1], "Microscope Info": {"Voltage": {"x": 1}, "Operation Mode": 5}}
    deep: dict[str, Any] = tags
    for _ in range(500):
        deep["more"] = {}
        deep = deep["more"]
    assert _told(tags) == CALIBRATION


_ENTRIES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["1e400", "300000", "2", "SCANNING", "5e-10 A", "1/2/2020", "29.04.2023", "2020:13:45"]),
    st.lists(st.integers(-5, 5), max_size=3),
)
_TAGS = sorted(
    {rule.tag for rules in TABLES.values() for rule in rules} | {"REC_DATE", "REC_TIME", "Z-CONTROLLER.on"}
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(entries=st.dictionaries(st.sampled_from(_TAGS), _ENTRIES, max_size=30))
def test_whatever_stands_in_the_tags_gives_valid_metadata(entries: dict[str, Any]) -> None:
    """Files from outside may hold anything: what is no value stays unknown, and the rest survives JSON."""
    found = extract(_image(entries))
    assert Metadata.model_validate_json(found.model_dump_json()) == found
    assert found.get("provenance.file") == "scan.dm4"


#: What each real file tells; read off its own tags.
REAL: dict[str, dict[str, Any]] = {
    "microscopy/64x64_TEM_images_acquire.emi": {
        "instrument.vendor": "FEI",
        "instrument.voltage": 200.0,
        "acquisition.mode": "tem",
        "acquisition.detector": "WA-Orius",
        "acquisition.magnification": 19500.0,
        "acquisition.date": "2016-02-21T16:50:29+00:00",
        "people.operator": "ERIC",
    },
    "microscopy/Acquisition_18.emd": {
        "sample.name": "STO laser cut",
        "instrument.name": "TEAM 0.5",
        "instrument.voltage": 200.0,
        "acquisition.dwell_time": 1e-6,
        "acquisition.convergence_angle": 24.97937,
        "acquisition.camera_length": 0.085,
        "people.operator": "Peter Ercius",
    },
    "microscopy/Au_nanoparticle_HAADF.emd": {
        "instrument.vendor": "FEI Company",
        "instrument.model": "Titan",
        "instrument.voltage": 300.0,
        "acquisition.mode": "stem",
        "acquisition.detector": "HAADF",
        "acquisition.dwell_time": 2.5e-6,
        "acquisition.convergence_angle": 17.90343,
        "acquisition.tilt_alpha": 0.010736,
        "acquisition.date": "2019-08-13T15:32:02+00:00",
    },
    "microscopy/fei_example_tem_stack.emd": {
        "acquisition.mode": "tem",
        "acquisition.detector": "BM-Ceta",
        "acquisition.magnification": 1271519.0,
        "acquisition.tilt_alpha": -12.58637,
    },
    "microscopy/FEI-Helios-navcam.tif": {
        "instrument.kind": "fib",
        "acquisition.mode": "optical",
        "acquisition.detector": "Nav-Cam",
        "acquisition.date": "2022-05-17T09:07:08",
    },
    "microscopy/multi_signal.dm3": {
        "sample.name": "PrecipitateA",
        "instrument.name": "Example Microscope",
        "instrument.voltage": 300.0,
        "acquisition.mode": "stem",
        "acquisition.dwell_time": 3.24e-5,
        "acquisition.date": "2019-12-10T20:32:41+00:00",
        "people.operator": "JohnDoe",
    },
    "microscopy/olympus_SIS.tif": {
        "acquisition.magnification": 600000.0,
        "acquisition.exposure_time": 0.367093,
        "acquisition.date": "2018-11-15T19:42:00",
        "people.operator": None,
    },
    "microscopy/test_STEM_image.dm3": {
        "instrument.voltage": 200.0,
        "acquisition.dwell_time": 3.5e-6,
        "acquisition.tilt_alpha": 24.95048,
    },
    "microscopy/test_diffraction_pattern.dm3": {
        "instrument.voltage": 200.0,
        "acquisition.mode": "diffraction",
        "acquisition.exposure_time": 0.2,
        "acquisition.date": None,
    },
    "stm/instrument/STM_nanonis_generic_4_5.sxm": {
        "instrument.kind": "stm",
        "scan_probe.bias": 0.05,
        "scan_probe.setpoint": 0.5,
        "scan_probe.mode": "constant_current",
        "acquisition.date": "2023-03-31T14:38:44",
    },
    "stm/instrument/Au_mica_2023_Y_A_diPAMY_195.sxm": {
        "scan_probe.bias": -0.05,
        "scan_probe.setpoint": 0.025,
        "scan_probe.mode": "constant_height",
    },
}


@pytest.mark.parametrize("name", list(REAL))
def test_real_files(name: str, shared_data: Path) -> None:
    pytest.importorskip("rsciio")
    found = extract(read_images(shared_data / name)[0])
    assert {path: found.get(path) for path in REAL[name]} == REAL[name]
    assert Metadata.model_validate_json(found.model_dump_json()) == found


def test_each_detector_is_told(shared_data: Path) -> None:
    pytest.importorskip("rsciio")
    images = read_images(shared_data / "microscopy" / "STEM_HAADF-DF4-DF2-BF_Diffraction_Micro.emd")
    assert {extract(image).get("acquisition.detector") for image in images} == {"HAADF", "DF4", "DF2", "BF"}
