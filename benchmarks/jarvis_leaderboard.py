"""A contribution to the JARVIS leaderboard: its 9,150 images of 2D crystals made anew, and predictions.

    python benchmarks/jarvis_leaderboard.py rebuild --out build/leaderboard
        [--images rendered|published|PATH...] [--store-dir DIR] [--benchmark FILE]
    python benchmarks/jarvis_leaderboard.py contribute --out build/leaderboard --name NAME --team TEAM
        --project-url URL [--method MODEL|fit|legacy-rule] [--email ADDRESS] [--guess-missing]

`rebuild` needs a network, or the files in --store-dir: the benchmark (ids, classes, split) and the three
databases as jarvis-tools names them. It writes OUT/train/<class>/ and OUT/test/<class>/ in the published
split, as the paper's scripts and ours read it (train_classifier.py --train-dir OUT/train --test-dir
OUT/test); unresolved.csv lists the ids without an image and why, rebuild.json what everything was made from.
Images are rendered by `simulate_stem` with the profile of jarvis-tools (PNG, known pixel size) or taken from
the published JPEG files.

`contribute` asks a classifier (folder or Hub id; without --method the one that ships), the fit of the
lattice, or the rule about the crystal's cell that made the labels (no image method: a check of the rebuild).

Both go on where they were interrupted. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but some ids have
no image.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _leaderboard import IMAGE_ARCHIVES, Archives, database_of, fetched, published_benchmark, read_benchmark
from _leaderboard_methods import CELLS, FACTS, UNRESOLVED, contribute
from _machine import machine_facts

from atomvision_hub import __version__
from atomvision_hub._files import write_bytes, write_json, write_text
from atomvision_hub.commands.shared import DONE_WITH_REJECTS, FAILED, explain
from atomvision_hub.data.progress import Steps
from atomvision_hub.errors import AtomVisionError, CrystalError, UsageError

SIDE, PIXEL_SIZE = 256, 0.1
_SETTINGS = "settings.json"


def rebuild(given: argparse.Namespace) -> int:
    """Make all images that can be made, and list the others."""
    store = given.store_dir or given.out / "downloads"
    benchmark = (
        read_benchmark(given.benchmark)
        if given.benchmark
        else published_benchmark(store / "stem_2d_image_bravais_class.json.zip")
    )
    rendered = given.images == ["rendered"]
    settings = {"benchmark": benchmark.sha256, "images": given.images, "version": __version__}
    _begin(given.out, settings)
    archives = None if rendered else Archives(_archives(given.images, store))
    cells: dict[str, int] = {}
    unresolved: list[tuple[str, str, int, str]] = []
    sources: dict[str, Any] = {}
    wanted = list(benchmark.rows())
    with Steps("images", len(wanted), "images") as step:
        for database in ("dft_2d", "c2db", "twod_matpd"):
            rows = [row for row in wanted if database_of(row[1]) == database]
            crystals = _Database(database, store) if rendered and rows else None
            for split, identifier, label in rows:
                try:
                    folder = given.out / split / str(label)
                    if crystals is not None:
                        cells[identifier] = crystals.legacy(identifier)
                        _once(folder / f"{Path(identifier).stem}.png", crystals.image, identifier)
                    elif archives is not None:
                        _once(folder / identifier, archives.read, identifier)
                except CrystalError as problem:
                    unresolved.append((split, identifier, label, str(problem)))
                step()
            if crystals is not None:
                sources[database] = crystals.facts | {"ids": len(rows)}
    same = [cells[name] == label for _, name, label in wanted if name in cells]
    _write_csv(given.out / UNRESOLVED, ("split", "id", "class", "reason"), unresolved)
    _write_csv(given.out / CELLS, ("id", "legacy"), sorted(cells.items()))
    facts = {
        **settings,
        "published_benchmark": given.benchmark is None,
        "images_found": len(wanted) - len(unresolved),
        "images_wanted": len(wanted),
        "pixel_size": PIXEL_SIZE if rendered else None,
        "sources": sources,
        "legacy_rule_agrees": {"n": len(same), "same": sum(same)},
        "machine": machine_facts(),
    }
    write_json(given.out / FACTS, facts)
    print(f"{given.out}: {facts['images_found']:,} of {len(wanted):,} images")
    if same:
        print(
            f"the rule about the cell gives the published class for {sum(same):,} of {len(same):,} crystals"
        )
    for reason, count in Counter(reason for *_, reason in unresolved).most_common(3):
        print(f"without image: {count:,}, {reason} (see {given.out / UNRESOLVED})", file=sys.stderr)
    return DONE_WITH_REJECTS if unresolved else 0


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that was begun in another way."""
    path = out / _SETTINGS
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise UsageError(f"{out} was begun with other settings or another version; give another --out")
    write_json(path, settings)


