"""stem2d: simulated STEM images of two-dimensional materials.

    atomvision build stem2d --source reference --out build/stem2d
    python dataset_builders/stem2d.py --source reference --out build/stem2d

The engine (`atomvision_hub.data.build`) does shards, splits, card and manifest; here is only what one
crystal becomes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import numpy as np
import pyarrow as pa
from ase import Atoms
from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_serializer,
    model_validator,
)

from atomvision_hub import simulate_stem
from atomvision_hub.cards.citations import ATOMVISION
from atomvision_hub.data import build as engine
from atomvision_hub.data.crystals import Crystals, random_pose
from atomvision_hub.data.png import encode_png
from atomvision_hub.errors import UsageError
from atomvision_hub.records import Record
from atomvision_hub.simulation import StemFrame, disk_mask, to_grey
from atomvision_hub.simulation.acquisition import Acquisition, Digitise, RecordedFrame, record_stem
from atomvision_hub.simulation.arguments import pixel_sizes
from atomvision_hub.simulation.grey import Grey
from atomvision_hub.simulation.multislice import Multislice, PeriodScan, simulate_multislice, stored_scan
from atomvision_hub.simulation.psf import as_psf
from atomvision_hub.simulation.record import (
    AtomColumns,
    DefectColumns,
    DefectiveStemRow,
    PairedStemRow,
    RecordedDefectiveStemRow,
    RecordedStemRow,
    StemRow,
)
from atomvision_hub.structures import (
    DefectiveCrystal,
    add_defects,
    check_crystal,
    flat_layer,
    material_columns,
)
from atomvision_hub.structures.patches import repeats_beyond
from atomvision_hub.structures.record import LATTICES, StructureRow

_DEFECT = ("site", "after", "visible")
_SIMULATION = ("shape", "pixel_size", "z_exponent", "psf", "sigma", "mask_radius")


Share = Annotated[float, Field(ge=0, le=0.3)]


class DefectConfig(BaseModel):
    """Point defects of every image: the share of each kind is drawn between a lowest and a highest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vacancies: tuple[Share, Share] = (0.0, 0.0)
    substitutions: tuple[Share, Share] = (0.0, 0.0)
    antisites: tuple[Share, Share] = (0.0, 0.0)

    def add_to(self, layer: Atoms, size: float, key: str) -> DefectiveCrystal:
        """Return a supercell with defects, none of which comes twice within `size` (Å)."""
        digest = hashlib.blake2b(f"{key}:defects".encode(), digest_size=16).digest()
        generator = np.random.default_rng(int.from_bytes(digest, "big"))
        vacancies, substitutions, antisites = (
            float(generator.uniform(min(limits), max(limits)))
            for limits in (self.vacancies, self.substitutions, self.antisites)
        )
        return add_defects(
            layer,
            vacancies=vacancies,
            substitutions=substitutions,
            # A crystal of one element has nothing to exchange.
            antisites=antisites if len(set(layer.numbers.tolist())) > 1 else 0,
            repeats=repeats_beyond(layer, size),
            seed=generator,
        )


