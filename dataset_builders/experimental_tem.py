"""experimental_tem: images from real microscopes with their metadata.

    atomvision build experimental_tem --source my_images/ --out build/experimental_tem
    python dataset_builders/experimental_tem.py --source my_images/ --out build/experimental_tem

A source is an instrument file or a folder of them. What people write beside an image (``image.dm4.yaml``) or
for a folder (``metadata.yaml``) completes what the file tells; ``atomvision metadata template`` gives a form.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field, PositiveInt

from atomvision_hub._files import sha256_file
from atomvision_hub.cards.citations import ATOMVISION
from atomvision_hub.data import build as engine
from atomvision_hub.data.png import encode_png
from atomvision_hub.errors import UsageError
from atomvision_hub.microscopy import FORMATS, MicroscopeImage, MicroscopyError, companions, read_images
from atomvision_hub.microscopy.metadata import Metadata, MetadataError, complete, extract, find_sidecars
from atomvision_hub.microscopy.record import ExperimentalRow, row_of
from atomvision_hub.microscopy.view import decode_raw, encode_raw, to_view

_SIDECARS = (".yaml", ".yml")


class ExperimentalConfig(engine.BuilderConfig):
    """A YAML config: which images become rows."""

    calibrated_only: bool = Field(False, description="Only images whose pixel size is known")
    diffraction: Literal["keep", "refuse"] = Field("keep", description="Diffraction patterns")
    max_frames: PositiveInt | None = Field(
        64, description="Frames of a stack that become rows, the first ones"
    )
    operators: Literal["drop", "keep"] = Field(
        "drop", description="Names of people that only the files tell, whom nobody asked"
    )
    clip: float = Field(0.1, ge=0, lt=50, description="% of the pixels that the view clips at each end")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an input lies: its file, its source, and its path inside the source."""

    file: Path
    source: str
    relative: Path

    def identifier(self) -> str:
        """Return the path as an identifier."""
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(self.relative.parts)).lstrip(".") or "file"

    def default_specimen(self) -> str:
        """Return what stands for a specimen without a name: its folder, or the file alone."""
        folder = self.relative.parent
        return folder.as_posix() if folder.parts else re.sub(r"_\d+$", "", self.file.stem)


class Files(engine.Inputs):
    """The instrument files of a build.

    Parameters
    ----------
    sources
        Files and folders.
    limit
        Use only the first files.
    """

    def __init__(self, sources: Sequence[str], limit: int | None = None) -> None:
        self._sources: list[tuple[Path, str]] = []
        self.places: dict[str, Place] = {}
        self._strangers: list[engine.Rejection] = []
        for source in sources:
            path = Path(source.removeprefix("files:")).expanduser()
            if not path.exists():
                raise UsageError(f"{source}: no such file or folder; give a folder of instrument files")
            name = f"files:{path.name or path.resolve().name}"
            self._sources.append((path, name))
            for place in _places(path, name):
                if limit is None or len(self.places) < limit:
                    self._add(place)

    def _add(self, place: Place) -> None:
        identifier, number = place.identifier(), 2
        while identifier in self.places:
            identifier, number = f"{place.identifier()}+{number}", number + 1
        if place.file.suffix.lower() in FORMATS:
            self.places[identifier] = place
            return
        known = " ".join(sorted(FORMATS))
        reason = f"{place.file.name} is no instrument file that is read here (known: {known})"
        self._strangers.append(engine.Rejection(identifier, place.source, "format", reason))

    def items(self) -> Iterator[engine.Item | engine.Rejection]:
        """Return all files; each is opened once here, for the name of its specimen decides the split."""
        yield from self._strangers
        for identifier, place in self.places.items():
            try:
                first = read_images(place.file, max_frames=1)[0]
                group = specimen_of(described(first), place)
            except MicroscopyError as problem:
                yield engine.Rejection(identifier, place.source, problem.step, problem.reason)
            else:
                yield engine.Item(identifier, group, place.source)

    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return copies of a file -> the one that is kept."""
        first: dict[str, str] = {}
        kept = {identifier: first.setdefault(self._checksums[identifier], identifier) for identifier in ids}
        return {identifier: original for identifier, original in kept.items() if identifier != original}

    def source_of(self, identifier: str) -> str:
        """Return the name of an input's source."""
        return self.places[identifier].source

    def sources(self) -> list[engine.SourceFacts]:
        """Return the provenance; the version is the SHA-256 of all names and contents, sidecars included."""
        facts = []
        for path, name in self._sources:
            mine = {i: place for i, place in self.places.items() if place.source == name}
            digest = hashlib.sha256()
            for identifier, place in mine.items():
                files = [*companions(place.file), *find_sidecars(place.file)]
                digest.update(f"{identifier} {self._checksums[identifier]}\n".encode())
                digest.update("".join(f"{file.name} {sha256_file(file)}\n" for file in files).encode())
            facts.append(
                engine.SourceFacts(
                    name=name,
                    description=f"{len(mine)} instrument file(s) given by the user ({path.name})",
                    citation="as the metadata of each row say",
                    licence="as the column `licence` says; unknown where it is empty",
                    url="",
                    version=digest.hexdigest(),
                )
            )
        return facts

    @cached_property
    def _checksums(self) -> dict[str, str]:
        return {identifier: sha256_file(place.file) for identifier, place in self.places.items()}


def _places(path: Path, source: str) -> Iterator[Place]:
    if path.is_file():
        yield Place(path, source, Path(path.name))
        return
    files = sorted((f for f in path.rglob("*") if f.is_file()), key=lambda f: f.relative_to(path).parts)
    headers = [file for file in files if file.suffix.lower() == ".emi"]
    covered = {companion for header in headers for companion in companions(header)}
    for file in files:
        relative = file.relative_to(path)
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and file not in covered and file.suffix.lower() not in _SIDECARS:
            yield Place(file, source, relative)


