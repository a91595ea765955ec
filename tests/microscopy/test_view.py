"""Raw intensities survive, the view follows from them, units become Å."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from atomvision_hub.microscopy.calibration import angstrom, is_angle, per_angstrom
from atomvision_hub.microscopy.view import decode_raw, encode_raw, to_view

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
LAWS = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def images(draw: st.DrawFn) -> npt.NDArray[np.generic]:
    shape = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    return draw(arrays.arrays(np.dtype(draw(st.sampled_from(TYPES))), shape))


@LAWS
@given(images())
def test_raw_gives_back_every_bit(data: npt.NDArray[np.generic]) -> None:
    content = encode_raw(data)
    found = decode_raw(content)
    assert found.dtype == data.dtype
    assert found.tobytes() == data.tobytes()  # NaN, infinities and -0.0 included
    assert encode_raw(data) == content


def test_raw_is_a_plain_small_tiff() -> None:
    rows, columns = np.mgrid[:200, :300]
    data = (1000 + 500 * np.sin(rows / 20) * np.cos(columns / 30)).astype(np.uint16)
    content = encode_raw(data)
    assert len(content) < 0.5 * data.nbytes
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), data)
    assert np.array_equal(decode_raw(encode_raw(data.astype(">u2"))), data)
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        assert not {"DateTime", "Software", "ImageDescription"} & {tag.name for tag in tif.pages[0].tags}


@LAWS
@given(images().filter(lambda data: bool(np.isfinite(data).all())))
def test_view_is_linear_between_its_limits(data: npt.NDArray[np.generic]) -> None:
    values = data.astype(np.float64)
    if np.ptp(values) > 1e300:
        return
    view = to_view(data, clip=0)
    assert (view.low, view.high) == (values.min(), values.max())
    assert view.clipped == 0
    shown = view.low + (view.high - view.low) * view.grey.astype(float) / 255
    assert np.abs(shown - values).max() <= (view.high - view.low) / 255 * 0.5001


def test_hot_pixels_do_not_set_the_contrast() -> None:
    data = np.random.default_rng(0).normal(100, 5, (300, 300)).astype(np.float32)
    data[7, 9], data[8, 9] = 60_000, -60_000
    view = to_view(data)
    assert 80 < view.low < 90
    assert 110 < view.high < 120
    assert (view.grey[7, 9], view.grey[8, 9]) == (255, 0)
    assert 0.001 < view.clipped <= 0.002
    assert view.grey.std() > 30


def test_view_of_odd_images() -> None:
    even = to_view(np.full((5, 6), 7, np.uint16))
    assert (even.low, even.high, even.clipped, int(even.grey.max())) == (7, 7, 0, 0)
    spots = np.zeros((100, 100), np.uint8)
    spots[3, 4] = 200  # fewer than the view would clip: shown all the same
    assert to_view(spots).grey[3, 4] == 255
    part = np.arange(20, dtype=np.float32).reshape(4, 5)
    part[2:] = np.nan
    assert (to_view(part).grey[2:] == 0).all()
    assert to_view(part, clip=0).clipped == pytest.approx(0.5)
    nothing = to_view(np.full((3, 3), np.nan))
    assert (nothing.low, nothing.high, nothing.clipped, int(nothing.grey.max())) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (7.5, "pm", 0.075), (0.5, "nm", 5.0), (0.012, "n_m", 0.12), (2, "Å", 2.0),
        (2, "\N{ANGSTROM SIGN}", 2.0),
        (2, "A", 2.0), (3, "Angstroms", 3.0), (0.5, "µm", 5000.0),
        (0.5, "\N{GREEK SMALL LETTER MU}m", 5000.0),
        (0.5, "um", 5000.0), (0.5, "microns", 5000.0), (0.5, "\\u00B5m", 5000.0), (1e-10, "m", 1.0),
        (1, "[m]", 1e10), (2, "mm", 2e7), (1, "micrometre", 1e4), (1, "px", None), (1, "", None),
        (1, None, None),
        (1, "1/nm", None), (0, "nm", None), (-1, "nm", None),
        (float("nan"), "nm", None), (float("inf"), "m", None),
        (1e30, "m", None), (1, "eV", None), (1, "mrad", None),
    ],
)  # fmt: skip
def test_lengths(value: float, unit: str | None, wanted: float | None) -> None:
    assert angstrom(value, unit) == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (0.5, "1/nm", 0.05), (0.5, "nm^-1", 0.05), (0.5, "nm⁻¹", 0.05), (0.5, "1/Å", 0.5), (5e8, "1/m", 0.05),
        (0.5, "nm", None), (0.5, "1/px", None), (0, "1/nm", None),
    ],
)  # fmt: skip
def test_reciprocal_lengths(value: float, unit: str, wanted: float | None) -> None:
    assert per_angstrom(value, unit) == (None if wanted is None else pytest.approx(wanted))


def test_angles() -> None:
    assert is_angle("mrad")
    assert not is_angle("nm")
    assert not is_angle(None)
