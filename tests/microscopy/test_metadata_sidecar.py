"""YAML that people write: read, refused with file, line and remedy, and put before what the file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomvision_hub.microscopy.metadata import (
    Metadata,
    MetadataError,
    complete,
    example,
    examples,
    find_sidecars,
    read_sidecar,
    template,
    to_yaml,
)
from atomvision_hub.microscopy.metadata.sidecar import MAX_BYTES


def _write(folder: Path, text: str, name: str = "scan.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _metadata(**values: object) -> Metadata:
    given = {key.replace("__", "."): value for key, value in values.items()}
    return Metadata.of(given, dict.fromkeys(given, "file: Tag"))


def test_template_is_valid_and_says_nothing(tmp_path: Path) -> None:
    facts = read_sidecar(_write(tmp_path, template()))
    assert facts.values() == {}
    assert "# Acceleration voltage [kV]: for example 300.0\n  voltage:\n" in template()
    assert "provenance" not in template()


def test_template_can_be_filled_with_its_examples(tmp_path: Path) -> None:
    """Every example of the template is valid where it stands."""
    lines, hint = [], ""
    for line in template().splitlines():
        hint = line if line.startswith("  # ") else hint
        filled = ""
        if line.startswith("  ") and line.endswith(":"):
            one_of, for_example = hint.split("one of "), hint.split("for example ")
            filled = one_of[1].split(",")[0] if len(one_of) > 1 else for_example[1]
            number = filled[0] in "[-0123456789" and filled.count("-") < 2
            filled = f" {filled}" if number else f' "{filled}"'
        lines.append(line + filled)
    assert len(read_sidecar(_write(tmp_path, "\n".join(lines))).values()) > 35


@pytest.mark.parametrize(("name", "group"), [("Fe3O4", 227), ("Rh", 225), ("SnS", 62)])
def test_examples_of_the_paper(name: str, group: int, tmp_path: Path) -> None:
    """Filled with what is certain, nothing invented: no person, no date, no facet."""
    facts = read_sidecar(_write(tmp_path, example(name)))
    assert facts.get("sample.formula") == name
    assert facts.get("sample.space_group") == group
    assert facts.get("people.citation") == "10.1021/acs.jcim.2c01533"
    for unknown in ("people.operator", "people.operator_orcid", "acquisition.date", "sample.facet"):
        assert facts.get(unknown) is None
    assert examples() == ["Fe3O4", "Rh", "SnS"]


BROKEN = """\
sample:
  formla: Rh
  formula: Fe3O5x
  form: blob
instrument: 5
acquisition:
  pixel_size: 3
  dwell_time: .nan
foo: 1
provenance:
  file: x
people:
  operator_orcid: 0000-0002-1825-0098
  licence: cc by 4
