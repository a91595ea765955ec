"""Image of any instrument -> atoms, graph and lattice class, with the scale that the models know.

The columns are found and measured on the pixels of the file; only what the networks are shown is resampled.
So positions are those of the file, and noise stays what it was.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from atomvision_hub import __version__
from atomvision_hub.analysis import (
    AnalysisError,
    AtomGraph,
    AtomTable,
    bond_angle_histogram,
    detect_atoms,
    radius_graph,
)
from atomvision_hub.analysis.atoms import COLUMN_WIDTH, RESOLVABLE_PEAK
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.identity import identity
from atomvision_hub.inference.lattice_parameters import CALIBRATION, Measured, measure_lattice, with_origin
from atomvision_hub.inference.lattice_result import PowerSpectrum
from atomvision_hub.inference.lattice_views import NONE, classify_views, fitted_class
from atomvision_hub.inference.motif import find_motif
from atomvision_hub.inference.repeats import FEWEST, Cell, find_repeats
from atomvision_hub.inference.result import Analysis, Calibration, FirstLook, GraphSummary
from atomvision_hub.inference.spectrum import fringes, power_spectrum
from atomvision_hub.microscopy import MicroscopeImage, metadata, read_images
from atomvision_hub.microscopy.view import to_view
from atomvision_hub.models.pretrained import DEFAULT_SEGMENTER, pretrained_folder

if TYPE_CHECKING:
    from atomvision_hub.models.segmenter import Segmenter

Contrast = Literal["auto", "bright", "dark"]
Values = npt.NDArray[np.float32]

#: Fewest pixels a side, and across a column (its full width at half maximum is 1.18 Å).
SMALLEST_SIDE, ACROSS = 16, 2.0
#: Coarsest pixel size that shows columns, and smallest view that shows a lattice, Å.
COARSEST, SMALLEST_VIEW = 2 * math.sqrt(2 * math.log(2)) * COLUMN_WIDTH / ACROSS, 6.0
#: Up to so many times coarser pixels still show lattices, whose columns are two pixels or more apart.
LATTICE_ONLY = 1.3
#: Columns that are less sure than this come from noise as well as not.
MIN_CONFIDENCE = 0.5
#: Slower changes than this are no columns: standard deviation of the Gaussian mean that is subtracted, Å.
GROUND = 3.0
#: Longest edge of the graph, Å; without calibration in typical nearest distances.
CUTOFF, CUTOFF_NEAREST = 4.0, 1.6
#: Below this order the lattice class means little (columns at random have 0.1 to 0.3).
ORDERED = 0.4

_TILE, _HALO = 896, 64  # px of the segmenter's scale: what one pass keeps, and what it sees around it
_MOST_PIXELS = 2**26  # at the segmenter's scale
_COARSER = 3.0  # how much coarser than learned an image may be for the segmenter
_LOOK = 400  # px a side of the centre in which the width of columns is measured
_WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0)  # times the first guess
_MOST_ANGLES = 5_000_000
_BRIGHT_FIELD = re.compile(r"(^|[^a-z])(a?bf|bright.?field)([^a-z]|$)", re.IGNORECASE)


def analyze(
    image: str | os.PathLike[str] | MicroscopeImage | npt.NDArray[Any],
    *,
    pixel_size: float | tuple[float, float] | None = None,
    index: int | None = None,
    segmenter: str | os.PathLike[str] | None = None,
    classifier: str | os.PathLike[str] | None = None,
    contrast: Contrast = "auto",
    threshold: float = RESOLVABLE_PEAK,
    calibration_error: float = CALIBRATION,
) -> Analysis:
    """Find the atoms in an image, connect them, and tell their lattice.

    Parameters
    ----------
    image
        File (PNG, TIFF, DM3/4, EMD, SER, MRC, SXM, ...), an image of `read_images`, or an array
        [row, column] of any number type.
    pixel_size
        Å/px, one number or (row, column); by default what the file, or a YAML beside it, tells.
        Without any the image is answered in pixels, marked uncalibrated.
    index
        Which image of the file, from 0; by default the first that is no diffraction pattern and not uniform.
    segmenter
        Folder or Hub id of a segmenter, ``"none"`` to do without; by default the one that ships with the
        package. It decides which peaks are atoms; without it all peaks above the noise are.
    classifier
        As `segmenter`, for the class of lattice.
    contrast
        Whether columns are ``"bright"`` or ``"dark"``; ``"auto"``: dark in bright-field STEM detectors (by
        their name), bright elsewhere.
    threshold
        Smallest height of a column relative to the highest (their 99th percentile), 0..1: what is lower is
        no atom.
    calibration_error
        Relative standard error of the pixel size, stated beside that of the lattice parameters. Instrument
        files do not tell it; 5 % where nobody calibrated on a known crystal.

    Returns
    -------
    Analysis

    Raises
    ------
    AtomVisionError
        When nothing can be told about the image: a file that gives none, a diffraction pattern, pixels
        too coarse for columns of atoms, too small a view; or a model cannot be loaded.

    Examples
    --------
    >>> result = analyze("scan.dm4")  # doctest: +SKIP
    >>> len(result.atoms), result.lattice.label, result.graph.nearest_distance  # doctest: +SKIP
    (1024, 'square', 2.76)
    """
    steps = analyze_in_steps(
        image,
        pixel_size=pixel_size,
        index=index,
        segmenter=segmenter,
        classifier=classifier,
        contrast=contrast,
        threshold=threshold,
        calibration_error=calibration_error,
    )
    *_, result = steps
    assert isinstance(result, Analysis)
    return result


def analyze_in_steps(
    image: str | os.PathLike[str] | MicroscopeImage | npt.NDArray[Any],
    *,
    pixel_size: float | tuple[float, float] | None = None,
    index: int | None = None,
    segmenter: str | os.PathLike[str] | None = None,
    classifier: str | os.PathLike[str] | None = None,
    contrast: Contrast = "auto",
    threshold: float = RESOLVABLE_PEAK,
    calibration_error: float = CALIBRATION,
) -> Iterator[FirstLook | Analysis]:
    """Yield the lattice of an image as soon as it is fitted, then what `analyze` returns.

    The fit takes a quarter of the time; without calibration it waits for the scale, which comes from the
    columns. A classifier that is named answers last: with it only the whole result is told.
    """
    if contrast not in ("auto", "bright", "dark"):
        raise UsageError(f"contrast must be auto, bright or dark, not {contrast!r}")
    if not 0 <= threshold < 1:
        raise UsageError(f"the threshold is a relative height, 0 to below 1, not {threshold}")
    if not 0 <= calibration_error < 1:
        raise UsageError(f"the calibration error is relative, 0 to below 1, not {calibration_error}")
    chosen = _chosen(image, index)
    given = _given(pixel_size)
    try:
        yield from _steps(chosen, given, segmenter, classifier, contrast, threshold, calibration_error)
    except AnalysisError as problem:
        if chosen.file == _ARRAY:
            raise
        raise AnalysisError(f"{chosen.file.name}: {problem.reason}") from None


#: Stands for the file of an array.
_ARRAY = Path()


def _chosen(image: str | os.PathLike[str] | MicroscopeImage | npt.NDArray[Any], index: int | None) -> Any:
    if isinstance(image, MicroscopeImage):
        return image
    if isinstance(image, np.ndarray):
        if image.ndim != 2 or image.dtype.kind not in "uifb":
            raise UsageError(
                f"an image is [row, column] of real numbers; this array is {image.shape}, {image.dtype}"
            )
        return MicroscopeImage(image, None, "array", 0, _ARRAY, "", "")
    images = read_images(Path(image))
    if index is None:
        return first_usable(images)
    if not 0 <= index < len(images):
        raise UsageError(f"{image} has {len(images)} image(s); index counts from 0, {index} is none of them")
    return images[index]


def first_usable(images: list[MicroscopeImage]) -> MicroscopeImage:
    """Return the first image that is no diffraction pattern and not uniform; the first if all are."""
    for image in images:
        if image.kind != "diffraction" and image.data.min() != image.data.max():
            return image
    return images[0]


def _given(pixel_size: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if pixel_size is None:
        return None
    pair = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2)
    if not (np.isfinite(pair).all() and (pair > 0).all()):
        raise UsageError(f"the pixel size must be a positive number of Å/px, not {pixel_size}")
    return float(pair[0]), float(pair[1])


def _steps(
    image: MicroscopeImage,
    given: tuple[float, float] | None,
    segmenter: str | os.PathLike[str] | None,
    classifier: str | os.PathLike[str] | None,
    contrast: Contrast,
    threshold: float,
    calibration_error: float,
) -> Iterator[FirstLook | Analysis]:
    calibration = _calibration(image, given)
    warnings = [note for note in image.notes if not note.startswith("not calibrated")]
    _refuse(image, calibration)
    values, filled = _values(image.data)
    if filled:
        warnings.append(f"{filled} pixels that are not finite were filled with the median")
    dark = contrast == "dark" or (contrast == "auto" and _is_bright_field(image))
    if dark:
        values = values.max() + values.min() - values
        if contrast == "auto":
            warnings.append(
                f"{image.name!r} is taken for bright field: dark columns (contrast=bright: not so)"
            )
    measured = None
    if image.kind != "stm" and calibration.pixel_size and max(calibration.pixel_size) > COARSEST:
        warnings.append(
            f"{max(calibration.pixel_size):.3g} Å/px: columns of atoms are narrower than {ACROSS:g} px; "
            "the lattice may be right, the atoms are not all found"
        )
    if calibration.pixel_size is not None:
        measured = measure_lattice(values, calibration.pixel_size, calibration=calibration_error)
        yield from _first_look(calibration, measured, classifier)
    atoms, scale, calibration = _columns(values, calibration, threshold, guess=image.kind == "stm")
    if measured is None:
        measured = measure_lattice(values, None, apparent=min(scale), calibration=calibration_error)
        yield from _first_look(calibration, measured, classifier)
    if calibration.pixel_size is None:
        warnings.append(
            "pixel size unknown: lengths in px, models shown it at a scale guessed from its columns"
        )
    grey = to_view(values).grey
    models: dict[str, dict[str, str | None]] = {}
    chances = None
    if network := _segmenter(segmenter, models, warnings):
        probability = _probability(network, grey, scale, warnings)
        if probability is not None:
            chances = probability[_at(atoms)]
            inside = chances >= network.threshold
            atoms, chances = _judged(atoms, inside, warnings), chances[inside]
    bright = atoms = dataclasses.replace(atoms, pixel_size=calibration.pixel_size)
    if dark:
        atoms = _as_measured(atoms, float(values.max() + values.min()))
    graph, bonds, cell = _graph(atoms, calibration.unit, warnings)
    if graph.order is not None and graph.order < ORDERED:
        warnings.append(
            f"the columns hardly repeat (order {graph.order:.2f}): no single crystal, or texture and noise "
            "among them; look at the picture, try a higher threshold; a class of lattice means little"
        )
    measured, spectrum = _lattice(values, calibration, measured, atoms)
    warnings += measured.notes
    lattice = classify_views(grey, scale, bright, classifier, measured, models, warnings)
    if lattice is not None and cell is not None and lattice.label != cell.lattice:
        warnings.append(
            f"the class is {lattice.label}, but the columns repeat on a {cell.lattice} cell: "
            "the cell is measured between columns, distortions of the scan included"
        )
    yield Analysis(
        file=None if image.file == _ARRAY else image.file.name,
        sha256=image.sha256 or None,
        index=image.index,
        name=image.name,
        kind=image.kind,
        frame=image.frame,
        frames=image.frames,
        shape=(image.data.shape[0], image.data.shape[1]),
        calibration=calibration,
        contrast="dark" if dark else "bright",
        atoms=atoms,
        probability=chances,
        graph=graph,
        bonds=bonds,
        cell=cell,
        lattice=lattice,
        parameters=measured.parameters,
        no_lattice=measured.reason,
        motif=find_motif(atoms, measured.parameters),
        regions=measured.regions,
        spectrum=spectrum,
        models=models,
        version=__version__,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _first_look(
    calibration: Calibration, measured: Measured, classifier: str | os.PathLike[str] | None
) -> Iterator[FirstLook]:
    if classifier is None:
        yield FirstLook(
            calibration=calibration,
            lattice=fitted_class(measured, {}, []),
            parameters=measured.parameters,
            no_lattice=measured.reason,
        )


def _columns(
    values: Values, calibration: Calibration, threshold: float, *, guess: bool
) -> tuple[AtomTable, tuple[float, float], Calibration]:
    """Return the peaks, and the Å/px at which their columns are as wide as the models know them."""
    scale = calibration.pixel_size
    if scale is None or guess:
        scale = _guessed(values, threshold)
    atoms = _peaks(values, scale, threshold)
    if scale != calibration.pixel_size:
        apparent = float(COLUMN_WIDTH / math.sqrt(math.prod(atoms.width)))
        scale, calibration = (apparent, apparent), dataclasses.replace(calibration, apparent=apparent)
    return atoms, scale, calibration


def _lattice(
    values: Values, calibration: Calibration, measured: Measured, atoms: AtomTable
) -> tuple[Measured, PowerSpectrum]:
    """Return the lattice with its cell drawn at a column, and the peaks of the power spectrum."""
    found = measured.parameters
    if found is not None:
        measured = dataclasses.replace(measured, parameters=with_origin(found, atoms.x, atoms.y))
    spectrum = power_spectrum(values, calibration.pixel_size, measured.parameters)
    spacing = fringes(spectrum)
    if found is None and spacing is not None:
        reason = (
            f"fringes of one set of planes only, {spacing:.3g} {calibration.unit} apart; "
            "a lattice needs two directions"
        )
        measured = dataclasses.replace(measured, reason=reason)
    return measured, spectrum


def _calibration(image: MicroscopeImage, given: tuple[float, float] | None) -> Calibration:
    """Return the scale: what the user says counts before a YAML beside the image, that before the file."""
    if given is not None:
        return Calibration(pixel_size=given, source="given")
    if image.file == _ARRAY:
        return Calibration(pixel_size=None, source="none")
    told = metadata.complete(metadata.extract(image), metadata.find_sidecars(image.file))
    size = told.acquisition.pixel_size
    if size is None:
        return Calibration(pixel_size=None, source="none")
    source: Literal["file", "sidecar"] = "file" if image.pixel_size == size else "sidecar"
    return Calibration(pixel_size=(float(size[0]), float(size[1])), source=source)


def _refuse(image: MicroscopeImage, calibration: Calibration) -> None:
    """Raise where no atoms can be told, with the reason."""
    if image.kind == "diffraction":
        raise AnalysisError("a diffraction pattern shows no atoms; give an image")
    rows, columns = image.data.shape
    if min(rows, columns) < SMALLEST_SIDE:
        raise AnalysisError(f"{rows} x {columns} pixels show no lattice; it needs {SMALLEST_SIDE} a side")
    if image.data.min() == image.data.max():
        raise AnalysisError("all pixels have the same value; nothing was measured")
    size = calibration.pixel_size
    if size is None:
        return
    # Tunnelling microscopes show surfaces whose cells are many atoms wide.
    if max(size) > LATTICE_ONLY * COARSEST and image.kind != "stm":
        across = 2 * math.sqrt(2 * math.log(2)) * COLUMN_WIDTH / max(size)
        raise AnalysisError(
            f"{max(size):.3g} Å/px is too coarse: a column of atoms would be {across:.2g} px wide; "
            f"{COARSEST:.2g} Å/px or finer shows atoms"
        )
    view = min(rows * size[0], columns * size[1])
    if view < SMALLEST_VIEW:
        raise AnalysisError(
            f"the image shows {view:.2g} Å; a lattice needs {SMALLEST_VIEW:g} Å or more: take a wider view"
        )


def _values(data: npt.NDArray[Any]) -> tuple[Values, int]:
    """Return float32 values, and how many were not finite and are now the median."""
    finite = np.isfinite(data)
    bad = int(data.size - np.count_nonzero(finite))
    sound = data[finite] if bad else data
    low, span = float(sound.min()), float(sound.max()) - float(sound.min())
    if span == 0:
        raise AnalysisError("all pixels have the same value; nothing was measured")
    values = data.astype(np.float64)
    if bad:
        values[~finite] = float(np.median(sound))
    # Currents of 1e-10 A and heights of 1e-9 m keep their digits when scaled in double precision.
    if span < 1e-3 or max(abs(low), span) > 1e6:
        return ((values - low) / span).astype(np.float32), bad
    return values.astype(np.float32), bad


def _is_bright_field(image: MicroscopeImage) -> bool:
    return image.kind in (None, "stem") and _BRIGHT_FIELD.search(image.name) is not None


def _guessed(values: Values, threshold: float) -> tuple[float, float]:
    """Return the Å/px at which the columns in the centre of an image would be as wide as columns are.

    For uncalibrated images, and for those of tunnelling microscopes, whose atoms look wider. A first guess of
    the width comes from the image's peaks. Too narrow a width splits columns, too wide a one merges them, and
    both disturb their repeats: of some widths around the guess the narrowest is taken at which the columns
    repeat nearly best.
    """
    rows, columns = values.shape
    top, left = max(0, (rows - _LOOK) // 2), max(0, (columns - _LOOK) // 2)
    values = values[top : top + _LOOK, left : left + _LOOK]
    guess = COLUMN_WIDTH / math.sqrt(math.prod(detect_atoms(values, None).width))
    orders = {}
    for factor in _WIDTHS:
        scale = min(guess / factor, COARSEST)
        try:
            atoms = _peaks(values, (scale, scale), threshold)
        except AnalysisError:  # so wide that nothing fits into the image
            continue
        inner = ~atoms.edge
        if inner.sum() >= FEWEST:
            positions = atoms.positions()
            nearest = float(np.median(cKDTree(positions).query(positions, k=2)[0][inner, 1]))
            orders[scale], _ = _repeats(atoms, nearest, "Å")
    best = max(orders.values(), default=0.0)
    scale = next((scale for scale, order in orders.items() if order >= best - 0.02), guess)
    return (scale, scale) if best >= ORDERED else (min(guess, COARSEST),) * 2


@functools.lru_cache(maxsize=2)
def _load_segmenter(model: str) -> Segmenter:
    from atomvision_hub.models.segmenter import Segmenter

    return Segmenter.from_pretrained(model)


def _segmenter(
    model: str | os.PathLike[str] | None, models: dict[str, dict[str, str | None]], warnings: list[str]
) -> Segmenter | None:
    if str(model) == NONE:
        return None
    if model is None:
        folder = pretrained_folder(DEFAULT_SEGMENTER)
        if not folder.is_dir():
            warnings.append("no segmenter ships with this version: all peaks above the noise count as atoms")
            return None
        model = folder
    network = _load_segmenter(str(model))
    models["segmenter"] = identity(str(model))
    return network


def _probability(
    network: Segmenter, grey: npt.NDArray[np.uint8], scale: tuple[float, float], warnings: list[str]
) -> Values | None:
    """Return the segmenter's probability of "atom" for every pixel of the image, or None where it must pass.

    The image is resampled to square pixels of a size that the network learned (area means where it gets
    coarser), shown in overlapping tiles, and the answer is brought back to the pixels of the file.
    """
    import torch
    from torch.nn.functional import interpolate

    low, high = network.known.get("pixel_size") or (0.1, 0.1)
    if max(scale) > _COARSER * high:
        warnings.append(
            f"the segmenter learned {low:g} to {high:g} Å/px and was not asked at {max(scale):.2g}: "
            "all peaks above the noise count as atoms"
        )
        return None
    target = float(np.clip(math.sqrt(scale[0] * scale[1]), low, high))
    shape = tuple(max(1, round(n * size / target)) for n, size in zip(grey.shape, scale, strict=True))
    if shape[0] * shape[1] > _MOST_PIXELS:
        warnings.append(
            f"at the segmenter's {target:g} Å/px the image has {shape[0] * shape[1] / 1e6:.0f} megapixels; "
            "it was not asked, all peaks above the noise count as atoms; crop the image"
        )
        return None
    image = torch.from_numpy(grey).float()[None, None] / 255
    if shape != grey.shape:
        image = interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)
    answer = torch.zeros_like(image)
    with torch.inference_mode():
        for rows in _tiles(shape[0]):
            for columns in _tiles(shape[1]):
                (top, bottom, first, last), (left, right, start, end) = rows, columns
                part = network.predict(image[:, :, top:bottom, left:right])
                answer[:, :, first:last, start:end] = part[
                    :, :, first - top : last - top, start - left : end - left
                ]
        if shape != grey.shape:
            answer = interpolate(answer, grey.shape, mode="bilinear", antialias=True, align_corners=False)
    result: Values = answer[0, 0].numpy()
    return result


def _tiles(length: int) -> list[tuple[int, int, int, int]]:
    """Return (seen from, seen to, kept from, kept to) of equal tiles along an axis."""
    count = max(1, math.ceil((length - 2 * _HALO) / _TILE))
    ends = [round(length * number / count) for number in range(count + 1)]
    return [
        (max(0, first - _HALO), min(length, last + _HALO), first, last)
        for first, last in itertools.pairwise(ends)
    ]


def _judged(peaks: AtomTable, inside: npt.NDArray[np.bool_], warnings: list[str]) -> AtomTable:
    """Return the peaks that the segmenter takes for atoms."""
    left_out = int(len(peaks) - inside.sum())
    if left_out > 0.2 * len(peaks):
        warnings.append(
            f"the segmenter took {left_out} of {len(peaks)} peaks for no atoms; "
            "look at the picture, and try --segmenter none"
        )
    return peaks.select(inside)


def _peaks(values: Values, scale: tuple[float, float], threshold: float) -> AtomTable:
    """Return the columns that are surely no noise; a support or a slope under them does not count."""
    ground = _ground(values, scale)
    peaks = detect_atoms(values - ground, scale, threshold=threshold)
    peaks = peaks.select(peaks.confidence >= MIN_CONFIDENCE)
    under = ground[_at(peaks)].astype(np.float64)
    return dataclasses.replace(peaks, max=peaks.max + under, min=peaks.min + under, mean=peaks.mean + under)


def _ground(values: Values, scale: tuple[float, float]) -> Values:
    """Return what changes slowly in an image: a plane, and Gaussian means over `GROUND` of what is left."""
    sigma = [GROUND / size for size in scale]
    # A Gaussian many pixels wide is known from blocks of a quarter of its width.
    steps = [max(1, int(side / 4)) for side in sigma]
    padded = np.pad(
        values, [(0, -n % step) for n, step in zip(values.shape, steps, strict=True)], mode="edge"
    )
    rows, columns = (n // step for n, step in zip(padded.shape, steps, strict=True))
    coarse = padded.reshape(rows, steps[0], columns, steps[1]).mean(axis=(1, 3), dtype=np.float64)
    # The means are mirrored at the edges, where a slope would become a ridge: it is taken out first.
    down, across = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    slope_down = float(down @ coarse.mean(axis=1)) / max(float(down @ down), 1.0)
    slope_across = float(across @ coarse.mean(axis=0)) / max(float(across @ across), 1.0)
    plane = slope_down * down[:, None] + slope_across * across
    widths = [side / step for side, step in zip(sigma, steps, strict=True)]
    smooth = plane + ndimage.gaussian_filter(coarse - plane, widths, mode="reflect", truncate=3)
    if steps == [1, 1]:
        return np.asarray(smooth, np.float32)
    along = [(np.arange(n) - (step - 1) / 2) / step for n, step in zip(values.shape, steps, strict=True)]
    by_rows = _interpolated(smooth, along[0])
    return np.asarray(_interpolated(by_rows.T, along[1]).T, np.float32)


def _interpolated(values: npt.NDArray[Any], places: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return linear interpolation along the first axis, straight on beyond its ends."""
    if len(values) == 1:
        return np.repeat(values, len(places), axis=0)
    below = np.clip(np.floor(places).astype(np.intp), 0, len(values) - 2)
    share = (places - below)[:, None]
    return np.asarray(values[below] * (1 - share) + values[below + 1] * share)


