"""Labelled images for training: every file is decoded once into an array of 8-bit grey levels."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform, resolve_data_config

from atomvision_hub._files import sha256_file
from atomvision_hub.data import load_dataset
from atomvision_hub.engine.config import DataConfig
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models.images import to_8bit

SplitName = Literal["train", "validation", "test"]
#: Arrays above this go to a file in the run's folder instead of memory.
MEMORY_LIMIT = 2 * 2**30
_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"})
#: Columns kept beside the label, for the evaluation.
_KEPT = ("id", "material_id", "prototype", "lattice", "lattice_projected", "lattice_legacy", "pixel_size")


@dataclass(frozen=True)
class Rows:
    """One split before decoding: a source of encoded images, labels, other columns."""

    encoded: Callable[[], Iterable[bytes | Path]]
    labels: npt.NDArray[np.int64]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Images:
    """A decoded split: images uint8 [n, channel, row, column], labels [n]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """Labelled images in three splits, none of them decoded yet.

    Parameters
    ----------
    classes
        Names in the order of the labels; empty where there are none, all labels are 0 then.
    facts
        What the card says about the data: path or id, revision, checksum, config, label.
    """

    splits: dict[SplitName, Rows]
    classes: tuple[str, ...]
    facts: dict[str, Any]

    def calibration(self, smallest_crop: float) -> dict[str, list[float]]:
        """Return what a model trained on these images knows, smallest and largest; empty without pixel sizes.

        Parameters
        ----------
        smallest_crop
            Side of the smallest crop relative to the view.

        Returns
        -------
        dict
            ``pixel_size`` (Å/px) and ``field_of_view`` (shorter side of what the network gets to see, Å).
        """
        rows = self.splits["train"]
        sizes = rows.columns.get("pixel_size")
        if not sizes:
            return {}
        views = []
        for encoded, (height, width) in zip(rows.encoded(), sizes, strict=True):
            with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
                views.append(min(image.height * height, image.width * width))
        return {
            "pixel_size": [float(np.min(sizes)), float(np.max(sizes))],
            "field_of_view": [round(smallest_crop * min(views), 6), round(max(views), 6)],
        }

    def data_facts(self, calibration: dict[str, list[float]]) -> dict[str, Any]:
        """Return what a card says about the data; `calibration` is that of the model."""
        return {
            **self.facts,
            "splits": {name: len(rows) for name, rows in self.splits.items()},
            "classes": list(self.classes),
            "pixel_size": calibration.get("pixel_size"),
            "field_of_view": calibration.get("field_of_view"),
        }


def open_source(
    config: DataConfig, *, seed: int, limit: int | None = None, keep: Sequence[str] = ()
) -> Source:
    """Open a dataset, or two folders of images.

    Parameters
    ----------
    config
        Where the images are.
    seed
        Of the split of a training folder.
    limit
        Use at most so many rows of each split.
    keep
        More columns of a dataset that the task needs (``mask``, ``atoms``, ...); images stay encoded (bytes).

    Raises
    ------
    UsageError
        When the configuration names no data, an unknown column or empty folders.
    """
    if config.train_dir is not None or config.test_dir is not None:
        source = _open_folders(config, seed)
    elif config.path is not None:
        source = _open_dataset(config, keep)
    else:
        raise UsageError("no data: --set data.path=FOLDER_OR_HUB_ID, or --train-dir DIR --test-dir DIR")
    if limit is not None:
        source.splits.update({name: _first(rows, limit) for name, rows in source.splits.items()})
    for name, rows in source.splits.items():
        if len(rows) == 0:
            raise UsageError(f"the {name} split of {source.facts['dataset']} is empty; use more data")
    return source


def _first(rows: Rows, limit: int) -> Rows:
    columns = {name: values[:limit] for name, values in rows.columns.items()}
    return Rows(lambda: _take(rows.encoded(), limit), rows.labels[:limit], columns)


def _take(values: Iterable[bytes | Path], limit: int) -> Iterator[bytes | Path]:
    for value, _ in zip(values, range(limit), strict=False):
        yield value