class StemConfig(engine.BuilderConfig):
    """A YAML config: how the images are made."""

    content: Literal["images", "structures"] = "images"
    shape: tuple[PositiveInt, PositiveInt] = Field((256, 256), description="Rows and columns")
    pixel_size: PositiveFloat | tuple[PositiveFloat, PositiveFloat] = Field(
        0.1, description="Å/px, one number or (row, column)"
    )
    z_exponent: float = Field(1.7, description="Intensity of an atom: Z**z_exponent")
    psf: Literal["gaussian", "jarvis"] = "gaussian"
    sigma: float = Field(0.5, gt=0, description="Width of the Gaussian, Å")
    mask_radius: float = Field(0.5, gt=0, description="Radius of an atom's disk in the mask, Å")
    bits: Literal[8, 16] = Field(8, description="Bits of a grey level")
    random_pose: bool = Field(False, description="Random rotation and shift of every image")
    poses: int = Field(1, ge=1, description="Images of each material")
    acquisition: str | list[dict[str, Any]] | None = Field(
        None, description="Name of a preset, or steps, from the ideal image to the recorded one"
    )
    defects: DefectConfig | None = Field(None, description="Point defects, different ones in every image")
    multislice: Multislice | None = Field(
        None, description="Microscope and accuracy of a second image of the same view, by multislice"
    )
    source_size: float | None = Field(
        None, ge=0, description="Width (FWHM) of the electron source in the multislice image, Å"
    )

    @field_validator("acquisition")
    @classmethod
    def _known(cls, given: str | list[dict[str, Any]] | None) -> str | list[dict[str, Any]] | None:
        try:
            _acquisition(given)
        except UsageError as problem:
            raise ValueError(str(problem)) from None
        return given

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.multislice is None:
            if self.source_size is not None:
                raise ValueError("source_size belongs to multislice images; for others use an acquisition")
        elif self.defects is not None or self.acquisition is not None or self.content != "images":
            raise ValueError("multislice images are of ideal crystals: no defects, no acquisition")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, handler: Any) -> dict[str, Any]:
        # An option that is not used is not written, so that folders built before there was one can go on.
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if value is not None}

    def simulation(self) -> dict[str, Any]:
        """Return the arguments of `simulate_stem` that do not change from image to image."""
        return {name: getattr(self, name) for name in _SIMULATION}

    def reach(self) -> float:
        """Return how far outside the view an atom may lie to matter for the image, in Å."""
        reach = float(as_psf(self.psf, self.sigma).reach)
        if (acquisition := _acquisition(self.acquisition)) is not None:
            # And a few pixels, which the interpolation of a drifting scan looks at.
            reach += acquisition.reach(self.field_of_view()) + 8 * max(pixel_sizes(self.pixel_size))
        return reach

    def field_of_view(self) -> tuple[float, float]:
        """Return the height and width of the view in Å."""
        (rows, columns), (dy, dx) = self.shape, pixel_sizes(self.pixel_size)
        return rows * dy, columns * dx

    def tiny(self) -> StemConfig:
        """Return this config with images of 64 x 64 pixels, and rough multislice."""
        changes: dict[str, Any] = {"shape": (64, 64)}
        if self.multislice is not None:
            changes["multislice"] = self.multislice.model_copy(update={"phonons": 1, "box": 8.0})
        return self.model_copy(update=changes)


class StemCrystals(Crystals):
    """Crystals, and where the multislice scans of their periods are kept."""

    options: engine.BuildOptions

    @classmethod
    def open(cls, options: engine.BuildOptions) -> Self:
        """Open the crystals that the options name."""
        crystals = super().open(options)
        crystals.options = options
        return crystals

    def scan(self, layer: Atoms, config: StemConfig, seed: int) -> PeriodScan | None:
        """Return the scan of a crystal's period, calculated once for all builds; none without multislice."""
        if config.multislice is None:
            return None
        return stored_scan(layer, config.multislice, seed=seed, cache=self.options.cache("multislice"))


