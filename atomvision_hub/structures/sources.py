"""Where crystals come from: one lazy mapping over all sources."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ase

from atomvision_hub.errors import UsageError

#: What `load_structures` understands, for messages.
SOURCES_HELP = (
    "use 'reference', 'reference:MoS2,WSe2', 'synthetic:N', 'jarvis:dft_2d', 'jarvis:c2db', "
    "'jarvis:twod_matpd', 'jarvis:alex_pbe_2d_all', or a file or folder of structures"
)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Provenance of a source.

    Parameters
    ----------
    name
        Short name, the `source` column of its rows.
    description
        One sentence.
    citation
        Text and DOI of what to cite.
    licence
        Terms under which the structures may be passed on, as far as the source states them.
    url
        Where the source lives; empty for local files.
    version_or_sha256
        Version of the source, or the SHA-256 of its file(s).
    """

    name: str
    description: str
    citation: str
    licence: str
    url: str
    version_or_sha256: str


class Source(Protocol):
    """One origin of crystals; all ids are its own."""

    name: str
    ids: tuple[str, ...]

    def info(self) -> SourceInfo:
        """Return the provenance of the source."""

    def atoms(self, source_id: str) -> ase.Atoms:
        """Make one crystal; `CrystalError` with step ``"read"`` or ``"crystal"`` when it cannot be made."""

    def formula(self, source_id: str) -> str:
        """Return the reduced formula of one crystal."""

    def provenance(self, source_id: str) -> tuple[str, str]:
        """Return citation and licence of one crystal."""


class Structures(Mapping[str, ase.Atoms]):
    """Crystals of one or several sources by material id, made on access.

    Iteration gives the ids in the order of the sources. Ids are unique: a second material of the same name
    gets the suffix ``-2``. Pickled as the call that made it, so it travels to other processes cheaply.
    """

    def __init__(self, sources: Sequence[Source], call: tuple[Any, ...], limit: int | None = None) -> None:
        self._origins: tuple[Source, ...] = tuple(sources)
        self._call = call
        self._entries: dict[str, tuple[Source, str]] = {}
        used: dict[str, int] = {}
        for source in self._origins:
            for source_id in source.ids:
                if limit is not None and len(self._entries) >= limit:
                    return
                self._entries[_unique(_sanitised(source_id), self._entries, used)] = (source, source_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._call

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, material_id: object) -> bool:
        return material_id in self._entries

    def __getitem__(self, material_id: str) -> ase.Atoms:
        """Return one crystal with its provenance in ``atoms.info``.

        Raises
        ------
        KeyError
            When there is no such material.
        CrystalError
            When the material cannot be read.
        """
        source, source_id = self._entries[material_id]
        atoms = source.atoms(source_id)
        citation, licence = source.provenance(source_id)
        atoms.info.update(
            material_id=material_id,
            source=source.name,
            source_id=source_id,
            citation=citation,
            licence=licence,
        )
        return atoms

    def __repr__(self) -> str:
        return f"<{len(self)} structures of {', '.join(source.name for source in self._origins)}>"

    @cached_property
    def sources(self) -> tuple[SourceInfo, ...]:
        """Provenance of all sources."""
        return tuple(source.info() for source in self._origins)

    def formula(self, material_id: str) -> str:
        """Return the reduced formula of one material, without making it where its source knows."""
        source, source_id = self._entries[material_id]
        return source.formula(source_id)

    def source_of(self, material_id: str) -> tuple[str, str]:
        """Return (name of the source, id at the source) of one material."""
        source, source_id = self._entries[material_id]
        return source.name, source_id


SourceName = str | os.PathLike[str]


def load_structures(
    source: SourceName | Sequence[SourceName], *, store_dir: Path | None = None, limit: int | None = None
) -> Structures:
    """Open crystals from one or several sources.

    Parameters
    ----------
    source
        ``"reference"`` (monolayers that come with the package; ``"reference:MoS2,WSe2"`` for some of them),
        ``"synthetic:N"`` (N random crystals, options as in ``"synthetic:500,seed=1,pseudo=0.5"``, see
        `SyntheticOptions`), ``"jarvis:dft_2d"``, ``"jarvis:c2db"``, ``"jarvis:twod_matpd"``,
        ``"jarvis:alex_pbe_2d_all"`` (through jarvis-tools), a structure file, a folder of them, or a list of
        these, which are joined.
    store_dir
        Folder where jarvis-tools keeps its downloads.
    limit
        Use only the first materials.

    Returns
    -------
    Structures
        Mapping of material id to `ase.Atoms`. Equal arguments give equal ids in equal order.

    Raises
    ------
    UsageError
        When a source is unknown or holds no structures.
    NetworkNeededError
        When a jarvis file is neither in `store_dir` nor to be had.
    MissingExtraError
        When PyXtal is not installed, which ``"synthetic:N"`` needs.
    """
    names = (source,) if isinstance(source, (str, os.PathLike)) else tuple(source)
    if not names:
        raise UsageError(f"no source given; {SOURCES_HELP}")
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    call = (tuple(os.fspath(name) for name in names), store_dir, limit)
    origins = [_open_source(name, store_dir) for name in call[0]]
    for name, origin in zip(call[0], origins, strict=True):
        if not origin.ids:
            raise UsageError(
                f"source {name!r} holds no structures; give one with CIF, POSCAR or other structure files"
            )
    return Structures(origins, call, limit)


def _reopen(names: tuple[str, ...], store_dir: Path | None, limit: int | None) -> Structures:
    return load_structures(names, store_dir=store_dir, limit=limit)


def _open_source(name: str, store_dir: Path | None) -> Source:
    # Each source module is loaded only when asked for.
    kind, _, rest = name.partition(":")
    if name == "reference" or (kind == "reference" and rest):
        from atomvision_hub.structures.reference import ReferenceSource

        return ReferenceSource(rest.split(",") if rest else None)
    if kind == "jarvis" and rest:
        from atomvision_hub.structures.jarvis import JarvisSource

        return JarvisSource(rest, store_dir)
    if kind == "synthetic" and not Path(name).exists():
        from atomvision_hub.structures.synthetic import SyntheticSource

        return SyntheticSource(rest)
    if Path(name).exists():
        from atomvision_hub.structures.files import FileSource

        return FileSource(Path(name))
    raise UsageError(f"unknown source {name!r}: no such file or folder; {SOURCES_HELP}")


def _sanitised(source_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", source_id).strip("-.") or "structure"


def _unique(name: str, taken: Mapping[str, object], used: dict[str, int]) -> str:
    candidate = name
    while candidate in taken:
        used[name] = used.get(name, 1) + 1
        candidate = f"{name}-{used[name]}"
    return candidate