"""


def test_all_problems_of_a_file_at_once(tmp_path: Path) -> None:
    """Each with line, field and remedy."""
    path = _write(tmp_path, BROKEN)
    with pytest.raises(MetadataError) as caught:
        read_sidecar(path)
    lines = [str(problem).removeprefix(str(path)) for problem in caught.value.problems]
    expected = [
        ":2: sample.formla is unknown; did you mean formula?",
        ":3: sample.formula ('Fe3O5x') is no chemical formula: cannot read 'x'",
        ":4: sample.form is 'blob'; write one of nanocrystal, nanoparticle,",
        ":5: instrument is no section; write its fields below it, such as vendor",
        ":7: acquisition.pixel_size is 3: ",
        ":8: acquisition.dwell_time is nan: ",
        ":9: foo is unknown; known are sample, instrument,",
        ":10: provenance is written by the reader; take the section out",
        ":13: people.operator_orcid ('0000-0002-1825-0098') is no ORCID iD: its checksum",
        ":14: people.licence ('cc by 4') is no SPDX identifier known here; did you mean CC-BY-4.0?",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
    assert lines[4].endswith("in Å/px; for example [0.075, 0.075]")
    assert "\n" not in str(caught.value)
    assert (caught.value.step, caught.value.exit_code) == ("metadata", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", ":1: has an anchor or alias"),
        ("a: &a [1,1]\nb: &b [*a,*a,*a]\n", "write the value out"),
        ("[" * 5000, "nests deeper than 12 levels"),
        ("sample: {name: a, name: b}", "sample.name stands here and in line 1; keep one"),
        ("sample:\n\tname: x", ":2: is no valid YAML: .*no tabs"),
        ("- 1\n- 2", "has no sections; begin with one of sample,"),
        (
            "x: !!python/object/apply:os.system ['true']",
            "is no valid YAML: could not determine a constructor",
        ),
        ("acquisition: {date: 2023-02-31}", "is no valid YAML: day is out of range"),
        ("a: 1\n---\nb: 2\n", "is no valid YAML"),
        ("schema_version: '9.9'", "schema_version is '9.9', but this version reads 1.0"),
        ("1: 2", ":1: 1 is unknown; known are sample,"),
        ("sample: {yes: 1}", "is unknown; known are name, material,"),
        ("? [1, 2]\n: x", "is no valid YAML"),
        ("sample: {space_group: " + "1" * 6000 + "}", "is no valid YAML|input should be"),
        ('sample: {name: "\\ud800"}', "sample.name is "),
        ('"\\e[31mred": 1', r":1: \?\[31mred is unknown"),
        ("sample: {name: [a, b]}", "sample.name is .*for example Fe3O4-batch7-grid2"),
        ("acquisition: {tilt_alpha: .inf}", "finite number in degree; for example 12.5"),
        ("<<: {sample: {formula: Xy}}", "is no chemical formula|is unknown"),
    ],
)
def test_hostile_and_mistaken_yaml(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match=message):
        read_sidecar(_write(tmp_path, text))


def test_large_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="larger than 64 KiB"):
        read_sidecar(_write(tmp_path, "#" * (MAX_BYTES + 1)))
    (tmp_path / "latin.yaml").write_bytes("sample:\n  name: Å".encode("latin-1"))
    with pytest.raises(MetadataError, match=":2: is not UTF-8"):
        read_sidecar(tmp_path / "latin.yaml")


def test_empty_files_say_nothing(tmp_path: Path) -> None:
    for text in ("", "# only a comment\n", "sample:\n", "sample: {}\ninstrument:\n", "schema_version: 1.0\n"):
        assert read_sidecar(_write(tmp_path, text)).values() == {}


def test_sidecars_are_found_from_general_to_particular(tmp_path: Path) -> None:
    image = tmp_path / "scan.dm4"
    for name in ("metadata.yaml", "scan.yaml", "scan.dm4.yaml", "other.yaml"):
        _write(tmp_path, "", name)
    assert [path.name for path in find_sidecars(image)] == ["metadata.yaml", "scan.yaml", "scan.dm4.yaml"]
    assert find_sidecars(tmp_path / "elsewhere" / "scan.dm4") == []


def test_precedence_and_notes(tmp_path: Path) -> None:
    """Beside the image before the folder before the file; only contradictions of the file are noted."""
    folder = _write(
        tmp_path, "sample: {formula: Fe3O4, name: grid 1}\ninstrument: {voltage: 200}\n", "metadata.yaml"
    )
    sidecar = _write(tmp_path, "sample: {name: grid 2}\nacquisition: {mode: stem}\n")
    told = _metadata(instrument__voltage=300.0, acquisition__mode="stem", acquisition__date="2020-01-01")
    result = complete(told, [folder, sidecar])
    assert result.values() == {
        "sample.name": "grid 2",
        "sample.formula": "Fe3O4",
        "instrument.voltage": 200.0,
        "acquisition.mode": "stem",
        "acquisition.date": "2020-01-01",
    }
    assert result.sources == {
        "sample.name": "sidecar: scan.yaml",
        "sample.formula": "folder: metadata.yaml",
        "instrument.voltage": "folder: metadata.yaml",
        "acquisition.mode": "sidecar: scan.yaml",
        "acquisition.date": "file: Tag",
    }
    assert result.notes == (
        "instrument.voltage: folder: metadata.yaml says 200.0, file: Tag says 300.0; used the former",
    )
    assert complete(told, []) == told


def test_field_of_view_follows_a_corrected_pixel_size(tmp_path: Path) -> None:
    sidecar = _write(tmp_path, "acquisition: {pixel_size: [0.2, 0.1]}")
    shape = {"provenance.shape": (10, 20)}
    told = Metadata.of(shape, {"provenance.shape": "reader"})
    result = complete(told, [sidecar])
    assert result.get("acquisition.field_of_view") == (2.0, 2.0)
    assert result.sources["acquisition.field_of_view"].startswith("derived")
    view = _write(tmp_path, "acquisition: {field_of_view: [30, 40]}", "view.yaml")
    assert complete(told, [view]).get("acquisition.pixel_size") == (3.0, 2.0)


def test_what_extract_prints_can_be_saved_beside_the_image(tmp_path: Path) -> None:
    values = {
        "sample.name": "yes",
        "sample.formula": "Rh",
        "sample.facet": (1, 1, -1),
        "acquisition.dwell_time": 2.5e-6,
        "people.operator": 'O\'Neil "X": #1',
        "provenance.file": "scan.dm4",
    }
    told = Metadata.of(values, dict.fromkeys(values, "file: A tag: with #"))
    again = read_sidecar(_write(tmp_path, to_yaml(told)))
    del values["provenance.file"]
    assert again.values() == values
