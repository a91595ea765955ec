"""Scale bars drawn by the test: a value within 2 % or nothing, and nothing where there is no bar."""

from __future__ import annotations

import builtins
import io
import shutil
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from atomvision_hub.errors import MissingExtraError
from atomvision_hub.literature import scale_bar
from atomvision_hub.literature.scale_bar import read_scale_bar

FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
needs_ocr = pytest.mark.usefixtures("_ocr")
UNITS = {"nm": 10.0, "Å": 1.0, "µm": 1e4}


@pytest.fixture(scope="module")
def _ocr() -> None:
    pytest.importorskip("pytesseract", reason="the extra [ocr] is not installed")
    if shutil.which("tesseract") is None:
        pytest.skip("the program tesseract is not installed")


def micrograph(seed: int, shape: tuple[int, int] = (420, 560), ground: int = 90) -> Image.Image:
    """Columns of atoms with noise, without a bar."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = ground + 25 * np.sin(columns / 7) * np.sin(rows / 9) + 8 * random.standard_normal(shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def with_bar(
    picture: Image.Image,
    text: str,
    *,
    pixels: int = 120,
    thick: int = 6,
    font: str = "DejaVuSans.ttf",
    size: int = 26,
    colour: int = 255,
    left: int = 20,
    box: bool = False,
) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    letters = ImageFont.truetype(str(FONTS / font), size)
    wide, tall = (round(value) for value in draw.textbbox((0, 0), text, font=letters)[2:])
    top = picture.height - thick - 18
    if box:
        draw.rectangle(
            (left - 10, top - tall - 16, left + max(pixels, wide) + 10, top + thick + 8), 255 - colour
        )
    draw.rectangle((left, top, left + pixels - 1, top + thick - 1), colour)
    draw.text((left + max(0, (pixels - wide) // 2), top - tall - 7), text, colour, font=letters)
    return picture


@needs_ocr
def test_a_plain_bar_is_read() -> None:
    found = read_scale_bar(with_bar(micrograph(0), "5 nm"))
    assert found is not None
    assert (found.length, found.text) == (50.0, "5 nm")
    assert found.pixels == pytest.approx(120, abs=0.5)
    assert found.box == (20, 396, 140, 402)
    assert found.pixel_size == pytest.approx(50 / 120, rel=0.005)


@needs_ocr
@settings(deadline=None, derandomize=True, max_examples=8)
@given(
    st.integers(0, 10_000),
    st.tuples(st.sampled_from(["1", "2", "5", "10", "50", "0.5", "15"]), st.sampled_from(sorted(UNITS))),
    st.sampled_from(["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf"]),
    st.tuples(st.integers(18, 40), st.integers(60, 180), st.integers(3, 12)),
    st.sampled_from([("bright", False), ("dark", False), ("bright", True), ("dark", True)]),
    st.booleans(),
)  # fmt: skip
def test_a_value_within_two_percent_or_nothing(
    seed: int,
    length: tuple[str, str],
    font: str,
    sizes: tuple[int, int, int],
    look: tuple[str, bool],
    jpeg: bool,
) -> None:
    polarity, box = look
    size, pixels, thick = sizes
    picture = with_bar(
        micrograph(seed, ground=90 if polarity == "bright" else 170),
        " ".join(length),
        pixels=pixels,
        thick=thick,
        font=font,
        size=size,
        colour=255 if polarity == "bright" else 0,
        box=box,
    )
    if jpeg:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        picture = Image.open(buffer)
    found = read_scale_bar(picture)
    if found is not None:
        true = float(length[0]) * UNITS[length[1]] / pixels
        assert found.pixel_size == pytest.approx(true, rel=0.02)


@needs_ocr
def test_most_clear_bars_are_read() -> None:
    texts = ["1 nm", "2 nm", "10 nm", "50 nm", "200 nm", "0.5 nm"]
    found = [read_scale_bar(with_bar(micrograph(seed), text)) for seed, text in enumerate(texts)]
    assert sum(bar is not None for bar in found) >= 5


@needs_ocr
def test_nothing_is_made_of_nothing() -> None:
    assert read_scale_bar(micrograph(1)) is None
    assert read_scale_bar(np.zeros((200, 200), np.uint8)) is None
    assert read_scale_bar(np.zeros((5, 5), np.uint8)) is None
    assert read_scale_bar(np.full((200, 300, 3), 255, np.uint8)) is None
    no_text = with_bar(micrograph(2), "")
    assert list(scale_bar._bars(np.asarray(no_text)))
    assert read_scale_bar(no_text) is None
    assert read_scale_bar(with_bar(micrograph(3), "nm")) is None
    assert read_scale_bar(with_bar(micrograph(3), "7341 nm")) is None
    assert read_scale_bar(with_bar(micrograph(3), "5 pm")) is None
    text_alone = micrograph(4)
    letters = ImageFont.truetype(str(FONTS / "DejaVuSans.ttf"), 26)
    ImageDraw.Draw(text_alone).text((40, 360), "5 nm", 255, font=letters)
    assert read_scale_bar(text_alone) is None


@needs_ocr
def test_bars_that_disagree_give_nothing_and_those_that_agree_one_value() -> None:
    def two(second: str, pixels: int) -> Image.Image:
        return with_bar(with_bar(micrograph(5), "5 nm"), second, left=330, pixels=pixels)

    assert read_scale_bar(two("10 nm", 120)) is None
    agreed = read_scale_bar(two("5 nm", 120))
    assert agreed is not None
    assert agreed.length == 50.0


@needs_ocr
def test_patterns_full_of_bars_take_no_time() -> None:
    stripes = np.full((1500, 1500), 128, np.uint8)
    for row in range(8, 400, 12):
        stripes[row : row + 4, 40:400] = stripes[row : row + 4, 500:900] = 255
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8)
    started = time.process_time()
    assert read_scale_bar(stripes) is None
    assert read_scale_bar(noise) is None
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5 nm", 50.0), ("0.5nm", 5.0), ("0,5 nm", 5.0), ("10 Å", 10.0), ("10 A", 10.0), ("2 µm", 2e4),
        ("2 um", 2e4), ("lnm", 10.0), ("5", None),
        ("nm", None), ("05 nm", None), ("5 nm x", None), ("5 pm", None),
        ("5 mm", None), ("0 nm", None), ("| 5 nm", None), ("15 nm |", None),
        ("137 nm", None), ("5 nmm", None), ("l0 nm", None), ("", None),
    ],
)  # fmt: skip
def test_texts_that_are_lengths(text: str, length: float | None) -> None:
    assert scale_bar._length(text) == length


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pytesseract":
            raise ImportError(name)
        return real(name, *arguments, **options)

    scale_bar._engine.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'atomvision-hub\[ocr\]'"):
        read_scale_bar(micrograph(0))
    scale_bar._engine.cache_clear()


def test_without_the_program_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytesseract = pytest.importorskip("pytesseract")
    monkeypatch.setattr(pytesseract.pytesseract, "tesseract_cmd", "/nowhere/tesseract")
    scale_bar._engine.cache_clear()
    with pytest.raises(MissingExtraError, match="the program tesseract"):
        read_scale_bar(micrograph(0))
    scale_bar._engine.cache_clear()
