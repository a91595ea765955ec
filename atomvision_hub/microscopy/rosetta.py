"""The adapter of rosettasciio (optional, GPL): the only module that imports it."""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from atomvision_hub.errors import MissingExtraError
from atomvision_hub.microscopy.calibration import angstrom, is_angle, per_angstrom
from atomvision_hub.microscopy.frame import Kind, MicroscopyError, Signal, check_size, plain

_MISSING = "{} needs rosettasciio; pip install 'atomvision-hub[microscopy]'"
_MRC_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 12: 2, 101: 1}
_STEM_DETECTORS = ("HAADF", "ADF", "BF", "DF", "DF2", "DF4", "DF-S", "DF-I", "DF-O", "ABF", "DPC")


def read_dm(path: Path) -> list[Signal]:
    """Return the images of a DM3 or DM4 file of DigitalMicrograph."""
    with _quiet(path):
        from rsciio.digitalmicrograph import file_reader

        return _signals(file_reader(str(path)), path)


def read_tia(path: Path) -> list[Signal]:
    """Return the images of a SER file, or of all SER files that belong to an EMI file."""
    if path.suffix.lower() == ".emi" and not companions(path):
        raise MicroscopyError("is a header alone; put its .ser files beside it")
    for file in companions(path) if path.suffix.lower() == ".emi" else [path]:
        _check_ser(file)
    with _quiet(path):
        from rsciio.tia import file_reader

        return _signals(file_reader(str(path)), path)


def companions(path: Path) -> list[Path]:
    """Return the SER files of an EMI file: ``name_1.ser``, ``name_2.ser``, ..."""
    return sorted(
        file
        for file in path.parent.iterdir()
        if file.suffix.lower() == ".ser"
        and file.stem.startswith(f"{path.stem}_")
        and file.stem[len(path.stem) + 1 :].isdigit()
    )


def read_mrc(path: Path) -> list[Signal]:
    """Return the frames of an MRC file."""
    _check_mrc(path)
    with _quiet(path):
        from rsciio.mrc import file_reader

        return _signals(file_reader(str(path)), path)


def read_emd(path: Path) -> list[Signal]:
    """Return the images of a Velox or Berkeley EMD file."""
    with _quiet(path):
        from rsciio.emd import file_reader

        flavour = _check_hdf5(path)
        if flavour == "velox":
            with _without_maps(path) as images:
                found = _signals(file_reader(str(images), select_type="images"), path)
            note = () if images == path else ("left out beside it: a map of spectra (EDS)",)
            return [replace(signal, notes=(*signal.notes, *note)) for signal in found]
        found = file_reader(str(path))
        return _signals([_upright(one) for one in found] if flavour == "berkeley" else found, path)


@contextlib.contextmanager
def _without_maps(path: Path) -> Iterator[Path]:
    """Copy the images of a Velox file that maps spectra too.

    For those rosettasciio wants one more library, even where it is told to read images only.
    """
    import h5py

    with h5py.File(path, "r") as file:
        if "SpectrumImage" not in file["Data"]:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="atomvision-") as folder:
            images = Path(folder) / path.name
            with h5py.File(images, "w") as copy:
                for name in file:
                    if name != "Data":
                        file.copy(name, copy)
                data = copy.create_group("Data")
                for name in ("Image", "Text"):
                    if name in file["Data"]:
                        file.copy(f"Data/{name}", data)
            yield images


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Keep the remarks of a reader to itself, and tell of its absence in one line."""
    try:
        logging.getLogger("rsciio").setLevel(logging.CRITICAL)  # errors are raised and told by us
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as problem:
        if problem.name and problem.name.split(".")[0] in ("rsciio", "h5py", "dask"):
            raise MissingExtraError(_MISSING.format(path.name)) from None
        raise


def _signals(found: Sequence[Mapping[str, Any]], path: Path) -> list[Signal]:
    """Return the images among what a reader found; what is none is told of in their notes."""
    signals, refused = [], []
    for one in found:
        try:
            signals.append(_signal(one, path))
        except MicroscopyError as problem:
            refused.append(problem)
    if not signals:
        raise refused[0] if refused else MicroscopyError("holds no image", step="content")
    left_out = tuple(f"left out beside it: {problem.reason}" for problem in refused)
    return [replace(signal, notes=(*signal.notes, *left_out)) for signal in signals]


def _upright(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Undo the transposition with which rosettasciio reads Berkeley EMD: y along rows, x along columns."""
    axes = list(found["axes"])
    names = [str(axis.get("name", "")).casefold() for axis in axes]
    order = list(reversed(range(len(axes))))
    if {"x", "y"} <= set(names):
        last = [names.index("y"), names.index("x")]
        order = [index for index in order if index not in last] + last
    return {**found, "data": np.transpose(found["data"], order), "axes": [axes[index] for index in order]}


def _signal(found: Mapping[str, Any], path: Path) -> Signal:
    metadata = _mapped(found)
    axes = [dict(axis) for axis in found["axes"]]
    data = found["data"]
    shape = getattr(data, "shape", ())
    check_size(shape, data.dtype.itemsize)
    data = np.array(data) if isinstance(data, np.memmap) else np.asarray(data)  # the file may change
    name = str(metadata.get("General", {}).get("title") or "")
    what = repr(name) if name and name != path.stem else "it"
    signal_type = str(metadata.get("Signal", {}).get("signal_type") or "")
    if signal_type in ("EELS", "EDS_TEM", "EDS_SEM", "CL") or any(
        str(axis.get("units")) in ("eV", "keV") for axis in axes
    ):
        raise MicroscopyError(f"holds a spectrum ({signal_type or 'energies'}), not an image", step="content")
    if data.ndim > 3:
        told = " x ".join(str(length) for length in shape)
        raise MicroscopyError(
            f"{what} is a {told} data cube (4D-STEM or a map), not an image", step="content"
        )
    scale, diffraction = _scale(axes)
    return Signal(
        data,
        scale,
        name,
        "diffraction" if diffraction else _kind(metadata, name),
        {"original_metadata": plain(found.get("original_metadata") or {}), "metadata": plain(metadata)},
    )


