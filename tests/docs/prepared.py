"""Files that pages speak of as the reader's own: scans, crystals, downloads, models, folders of images."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.io import write
from PIL import Image

from atomvision_hub import load_structures
from atomvision_hub.data import BuildOptions, load_builder
from atomvision_hub.microscopy import write_demo_file
from atomvision_hub.models.pretrained import pretrained_folder
from atomvision_hub.simulation import simulate_stem, to_grey
from atomvision_hub.simulation.acquisition import record_stem

#: Names of the downloads of jarvis-tools.
_DATABASES = {
    "twod_matpd": "twodmatpd.json",
    "alex_pbe_2d_all": "alexandria_pbe_2d_2024.10.1_jarvis_tools.json",
}


def scan(
    path: Path, crystal: str = "MoS2", pixel_size: float = 0.1, shape: tuple[int, int] = (256, 256)
) -> Path:
    """Write a micrograph as TIFF with its calibration: 5,000 electrons per Å²."""
    made = record_stem(
        load_structures("reference")[crystal], "good", shape=shape, pixel_size=pixel_size, seed=1
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_demo_file(path, made.image.astype("uint8"), made.ideal.pixel_size)


def _scans(folder: Path) -> None:
    """Scans as `docs/micrographs.md` and `docs/spacings.md` name them, their twins as TIFF; a crystal."""
    scan(folder / "scan.tif", pixel_size=0.12)
    scan(folder / "particles.tif", shape=(1200, 1760))
    scan(folder / "folder" / "one.tif")
    scan(folder / "folder" / "two.tif", "FeSe")
    write(folder / "my.cif", load_structures("reference")["MoS2"])


def _classes(folder: Path, parts: tuple[str, ...]) -> None:
    """Write folders of a few images, one folder a class."""
    crystals = load_structures("reference")
    for part, (name, label) in itertools.product(parts, (("MoS2", "hexagonal"), ("FeTe", "square"))):
        (folder / part / label).mkdir(parents=True)
        for turn in (0, 20, 40):
            frame = simulate_stem(crystals[name], shape=(64, 64), pixel_size=0.2, rotation=turn)
            Image.fromarray(to_grey(frame.image)[0]).save(folder / part / label / f"{turn}.png")


def _masks(folder: Path) -> None:
    """Write images with masks of equal names; images alone are read from the same folders."""
    crystals = load_structures("reference")
    for part, name in itertools.product(("train", "test"), ("MoS2", "FeTe")):
        for inner in ("images", "masks"):
            (folder / "data" / part / inner).mkdir(parents=True, exist_ok=True)
        for turn in (0, 20, 40):
            frame = simulate_stem(crystals[name], shape=(64, 64), pixel_size=0.2, rotation=turn)
            file = f"{name}-{turn}.png"
            Image.fromarray(to_grey(frame.image)[0]).save(folder / "data" / part / "images" / file)
            Image.fromarray(frame.mask.astype(np.uint8) * 255).save(folder / "data" / part / "masks" / file)


def _downloads(folder: Path) -> None:
    """Write two downloads of jarvis-tools with a few crystals, and a cluster of this machine."""
    (folder / "jarvis").mkdir()
    crystals = load_structures("reference")
    names = list(crystals)[:24]
    for file in _DATABASES.values():
        entries = [_entry(f"entry-{number}", crystals[name]) for number, name in enumerate(names)]
        with zipfile.ZipFile(folder / "jarvis" / f"{file}.zip", "w") as archive:
            archive.writestr(file, json.dumps(entries))
    (folder / "slurm.yaml").write_text("queue: local\njobs: 1\n", encoding="utf-8")


def _training(folder: Path) -> None:
    _downloads(folder)
    _classes(folder / "images", ("train", "test"))


def _entry(name: str, crystal: object) -> dict[str, object]:
    """Return a crystal in the layout of jarvis-tools."""
    from jarvis.core.atoms import ase_to_atoms

    return {"jid": name, "material_id": name, "id": name, "atoms": ase_to_atoms(crystal).to_dict()}


def _volume(path: Path) -> None:
    """Write a density of states as VASP does: a Gaussian at each atom of graphene, in e times the volume."""
    atoms = load_structures("reference")["graphene"].copy()
    atoms.pbc = True
    shape = (12, 12, 60)
    grid = np.moveaxis(np.indices(shape), 0, -1) / np.array(shape)
    values = np.zeros(shape)
    for position in atoms.get_scaled_positions():
        away = grid - position
        away -= np.round(away)
        values += np.exp(-(np.linalg.norm(away @ atoms.cell.array, axis=-1) ** 2))
    write(path, atoms, format="vasp", direct=True, vasp5=True)
    flat = (values * atoms.get_volume()).ravel(order="F")
    lines = ["", " ".join(map(str, shape))]
    lines += [" ".join(f"{x:.11E}" for x in flat[start : start + 5]) for start in range(0, len(flat), 5)]
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines) + "\n", encoding="utf-8")


def _readme(folder: Path) -> None:
    """Lay out what the README's lines speak of: datasets, models, micrographs."""
    found = scan(folder / "scan.tif")
    for name in ("my_images", "folder"):
        scan(folder / name / "scan.tif")
    with Image.open(found) as image:
        image.convert("L").save(folder / "image.png")
    _classes(folder / "images", ("train", "test"))
    _volume(folder / "PARCHG")
    (folder / "my_model").symlink_to(pretrained_folder("lattice-classifier-small"))
    (folder / "my_segmenter").symlink_to(pretrained_folder("atom-segmenter-small"))
    small = BuildOptions(
        dataset="stem2d",
        sources=("reference",),
        out=folder / "my_dataset",
        configs=("default", "rotated", "defects"),
        tiny=True,
    )
    load_builder("stem2d").build(small)
    # A map needs a dozen images of the test split.
    larger = BuildOptions(
        dataset="stem2d", sources=("reference",), out=folder / "larger_dataset", configs=("rotated",)
    )
    load_builder("stem2d").build(larger)


#: What is laid out before the blocks of a page run.
PREPARED: dict[str, Callable[[Path], object]] = {
    "README.md": _readme,
    "docs/cluster.md": _downloads,
    "docs/columns.md": lambda folder: scan(folder / "scan.tif"),
    "docs/guides/images.md": _masks,
    "docs/guides/offline.md": lambda folder: scan(folder / "scan.tif"),
    "docs/micrographs.md": _scans,
    "docs/migration.md": lambda folder: _classes(folder, ("train_folder", "test_folder")),
    "docs/spacings.md": _scans,
    "docs/tutorials/cluster.md": _downloads,
    "docs/tutorials/training.md": _training,
}
