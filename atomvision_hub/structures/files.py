"""Structure files and folders, read by ASE."""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import ase

from atomvision_hub._files import sha256_file
from atomvision_hub.errors import CrystalError, UsageError
from atomvision_hub.structures.formula import reduced_formula
from atomvision_hub.structures.sources import SourceInfo

#: Suffix -> ASE format. Only formats that hold plain data: ASE also knows some that run Python or unpickle.
FORMATS: dict[str, str] = {
    ".cif": "cif",
    ".cube": "cube",
    ".db": "db",
    ".extxyz": "extxyz",
    ".gen": "gen",
    ".json": "json",
    ".poscar": "vasp",
    ".res": "res",
    ".traj": "traj",
    ".vasp": "vasp",
    ".xsf": "xsf",
    ".xyz": "extxyz",
}
_ONE_STRUCTURE = ("cube", "gen", "res", "vasp")
_VASP_NAME = re.compile(r"(POSCAR|CONTCAR)", re.IGNORECASE)


def format_of(path: Path) -> str | None:
    """Return the ASE format of a file by its name, ``None`` when it is not supported."""
    known = FORMATS.get(path.suffix.lower())
    return known or ("vasp" if _VASP_NAME.search(path.name) else None)


class FileSource:
    """The structures of a file, or of all supported files in a folder and its subfolders.

    A file that holds several structures gives the ids ``name-1``, ``name-2``, ...; a file that cannot be read
    is one id whose access raises.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"files:{path.name or path.resolve().name}"
        self._path = path
        if path.is_dir():
            files = sorted(
                (
                    file
                    for file in path.rglob("*")
                    if file.is_file() and format_of(file) and not _hidden(file, path)
                ),
                key=lambda file: file.relative_to(path).parts,
            )
        elif format_of(path):
            files = [path]
        else:
            known = ", ".join(sorted(FORMATS))
            raise UsageError(f"{path}: not a structure file that can be read; known are {known} and POSCAR")
        root = path if path.is_dir() else path.parent
        stems = [file.relative_to(root).with_suffix("").as_posix() for file in files]
        self._files: list[Path] = files
        self._last: tuple[Path, list[ase.Atoms]] | None = None
        self._places: dict[str, tuple[Path, int]] = {}
        for file, stem in zip(files, stems, strict=True):
            # Files that differ in their suffix alone keep it.
            name = stem if stems.count(stem) == 1 else file.relative_to(root).as_posix()
            count = self._count(file)
            for index in range(count):
                self._places[name if count == 1 else f"{name}-{index + 1}"] = (file, index)
        self.ids = tuple(self._places)

    def info(self) -> SourceInfo:
        """Return the provenance; the version is the SHA-256 of all file names and contents."""
        digest = hashlib.sha256()
        root = self._path if self._path.is_dir() else self._path.parent
        for file in self._files:
            digest.update(f"{file.relative_to(root).as_posix()} {sha256_file(file)}\n".encode())
        what = f"{len(self._files)} structure file" + ("s" if len(self._files) != 1 else "")
        citation, licence = self.provenance("")
        return SourceInfo(
            self.name,
            f"{what} given by the user ({self._path.name})",
            citation,
            licence,
            "",
            digest.hexdigest(),
        )

    def provenance(self, source_id: str) -> tuple[str, str]:
        """Return citation and licence: files tell neither."""
        return "not stated (files given by the user)", "not stated (files given by the user)"

    def formula(self, source_id: str) -> str:
        """Return the reduced formula; the file is read."""
        return reduced_formula(self.atoms(source_id).numbers.tolist())

    def atoms(self, source_id: str) -> ase.Atoms:
        """Read one structure, without calculators, constraints or velocities."""
        file, index = self._places[source_id]
        if format_of(file) == "db":
            structures, index = _parse(file, f"{index}:{index + 1}"), 0
        else:
            structures = self._read(file)
        if index >= len(structures):
            raise CrystalError(f"{file.name} cannot be read: it holds no structure", step="read")
        atoms = structures[index]
        occupancy = atoms.info.get("occupancy") or {}
        if any(abs(share - 1.0) > 1e-3 for site in occupancy.values() for share in site.values()):
            raise CrystalError(f"{file.name}: sites are partly occupied; give an ordered structure")
        return ase.Atoms(
            numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc
        )

    def _count(self, file: Path) -> int:
        kind = format_of(file)
        if kind in _ONE_STRUCTURE or (kind == "cif" and _blocks(file) <= 1):
            return 1  # parsed on access only
        try:
            return max(1, _rows(file) if kind == "db" else len(self._read(file)))
        except CrystalError:
            return 1  # told when it is opened

    def _read(self, file: Path) -> list[ase.Atoms]:
        if self._last is None or self._last[0] != file:
            self._last = (file, _parse(file, ":"))
        return self._last[1]


def _parse(file: Path, index: str) -> list[ase.Atoms]:
    """Return the structures of a file that a slice selects."""
    from ase.io import read

    with _told(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read(file, index=index, format=format_of(file))
    return [atoms for atoms in found if len(atoms)]


def _rows(file: Path) -> int:
    """Return the number of rows of an ASE database, which need not fit into memory."""
    from ase.db import connect

    with _told(file):
        return int(connect(str(file), serial=True).count())


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Turn whatever a reader raises into one line with the name of the file."""
    try:
        yield
    except Exception as problem:  # noqa: BLE001  # ASE's readers raise whatever their parsing meets
        reason = " ".join(str(problem).split()) or f"not a valid {format_of(file)} file"
        raise CrystalError(f"{file.name} cannot be read: {reason[:200]}", step="read") from None


def _blocks(file: Path) -> int:
    """Return how many data blocks a CIF has; each may be a structure."""
    return len(re.findall(rb"^data_", file.read_bytes(), re.MULTILINE | re.IGNORECASE))


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
