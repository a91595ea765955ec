"""Small pictures as HTML: fast to make, sharp at any size, told to screen readers."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Longest side of a picture that travels to the browser, px.
SIDE = 1024
Grey = npt.NDArray[np.uint8]


def shrunk(grey: Grey, side: int = SIDE) -> Grey:
    """Return an image of at most `side` pixels, by means over blocks."""
    step = max(1, -(-max(grey.shape) // side))
    if step == 1:
        return grey
    rows, columns = (max(1, length // step) for length in grey.shape)
    part = grey[: rows * step, : columns * step]
    small = part.reshape(rows, part.shape[0] // rows, columns, part.shape[1] // columns).mean(axis=(1, 3))
    return np.asarray(small, np.uint8)


def data_url(image: Grey) -> str:
    """Return an image [row, column] or [row, column, 3] for the page itself."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def image_with_layers(
    grey: Grey,
    layers: dict[str, str],
    label: str,
    pixel_size: tuple[float, float] | None = None,
    near: tuple[float, float, float] | None = None,
) -> str:
    """Return an image with vector layers, each with a box to tick it off.

    Parameters
    ----------
    grey
        [row, column].
    layers
        Name -> SVG in pixels of the image, pixel centres at integers.
    label
        What the picture shows, for those who do not see it.
    pixel_size
        (row, column), for the aspect.
    near
        Middle (x, y) and half the width of a close-up, pixels, for a box that shows it.
    """
    rows, columns = grey.shape
    dy, dx = pixel_size or (1.0, 1.0)
    scale = f"scale(1 {dy / dx:.6g})"
    boxes = "".join(
        f'<label><input type="checkbox" checked class="t{index}"> {html.escape(name)}</label>'
        for index, name in enumerate(layers)
    )
    view = ""
    if near is not None:
        x, y, reach = near
        zoom = max(1.0, columns / (2 * reach))
        across, down = columns / 2 - zoom * x, rows * dy / dx / 2 - zoom * y * dy / dx
        view = f"--near: translate({across:.2f}px, {down:.2f}px) scale({zoom:.4f})"
        boxes += '<label><input type="checkbox" class="near"> close-up</label>'
    drawn = "".join(f'<g class="layer l{index}">{body}</g>' for index, body in enumerate(layers.values()))
    return (
        f'<div class="av-figure"><svg role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {columns} {rows * dy / dx:.6g}"><g class="view" style="{view}"><g transform="{scale}">'
        f'<image href="{data_url(shrunk(grey))}" width="{columns}" height="{rows}" '
        'preserveAspectRatio="none"/><g transform="translate(0.5 0.5)">'
        f'{drawn}</g></g></g></svg><div class="av-layers">{boxes}</div></div>'
    )


def ruler(grey: Grey) -> str:
    """Return an image to click two ends of a scale bar in, with a line between them."""
    rows, columns = grey.shape
    return (
        f'<div class="av-ruler"><svg role="img" aria-label="Click both ends of the scale bar" '
        f'viewBox="0 0 {columns} {rows}"><image href="{data_url(shrunk(grey))}" width="{columns}" '
        f'height="{rows}" preserveAspectRatio="none"/><line x1="-9" y1="-9" x2="-9" y2="-9"/></svg></div>'
    )


def picture(grey: Grey, label: str, colours: str = "gray") -> str:
    """Return an image with its label below, in a colour map of matplotlib."""
    shown = shrunk(grey)
    if colours != "gray":
        from matplotlib import colormaps

        shown = (colormaps[colours](shown)[..., :3] * 255).astype(np.uint8)
    told = html.escape(label)
    return (
        f'<figure class="av-picture"><img src="{data_url(shown)}" alt="{told}">'
        f"<figcaption>{told}</figcaption></figure>"
    )


def png(content: bytes, label: str) -> str:
    """Return a PNG with its label below."""
    told = html.escape(label)
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    return (
        f'<figure class="av-picture"><img src="{url}" alt="{told}"><figcaption>{told}</figcaption></figure>'
    )


def compared(before: Grey, after: Grey, layer: str, labels: tuple[str, str]) -> str:
    """Return two images of one view on top of each other, with a slider that uncovers the second.

    Parameters
    ----------
    before, after
        [row, column], of any sizes.
    layer
        SVG over both, in pixels of `after`.
    labels
        Of both.
    """
    rows, columns = after.shape
    first, second = (html.escape(label) for label in labels)
    move = "this.closest('.av-compare').style.setProperty('--at', this.value + '%')"
    return (
        '<div class="av-compare" style="--at:50%"><div class="av-pair">'
        f'<img src="{data_url(shrunk(before))}" alt="{first}">'
        f'<img class="av-after" src="{data_url(shrunk(after))}" alt="{second}">'
        f'<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">'
        f'<g transform="translate(0.5 0.5)">{layer}</g></svg></div>'
        f'<label><span>{first}</span><input type="range" min="0" max="100" value="50" oninput="{move}" '
        f'aria-label="Uncover: {first} or {second}"><span>{second}</span></label></div>'
    )