def _open_dataset(config: DataConfig, keep: Sequence[str]) -> Source:
    import datasets

    assert config.path is not None
    if config.revision is None and not Path(config.path).is_dir():
        raise UsageError(
            f"{config.path} is no folder; for a dataset on the Hub say which version: data.revision=vX.Y.Z"
        )
    loaded = load_dataset(config.path, config.config, revision=config.revision)
    features = loaded["train"].features
    feature = features.get(config.label) if config.label is not None else None
    if config.label is not None and not isinstance(feature, datasets.ClassLabel):
        known = sorted(name for name, value in features.items() if isinstance(value, datasets.ClassLabel))
        raise UsageError(
            f"{config.path} has no class column {config.label!r}; it has: {', '.join(known) or 'none'}"
        )
    if "image" not in features:
        raise UsageError(
            f"{config.path} ({config.config or 'default'}) has no images; set data.config to one that has"
        )
    splits: dict[SplitName, Rows] = {}
    for name in ("train", "validation", "test"):
        if name not in loaded:
            raise UsageError(f"{config.path} has no {name} split; it has: {', '.join(loaded)}")
        table = loaded[name].cast_column("image", datasets.Image(decode=False))
        columns = {column: list(table[column]) for column in _KEPT if column in table.column_names}
        for column in keep:
            if column not in table.column_names:
                there = ", ".join(table.column_names)
                raise UsageError(
                    f"{config.path} has no column {column!r}, which this task needs; it has: {there}"
                )
            if isinstance(table.features[column], datasets.Image):
                encoded = table.select_columns(column).cast_column(column, datasets.Image(decode=False))
                columns[column] = [row[column]["bytes"] for row in encoded]
            else:
                columns[column] = list(table[column])
        labels = (
            np.zeros(len(table), np.int64)
            if config.label is None
            else np.array(table[config.label], dtype=np.int64)
        )
        if len(labels) and labels.min() < 0:
            raise AtomVisionError(f"{config.path}, {name}: {int((labels < 0).sum())} rows have no label")
        splits[name] = Rows(_Encoded(table.select_columns("image")), labels, columns)
    manifest = Path(config.path) / "manifest.json"
    facts = {
        "dataset": _public_name(config.path),
        "config": loaded["train"].info.config_name or "default",
        "label": config.label,
        "revision": config.revision,
        "manifest_sha256": sha256_file(manifest) if manifest.is_file() else None,
    }
    return Source(splits, () if feature is None else tuple(feature.names), facts)


