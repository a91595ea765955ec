from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from atomvision_hub.data.png import encode_png

SHAPES = nps.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)


@given(st.one_of(nps.arrays(np.uint8, SHAPES), nps.arrays(np.uint16, SHAPES), nps.arrays(np.bool_, SHAPES)))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_pillow_reads_the_very_values(image: np.ndarray) -> None:
    decoded = Image.open(io.BytesIO(encode_png(image)))
    assert decoded.mode == ("I;16" if image.dtype == np.uint16 else "L")
    assert np.array_equal(np.asarray(decoded), image * np.uint8(255) if image.dtype == np.bool_ else image)


def test_views_and_transposes_are_encoded_as_seen() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(6, 10)
    for view in (image.T, image[::2, ::3], image[::-1, ::-1]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(view)))), view)


@pytest.mark.parametrize("image", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 3), np.uint8)])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="PNG takes uint8, uint16 or bool"):
        encode_png(image)
