"""stm2d: simulated STM images of two-dimensional materials (Tersoff and Hamann).

    atomvision build stm2d --source reference --out build/stm2d
    python dataset_builders/stm2d.py --source reference --out build/stm2d

Three kinds of sources, each with its configs: crystals (density of states shipped, cached or computed by
GPAW; or the geometric surrogate), volumes that other codes wrote (``--config volumes``), and the published
JARVIS-STM images (``--source jarvis:stm --config published``).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import ase
import pyarrow as pa
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt

from atomvision_hub._files import sha256_file
from atomvision_hub.cards.citations import ATOMVISION, TERSOFF_HAMANN
from atomvision_hub.data import build as engine
from atomvision_hub.data.crystals import Crystals, random_pose
from atomvision_hub.data.png import encode_png
from atomvision_hub.errors import CrystalError, MissingExtraError, UsageError
from atomvision_hub.records import Column, Record
from atomvision_hub.simulation import jarvis_stm, to_grey
from atomvision_hub.simulation.stm import BiasReference, LocalDensity, Mode, simulate_stm, surrogate_density
from atomvision_hub.simulation.stm.record import MODES, StmRow
from atomvision_hub.simulation.stm_library import local_densities
from atomvision_hub.simulation.stm_recipe import Recipe
from atomvision_hub.simulation.stm_volumes import density_of, notes_path, volume_files
from atomvision_hub.structures import check_crystal, flat_layer, material_columns
from atomvision_hub.structures.formula import reduced_formula
from atomvision_hub.structures.volumes import read_volume

#: A density that is nowhere above this (e/Å^3) holds no states, only the tails of the window's smooth edges.
_NO_STATES = 1e-9
_NOT_STATED = "not stated (files given by the user)"


class StmConfig(engine.BuilderConfig):
    """A YAML config: what is imaged and how."""

    content: Literal["crystals", "volumes", "published"] = "crystals"
    engine: Literal["gpaw", "surrogate"] = "gpaw"
    biases: tuple[float, ...] = Field((0.5, -0.5), min_length=1, description="Sample biases, V")
    bias_reference: BiasReference = "band_edge"
    bias: float | None = Field(None, description="Bias of volumes without a YAML beside them, V")
    modes: tuple[Mode, ...] = Field(get_args(Mode), min_length=1)
    height: float = Field(2.0, description="Å above the topmost atom")
    shape: tuple[PositiveInt, PositiveInt] = Field((256, 256), description="Rows and columns")
    pixel_size: PositiveFloat | tuple[PositiveFloat, PositiveFloat] = Field(
        0.1, description="Å/px, one number or (row, column)"
    )
    bits: Literal[8, 16] = Field(8, description="Bits of a grey level")
    random_pose: bool = Field(False, description="Random rotation and shift of every material")
    poses: int = Field(1, ge=1, description="Poses of each material")
    recipe: Recipe = Field(Recipe(), description="Numerical parameters of GPAW")
    items_per_shard: int = Field(
        16, ge=1, description="Inputs per Parquet file; a computed one takes minutes"
    )

    def tiny(self) -> StmConfig:
        """Return this config with images of 64 x 64 pixels."""
        return self.model_copy(update={"shape": (64, 64)})


class PublishedRow(Record):
    """One published image: pixels and what the archive's names say, no scale."""

    id: Annotated[str, Column("string", "Unique row identifier")]
    image: Annotated[bytes, Column("image", "The published JPEG, unchanged: a picture without a scale")]
    sign: Annotated[
        int, Column("class_label", "Sign of the bias, as the file's name says", names=jarvis_stm.SIGNS)
    ]
    material_id: Annotated[str, Column("string", "JARVIS identifier of the material")]
    formula: Annotated[
        str, Column("string", "Group of the split: the JARVIS identifier, as formulas are not published here")
    ]
    mode: Annotated[int, Column("class_label", "What the tip kept constant, by the publication", names=MODES)]
    lattice_published: Annotated[str | None, Column("string", "Lattice type as published", nullable=True)]
    source: Annotated[str, Column("string", "Where the image comes from")]
    source_id: Annotated[str, Column("string", "Identifier of the image at its source")]


class StmCrystals(Crystals):
    """Crystals, and the folder where their computed densities of states are kept."""

    cache: Path | None = None


