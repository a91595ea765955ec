"""TIFF of microscopes and image programs: pixels by tifffile, calibration from the tags of the vendors.

Known are FEI/Thermo Fisher, Olympus SIS, DigitalMicrograph, ImageJ and OME. The resolution tag alone is the
size of a print, not of a specimen, and is no calibration.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atomvision_hub.errors import MissingExtraError
from atomvision_hub.microscopy.calibration import angstrom
from atomvision_hub.microscopy.frame import MAX_IMAGES, Kind, MicroscopyError, Signal, check_size, plain
from atomvision_hub.microscopy.plain_images import one_channel

Scale = tuple[float, float] | None
_MINISWHITE, _RGB, _PALETTE = 0, 2, 3
_REDUCED = 1
_VENDORS = ("fei_metadata", "sis_metadata", "sem_metadata", "tvips_metadata", "imagej_metadata")
_BULKY = re.compile(r"Strip|Tile|JPEGTables|ColorMap|IJMetadata|JEOL_Header")


def read(path: Path) -> list[Signal]:
    """Return the pages of a TIFF file; equal pages that follow each other are one stack."""
    with _complaints() as complaints:
        signals = _signals(path)
    if broken := [line for line in complaints if "invalid" in line and "offset" in line]:
        # What tifffile leaves out with a remark may be the calibration.
        raise MicroscopyError(
            f"is damaged or cut short; copy it again from the instrument ({broken[0][:120]})"
        )
    return signals


def _signals(path: Path) -> list[Signal]:
    import tifffile

    # Series of OME and Micro-Manager name further files to open: a page is what this file holds.
    with tifffile.TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False) as tif:
        if len(tif.pages) > MAX_IMAGES:
            raise MicroscopyError(f"holds more than {MAX_IMAGES} pages; split it", step="size")
        pages = list(tif.pages)
        usable = [page for page in pages if not _is_preview(page, pages)]
        check_size((sum(_pixels(page) for page in usable), 1, 1), 1)
        facts = _file_facts(tif)
        stacked = _imagej_stack(tif, usable)
        signals = []
        for group in [usable[:1]] if stacked is not None else _stacks(usable):
            data = stacked if stacked is not None else np.stack([_pixels_of(page, path) for page in group])
            signals.append(_signal(data, group[0], facts, previews=len(pages) - len(usable)))
        return signals


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile remarks instead of printing it."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(" ".join(record.getMessage().split()))

    logger, handler = logging.getLogger("tifffile"), Collector()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def _signal(data: np.ndarray[Any, Any], page: Any, facts: dict[str, Any], previews: int) -> Signal:
    tags = _tags(page) | facts
    notes = []
    if previews:
        notes.append(f"{previews} preview picture(s) beside it left out")
    if int(page.photometric) == _MINISWHITE:
        notes.append("stored with white as zero")
    if int(page.photometric) == _PALETTE:
        notes.append("stored with a colour table: the values are its indices")
    bar = tags.get("fei_metadata", {}).get("PrivateFei", {}).get("DatabarHeight")
    rows = tags.get("fei_metadata", {}).get("Image", {}).get("ResolutionY")
    if isinstance(bar, int) and isinstance(rows, int) and 0 < bar == data.shape[-2] - rows:
        notes.append(f"the last {bar} rows are the data bar of the instrument")
    turned = tags.get("Orientation")
    if turned not in (None, "TOPLEFT"):
        notes.append(f"stored with orientation {turned}, shown as stored")
    scale = (
        _fei(tags) or _sis(tags) or _dm(tags) or _zeiss(tags) or _tvips(tags) or _ome(tags) or _imagej(tags)
    )
    return Signal(
        data[0] if data.shape[0] == 1 else data,
        scale,
        str(tags.get("fei_metadata", {}).get("Detectors", {}).get("Name", "")),
        _kind(tags),
        {"original_metadata": tags, "metadata": {}},
        tuple(notes),
    )


def _is_preview(page: Any, pages: list[Any]) -> bool:
    if int(page.subfiletype) & _REDUCED:
        return True
    return int(page.photometric) == _RGB and any(int(other.photometric) != _RGB for other in pages)


def _pixels(page: Any) -> int:
    shape = page.shape[:2] if page.axes.endswith("S") else page.shape[-2:]
    check_size(shape, page.dtype.itemsize if page.dtype else 1)
    return int(page.nbytes)


def _pixels_of(page: Any, path: Path) -> np.ndarray[Any, Any]:
    size = path.stat().st_size
    if any(o + n > size for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)):
        raise MicroscopyError("is cut short: it points beyond its end; copy it again from the instrument")
    try:
        data: np.ndarray[Any, Any] = page.asarray()
    except ValueError as problem:
        if "imagecodecs" in str(problem):
            raise MissingExtraError(
                f"{path.name} is compressed in a way that needs imagecodecs; "
                "pip install 'atomvision-hub[microscopy]'"
            ) from None
        raise
    return one_channel(data) if page.axes.endswith("S") else data


def _stacks(pages: list[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    for page in pages:
        if group and (page.shape, page.dtype) != (group[0].shape, group[0].dtype):
            yield group
            group = []
        group.append(page)
    if group:
        yield group


def _imagej_stack(tif: Any, pages: list[Any]) -> np.ndarray[Any, Any] | None:
    """Return the stack that ImageJ stores behind its one page, ``None`` for any other file."""
    count = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    if len(pages) != 1 or count < 2 or pages[0].axes.endswith("S"):
        return None
    check_size((count, *pages[0].shape), pages[0].dtype.itemsize)
    start = pages[0].dataoffsets[0]
    needed = count * int(pages[0].nbytes)
    tif.filehandle.seek(start)
    body = tif.filehandle.read(needed)
    if len(body) < needed:
        raise MicroscopyError(f"is cut short: {len(body)} of {needed} bytes of pixels; copy it again")
    return np.frombuffer(body, pages[0].dtype.newbyteorder(tif.byteorder)).reshape(count, *pages[0].shape)


def _tags(page: Any) -> dict[str, Any]:
    tags = {tag.name: tag.value for tag in page.tags if not _BULKY.search(tag.name)}
    sis = tags.pop("OlympusSIS", None) or tags.pop("OlympusINI", None)
    return {
        str(name): plain(value)
        for name, value in (tags | ({"sis_metadata": sis} if sis else {})).items()
        if not (isinstance(value, str | bytes) and not value)
    }


def _file_facts(tif: Any) -> dict[str, Any]:
    found = {name: plain(getattr(tif, name, None)) for name in _VENDORS}
    description = str(tif.pages[0].description or "")[:1_000_000]
    # Read by pattern: nothing in a hostile document is expanded or followed.
    pixels = re.search(r"<Pixels\s[^>]*>", description)
    if pixels and "OME" in description[:2000]:
        found["ome"] = dict(re.findall(r'(\w+)="([^"]{0,200})"', pixels.group(0)))
    return {name: value for name, value in found.items() if value}


def _pair(rows: Any, columns: Any, row_unit: str | None, column_unit: str | None = None) -> Scale:
    try:
        first = angstrom(float(rows), row_unit)
        second = angstrom(float(columns), column_unit or row_unit)
    except (TypeError, ValueError):
        return None
    return None if first is None or second is None else (first, second)


def _fei(tags: dict[str, Any]) -> Scale:
    fei = tags.get("fei_metadata", {})
    scan = fei.get("Scan", {})
    if "PixelHeight" in scan:
        return _pair(scan["PixelHeight"], scan.get("PixelWidth"), "m")
    beam = fei.get(str(fei.get("Beam", {}).get("Beam", "")), {})
    image = fei.get("Image", {})
    try:
        rows, columns = beam["VFW"] / image["ResolutionY"], beam["HFW"] / image["ResolutionX"]
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return _pair(rows, columns, "m")


def _sis(tags: dict[str, Any]) -> Scale:
    sis = tags.get("sis_metadata", {})
    return _pair(sis.get("pixelsizey"), sis.get("pixelsizex"), "m")


def _dm(tags: dict[str, Any]) -> Scale:
    # Private tags of DigitalMicrograph: units 65003 (x) and 65004 (y), scales 65009 and 65010.
    return _pair(tags.get("65010"), tags.get("65009"), tags.get("65004"), tags.get("65003"))


def _zeiss(tags: dict[str, Any]) -> Scale:
    # The fourth unnamed parameter of SmartSEM is the pixel size in metres on a display of 1024 columns.
    unnamed = tags.get("sem_metadata", {}).get("")
    if not isinstance(unnamed, list) or len(unnamed) < 4 or not isinstance(unnamed[3], int | float):
        return None
    size = unnamed[3] * 1024 / tags["ImageWidth"]
    return _pair(size, size, "m")


def _tvips(tags: dict[str, Any]) -> Scale:
    tvips = tags.get("tvips_metadata", {})
    return _pair(tvips.get("PixelSizeY"), tvips.get("PixelSizeX"), "nm")


def _ome(tags: dict[str, Any]) -> Scale:
    pixels = tags.get("ome", {})
    units = pixels.get("PhysicalSizeYUnit", "µm"), pixels.get("PhysicalSizeXUnit", "µm")
    return _pair(pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeX"), *units)


def _imagej(tags: dict[str, Any]) -> Scale:
    unit = tags.get("imagej_metadata", {}).get("unit")
    x, y = tags.get("XResolution"), tags.get("YResolution")
    if unit is None or not (isinstance(x, list) and isinstance(y, list)) or not (x[0] and y[0]):
        return None
    return _pair(y[1] / y[0], x[1] / x[0], str(unit))


def _kind(tags: dict[str, Any]) -> Kind | None:
    beam = tags.get("fei_metadata", {}).get("Beam", {}).get("Beam")
    return "sem" if beam in ("EBeam", "IBeam") or "sem_metadata" in tags else None
