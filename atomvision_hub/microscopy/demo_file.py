"""An instrument file of our own making: known pixels, known calibration, known metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atomvision_hub._files import atomic_path, write_text
from atomvision_hub.errors import UsageError
from atomvision_hub.microscopy.metadata import FIELDS, Metadata, read_sidecar, to_yaml


def write_demo_file(
    path: Path | str,
    image: npt.NDArray[Any],
    pixel_size: tuple[float, float],
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write an image as a TIFF file that ImageJ and `read_images` open with its calibration.

    What is known beside the calibration goes into a YAML file next to it (``scan.tif.yaml``), as a person
    would write it. No optional library is needed.

    Parameters
    ----------
    path
        Ends with ``.tif`` or ``.tiff``.
    image
        [row, column]; uint8, uint16 or float32.
    pixel_size
        Å/px (row, column).
    metadata
        Dotted field -> value, such as ``{"sample.formula": "MoS2", "acquisition.mode": "stem"}``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        For another suffix, type or shape, or a field that the schema does not know.
    MetadataError
        For a value that the schema refuses.
    """
    import tifffile

    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"{path.name}: the file is a TIFF; end its name with .tif")
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UsageError(
            f"{path.name}: uint8, uint16 or float32 [row, column] are written, "
            f"not {image.dtype}{list(image.shape)}"
        )
    values = dict(metadata or {})
    if unknown := [field for field in values if field not in FIELDS]:
        raise UsageError(f"{path.name}: no metadata field {unknown[0]!r}; see 'atomvision metadata template'")
    height, width = pixel_size
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            image,
            imagej=True,
            resolution=(10 / width, 10 / height),  # pixels a nanometre
            metadata={"unit": "nm", "axes": "YX"},
        )
    if values:
        sidecar = path.with_name(path.name + ".yaml")
        write_text(sidecar, to_yaml(Metadata.of(values, dict.fromkeys(values, "written by write_demo_file"))))
        read_sidecar(sidecar)
    return path
