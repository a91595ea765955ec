"""The published JARVIS-STM images, as the files that jarvis-tools downloads.

`jarvis.db.figshare.get_stm_2d_dataset` fetches the same two files anew at every call and decodes all images
at once; here they are kept, and an image is read when asked for, with the bytes that were published.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from pathlib import Path

from atomvision_hub._download import downloaded
from atomvision_hub._files import sha256_file
from atomvision_hub.errors import AtomVisionError, CrystalError

#: What jarvis-tools downloads, by the name it gets here: JPEG images and lattice types.
FILES = {
    "jarvis_stm_images.zip": "https://ndownloader.figshare.com/files/21884952",
    "jarvis_stm_lattices.json": "https://ndownloader.figshare.com/files/21893379",
}
DESCRIPTION = "JARVIS-STM: published STM images of 2D materials (constant height, OptB88vdW), without a scale"
CITATION = "K. Choudhary et al., Sci. Data 8, 57 (2021), doi:10.1038/s41597-021-00824-y"
#: Signs of the bias in the order of their integers, and how the files spell them.
SIGNS = ("positive", "negative")
_MEMBER = re.compile(r"(?:^|/)([A-Za-z0-9-]+)_(pos|neg)\.jpg$")
#: Bytes that a download or an unpacked image may have.
_LARGEST_FILE, _LARGEST_IMAGE = 2**31, 2**24
_SIDE = 4096  # px


class PublishedStm:
    """The images by identifier, such as ``JVASP-667@positive``.

    Parameters
    ----------
    folder
        Where the two files are, or are put.

    Raises
    ------
    NetworkNeededError
        When a file is not there and cannot be downloaded.
    AtomVisionError
        When a file is not what it should be.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = [
            downloaded(folder / name, url, largest=_LARGEST_FILE, what="jarvis:stm")
            for name, url in FILES.items()
        ]
        archive, lattices = self.paths
        try:
            with zipfile.ZipFile(archive) as opened:
                names = opened.namelist()
            self._lattices = {str(k): str(v) for k, v in json.loads(lattices.read_bytes()).items()}
        except (zipfile.BadZipFile, ValueError, AttributeError) as problem:
            raise AtomVisionError(
                f"{folder} has not the files of jarvis:stm ({problem}); delete {', '.join(FILES)} there"
            ) from None
        self._images: dict[str, tuple[str, str, str]] = {}
        for name in sorted(names):
            if match := _MEMBER.search(name):
                sign = SIGNS[match[2] == "neg"]
                self._images[f"{match[1]}@{sign}"] = match[1], sign, name
        self.ids = tuple(self._images)

    def material(self, identifier: str) -> str:
        """Return the JARVIS identifier of the material an image shows."""
        return self._images[identifier][0]

    def sign(self, identifier: str) -> str:
        """Return ``"positive"`` or ``"negative"``."""
        return self._images[identifier][1]

    def lattice(self, identifier: str) -> str | None:
        """Return the published lattice type, ``None`` where there is none."""
        return self._lattices.get(self.material(identifier))

    def image(self, identifier: str) -> bytes:
        """Return the JPEG file of an image as it was published.

        Raises
        ------
        CrystalError
            With step ``"read"`` when it is damaged or unreasonably large.
        """
        from PIL import Image

        name = self._images[identifier][2]
        try:
            with zipfile.ZipFile(self.paths[0]) as archive:
                if archive.getinfo(name).file_size > _LARGEST_IMAGE:
                    raise ValueError(f"unpacks to {archive.getinfo(name).file_size:,} bytes")
                content = archive.read(name)
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                if max(image.size) > _SIDE:
                    raise ValueError(f"has {image.size[0]} x {image.size[1]} pixels")
                image.load()
        except (OSError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as problem:
            raise CrystalError(f"jarvis:stm image {name} cannot be read: {problem}", step="read") from None
        return content

    def version(self) -> str:
        """Return the SHA-256 of both files."""
        return hashlib.sha256("".join(map(sha256_file, self.paths)).encode()).hexdigest()