def _at(atoms: AtomTable) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    rows, columns = atoms.shape
    y = np.clip(np.rint(atoms.y).astype(np.intp), 0, rows - 1)
    return y, np.clip(np.rint(atoms.x).astype(np.intp), 0, columns - 1)


def _as_measured(atoms: AtomTable, total: float) -> AtomTable:
    """Return dark columns with the grey levels of the file, which were mirrored for the search."""
    return dataclasses.replace(atoms, max=total - atoms.min, min=total - atoms.max, mean=total - atoms.mean)


def _graph(atoms: AtomTable, unit: str, warnings: list[str]) -> tuple[GraphSummary, AtomGraph, Cell | None]:
    """Return what the graph of the columns tells, the graph, and the cell that the columns repeat on."""
    positions = atoms.positions()
    inner = ~atoms.edge
    nearest, spread, coordination, order, cell = None, None, {}, None, None
    if len(atoms) > 1:
        tree = cKDTree(positions)
        distances = tree.query(positions, k=2)[0][:, 1]
        judged = distances[inner] if inner.any() else distances
        nearest = float(np.median(judged))
        spread = float(np.diff(np.percentile(judged, [16, 84]))[0] / 2)
        shell = tree.query_ball_point(positions[inner], 1.25 * distances[inner], return_length=True) - 1
        counts = np.bincount(np.asarray(shell, dtype=np.intp))
        coordination = {int(n): int(counts[n]) for n in np.flatnonzero(counts)}
        if inner.sum() >= FEWEST:
            order, cell = _repeats(atoms, nearest, unit)
    cutoff = max(CUTOFF if unit == "Å" else 0.0, CUTOFF_NEAREST * (nearest or 1.0))
    bonds = radius_graph(positions, cutoff)
    # Successive edges grow with the square of the neighbours: of very dense peaks only the nearest count.
    degree = np.bincount(bonds.edges[0], minlength=len(atoms))
    if int((degree.astype(np.int64) ** 2).sum()) > _MOST_ANGLES:
        warnings.append("bond angles of the 8 nearest neighbours only: too many columns within the cut-off")
        angles = bond_angle_histogram(radius_graph(positions, cutoff, max_neighbours=8).line_graph())
    else:
        angles = bond_angle_histogram(bonds.line_graph())
    summary = GraphSummary(
        nodes=len(atoms),
        edges=bonds.edges.shape[1] // 2,
        cutoff=cutoff,
        nearest_distance=nearest,
        nearest_spread=spread,
        coordination=coordination,
        order=order,
        bond_angles=tuple(angles.tolist()) if angles.any() else (),
        unit=unit,
    )
    return summary, bonds, cell


def _repeats(atoms: AtomTable, nearest: float, unit: str) -> tuple[float, Cell | None]:
    dy, dx = atoms.pixel_size or (1.0, 1.0)
    size = ((atoms.shape[1] - 1) * dx, (atoms.shape[0] - 1) * dy)
    return find_repeats(atoms.positions(), atoms.amplitude, nearest, size, unit)
