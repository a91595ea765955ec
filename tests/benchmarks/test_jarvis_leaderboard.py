"""The leaderboard's benchmark made anew from small files of the real layout, and a contribution to it."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import json
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from PIL import Image

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.simulation import to_grey
from atomvision_hub.structures import flat_layer

MEMBER = "stem_2d_image_bravais_class.json"
NOWHERE = "http://127.0.0.1:9/file"
#: Database -> file of jarvis-tools, key of its ids, id and reference crystal.
CRYSTALS = {
    "dft_2d": ("d2-12-12-2022.json", "jid", {"JVASP-1": "MoS2", "JVASP-2": "FeTe"}),
    "c2db": ("c2db_atoms.json", "id", {"BN-0123456789ab": "h-BN", "SnS-0123456789ab": "SnS"}),
    "twod_matpd": ("twodmatpd.json", "id", {"2dm-1": "graphene", "2dm-2": "WTe2-1Tp"}),
}
CONTRIBUTE = ("--team", "Us", "--project-url", "https://example.org/it's here", "--name", "ours")


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with no road to the network."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    import _leaderboard
    import jarvis_leaderboard
    from jarvis.db import figshare

    monkeypatch.setattr(_leaderboard, "URL", NOWHERE)
    # The dictionary is filled in place where a test serves files.
    archives = dict.fromkeys(_leaderboard.IMAGE_ARCHIVES, NOWHERE)
    monkeypatch.setattr(jarvis_leaderboard, "IMAGE_ARCHIVES", archives)
    known = {name: [NOWHERE, *told[1:]] for name, told in figshare.get_db_info().items()}
    monkeypatch.setattr(figshare, "get_db_info", lambda: known)
    return jarvis_leaderboard


def entry(key: str, identifier: str, atoms: Atoms) -> dict[str, Any]:
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    told = {
        "lattice_mat": atoms.cell.array.tolist(),
        "coords": atoms.get_scaled_positions().tolist(),
        "elements": atoms.get_chemical_symbols(),
        "abc": lengths.tolist(),
        "angles": angles.tolist(),
        "cartesian": False,
    }
    return {key: identifier, "atoms": told}


def zipped(path: Path, member: str, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, json.dumps(content))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """What jarvis-tools would have downloaded, and the benchmark: two ids of each database, one unknown."""
    reference = load_structures("reference")
    folder = tmp_path / "store"
    for name, key, crystals in CRYSTALS.values():
        rows = [entry(key, identifier, reference[crystal]) for identifier, crystal in crystals.items()]
        zipped(folder / f"{name}.zip", name, rows)
    benchmark = {
        "train": {"JVASP-2.jpg": 1, "SnS-0123456789ab.jpg": 2, "2dm-2.jpg": 2, "2dm-999.jpg": 2},
        "test": {"JVASP-1.jpg": 0, "BN-0123456789ab.jpg": 0, "2dm-1.jpg": 0, "JVASP-404.jpg": 3},
    }
    zipped(folder / f"{MEMBER}.zip", MEMBER, benchmark)
    return folder


def arguments(step: str, store: Path, out: Path, *more: object) -> list[str]:
    files = ("--store-dir", store, "--benchmark", store / f"{MEMBER}.zip", "--out", out)
    return [step, *map(str, (*files, *more))]


@pytest.fixture
def rebuilt(script: ModuleType, store: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    assert script.main(arguments("rebuild", store, out)) == 3
    return out


def answers(out: Path) -> dict[str, int]:
    name = "AI-ImageClass-bravais_class-stem_2d_image-test-acc.csv"
    with zipfile.ZipFile(out / "contributions" / "ours" / f"{name}.zip") as archive:
        assert archive.namelist() == [name]
        text = archive.read(name).decode()
    assert text.startswith("id,prediction\n")
    return {row["id"]: int(row["prediction"]) for row in csv.DictReader(io.StringIO(text))}


def test_the_published_benchmark_is_the_one_that_is_pinned(script: ModuleType, shared_data: Path) -> None:
    import _leaderboard

    benchmark = _leaderboard.published_benchmark(shared_data / "benchmarks" / f"{MEMBER}.zip")
    assert (len(benchmark.train), len(benchmark.test)) == (6862, 2288)
    databases = [_leaderboard.database_of(name) for _, name, _ in benchmark.rows()]
    counts = {name: databases.count(name) for name in CRYSTALS}
    assert counts == {"dft_2d": 916, "twod_matpd": 5078, "c2db": 3156}
    assert benchmark.most_frequent() == 2


def test_rebuild_makes_the_images_and_lists_the_others(
    capsys: pytest.CaptureFixture[str], rebuilt: Path
) -> None:
    told = capsys.readouterr()
    assert "6 of 8 images" in told.out
    # The reference crystals have the cells that the rule expects.
    assert "gives the published class for 6 of 6 crystals" in told.out
    found = sorted(str(path.relative_to(rebuilt)) for path in rebuilt.glob("t*/*/*.png"))
    assert found == [
        "test/0/2dm-1.png",
        "test/0/BN-0123456789ab.png",
        "test/0/JVASP-1.png",
        "train/1/JVASP-2.png",
        "train/2/2dm-2.png",
        "train/2/SnS-0123456789ab.png",
    ]
    layer = flat_layer(load_structures("reference")["MoS2"])
    frame = simulate_stem(layer, shape=(256, 256), pixel_size=0.1, psf="jarvis")
    image = np.asarray(Image.open(rebuilt / "test/0/JVASP-1.png"), int)
    # Grey levels of float32 sums may round differently after a round trip of the coordinates.
    assert np.abs(image - to_grey(frame.image, bits=8)[0].astype(int)).max() <= 1
    with (rebuilt / "unresolved.csv").open() as stream:
        rows = {row["id"]: (row["split"], row["reason"]) for row in csv.DictReader(stream)}
    assert rows == {
        "2dm-999.jpg": ("train", "no such crystal in jarvis:twod_matpd"),
        "JVASP-404.jpg": ("test", "no such crystal in jarvis:dft_2d"),
    }
    facts = json.loads((rebuilt / "rebuild.json").read_text())
    assert facts["legacy_rule_agrees"] == {"n": 6, "same": 6}
    assert not facts["published_benchmark"]
    assert {name: told["ids"] for name, told in facts["sources"].items()} == {
        "dft_2d": 3,
        "c2db": 2,
        "twod_matpd": 3,
    }
    assert all(len(told["sha256"]) == 64 for told in facts["sources"].values())


def test_rebuild_goes_on_and_refuses_another_way(
    script: ModuleType, rebuilt: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, kept = rebuilt / "test/0/2dm-1.png", rebuilt / "test/0/JVASP-1.png"
    content, before = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    assert script.main(arguments("rebuild", store, rebuilt)) == 3
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == before
    capsys.readouterr()
    assert script.main(arguments("rebuild", store, rebuilt, "--images", store)) == 2
    assert "was begun with other settings" in capsys.readouterr().err


def test_a_contribution_needs_all_ids_or_says_that_it_guesses(
    script: ModuleType, rebuilt: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = arguments("contribute", store, rebuilt, *CONTRIBUTE, "--method", "legacy-rule")
    assert script.main(rule) == 1
    assert "error: 1 of 4 test ids have no image" in capsys.readouterr().err
    assert script.main([*rule, "--guess-missing"]) == 3
    assert "accuracy 0.7500 of 4 test ids" in capsys.readouterr().out
    # The unknown id gets the most frequent class of the training split.
    assert answers(rebuilt) == {
        "JVASP-1.jpg": 0,
        "BN-0123456789ab.jpg": 0,
        "2dm-1.jpg": 0,
        "JVASP-404.jpg": 2,
    }
    folder = rebuilt / "contributions" / "ours"
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["model_name"] == "ours"
    assert metadata["team_name"] == "Us"
    assert "1 without image, 0 refused" in metadata["notes"]
    assert "no image was looked at" in metadata["notes"]
    # A script that a shell can read, whatever stands in the options.
    subprocess.run(["bash", "-n", folder / "run.sh"], check=True)
    assert "'https://example.org/it'\"'\"'s here'" in (folder / "run.sh").read_text()
    packed = next(folder.glob("*.zip")).read_bytes()
    assert script.main([*rule, "--guess-missing"]) == 3
    assert next(folder.glob("*.zip")).read_bytes() == packed


def test_the_fit_looks_at_the_images(script: ModuleType, rebuilt: Path, store: Path) -> None:
    given = arguments("contribute", store, rebuilt, *CONTRIBUTE, "--method", "fit", "--guess-missing")
    assert script.main(given) == 3
    assert list(answers(rebuilt).values()) == [0, 0, 0, 2]


def test_predictions_go_on_where_they_were_interrupted(
    script: ModuleType, rebuilt: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import atomvision_hub.inference

    asked: list[str] = []

    class Answer:
        label = "oblique"

    def predict(path: Path, model: str | None, *, pixel_size: float | None) -> Answer:
        asked.append(path.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        assert pixel_size == 0.1
        return Answer()

    monkeypatch.setattr(atomvision_hub.inference, "predict", predict)
    given = arguments("contribute", store, rebuilt, *CONTRIBUTE, "--guess-missing")
    assert script.main(given) == 1
    assert script.main(given) == 3
    assert len(asked) == 4
    assert len(set(asked)) == 3
    assert answers(rebuilt)["2dm-1.jpg"] == 4
    # Another method takes up none of these answers.
    assert script.main([*given, "--method", "legacy-rule"]) == 3
    assert answers(rebuilt)["2dm-1.jpg"] == 0


def test_a_model_with_other_classes_is_refused(
    script: ModuleType, rebuilt: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import atomvision_hub.inference

    class Answer:
        label = "cat"

    monkeypatch.setattr(atomvision_hub.inference, "predict", lambda *_, **__: Answer())
    assert script.main(arguments("contribute", store, rebuilt, *CONTRIBUTE, "--guess-missing")) == 2
    assert "the model answers 'cat', which is none of hexagonal" in capsys.readouterr().err


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a server on the loopback interface gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_published_images_are_downloaded_once_and_kept_as_they_are(
    script: ModuleType, store: Path, tmp_path: Path, served: tuple[Path, str], capsys: Any
) -> None:
    folder, address = served
    jpeg = io.BytesIO()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(jpeg, "jpeg")
    for name, members in (
        ("stem_jv2d.zip", {"stem_jv2d/train_folder/1/JVASP-2.jpg": jpeg.getvalue()}),
        ("stem_c2db.zip", {"a/BN-0123456789ab.jpg": b"no image", "a/SnS-0123456789ab.jpg": jpeg.getvalue()}),
    ):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        script.IMAGE_ARCHIVES[name] = f"{address}/{name}"
    out = tmp_path / "published"
    assert script.main(arguments("rebuild", store, out, "--images", "published")) == 3
    assert "2 of 8 images" in capsys.readouterr().out
    assert (out / "train/1/JVASP-2.jpg").read_bytes() == jpeg.getvalue()
    listed = (out / "unresolved.csv").read_text()
    assert "BN-0123456789ab.jpg,0,a/BN-0123456789ab.jpg cannot be read" in listed
    assert "2dm-1.jpg,0,no such image in the archives" in listed
    # Their pixel size is not known, and no crystals were asked for.
    assert json.loads((out / "rebuild.json").read_text())["pixel_size"] is None
    for name in script.IMAGE_ARCHIVES:
        script.IMAGE_ARCHIVES[name] = NOWHERE
    assert script.main(arguments("rebuild", store, out, "--images", "published")) == 3


def test_the_download_of_the_benchmark_is_verified(
    script: ModuleType, store: Path, tmp_path: Path, served: tuple[Path, str], monkeypatch: Any, capsys: Any
) -> None:
    import _leaderboard

    folder, address = served
    (folder / "file").write_bytes((store / f"{MEMBER}.zip").read_bytes())
    monkeypatch.setattr(_leaderboard, "URL", f"{address}/file")
    out = tmp_path / "out"
    assert script.main(["rebuild", "--out", str(out)]) == 1
    assert "is not the published benchmark (its checksum differs)" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["benchmark", "database", "images"])
def test_without_a_network_it_fails_in_one_line(
    script: ModuleType, store: Path, tmp_path: Path, missing: str, capsys: Any
) -> None:
    out = tmp_path / "out"
    if missing == "benchmark":
        given = ["rebuild", "--out", str(out)]
        expected = f"{MEMBER}.zip could not be downloaded from {NOWHERE}; put it into {out / 'downloads'}"
    elif missing == "database":
        (store / "c2db_atoms.json.zip").unlink()
        given = arguments("rebuild", store, out)
        expected = f"jarvis:c2db could not be downloaded from 127.0.0.1; put c2db_atoms.json.zip into {store}"
    else:
        given = arguments("rebuild", store, out, "--images", "published")
        expected = f"stem_jv2d.zip could not be downloaded from {NOWHERE}; put it into {store}"
    assert script.main(given) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {expected}")
    assert told.count("\n") == 1


def test_what_is_wrong_with_a_file_is_said(
    script: ModuleType, store: Path, tmp_path: Path, rebuilt: Path, capsys: Any
) -> None:
    both = {"train": {"JVASP-1.jpg": 0}, "test": {"JVASP-1.jpg": 0}}
    outside = {"train": {"../JVASP-1.jpg": 0}, "test": {"JVASP-2.jpg": 0}}
    for content in (both, outside, {"train": {}}, {"train": {"JVASP-1.jpg": 7}, "test": {"JVASP-2.jpg": 0}}):
        path = zipped(tmp_path / "odd.zip", MEMBER, content)
        assert script.main(["rebuild", "--out", str(tmp_path / "odd"), "--benchmark", str(path)]) == 1
        assert capsys.readouterr().err.startswith(f"error: {path}")
    for name, more in (("no/name", ()), ("ours", ("--out", tmp_path / "empty"))):
        given = arguments("contribute", store, rebuilt, *CONTRIBUTE, "--name", name, *more)
        assert script.main(given) == 2