class Stem2D(engine.DatasetBuilder):
    """The dataset."""

    name = "stem2d"
    script = Path(__file__)
    config_model = StemConfig
    group_column = "formula"
    group_name = "reduced formula"
    card: ClassVar[engine.CardText] = engine.CardText(
        title="AtomVision stem2d: simulated STEM images of 2D materials",
        licence="cc-by-4.0",
        licence_note="Images, masks, atom tables, labels: CC BY 4.0. Structures: as their source says.",
        template="dataset_stem2d.md.j2",
        tags=("materials-science", "electron-microscopy", "stem", "2d-materials", "simulated"),
        task_categories=("image-classification", "image-segmentation"),
        bibtex=(ATOMVISION,),
        label_columns=("lattice_projected", "lattice", "lattice_legacy"),
        classes=LATTICES,
        compare=(
            ("lattice", "lattice_legacy"),
            ("lattice", "lattice_projected"),
            ("lattice_projected", "lattice_legacy"),
        ),
    )

    def record(self, config: StemConfig) -> type[Record]:
        """Return the record of the config's rows."""
        if config.content == "structures":
            return StructureRow
        if config.multislice is not None:
            return PairedStemRow
        if config.defects is None:
            return StemRow if config.acquisition is None else RecordedStemRow
        return DefectiveStemRow if config.acquisition is None else RecordedDefectiveStemRow

    def open(self, options: engine.BuildOptions) -> StemCrystals:
        """Open the sources."""
        return StemCrystals.open(options)

    def rows(self, inputs: StemCrystals, identifier: str, config: StemConfig, seed: int) -> list[Record]:
        """Return the images of one crystal, or its structure."""
        atoms = inputs.structures[identifier]
        check_crystal(atoms)
        layer = flat_layer(atoms)
        material = material_columns(layer)
        if config.content == "structures":
            cell, numbers = np.asarray(layer.cell), layer.numbers.astype(np.uint8)
            return [
                StructureRow(id=identifier, cell=cell, numbers=numbers, positions=layer.positions, **material)
            ]
        scan = inputs.scan(layer, config, seed)
        return [
            stem_row(view, view.frame(config, seed), material, config, seed, scan)
            for view in views(layer, identifier, config, seed)
        ]

    def caption(self, row: Mapping[str, Any]) -> str:
        """Return formula, lattice and size of the view."""
        height, width = (
            length * size for length, size in zip(_shape(row["image"]), row["pixel_size"], strict=True)
        )
        view = " x ".join(f"{length / 10:.2f} nm" for length in {width: 0, height: 0})
        title = f"{row['material_id']}   {LATTICES[row['lattice_projected']].replace('_', ' ')}   {view}"
        return title + (f"   {sum(row['defects']['visible'])} defects" if "defects" in row else "")

    def check(self, table: pa.Table, config: StemConfig) -> Iterator[str]:
        """Yield the rows whose mask does not fit their atoms or whose image has another shape."""
        if config.content != "images":
            return
        columns = ["id", "image", "mask", "mask_radius", "atoms", "pixel_size"]
        columns += ["defects"] * (config.defects is not None)
        columns += ["multislice_image"] * (config.multislice is not None)
        for row in table.select(columns).to_pylist():
            if _shape(row["image"]) != config.shape:
                yield f"row {row['id']}: the image is {_shape(row['image'])}, the config says {config.shape}"
            atoms = {axis: np.asarray(row["atoms"][axis], np.float32) for axis in "xy"}
            disks = disk_mask(atoms["x"], atoms["y"], config.shape, row["pixel_size"], row["mask_radius"])
            if not np.array_equal(np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) > 0, disks):
                yield f"row {row['id']}: the mask does not fit the atom table"
            if config.multislice is not None and _shape(row["multislice_image"]) != config.shape:
                yield f"row {row['id']}: its two images differ in size"
            if config.defects is not None:
                here = dict(zip(row["atoms"]["index"], row["atoms"]["number"], strict=True))
                for site, after, visible in zip(*(row["defects"][k] for k in _DEFECT), strict=True):
                    if here.get(site, 0) != after and (visible or site in here):
                        yield f"row {row['id']}: the defect at site {site} does not fit the atom table"


@dataclass(frozen=True)
class View:
    """A crystal as one image shows it.

    Attributes
    ----------
    name
        Id of the row.
    crystal, rotation, shift
        As of `simulate_stem`.
    made
        What was done to the crystal, if it has defects.
    """

    name: str
    crystal: Atoms
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    made: DefectiveCrystal | None = None

    def frame(self, config: StemConfig, seed: int) -> StemFrame | RecordedFrame:
        """Return the ideal image, or the recorded one if the config has an acquisition."""
        options = {"rotation": self.rotation, "shift": self.shift, **config.simulation()}
        acquisition = _acquisition(config.acquisition)
        if acquisition is None:
            return simulate_stem(self.crystal, **options)
        # Of what the image is, as the pose: it depends neither on other rows nor on the worker.
        digest = hashlib.blake2b(f"{seed}:{self.name}:acquisition".encode(), digest_size=6).digest()
        return record_stem(self.crystal, acquisition, seed=int.from_bytes(digest, "big"), **options)

    def columns(self, config: StemConfig, seed: int) -> dict[str, Any]:
        """Return the columns of a row about the crystal's defects; none for a pristine one."""
        if self.made is None:
            return {}
        # Where the sites lie is asked of an image of the pristine crystal: its table reaches farther.
        wide = config.model_copy(update={"mask_radius": config.reach() + config.mask_radius})
        table = replace(self, crystal=self.made.pristine).frame(wide, seed).atoms
        defects = self.made.defects
        place = np.searchsorted(defects["site"], table["index"]).clip(max=max(len(defects) - 1, 0))
        at = np.flatnonzero(defects["site"][place] == table["index"]) if len(defects) else place[:0]
        changed, seen = defects[place[at]], table[at]
        values = {name: changed[name] for name in ("before", "after", "site")}
        values |= {name: seen[name] for name in ("x", "y", "z", "visible")}
        return {
            "defects": DefectColumns(kind=changed["kind"].astype(np.int64), **values),
            "supercell": np.array(self.made.repeats, dtype=np.int32),
        }


