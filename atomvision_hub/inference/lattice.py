"""Which class an image shows, according to a classifier."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.inference.files import read_image
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, DEFAULT_LATTICE, pretrained_folder

#: How far outside the views of its training a model is still asked.
TOLERANCE = 0.1
#: Fewest pixels across what the network sees, as a part of its input.
_SMALLEST = 0.5


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer of a classifier.

    Parameters
    ----------
    label
        Most probable class.
    probabilities
        Class -> probability, in the order of the model's classes.
    model
        Name of the model.
    calibrated
        Whether the pixel size was known, so that the model saw a view of a width that it learned.
    warnings
        What to keep in mind, one line each.
    """

    label: str
    probabilities: dict[str, float]
    model: str
    calibrated: bool
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON-ready values."""
        return dataclasses.asdict(self) | {"warnings": list(self.warnings)}


def predict(
    image: str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic],
    model: str | os.PathLike[str] | None = None,
    *,
    pixel_size: float | None = None,
) -> Prediction:
    """Tell the class of an image; by default its two-dimensional Bravais lattice.

    Parameters
    ----------
    image
        File (PNG, TIFF, JPEG), Pillow image, or array [row, column] of any number type; 16-bit and
        float values are scaled from smallest to largest.
    model
        Folder or Hub id of a classifier; by default the lattice network that ships with the package.
    pixel_size
        Å/px, if known: of a wider view than the model learned the centre is taken. Without it the image is
        answered as it is, marked uncalibrated.

    Returns
    -------
    Prediction

    Raises
    ------
    AtomVisionError
        When the file is no readable image, the model cannot be loaded, or the view is smaller or
        coarser than what the model learned.
    """
    opened = read_image(image)
    network, processor = _load(str(model) if model is not None else str(pretrained_folder(DEFAULT_LATTICE)))
    known = getattr(network.config, "atomvision", None) or {}
    input_size = _input_size(processor)
    opened, calibrated, warnings = _calibrate(opened, pixel_size, known, input_size)
    with torch.inference_mode():
        values = processor(opened.convert("RGB"), return_tensors="pt")["pixel_values"]
        chances = network(values).logits.float().softmax(-1)[0].tolist()
    names = [network.config.id2label[index] for index in range(len(chances))]
    return Prediction(
        label=names[int(np.argmax(chances))],
        probabilities=dict(zip(names, chances, strict=True)),
        model=Path(model).name if model is not None else DEFAULT_LATTICE,
        calibrated=calibrated,
        warnings=tuple(warnings),
    )


def _calibrate(
    image: Image.Image, pixel_size: float | None, known: dict[str, list[float]], input_size: int
) -> tuple[Image.Image, bool, list[str]]:
    """Return the part of the image the model can judge, whether its scale is known, and remarks."""
    low, high = known.get("field_of_view", (0.0, np.inf))
    learned = f"the model learned views of {low:.0f} to {high:.0f} Å"
    if pixel_size is None:
        return image, False, [f"pixel size unknown, {learned}; give it to be sure"] if known else []
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise UsageError(f"the pixel size must be a positive number of Å/px, not {pixel_size}")
    if "field_of_view" not in known:
        return image, False, ["the model does not say for which views it was trained"]
    view = min(image.size) * pixel_size
    if view < low * (1 - TOLERANCE):
        raise AtomVisionError(f"the image shows {view:.1f} Å, {learned}: take a wider view")
    remarks = []
    if view > high * (1 + TOLERANCE):
        side = round(high / pixel_size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        remarks.append(f"only the central {high:.1f} Å were looked at, since {learned}")
    if min(image.size) < _SMALLEST * input_size:
        finest = high / (_SMALLEST * input_size)
        raise AtomVisionError(
            f"{pixel_size:g} Å/px is too coarse for this model; it needs {finest:.2g} or finer"
        )
    return image, True, remarks


def field_of_view(model: str | os.PathLike[str] | None = None) -> tuple[float, float]:
    """Return the narrowest and widest views that a classifier learned, in Å; 0 and infinity if it is mute."""
    network, _ = _load(str(model) if model is not None else str(pretrained_folder(DEFAULT_CLASSIFIER)))
    known = getattr(network.config, "atomvision", None) or {}
    low, high = known.get("field_of_view", (0.0, np.inf))
    return float(low), float(high)


def _input_size(processor: Any) -> int:
    """Return the side of what a network sees, px, of timm's processor or one of transformers."""
    if hasattr(processor, "data_config"):
        return int(processor.data_config["input_size"][-1])
    return int(processor.crop_size["height"])


@functools.lru_cache(maxsize=2)
def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.utils import logging

    # Tells transformers what an atomvision_lattice is.
    import atomvision_hub.models.lattice_network  # noqa: F401

    folder = Path(model)
    if folder.exists() and not (folder / "config.json").is_file():
        raise AtomVisionError(f"{model} holds no model (no config.json); give the folder of a finished run")
    # A bar for a file of some MB and a remark on image backends are not for the user.
    progress, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        network = AutoModelForImageClassification.from_pretrained(model, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as problem:
        reason = str(problem).splitlines()[0]
        raise AtomVisionError(f"the model {model} cannot be loaded: {reason}") from None
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()
    return network.eval(), processor
