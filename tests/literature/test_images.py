"""Image files from outside."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from atomvision_hub.literature.images import flat, read_picture


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    ends = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + ends


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_formats_that_are_kept(kind: str) -> None:
    picture = read_picture(encode(Image.new("RGB", (30, 20), "red"), kind))
    assert (picture.status, picture.note, picture.format) == ("included", "", kind)
    assert picture.image is not None
    assert (picture.image.size, picture.image.mode) == ((30, 20), "RGB")


@pytest.mark.parametrize(
    ("content", "status", "note"),
    [
        (b"%PDF-1.4", "vector", "PDF drawing, given as link"),
        (b"%!PS-Adobe-3.0 EPSF", "vector", "EPS drawing, given as link"),
        (b"\xc5\xd0\xd3\xc6", "vector", "EPS drawing, given as link"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><svg/>", "vector", "SVG drawing, given as link"),
        (b"<svg/>", "vector", "SVG drawing, given as link"),
        (b"", "format", "neither PNG, JPEG, GIF nor WebP"),
        (b"<html>", "format", "neither PNG, JPEG, GIF nor WebP"),
        (encode(Image.new("L", (9, 9)), "TIFF"), "format", "neither PNG, JPEG, GIF nor WebP"),
        (encode(Image.new("L", (300, 300)), "JPEG")[:300], "broken", "cannot be decoded"),
        (png(10_000, 10_000), "too_large", "10000 x 10000 pixels, more than 64 million"),
        (png(2**31 - 1, 2**31 - 1), "too_large", "more than 64 million pixels"),
        (png(100, 100, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 * 2**20)))), "broken", "cannot be"),
        (png(100, 100)[:-30], "broken", "cannot be decoded"),
    ],
)
def test_what_is_not_kept(content: bytes, status: str, note: str) -> None:
    picture = read_picture(content)
    assert picture.status == status
    assert picture.note.startswith(note)
    assert "\n" not in picture.note
    assert picture.image is None


def test_moving_pictures_show_their_first_frame() -> None:
    frames = [Image.new("L", (8, 8), grey) for grey in (10, 200)]
    picture = read_picture(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert picture.image is not None
    assert np.asarray(picture.image.convert("L")).max() == 10


@pytest.mark.parametrize(
    ("image", "mode", "value"),
    [
        (Image.new("1", (4, 4), 1), "L", 255),
        (Image.new("LA", (4, 4), (7, 255)), "RGB", 7),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "RGB", 255),
        (Image.fromarray(np.full((4, 4), 0xFF00, np.uint16)), "L", 255),
        (Image.new("RGB", (4, 4), "blue").convert("P"), "RGB", 255),
        (Image.new("CMYK", (4, 4), 0), "RGB", 255),
    ],
)
def test_pages_are_white_and_greys_have_8_bit(image: Image.Image, mode: str, value: int) -> None:
    flattened = flat(image)
    assert flattened.mode == mode
    assert np.asarray(flattened).max() == value
