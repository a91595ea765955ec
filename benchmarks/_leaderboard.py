"""What `jarvis_leaderboard.py` reads and writes: the benchmark, the images it names, a contribution.

The benchmark lists image ids with their class. By what is known of its making (the function
``get_combined_data`` of usnistgov/atomvision), an id is the one of a crystal in JARVIS-DFT 2D
(``JVASP-...``), 2DMatPedia (``2dm-...``) or C2DB (all others), its class the rule about the crystal's cell,
its image the projection of the crystal along z, 256 x 256 pixels of 0.1 Å.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomvision_hub._download import downloaded
from atomvision_hub._files import write_bytes, write_json, write_text
from atomvision_hub.errors import AtomVisionError, CrystalError, UsageError

NAME = "AI-ImageClass-bravais_class-stem_2d_image-test-acc"
FILE = "stem_2d_image_bravais_class.json"
#: The published file at the commit that was looked at, and the SHA-256 of the JSON inside.
URL = (
    "https://raw.githubusercontent.com/usnistgov/jarvis_leaderboard/57b39e28f3719702811fcc50c752542e032e785d"
    f"/jarvis_leaderboard/benchmarks/AI/ImageClass/{FILE}.zip"
)
SHA256 = "be8a66de8f4ae9a6d8b8263d893c9f635350087d439540f8cfe8539cd1f4194f"
#: Published images (JPEG), doi 10.6084/m9.figshare.16788268. Not pinned: their checksums are not known here.
IMAGE_ARCHIVES = {
    "stem_jv2d.zip": "https://figshare.com/ndownloader/files/31054519",
    "stem_c2db.zip": "https://figshare.com/ndownloader/files/31054516",
}
CLASSES = 5
_LARGEST_FILE, _LARGEST_IMAGE = 2**32, 2**24
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*\.jpg")


@dataclass(frozen=True)
class Benchmark:
    """Image id -> class, for both splits.

    Parameters
    ----------
    train, test
        The splits; ids end in ``.jpg``, classes are 0 to 4 in the order of `structures.LATTICES`.
    sha256
        Of the JSON they come from.
    """

    train: Mapping[str, int]
    test: Mapping[str, int]
    sha256: str

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """Yield split, id and class."""
        for split, ids in (("train", self.train), ("test", self.test)):
            for identifier, label in ids.items():
                yield split, identifier, label

    def most_frequent(self) -> int:
        """Return the most frequent class of the training split."""
        return Counter(self.train.values()).most_common(1)[0][0]


def read_benchmark(path: Path) -> Benchmark:
    """Read a benchmark file of the leaderboard (``.json.zip``).

    Raises
    ------
    AtomVisionError
        When it is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(FILE)
        found = json.loads(content)
        splits = {name: {str(k): int(v) for k, v in found[name].items()} for name in ("train", "test")}
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as problem:
        raise AtomVisionError(
            f"{path} is not the benchmark {FILE}.zip ({problem}); delete it or give another"
        ) from None
    wrong = [name for ids in splits.values() for name in ids if not _ID.fullmatch(name)]
    wrong += [name for ids in splits.values() for name, label in ids.items() if not 0 <= label < CLASSES]
    wrong += sorted(set(splits["train"]) & set(splits["test"]))
    if wrong or not splits["train"] or not splits["test"]:
        raise AtomVisionError(f"{path}: an id or class is not as expected, or in both splits: {wrong[:3]}")
    return Benchmark(**splits, sha256=hashlib.sha256(content).hexdigest())


def published_benchmark(path: Path) -> Benchmark:
    """Return the published benchmark, downloaded to `path` where it is absent, its checksum verified."""
    benchmark = read_benchmark(fetched(path, URL))
    if benchmark.sha256 != SHA256:
        raise AtomVisionError(f"{path} is not the published benchmark (its checksum differs); delete it")
    return benchmark


def fetched(path: Path, url: str) -> Path:
    """Return a file, downloaded where it is absent."""
    return downloaded(path, url, largest=_LARGEST_FILE, what=path.name)


def database_of(identifier: str) -> str:
    """Return the database of jarvis-tools that an image's crystal comes from."""
    return {"JVASP": "dft_2d", "2dm": "twod_matpd"}.get(identifier.split("-")[0], "c2db")


class Archives:
    """Images in zip files and folders, by the last part of their names."""

    def __init__(self, paths: list[Path]) -> None:
        self._found: dict[str, tuple[Path, str]] = {}
        for path in paths:
            for name in self._names(path):
                self._found.setdefault(Path(name).name, (path, name))

    def _names(self, path: Path) -> list[str]:
        if path.is_dir():
            return [str(file.relative_to(path)) for file in sorted(path.rglob("*.jpg"))]
        try:
            with zipfile.ZipFile(path) as archive:
                return sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        except FileNotFoundError:
            raise UsageError(f"{path} does not exist; give folders or zip files of images") from None
        except (zipfile.BadZipFile, OSError) as problem:
            raise AtomVisionError(f"{path} is no zip file ({problem}); delete it or give another") from None

    def read(self, identifier: str) -> bytes:
        """Return the JPEG file of an image, as it is.

        Raises
        ------
        CrystalError
            When there is none, or it is damaged or unreasonably large.
        """
        from PIL import Image

        if identifier not in self._found:
            raise CrystalError("no such image in the archives", step="image")
        path, name = self._found[identifier]
        try:
            if path.is_dir():
                content = (path / name).read_bytes()
            else:
                with zipfile.ZipFile(path) as archive:
                    if archive.getinfo(name).file_size > _LARGEST_IMAGE:
                        raise ValueError("unpacks to more than 16 MB")
                    content = archive.read(name)
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                image.verify()
        except (
            OSError,
            ValueError,
            SyntaxError,
            zipfile.BadZipFile,
            Image.DecompressionBombError,
        ) as problem:
            raise CrystalError(f"{name} cannot be read: {problem}", step="image") from None
        return content


def write_contribution(
    folder: Path, predictions: Mapping[str, int], facts: Mapping[str, Any], run: str
) -> Path:
    """Write a contribution in the format of the leaderboard and return its zip file.

    ``NAME.csv.zip`` holds ``NAME.csv`` with the columns ``id,prediction``; beside it lie ``metadata.json``
    and ``run.sh``. Equal input gives equal bytes.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("id", "prediction"))
    writer.writerows(predictions.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(f"{NAME}.csv", date_time=(1980, 1, 1, 0, 0, 0))
        member.compress_type = zipfile.ZIP_DEFLATED
        member.external_attr = 0o644 << 16
        archive.writestr(member, stream.getvalue())
    path = folder / f"{NAME}.csv.zip"
    write_json(folder / "metadata.json", dict(facts))
    write_text(folder / "run.sh", run)
    (folder / "run.sh").chmod(0o755)
    write_bytes(path, packed.getvalue())
    return path


def score(path: Path, benchmark: Benchmark) -> float:
    """Return the accuracy of a contribution as the leaderboard computes it: joined by id, all ids once.

    Raises
    ------
    AtomVisionError
        When its ids are not those of the test split.
    """
    with zipfile.ZipFile(path) as archive:
        text = archive.read(f"{NAME}.csv").decode()
    told = [(row["id"], int(row["prediction"])) for row in csv.DictReader(io.StringIO(text))]
    if len(told) != len(benchmark.test) or dict(told).keys() != benchmark.test.keys():
        raise AtomVisionError(f"{path} answers {len(told):,} of {len(benchmark.test):,} test ids")
    return sum(benchmark.test[name] == answer for name, answer in told) / len(told)
