"""`atomvision analyze`: files, folders, what is written, what is refused, going on."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.cli import app

KINDS = ("csv", "json", "png", "spectrum.csv", "spectrum.png")
OPTIONS = ("--segmenter", "none", "--classifier", "none")


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["analyze", *map(str, words)], prog_name="atomvision")


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as stream:
        return {Path(row["file"]).name + row["index"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    frame = simulate_stem(load_structures("reference")["MoS2"], shape=(160, 180), pixel_size=0.1, rotation=13)
    return (255 * frame.image / frame.image.max()).astype(np.uint8)


@pytest.fixture
def folder(pixels: np.ndarray, tmp_path: Path) -> Path:
    """Two images of one stem, one in a subfolder, a stack, and three that show nothing."""
    root = tmp_path / "scans"
    (root / "sub").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "a.png")
    Image.fromarray(pixels.astype(np.uint16) * 100).save(root / "a.tif")
    Image.fromarray(pixels).save(root / "sub" / "a.png")
    Image.fromarray(pixels).save(
        root / "stack.tif", save_all=True, append_images=[Image.fromarray(pixels[::-1])]
    )
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:500])
    (root / "text.dm4").write_text("no microscope wrote this")
    Image.new("L", (64, 64), 7).save(root / "flat.png")
    (root / "notes.txt").write_text("left alone")
    (root / ".hidden.png").write_text("left alone")
    return root


def test_one_image(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "mos2.png")
    out = tmp_path / "out"
    told = _run(tmp_path / "mos2.png", "--pixel-size", 0.1, "--segmenter", "none", "--out", out)
    assert told.exit_code == 0, told.output
    assert "a 3.1" in told.output
    assert "gamma 12" in told.output or "gamma 119" in told.output
    assert "lattice fit: hexagonal" in told.output
    kinds = ("csv", "html", "json", "png", "spectrum.csv", "spectrum.png")
    assert sorted(path.name for path in out.iterdir()) == [f"mos2.png.{kind}" for kind in kinds]
    content = json.loads((out / "mos2.png.json").read_text(encoding="utf-8"))
    assert content["calibration"]["source"] == "given"
    assert content["lattice"]["label"] == "hexagonal"
    rows = list(csv.DictReader((out / "mos2.png.csv").open(encoding="utf-8")))
    assert len(rows) == content["atoms"]["count"] > 40
    assert float(rows[0]["x"]) == content["atoms"]["x"][0]
    picture = Image.open(out / "mos2.png.png")
    assert picture.width > 1000
    fit = content["lattice_parameters"]
    assert fit["a"] == pytest.approx(3.196, abs=3 * fit["a_error"])
    assert fit["calibration_error"] == 0.05
    peaks = list(csv.DictReader((out / "mos2.png.spectrum.csv").open(encoding="utf-8")))
    assert len(peaks) == len(content["spectrum"]["peaks"]) > 3
    assert f"a = {fit['a']:.4g}" in (out / "mos2.png.html").read_text(encoding="utf-8")


def test_cif_crop_and_calibration(pixels: np.ndarray, tmp_path: Path) -> None:
    path, out = tmp_path / "mos2.png", tmp_path / "out"
    Image.fromarray(pixels).save(path)
    words = (path, "--segmenter", "none", "--out", out, "--no-html")
    told = _run(*words, "--pixel-size", 0.1, "--cif", "--elements", "Mo,S", "--calibration", 0.01)
    assert told.exit_code == 0, told.output
    assert "Mo1 Mo 0.0000" in (out / "mos2.png.cif").read_text(encoding="utf-8")
    assert json.loads((out / "mos2.png.json").read_text())["lattice_parameters"]["calibration_error"] == 0.01
    assert not (out / "mos2.png.html").exists()
    blind = _run(*words, "--cif", "--crop", "10,20,140,150")
    assert "no CIF: its lengths are in Å and the image is not calibrated" in blind.stderr
    assert not (out / "mos2.png.cif").exists()  # that of the run before would be another image's
    content = json.loads((out / "mos2.png.json").read_text())
    assert (content["image"]["rows"], content["image"]["columns"]) == (140, 150)
    assert any("only 150 x 140 px from column 20, row 10" in line for line in content["warnings"])


def test_json_writes_nothing_unless_asked(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels).save("mos2.png")
    told = _run("mos2.png", "--json", *OPTIONS)
    assert json.loads(told.stdout)["calibration"]["calibrated"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["mos2.png"]
    assert _run("mos2.png", *OPTIONS).exit_code == 0
    assert (tmp_path / "analysis" / "mos2.png.json").is_file()


def test_a_folder(folder: Path, tmp_path: Path) -> None:
    """A bad file does not stop the others; equal stems and equal names do not meet."""
    out = tmp_path / "out"
    told = _run(folder, "--pixel-size", 0.1, "--out", out, *OPTIONS)
    assert told.exit_code == 3
    assert "4 image(s) answered, 3 refused" in told.output
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    images = ["a.png", "a.tif", "stack.tif", "sub/a.png"]
    assert names == {f"{image}.{kind}" for image in images for kind in KINDS} | {"summary.csv"}
    rows = list(csv.DictReader((out / "summary.csv").open(encoding="utf-8")))
    refused = {Path(row["file"]).name: row["reason"] for row in rows if row["status"] == "refused"}
    assert set(refused) == {"cut.png", "text.dm4", "flat.png"}
    assert "damaged" in refused["cut.png"]
    assert "is no digitalmicrograph file" in refused["text.dm4"]
    assert "all pixels have the same value" in refused["flat.png"]
    assert {row["cell_lattice"] for row in rows if row["status"] == "answered"} == {"hexagonal"}
    assert all((out / row["result"]).is_file() for row in rows if row["result"])
    for line in told.stderr.splitlines():
        assert line.startswith(("error: ", "analyze: ")), line


def test_all_images_of_a_stack(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _run(folder / "stack.tif", "--pixel-size", 0.1, "--out", out, *OPTIONS)
    assert "image 0 (image) of 2 in the file; --index all takes all" in first.stderr
    assert _run(folder / "stack.tif", "--index", "all", "--out", out, *OPTIONS).exit_code == 0
    assert {path.name for path in out.glob("*.json")} == {
        "stack.tif.json",
        "stack.tif.0.json",
        "stack.tif.1.json",
    }
    second = _run(folder / "stack.tif", "--frame", 1, "--json", *OPTIONS)
    assert json.loads(second.stdout)["image"]["index"] == 1
    beyond = _run(folder / "stack.tif", "--index", 2, "--out", out, *OPTIONS)
    assert beyond.exit_code == 1
    assert "has 2 image(s); --index 2 is none" in beyond.stderr


def test_going_on(folder: Path, tmp_path: Path) -> None:
    """Finished images are left as they are, until something differs."""
    out = tmp_path / "out"

    def times(*options: object) -> dict[str, int]:
        assert _run(folder, "--out", out, *OPTIONS, *options).exit_code == 3
        return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.rglob("*.json")}

    first = times("--pixel-size", 0.1)
    assert times("--pixel-size", 0.1) == first
    assert len(_rows(out)) == 7 - 1  # a.png twice, told apart by the path only
    (out / "a.png.csv").unlink()
    Image.new("L", (64, 64), 8).save(folder / "a.tif")
    second = times("--pixel-size", 0.1)
    assert {name for name in first if first[name] != second[name]} == {"a.png.json"}
    assert all(
        second[name] != value for name, value in times("--pixel-size", 0.11).items() if "tif" not in name
    )
    third = times("--pixel-size", 0.11)
    again = times("--pixel-size", 0.11, "--no-resume")
    assert all(again[name] != third[name] for name in ("a.png.json", "stack.tif.json"))


def test_equal_names_of_two_folders(pixels: np.ndarray, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    out = tmp_path / "out"
    assert _run(tmp_path / "one" / "a.png", tmp_path / "two", "--out", out, *OPTIONS).exit_code == 0
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.json")} == {
        "one/a.png.json",
        "two/a.png.json",
    }


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.png"], 2, "none.png does not exist"),
        (["empty"], 2, "no image in empty; known are"),
        (["a.png", "--index", "first"], 2, "--index is 'first'"),
        (["a.png", "--pixel-size", "5"], 1, "a.png: 5 Å/px is too coarse"),
        (["a.png", "--segmenter", "nowhere/at/all"], 1, "there is no folder nowhere/at/all"),
        (["a.png", "--threshold", "3"], 2, "the threshold is a relative height"),
        (["a.png", "--crop", "1,2,3"], 2, "--crop is '1,2,3'; write ROW,COLUMN,HEIGHT,WIDTH"),
        (["a.png", "--crop", "0,0,500,500"], 1, "--crop 0,0,500,500 is outside its 160 x 180 px"),
        (["a.png", "--elements", "Mo,S"], 2, "add --cif"),
        (["a.txt"], 1, "is no instrument file that is read here"),
    ],
)
def test_wrong_use_is_one_line(
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels).save("a.png")
    Path("a.txt").write_text("text")
    Path("empty").mkdir()
    told = _run(*words)
    assert told.exit_code == code
    assert message in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_missing_extra_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (folder / "scan.dm4").write_bytes(b"\0\0\0\x04" + bytes(2000))
    monkeypatch.setitem(sys.modules, "rsciio", None)
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", None)
    alone = _run(folder / "scan.dm4", "--out", tmp_path / "out", *OPTIONS)
    assert alone.exit_code == 1
    assert "pip install 'atomvision-hub[microscopy]'" in alone.stderr
    assert len(alone.stderr.splitlines()) == 1
    together = _run(folder, "--out", tmp_path / "out", *OPTIONS)
    assert together.exit_code == 3
    assert "atomvision-hub[microscopy]" in _rows(tmp_path / "out")["scan.dm4"]["reason"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(pixels: np.ndarray, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(200):
        Image.fromarray(np.roll(pixels, number, 1)).save(scans / f"{number:03d}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "atomvision_hub.cli", "analyze", scans, "--out", out, *OPTIONS]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 120
    while len(list(out.glob("*.json"))) < 2 and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("interrupted; finished work is kept")
    finished = list(out.glob("*.json"))
    assert 2 <= len(finished) < 200
    assert len(_rows(out)) in (len(finished) - 1, len(finished))
    assert not list(out.glob(".*"))
    for path in finished:
        assert json.loads(path.read_text(encoding="utf-8"))["atoms"]["count"] > 40


def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    """EMI files bring their SER files; every file gets an answer or a reason."""
    pytest.importorskip("rsciio")
    source = shared_data / "microscopy"
    scans = tmp_path / "scans"
    scans.mkdir()
    names = ["64x64_TEM_images_acquire.emi", "64x64_TEM_images_acquire_1.ser", "test_diffraction_pattern.dm3"]
    for name in [*names, "olympus_SIS.tif"]:
        (scans / name).symlink_to(source / name)
    told = _run(scans, "--out", tmp_path / "out", *OPTIONS)
    rows = _rows(tmp_path / "out")
    assert told.exit_code == 3
    assert {Path(row["file"]).name for row in rows.values()} == {names[0], names[2], "olympus_SIS.tif"}
    assert "a diffraction pattern" in rows["test_diffraction_pattern.dm30"]["reason"]


def test_fitted_columns_on_request(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "mos2.png")
    words = (tmp_path / "mos2.png", "--pixel-size", 0.1, "--out", tmp_path / "out", *OPTIONS)
    assert _run(*words).exit_code == 0
    peaks = json.loads((tmp_path / "out" / "mos2.png.json").read_text())
    assert peaks["fitted"] is None
    assert _run(*words, "--fit-columns").exit_code == 0  # another way: computed anew
    fitted = json.loads((tmp_path / "out" / "mos2.png.json").read_text())
    assert fitted["fitted"]["residual"] == pytest.approx(1, abs=0.1)
    assert fitted["settings"]["fit_columns"] is True
