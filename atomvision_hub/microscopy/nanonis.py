"""Nanonis SXM scans: a text header, then big-endian float32 planes (SPECS, Nanonis file format)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from atomvision_hub.microscopy.calibration import angstrom
from atomvision_hub.microscopy.frame import MicroscopyError, Signal, check_size

_END, _DATA = b":SCANIT_END:", b"\x1a\x04"
_LONGEST_HEADER = 2**20


def read(path: Path) -> list[Signal]:
    """Return every recorded channel, forward and backward, turned as the surface lies.

    Rows are stored in the order of the scan and backward planes in the order of the tip: both are turned
    here, so that all channels show one surface with row 0 at the top of the scan frame.
    """
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
    header_end = start.find(_END)
    data_start = start.find(_DATA, header_end)
    if header_end < 0 or data_start < 0:
        raise MicroscopyError("has a header without an end; copy it again from the instrument")
    header = parse_header(start[:header_end].decode("latin-1"))
    columns, rows = (int(word) for word in _words(header, "SCAN_PIXELS", 2))
    if min(columns, rows) < 1:
        raise MicroscopyError(f"has no valid SCAN_PIXELS in its header ({columns} x {rows})")
    width, height = (float(word) for word in _words(header, "SCAN_RANGE", 2))
    kind, order = _words(header, "SCANIT_TYPE", 2)
    if (kind, order) != ("FLOAT", "MSBFIRST"):
        raise MicroscopyError(f"holds {kind} {order} numbers; only FLOAT MSBFIRST is known")
    labels = _planes(header)
    check_size((len(labels), rows, columns), 4)
    needed = len(labels) * rows * columns * 4
    with path.open("rb") as stream:
        stream.seek(data_start + len(_DATA))
        body = stream.read(needed)
    if len(body) < needed:
        raise MicroscopyError(f"is cut short: {len(body)} of {needed} bytes of pixels; copy it again")
    planes = np.frombuffer(body, ">f4").reshape(len(labels), rows, columns)
    lengths = angstrom(height / rows, "m"), angstrom(width / columns, "m")
    scale = None if lengths[0] is None or lengths[1] is None else (lengths[0], lengths[1])
    upwards = str(header.get("SCAN_DIR", "")).strip() == "up"
    signals = []
    for (name, unit, backward), plane in zip(labels, planes, strict=True):
        image = plane[::-1] if upwards else plane
        image = image[:, ::-1] if backward else image
        finite = bool(np.isfinite(image).all())
        notes = () if finite else ("the scan was stopped: pixels that were not reached are NaN",)
        original: dict[str, Any] = {
            "original_metadata": {"nanonis": header, "channel": {"name": name, "unit": unit}},
            "metadata": {},
        }
        label = f"{name} {'backward' if backward else 'forward'}"
        signals.append(Signal(image, scale, label, "stm", original, notes))
    return signals


def parse_header(text: str) -> dict[str, Any]:
    """Return the header as key -> text; a table becomes column -> entry, or a list of these, row by row."""
    header: dict[str, Any] = {}
    for match in re.finditer(
        r"^:([^\n]+):[ \t]*\n(.*?)(?=^:[^\n]+:[ \t]*\n|\Z)", text, re.MULTILINE | re.DOTALL
    ):
        lines = [line for line in match.group(2).splitlines() if line.strip()]
        tables = len(lines) > 1 and all(line.startswith("\t") for line in lines)
        header[match.group(1)] = _table(lines) if tables else "\n".join(line.strip() for line in lines)
    return header


def _table(lines: list[str]) -> Any:
    names, *rows = [[cell.strip() for cell in line.strip("\t").split("\t")] for line in lines]
    found = [dict(zip(names, row, strict=False)) for row in rows]
    return found[0] if len(found) == 1 else found


def _words(header: dict[str, Any], key: str, count: int) -> list[str]:
    words = str(header.get(key, "")).split()
    if len(words) != count:
        raise MicroscopyError(f"has no valid {key} in its header; copy it again from the instrument")
    return words


def _planes(header: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return (name, unit, backward) of the planes in the order they are stored."""
    table = header.get("DATA_INFO")
    entries = [table] if isinstance(table, dict) else table
    if not isinstance(entries, list) or not entries:
        raise MicroscopyError("has no table of its channels (DATA_INFO); copy it again from the instrument")
    planes = []
    for entry in entries:
        name, unit = str(entry.get("Name", "?")).replace("_", " "), str(entry.get("Unit", ""))
        direction = str(entry.get("Direction", "")).lower()
        if direction in ("both", "forward"):
            planes.append((name, unit, False))
        if direction in ("both", "backward"):
            planes.append((name, unit, True))
    return planes
