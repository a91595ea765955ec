"""Computed densities of states: those that come with the package, those in the cache, and how to store both.

A file holds one crystal's windows above its topmost atom: logarithms in fine steps, as differences from plane
to plane, which compress well. It is found by composition and recipe, and accepted only when its crystal
is the one asked for, atom by atom: names mean nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import ase
import numpy as np
import numpy.typing as npt

from atomvision_hub._files import write_bytes
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.simulation import gpaw_engine
from atomvision_hub.simulation.gpaw_engine import StateDensity, full_density
from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity, positive
from atomvision_hub.simulation.stm_recipe import Recipe
from atomvision_hub.structures import flat_layer
from atomvision_hub.structures.formula import reduced_formula

#: Volumes that come with the package, made by ``benchmarks/make_stm_library.py``.
SHIPPED = Path(__file__).with_name("volumes")
#: Step of the stored natural logarithms: values are kept to 0.001 %. Coarser steps save little, and where a
#: surface barely reaches the isovalue they decide on which side of it a pixel falls.
LOG_STEP = 2e-5
#: Nothing smaller is stored, e/Å^3.
_SMALLEST = 1e-20
#: Heights that are stored, Å above the topmost atom. Farther out plane waves no longer resolve the decay.
LOWEST, HIGHEST = -1.0, 5.25
#: Atoms farther apart than this (Å) make another crystal.
_SAME = 1e-3
_FORMAT = 1
#: Unpacked bytes of a file; more is a mistake.
_LARGEST = 2**28
_DAMAGE = (
    KeyError,
    ValueError,
    IndexError,
    TypeError,
    OSError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def local_densities(
    atoms: ase.Atoms,
    biases: Sequence[float],
    reference: BiasReference = "band_edge",
    *,
    recipe: Recipe | None = None,
    cache: Path | None = None,
    shipped: Path | None = SHIPPED,
) -> list[LocalDensity]:
    """Return the densities of a crystal at several biases: shipped, cached, or computed now.

    Parameters
    ----------
    atoms
        Two-dimensional crystal.
    biases
        Sample biases, V.
    reference
        Where the windows start.
    recipe
        Numerical parameters; a stored volume of another recipe is not used.
    cache
        Folder of computed volumes, looked into and added to; by default `default_cache`.
    shipped
        Folder looked into first.

    Raises
    ------
    MissingExtraError
        Where a calculation is needed and GPAW is not installed.
    CrystalError
        With step ``"dft"``, see `gpaw_engine.state_density`.
    """
    recipe = recipe or Recipe()
    layer = flat_layer(atoms)
    cache = cache or default_cache()
    if (found := _stored((shipped, cache), layer, biases, reference, recipe)) is not None:
        return found
    # Both signs and both references come from one ground state; what is not asked for now is found later.
    states = gpaw_engine.state_density(
        layer,
        biases=tuple(dict.fromkeys(signed for bias in biases for signed in (bias, -bias))),
        references=get_args(BiasReference),
        recipe=recipe,
    )
    content = pack(states)
    digest = hashlib.sha256(content).hexdigest()[:12]
    write_bytes(cache / f"{file_stem(layer, recipe)}-{digest}.npz", content)
    return unpack(content, layer, biases, reference) or []


def stored_densities(
    atoms: ase.Atoms,
    biases: Sequence[float],
    reference: BiasReference = "band_edge",
    *,
    recipe: Recipe | None = None,
    cache: Path | None = None,
    shipped: Path | None = SHIPPED,
) -> list[LocalDensity] | None:
    """Return what `local_densities` would find, ``None`` where it would have to compute for minutes."""
    folders = (shipped, cache or default_cache())
    return _stored(folders, flat_layer(atoms), biases, reference, recipe or Recipe())


def _stored(
    folders: Sequence[Path | None],
    layer: ase.Atoms,
    biases: Sequence[float],
    reference: BiasReference,
    recipe: Recipe,
) -> list[LocalDensity] | None:
    for folder in folders:
        if folder is not None and (found := _find(folder, layer, biases, reference, recipe)) is not None:
            return found
    return None


def default_cache() -> Path:
    """Return where computed volumes are kept by default: under ATOMVISION_CACHE, else ~/.cache/atomvision."""
    return Path(os.environ.get("ATOMVISION_CACHE") or "~/.cache/atomvision").expanduser() / "stm"


def pack(states: StateDensity) -> bytes:
    """Return windows as the content of a file; the same states give the same bytes."""
    densities = [full_density(states, window) for window in states.windows]
    heights = densities[0].heights
    kept = (heights >= LOWEST) & (heights <= HIGHEST)
    values = np.stack([density.values[:, :, kept] for density in densities])
    levels = np.rint(np.log(np.maximum(positive(values), _SMALLEST)) / LOG_STEP).astype(np.int32)
    facts = {name: value for name, value in states.facts.items() if name != "seconds"}
    header = {
        "format": _FORMAT,
        "windows": [[w.bias, w.reference, w.low, w.high] for w in states.windows],
        "facts": facts,
        "log_step": LOG_STEP,
    }
    atoms = densities[0].atoms
    arrays: dict[str, npt.NDArray[Any]] = {
        "header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8),
        "cell": atoms.cell.array,
        "numbers": atoms.numbers.astype(np.uint8),
        "positions": atoms.positions,
        "heights": heights[kept],
        **_squeezed(levels),
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def unpack(
    content: bytes, layer: ase.Atoms, biases: Sequence[float], reference: BiasReference
) -> list[LocalDensity] | None:
    """Return the densities of a file's content, ``None`` when it is of another crystal or lacks a bias.

    Parameters
    ----------
    content
        Of a file.
    layer
        The crystal asked for, from `flat_layer`; the densities carry it.
    biases, reference
        Windows to return, in this order.

    Raises
    ------
    AtomVisionError
        When the content is damaged.
    """
    try:
        arrays = _arrays(content)
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != _FORMAT or not _same(arrays, layer):
            return None
        windows = [(float(bias), str(kind)) for bias, kind, *_ in header["windows"]]
        wanted = [(float(bias), str(reference)) for bias in biases]
        if not set(wanted) <= set(windows):
            return None
        values = np.exp(_restored(arrays) * float(header["log_step"]))
        facts = dict(header["facts"])
        return [
            LocalDensity(
                values=values[place],
                heights=arrays["heights"],
                atoms=layer,
                bias=bias,
                bias_reference=reference,
                window=(header["windows"][place][2], header["windows"][place][3]),
                broadening=float(facts["broadening"]),
                engine=str(facts["engine"]),
                parameters=facts,
            )
            for bias, place in ((bias, windows.index((bias, kind))) for bias, kind in wanted)
        ]
    except _DAMAGE as problem:
        raise AtomVisionError(f"damaged volume ({problem}); delete the file and try again") from None


def file_stem(layer: ase.Atoms, recipe: Recipe) -> str:
    """Return how the names of the files of a composition and recipe begin."""
    parameters = json.dumps(recipe.parameters(), sort_keys=True).encode()
    return f"{reduced_formula(layer.numbers.tolist())}-{hashlib.sha256(parameters).hexdigest()[:8]}"


def _find(
    folder: Path, layer: ase.Atoms, biases: Sequence[float], reference: BiasReference, recipe: Recipe
) -> list[LocalDensity] | None:
    for path in sorted(folder.glob(f"{file_stem(layer, recipe)}-*.npz")):
        try:
            found = unpack(path.read_bytes(), layer, biases, reference)
        except AtomVisionError as problem:
            raise AtomVisionError(f"{path}: {problem}") from None
        if found is not None:
            return found
    return None


def _same(arrays: dict[str, npt.NDArray[Any]], layer: ase.Atoms) -> bool:
    """Whether a file's crystal is the one asked for, up to its height in the cell."""
    if not np.array_equal(arrays["numbers"], layer.numbers):
        return False
    cell = layer.cell.array
    if np.abs(arrays["cell"][:2] - cell[:2]).max() > _SAME:
        return False
    apart = arrays["positions"] - layer.positions
    apart[:, 2] -= apart[0, 2]
    flat = apart[:, :2] @ np.linalg.inv(cell[:2, :2])
    apart[:, :2] = (flat - np.rint(flat)) @ cell[:2, :2]
    return bool(np.abs(apart).max() <= _SAME)


def _squeezed(levels: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[Any]]:
    """Return levels as second differences over the planes, low and high bytes apart."""
    changes = np.diff(np.diff(levels, axis=-1, prepend=0), axis=-1, prepend=0)
    plain = changes - changes.min()
    return {
        "least": np.array(changes.min(), np.int32),
        "low": (plain & 0xFF).astype(np.uint8),
        "middle": ((plain >> 8) & 0xFF).astype(np.uint8),
        "high": (plain >> 16).astype(np.uint8),
    }


def _restored(arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    low, middle, high = (arrays[name].astype(np.int64) for name in ("low", "middle", "high"))
    changes = low + (middle << 8) + (high << 16) + int(arrays["least"])
    return np.cumsum(np.cumsum(changes, axis=-1), axis=-1)


def _arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LARGEST:
            raise ValueError("unpacks to more than it should")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
