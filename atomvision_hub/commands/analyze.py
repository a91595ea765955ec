"""`atomvision analyze`: images of any instrument -> atoms, graph and lattice class, as JSON, CSV, picture."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from atomvision_hub.commands.shared import JsonLinesOption, PixelSizeOption, emit, exit_code, note
from atomvision_hub.errors import AtomVisionError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from atomvision_hub.inference import Analysis
    from atomvision_hub.microscopy import MicroscopeImage

#: Where results go by default.
_OUT = Path("analysis")
_SUMMARY = "summary.csv"
#: Files of a result that are always written.
_SUFFIXES = (".json", ".csv", ".png", ".spectrum.csv", ".spectrum.png")
_MOST_FILES = 100_000
_ALL = "all"


class Contrast(StrEnum):
    """How columns of atoms look."""

    auto = "auto"
    bright = "bright"
    dark = "dark"


@dataclass(frozen=True, slots=True)
class _Settings:
    pixel_size: float | None
    index: int | None
    every: bool
    segmenter: str | None
    classifier: str | None
    contrast: Literal["auto", "bright", "dark"]
    threshold: float
    calibration: float
    crop: tuple[int, int, int, int] | None
    fit_columns: bool
    html: bool
    cif: bool
    elements: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Job:
    """A file, and its place among the results."""

    file: Path
    relative: Path


def analyze(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image or instrument files (PNG, TIFF, DM4, EMD, SXM, ...), or folders."),
    ],
    pixel_size: PixelSizeOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the results; default analysis/, with --json none."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "--frame",
            help="Which image of a file, from 0, or 'all' (detectors, channels, frames of a stack); default "
            "the first that is no diffraction pattern.",
        ),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id; 'none': all peaks above the noise count. Default: the shipped one."
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of a classifier to ask; 'none': no class. Default: a fit of the lattice."
        ),
    ] = None,
    contrast: Annotated[
        Contrast, typer.Option(help="Columns are bright or dark; auto: dark in bright-field detectors.")
    ] = Contrast.auto,
    threshold: Annotated[
        float,
        typer.Option(help="Smallest height of a column, relative to the highest."),
    ] = 0.05,
    calibration: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Relative standard error of the pixel size.")
    ] = 0.05,
    crop: Annotated[
        str | None, typer.Option(help="Only a part: ROW,COLUMN,HEIGHT,WIDTH in pixels; one grain of many.")
    ] = None,
    fit_columns: Annotated[
        bool,
        typer.Option(
            "--fit-columns",
            help="Columns that explain the image down to its noise instead of peaks: those nearer than their "
            "width are told apart. Takes seconds, a minute for 1024 x 1024 px.",
        ),
    ] = False,
    html: Annotated[
        bool | None,
        typer.Option(help="Report as one HTML file; by default for one image, not for folders."),
    ] = None,
    cif: Annotated[
        bool, typer.Option("--cif", help="CIF of the two-dimensional motif, where there is one.")
    ] = False,
    elements: Annotated[
        str | None, typer.Option(help="For the CIF: elements of its columns, brightest first, as in Sr,Ti.")
    ] = None,
    as_json: JsonLinesOption = False,
    resume: Annotated[
        bool, typer.Option(help="Leave out images whose results are there, made in the same way.")
    ] = True,
) -> None:
    """Find atoms in images, connect them, measure their lattice; works offline.

    For each image NAME.json (all results), NAME.csv (atoms), NAME.png (picture), NAME.spectrum.csv and
    NAME.spectrum.png (power spectrum with indexed peaks) are written, NAME being the whole file name, and
    summary.csv for several images; NAME.html is a report for people, NAME.cif the motif. Exit code 3: some
    images were refused, the summary says why.

    Example: atomvision analyze scan.dm4 --out analysis
    """
    number, every = _index(index)
    if elements is not None and not cif:
        raise UsageError("--elements names the columns of the CIF; add --cif")
    jobs, is_folder = _jobs(images)
    several = is_folder or len(jobs) > 1 or every
    settings = _Settings(
        pixel_size,
        number,
        every,
        segmenter,
        classifier,
        contrast=contrast.value,
        threshold=threshold,
        calibration=calibration,
        crop=_crop(crop),
        fit_columns=fit_columns,
        html=not several if html is None else html,
        cif=cif,
        elements=None if elements is None else tuple(word.strip() for word in elements.split(",")),
    )
    folder = out if out is not None or as_json else _OUT
    run = _Run(settings, folder, resume=resume, as_json=as_json, several=is_folder or len(jobs) > 1)
    try:
        run.all(jobs)
    finally:
        # Also after Ctrl-C: what is finished can be found.
        run.write_summary()
    raise typer.Exit(exit_code(run.answered, run.refused))


def _index(text: str | None) -> tuple[int | None, bool]:
    if text is None or text == _ALL:
        return None, text == _ALL
    if not text.isdecimal():
        raise UsageError(f"--index is {text!r}; give a number from 0, or all")
    return int(text), False


def _crop(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        row, column, height, width = (int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--crop is {text!r}; write ROW,COLUMN,HEIGHT,WIDTH in pixels") from None
    if min(row, column) < 0 or min(height, width) < 1:
        raise UsageError(f"--crop {text} is no part of an image; rows and columns count from 0")
    return row, column, height, width


def _cropped(image: MicroscopeImage, crop: tuple[int, int, int, int] | None) -> MicroscopeImage:
    """Return the part of an image that was asked for."""
    if crop is None:
        return image
    row, column, height, width = crop
    rows, columns = image.data.shape
    if row + height > rows or column + width > columns:
        raise AtomVisionError(
            f"{image.file.name}: --crop {row},{column},{height},{width} is outside its {rows} x {columns} px"
        )
    told = f"only {width} x {height} px from column {column}, row {row}; positions count from there"
    data = image.data[row : row + height, column : column + width]
    return replace(image, data=data, notes=(*image.notes, told))


def _jobs(paths: Sequence[Path]) -> tuple[list[_Job], bool]:
    """Return the files and their places among the results, and whether folders were searched."""
    from atomvision_hub.microscopy import FORMATS, companions

    searched = False
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give image files or folders")
        if not path.is_dir():
            found.setdefault(path, path.parent)
            continue
        searched = True
        # Hidden files are what programs keep for themselves, such as unfinished downloads.
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in FORMATS
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        # An EMI file brings its SER files along.
        led = {companion for file in inside for companion in companions(file)}
        for file in inside:
            if file not in led:
                found.setdefault(file, path)
    if not found:
        told = " ".join(sorted(FORMATS))
        raise UsageError(f"no image in {', '.join(map(str, paths))}; known are {told}")
    if len(found) > _MOST_FILES:
        raise UsageError(f"more than {_MOST_FILES:,} files; analyse them in parts")
    relative = {file: file.relative_to(root) for file, root in found.items()}
    if len({os.path.normcase(place) for place in relative.values()}) < len(relative):
        # Equal names of different folders: told apart by the folders.
        common = Path(os.path.commonpath([file.resolve().parent for file in found]))
        relative = {file: file.resolve().relative_to(common) for file in found}
    return [_Job(file, place) for file, place in relative.items()], searched


class _Run:
    """Images one after the other; a bad one does not stop the others."""

    def __init__(
        self, settings: _Settings, folder: Path | None, *, resume: bool, as_json: bool, several: bool
    ) -> None:
        self.settings, self.folder, self.resume, self.as_json = settings, folder, resume, as_json
        self.several = several
        self.rows: list[dict[str, Any]] = []
        self.answered = self.refused = 0

    def all(self, jobs: Sequence[_Job]) -> None:
        """Analyse all files."""
        if not self.several:
            self._file(jobs[0])
            return
        from atomvision_hub.data.progress import Steps

        with Steps("analyze", len(jobs), "files") as step:
            for job in jobs:
                self._file(job)
                step()

    def _file(self, job: _Job) -> None:
        from atomvision_hub.microscopy import read_images

        try:
            found = read_images(job.file)
        except MissingExtraError:
            if not self.several:
                raise
            self._refuse(job, None, f"{job.file.name} needs pip install 'atomvision-hub[microscopy]'")
            return
        except AtomVisionError as problem:
            self._refuse(job, None, str(problem))
            return
        for image in self._chosen(job, found):
            name = job.relative.name + (f".{image.index}" if self.settings.every and len(found) > 1 else "")
            self._image(job, image, job.relative.with_name(name), len(found))

    def _chosen(self, job: _Job, found: list[MicroscopeImage]) -> Iterator[MicroscopeImage]:
        from atomvision_hub.inference.inputs import first_usable

        if self.settings.every:
            yield from found
        elif self.settings.index is None:
            yield first_usable(found)
        elif self.settings.index < len(found):
            yield found[self.settings.index]
        else:
            self._refuse(
                job, None, f"{job.file.name} has {len(found)} image(s); --index {self.settings.index} is none"
            )

    def _image(self, job: _Job, image: MicroscopeImage, place: Path, of: int) -> None:
        from atomvision_hub.inference import analyze as run

        fingerprint = self._fingerprint(image)
        if (done := self._finished(place, fingerprint)) is not None:
            self._answer(job, done, place)
            return
        settings = self.settings
        try:
            image = _cropped(image, settings.crop)
            result = run(
                image,
                pixel_size=settings.pixel_size,
                segmenter=settings.segmenter,
                classifier=settings.classifier,
                contrast=settings.contrast,
                threshold=settings.threshold,
                calibration_error=settings.calibration,
                fit_columns=settings.fit_columns,
            )
        except UsageError:
            raise  # the same for all images
        except AtomVisionError as problem:
            self._refuse(job, image, str(problem))
            return
        content = {**result.to_dict(), "path": str(job.file), "settings": fingerprint}
        if of > 1 and not settings.every and settings.index is None:
            more = f"image {image.index} ({image.name}) of {of} in the file; --index all takes all"
            content["warnings"] = [*content["warnings"], more]
        self._write(place, image, result, content)
        self._answer(job, content, place)

    def _fingerprint(self, image: MicroscopeImage) -> dict[str, Any]:
        """Return what a result depends on beside the image."""
        from atomvision_hub import __version__
        from atomvision_hub.inference.identity import model_checksum
        from atomvision_hub.models.pretrained import DEFAULT_SEGMENTER

        settings = self.settings
        return {
            "pixel_size": settings.pixel_size,
            "segmenter": settings.segmenter,
            "segmenter_sha256": model_checksum(settings.segmenter, DEFAULT_SEGMENTER),
            "classifier": settings.classifier,
            "classifier_sha256": settings.classifier and model_checksum(settings.classifier, ""),
            "contrast": settings.contrast,
            "threshold": settings.threshold,
            "calibration": settings.calibration,
            "fit_columns": settings.fit_columns,
            "crop": None if settings.crop is None else list(settings.crop),
            "version": __version__,
            "sha256": image.sha256,
            "index": image.index,
        }

    def _finished(self, place: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        """Return the results that are there, when they were made in the same way from the same file."""
        if not self.resume or self.folder is None:
            return None
        if self.settings.cif:
            return None  # whether there is a motif is known when it was sought
        suffixes = (*_SUFFIXES, ".html") if self.settings.html else _SUFFIXES
        paths = [_result(self.folder, place, suffix) for suffix in suffixes]
        if not all(path.is_file() for path in paths):
            return None
        try:
            content: dict[str, Any] = json.loads(paths[0].read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return None
        return content if isinstance(content, dict) and content.get("settings") == fingerprint else None

    def _write(self, place: Path, image: MicroscopeImage, result: Analysis, content: dict[str, Any]) -> None:
        if self.folder is None:
            return
        from atomvision_hub._files import write_bytes, write_json, write_text
        from atomvision_hub.reports import analysis_report
        from atomvision_hub.reports.analysis import analysis_pictures

        pictures = analysis_pictures(result, image.data)
        write_text(_result(self.folder, place, ".csv"), result.to_csv())
        write_text(_result(self.folder, place, ".spectrum.csv"), result.peaks_csv())
        for suffix, picture in zip((".png", ".spectrum.png"), pictures, strict=True):
            write_bytes(_result(self.folder, place, suffix), picture.png)
        if self.settings.html:
            write_text(_result(self.folder, place, ".html"), analysis_report(result, pictures=pictures))
        if self.settings.cif:
            self._write_cif(place, result, content)
        # Last: with it the results of an image are complete.
        write_json(_result(self.folder, place, ".json"), content)

    def _write_cif(self, place: Path, result: Analysis, content: dict[str, Any]) -> None:
        """Write the motif; why there is no CIF becomes a note."""
        from atomvision_hub._files import write_text

        assert self.folder is not None
        path = _result(self.folder, place, ".cif")
        reason = None
        if result.motif is None:
            reason = "no CIF: no motif was found" if result.parameters else "no CIF: no lattice was found"
        elif result.calibration.pixel_size is None:
            reason = "no CIF: its lengths are in Å and the image is not calibrated; give --pixel-size"
        else:
            write_text(path, result.motif.to_cif(place.name, self.settings.elements))
        if reason is not None:
            # Not one of an earlier run, made in another way.
            path.unlink(missing_ok=True)
            content["warnings"] = [*content["warnings"], reason]

    def _answer(self, job: _Job, content: dict[str, Any], place: Path) -> None:
        self.answered += 1
        self.rows.append(_row(job.file, content, place))
        if self.as_json:
            emit(content)
            return
        typer.echo(f"{job.file}: {_line(content)}")
        if not self.several:
            for warning in content["warnings"]:
                note(f"  note: {warning}")
            assert self.folder is not None
            names = [*_SUFFIXES[1:], *([".html"] if self.settings.html else [])]
            if _result(self.folder, place, ".cif").is_file():
                names.append(".cif")
            typer.echo(f"  {_result(self.folder, place, '.json')} {' '.join(names)}")

    def _refuse(self, job: _Job, image: MicroscopeImage | None, reason: str) -> None:
        self.refused += 1
        note(f"error: {reason}")
        self.rows.append(
            {
                "file": str(job.file),
                "index": "" if image is None else image.index,
                "status": "refused",
                "reason": reason,
            }
        )

    def write_summary(self) -> None:
        """Write one row an image, for several images."""
        if self.folder is None or not self.rows or not (self.several or self.settings.every):
            return
        from atomvision_hub._files import write_text

        stream = io.StringIO()
        writer = csv.DictWriter(stream, _COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / _SUMMARY, stream.getvalue())
        if not self.as_json:
            typer.echo(
                f"{self.answered} image(s) answered, {self.refused} refused; see {self.folder / _SUMMARY}"
            )


_COLUMNS = (
    "file",
    "index",
    "status",
    "reason",
    "result",
    "pixel_size_row",
    "pixel_size_column",
    "atoms",
    "nearest_distance",
    "unit",
    "order",
    "fit_lattice",
    "fit_a",
    "fit_a_error",
    "fit_b",
    "fit_b_error",
    "fit_gamma",
    "fit_gamma_error",
    "no_lattice",
    "cell_a",
    "cell_b",
    "cell_gamma",
    "cell_lattice",
    "lattice",
    "probability",
    "warnings",
)


_FIT = ("lattice", "a", "a_error", "b", "b_error", "gamma", "gamma_error")


def _result(folder: Path, place: Path, suffix: str) -> Path:
    """Return where a result goes: the whole name of the image stays, so that a.png and a.tif are two."""
    return folder / place.with_name(place.name + suffix)


def _row(file: Path, content: dict[str, Any], place: Path) -> dict[str, Any]:
    size = content["calibration"]["pixel_size"] or ["", ""]
    lattice, cell = content["lattice"] or {}, content["cell"] or {}
    fit = content["lattice_parameters"] or {}
    return {
        "file": str(file),
        "index": content["image"]["index"],
        "status": "answered",
        "result": place.with_name(place.name + ".json").as_posix(),
        "pixel_size_row": size[0],
        "pixel_size_column": size[1],
        "atoms": content["atoms"]["count"],
        "nearest_distance": content["graph"]["nearest_distance"],
        "unit": content["graph"]["unit"],
        "order": content["graph"]["order"],
        **{f"fit_{name}": fit.get(name, "") for name in _FIT},
        "no_lattice": content["no_lattice"] or "",
        **{f"cell_{name}": cell.get(name, "") for name in ("a", "b", "gamma", "lattice")},
        "lattice": lattice.get("label", ""),
        "probability": lattice.get("probability", ""),
        "warnings": "; ".join(content["warnings"]),
    }


def _line(content: dict[str, Any]) -> str:
    graph, fit, lattice = content["graph"], content["lattice_parameters"], content["lattice"]
    words = [f"{content['atoms']['count']:,} columns of atoms"]
    if graph["nearest_distance"] is not None:
        words.append(f"nearest {graph['nearest_distance']:.3g} {graph['unit']}")
    if fit:
        edges = (f"{name} {fit[name]:.4g} ± {fit[f'{name}_error']:.2g} {fit['unit']}" for name in "ab")
        words += [*edges, f"gamma {fit['gamma']:.1f} ± {fit['gamma_error']:.1f}°"]
    words.append(
        f"{lattice['model']}: {lattice['label']} {lattice['probability']:.2f}"
        if lattice
        else "no class of lattice"
    )
    if not content["calibration"]["calibrated"]:
        words.append("not calibrated")
    return ", ".join(words)
