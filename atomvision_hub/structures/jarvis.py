"""The two-dimensional databases that jarvis-tools downloads."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import ase
import numpy as np
import numpy.typing as npt
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
        self._entries: dict[str, _Packed | dict[str, Any]] = {}
        for index, entry in enumerate(entries):
            source_id = str(
                entry.get("material_id") or entry.get("jid") or entry.get("id") or f"{name}-{index}"
            )
            # A database that repeats an id must not lose a structure.
            while source_id in self._entries:
                source_id += "'"
            self._entries[source_id] = _pack(entry)
            entries[index] = {}  # freed as we go: as Python numbers, 100,000 crystals fill a gigabyte
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
        return reduced_formula(self._open(source_id).numbers.tolist())

    def atoms(self, source_id: str) -> ase.Atoms:
        """Make one crystal from its entry."""
        packed = self._open(source_id)
        positions = packed.coordinates if packed.cartesian else packed.coordinates @ packed.cell
        atoms = ase.Atoms(numbers=packed.numbers, positions=positions, cell=packed.cell, pbc=True)
        if packed.source_cell is not None:
            # The paper's labels come from these numbers, not from the vectors.
            remember_source_cell(atoms, packed.source_cell)
        return atoms

    def _open(self, source_id: str) -> _Packed:
        entry = self._entries[source_id]
        return entry if isinstance(entry, _Packed) else _parse(entry, f"{self.name}: entry {source_id}")


class _Packed(NamedTuple):
    """One entry without its Python numbers."""

    numbers: npt.NDArray[np.uint8]
    coordinates: npt.NDArray[np.float64]
    cartesian: bool
    cell: npt.NDArray[np.float64]
    source_cell: tuple[float, float, float] | None


def _pack(entry: dict[str, Any]) -> _Packed | dict[str, Any]:
    """Return an entry packed; a malformed one as it is, so that its error comes when it is opened."""
    try:
        return _parse(entry, "")
    except CrystalError:
        return entry


def _parse(entry: dict[str, Any], what: str) -> _Packed:
    """Read one entry.

    Raises
    ------
    CrystalError
        When it is malformed; the message begins with `what`.
    """
    try:
        numbers = [atomic_numbers[symbol.strip()] for symbol in entry["atoms"]["elements"]]
    except KeyError as problem:
        raise CrystalError(f"{what} has an unknown element or key {problem}") from None
    except (TypeError, AttributeError):
        raise CrystalError(f"{what} has no atoms", step="read") from None
    atoms = entry["atoms"]
    try:
        cell = np.array(atoms["lattice_mat"], dtype=float).reshape(3, 3)
        coordinates = np.array(atoms["coords"], dtype=float).reshape(len(numbers), 3)
        stated = None
        if "abc" in atoms and "angles" in atoms:
            stated = (float(atoms["abc"][0]), float(atoms["abc"][1]), float(atoms["angles"][2]))
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise CrystalError(f"{what} is malformed: {problem}", step="read") from None
    return _Packed(np.array(numbers, np.uint8), coordinates, bool(atoms.get("cartesian")), cell, stated)


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
