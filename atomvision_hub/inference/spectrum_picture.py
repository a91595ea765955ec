"""Picture of the power spectrum with its indexed peaks, and their table."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub.analysis.spectrum import Spectrum
from atomvision_hub.inference.result import Analysis

#: Peaks in the table, and how far beyond the furthest peak is shown.
_ROWS, _MARGIN = 16, 1.3
#: Share of the grey levels that lie in the noise, and above the highest.
_GROUND, _TOP = 30, 99.95
_INDEXED, _OTHER, _LATTICE = "#3ddbd9", "#ffb000", "#ffffff"


def spectrum_picture(image: npt.NDArray[Any], analysis: Analysis) -> bytes:
    """Return a PNG: logarithm of the power, peaks and fitted lattice marked, and a table of the peaks.

    Parameters
    ----------
    image
        Grey levels [row, column], as given to `analyze`.
    analysis
        Its result.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.6), dpi=100)
    power = figure.add_axes((0.05, 0.085, 0.42, 0.83))
    table = figure.add_axes((0.5, 0.03, 0.49, 0.9))
    draw_spectrum(power, image, analysis)
    draw_table(table, analysis)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw_spectrum(axes: Any, image: npt.NDArray[Any], analysis: Analysis) -> None:
    """Draw the power spectrum of the part of the image that `analysis` measured, with marks and indices."""
    spectrum = analysis.spectrum
    left, top, width, height = spectrum.box
    part = image[top : top + height, left : left + width].astype(np.float64)
    part = np.where(np.isfinite(part), part, np.median(part[np.isfinite(part)]))
    dy, dx = analysis.calibration.pixel_size or (1.0, 1.0)
    view, (x, y) = _logarithm(part, (dy, dx), _reach(analysis, dx, dy))
    low, high = np.percentile(view, (_GROUND, _TOP))
    axes.imshow(
        view,
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-9),
        extent=(x[0], x[-1], y[-1], y[0]),
        interpolation="nearest",
    )
    if analysis.parameters is not None:
        _draw_lattice(axes, np.array(analysis.parameters.vectors), (x, y), analysis.parameters.lattice)
    for peak in spectrum.peaks:
        colour = _INDEXED if peak.h is not None else _OTHER
        for sign in (1, -1):
            axes.plot(sign * peak.x, sign * peak.y, "o", mfc="none", mec=colour, ms=11, mew=1.3)
        if peak.h is not None:
            axes.annotate(
                f"{peak.h} {peak.k}".replace("-", "\N{MINUS SIGN}"),
                (peak.x, peak.y),
                (6, 6),
                textcoords="offset points",
                color="white",
                fontsize=9,
            )
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[-1], y[0])
    axes.set_xlabel(f"x (1/{spectrum.unit})")
    axes.set_ylabel(f"y (1/{spectrum.unit})")
    axes.set_title(f"power spectrum (logarithm) of {width} x {height} px")


def draw_table(axes: Any, analysis: Analysis) -> None:
    """Write the lattice parameters and the peaks."""
    axes.axis("off")
    lines = _lattice_lines(analysis)
    spectrum = analysis.spectrum
    if spectrum.peaks:
        unit = spectrum.unit
        lines += [
            "",
            f"{len(spectrum.peaks)} peaks, {spectrum.indexed} of the lattice",
            f"  h  k    d ({unit})   error   intensity      SNR   off by (1/{unit})",
        ]
        for peak in spectrum.peaks[:_ROWS]:
            indices = f"{peak.h:3d}{peak.k:3d}" if peak.h is not None and peak.k is not None else "  -  -"
            off = "" if peak.distance is None or peak.h is None else f"{peak.distance:.5f}"
            numbers = f"{peak.d:8.4f} {peak.d_error:7.4f}  {peak.intensity:10.3g}  {peak.snr:7.0f}"
            lines.append(f"{indices}  {numbers}   {off}")
        if len(spectrum.peaks) > _ROWS:
            lines.append(f"  and {len(spectrum.peaks) - _ROWS} weaker ones")
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=9.5, transform=axes.transAxes)


def _lattice_lines(analysis: Analysis) -> list[str]:
    found = analysis.parameters
    if found is None:
        return ["no lattice told:", *_wrapped(analysis.no_lattice or "none was sought")]
    lines = [
        f"{found.lattice.replace('_', ' ')}, probability {found.probabilities[found.lattice]:.2f}",
        f"a = {found.a:.4g} ± {found.a_error:.2g} {found.unit}",
        f"b = {found.b:.4g} ± {found.b_error:.2g} {found.unit}",
        f"γ = {found.gamma:.2f} ± {found.gamma_error:.2g}°",
    ]
    if found.calibration_error is not None:
        lines.append(f"and {100 * found.calibration_error:g} % of the lengths, if the pixel size is off")
    return lines


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 62)


def _reach(analysis: Analysis, dx: float, dy: float) -> float:
    """Return up to which frequency the spectrum is shown."""
    nyquist = 0.5 / max(dx, dy)
    places = (float(np.hypot(peak.x, peak.y)) for peak in analysis.spectrum.peaks)
    furthest = max(places, default=nyquist / 2)
    return min(_MARGIN * furthest, nyquist)


def _logarithm(
    part: npt.NDArray[np.float64], size: tuple[float, float], reach: float
) -> tuple[npt.NDArray[np.float64], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Return log10 of the windowed power up to a frequency, and the coordinates x and y of its bins."""
    half = Spectrum(part).power
    columns = part.shape[1]
    # Of a real image the power at -q is that at q.
    mirrored = np.roll(half[::-1, ::-1], 1, axis=0)
    full = np.concatenate([half, mirrored[:, columns % 2 == 0 : -1]], axis=1)[:, :columns]
    y, x = (np.fft.fftshift(np.fft.fftfreq(n, step)) for n, step in zip(part.shape, size, strict=True))
    inside = np.abs(y) <= reach, np.abs(x) <= reach
    view = np.log10(np.maximum(np.fft.fftshift(full)[np.ix_(*inside)], 1e-300))
    return view, (x[inside[1]], y[inside[0]])


def _draw_lattice(axes: Any, edges: npt.NDArray[np.float64], ends: Any, label: str) -> None:
    """Mark where the fitted lattice has its points."""
    reciprocal = np.linalg.inv(edges).T
    corner = np.array([max(abs(ends[0])), max(abs(ends[1]))])
    most = np.ceil(np.abs(edges) @ corner).astype(int)
    h, k = np.mgrid[-most[0] : most[0] + 1, -most[1] : most[1] + 1].reshape(2, -1)
    if label == "centered_rectangular":
        h, k = h[(h + k) % 2 == 0], k[(h + k) % 2 == 0]
    places = np.stack([h, k], axis=1) @ reciprocal
    places = places[(np.abs(places) <= corner).all(axis=1)]
    if len(places) <= 2000:
        axes.plot(*places.T, "+", color=_LATTICE, ms=4, mew=0.5, alpha=0.45)
