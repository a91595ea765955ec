"""Convolutions of an image by its spectrum, without wrapping around its edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from atomvision_hub.simulation.acquisition.steps.base import Array, Frame


def filtered(frame: Frame, reach: float, transfer: Callable[[tuple[int, int]], npt.NDArray[Any]]) -> Frame:
    """Multiply the spectrum of an image, repeated outwards at its edges as far as the filter reaches (Å).

    `transfer` takes a shape and returns the factors in the order of `scipy.fft.rfft2`.
    """
    image, sizes = frame.image, frame.pixel_size
    pad = [int(np.ceil(reach / step)) for step in sizes]
    (rows, columns), (top, left) = image.shape, pad
    shape = (
        fft.next_fast_len(rows + 2 * top, real=True),
        fft.next_fast_len(columns + 2 * left, real=True),
    )
    sides = [(top, shape[0] - rows - top), (left, shape[1] - columns - left)]
    spectrum = fft.rfft2(np.pad(image, sides, mode="edge")) * transfer(shape)
    full = fft.irfft2(spectrum, shape)[top : top + rows, left : left + columns]
    # No filter here makes anything negative: what is, is rounding or the ringing of single bright pixels.
    return replace(frame, image=np.maximum(full, min(0.0, float(image.min()))))


def blurred(frame: Frame, sigma: float) -> Frame:
    """Convolve with a Gaussian: its transfer function is exact also where it is narrower than a pixel."""
    if sigma == 0:
        return frame

    def transfer(shape: tuple[int, int]) -> Array:
        ky = fft.fftfreq(shape[0], frame.pixel_size[0])[:, None]
        kx = fft.rfftfreq(shape[1], frame.pixel_size[1])
        return np.asarray(np.exp(-2 * (np.pi * sigma) ** 2 * (ky**2 + kx**2)))

    return filtered(frame, 5 * sigma, transfer)