class _Encoded:
    """The image files of a table; an object, since a lambda in a loop would see the last table."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __call__(self) -> Iterator[bytes]:
        for row in self.table:
            yield row["image"]["bytes"]


def _public_name(path: str) -> str:
    # A folder's place on this machine is nobody's business; its manifest's checksum identifies the data.
    manifest = Path(path) / "manifest.json"
    if not manifest.is_file():
        return path
    return str(json.loads(manifest.read_text(encoding="utf-8")).get("dataset", Path(path).resolve().name))


def _open_folders(config: DataConfig, seed: int) -> Source:
    if config.train_dir is None or config.test_dir is None:
        raise UsageError("--train-dir and --test-dir belong together")
    listed = _class_files if config.label is not None else _all_files
    found = {folder: listed(folder) for folder in (config.train_dir, config.test_dir)}
    files, test = found[config.train_dir], found[config.test_dir]
    classes = tuple(sorted(files))
    unknown = sorted(set(test) - set(classes))
    if unknown:
        raise UsageError(f"{config.test_dir} has classes that {config.train_dir} lacks: {', '.join(unknown)}")
    generator = np.random.default_rng(seed)
    parts: dict[SplitName, list[tuple[Path, int]]] = {"train": [], "validation": [], "test": []}
    for label, name in enumerate(classes):
        if len(files[name]) < 2:
            where = f"class {name} in {config.train_dir}" if name else f"{config.train_dir}"
            raise UsageError(f"{where} has fewer than 2 images; validation needs one")
        held_out = max(1, round(config.validation_fraction * len(files[name])))
        order = generator.permutation(len(files[name]))
        for rank, index in enumerate(order):
            parts["validation" if rank < held_out else "train"].append((files[name][index], label))
        parts["test"] += [(path, label) for path in test.get(name, [])]
    digest = hashlib.sha256()
    for folder in (config.train_dir, config.test_dir):
        for name in sorted(found[folder]):
            for path in found[folder][name]:
                digest.update(json.dumps([name, path.name]).encode() + path.read_bytes())
    splits: dict[SplitName, Rows] = {}
    for part, pairs in parts.items():
        pairs.sort(key=lambda pair: str(pair[0]))
        paths = [path for path, _ in pairs]
        splits[part] = Rows(paths.__iter__, np.array([label for _, label in pairs], dtype=np.int64))
    facts = {
        "dataset": f"{config.train_dir.resolve().name} + {config.test_dir.resolve().name}",
        "config": "folders",
        "label": "folder name" if config.label is not None else None,
        "revision": None,
        "manifest_sha256": digest.hexdigest(),
    }
    return Source(splits, classes if config.label is not None else (), facts)


def _all_files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise UsageError(f"{folder} has no images ({', '.join(sorted(_SUFFIXES))})")
    return {"": files}


def _class_files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    found = {
        entry.name: sorted(path for path in entry.rglob("*") if path.suffix.lower() in _SUFFIXES)
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise UsageError(f"{folder} has no class folders with images ({', '.join(sorted(_SUFFIXES))})")
    return found


def open_image(encoded: bytes | Path) -> Image.Image:
    """Decode an image to 8 bit, mode ``L`` or ``RGB``."""
    where = encoded if isinstance(encoded, Path) else "an image of the dataset"
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            image.load()  # while the file is open
            return to_8bit(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as problem:
        raise AtomVisionError(f"{where} cannot be read as an image: {problem}") from None


def decode_for_training(rows: Rows, input_size: int, scratch: Path) -> Images:
    """Decode training images: the central square, at most twice as fine as the network's input.

    Augmentation samples points; an image that is finer than twice the input is averaged down first, so that
    nothing is aliased.
    """
    side = 0

    def square(image: Image.Image) -> Image.Image:
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        cropped = image.crop((left, top, left + short, top + short))
        if short == side:
            return cropped
        kind = Image.Resampling.BOX if short > side else Image.Resampling.BICUBIC
        return cropped.resize((side, side), kind)

    first = next(iter(rows.encoded()))
    side = min(2 * input_size, *open_image(first).size)
    return _decode(rows, square, scratch)


def decode_for_evaluation(rows: Rows, preprocessing: dict[str, Any], scratch: Path) -> Images:
    """Decode images exactly as the deployed processor does, up to the normalisation."""
    settings = resolve_data_config(dict(preprocessing), model=None, verbose=False)
    resize, crop, *_ = create_transform(**settings, is_training=False).transforms
    return _decode(rows, lambda image: crop(resize(image)), scratch)


def _decode(rows: Rows, prepare: Callable[[Image.Image], Image.Image], scratch: Path) -> Images:
    array: npt.NDArray[np.uint8] | None = None
    for index, encoded in enumerate(rows.encoded()):
        values = np.asarray(prepare(open_image(encoded)))
        values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        if array is None:
            array = _allocate((len(rows), *values.shape), scratch)
        elif values.shape[0] > array.shape[1]:  # the first colour image after grey ones
            array = np.repeat(array, 3, axis=1)
        array[index] = values
    assert array is not None
    return Images(array, rows.labels)


def _allocate(shape: Sequence[int], scratch: Path) -> npt.NDArray[np.uint8]:
    if int(np.prod(shape)) <= MEMORY_LIMIT:
        return np.empty(shape, np.uint8)
    import tempfile

    scratch.mkdir(parents=True, exist_ok=True)
    # An open file without a name: gone with the process, whatever becomes of it.
    with tempfile.TemporaryFile(dir=scratch) as file:
        return np.memmap(file, np.uint8, "w+", shape=tuple(shape))
