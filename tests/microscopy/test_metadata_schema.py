"""The metadata schema: what it takes, what it refuses, what it exports."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from atomvision_hub.microscopy.metadata import FIELDS, Facts, Metadata, field_table, json_schema
from atomvision_hub.microscopy.metadata.schema import choices, extra, nested
from atomvision_hub.microscopy.metadata.vocabulary import (
    LICENCES,
    check_date,
    check_formula,
    check_indices,
    check_licence,
    check_orcid,
)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "formula", ["Fe3O4", "Rh", "SnS", "Mo0.5W0.5S2", "Ca(OH)2", "CuSO4·5H2O", "K3[Fe(CN)6]", "C60"]
)
def test_formulas(formula: str) -> None:
    assert check_formula(formula) == formula


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Xy2", "'Xy' is no element"),
        ("fe3o4", "cannot read 'fe3o4'"),
        ("Fe3 O4", "cannot read ' O4'"),
        ("3Fe", "the count '3' belongs to nothing"),
        ("Fe0", "the count '0' belongs to nothing"),
        ("Ca(OH", "ends too early|brackets do not match"),
        ("CaOH)2", "brackets do not match"),
        ("K[(OH])", "brackets do not match"),
        ("()", "brackets do not match"),
        ("Fe3O4·", "it ends too early"),
        ("", "it ends too early"),
        ("magnetite", "cannot read 'magnetite'"),
    ],
)
def test_what_is_no_formula(formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_formula(formula)


def _orcid(digits: str) -> str:
    total = 0
    for digit in digits:
        total = (total + int(digit)) * 2
    last = "0123456789X"[(12 - total % 11) % 11]
    whole = digits + last
    return "-".join(whole[start : start + 4] for start in range(0, 16, 4))


@settings(derandomize=True, max_examples=60)
@given(st.text("0123456789", min_size=15, max_size=15), st.integers(0, 14), st.integers(1, 9))
def test_orcid_checksum_finds_a_wrong_digit(digits: str, place: int, step: int) -> None:
    identifier = _orcid(digits)
    assert check_orcid(identifier) == identifier
    assert check_orcid(f"https://orcid.org/{identifier.lower()}") == identifier
    wrong = digits[:place] + str((int(digits[place]) + step) % 10) + digits[place + 1 :]
    mistaken = _orcid(wrong)[:-1] + identifier[-1]
    if mistaken != _orcid(wrong):
        with pytest.raises(ValueError, match="checksum does not fit"):
            check_orcid(mistaken)


def test_orcid_of_the_documentation() -> None:
    """ORCID's own example; a single wrong digit is always found."""
    assert check_orcid("0000-0002-1825-0097") == "0000-0002-1825-0097"
    for wrong in ("0000-0002-1825-0096", "0000-0002-1825-009", "Jane Doe", "0000-0002-1825-00977"):
        with pytest.raises(ValueError, match="is no ORCID iD"):
            check_orcid(wrong)


def test_licences() -> None:
    assert check_licence("cc-by-4.0") == "CC-BY-4.0"
    assert check_licence("LicenseRef-lab-internal") == "LicenseRef-lab-internal"
    with pytest.raises(ValueError, match=r"did you mean CC-BY-4\.0"):
        check_licence("CC BY 4")
    with pytest.raises(ValueError, match="written LicenseRef-NAME"):
        check_licence("ask me")
    assert len(set(LICENCES)) == len(LICENCES)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([1, 1, 1], (1, 1, 1)),
        ("(111)", (1, 1, 1)),
        ("[1-10]", (1, -1, 0)),
        ("{1 1 -2}", (1, 1, -2)),
        ("1, 0, -1, 2", (1, 0, -1, 2)),
        ([12, 0, 1], (12, 0, 1)),
    ],
)
def test_indices(written: object, read: tuple[int, ...]) -> None:
    assert check_indices(written) == read


@pytest.mark.parametrize(
    "written", [[0, 0, 0], [1, 1], [1.5, 0, 0], "abc", [1, 0, 0, 1], 111, [True, False, False], "1 1"]
)
def test_what_are_no_indices(written: object) -> None:
    with pytest.raises(ValueError, match="Miller indices"):
        check_indices(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2023-05-31", "2023-05-31"),
        ("2023-05-31T14:05:00+02:00", "2023-05-31T14:05:00+02:00"),
        ("2023-05-31 14:05", "2023-05-31T14:05:00"),
        (date(2023, 5, 31), "2023-05-31"),
        (datetime(2023, 5, 31, 14, 5), "2023-05-31T14:05:00"),
    ],
)
def test_dates(written: object, read: str) -> None:
    assert check_date(written) == read


@pytest.mark.parametrize("written", ["31.05.2023", "2023-02-30", "last May", 20230531, "05/06/2023"])
def test_what_is_no_date(written: object) -> None:
    with pytest.raises(ValueError, match="is no ISO 8601 date"):
        check_date(written)


@pytest.mark.parametrize("path", list(FIELDS))
def test_every_field_is_documented_and_takes_its_example(path: str) -> None:
    """A field without meaning or with an example that it refuses would mislead who fills in the template."""
    field = FIELDS[path]
    assert field.description
    assert field.examples
    value = field.examples[0]
    facts = Facts.model_validate(nested({path: value}))
    assert facts.get(path) is not None
    assert facts.values().keys() == {path}
    if "nexus" in extra(path):
        assert extra(path)["nexus"].startswith("/NXem/ENTRY/")
    if choices(path):
        assert value in choices(path)


def test_each_value_has_a_source_and_each_source_a_value() -> None:
    with pytest.raises(ValidationError, match=r"sample\.formula has no source"):
        Metadata.of({"sample.formula": "Rh"}, {})
    with pytest.raises(ValidationError, match=r"sample\.formula has a source but no value"):
        Metadata.of({}, {"sample.formula": "sidecar: a.yaml"})
    told = Metadata.of({"sample.formula": "Rh"}, {"sample.formula": "sidecar: a.yaml"}, ("odd",))
    assert Metadata.model_validate_json(told.model_dump_json()) == told


@pytest.mark.parametrize(
    "values",
    [
        {"instrument.voltage": 300_000.0},
        {"instrument.voltage": -1.0},
        {"acquisition.pixel_size": [0.1, 0.0]},
        {"acquisition.tilt_alpha": 1000},
        {"acquisition.dwell_time": float("inf")},
        {"sample.space_group": 231},
        {"provenance.sha256": "abc"},
    ],
)
def test_values_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Facts.model_validate(nested(values))


def test_json_schema_carries_units_and_terms() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert schema["$schema"].startswith("https://json-schema.org/")
    voltage = schema["$defs"]["Instrument"]["properties"]["voltage"]
    assert voltage["unit"] == "kV"
    assert voltage["nexus"].endswith("/ebeam_column/electron_source/voltage")
    assert voltage["em_glossary"] == "https://purls.helmholtz-metadaten.de/emg/EMG_00000004"
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) > {"sample", "instrument", "sources", "notes", "schema_version"}


def test_the_page_is_the_schema() -> None:
    page = REPOSITORY / "docs" / "metadata.md"
    assert page.read_text(encoding="utf-8") == field_table(), (
        "run: atomvision metadata schema --markdown > docs/metadata.md"
    )
