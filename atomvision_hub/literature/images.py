"""Image files from outside: what they are and whether they can be used, before a pixel is decoded."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

ImageStatus = Literal[
    "included", "licence", "credited", "missing", "vector", "format", "too_large", "broken", "unreachable"
]
#: What became of the image of a row: passed on, or why not.
STATUSES: Final[tuple[ImageStatus, ...]] = get_args(ImageStatus)
#: Formats that are passed on as they are.
FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
#: Most pixels of an image; Pillow's own limit against decompression bombs holds as well.
MOST_PIXELS: Final = 64_000_000
_VECTORS = {b"%PDF": "PDF", b"%!PS": "EPS", b"\xc5\xd0\xd3\xc6": "EPS", b"<svg": "SVG", b"<?xml": "SVG"}


@dataclass(frozen=True)
class Picture:
    """An image file.

    Attributes
    ----------
    status
        ``"included"`` when it can be decoded, or why not.
    note
        One line saying why not; empty when it can.
    format
        ``"PNG"``, ``"PDF"``, ...; empty where unknown.
    image
        The decoded (first) frame, 8-bit grey or RGB.
    """

    status: ImageStatus
    note: str
    format: str = ""
    image: Image.Image | None = None


def read_picture(content: bytes) -> Picture:
    """Decode an image file, or say why it cannot be used."""
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, name in _VECTORS.items():
        if start.startswith(magic):
            return Picture("vector", f"{name} drawing, given as link", name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is stricter
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > min(MOST_PIXELS, Image.MAX_IMAGE_PIXELS or MOST_PIXELS):
            note = f"{width} x {height} pixels, more than {MOST_PIXELS / 1e6:g} million"
            return Picture("too_large", note, image.format or "")
        image.load()
    except Image.DecompressionBombError:
        return Picture("too_large", f"more than {MOST_PIXELS / 1e6:g} million pixels")
    except UnidentifiedImageError:
        return Picture("format", "neither PNG, JPEG, GIF nor WebP")
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as problem:
        return Picture("broken", f"cannot be decoded: {' '.join(str(problem).split())[:150]}")
    return Picture("included", "", image.format or "", flat(image))


def flat(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit grey or RGB, transparent parts white as a page shows them."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")