def _archives(images: list[str], store: Path) -> list[Path]:
    if images == ["published"]:
        return [fetched(store / name, url) for name, url in IMAGE_ARCHIVES.items()]
    return [Path(name) for name in images]


def _once(path: Path, make: Callable[[str], bytes], identifier: str) -> None:
    if not path.is_file():
        write_bytes(path, make(identifier))


class _Database:
    """Crystals of one database of jarvis-tools, by the ids of the benchmark."""

    def __init__(self, name: str, store: Path) -> None:
        from atomvision_hub.structures.jarvis import JarvisSource

        store.mkdir(parents=True, exist_ok=True)
        self._source = JarvisSource(name, store)
        self._ids = set(self._source.ids)
        info = self._source.info()
        self.facts = {
            "citation": info.citation,
            "crystals": len(self._ids),
            "licence": info.licence,
            "sha256": info.version_or_sha256,
            "url": info.url,
        }

    def _atoms(self, identifier: str) -> Any:
        name = Path(identifier).stem
        if name not in self._ids:
            raise CrystalError(f"no such crystal in {self._source.name}", step="id")
        return self._source.atoms(name)

    def legacy(self, identifier: str) -> int:
        """Return the class by the rule about the cell."""
        from atomvision_hub.structures.legacy import legacy_class, source_parameters

        return legacy_class(*source_parameters(self._atoms(identifier)))

    def image(self, identifier: str) -> bytes:
        """Return the image of a crystal as PNG."""
        from PIL import Image

        from atomvision_hub.simulation import simulate_stem, to_grey
        from atomvision_hub.structures import flat_layer

        layer = flat_layer(self._atoms(identifier))
        frame = simulate_stem(layer, shape=(SIDE, SIDE), pixel_size=PIXEL_SIZE, psf="jarvis")
        stream = io.BytesIO()
        Image.fromarray(to_grey(frame.image, bits=8)[0]).save(stream, format="png", compress_level=1)
        return stream.getvalue()


def _write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two steps; an error is one line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    steps = parser.add_subparsers(required=True)
    for name, step in (("rebuild", rebuild), ("contribute", contribute)):
        one = steps.add_parser(name, help=step.__doc__)
        one.set_defaults(step=step)
        one.add_argument("--out", type=Path, required=True, help="folder of the rebuilt benchmark")
        one.add_argument("--store-dir", type=Path, help="folder of the downloads; default OUT/downloads")
        one.add_argument("--benchmark", type=Path, help="another benchmark file than the published one")
    made, sent = steps.choices["rebuild"], steps.choices["contribute"]
    made.add_argument(
        "--images", nargs="+", default=["rendered"], help="rendered, published, or zips and folders"
    )
    sent.add_argument("--method", help="model, fit or legacy-rule; default the shipped classifier")
    sent.add_argument("--name", required=True, help="folder of the contribution: letters, digits, _ and -")
    sent.add_argument("--team", required=True)
    sent.add_argument("--project-url", required=True)
    sent.add_argument("--email", default="")
    sent.add_argument(
        "--guess-missing", action="store_true", help="answer ids without image by the frequent class"
    )
    given = parser.parse_args(arguments)
    try:
        code: int = given.step(given)
    except (AtomVisionError, OSError, KeyboardInterrupt) as error:
        told = explain(error)
        if told is None:
            raise
        print(told[0], file=sys.stderr)
        return told[1] or FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
