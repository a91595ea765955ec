"""What an instrument file tells about its image, in the terms of the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from atomvision_hub.microscopy.metadata.schema import Metadata
from atomvision_hub.microscopy.metadata.tags import TABLES, Rule, moment

#: A date such as 3/4/2016, which may be of March or April.
_AMBIGUOUS_DATE = "DataBar.Acquisition Date"
_MAX_DEPTH = 40


class Image(Protocol):
    """What `extract` needs to know of a `MicroscopeImage`."""

    @property
    def data(self) -> Any:
        """Pixels [row, column]."""

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Å/px (row, column), `None` where the file has no calibration."""

    @property
    def name(self) -> str:
        """Detector or frame."""

    @property
    def index(self) -> int:
        """Number in the file."""

    @property
    def file(self) -> Path:
        """Where it was read from."""

    @property
    def sha256(self) -> str:
        """Checksum of the file."""

    @property
    def reader(self) -> str:
        """Reader and version."""

    @property
    def original(self) -> Mapping[str, Any]:
        """All tags of the file as nested mappings."""

    @property
    def kind(self) -> str | None:
        """What the reader found the image to be (``"stem"``, ``"diffraction"``, ...)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader found odd."""


def extract(image: Image) -> Metadata:
    """Return what the file of an image tells, in the units of the schema; what it does not stays unknown.

    Parameters
    ----------
    image
        An image as the readers give it.
    """
    tags = dict(flatten(image.original.get("original_metadata", image.original)))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    notes = list(image.notes)
    for rules in TABLES.values():
        for rule in rules:
            if rule.field not in values and (found := _find(rule, tags)) is not None:
                tag, values[rule.field] = found
                sources[rule.field] = f"file: {tag}"
    _nanonis(tags, values, sources)
    if "acquisition.date" not in values and any(_ends(tag, _AMBIGUOUS_DATE) for tag in tags):
        notes.append("the file's date does not say which number is the month: add acquisition.date by hand")
    for path, value, origin in _reader_facts(image, values):
        values[path], sources[path] = value, origin
    return _validated(values, sources, notes)


def flatten(tree: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield all entries of nested mappings under dotted tags."""
    for key, entry in tree.items():
        tag = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(entry, Mapping) and depth < _MAX_DEPTH:
            yield from flatten(entry, tag, depth + 1)
        else:
            yield tag, entry


def _ends(tag: str, ending: str) -> bool:
    return tag == ending or tag.endswith("." + ending)


def _find(rule: Rule, tags: Mapping[str, Any]) -> tuple[str, Any] | None:
    for tag, entry in tags.items():
        if _ends(tag, rule.tag) and (value := rule.convert(entry)) is not None:
            return rule.tag, value
    return None


def _nanonis(tags: Mapping[str, Any], values: dict[str, Any], sources: dict[str, str]) -> None:
    """Add what two entries of a Nanonis header say together: the moment, and what the feedback does."""
    last = {tag.rsplit(".", 1)[-1]: entry for tag, entry in tags.items()}
    if "REC_DATE" in last and "REC_TIME" in last:
        when = moment("%d.%m.%Y %H:%M:%S")(f"{last['REC_DATE']} {last['REC_TIME']}")
        if when is not None:
            values["acquisition.date"], sources["acquisition.date"] = when, "file: REC_DATE, REC_TIME"
    controller = {
        tag.rsplit(".", 1)[-1]: entry for tag, entry in tags.items() if ".Z-CONTROLLER." in f".{tag}"
    }
    if "current" in str(controller.get("Name", "")).lower() and "scan_probe.bias" in values:
        values["instrument.kind"], sources["instrument.kind"] = "stm", "file: Z-CONTROLLER.Name"
        mode = {"1": "constant_current", "0": "constant_height"}.get(str(controller.get("on", "")).strip())
        if mode is not None:
            values["scan_probe.mode"], sources["scan_probe.mode"] = mode, "file: Z-CONTROLLER.on"


def _reader_facts(image: Image, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield what the reader knows: calibration, kind, and where the pixels come from."""
    rows, columns = (int(length) for length in image.data.shape[:2])
    # An axis in 1/nm is a diffraction pattern whatever the microscope says of itself.
    if image.kind == "diffraction" or (image.kind and "acquisition.mode" not in values):
        yield "acquisition.mode", image.kind, "reader: kind of the image"
    if image.name and "acquisition.detector" not in values and image.kind == "stm":
        yield "acquisition.detector", image.name, "reader: name of the image"
    if image.pixel_size is not None:
        height, width = (float(size) for size in image.pixel_size)
        yield "acquisition.pixel_size", (height, width), "reader: pixel size"
        yield (
            "acquisition.field_of_view",
            (rows * height, columns * width),
            "derived: pixel size times rows and columns",
        )
    facts = {
        "file": Path(image.file).name,
        "sha256": image.sha256,
        "image": image.name or None,
        "index": image.index,
        "shape": (rows, columns),
        "reader": image.reader,
    }
    for name, value in facts.items():
        if value is not None:
            yield f"provenance.{name}", value, "reader"


def _validated(values: dict[str, Any], sources: dict[str, str], notes: list[str]) -> Metadata:
    """Return the metadata; entries that the schema refuses become notes."""
    try:
        return Metadata.of(values, sources, tuple(dict.fromkeys(notes)))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            path = ".".join(str(part) for part in problem["loc"][:2])
            if path not in values:
                raise
            notes.append(f"{path}: the file's {values.pop(path)!r} was not used ({sources.pop(path)})")
        return _validated(values, sources, notes)
