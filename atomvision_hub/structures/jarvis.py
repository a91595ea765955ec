"""The two-dimensional databases that jarvis-tools downloads."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ase
import numpy as np
from ase.data import atomic_numbers

from atomvision_hub._files import sha256_file
from atomvision_hub.errors import AtomVisionError, CrystalError, NetworkNeededError, UsageError
from atomvision_hub.structures.formula import reduced_formula
from atomvision_hub.structures.legacy import remember_source_cell
from atomvision_hub.structures.sources import SourceInfo

_UNSTATED = "not stated in the file; see the source before passing structures on"
#: Name -> (description, citation, licence).
DATABASES: dict[str, tuple[str, str, str]] = {
    "dft_2d": (
        "JARVIS-DFT: exfoliable and other two-dimensional materials, OptB88vdW",
        "K. Choudhary et al., npj Comput. Mater. 6, 173 (2020), doi:10.1038/s41524-020-00440-1",
        _UNSTATED,
    ),
    "c2db": (
        "Computational 2D Materials Database (C2DB), PBE",
        "S. Haastrup et al., 2D Mater. 5, 042002 (2018), doi:10.1088/2053-1583/aacfc1",
        "CC-BY-4.0 (as declared on C2DB's figshare record)",
    ),
    "twod_matpd": (
        "2DMatPedia: exfoliated and substituted monolayers, PBE",
        "J. Zhou et al., Sci. Data 6, 86 (2019), doi:10.1038/s41597-019-0097-3",
        _UNSTATED,
    ),
    "alex_pbe_2d_all": (
        "Alexandria: two-dimensional materials found by machine learning, PBE",
        "H.-C. Wang et al., 2D Mater. 10, 035007 (2023), doi:10.1088/2053-1583/accc43",
        "CC-BY-4.0 (as declared by Alexandria)",
    ),
}


class JarvisSource:
    """One database of jarvis-tools; entries become atoms on access."""

    def __init__(self, name: str, store_dir: Path | None) -> None:
        if name not in DATABASES:
            known = ", ".join(f"jarvis:{key}" for key in DATABASES)
            raise UsageError(f"there is no source 'jarvis:{name}'; there are: {known}")
        self.name = f"jarvis:{name}"
        self._key = name
        self._path, self._url, entries = _load(name, store_dir)
        self._entries: dict[str, dict[str, Any]] = {}
        for index, entry in enumerate(entries):
            source_id = str(
                entry.get("material_id") or entry.get("jid") or entry.get("id") or f"{name}-{index}"
            )
            # A database that repeats an id must not lose a structure.
            while source_id in self._entries:
                source_id += "'"
            self._entries[source_id] = entry
        self.ids = tuple(self._entries)

    def info(self) -> SourceInfo:
        """Return the provenance of the database."""
        description, citation, licence = DATABASES[self._key]
        return SourceInfo(self.name, description, citation, licence, self._url, sha256_file(self._path))

    def provenance(self, source_id: str) -> tuple[str, str]:
        """Return citation and licence."""
        return DATABASES[self._key][1:]

    def formula(self, source_id: str) -> str:
        """Return the reduced formula from the entry's elements."""
        return reduced_formula(self._numbers(source_id))

    def atoms(self, source_id: str) -> ase.Atoms:
        """Make one crystal from its entry."""
        numbers = self._numbers(source_id)
        entry = self._entries[source_id]["atoms"]
        try:
            cell = np.array(entry["lattice_mat"], dtype=float).reshape(3, 3)
            coordinates = np.array(entry["coords"], dtype=float).reshape(len(numbers), 3)
            positions = coordinates if entry.get("cartesian") else coordinates @ cell
        except (KeyError, TypeError, ValueError) as problem:
            raise CrystalError(
                f"{self.name}: entry {source_id} is malformed: {problem}", step="read"
            ) from None
        atoms = ase.Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)
        if "abc" in entry and "angles" in entry:
            # The paper's labels come from these numbers, not from the vectors.
            a, b, gamma = entry["abc"][0], entry["abc"][1], entry["angles"][2]
            remember_source_cell(atoms, (float(a), float(b), float(gamma)))
        return atoms

    def _numbers(self, source_id: str) -> list[int]:
        try:
            return [
                atomic_numbers[symbol.strip()] for symbol in self._entries[source_id]["atoms"]["elements"]
            ]
        except KeyError as problem:
            raise CrystalError(
                f"{self.name}: entry {source_id} has an unknown element or key {problem}"
            ) from None
        except (TypeError, AttributeError):
            raise CrystalError(f"{self.name}: entry {source_id} has no atoms", step="read") from None


def _load(name: str, store_dir: Path | None) -> tuple[Path, str, list[dict[str, Any]]]:
    """Return the file of a database, its address and its entries; download it where it is absent."""
    from jarvis.core.utils import get_cache_dir
    from jarvis.db import figshare

    url, member = figshare.get_db_info()[name][:2]
    folder = Path(store_dir) if store_dir is not None else Path(get_cache_dir("jarvis_data"))
    path = folder / f"{member}.zip"
    if path.is_file():
        try:
            with _quiet():
                return path, url, figshare.data(name, store_dir=str(folder))
        except (zipfile.BadZipFile, KeyError, ValueError, OSError) as problem:
            raise AtomVisionError(
                f"{path} is not the file of jarvis:{name} ({problem}); delete it and try again"
            ) from None
    return path, url, _download(name, path, url)


def _download(name: str, path: Path, url: str) -> list[dict[str, Any]]:
    import requests
    from jarvis.db import figshare

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # jarvis-tools waits for ever and writes as it reads: ask first, and let it write where a failed
        # download is thrown away.
        requests.head(url, timeout=20)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as scratch, _quiet():
            entries: list[dict[str, Any]] = figshare.data(name, store_dir=scratch)
            (Path(scratch) / path.name).replace(path)
    except (requests.RequestException, zipfile.BadZipFile, KeyError, ValueError, OSError):
        raise NetworkNeededError(
            f"jarvis:{name} could not be downloaded from {urlsplit(url).hostname}; "
            f"put {path.name} into {path.parent} (from {url})"
        ) from None
    return entries


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep jarvis-tools' prints and progress bars from the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