class ExperimentalTem(engine.DatasetBuilder):
    """The dataset."""

    name = "experimental_tem"
    script = Path(__file__)
    config_model = ExperimentalConfig
    group_column = "specimen"
    group_name = "specimen"
    libraries = ("rosettasciio", "tifffile")
    card: ClassVar[engine.CardText] = engine.CardText(
        title="AtomVision experimental_tem: microscope images with their metadata",
        licence="other",
        licence_note="Images are under the licence that the row names; where it names none, ask its owner.",
        template="dataset_experimental_tem.md.j2",
        tags=("materials-science", "electron-microscopy", "tem", "stem", "stm", "experimental", "metadata"),
        task_categories=("image-classification",),
        bibtex=(ATOMVISION,),
        count_columns=("mode", "calibrated", "formula", "instrument", "licence"),
    )

    def record(self, config: ExperimentalConfig) -> type[ExperimentalRow]:
        """Return the record of the rows."""
        return ExperimentalRow

    def open(self, options: engine.BuildOptions) -> Files:
        """Find the files."""
        return Files(options.sources, options.limit)

    def rows(
        self, inputs: Files, identifier: str, config: ExperimentalConfig, seed: int
    ) -> list[ExperimentalRow]:
        """Return the images of one file."""
        place = inputs.places[identifier]
        images = read_images(place.file, max_frames=config.max_frames)
        rows = []
        for image in images:
            metadata = described(image)
            if config.operators == "drop":
                metadata = without_operator(metadata)
            if _wanted(image, metadata, config):
                view = to_view(image.data, config.clip)
                name = identifier if len(images) == 1 else f"{identifier}@{image.index}"
                specimen = specimen_of(metadata, place)
                png, raw = encode_png(view.grey), encode_raw(image.data)
                rows.append(row_of(name, image, metadata, specimen, view, png, raw))
        if not rows:
            reason = (
                f"{place.file.name} has no real-space image with a pixel size; write it into a YAML beside it"
            )
            if not config.calibrated_only:
                reason = f"{place.file.name} holds a diffraction pattern, which this config refuses"
            raise MicroscopyError(reason, step="calibration" if config.calibrated_only else "content")
        return rows

    def caption(self, row: Mapping[str, Any]) -> str:
        """Return material or file, mode and width of the view."""
        what = row["formula"] or row["material"] or row["file"]
        view = row["field_of_view"]
        width = "no scale" if view is None else length(view[1])
        return "   ".join(part for part in (what[:24], row["mode"], width) if part)

    def check(self, table: pa.Table, config: ExperimentalConfig) -> Iterator[str]:
        """Yield the rows whose view does not follow from the raw image or whose metadata are invalid."""
        for row in table.to_pylist():
            raw = decode_raw(row["raw"])
            if raw.dtype.name != row["dtype"] or list(raw.shape) != row["shape"]:
                yield f"row {row['id']}: raw is {raw.dtype} {raw.shape}, not {row['dtype']} {row['shape']}"
                continue
            view = to_view(raw, config.clip)
            if not np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), view.grey):
                yield f"row {row['id']}: the image is not the view of its raw intensities"
            try:
                Metadata.model_validate_json(row["metadata"])
            except ValueError as problem:
                told = str(problem).splitlines()[0]
                yield f"row {row['id']}: its metadata do not follow the schema ({told})"


def described(image: MicroscopeImage) -> Metadata:
    """Return what the file of an image tells, completed by the YAML files beside it.

    Raises
    ------
    MicroscopyError
        With step ``"metadata"`` when one of these does not follow the schema.
    """
    try:
        return complete(extract(image), find_sidecars(image.file))
    except MetadataError as problem:
        told = "; ".join(str(dataclasses.replace(one, file=Path(one.file.name))) for one in problem.problems)
        raise MicroscopyError(told, step="metadata") from None


def without_operator(metadata: Metadata) -> Metadata:
    """Return metadata without the name of an operator that a tag of the file gives: nobody asked this person.

    What a person wrote beside the image stays.
    """
    field = "people.operator"
    if not metadata.sources.get(field, "").startswith("file:"):
        return metadata
    values = {path: value for path, value in metadata.values().items() if path != field}
    sources = {path: origin for path, origin in metadata.sources.items() if path != field}
    return Metadata.of(values, sources, metadata.notes)


def specimen_of(metadata: Metadata, place: Place) -> str:
    """Return the group of an image: the name of its specimen, else its folder or file."""
    return metadata.sample.name or place.default_specimen()


def length(angstrom: float) -> str:
    """Return a length in the unit that suits it."""
    for unit, size in (("mm", 1e7), ("µm", 1e4), ("nm", 10.0)):
        if angstrom >= size:
            return f"{angstrom / size:.3g} {unit}"
    return f"{angstrom:.3g} Å"


def _wanted(image: MicroscopeImage, metadata: Metadata, config: ExperimentalConfig) -> bool:
    if image.kind == "diffraction":
        return config.diffraction == "keep" and not config.calibrated_only
    return metadata.acquisition.pixel_size is not None or not config.calibrated_only


BUILDER = ExperimentalTem()


def build(options: engine.BuildOptions) -> engine.BuildReport:
    """Build the dataset."""
    return engine.run_build(BUILDER, options)


if __name__ == "__main__":
    from atomvision_hub.cli import run_builder_script

    run_builder_script(__file__)
