"""One file in, its images out, whatever instrument wrote it."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from atomvision_hub.errors import MissingExtraError
from atomvision_hub.microscopy import nanonis, plain_images, rosetta, tiff
from atomvision_hub.microscopy.frame import (
    MAX_IMAGES,
    MicroscopeImage,
    MicroscopyError,
    Signal,
    allowed_size,
    check_pixels,
)

#: Note of an image without pixel size; a person can add one beside the file.
UNCALIBRATED = "not calibrated: the file tells no pixel size"

Reader = Callable[[Path], list[Signal]]


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of file is known and read.

    Parameters
    ----------
    name
        For messages and the column `reader`.
    reader
        Path -> signals.
    magic
        Possible first bytes; empty where a format has none.
    library
        Distribution that reads it.
    """

    name: str
    reader: Reader
    magic: tuple[bytes, ...]
    library: str


_TIFF = Format("tiff", tiff.read, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tifffile")
_JPEG = Format("jpeg", plain_images.read, (b"\xff\xd8\xff",), "pillow")
_LIBRARY = "rosettasciio"
#: Suffix -> format. An allow-list: what holds Python objects (npy, npz, hspy, pickles) is never opened.
FORMATS: dict[str, Format] = {
    ".dm3": Format("digitalmicrograph", rosetta.read_dm, (b"\0\0\0\x03",), _LIBRARY),
    ".dm4": Format("digitalmicrograph", rosetta.read_dm, (b"\0\0\0\x04",), _LIBRARY),
    ".emd": Format("emd", rosetta.read_emd, (b"\x89HDF\r\n\x1a\n",), _LIBRARY),
    ".emi": Format("tia", rosetta.read_tia, (b"JK",), _LIBRARY),
    ".ser": Format("tia", rosetta.read_tia, (b"II\x97\x01",), _LIBRARY),
    ".mrc": Format("mrc", rosetta.read_mrc, (), _LIBRARY),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".sxm": Format("nanonis", nanonis.read, (b":NANONIS_VERSION:",), "atomvision-hub"),
    ".png": Format("png", plain_images.read, (b"\x89PNG\r\n\x1a\n",), "pillow"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
}


def read_images(
    path: str | Path, *, select: str | Sequence[str] | None = None, max_frames: int | None = None
) -> list[MicroscopeImage]:
    """Return the images of an instrument file.

    Every detector and every channel is an image, and every frame of a stack; spectra and preview pictures
    beside them are left out with a note.

    Parameters
    ----------
    path
        DM3, DM4, Velox or Berkeley EMD, SER or EMI, MRC, TIFF, Nanonis SXM, PNG or JPEG.
    select
        Names of the detectors or channels that are wanted (case does not matter); all by default.
    max_frames
        Only the first frames of each stack; all by default.

    Raises
    ------
    MicroscopyError
        When the file gives no image; attributes `step` and `reason`.
    MissingExtraError
        When the library that reads it is not installed.

    Examples
    --------
    >>> image = read_images("gold.emd", select="HAADF")[0]  # doctest: +SKIP
    >>> image.data.shape, image.pixel_size  # doctest: +SKIP
    ((2048, 2048), (0.075, 0.075))
    """
    path = Path(path)
    form = format_of(path)
    try:
        signals = form.reader(path)
    except (MicroscopyError, MissingExtraError) as problem:
        text = str(problem)
        if isinstance(problem, MicroscopyError) and not text.startswith(path.name):
            raise MicroscopyError(f"{path.name} {text}", step=problem.step) from None
        raise
    except MemoryError:
        raise MicroscopyError(f"{path.name} declares more pixels than memory holds", step="size") from None
    except Exception as problem:  # noqa: BLE001  # readers raise whatever a damaged file makes them meet
        told = " ".join(str(problem).split())[:120]
        reason = told if len(told) > 8 else f"{type(problem).__name__} {told}".strip()
        raise MicroscopyError(
            f"{path.name} is damaged or cut short; copy it again from the instrument ({reason})"
        ) from None
    wanted = (
        None if select is None else {n.casefold() for n in ([select] if isinstance(select, str) else select)}
    )
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    images = list(_images(path, form, signals, max_frames, digest))
    chosen = [image for image in images if wanted is None or image.name.casefold() in wanted]
    if not chosen:
        names = ", ".join(sorted({image.name for image in images}))
        raise MicroscopyError(f"{path.name} has no image named {select!r}; it has: {names}", step="content")
    return chosen


def companions(path: Path) -> list[Path]:
    """Return the files that are read with an instrument file: the SER files of an EMI file."""
    return rosetta.companions(path) if path.suffix.lower() == ".emi" else []


def format_of(path: Path) -> Format:
    """Return the format of a file by its suffix and first bytes.

    Raises
    ------
    MicroscopyError
        When it is no file of a known format.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        known = ", ".join(sorted(FORMATS))
        raise MicroscopyError(
            f"{path.name} is no instrument file that is read here; known are {known}", step="format"
        )
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise MicroscopyError(f"{path.name} is not a file; give an instrument file", step="read")
        with path.open("rb") as stream:
            start = stream.read(32)
    except OSError as problem:
        reason = (problem.strerror or "").lower()
        raise MicroscopyError(f"{path.name} cannot be opened: {reason}; check path and rights") from None
    most, _ = allowed_size()
    if facts.st_size > most:
        raise MicroscopyError(
            f"{path.name} has {facts.st_size / 2**20:,.0f} MiB, the limit is {most >> 20:,}; split it",
            step="size",
        )
    if not start:
        raise MicroscopyError(f"{path.name} is empty; copy it again from the instrument")
    if form.magic and not start.startswith(form.magic):
        raise MicroscopyError(
            f"{path.name} is no {form.name} file, whatever its name says; check how it was exported",
            step="format",
        )
    return form


def _images(
    path: Path, form: Format, signals: Sequence[Signal], max_frames: int | None, digest: str
) -> Iterator[MicroscopeImage]:
    reader = f"{form.library} {_version(form.library)} {form.name}"
    usable, refused = [], []
    for signal in signals:
        try:
            usable.append((signal, check_pixels(signal.data, f"{signal.name or 'it'}")))
        except MicroscopyError as problem:
            refused.append(problem)
    if not usable:
        first = refused[0] if refused else MicroscopyError("holds no image", step="content")
        raise MicroscopyError(f"{path.name}: {first.reason}", step=first.step)
    left_out = tuple(f"left out beside it: {problem.reason}" for problem in refused)
    index = 0
    for signal, data in usable:
        stack = data if data.ndim == 3 else data[None]
        shown = stack[:max_frames]
        kept = f"the first {len(shown)} of {len(stack)} frames of its stack are here"
        for frame, pixels in enumerate(shown):
            if index == MAX_IMAGES:
                raise MicroscopyError(
                    f"{path.name} holds more than {MAX_IMAGES} images; split it", step="size"
                )
            diffraction = signal.kind == "diffraction"
            yield MicroscopeImage(
                data=pixels,
                pixel_size=None if diffraction else signal.scale,
                name=signal.name or "image",
                index=index,
                file=path,
                sha256=digest,
                reader=reader,
                original=signal.original,
                kind=signal.kind,
                frame=frame,
                frames=len(stack),
                reciprocal_pixel_size=signal.scale if diffraction else None,
                notes=(
                    *signal.notes,
                    *_odd(signal, pixels),
                    *([kept] if len(shown) < len(stack) else []),
                    *left_out,
                ),
            )
            index += 1


def _odd(signal: Signal, pixels: npt.NDArray[Any]) -> Iterator[str]:
    if signal.scale is None:
        yield UNCALIBRATED
    elif abs(signal.scale[0] / signal.scale[1] - 1) > 1e-3:
        yield "rows and columns have different pixel sizes"
    if pixels.min() == pixels.max():
        yield "all pixels have the same value"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "?"
