"""The second step of `jarvis_leaderboard.py`: a method is asked about the test images, answers are packed."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _leaderboard import Benchmark, read_benchmark, score, write_contribution

from atomvision_hub import __version__
from atomvision_hub._files import write_json
from atomvision_hub.commands.shared import DONE, DONE_WITH_REJECTS
from atomvision_hub.data.progress import Steps
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.structures.record import LATTICES

#: What the first step leaves beside the images.
FACTS, UNRESOLVED, CELLS = "rebuild.json", "unresolved.csv", "cells.csv"
#: Predictions between two saves.
_SAVE_EVERY = 100
Ask = Callable[[str, Path], int | None]


def contribute(given: argparse.Namespace) -> int:
    """Ask a method about the test images and write the contribution."""
    started = time.monotonic()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", given.name):
        raise UsageError(f"--name is {given.name!r}; a contribution is named by letters, digits, _ and -")
    try:
        facts = json.loads((given.out / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{given.out} has no {FACTS}; run rebuild --out {given.out} first") from None
    store = given.store_dir or given.out / "downloads"
    benchmark = read_benchmark(given.benchmark or store / "stem_2d_image_bravais_class.json.zip")
    if benchmark.sha256 != facts["benchmark"]:
        raise UsageError(f"{given.out} was rebuilt from another benchmark; give that one with --benchmark")
    files = {name: path for name in benchmark.test if (path := _image(given.out, benchmark, name))}
    missing = len(benchmark.test) - len(files)
    if missing and not given.guess_missing:
        raise AtomVisionError(
            f"{missing:,} of {len(benchmark.test):,} test ids have no image ({given.out / UNRESOLVED}), and "
            "the leaderboard wants all; --guess-missing answers them with the most frequent class"
        )
    answers = _predict(given, facts, files)
    guess = benchmark.most_frequent()
    unanswered = sum(answers.get(name) is None for name in files)
    predictions = {name: guess if (a := answers.get(name)) is None else a for name in benchmark.test}
    notes = f"images {' '.join(facts['images'])} ({facts['images_found']} of {facts['images_wanted']})"
    notes += f"; answered with the most frequent class: {missing} without image, {unanswered} refused"
    if given.method == "legacy-rule":
        notes += "; the labels' own rule about the cell, no image was looked at"
    commit = facts["machine"]["git_commit"] or f"v{__version__}"
    metadata = {
        "model_name": given.name,
        "project_url": given.project_url,
        "date_submitted": datetime.now(UTC).strftime("%m-%d-%Y"),
        "author_email": given.email,
        "database_version": "12-12-2022",
        "team_name": given.team,
        "time_taken_seconds": round(time.monotonic() - started, 1),
        "language": "python",
        "os": platform.system().lower(),
        "software_used": f"atomvision-hub {__version__}",
        "hardware_used": facts["machine"]["cpu"],
        "notes": notes,
    }
    folder = given.out / "contributions" / given.name
    path = write_contribution(folder, predictions, metadata, _run_script(given, facts, commit))
    print(f"{path}: accuracy {score(path, benchmark):.4f} of {len(predictions):,} test ids")
    print(f"copy {folder} to jarvis_leaderboard/contributions/ of a fork, run its rebuild.py, ask to pull")
    if missing or unanswered:
        print(f"note: {missing:,} ids without image, {unanswered:,} refused: guessed", file=sys.stderr)
    if given.method and Path(given.method).is_dir():
        print(
            "note: run.sh names a folder of this machine; push the model and give its Hub id", file=sys.stderr
        )
    return DONE_WITH_REJECTS if missing else DONE


def _image(out: Path, benchmark: Benchmark, identifier: str) -> Path | None:
    folder = out / "test" / str(benchmark.test[identifier])
    places = (folder / f"{Path(identifier).stem}.png", folder / identifier)
    return next((place for place in places if place.is_file()), None)


def _predict(
    given: argparse.Namespace, facts: dict[str, Any], files: dict[str, Path]
) -> dict[str, int | None]:
    """Return the class of each image, `None` where the method refuses; saved as it goes."""
    ask, identity = _method(given, facts)
    key = hashlib.sha256(json.dumps([identity, facts["images"], __version__]).encode()).hexdigest()[:12]
    saved = given.out / "predictions" / f"{key}.json"
    known: dict[str, int | None] = {}
    with suppress(FileNotFoundError):
        known = json.loads(saved.read_text(encoding="utf-8"))
    todo = [name for name in files if name not in known]
    with Steps("predictions", len(todo), "images") as step:
        try:
            for number, name in enumerate(todo):
                known[name] = ask(name, files[name])
                step()
                if number % _SAVE_EVERY == _SAVE_EVERY - 1:
                    write_json(saved, known)
        finally:
            write_json(saved, known)
    return known


def _method(given: argparse.Namespace, facts: dict[str, Any]) -> tuple[Ask, list[Any]]:
    """Return the function that answers, and what its answers depend on."""
    size = facts["pixel_size"]
    if given.method == "legacy-rule":
        cells = dict(_read_cells(given.out / CELLS))
        if not cells:
            raise UsageError("legacy-rule needs crystals; rebuild with --images rendered")
        return lambda name, path: cells[name], ["legacy-rule"]
    if given.method == "fit":
        from atomvision_hub.analysis.lattice_fit import fit_lattice
        from atomvision_hub.inference.files import read_image

        def fit(name: str, path: Path) -> int | None:
            import numpy as np

            found = fit_lattice(np.asarray(read_image(path).convert("L"), dtype=float), size).lattice
            return None if found is None else LATTICES.index(found)

        return fit, ["fit"]
    from atomvision_hub.inference import predict
    from atomvision_hub.inference.identity import model_checksum
    from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER

    def classify(name: str, path: Path) -> int | None:
        try:
            label = predict(path, given.method, pixel_size=size).label
        except UsageError:
            raise
        except AtomVisionError as problem:
            if "cannot be loaded" in str(problem) or "holds no model" in str(problem):
                raise
            return None
        return _class_index(label)

    return classify, [given.method, model_checksum(given.method, DEFAULT_CLASSIFIER)]


def _class_index(label: str) -> int:
    """Return the class of the benchmark that a model's answer means: a lattice, or its number."""
    if label in LATTICES:
        return LATTICES.index(label)
    if label.isdecimal() and int(label) < len(LATTICES):
        return int(label)
    raise UsageError(f"the model answers {label!r}, which is none of {', '.join(LATTICES)}")


def _read_cells(path: Path) -> Iterator[tuple[str, int]]:
    if path.is_file():
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
            yield row["id"], int(row["legacy"])


def _run_script(given: argparse.Namespace, facts: dict[str, Any], commit: str) -> str:
    script = "python benchmarks/jarvis_leaderboard.py"
    made = shlex.join(["rebuild", "--out", "leaderboard", "--images", *facts["images"]])
    words = ["contribute", "--out", "leaderboard", "--name", given.name, "--team", given.team]
    words += ["--project-url", given.project_url, *(["--method", given.method] if given.method else [])]
    sent = shlex.join([*words, *(["--guess-missing"] if given.guess_missing else [])])
    return f"""#!/bin/bash
# Makes the images of the benchmark anew and predicts them; needs a network for the databases.
set -euo pipefail
git clone {shlex.quote(given.project_url)} atomvision-hub
cd atomvision-hub
git checkout {commit}
pip install .
{script} {made} || [ $? = 3 ]
{script} {sent} || [ $? = 3 ]
"""
