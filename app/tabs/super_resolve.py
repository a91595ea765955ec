"""Super-resolve and denoise: before and after, and which atoms only the network shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from atomvision_hub.data.png import encode_png
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.inputs import first_usable
from atomvision_hub.inference.restoration import Restored, restore
from atomvision_hub.microscopy import MicroscopeImage
from atomvision_hub.microscopy.view import encode_raw, to_view
from tabs import figures
from tabs.shared import LIFE, file_stem, guarded, micrograph_field, read_upload, session_folder

#: What a network shows between the pixels comes from what it learned.
_WARNING = (
    "A network made this picture: between the pixels it shows what its simulated training images had there. "
    "Count and measure atoms in the recording, not here."
)
_VIEW = "widest view"
#: Share of columns that only the network shows, beyond which its picture is no evidence of anything.
_DOUBTFUL = 0.25


def build(page: gr.Blocks) -> None:
    """Lay out the tab."""
    images = gr.State([], time_to_live=LIFE)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = micrograph_field("restore")
            pixel_size = gr.Number(
                None,
                label="Pixel size, Å per pixel",
                placeholder="as the file says",
                elem_id="restore-pixel-size",
            )
            side = gr.Radio(
                ["128", "256", "512", _VIEW], value="512", label="Central square that is shown, pixels"
            )
            again = gr.Button("Restore", variant="primary", elem_id="restore-again")
            status = gr.HTML(elem_id="restore-status")
            numbers = gr.HTML(elem_id="restore-numbers")
        with gr.Column(scale=3, min_width=300):
            gr.HTML(figures.notes([_WARNING], "Warning"), elem_id="restore-warning")
            pair = gr.HTML(elem_id="restore-pair")
            with gr.Row():
                files = {
                    name: gr.DownloadButton(text, interactive=False, size="sm", elem_id=f"restore-{name}")
                    for name, text in (("png", "PNG"), ("tif", "TIFF, unscaled values"))
                }

    @guarded(status, images, numbers, pair)
    def opened(
        path: str | None, size: float | None, square: str, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        if path is None:
            yield {images: [], numbers: "", pair: ""}
            return
        found = [first_usable(read_upload(path))]
        yield {images: found, numbers: "", pair: ""}
        yield answered(found, size, square, request)

    @guarded(status, numbers, pair)
    def repeated(
        found: list[MicroscopeImage], size: float | None, square: str, request: gr.Request
    ) -> dict[Any, Any]:
        if not found:
            raise UsageError("there is no image yet; drop a micrograph above")
        return answered(found, size, square, request)

    def answered(
        found: list[MicroscopeImage], size: float | None, square: str, request: gr.Request
    ) -> dict[Any, Any]:
        image = found[0]
        if image.kind == "diffraction":
            raise UsageError("a diffraction pattern shows no atoms; give an image")
        part = _middle(image.data, square)
        result = restore(part, size or image.pixel_size)
        after = to_view(result.image).grey
        columns = result.columns
        layer = ""
        if columns is not None:
            x, y = columns.positions.T
            layer = figures.circles(x, y, 5.0, "suspect")
        stem = session_folder(request) / f"{file_stem(image.file.name)}-restored"
        made = {"png": encode_png(after), "tif": encode_raw(result.image)}
        for name, content in made.items():
            stem.with_name(f"{stem.name}.{name}").write_bytes(content)
        return {
            pair: figures.compared(to_view(part).grey, after, layer, ("recorded", "restored")),
            numbers: _numbers(result),
            **{files[name]: _button(stem.with_name(f"{stem.name}.{name}")) for name in made},
        }

    page.load(None, None, pixel_size, js="() => null")
    outputs = [status, numbers, pair, *files.values()]
    upload.change(
        opened,
        [upload, pixel_size, side],
        [images, *outputs],
        api_name="restore",
        show_progress="minimal",
    )
    for event in (again.click, side.input, pixel_size.submit):
        event(
            repeated, [images, pixel_size, side], outputs, api_visibility="private", show_progress="minimal"
        )


def _button(path: Path) -> Any:
    return gr.DownloadButton(value=str(path), interactive=True)


def _middle(data: npt.NDArray[Any], square: str) -> npt.NDArray[np.float32]:
    """Return the central part of an image, finite."""
    if square != _VIEW:
        top, left = (max(0, (length - int(square)) // 2) for length in data.shape)
        data = data[top : top + int(square), left : left + int(square)]
    values = data.astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        values[bad] = np.median(values[~bad]) if not bad.all() else 0.0
    return values


def _numbers(result: Restored) -> str:
    rows = [("Pixel size of the result", f"{result.pixel_size[1]:.4g} Å per pixel")]
    columns = result.columns
    if columns is None:
        rows.append(("Columns of atoms", "none found in the result"))
    else:
        rows += [
            ("Columns found in the recording", f"{columns.recorded:,}"),
            ("Columns found in the result", f"{columns.restored:,}"),
            (
                "Only the network shows (circled red)",
                f"{columns.unsupported:,} ({100 * columns.share:.1f} %): made up, or hidden by noise before",
            ),
            ("Only the recording shows", f"{columns.lost:,}"),
        ]
    names = {"hallucinated_atoms": "Made up on test images", "missing_atoms": "Missed on test images"}
    for name, text in names.items():
        if name in result.measured:
            value, low, high = (100 * one for one in result.measured[name])
            rows.append((text, f"{value:.1f} % of the columns ({low:.1f} to {high:.1f})"))
    warnings = list(result.warnings)
    if columns is not None and columns.share > _DOUBTFUL:
        warnings.insert(
            0, "many of these columns are not in the recording: count and measure nothing in this picture"
        )
    return figures.table(rows, "How far to believe it") + figures.notes(warnings)
