"""A picture of an image, its power spectrum with the peaks that were found, and their table."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.matching import Matches
from atomvision_hub.analysis.spacings import Spacings
from atomvision_hub.analysis.spectrum import Spectrum

_ROWS = 12
_SIDE = 900


def hkl_text(indices: tuple[int, ...]) -> str:
    """Return Miller indices as text: ``"111"``, with blanks where one is negative or has two digits."""
    compact = all(0 <= index <= 9 for index in indices)
    return ("" if compact else " ").join(map(str, indices))


def spacings_picture(
    image: npt.ArrayLike, spacings: Spacings, matches: Matches | None = None, title: str = ""
) -> bytes:
    """Return a PNG: the image with a scale bar, the spectrum with the peaks by number, and the table.

    Parameters
    ----------
    image
        Grey levels [row, column], as given to `lattice_spacings`.
    spacings
        Its result.
    matches
        What a crystal says to it.
    title
        First line.
    """
    from matplotlib.figure import Figure

    grey = np.asarray(image, dtype=float)
    grey = np.where(np.isfinite(grey), grey, np.nanmean(grey))
    figure = Figure(figsize=(15.5, 6), dpi=90)
    picture, spectrum, table = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    _draw_image(picture, grey, spacings)
    _draw_spectrum(spectrum, grey, spacings)
    _draw_table(table, spacings, matches)
    figure.suptitle(title)
    figure.subplots_adjust(left=0.045, right=0.995, bottom=0.09, top=0.88, wspace=0.14)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_image(axes: Any, grey: npt.NDArray[np.float64], spacings: Spacings) -> None:
    step = max(1, max(grey.shape) // _SIDE)
    rows, columns = (length // step * step for length in grey.shape)
    small = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    low, high = np.percentile(small, (0.5, 99.5))
    height, width = spacings.pixel_size or (1.0, 1.0)
    extent = (0, columns * width, rows * height, 0)
    axes.imshow(small, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), extent=extent)
    axes.set_xlabel(f"x ({spacings.unit})")
    axes.set_ylabel(f"y ({spacings.unit})")
    axes.set_title(f"{grey.shape[0]} x {grey.shape[1]} px")


def _draw_spectrum(axes: Any, grey: npt.NDArray[np.float64], spacings: Spacings) -> None:
    half = Spectrum(grey)
    full = np.log(np.maximum(np.fft.fftshift(_whole(half.power, grey.shape[1])), 1e-300))
    height, width = spacings.pixel_size or (1.0, 1.0)
    furthest = max((np.hypot(*peak.vector) for peak in spacings.peaks), default=0.25 / max(height, width))
    reach = min(1.35 * furthest, 0.5 / max(height, width))
    y, x = (
        np.fft.fftshift(np.fft.fftfreq(n, step)) for n, step in zip(grey.shape, (height, width), strict=True)
    )
    inside = np.ix_(np.abs(y) <= reach, np.abs(x) <= reach)
    view = full[inside]
    low, high = np.percentile(view, (20, 99.9))
    axes.imshow(
        view,
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-12),
        extent=(x[inside[1][0]][0], x[inside[1][0]][-1], y[inside[0][:, 0]][-1], y[inside[0][:, 0]][0]),
        interpolation="nearest",
    )
    for number, peak in enumerate(spacings.peaks[:_ROWS], 1):
        for sign in (1, -1):
            row, column = sign * peak.vector[0], sign * peak.vector[1]
            axes.plot(column, row, "o", mfc="none", mec="cyan", ms=11)
        axes.annotate(str(number), peak.vector[::-1], (7, 7), textcoords="offset points", color="white")
    axes.set_xlabel(f"1/{spacings.unit}")
    axes.set_title("power spectrum (logarithmic)")


def _whole(half: npt.NDArray[np.float64], columns: int) -> npt.NDArray[np.float64]:
    """Return the full spectrum of a real image from its half."""
    mirrored = np.roll(half[::-1, ::-1], 1, axis=0)
    return np.concatenate([half, mirrored[:, columns % 2 == 0 : -1]], axis=1)[:, :columns]


def _draw_table(axes: Any, spacings: Spacings, matches: Matches | None) -> None:
    axes.axis("off")
    zone = matches.zones[0] if matches and matches.zones else None
    lines = [f" #   d ({spacings.unit})     noise   calibr.   angle°   plane"]
    for number, peak in enumerate(spacings.peaks[:_ROWS], 1):
        plane = "-"
        if zone is not None:
            plane = hkl_text(zone.indices[number - 1] or ()) or plane
        elif matches and matches.facets[number - 1]:
            plane = "{" + hkl_text(matches.facets[number - 1][0].hkl) + "} ?"
        lines.append(
            f"{number:2d}  {peak.d:8.4f}  {peak.uncertainty:7.4f}  {peak.calibration_uncertainty:7.3f}  "
            f"{peak.angle:7.2f}   {plane}"
        )
    if not spacings.peaks:
        lines = ["no lattice planes found"]
    if zone is not None:
        lines += [
            "",
            f"seen along [{hkl_text(zone.axis)}], score {zone.score:.2f}",
            f"measured / crystal {zone.scale:.4f}",
        ]
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=10, transform=axes.transAxes)
