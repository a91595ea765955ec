"""Scans that were calculated, kept in a folder: a crystal and its settings are calculated once.

A file is found by composition, settings and seed, and accepted only when its crystal is the one asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from atomvision_hub._files import write_bytes
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.simulation.multislice.scan import PeriodScan, scan_period
from atomvision_hub.simulation.multislice.settings import Multislice

#: Atoms or cell vectors farther apart than this (Å) make another crystal.
_SAME = 1e-4
_FORMAT = 1


def default_cache() -> Path:
    """Return where scans are kept by default: under ATOMVISION_CACHE, else ~/.cache/atomvision."""
    return Path(os.environ.get("ATOMVISION_CACHE") or "~/.cache/atomvision").expanduser() / "multislice"


def stored_scan(
    atoms: Atoms, settings: Multislice | None = None, *, seed: int = 0, cache: Path | None = None
) -> PeriodScan:
    """Return the scan of a crystal: kept from an earlier call, or calculated now and kept.

    Parameters
    ----------
    atoms, settings, seed
        As of `scan_period`.
    cache
        Folder of the scans; by default `default_cache`.

    Raises
    ------
    AtomVisionError
        As `scan_period`, or when a file of the folder is damaged.
    """
    settings, cache = settings or Multislice(), cache or default_cache()
    key = json.dumps([_FORMAT, settings.model_dump(mode="json"), seed], sort_keys=True).encode()
    stem = f"{atoms.get_chemical_formula()}-{hashlib.sha256(key).hexdigest()[:12]}"
    for path in sorted(cache.glob(f"{stem}-*.npz")):
        if (found := _unpacked(path, atoms)) is not None:
            return found
    scan = scan_period(atoms, settings, seed=seed)
    content = _packed(scan, atoms)
    write_bytes(cache / f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}.npz", content)
    return scan


def _packed(scan: PeriodScan, atoms: Atoms) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        allow_pickle=False,
        header=np.frombuffer(
            json.dumps({"limit": scan.limit, "facts": scan.facts}, sort_keys=True).encode(), np.uint8
        ),
        values=scan.values,
        cell=scan.cell,
        origin=scan.origin,
        **_crystal(atoms),
    )
    return stream.getvalue()


def _unpacked(path: Path, atoms: Atoms) -> PeriodScan | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name, value in _crystal(atoms).items():
            if arrays[name].shape != value.shape or np.abs(arrays[name] - value).max() > _SAME:
                return None
        header = json.loads(arrays["header"].tobytes())
        return PeriodScan(
            arrays["values"], arrays["cell"], arrays["origin"], float(header["limit"]), dict(header["facts"])
        )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as problem:
        raise AtomVisionError(f"{path}: damaged scan ({problem}); delete the file and try again") from None


def _crystal(atoms: Atoms) -> dict[str, np.ndarray[Any, Any]]:
    """Return what makes a crystal, but for its height in the cell."""
    positions = np.array(atoms.positions, dtype=np.float64)
    positions[:, 2] -= positions[:, 2].min()
    plane = np.asarray(atoms.cell.array, dtype=np.float64)[:2]
    return {"numbers": atoms.numbers.astype(np.int64), "positions": positions, "plane": plane}