class Volumes(engine.Inputs):
    """Volume files: those named, and those in folders that are named."""

    def __init__(self, sources: Sequence[str], limit: int | None) -> None:
        self.files: dict[str, Path] = {}
        self._source: dict[str, str] = {}
        self._facts: list[engine.SourceFacts] = []
        for source in map(Path, sources):
            found = volume_files(source)
            digest = hashlib.sha256()
            for path in found:
                relative = path.relative_to(source) if source.is_dir() else Path(path.name)
                notes = notes_path(path)
                sums = [sha256_file(file) for file in (path, notes) if file.is_file()]
                digest.update(f"{relative.as_posix()} {' '.join(sums)}\n".encode())
                if limit is None or len(self.files) < limit:
                    identifier = re.sub(r"[^A-Za-z0-9._+-]+", "-", relative.as_posix()).strip("-.")
                    if identifier in self.files:
                        raise UsageError(f"two volumes have the identifier {identifier!r}; rename {path}")
                    self.files[identifier] = path
                    self._source[identifier] = f"files:{source.name}"
            self._facts.append(
                engine.SourceFacts(
                    name=f"files:{source.name}",
                    description=f"{len(found)} volume file{'s' * (len(found) != 1)} given by the user",
                    citation=_NOT_STATED,
                    licence=_NOT_STATED,
                    url="",
                    version=digest.hexdigest(),
                )
            )

    def items(self) -> Iterator[engine.Item | engine.Rejection]:
        """Return all volumes; the group is the reduced formula."""
        for identifier, path in self.files.items():
            try:
                formula = reduced_formula(read_volume(path).atoms.numbers.tolist())
                yield engine.Item(identifier, formula, self._source[identifier])
            except CrystalError as problem:
                yield engine.Rejection(identifier, self._source[identifier], problem.step, problem.reason)

    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return nothing: one crystal may have volumes of several biases."""
        return {}

    def source_of(self, identifier: str) -> str:
        """Return the name of a volume's source."""
        return self._source[identifier]

    def sources(self) -> list[engine.SourceFacts]:
        """Return the provenance of all sources."""
        return self._facts


