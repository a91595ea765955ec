"""Small instrument files, written here with known content."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Writer = Callable[..., Path]


def _sxm(planes: np.ndarray, *, direction: str = "down", size: tuple[float, float] = (4e-9, 2e-9)) -> bytes:
    """Nanonis scan of one channel Z, forward and backward, and of one that goes forward only."""
    _, rows, columns = planes.shape
    header = f"""\
:NANONIS_VERSION:
2
:SCANIT_TYPE:
              FLOAT            MSBFIRST
:REC_DATE:
 31.03.2023
:REC_TIME:
14:38:44
:SCAN_PIXELS:
       {columns}       {rows}
:SCAN_RANGE:
           {size[0]:E}           {size[1]:E}
:SCAN_DIR:
{direction}
:BIAS:
            -2.500E-1
:Z-CONTROLLER:
\tName\ton\tSetpoint\tP-gain\tI-gain\tT-const
\tlog Current\t1\t5.000E-10 A\t4.000E-12 m\t2.222E-8 m/s\t1.800E-4 s
:COMMENT:

:DATA_INFO:
\tChannel\tName\tUnit\tDirection\tCalibration\tOffset
\t14\tZ\tm\tboth\t-1.4E-8\t0.000E+0
\t0\tLI_Demod_1_X\tA\tforward\t1.000E+0\t0.000E+0

:SCANIT_END:


"""
    return header.encode("latin-1") + b"\x1a\x04" + planes.astype(">f4").tobytes()


def _mrc(data: np.ndarray, pixel: float = 2.0, *, sections: int | None = None) -> bytes:
    """MRC of float32 frames with cubic voxels of `pixel` Å; `sections` may lie about their number."""
    frames, rows, columns = data.shape
    header = bytearray(1024)
    count = frames if sections is None else sections
    header[:40] = struct.pack("<10i", columns, rows, count, 2, 0, 0, 0, columns, rows, count)
    header[40:64] = struct.pack("<6f", columns * pixel, rows * pixel, frames * pixel, 90, 90, 90)
    header[64:76] = struct.pack("<3i", 1, 2, 3)
    header[208:216] = b"MAP DD\0\0"
    return bytes(header) + data.astype("<f4").tobytes()


def _ser(data: np.ndarray, pixel: float = 2e-10) -> bytes:
    """Series of float32 images as TIA writes them; lengths in m."""
    count, rows, columns = data.shape
    name, unit = b"Number", b""
    dimension = struct.pack("<iddii", count, 0, 1, 0, len(name)) + name + struct.pack("<i", len(unit)) + unit
    elements = [
        struct.pack("<ddi", 0, pixel, 0) * 2
        + struct.pack("<hii", 7, columns, rows)
        + frame.astype("<f4").tobytes()
        for frame in data
    ]
    tag = struct.pack("<hhi", 0x4152, 0, 1_000_000_000)
    offsets_at = 34 + len(dimension)
    first = offsets_at + 16 * count
    data_at = [first + sum(len(element) for element in elements[:n]) for n in range(count)]
    tags_at = [first + sum(len(element) for element in elements) + n * len(tag) for n in range(count)]
    header = b"II\x97\x01\x20\x02" + struct.pack("<4i", 0x4122, 0x4152, count, count)
    header += struct.pack("<qi", offsets_at, 1)
    return (
        header
        + dimension
        + struct.pack(f"<{2 * count}q", *data_at, *tags_at)
        + b"".join(elements)
        + tag * count
    )


@pytest.fixture
def ser_bytes() -> Callable[..., bytes]:
    """Return the maker of TIA files."""
    return _ser


@pytest.fixture
def sxm_bytes() -> Callable[..., bytes]:
    """Return the maker of Nanonis files."""
    return _sxm


@pytest.fixture
def mrc_bytes() -> Callable[..., bytes]:
    """Return the maker of MRC files."""
    return _mrc


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Return a function that writes bytes under a name and returns the path."""

    def writer(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return writer


@pytest.fixture
def berkeley(tmp_path: Path) -> Writer:
    """Return a writer of Berkeley EMD files: data, and names and units of their axes in their order."""
    h5py = pytest.importorskip("h5py")

    def writer(name: str, data: np.ndarray, axes: list[tuple[str, float, str]], **extra: Any) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
            group = file.create_group("data/image")
            group.attrs["emd_group_type"] = 1
            group.create_dataset("data", data=data)
            for number, (axis, step, unit) in enumerate(axes, 1):
                values = np.arange(data.shape[number - 1], dtype=float) * step
                dimension = group.create_dataset(f"dim{number}", data=values)
                dimension.attrs["name"], dimension.attrs["units"] = np.bytes_(axis), np.bytes_(unit)
            for key, entry in extra.items():
                file[key] = entry
        return path

    return writer
