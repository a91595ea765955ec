"""Composites of our own with known boxes; captions in the styles of several publishers."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atomvision_hub.literature.panels import Box, reading_order, split_caption, split_panels

LETTERS = "abcdefghijkl"


def composite(
    rows: list[list[int]], height: int, gutter: int, *, background: int = 255, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], list[Box]]:
    """Rows of noisy panels of given widths, with gutters between and around; the image and its boxes."""
    random = np.random.default_rng(seed)
    width = max(sum(row) + gutter * (len(row) + 1) for row in rows)
    image = np.full((len(rows) * (height + gutter) + gutter, width), background, np.uint8)
    boxes = []
    for index, row in enumerate(rows):
        top, left = gutter + index * (height + gutter), gutter
        for wide in row:
            image[top : top + height, left : left + wide] = random.integers(40, 215, (height, wide), np.uint8)
            boxes.append((left, top, left + wide, top + height))
            left += wide + gutter
    return image, boxes


def caption(number: int) -> str:
    return " ".join(f"({letter}) Image {letter}." for letter in LETTERS[:number])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(st.lists(st.integers(60, 140), min_size=1, max_size=3), min_size=1, max_size=3),
    st.integers(80, 140),
    st.integers(3, 20),
    st.sampled_from([255, 0]),
)
def test_known_boxes_are_found_exactly(
    rows: list[list[int]], height: int, gutter: int, background: int
) -> None:
    image, boxes = composite(rows, height, gutter, background=background)
    panels = split_panels(image, caption(len(boxes)))
    if len(boxes) == 1:
        assert len(panels.boxes) == 1
        return
    assert list(panels.boxes) == boxes
    assert "".join(panels.letters) == LETTERS[: len(boxes)]
    assert panels.captions[0] == "Image a."


def test_without_letters_images_are_parted_and_plots_stay_whole() -> None:
    image, boxes = composite([[100, 100]], 100, 8)
    assert split_panels(image, "Two images.").boxes == tuple(boxes)
    assert split_panels(image, "Two images.").letters == ("", "")
    plot = np.full((200, 400), 255, np.uint8)
    for left in (20, 220):
        plot[20:180, left : left + 2] = plot[178:180, left : left + 150] = 0
    assert split_panels(plot, "Two curves.").boxes == ((0, 0, 400, 200),)
    assert split_panels(plot, "(a) One curve. (b) Another.").letters == ("a", "b")


def test_labels_and_colour_bars_stay_with_their_panel() -> None:
    image, boxes = composite([[150, 150], [150, 150]], 150, 20)
    image[4:14, 22:30] = 0  # a letter above the first panel
    panels = split_panels(image, caption(4))
    assert len(panels.boxes) == 4
    assert panels.boxes[1] == boxes[1]
    assert panels.boxes[0][1] in {4, 20}


def test_a_count_that_does_not_fit_gives_no_letters() -> None:
    image, boxes = composite([[100, 100, 100]], 100, 8)
    panels = split_panels(image, caption(5))
    assert panels.boxes == tuple(boxes)
    assert panels.letters == ("", "", "")
    assert panels.captions == (caption(5),) * 3


def test_a_column_beside_a_stack_is_read_left_to_right() -> None:
    a, b, c = (0, 0, 100, 210), (110, 0, 200, 100), (110, 110, 200, 210)
    assert reading_order([c, b, a]) == [a, b, c]
    grid = [(0, 0, 9, 9), (20, 0, 29, 9), (0, 10, 9, 19), (20, 10, 29, 19)]
    assert reading_order(grid[::-1]) == grid


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 6),
    st.integers(0, 9),
    st.sampled_from(["u1", "f4", "u2", "rgb"]),
)
def test_boxes_are_always_inside_the_image(
    rows: int, columns: int, coarse: int, letters: int, kind: str
) -> None:
    random = np.random.default_rng(rows * 100 + columns)
    image = random.integers(0, 2, (rows, columns)) * 255 >> (coarse if coarse < 6 else 0)
    image[random.random(rows) < 0.3] = 255
    image[:, random.random(columns) < 0.3] = 255
    array = np.repeat(image[..., None], 3, axis=2).astype("u1") if kind == "rgb" else image.astype(kind)
    panels = split_panels(array, caption(letters))
    assert len(panels.boxes) == len(panels.letters) == len(panels.captions) >= 1
    for left, top, right, bottom in panels.boxes:
        assert 0 <= left < right <= columns
        assert 0 <= top < bottom <= rows


def test_pillow_images_of_all_modes_and_large_ones() -> None:
    image, boxes = composite([[100, 100]], 100, 8)
    picture = Image.fromarray(image)
    for mode in ("L", "RGB", "RGBA", "P", "LA", "1", "CMYK", "I;16", "F"):
        found = split_panels(picture.convert(mode), caption(2)).boxes
        assert len(found) == 2, mode
    clear = Image.new("RGBA", (216, 116), (0, 0, 0, 0))
    clear.paste(picture.crop(boxes[0]), boxes[0][:2])
    clear.paste(picture.crop(boxes[1]), boxes[1][:2])
    assert split_panels(clear, caption(2)).boxes == tuple(boxes)
    large = np.kron(image, np.ones((20, 20), np.uint8))
    for found, true in zip(split_panels(large, caption(2)).boxes, boxes, strict=True):
        assert np.abs(np.array(found) - 20 * np.array(true)).max() <= 3
    assert split_panels(np.full((50, 60), 255, np.uint8), caption(2)).boxes == ((0, 0, 60, 50),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a) STM image. (b) STEM image.", {"a": "STM image.", "b": "STEM image."}),
        ("Figure 3. (a, b) TEM, (c-e) SEM.", {"a": "TEM", "b": "TEM", "c": "SEM.", "d": "SEM.", "e": "SEM."}),
        ("(a) and (b) SEM. (c) XRD (see (a)).", {"a": "SEM.", "b": "SEM.", "c": "XRD (see (a))."}),
        ("Fig. 1: A) Scheme B) Image", {"a": "Scheme", "b": "Image"}),
        ("a, Sketch. b, Image. c,d, IV.", {"a": "Sketch.", "b": "Image.", "c": "IV.", "d": "IV."}),
        ("a Top. b End. c\u2013e IV.", {"a": "Top.", "b": "End.", "c": "IV.", "d": "IV.", "e": "IV."}),
        ("a. Scheme. b. Image.", {"a": "Scheme.", "b": "Image."}),
        ("TEM image of A (a) and of B (b).", {"a": "TEM image of A", "b": "and of B"}),
        ("One image of (a)typical kind.", {}),
        ("STM image, 10 nm.", {}),
        ("(b) Only this.", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_captions_are_parted_by_their_letters(text: str, expected: dict[str, str]) -> None:
    assert split_caption(text) == expected
    assert list(split_caption(text)) == list(expected)


@pytest.mark.parametrize(
    "hostile", ["(a" * 500_000, "a, " * 300_000, "(a) " * 250_000, "and " * 250_000, "a-" * 500_000]
)
def test_a_megabyte_of_anything_takes_no_time(hostile: str) -> None:
    started = time.process_time()
    split_caption(hostile)
    assert time.process_time() - started < 2


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(st.sampled_from("abcABC(),.-& \u2013:;and"), max_size=60))
def test_letters_run_from_a_without_gap(text: str) -> None:
    letters = "".join(split_caption(text))
    assert LETTERS.startswith(letters) or len(letters) > len(LETTERS)