class Published(engine.Inputs):
    """The published JARVIS-STM images."""

    name = "jarvis:stm"

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.images = jarvis_stm.PublishedStm(folder)
        self.ids = {name.replace("@", "-"): name for name in self.images.ids[:limit]}

    def items(self) -> Iterator[engine.Item]:
        """Return all images; both signs of a material are one group."""
        for identifier, name in self.ids.items():
            yield engine.Item(identifier, self.images.material(name), self.name)

    def duplicates(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return nothing: images are kept as published."""
        return {}

    def source_of(self, identifier: str) -> str:
        """Return the name of the source."""
        return self.name

    def sources(self) -> list[engine.SourceFacts]:
        """Return the provenance."""
        return [
            engine.SourceFacts(
                name=self.name,
                description=jarvis_stm.DESCRIPTION,
                citation=jarvis_stm.CITATION,
                licence="not stated in the files; see the publication before passing images on",
                url="https://doi.org/10.1038/s41597-021-00824-y",
                version=self.images.version(),
            )
        ]


class Stm2D(engine.DatasetBuilder):
    """The dataset."""

    name = "stm2d"
    script = Path(__file__)
    config_model = StmConfig
    group_column = "formula"
    group_name = "reduced formula"
    card: ClassVar[engine.CardText] = engine.CardText(
        title="AtomVision stm2d: simulated STM images of 2D materials",
        licence="cc-by-4.0",
        licence_note="Images made here: CC BY 4.0. All else (structures, volumes, ...): as its source says.",
        template="dataset_stm2d.md.j2",
        tags=("materials-science", "scanning-tunneling-microscopy", "stm", "2d-materials", "simulated"),
        task_categories=("image-classification",),
        bibtex=(ATOMVISION, TERSOFF_HAMANN),
        count_columns=("engine", "mode", "lattice"),
    )

    def record(self, config: StmConfig) -> type[Record]:
        """Return the record of the config's rows."""
        return PublishedRow if config.content == "published" else StmRow

    def open(self, options: engine.BuildOptions) -> engine.Inputs:
        """Open the sources; all of them are of one kind."""
        kinds = {_kind(source) for source in options.sources}
        if len(kinds) > 1:
            raise UsageError(
                f"sources of several kinds ({', '.join(sorted(kinds))}); build one folder for each"
            )
        if kinds == {"volumes"}:
            return Volumes(options.sources, options.limit)
        if kinds == {"published"}:
            return Published(options.store_dir or options.cache("jarvis-stm"), options.limit)
        crystals = StmCrystals.open(options)
        crystals.cache = options.cache("stm")
        return crystals

    def rows(self, inputs: Any, identifier: str, config: StmConfig, seed: int) -> list[Record]:
        """Return the images of one crystal or volume, or one published image."""
        if isinstance(inputs, StmCrystals) and config.content == "crystals":
            atoms = inputs.structures[identifier]
            check_crystal(atoms)
            layer = flat_layer(atoms)
            return _images(identifier, layer, _computed(layer, config, inputs.cache), config, seed)
        if isinstance(inputs, Volumes) and config.content == "volumes":
            return _volume_rows(inputs, identifier, config, seed)
        if isinstance(inputs, Published) and config.content == "published":
            return [_published_row(inputs, identifier)]
        volumes = isinstance(inputs, Volumes)
        kind = "volumes" if volumes else "published" if isinstance(inputs, Published) else "crystals"
        raise UsageError(
            f"this config is for {config.content}, the source gives {kind}: use --config "
            f"{'default' if kind == 'crystals' else kind}"
        )

    def caption(self, row: Mapping[str, Any]) -> str:
        """Return material, bias and mode; that a surrogate is one comes first."""
        if "sign" in row:
            return f"{row['material_id']}   {jarvis_stm.SIGNS[row['sign']]} bias"
        what = MODES[row["mode"]].replace("_", " ")
        if row["surrogate"]:
            return f"SURROGATE   {row['material_id']}   {what}"
        return f"{row['material_id']}   {row['bias']:+g} V   {what}"

    def check(self, table: pa.Table, config: StmConfig) -> Iterator[str]:
        """Yield the rows that are no image of the config's size, or are surrogates where none may be."""
        if config.content == "published":
            return
        for row in table.select(["id", "image", "surrogate"]).to_pylist():
            width, height = Image.open(io.BytesIO(row["image"]["bytes"])).size
            if (height, width) != config.shape:
                yield f"row {row['id']}: the image is {(height, width)}, the config says {config.shape}"
            if row["surrogate"] != (config.engine == "surrogate" and config.content == "crystals"):
                yield f"row {row['id']}: surrogates and computed states are never mixed"


def _kind(source: str) -> str:
    if source == Published.name:
        return "published"
    return "volumes" if Path(source).exists() and volume_files(Path(source)) else "crystals"


def _computed(layer: ase.Atoms, config: StmConfig, cache: Path | None) -> list[LocalDensity]:
    if config.engine == "surrogate":
        return [surrogate_density(layer)]
    try:
        densities = local_densities(
            layer, config.biases, config.bias_reference, recipe=config.recipe, cache=cache
        )
    except MissingExtraError as problem:
        raise CrystalError(f"not shipped, not cached: {problem}", step="engine") from None
    for density in densities:
        if density.values[..., density.heights >= 0].max() < _NO_STATES:
            raise CrystalError(
                f"no states within the window of {density.bias:+g} V from the {config.bias_reference}",
                step="states",
            )
    return densities


def _volume_rows(inputs: Volumes, identifier: str, config: StmConfig, seed: int) -> list[Record]:
    path = inputs.files[identifier]
    volume = read_volume(path)
    check_crystal(volume.atoms)
    density = density_of(path, volume, config.bias)
    layer = flat_layer(volume.atoms)
    layer.info.update(material_id=identifier, source=inputs.source_of(identifier), source_id=path.name)
    return _images(identifier, layer, [density], config, seed)


def _images(
    identifier: str, layer: ase.Atoms, densities: Sequence[LocalDensity], config: StmConfig, seed: int
) -> list[Record]:
    """Return a row for each pose, density and mode."""
    material = material_columns(layer)
    rows: list[Record] = []
    for pose in range(config.poses):
        rotation, shift = 0.0, (0.0, 0.0)
        if config.random_pose:
            rotation, shift = random_pose(seed, identifier, pose, layer.cell[:2, :2])
        for density in densities:
            for mode in config.modes:
                try:
                    frame = simulate_stm(
                        density,
                        mode=mode,
                        height=config.height,
                        shape=config.shape,
                        pixel_size=config.pixel_size,
                        rotation=rotation,
                        shift=shift,
                    )
                except UsageError as problem:
                    raise CrystalError(str(problem), step="image") from None
                grey, scale, offset = to_grey(frame.image, bits=config.bits)
                what = "surrogate" if density.bias is None else f"{density.bias:+g}V"
                name = f"{identifier}@{what}-{mode.removeprefix('constant_')}"
                rows.append(
                    StmRow(
                        id=name if config.poses == 1 else f"{name}@{pose}",
                        image=encode_png(grey),
                        intensity_scale=scale,
                        intensity_offset=offset,
                        **frame.parameters(),
                        **material,
                    )
                )
    return rows


def _published_row(inputs: Published, identifier: str) -> PublishedRow:
    name = inputs.ids[identifier]
    material = inputs.images.material(name)
    return PublishedRow(
        id=identifier,
        image=inputs.images.image(name),
        sign=jarvis_stm.SIGNS.index(inputs.images.sign(name)),
        material_id=material,
        formula=material,
        mode=MODES.index("constant_height"),
        lattice_published=inputs.images.lattice(name),
        source=Published.name,
        source_id=name,
    )


BUILDER = Stm2D()


def build(options: engine.BuildOptions) -> engine.BuildReport:
    """Build the dataset."""
    return engine.run_build(BUILDER, options)


if __name__ == "__main__":
    from atomvision_hub.cli import run_builder_script

    run_builder_script(__file__)