def multislice_columns(view: View, scan: PeriodScan, config: StemConfig) -> dict[str, Any]:
    """Return the columns of a row about the second image of the same view."""
    frame = simulate_multislice(
        view.crystal,
        scan=scan,
        shape=config.shape,
        pixel_size=config.pixel_size,
        rotation=view.rotation,
        shift=view.shift,
        source_size=config.source_size or 0.0,
    )
    grey, scale, offset = to_grey(frame.image, bits=config.bits)
    return {
        "multislice_image": encode_png(grey),
        "multislice_scale": scale,
        "multislice_offset": offset,
        "multislice": json.dumps(frame.parameters()["multislice"], allow_nan=False, ensure_ascii=False),
    }


def views(layer: Atoms, identifier: str, config: StemConfig, seed: int) -> Iterator[View]:
    """Yield what the images of one crystal show."""
    for pose in range(config.poses):
        view = View(identifier if config.poses == 1 else f"{identifier}@{pose}", layer)
        if config.random_pose:
            rotation, shift = random_pose(seed, identifier, pose, layer.cell[:2, :2])
            view = replace(view, rotation=rotation, shift=shift)
        if config.defects is not None:
            size = math.hypot(*config.field_of_view()) + 2 * (config.reach() + config.mask_radius)
            made = config.defects.add_to(layer, size, f"{seed}:{identifier}:{pose}")
            view = replace(view, crystal=made.atoms, made=made)
        yield view


def stem_row(
    view: View,
    frame: StemFrame | RecordedFrame,
    material: Mapping[str, Any],
    config: StemConfig,
    seed: int,
    scan: PeriodScan | None = None,
) -> StemRow:
    """Return an image with its targets as a row."""
    grey, scale, offset = _levels(frame, config.bits)
    atoms = {name: frame.atoms[name] for name in AtomColumns.model_fields}
    if view.made is not None:
        atoms["index"] = view.made.sites[atoms["index"]].astype(np.int32)
    columns = {
        "id": view.name,
        "image": encode_png(grey),
        "intensity_scale": scale,
        "intensity_offset": offset,
        "mask": encode_png(frame.mask),
        "atoms": AtomColumns(**atoms),
        **frame.parameters(),
        **view.columns(config, seed),
        **material,
    }
    if isinstance(frame, RecordedFrame):
        columns["unit"] = frame.recorded.acquisition.unit
    if scan is not None:
        columns |= multislice_columns(view, scan, config)
    return cast("StemRow", BUILDER.record(config)(**columns))


def _levels(frame: StemFrame | RecordedFrame, bits: Literal[8, 16]) -> tuple[Grey, float, float]:
    """Return grey levels, scale and offset; what was digitised in the recording is not scaled again."""
    digitise = frame.recorded.acquisition.step("digitise") if isinstance(frame, RecordedFrame) else None
    if not (isinstance(frame, RecordedFrame) and isinstance(digitise, Digitise) and digitise.bits):
        return to_grey(frame.image, bits=bits)
    notes = frame.recorded.notes
    grey: Grey = frame.image.astype(np.uint8) if digitise.bits <= 8 else frame.image.astype(np.uint16)
    return grey, notes["level_scale"], notes["level_offset"]


def _acquisition(given: str | list[dict[str, Any]] | None) -> Acquisition | None:
    if given is None or isinstance(given, str):
        return None if given is None else Acquisition.preset(given)
    return Acquisition.from_dict(given)


def _shape(image: Mapping[str, Any]) -> tuple[int, int]:
    width, height = Image.open(io.BytesIO(image["bytes"])).size
    return height, width


BUILDER = Stem2D()


def build(options: engine.BuildOptions) -> engine.BuildReport:
    """Build the dataset."""
    return engine.run_build(BUILDER, options)


if __name__ == "__main__":
    from atomvision_hub.cli import run_builder_script

    run_builder_script(__file__)
