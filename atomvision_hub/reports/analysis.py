"""Report of an analysis: the image with what was found in it, and all numbers behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from atomvision_hub.inference.result import Analysis
from atomvision_hub.reports.page import Picture, cell, render

#: Rows of the table of peaks, and of the table of parts of the image.
_PEAKS, _REGIONS = 24, 40


def analysis_report(
    analysis: Analysis,
    image: npt.NDArray[Any] | None = None,
    *,
    pictures: Sequence[Picture] | None = None,
) -> str:
    """Return an HTML page about one image.

    Parameters
    ----------
    analysis
        What `analyze` answered.
    image
        Grey levels [row, column] that were given to it: the pictures are drawn from them.
    pictures
        Pictures to show in place of those, for callers that have drawn them already.

    Examples
    --------
    >>> result = analyze("scan.dm4")  # doctest: +SKIP
    >>> Path("scan.html").write_text(analysis_report(result, image))  # doctest: +SKIP
    """
    if pictures is None:
        pictures = [] if image is None else analysis_pictures(analysis, image)
    return render(
        "analysis.html.j2",
        title=analysis.file or analysis.name,
        analysis=analysis,
        headline=headline(analysis),
        image_facts=_image_facts(analysis),
        parameters=_parameters(analysis),
        probabilities=_probabilities(analysis),
        columns=_columns(analysis),
        peaks=analysis.spectrum.peaks[:_PEAKS],
        regions=[region for region in analysis.regions if region.lattice][:_REGIONS],
        pictures=pictures,
    )


def analysis_pictures(analysis: Analysis, image: npt.NDArray[Any]) -> list[Picture]:
    """Return the pictures that a report shows."""
    from atomvision_hub.inference.overlay import overlay
    from atomvision_hub.inference.spectrum_picture import spectrum_picture

    return [
        Picture(
            overlay(image, analysis),
            "The image with its unit cell, the columns of atoms with their bonds, and how they are spread",
        ),
        Picture(
            spectrum_picture(image, analysis),
            "Power spectrum: indexed peaks in cyan, others in orange; crosses are the fitted lattice",
        ),
    ]


def headline(analysis: Analysis) -> str:
    """Return the answer in one sentence."""
    found = analysis.parameters
    if found is None:
        return f"No lattice: {analysis.no_lattice}."
    sentence = (
        f"{found.lattice.replace('_', ' ').capitalize()} lattice "
        f"(probability {found.probabilities[found.lattice]:.2f}): "
        f"a = {found.a:.4g} ± {found.a_error:.2g} {found.unit}, b = {found.b:.4g} ± {found.b_error:.2g} "
        f"{found.unit}, γ = {found.gamma:.2f} ± {found.gamma_error:.2g}°"
    )
    if found.calibration_error is None:
        return f"{sentence}. The image is not calibrated: lengths are in pixels."
    return f"{sentence}; all lengths ± {100 * found.calibration_error:g} % for the pixel size."


def _image_facts(analysis: Analysis) -> list[tuple[str, str]]:
    scale = analysis.calibration
    sources = {
        "given": "as given",
        "file": "from the file",
        "sidecar": "from the YAML beside the file",
        "none": "unknown",
    }
    size = sources[scale.source]
    if scale.pixel_size is not None:
        rows, columns = scale.pixel_size
        told = f"{columns:.5g}" if rows == columns else f"{columns:.5g} (x), {rows:.5g} (y)"
        size = f"{told} Å/px, {size}"
    place = f"{analysis.name}, image {analysis.index} of the file"
    if analysis.frames > 1:
        place += f", frame {analysis.frame} of {analysis.frames}"
    facts = [
        ("File", analysis.file or "array"),
        ("Image", place),
        ("Kind", analysis.kind or "not told"),
        ("Pixels", f"{analysis.shape[1]} x {analysis.shape[0]}"),
        ("Pixel size", size),
        ("Contrast", f"columns are {analysis.contrast}"),
        ("SHA-256 of the file", analysis.sha256 or ""),
        ("AtomVision Hub", analysis.version),
    ]
    for role, model in analysis.models.items():
        checksum = model.get("sha256")
        weights = f", weights {checksum[:16]}…" if checksum else ""
        facts.append((role.capitalize(), f"{model['name']}{weights}"))
    return [(name, text) for name, text in facts if text]


def _parameters(analysis: Analysis) -> list[tuple[str, str, str, str, str]]:
    """Return rows (name, value, error, error of the calibration, total)."""
    found = analysis.parameters
    if found is None:
        return []
    rows = []
    values = ("a", found.a, found.a_error), ("b", found.b, found.b_error)
    for (name, value, error), total in zip(values, found.total_errors[:2], strict=True):
        share = found.calibration_error
        scale = "unknown" if share is None else f"{share * value:.2g}"
        rows.append(
            (f"{name} ({found.unit})", f"{value:.4f}", f"{error:.2g}", scale, f"{total:.2g}" if share else "")
        )
    rows.append(("γ (°)", f"{found.gamma:.2f}", f"{found.gamma_error:.2g}", "0", f"{found.gamma_error:.2g}"))
    return rows


def _probabilities(analysis: Analysis) -> list[tuple[str, float]]:
    if analysis.lattice is None:
        return []
    return sorted(analysis.lattice.probabilities.items(), key=lambda entry: -entry[1])


def _columns(analysis: Analysis) -> list[tuple[str, str]]:
    graph = analysis.graph
    rows = [("Columns found", f"{len(analysis.atoms):,}")]
    if analysis.residual is not None:
        told = f"fitted to all pixels at once, which leaves {analysis.residual:.2f} times the noise"
        rows.append(("Their places", told))
        shown = [
            f"{high:.0%} of the height σ = {wide:.3g} {graph.unit}" for high, wide in analysis.gaussians()
        ]
        rows.append(("Their profile, Gaussian", ", ".join(shown)))
    if graph.nearest_distance is not None:
        spread = "" if graph.nearest_spread is None else f" ± {graph.nearest_spread:.2g}"
        rows.append(("Nearest distance", f"{graph.nearest_distance:.4g}{spread} {graph.unit}"))
    if graph.order is not None:
        rows.append(("Share that repeats at the commonest displacement", f"{graph.order:.2f}"))
    if graph.coordination:
        rows.append(
            ("Neighbours: columns", cell({f"{n}:": count for n, count in graph.coordination.items()}))
        )
    rows.append((f"Bonds up to {graph.cutoff:.3g} {graph.unit}", f"{graph.edges:,}"))
    if (repeated := analysis.cell) is not None:
        told = (
            f"{repeated.lattice.replace('_', ' ')}, {repeated.a:.4g} x {repeated.b:.4g} {repeated.unit}, "
            f"{repeated.gamma:.1f}°; {100 * repeated.repeats:.0f} % of the columns repeat"
        )
        rows.append(("Cell from the positions of the columns", told))
    return rows
