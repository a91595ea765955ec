"""Volumes that other codes wrote: densities and potentials on the grid of a crystal's cell.

ASE reads them: it is here already, knows both formats with their variants (species lines, CASTEP's repeated
end points, labels of cubes), and gives its atoms as the rest of the package wants them. What it leaves open
is done here: units, the origin of a cube, the spin blocks of VASP, files that are cut off or far too large.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import math
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import ase
import numpy as np
import numpy.typing as npt
from ase.units import Bohr, Hartree

from atomvision_hub.errors import CrystalError, UsageError

Kind = Literal["density", "potential"]

#: Unpacked bytes; what an input claims beyond that is a mistake or an attack (a PARCHG has 18 bytes a value).
LARGEST = 2**29
#: Points of a grid; ASE takes about 90 bytes for each while it reads a cube.
MOST_NUMBERS = 2**25
_VASP_NAME = re.compile(r"(PARCHG|CHGCAR|LOCPOT|CHG)", re.IGNORECASE)
_UNITS = {"density": "e/Å^3", "potential": "eV"}


@dataclass(frozen=True, slots=True)
class Volume:
    """A quantity on a periodic grid.

    Attributes
    ----------
    values
        float64 [na, nb, nc]: at fractions (i / na, j / nb, k / nc) of the cell, counted from `origin`; the
        end points are not repeated.
    atoms
        The crystal, periodic along all cell vectors.
    unit
        ``"e/Å^3"`` or ``"eV"``.
    kind
        ``"density"`` or ``"potential"``.
    spin
        Spin up minus spin down, like `values`; ``None`` without (collinear) spin. `values` is their sum for
        a density, their mean for a potential.
    source
        Name and format of the file.
    origin
        Cartesian point of ``values[0, 0, 0]``, in Å.
    """

    values: npt.NDArray[np.float64]
    atoms: ase.Atoms
    unit: str
    kind: Kind
    spin: npt.NDArray[np.float64] | None = None
    source: str = ""
    origin: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


def is_volume_file(path: Path) -> bool:
    """Whether the name says that `read_volume` knows the format."""
    name = path.name.removesuffix(".gz")
    return name.lower().endswith((".cube", ".cub")) or _VASP_NAME.search(name) is not None


def read_volume(path: str | Path, *, kind: Kind | None = None) -> Volume:
    """Read a volume: VASP PARCHG, CHG, CHGCAR, LOCPOT or a Gaussian cube, plain or packed with gzip.

    Parameters
    ----------
    path
        The file; its name says the format (``.cube``, ``.cub`` or one of VASP's names, ``.gz`` behind it).
    kind
        What it holds. By default a potential for names with LOCPOT, else a density.

    Returns
    -------
    Volume
        Densities in e/Å^3 (VASP files hold them times the cell's volume, cubes in e/bohr^3), potentials in eV
        (cubes: hartree). Of several densities in one file the first is returned.

    Raises
    ------
    CrystalError
        With step ``"read"`` when the file is missing, damaged, cut off or too large.
    UsageError
        When the name tells no known format or `kind` is unknown.
    """
    path = Path(path)
    if kind is not None and kind not in get_args(Kind):
        raise UsageError(f"kind must be 'density' or 'potential', not {kind!r}")
    if not is_volume_file(path):
        raise UsageError(
            f"{path.name}: not a known volume; give a VASP PARCHG, CHG, CHGCAR, LOCPOT or a .cube file"
        )
    kind = kind or ("potential" if "LOCPOT" in path.name.upper() else "density")
    with _told(path):
        cube = path.name.lower().removesuffix(".gz").endswith((".cube", ".cub"))
        volume = (_read_cube if cube else _read_vasp)(path, kind)
    if not np.isfinite(volume.values).all():
        raise CrystalError(f"{path.name} cannot be read: it holds values that are not numbers", step="read")
    return volume


def _read_vasp(path: Path, kind: Kind) -> Volume:
    from ase.io.vasp import read_vasp_configuration

    with _unpacked(path) as file:
        size = file.stat().st_size
        with file.open(encoding="utf-8") as stream:
            # The lines that may count the atoms; ASE makes a list of as many before it looks for them.
            for line in itertools.islice(stream, 5, 7):
                _check_atoms(line.split(), size)
            stream.seek(0)
            atoms = read_vasp_configuration(stream)
            stream.readline()
            grid = stream.readline()
            _check_grid(grid.split(), size)
        first, *more = _blocks(file, grid)
    atoms.pbc = True
    # A density comes as sum and difference, a potential as spin up and spin down; three more blocks are the
    # directions of a magnetisation, not its two signs.
    values, spin = first, more[0] if len(more) == 1 else None
    if kind == "density":
        cell = atoms.get_volume()
        values, spin = values / cell, None if spin is None else spin / cell
    elif spin is not None:
        values, spin = (first + spin) / 2, first - spin
    return Volume(values, atoms, _UNITS[kind], kind, spin, f"{path.name} (VASP)")


def _blocks(file: Path, grid: str) -> list[npt.NDArray[np.float64]]:
    """Return the blocks of numbers behind every line that repeats the grid.

    ASE's `VaspChargeDensity` misses the second block of a LOCPOT, before which the moments of the atoms
    stand, and fills a row of which one number is left.
    """
    shape = [int(word) for word in grid.split()]
    content, count = file.read_bytes(), math.prod(shape)
    line = rb"[ \t]+".join(word.encode() for word in grid.split())
    ends = [match.end() for match in re.finditer(rb"^[ \t]*" + line + rb"[ \t]*\r?$", content, re.MULTILINE)]
    found = []
    for start, stop in itertools.pairwise([*ends, len(content)]):
        parts, missing = [], count
        for piece in _pieces(content[start:stop]):
            words = piece.split(None, missing)[:missing]
            parts.append(np.array(words, dtype=np.float64))
            missing -= len(words)
            if missing == 0:
                break
        if missing:
            raise ValueError(f"it is cut off after {count - missing} of {count} values")
        found.append(np.concatenate(parts).reshape(shape, order="F"))
    return found


def _pieces(content: bytes) -> Iterator[bytes]:
    """Yield whole lines, about a megabyte at a time: words take many times the memory of their text."""
    stream = io.BytesIO(content)
    while piece := stream.read(2**20) + stream.readline():
        yield piece


def _read_cube(path: Path, kind: Kind) -> Volume:
    from ase.io.cube import read_cube

    with _unpacked(path) as file:
        text = file.read_text(encoding="utf-8", errors="replace")
    head = text.split("\n", 6)[:6]
    _check_atoms(head[2].split()[:1], len(text))
    _check_grid([line.split()[0] for line in head[3:]], len(text))
    if sum(len(piece.split()) for piece in _pieces(text.encode())) > MOST_NUMBERS:
        raise ValueError(f"it holds more than {MOST_NUMBERS} numbers; write a coarser grid")
    found: dict[str, Any] = read_cube(_Lines(text))
    atoms = found["atoms"]
    atoms.pbc = True
    scale = Bohr**-3 if kind == "density" else Hartree
    return Volume(
        np.ascontiguousarray(found["data"], dtype=np.float64) * scale,
        atoms,
        _UNITS[kind],
        kind,
        None,
        f"{path.name} (cube)",
        np.asarray(found["origin"], dtype=np.float64),
    )


class _Lines(io.StringIO):
    """Text that ends in an error: ASE would wait for the labels of orbitals for ever."""

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # typeshed has bytes above it
        line = super().readline(size)
        if not line:
            raise EOFError("it is cut off")
        return line


def _check_atoms(words: list[str], size: int) -> None:
    """Raise when a file cannot hold as many atoms as its header says."""
    if sum(abs(int(word)) for word in words if word.lstrip("+-").isdigit()) > size:
        raise ValueError(f"it is cut off: too short for {' '.join(words)} atoms")


def _check_grid(words: list[str], size: int) -> None:
    """Raise unless the file is long enough for its grid: nothing is allocated for a header alone."""
    grid = [int(word) for word in words]
    if len(grid) != 3 or min(grid) < 1:
        raise ValueError(f"its grid is {' x '.join(words) or 'missing'}; three positive numbers are needed")
    if math.prod(grid) > MOST_NUMBERS:
        raise ValueError(f"its grid has more than {MOST_NUMBERS} points; write a coarser one")
    if 2 * math.prod(grid) > size:
        raise ValueError(f"it is cut off: too short for a grid of {' x '.join(words)}")


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield the file itself or, of a packed one, a copy that is gone afterwards; both of bounded size."""
    if path.suffix.lower() != ".gz":
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST / 2**30:g} GiB; write a coarser grid")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="atomvision-volume-") as folder:
        copy, written = Path(folder) / "volume", 0
        with gzip.open(path) as packed, copy.open("wb") as plain:
            while block := packed.read(2**20):
                written += len(block)
                if written > LARGEST:
                    raise ValueError(f"it unpacks to more than {LARGEST / 2**30:g} GiB")
                plain.write(block)
        yield copy


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into one line with the name of the file."""
    try:
        yield
    except FileNotFoundError:
        raise CrystalError(f"{path}: no such file", step="read") from None
    except Exception as problem:  # noqa: BLE001  # ASE's readers raise whatever their parsing meets
        reason = " ".join(str(problem).split()) or "damaged or cut off"
        raise CrystalError(f"{path.name} cannot be read: {reason[:200]}", step="read") from None