def circles(x: Iterable[float], y: Iterable[float], radius: float, kind: str = "atom") -> str:
    """Return circles of one radius."""
    return "".join(
        f'<circle class="{kind}" cx="{column:.1f}" cy="{row:.1f}" r="{radius:.2f}"/>'
        for column, row in zip(x, y, strict=True)
    )


def arrow(start: npt.ArrayLike, vector: npt.ArrayLike, name: str) -> str:
    """Return a lattice vector with its name at the tip."""
    (x, y), (dx, dy) = np.asarray(start, float).tolist(), np.asarray(vector, float).tolist()
    length = float(np.hypot(dx, dy)) or 1.0
    along, across = np.array([dx, dy]) / length, np.array([-dy, dx]) / length
    head = 0.16 * length
    tip = np.array([x + dx, y + dy])
    left, right = tip - head * along + 0.5 * head * across, tip - head * along - 0.5 * head * across
    points = " ".join(f"{a:.2f},{b:.2f}" for a, b in (tip, left, right))
    at = tip + 0.24 * length * along
    return (
        f'<line class="vector" x1="{x:.2f}" y1="{y:.2f}" x2="{tip[0]:.2f}" y2="{tip[1]:.2f}"/>'
        f'<polygon class="vector-tip" points="{points}"/>'
        f'<text class="vector-name" x="{at[0]:.2f}" y="{at[1]:.2f}" font-size="{0.42 * length:.2f}">'
        f"{html.escape(name)}</text>"
    )


def polygon(corners: npt.ArrayLike, kind: str) -> str:
    """Return a closed outline."""
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in np.asarray(corners, dtype=float))
    return f'<polygon class="{kind}" points="{points}"/>'


def histogram(values: npt.NDArray[Any], label: str, unit: str = "", bins: int = 96) -> str:
    """Return the frequencies of the finite values as a picture."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
    if not finite.size:
        return ""
    counts, edges = np.histogram(finite, bins=bins)
    top = float(counts.max())
    bars = "".join(
        f'<rect x="{index}" y="{60 - 58 * count / top:.2f}" width="1" height="{58 * count / top:.2f}"/>'
        for index, count in enumerate(counts)
    )
    low, high = (f"{edge:.4g}{' ' + unit if unit else ''}" for edge in (edges[0], edges[-1]))
    told = f"{label}: {low} to {high}, mean {float(finite.mean()):.4g}"
    return (
        f'<figure class="av-histogram"><svg role="img" aria-label="{html.escape(told)}" '
        f'viewBox="0 0 {bins} 60" preserveAspectRatio="none">{bars}</svg>'
        f"<figcaption><span>{html.escape(low)}</span><span>{html.escape(label)}</span>"
        f"<span>{html.escape(high)}</span></figcaption></figure>"
    )


def table(rows: Iterable[Sequence[str]], caption: str, head: Sequence[str] = ()) -> str:
    """Return a table; the first cell of a row is its heading."""
    header = (
        f"<thead><tr>{''.join(f'<th scope=col>{html.escape(one)}</th>' for one in head)}</tr></thead>"
        if head
        else ""
    )
    body = "".join(
        f"<tr><th scope=row>{html.escape(first)}</th>"
        f"{''.join(f'<td>{html.escape(one)}</td>' for one in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f'<table class="av-table"><caption>{html.escape(caption)}</caption>{header}'
        f"<tbody>{body}</tbody></table>"
    )


def bars(shares: dict[str, float], chosen: str | None) -> str:
    """Return probabilities as bars, the likeliest first."""
    lines = "".join(
        f'<div class="av-bar{" av-chosen" if name == chosen else ""}">'
        f"<span>{html.escape(name.replace('_', ' '))}</span>"
        f'<span class="track"><span style="width:{100 * share:.1f}%"></span></span>'
        f"<span>{share:.2f}</span></div>"
        for name, share in sorted(shares.items(), key=lambda entry: -entry[1])
    )
    return f'<div class="av-bars" role="group" aria-label="Probabilities">{lines}</div>'


def notes(lines: Iterable[str], title: str = "Keep in mind") -> str:
    """Return remarks as a list, nothing without any."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return (
        f'<div class="av-notes"><strong>{html.escape(title)}</strong><ul>{items}</ul></div>' if items else ""
    )
