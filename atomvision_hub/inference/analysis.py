"""Image of any instrument -> atoms, graph and lattice class, with the scale that the models know.

The columns are found and measured on the pixels of the file; only what the networks are shown is resampled.
So positions are those of the file, and noise stays what it was.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atomvision_hub import __version__
from atomvision_hub.analysis import AnalysisError, AtomTable
from atomvision_hub.analysis.atoms import RESOLVABLE_PEAK
from atomvision_hub.errors import UsageError
from atomvision_hub.inference.columns import (
    ORDERED,
    as_measured,
    connect,
    find_columns,
    pixels_of,
)
from atomvision_hub.inference.fitted_columns import FittedColumns, explaining_columns
from atomvision_hub.inference.inputs import (
    ACROSS,
    ARRAY,
    COARSEST,
    Contrast,
    Values,
    calibration_of,
    chosen_image,
    given_size,
    is_bright_field,
    refuse,
    sound_values,
)
from atomvision_hub.inference.lattice_parameters import CALIBRATION, Measured, measure_lattice, with_origin
from atomvision_hub.inference.lattice_result import PowerSpectrum
from atomvision_hub.inference.lattice_views import classify_views, fitted_class
from atomvision_hub.inference.motif import find_motif
from atomvision_hub.inference.result import Analysis, Calibration, FirstLook
from atomvision_hub.inference.segmenting import atom_probability, judged, open_segmenter
from atomvision_hub.inference.spectrum import fringes, power_spectrum
from atomvision_hub.microscopy import MicroscopeImage
from atomvision_hub.microscopy.view import to_view

if TYPE_CHECKING:
    from atomvision_hub.models.segmenter import Segmenter


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
    fit_columns: bool = False,
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
    fit_columns
        Explain the image by columns on a lattice with its defects (`analysis.fit_columns`) and answer with
        them, where they leave nothing but noise: columns that are nearer than their width are told apart, and
        none is left out for being faint. Takes seconds, a minute for 1024 x 1024 px.

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
        fit_columns=fit_columns,
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
    fit_columns: bool = False,
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
    chosen = chosen_image(image, index)
    given = given_size(pixel_size)
    try:
        yield from _steps(
            chosen, given, segmenter, classifier, contrast, threshold, calibration_error, fit_columns
        )
    except AnalysisError as problem:
        if chosen.file == ARRAY:
            raise
        raise AnalysisError(f"{chosen.file.name}: {problem.reason}") from None


def _steps(
    image: MicroscopeImage,
    given: tuple[float, float] | None,
    segmenter: str | os.PathLike[str] | None,
    classifier: str | os.PathLike[str] | None,
    contrast: Contrast,
    threshold: float,
    calibration_error: float,
    fit_columns: bool,
) -> Iterator[FirstLook | Analysis]:
    calibration = calibration_of(image, given)
    warnings = [note for note in image.notes if not note.startswith("not calibrated")]
    refuse(image, calibration)
    values, filled = sound_values(image.data)
    if filled:
        warnings.append(f"{filled} pixels that are not finite were filled with the median")
    dark = contrast == "dark" or (contrast == "auto" and is_bright_field(image))
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
    atoms, scale, calibration = find_columns(values, calibration, threshold, guess=image.kind == "stm")
    if measured is None:
        measured = measure_lattice(values, None, apparent=min(scale), calibration=calibration_error)
        yield from _first_look(calibration, measured, classifier)
    if calibration.pixel_size is None:
        warnings.append(
            "pixel size unknown: lengths in px, models shown it at a scale guessed from its columns"
        )
    grey = to_view(values).grey
    models: dict[str, dict[str, str | None]] = {}
    atoms, chances, fitted = _judged(
        values, scale, grey, atoms, open_segmenter(segmenter, models, warnings), fit_columns, warnings
    )
    bright = atoms = dataclasses.replace(atoms, pixel_size=calibration.pixel_size)
    if dark:
        atoms = as_measured(atoms, float(values.max() + values.min()))
    graph, bonds, cell = connect(atoms, calibration.unit, warnings)
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
        file=None if image.file == ARRAY else image.file.name,
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
        residual=None if fitted is None else fitted.residual,
        profile=None if fitted is None else fitted.probe,
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


def _judged(
    values: Values,
    scale: tuple[float, float],
    grey: npt.NDArray[np.uint8],
    atoms: AtomTable,
    network: Segmenter | None,
    fit_columns: bool,
    warnings: list[str],
) -> tuple[AtomTable, npt.NDArray[np.float32] | None, FittedColumns | None]:
    """Return the columns that are atoms, the segmenter's probabilities, and the fit where there is one."""
    fitted = explaining_columns(values, scale, atoms, warnings) if fit_columns else None
    if fitted is not None:
        atoms = fitted.atoms
    probability = None if network is None else atom_probability(network, grey, scale, warnings)
    if network is None or probability is None:
        return atoms, None, fitted
    chances = probability[pixels_of(atoms)]
    if fitted is not None:  # the image itself has said what is a column
        return atoms, chances, fitted
    inside = chances >= network.threshold
    return judged(atoms, inside, warnings), chances[inside], fitted


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
