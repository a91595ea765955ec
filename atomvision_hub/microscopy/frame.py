"""What every reader gives: images with their calibration, or one line saying why there are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from atomvision_hub.errors import AtomVisionError

#: Kinds of images; a reader that is not sure says ``None``.
KINDS = ("tem", "stem", "stm", "sem", "diffraction")
Kind = Literal["tem", "stem", "stm", "sem", "diffraction"]

#: Bytes of pixels that one file may unfold to, and pixels of one image: beyond any camera in use, and what a
#: hostile header or a decompression bomb cannot exceed.
MAX_BYTES, MAX_PIXELS = 2**31, 2**27
_tighter: ContextVar[tuple[int, int] | None] = ContextVar("_tighter", default=None)
#: Images that one file may hold.
MAX_IMAGES = 4096

_DTYPES = frozenset(["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"])
_LONGEST_LIST, _LONGEST_TEXT, _DEEPEST = 256, 2000, 24


class MicroscopyError(AtomVisionError):
    """A file gives no image.

    Parameters
    ----------
    reason
        One line: what is wrong with the file.
    step
        Where it was refused: ``"format"`` (nothing we open), ``"read"`` (damaged), ``"size"`` (too large) or
        ``"content"`` (sound, but spectra, complex numbers, colours); becomes the `step` column of
        ``rejected.parquet``.
    """

    def __init__(self, reason: str, *, step: str = "read") -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step


@dataclass(frozen=True, eq=False)
class MicroscopeImage:
    """One image of an instrument file, as measured.

    Parameters
    ----------
    data
        Intensities [row, column], row 0 at the top, in the type of the file (native byte order).
    pixel_size
        Å/px (row, column), ``None`` where the file tells none. For `kind` ``"diffraction"`` always ``None``:
        its pixels are reciprocal lengths, see `reciprocal_pixel_size`.
    name
        Detector, channel or frame label as the file has it.
    index
        Number of the image among those of its file.
    file, sha256
        Where it was read from.
    reader
        Library, version and format that read it.
    original
        ``{"original_metadata": ..., "metadata": ...}`` in plain types: what the file says, and what the
        reader made of it.
    kind
        One of `KINDS` or ``None``.
    frame, frames
        Place in its stack, and length of the stack.
    reciprocal_pixel_size
        1/Å per px (row, column) of diffraction patterns.
    notes
        What is odd, one short sentence each.
    """

    data: npt.NDArray[Any]
    pixel_size: tuple[float, float] | None
    name: str
    index: int
    file: Path
    sha256: str
    reader: str
    original: Mapping[str, Any] = field(default_factory=dict, repr=False)
    kind: Kind | None = None
    frame: int = 0
    frames: int = 1
    reciprocal_pixel_size: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def field_of_view(self) -> tuple[float, float] | None:
        """Height and width in Å, ``None`` without calibration."""
        if self.pixel_size is None:
            return None
        rows, columns = self.data.shape
        return rows * self.pixel_size[0], columns * self.pixel_size[1]


@dataclass(frozen=True, eq=False)
class Signal:
    """What a format's reader found before it became images: frames [frame, row, column] that belong together.

    Parameters
    ----------
    data
        Array of two or three axes, anything else is refused by `check_pixels`.
    scale
        Å/px or 1/Å per px (row, column), or ``None``.
    """

    data: npt.NDArray[Any]
    scale: tuple[float, float] | None
    name: str = ""
    kind: Kind | None = None
    original: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@contextmanager
def size_limits(*, max_bytes: int, max_pixels: int) -> Iterator[None]:
    """Read files within tighter limits than `MAX_BYTES` and `MAX_PIXELS`, for those of strangers.

    Parameters
    ----------
    max_bytes
        That a file may have, and may unfold to.
    max_pixels
        Of one image.
    """
    token = _tighter.set((min(max_bytes, MAX_BYTES), min(max_pixels, MAX_PIXELS)))
    try:
        yield
    finally:
        _tighter.reset(token)


def allowed_size() -> tuple[int, int]:
    """Return how many bytes a file and how many pixels an image may have."""
    return _tighter.get() or (MAX_BYTES, MAX_PIXELS)


def check_size(shape: Iterable[int], itemsize: int) -> None:
    """Refuse what a file declares to be too large, before any memory is asked for.

    Raises
    ------
    MicroscopyError
        With step ``"size"``.
    """
    lengths = [int(length) for length in shape]
    pixels = int(np.prod(lengths[-2:], dtype=object)) if lengths else 1
    total = int(np.prod(lengths, dtype=object)) * itemsize if lengths else itemsize
    most_bytes, most_pixels = allowed_size()
    if total > most_bytes or pixels > most_pixels:
        told = " x ".join(str(length) for length in lengths)
        raise MicroscopyError(
            f"declares {told} pixels, more than {most_bytes // 2**20:,} MiB a file or {most_pixels // 10**6} "
            "megapixels an image; bin or crop it first",
            step="size",
        )


def check_pixels(data: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """Return intensities in native byte order, refusing what is no grey-level image.

    Raises
    ------
    MicroscopyError
        With step ``"content"`` for complex numbers, colours, spectra and empty arrays.
    """
    if data.dtype.names or data.dtype.kind not in "uifb":
        kind = (
            "complex numbers" if data.dtype.kind == "c" else "colours" if data.dtype.names else "no numbers"
        )
        raise MicroscopyError(
            f"{what} holds {kind}, not intensities; export the measured image", step="content"
        )
    if data.ndim not in (2, 3) or min(data.shape, default=0) < 1 or 1 in data.shape[-2:]:
        told = " x ".join(str(length) for length in data.shape) or "one value"
        raise MicroscopyError(
            f"{what} is no image but {told} values (a spectrum or line profile)", step="content"
        )
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    native = data.dtype.newbyteorder("=")
    if native.name not in _DTYPES:
        raise MicroscopyError(f"{what} has pixels of type {native}, which no TIFF holds", step="content")
    if native.kind == "f" and not np.isfinite(data).any():
        raise MicroscopyError(f"{what} has no finite pixel; nothing was measured", step="content")
    return np.ascontiguousarray(data, dtype=native)


def plain(value: Any, depth: int = 0) -> Any:
    """Return metadata in the types of JSON; raw bytes and long arrays are named, not copied."""
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {str(key): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray | list | tuple | set):
        if len(np.shape(value) if isinstance(value, np.ndarray) else (0,)) == 0:
            return plain(value.item(), depth + 1) if isinstance(value, np.ndarray) else value
        if len(value) > _LONGEST_LIST:
            return f"{len(value)} values"
        return [plain(inner, depth + 1) for inner in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, str):
        return value[:_LONGEST_TEXT].replace("\x00", "")
    return value if value is None or isinstance(value, bool | int) else str(value)[:_LONGEST_TEXT]