def _mapped(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reader's metadata with the `mapping` applied that it returns beside it."""
    metadata = dict(found.get("metadata") or {})
    for source, (target, convert) in (found.get("mapping") or {}).items():
        value: Any = found.get("original_metadata")
        for key in source.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            continue
        try:
            value = convert(value) if convert else value
        except Exception:  # noqa: BLE001, S112  # a tag of unexpected form: it stays in original_metadata
            continue
        *folders, last = target.split(".")
        place = metadata
        for folder in folders:
            inner = place.get(folder)
            place[folder] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[folder]
        if value is not None:
            place[last] = value
    return metadata


def _scale(axes: list[dict[str, Any]]) -> tuple[tuple[float, float] | None, bool]:
    """Return the lengths of a pixel, and whether they are reciprocal."""
    if len(axes) < 2:
        return None, False
    facts = [(float(axis.get("scale") or 0), str(axis.get("units") or "")) for axis in axes[-2:]]
    real = [angstrom(*fact) for fact in facts]
    reciprocal = [per_angstrom(*fact) for fact in facts]
    if real[0] is not None and real[1] is not None:
        return (real[0], real[1]), False
    if reciprocal[0] is not None and reciprocal[1] is not None:
        return (reciprocal[0], reciprocal[1]), True
    return None, any(is_angle(unit) for _, unit in facts)


def _kind(metadata: Mapping[str, Any], name: str) -> Kind | None:
    instrument = metadata.get("Acquisition_instrument") or {}
    if "SEM" in instrument:
        return "sem"
    mode = str((instrument.get("TEM") or {}).get("acquisition_mode", "")).upper()
    if mode in ("TEM", "STEM", "SEM"):
        return {"TEM": "tem", "STEM": "stem", "SEM": "sem"}[mode]  # type: ignore[return-value]
    return "stem" if name.upper() in _STEM_DETECTORS else None


def _check_mrc(path: Path) -> None:
    """Compare what the header declares with the length of the file (MRC2014)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(1024)
    if len(header) < 1024:
        raise MicroscopyError("is shorter than the header of an MRC file; copy it again")
    for order in "<>":
        columns, rows, sections, mode = struct.unpack(f"{order}4i", header[:16])
        extended = struct.unpack(f"{order}i", header[92:96])[0]
        if mode in _MRC_BYTES and min(columns, rows, sections) > 0 <= extended:
            break
    else:
        raise MicroscopyError("is no MRC file: neither its shape nor its mode is one", step="format")
    if mode in (3, 4):
        raise MicroscopyError("holds complex numbers (a Fourier transform), not intensities", step="content")
    check_size((sections, rows, columns), _MRC_BYTES[mode])
    needed = 1024 + extended + columns * rows * sections * _MRC_BYTES[mode]
    if needed > size:
        raise MicroscopyError(
            f"is cut short: {size:,} of {needed:,} bytes; copy it again from the instrument"
        )


def _check_ser(path: Path) -> None:
    """Compare the number of elements that a SER header declares with the length of the file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(30)
    if len(header) < 30:
        raise MicroscopyError(f"is cut short: {path.name} has {size} bytes; copy it again")
    kind, _tag, total, valid = struct.unpack("<4i", header[6:22])
    if kind == 0x4120:
        raise MicroscopyError("holds spectra, not images", step="content")
    if not 0 <= valid <= total or 4 * total > size:
        raise MicroscopyError(f"declares {total:,} images in {size:,} bytes; copy it again")


def _check_hdf5(path: Path) -> Literal["velox", "berkeley", "emd1"]:
    """Tell which kind of EMD a file is, refusing what HDF5 allows and no microscope writes.

    Links into other files and data stored outside could read any file of this machine; a declared shape costs
    nothing until it is unfolded.
    """
    import h5py

    with h5py.File(path, "r") as file:
        links: list[tuple[str, Any]] = []
        file.visititems_links(lambda name, link: links.append((name, link)))
        velox = "Version" in file and "Data" in file
        total = 0
        for name, link in links:
            if isinstance(link, h5py.ExternalLink):
                raise MicroscopyError(f"links to another file at {name}; such files are not followed")
            entry = file[name] if isinstance(link, h5py.HardLink) else None
            if not isinstance(entry, h5py.Dataset) or entry.shape is None:
                continue
            if entry.external or entry.is_virtual:
                raise MicroscopyError(f"keeps {name} in another file; such files are not followed")
            if velox and name.startswith("Data/Spectrum"):  # not even opened
                continue
            check_size(entry.shape if entry.ndim < 3 else (entry.size, 1, 1), entry.dtype.itemsize)
            total += entry.size * entry.dtype.itemsize
            check_size((total, 1, 1), 1)
        if velox:
            return "velox"
        return "emd1" if any(name.endswith("/dim0") for name, _ in links) else "berkeley"
