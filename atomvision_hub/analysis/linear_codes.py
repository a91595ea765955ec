"""Linear codes of images, the baselines of autoencoders: mean image, cosines, principal components.

All of them are fitted on training images and their mirror images and quarter turns, since a crystal may lie
any way round; this makes the principal components stronger on images that were not seen. Mirror images leave
no covariance between cosines that are even and odd across the centre, so the components are found in four
blocks, at a sixteenth of the cost.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import fft

from atomvision_hub.analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]
#: Kinds of codes, by strength.
LinearKind = Literal["mean", "dct", "pca"]
LINEAR_KINDS: tuple[LinearKind, ...] = ("mean", "dct", "pca")


@dataclass(frozen=True)
class LinearCode:
    """Orthonormal components of images around their mean.

    Attributes
    ----------
    mean_image
        Flat, [pixels].
    components
        Orthonormal rows, [n, pixels]; none for the mean image alone.
    spread
        Root mean square of the training images' coordinates along them, [n].
    rule
        How the components were chosen, in words.
    """

    mean_image: Array
    components: Array
    spread: Array
    rule: str

    def __len__(self) -> int:
        return len(self.components)

    def encode(self, images: npt.NDArray[Any]) -> Array:
        """Return the coordinates [m, n] of images [m, rows, columns]."""
        found: Array = self._flat(images) @ self.components.T
        return found

    def decode(self, codes: npt.NDArray[Any]) -> Array:
        """Return the images [m, rows, columns] of coordinates [m, n]."""
        side = round(len(self.mean_image) ** 0.5)
        found: Array = (codes @ self.components + self.mean_image).reshape(-1, side, side)
        return found

    def reconstruct(self, images: npt.NDArray[Any]) -> Array:
        """Return what is left of images [m, rows, columns] after their code."""
        return self.decode(self.encode(images))

    def _flat(self, images: npt.NDArray[Any]) -> Array:
        flat = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
        if flat.shape[1] != len(self.mean_image):
            raise AnalysisError(f"this code is for {len(self.mean_image)} pixels, not for {flat.shape[1]}")
        return flat - self.mean_image


class LinearCodes:
    """Codes of any length fitted on the same images; the costly part is done once.

    Parameters
    ----------
    images
        Training images, [m, side, side].

    Raises
    ------
    AnalysisError
        When they are no square images.
    """

    def __init__(self, images: npt.NDArray[Any]) -> None:
        values = np.asarray(images, dtype=np.float64)
        if values.ndim != 3 or not len(values) or values.shape[1] != values.shape[2]:
            raise AnalysisError(f"linear codes are fitted on images [n, side, side], not {values.shape}")
        self.side = values.shape[1]
        mean = values.mean(0)
        # Over the eight ways round; the training images then have this mean exactly.
        mean = np.mean([np.rot90(way, turn) for way in (mean, mean.T) for turn in range(4)], axis=0)
        self.mean_image: Array = mean.ravel()
        self._cosines: Array = fft.dctn(values - mean, axes=(1, 2), norm="ortho")
        self._pca: tuple[Array, Array] | None = None

    def fit(self, kind: LinearKind, length: int) -> LinearCode:
        """Return the code of a kind with so many numbers.

        Parameters
        ----------
        kind
            ``"mean"``: the mean image and no number at all. ``"dct"``: cosines of the two-dimensional
            discrete cosine transform, those of most energy or those of lowest frequency, whichever leaves
            less of the training images. ``"pca"``: principal components.
        length
            Numbers of the code, at most the pixels.
        """
        if not 0 <= length <= self.side**2:
            raise AnalysisError(f"a code of {self.side} x {self.side} pixels has at most as many numbers")
        if kind == "mean":
            nothing = np.zeros((0, self.side**2))
            return LinearCode(self.mean_image, nothing, np.zeros(0), "mean image of the training rows")
        if kind == "dct":
            return self._fit_dct(length)
        power, vectors = self._principal()
        cosines = vectors[:length]
        components = fft.idctn(cosines.reshape(-1, self.side, self.side), axes=(1, 2), norm="ortho")
        rule = "principal components of the training rows and their mirror images and quarter turns"
        return LinearCode(
            self.mean_image, components.reshape(cosines.shape), np.sqrt(np.maximum(power[:length], 0)), rule
        )

    def _fit_dct(self, length: int) -> LinearCode:
        energy = np.mean(self._cosines**2, axis=0)
        energy = (energy + energy.T) / 2
        row, column = np.mgrid[: self.side, : self.side]
        orders = {
            "most energy": np.argsort(-energy.ravel(), kind="stable"),
            "lowest frequency": np.argsort((row**2 + column**2).ravel(), kind="stable"),
        }
        kept = {name: float(energy.ravel()[order[:length]].sum()) for name, order in orders.items()}
        rule = max(kept, key=lambda name: kept[name])
        chosen = orders[rule][:length]
        cosines = np.zeros((length, self.side**2))
        cosines[np.arange(length), chosen] = 1
        waves = fft.idctn(cosines.reshape(-1, self.side, self.side), axes=(1, 2), norm="ortho")
        spread = np.sqrt(energy.ravel()[chosen])
        return LinearCode(self.mean_image, waves.reshape(cosines.shape), spread, f"cosines of {rule}")

    def _principal(self) -> tuple[Array, Array]:
        """Return variances and components, in cosines, by falling variance."""
        if self._pca is None:
            powers, vectors = [], []
            index = np.arange(self.side**2).reshape(self.side, self.side)
            for rows, columns in itertools.product((0, 1), repeat=2):
                part = np.s_[rows::2, columns::2]
                # A quarter turn exchanges the axes, and with them the two mixed blocks.
                turned = self._cosines.swapaxes(1, 2)[(slice(None), *part)]
                both = [self._cosines[(slice(None), *part)], turned]
                flat = [block.reshape(len(block), -1) for block in both]
                covariance = sum(block.T @ block for block in flat) / (2 * len(self._cosines))
                power, found = np.linalg.eigh(covariance)
                whole = np.zeros((len(power), self.side**2))
                whole[:, index[part].ravel()] = found.T
                powers.append(power)
                vectors.append(whole)
            power = np.concatenate(powers)
            order = np.argsort(-power, kind="stable")
            self._pca = power[order], np.concatenate(vectors)[order]
        return self._pca
