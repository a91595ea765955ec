"""Analyze: drop a micrograph, see its atoms, lattice and what is known about their errors."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from atomvision_hub.errors import UsageError
from atomvision_hub.inference import Analysis
from atomvision_hub.inference.analysis import analyze_in_steps
from atomvision_hub.inference.inputs import first_usable
from atomvision_hub.inference.lattice_result import LatticeParameters
from atomvision_hub.inference.result import FirstLook
from atomvision_hub.microscopy import MicroscopeImage
from atomvision_hub.microscopy.view import to_view
from atomvision_hub.reports import analysis_report
from atomvision_hub.reports.analysis import analysis_pictures
from atomvision_hub.reports.page import Picture
from tabs import figures
from tabs.shared import LIFE, file_stem, guarded, micrograph_field, read_upload, say, session_folder

#: Circles beyond this number are drawn smaller, so that the image stays to be seen.
_MOST_CIRCLES = 4000
_UNITS = {"Å": 1.0, "nm": 10.0, "µm": 1e4, "pm": 0.01}
#: The second of two clicks on the image tells how many of its pixels lie between them.
_TWO_CLICKS = """
let first = null;
element.addEventListener("click", (event) => {
  const image = event.target.closest("svg");
  if (!image) { return; }
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(image.getScreenCTM().inverse());
  const line = image.querySelector("line");
  if (!first) {
    first = point;
    line.setAttribute("x1", point.x); line.setAttribute("y1", point.y);
    line.setAttribute("x2", point.x); line.setAttribute("y2", point.y);
    return;
  }
  line.setAttribute("x2", point.x); line.setAttribute("y2", point.y);
  const length = Math.hypot(point.x - first.x, point.y - first.y);
  first = null;
  if (length > 0) { trigger("select", {index: length, value: length}); }
});
"""
_MEASURED = "Measured, with standard errors"
#: A class that is no likelier than all others together is none.
_SURE = 0.5


def build(page: gr.Blocks) -> None:
    """Lay out the tab."""
    images = gr.State([], time_to_live=LIFE)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = micrograph_field("analyze")
            index = gr.Dropdown([], label="Image in the file", visible=False, elem_id="analyze-index")
            calibration = gr.HTML(elem_id="analyze-calibration")
            with gr.Accordion("Calibration", open=False, elem_id="analyze-scale"):
                pixel_size = gr.Number(
                    None,
                    label="Pixel size, Å per pixel",
                    placeholder="as the file says",
                    elem_id="analyze-pixel-size",
                )
                gr.Markdown(
                    "**From a scale bar**: click its two ends in the image, or type its length in pixels."
                )
                ruler = gr.HTML(elem_id="analyze-ruler", js_on_load=_TWO_CLICKS)
                with gr.Row():
                    bar_pixels = gr.Number(
                        None, label="Length in pixels", placeholder="pixels", elem_id="analyze-bar-pixels"
                    )
                    bar_length = gr.Number(
                        None, label="Length it stands for", placeholder="length", elem_id="analyze-bar-length"
                    )
                    bar_unit = gr.Dropdown(list(_UNITS), value="nm", label="Unit")
                use_bar = gr.Button("Take the pixel size from the bar", size="sm", elem_id="analyze-use-bar")
            with gr.Accordion("How columns look", open=False):
                contrast = gr.Radio(["auto", "bright", "dark"], value="auto", label="Columns of atoms are")
                threshold = gr.Slider(
                    0.0,
                    0.9,
                    value=0.05,
                    step=0.01,
                    label="Smallest height of a column, relative to the highest",
                )
            again = gr.Button("Analyze", variant="primary", elem_id="analyze-again")
            status = gr.HTML(elem_id="analyze-status")
            headline = gr.HTML(elem_id="analyze-class")
            numbers = gr.HTML(elem_id="analyze-numbers")
        with gr.Column(scale=3, min_width=300):
            picture = gr.HTML(elem_id="analyze-picture")
            spectrum = gr.HTML(elem_id="analyze-spectrum")
            intensities = gr.HTML(elem_id="analyze-histogram")
            with gr.Row():
                files = {
                    name: gr.DownloadButton(
                        text, interactive=False, size="sm", min_width=100, elem_id=f"analyze-{name}"
                    )
                    for name, text in _DOWNLOADS.items()
                }
    results = (headline, numbers, picture, spectrum, intensities)
    settings = (index, pixel_size, contrast, threshold)

    def empty() -> dict[Any, Any]:
        # Made when asked for: a component made here would be laid out.
        return dict.fromkeys(results) | {button: _button(None) for button in files.values()}

    @guarded(status, images, *results)
    def opened(path: str | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        if path is None:
            yield {images: [], calibration: "", ruler: "", **empty(), index: gr.Dropdown(visible=False)}
            return
        yield empty()
        found = read_upload(path)
        first = first_usable(found)
        yield {
            images: found,
            index: gr.Dropdown(
                [(_name(image), image.index) for image in found], value=first.index, visible=len(found) > 1
            ),
            pixel_size: None,
            bar_pixels: None,
            calibration: _calibration(first),
        }
        yield from answered(found, first.index, None, "auto", 0.05, request)

    @guarded(status, *results)
    def repeated(
        found: list[MicroscopeImage],
        at: int | None,
        size: float | None,
        bright: str,
        height: float,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        if not found:
            raise UsageError("there is no image yet; drop a micrograph above")
        yield from answered(found, at, size, bright, height, request)

    def answered(
        found: list[MicroscopeImage],
        at: int | None,
        size: float | None,
        bright: Any,
        height: float,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        image = next((one for one in found if one.index == at), found[0])
        done = say("Analyzed.", "good")
        for result in analyze_in_steps(image, pixel_size=size or None, contrast=bright, threshold=height):
            # The lattice is known long before the atoms.
            yield {
                status: say("Looking at the atoms …") if isinstance(result, FirstLook) else done,
                calibration: _calibration(image, result),
                headline: _headline(result),
                numbers: _numbers(result),
                picture: _picture(image, result),
            }
        assert isinstance(result, Analysis)
        # What follows takes a while, in which the page may have been told more: its line stays.
        yield {
            status: gr.skip(),
            intensities: figures.histogram(image.data, "intensities of the pixels"),
            ruler: figures.ruler(to_view(image.data).grey),
        }
        folder = session_folder(request)
        for made in _files(folder, image, result):
            yield {
                status: gr.skip(),
                **{files[name]: _button(path) for name, path in made.items()},
            }
        pictures = analysis_pictures(result, image.data)
        try:
            made = _pages(folder, image, result, pictures)
        except FileNotFoundError:
            return  # the page was closed meanwhile, and its folder with it
        yield {
            status: gr.skip(),
            spectrum: "".join(figures.png(one.png, one.caption) for one in pictures[1:]),
            **{files[name]: _button(path) for name, path in made.items()},
        }

    @guarded(status)
    def clicked(event: gr.EventData) -> dict[Any, Any]:
        length = float(event.index)
        return {
            bar_pixels: round(length, 1),
            status: say(f"The bar is {length:.1f} pixels long; type the length that it stands for."),
        }

    @guarded(status)
    def measured(pixels: float | None, length: float | None, unit: str) -> dict[Any, Any]:
        if not pixels or not length or pixels <= 0 or length <= 0:
            raise UsageError("give the length of the bar in pixels and the length that it stands for")
        size = length * _UNITS[unit] / pixels
        return {pixel_size: float(f"{size:.6g}"), status: say(f"{size:.4g} Å per pixel; now press Analyze.")}

    upload.change(
        opened, upload, [images, index, pixel_size, bar_pixels, calibration, ruler, status, *results,
                         *files.values()], api_name="analyze", show_progress="minimal",
    )  # fmt: skip
    for event in (again.click, index.input, pixel_size.submit):
        event(
            repeated, [images, *settings], [calibration, ruler, status, *results, *files.values()],
            api_visibility="private", show_progress="minimal",
        )  # fmt: skip
    ruler.select(clicked, None, [bar_pixels, status], api_visibility="private")
    # Gradio shows a number that is not known as 0.
    page.load(None, None, [pixel_size, bar_pixels, bar_length], js="() => [null, null, null]")
    use_bar.click(
        measured, [bar_pixels, bar_length, bar_unit], [pixel_size, status], api_visibility="private"
    )


_DOWNLOADS = {
    "json": "JSON",
    "csv": "CSV of atoms",
    "cif": "CIF of the motif",
    "png": "PNG",
    "html": "HTML report",
}


def _button(path: Path | None) -> Any:
    return gr.DownloadButton(value=None if path is None else str(path), interactive=path is not None)


def _name(image: MicroscopeImage) -> str:
    frame = f", frame {image.frame + 1} of {image.frames}" if image.frames > 1 else ""
    return f"{image.index}: {image.name}{frame}"


def _calibration(image: MicroscopeImage, result: FirstLook | Analysis | None = None) -> str:
    rows, columns = image.data.shape
    words = [f"{image.file.name}: {columns} x {rows} px"]
    size = image.pixel_size if result is None else result.calibration.pixel_size
    if size is None:
        words.append("no pixel size in the file; lengths are in pixels until you give one")
    else:
        told = (
            f"{size[1]:.4g}"
            if math.isclose(size[0], size[1], rel_tol=1e-3)
            else f"{size[1]:.4g} x {size[0]:.4g}"
        )
        given = result is not None and result.calibration.source == "given"
        words.append(f"{told} Å/px, {'as you say' if given else 'as the file says'}")
    return f'<p class="av-file">{html.escape(", ".join(words))}</p>'


def _headline(result: FirstLook | Analysis) -> str:
    lattice = result.lattice
    if lattice is None or lattice.probability < _SURE:
        why = result.no_lattice or "no lattice fits the image"
        if lattice is not None:
            why = f"likeliest is {lattice.label.replace('_', ' ')} with {lattice.probability:.2f}"
        shown, told = "cannot say", html.escape(why)
    else:
        shown = lattice.label.replace("_", " ")
        told = f"probability {lattice.probability:.2f}"
    shares = figures.bars(lattice.probabilities, lattice.label) if lattice is not None else ""
    return (
        f'<div class="av-class" role="status"><span class="av-small">Lattice</span>'
        f'<strong data-testid="lattice-class">{html.escape(shown)}</strong> <span>{told}</span>{shares}</div>'
    )


def _numbers(result: FirstLook | Analysis) -> str:
    rows = [] if result.parameters is None else _cell(result.parameters)
    if isinstance(result, FirstLook):
        return figures.table(rows, _MEASURED) if rows else ""
    graph = result.graph
    if result.motif is not None:
        rows.append(("Columns of atoms in a cell (motif)", f"{len(result.motif.sites)}"))
    rows.append(("Columns of atoms", f"{len(result.atoms):,}"))
    if graph.nearest_distance is not None:
        spread = f" ± {graph.nearest_spread:.2g}" if graph.nearest_spread is not None else ""
        rows.append(("Nearest columns", f"{graph.nearest_distance:.3g}{spread} {graph.unit}"))
    if graph.order is not None:
        rows.append(("Share that repeats (order)", f"{graph.order:.2f}"))
    return figures.table(rows, _MEASURED) + figures.notes(result.warnings)


def _cell(fit: LatticeParameters) -> list[tuple[str, str]]:
    errors = fit.total_errors
    rows = [
        ("a", f"{_with_error(fit.a, errors[0])} {fit.unit}"),
        ("b", f"{_with_error(fit.b, errors[1])} {fit.unit}"),
        ("γ", f"{_with_error(fit.gamma, errors[2])}°"),
        ("Cell fitted as", fit.lattice.replace("_", " ")),
        ("Share of the waves it explains", f"{fit.score:.2f}"),
    ]
    if fit.calibration_error is not None:
        rows.append(("Error of the pixel size, included", f"{100 * fit.calibration_error:.2g} %"))
    return rows


def _with_error(value: float, error: float) -> str:
    """Return a value to the second figure of its error."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _picture(image: MicroscopeImage, result: FirstLook | Analysis) -> str:
    if isinstance(result, FirstLook):
        return ""
    atoms, fit = result.atoms, result.parameters
    dy, dx = result.calibration.pixel_size or (1.0, 1.0)
    grey = to_view(image.data).grey
    layers, near = {}, None
    if len(atoms):
        scale = 1.0 if len(atoms) <= _MOST_CIRCLES else 0.4
        radius = scale * float(np.median(atoms.radius)) * math.sqrt(dy / dx)
        layers[f"atoms ({len(atoms):,})"] = figures.circles(atoms.x, atoms.y, radius)
    label = f"{image.file.name} with {len(atoms):,} columns of atoms marked"
    if fit is not None:
        first, second, origin = (np.array(one) for one in (*fit.vectors_px, fit.origin))
        corners = [origin, origin + first, origin + first + second, origin + second]
        layers["unit cell"] = figures.polygon(corners, "cell")
        layers["lattice vectors"] = figures.arrow(origin, first, "a") + figures.arrow(origin, second, "b")
        middle, reach = origin + (first + second) / 2, 3.5 * float(max(np.hypot(*first), np.hypot(*second)))
        near = (float(middle[0]), float(middle[1]), reach)
        label += f", unit cell and lattice vectors a, b of the {fit.lattice.replace('_', ' ')} lattice"
    return figures.image_with_layers(grey, layers, label, (dy, dx), near=near)


def _files(folder: Path, image: MicroscopeImage, result: Analysis) -> Iterator[dict[str, Path]]:
    """Write the numbers for download."""
    made = {name: _path(folder, image, name) for name in ("json", "csv")}
    made["json"].write_text(json.dumps(result.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
    made["csv"].write_text(result.to_csv(), encoding="utf-8")
    # A motif in pixels has no place in a CIF.
    if result.motif is not None and result.motif.unit == "Å":
        made["cif"] = _path(folder, image, "cif")
        made["cif"].write_text(result.motif.to_cif(file_stem(image.file.name)), encoding="utf-8")
    yield made


def _pages(
    folder: Path, image: MicroscopeImage, result: Analysis, pictures: Sequence[Picture]
) -> dict[str, Path]:
    """Write picture and report for download."""
    made = {name: _path(folder, image, name) for name in ("png", "html")}
    made["png"].write_bytes(pictures[0].png)
    made["html"].write_text(analysis_report(result, pictures=pictures), encoding="utf-8")
    return made


def _path(folder: Path, image: MicroscopeImage, suffix: str) -> Path:
    return folder / f"{file_stem(image.file.name)}.{suffix}"
