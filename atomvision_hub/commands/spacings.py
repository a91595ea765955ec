"""`atomvision spacings`: lattice spacings of an image, and the planes of a crystal that they fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atomvision_hub.commands import completion
from atomvision_hub.commands.shared import JsonOption, PixelSizeOption, emit, note
from atomvision_hub.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from ase import Atoms

    from atomvision_hub.analysis import Matches, Spacings


def spacings(
    image: Annotated[Path, typer.Argument(help="Image or instrument file: PNG, TIFF, DM4, EMD, SXM, ...")],
    pixel_size: PixelSizeOption = None,
    structure: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.phases,
            help="Crystal to compare with: a file that ASE reads, an id of the reference crystals (MoS2), "
            "or one of Au, Fe3O4, Pt, Rh, Si, SnS, SrTiO3.",
        ),
    ] = None,
    calibration: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Relative standard uncertainty of the pixel size.")
    ] = 0.02,
    index: Annotated[int, typer.Option(min=0, help="Which image of the file, from 0.")] = 0,
    crop: Annotated[
        str | None, typer.Option(help="Only a part: ROW,COLUMN,HEIGHT,WIDTH in pixels; one particle of many.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--out", "-o", "--picture", help="PNG of image, spectrum and table to write."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure lattice spacings in an image and name the planes of a crystal that they fit.

    Pixel size and, where it is one of the crystals named below, the formula are also taken from the YAML
    beside the image (atomvision metadata template).

    Example: atomvision spacings scan.dm4 --structure Fe3O4 --out spacings.png
    """
    from atomvision_hub.analysis import PHASES, lattice_spacings, match_spacings
    from atomvision_hub.microscopy import metadata, read_images

    images = read_images(image)
    if index >= len(images):
        raise UsageError(f"{image} has {len(images)} image(s); --index counts from 0")
    chosen = images[index]
    if chosen.kind == "diffraction":
        raise UsageError(f"{image} holds a diffraction pattern; lattice spacings are measured in images")
    pixels = _part(chosen.data, crop)
    known = metadata.complete(metadata.extract(chosen), metadata.find_sidecars(image))
    size, source = known.acquisition.pixel_size, known.sources.get("acquisition.pixel_size", "")
    if pixel_size is not None:
        size, source = (pixel_size, pixel_size), "--pixel-size"
    if structure is None and known.sample.formula in PHASES:
        structure = known.sample.formula
    crystal = _crystal(structure) if structure else None
    found = lattice_spacings(pixels, size, calibration_uncertainty=calibration)
    matches = match_spacings(found, crystal) if crystal is not None and size is not None else None
    if crystal is not None and size is None:
        note(f"note: {image} has no pixel size; give --pixel-size to compare with a crystal")
    if picture is not None:
        from atomvision_hub._files import write_bytes
        from atomvision_hub.analysis.picture import spacings_picture

        title = f"{image.name}" + (f" and {structure}" if structure else "")
        write_bytes(picture, spacings_picture(pixels, found, matches, title))
    if as_json:
        told = {"image": str(image), "index": index, "structure": structure, "pixel_size_source": source}
        content = {**told, **found.to_dict(), **(matches.to_dict() if matches else {})}
        emit(content)
        return
    typer.echo(f"image {index + 1} of {len(images)} ({chosen.name}), {_size_text(size, source)}")
    for line in _report(found, matches):
        typer.echo(line)


def _size_text(size: tuple[float, float] | None, source: str) -> str:
    if size is None:
        return "not calibrated: lengths in pixels"
    height, width = (f"{length:.5g}" for length in size)
    return f"{height if height == width else f'{height} x {width}'} Å/px ({source})"


def _part(pixels: npt.NDArray[Any], crop: str | None) -> npt.NDArray[Any]:
    """Return the part of an image that was asked for."""
    if crop is None:
        return pixels
    try:
        row, column, height, width = (int(word) for word in crop.split(","))
    except ValueError:
        raise UsageError(f"--crop is {crop!r}; write ROW,COLUMN,HEIGHT,WIDTH in pixels") from None
    if (
        min(row, column) < 0
        or min(height, width) < 1
        or row + height > pixels.shape[0]
        or column + width > pixels.shape[1]
    ):
        rows, columns = pixels.shape
        raise UsageError(f"--crop {crop} lies outside the image of {rows} x {columns} pixels")
    return pixels[row : row + height, column : column + width]


def _crystal(name: str) -> Atoms:
    """Return a crystal by file, well-known formula or reference id; a layer repeats in x and y only."""
    from atomvision_hub.analysis import PHASES, known_phase
    from atomvision_hub.errors import CrystalError
    from atomvision_hub.structures import flat_layer, load_structures

    known = known_phase(name)
    if known is not None:
        return known
    structures = load_structures(name if Path(name).exists() else "reference")
    identifier = next(iter(structures), "") if Path(name).exists() else name
    if identifier not in structures:
        known_names = ", ".join(PHASES)
        raise UsageError(f"no crystal {name!r}: no file, no reference crystal, and not one of {known_names}")
    atoms = structures[identifier]
    try:
        return flat_layer(atoms)
    except CrystalError:
        return atoms


def _report(found: Spacings, matches: Matches | None) -> list[str]:
    """Return the result as lines."""
    from atomvision_hub.analysis.picture import hkl_text

    if not found.peaks:
        return ["no lattice planes found"]
    unit, planes = found.unit, "   planes that fit" if matches else ""
    lines = [f"  d ({unit})  ± noise  ± calibration   angle (°)   intensity{planes}"]
    for number, peak in enumerate(found.peaks):
        fits = matches.facets[number][:3] if matches else ()
        planes = ", ".join(f"{{{hkl_text(fit.hkl)}}} {fit.d:.3f} ({fit.deviation:+.1%})" for fit in fits)
        lines.append(
            f"{peak.d:8.4f}  {peak.uncertainty:7.4f}  {peak.calibration_uncertainty:13.4f}  "
            f"{peak.angle:6.2f} ± {peak.angle_uncertainty:.2f}  {peak.intensity:9.3g}   {planes}".rstrip()
        )
    for zone in matches.zones if matches else ():
        planes = ", ".join(hkl_text(indices) if indices else "-" for indices in zone.indices)
        lines.append(
            f"seen along [{hkl_text(zone.axis)}], score {zone.score:.2f}: {planes}; explains "
            f"{sum(indices is not None for indices in zone.indices)} of {len(zone.indices)}, "
            f"measured/crystal {zone.scale:.4f}, residual {zone.residual:.1%}"
        )
    if matches and not matches.zones:
        lines.append("no direction of view of this crystal explains the spacings and their angles together")
    return lines
