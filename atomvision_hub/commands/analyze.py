"""`atomvision analyze`: images of any instrument -> atoms, graph and lattice class, as JSON, CSV, picture."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from atomvision_hub.errors import AtomVisionError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from atomvision_hub.inference import Analysis
    from atomvision_hub.microscopy import MicroscopeImage

#: Where results go by default.
_OUT = Path("analysis")
_SUMMARY = "summary.csv"
_MOST_FILES = 100_000
_ALL = "all"
#: Exit codes as of all commands: some inputs were rejected, or all.
_DONE_WITH_REJECTS, _FAILED = 3, 1


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
    pixel_size: Annotated[
        float | None, typer.Option(min=1e-6, help="Å/px; without it what the file or a YAML beside it says.")
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image.")] = False,
    resume: Annotated[
        bool, typer.Option(help="Leave out images whose results are there, made in the same way.")
    ] = True,
) -> None:
    """Find atoms in images, connect them, tell their lattice; works offline.

    For each image NAME.json (all results), NAME.csv (atoms) and NAME.png (picture) are written, NAME being
    the whole file name, and summary.csv for several images. Exit code 3: some images were refused, the
    summary says why.

    Example: atomvision analyze scan.dm4 --out analysis
    """
    number, every = _index(index)
    settings = _Settings(
        pixel_size, number, every, segmenter, classifier, contrast=contrast.value, threshold=threshold
    )
    jobs, is_folder = _jobs(images)
    folder = out if out is not None or as_json else _OUT
    run = _Run(settings, folder, resume=resume, as_json=as_json, several=is_folder or len(jobs) > 1)
    try:
        run.all(jobs)
    finally:
        # Also after Ctrl-C: what is finished can be found.
        run.write_summary()
    if run.refused:
        raise typer.Exit(_DONE_WITH_REJECTS if run.answered else _FAILED)


def _index(text: str | None) -> tuple[int | None, bool]:
    if text is None or text == _ALL:
        return None, text == _ALL
    if not text.isdecimal():
        raise UsageError(f"--index is {text!r}; give a number from 0, or all")
    return int(text), False


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
        from atomvision_hub.inference.analysis import first_usable

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
            result = run(
                image,
                pixel_size=settings.pixel_size,
                segmenter=settings.segmenter,
                classifier=settings.classifier,
                contrast=settings.contrast,
                threshold=settings.threshold,
            )
        except UsageError:
            raise  # the same for all images
        except AtomVisionError as problem:
            self._refuse(job, image, str(problem))
            return
        content = {**result.to_dict(), "path": str(job.file), "settings": fingerprint}
        if of > 1 and not settings.every and settings.index is None:
            note = f"image {image.index} ({image.name}) of {of} in the file; --index all takes all"
            content["warnings"] = [*content["warnings"], note]
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
            "version": __version__,
            "sha256": image.sha256,
            "index": image.index,
        }

    def _finished(self, place: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        """Return the results that are there, when they were made in the same way from the same file."""
        if not self.resume or self.folder is None:
            return None
        paths = [_result(self.folder, place, suffix) for suffix in (".json", ".csv", ".png")]
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
        from atomvision_hub.inference.overlay import overlay

        write_text(_result(self.folder, place, ".csv"), result.to_csv())
        write_bytes(_result(self.folder, place, ".png"), overlay(image.data, result))
        # Last: with it the results of an image are complete.
        write_json(_result(self.folder, place, ".json"), content)

    def _answer(self, job: _Job, content: dict[str, Any], place: Path) -> None:
        self.answered += 1
        self.rows.append(_row(job.file, content, place))
        if self.as_json:
            typer.echo(json.dumps(content, ensure_ascii=False, sort_keys=True))
            return
        typer.echo(f"{job.file}: {_line(content)}")
        if not self.several:
            for warning in content["warnings"]:
                typer.echo(f"  note: {warning}", err=True)
            assert self.folder is not None
            typer.echo(f"  {_result(self.folder, place, '.json')} .csv .png")

    def _refuse(self, job: _Job, image: MicroscopeImage | None, reason: str) -> None:
        self.refused += 1
        typer.echo(f"error: {reason}", err=True)
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
    "cell_a",
    "cell_b",
    "cell_gamma",
    "cell_lattice",
    "lattice",
    "probability",
    "warnings",
)


def _result(folder: Path, place: Path, suffix: str) -> Path:
    """Return where a result goes: the whole name of the image stays, so that a.png and a.tif are two."""
    return folder / place.with_name(place.name + suffix)


def _row(file: Path, content: dict[str, Any], place: Path) -> dict[str, Any]:
    size = content["calibration"]["pixel_size"] or ["", ""]
    lattice, cell = content["lattice"] or {}, content["cell"] or {}
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
        **{f"cell_{name}": cell.get(name, "") for name in ("a", "b", "gamma", "lattice")},
        "lattice": lattice.get("label", ""),
        "probability": lattice.get("probability", ""),
        "warnings": "; ".join(content["warnings"]),
    }


def _line(content: dict[str, Any]) -> str:
    graph, cell, lattice = content["graph"], content["cell"], content["lattice"]
    words = [f"{content['atoms']['count']:,} columns of atoms"]
    if graph["nearest_distance"] is not None:
        words.append(f"nearest {graph['nearest_distance']:.3g} {graph['unit']}")
    if cell:
        words.append(f"{cell['lattice']} cell {cell['a']:.4g} x {cell['b']:.4g} {cell['unit']}")
    words.append(
        f"{lattice['model']}: {lattice['label']} {lattice['probability']:.2f}"
        if lattice
        else "no class of lattice"
    )
    if not content["calibration"]["calibrated"]:
        words.append("not calibrated")
    return ", ".join(words)
