"""arxiv_figures: the real command against arXiv on the loopback interface, then the Hub and back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomvision_hub.data import BuildOptions, BuildReport, load_builder, split_of, validate_folder
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError
from atomvision_hub.literature.images import STATUSES

SERVICES = {"API": "api", "HTML": "html", "AR5IV": "ar5iv", "OAI": "oai", "EPRINT": "e-print"}


def serve(folder: Path, *arguments: object) -> Iterator[str]:
    """Run the server package of a folder of tests; give its address."""
    command = [sys.executable, "-m", "server", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def arxiv_url(repository: Path) -> Iterator[str]:
    for url in serve(repository / "tests" / "literature"):
        with pytest.MonkeyPatch.context() as patch:
            for name, path in SERVICES.items():
                patch.setenv(f"ATOMVISION_ARXIV_{name}", f"{url}/{path}")
            yield url


def requests(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/__test__/requests") as answer:
        return list(json.load(answer)[0])


def most_at_once(url: str) -> int:
    with urllib.request.urlopen(f"{url}/__test__/requests") as answer:
        return int(json.load(answer)[1])


def post(url: str, name: str, content: Any) -> None:
    address = urllib.request.Request(f"{url}/__test__/{name}", json.dumps(content).encode())
    urllib.request.urlopen(address).close()


@pytest.fixture
def build(arxiv_url: str, tmp_path: Path) -> Callable[..., BuildReport]:
    def run(name: str = "out", *sources: str, **options: Any) -> BuildReport:
        options = {"sources": sources or ("query:all:STM",), "cache_dir": tmp_path / "cache"} | options
        return load_builder("arxiv_figures").build(
            BuildOptions(dataset="arxiv_figures", out=tmp_path / name, **options)
        )

    return run


def rows_of(folder: Path, config: str) -> dict[str, dict[str, Any]]:
    return {
        row["id"]: row
        for path in sorted(folder.glob(f"data/{config}/*"))
        for row in pq.read_table(path).to_pylist()
    }


@dataclass(frozen=True)
class Built:
    """What the command line made."""

    folder: Path
    cache: Path
    output: str


@pytest.fixture(scope="module")
def built(arxiv_url: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The real command with two workers, and both configs."""
    folder = tmp_path_factory.mktemp("arxiv")
    command = [sys.executable, "-m", "atomvision_hub.cli", "build", "arxiv_figures", "--num-proc", "2"]
    options = ["--source", "query:all:STM", "--config", "default", "--config", "all"]
    done = subprocess.run(
        [*command, *options, "--out", str(folder / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"ATOMVISION_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3, done.stderr
    assert most_at_once(arxiv_url) == 1  # both workers share one connection
    return Built(folder / "out", folder / "cache", done.stdout)


def test_the_dataset_is_valid(built: Built) -> None:
    assert validate_folder(built.folder) == []
    assert "rejected: source 2" in built.output
    assert (len(rows_of(built.folder, "all")), len(rows_of(built.folder, "default"))) == (14, 13)
    rejected = pq.read_table(built.folder / "rejected.parquet").to_pylist()
    assert [(row["id"], row["step"]) for row in rejected] == [
        ("2401.00005v1", "source"),
        ("2401.00008v1", "source"),
    ]


def test_images_keep_within_their_rights(built: Built) -> None:
    rows = rows_of(built.folder, "all")
    with_bytes = {name: row for name, row in rows.items() if row["image"] is not None}
    assert {row["licence"] for row in with_bytes.values()} == {"cc-by-4.0", "cc-by-nc-nd-4.0"}
    assert all(row["rights"] == "bytes" for row in with_bytes.values())
    for row in with_bytes.values():
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["sha256"]
    links = [row for row in rows.values() if row["rights"] == "link"]
    assert {row["licence"] for row in links} == {"cc-by-4.0", "arxiv-nonexclusive-1.0", "unknown"}
    assert STATUSES[rows["2401.00001v1_S1.F4"]["image_status"]] == "credited"


def test_articles_are_not_torn_apart(built: Built) -> None:
    for path in built.folder.glob("data/all/*"):
        articles = set(pq.read_table(path, columns=["arxiv_id"])["arxiv_id"].to_pylist())
        assert {split_of(article) for article in articles} == {path.name.split("-")[0]}


def test_the_card_counts_licences(built: Built) -> None:
    card = (built.folder / "README.md").read_text()
    assert "| cc-by-nc-nd-4.0 |" in card
    assert "| arxiv-nonexclusive-1.0 |" in card
    assert "by a hash of the article" in card
    assert "license: other" in card
    assert "(source 2)" in card


def test_the_bytes_do_not_depend_on_workers(
    built: Built, build: Callable[..., BuildReport], checksums: Callable[[Path], Any], arxiv_url: str
) -> None:
    asked = len(requests(arxiv_url))
    again = build("again", configs=["default", "all"], cache_dir=built.cache)
    assert checksums(again.folder) == checksums(built.folder)
    assert len(requests(arxiv_url)) == asked  # all of it came from the cache


def test_configs_are_made_of_one_fetch(
    build: Callable[..., BuildReport], arxiv_url: str, tmp_path: Path
) -> None:
    build("first", configs=["default"])
    asked = [request["path"] for request in requests(arxiv_url)]
    report = build("first", configs=["all"])
    new = [request["path"] for request in requests(arxiv_url)][len(asked) :]
    assert set(report.rows) == {"default", "all"}
    assert new == ["/html/2401.00001v1/x3.png"]


def test_identifiers_and_limit(build: Callable[..., BuildReport], tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("2401.00001\nnonsense\n9999.99999v1\n2401.00002v2\n")
    report = build("out", f"ids:{tmp_path / 'ids.txt'}")
    assert report.rejected == {"search": 2}
    assert {row["arxiv_id"] for row in rows_of(report.folder, "default").values()} == {
        "2401.00001",
        "2401.00002",
    }
    assert str(tmp_path) not in (report.folder / "README.md").read_text()
    assert sum(build("few", limit=1).rows["default"].values()) == 5


def test_saved_feeds_and_the_file_of_jarvis_tools(
    build: Callable[..., BuildReport], arxiv_url: str, tmp_path: Path
) -> None:
    with urllib.request.urlopen(f"{arxiv_url}/api?search_query=x&start=0") as answer:
        (tmp_path / "feed.xml").write_bytes(answer.read())
    entry = {"id": "2401.00002", "title": "STM images of NbSe2", "abstract": "Scanning tunneling microscopy."}
    (tmp_path / "store").mkdir()
    with zipfile.ZipFile(tmp_path / "store" / "arXivdataset.json.zip", "w") as archive:
        archive.writestr("arXivdataset.json", json.dumps([entry]))
    report = build("out", f"feed:{tmp_path / 'feed.xml'}", "jarvis:arxiv", store_dir=tmp_path / "store")
    # The second source names an article of the first one, without its version.
    assert report.rejected == {"duplicate": 1}
    card = (report.folder / "README.md").read_text()
    assert "**feed:feed.xml**" in card
    assert "**jarvis:arxiv**" in card
    assert len(rows_of(report.folder, "default")) == 11


@pytest.mark.skipif(
    not (shutil.which("tesseract") and find_spec("pytesseract")), reason="no tesseract or no extra [ocr]"
)
def test_scale_bars_give_pixel_sizes(build: Callable[..., BuildReport], tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("2401.00012v1\n2401.00001v1\n")
    report = build("out", f"ids:{tmp_path / 'ids.txt'}", configs=["calibrated"])
    rows = rows_of(report.folder, "calibrated")
    calibrated = rows.pop("2401.00012v1_S1.F1")
    assert calibrated["pixel_size"] == pytest.approx(0.5, rel=0.02)
    assert calibrated["scale_bars"]["length"] == [50.0]
    assert {row["pixel_size"] for row in rows.values()} == {None}


def test_a_tiny_twin(build: Callable[..., BuildReport]) -> None:
    report = build("tiny", tiny=True)
    assert 0 < sum(report.rows["default"].values()) < 20
    assert validate_folder(report.folder) == []


def test_an_interrupted_build_goes_on(build: Callable[..., BuildReport], arxiv_url: str) -> None:
    post(arxiv_url, "reset", None)
    fault = {"path": "/html/2401.00009v1", "kind": "status", "status": 503, "times": 99}
    post(arxiv_url, "fault", fault | {"headers": {"Retry-After": "86400"}})
    with pytest.raises(NetworkNeededError, match=r"is busy \(answer 503\); what was fetched is kept"):
        build("out")
    asked = {request["path"] for request in requests(arxiv_url)}
    assert "/html/2401.00002v2" in asked
    post(arxiv_url, "reset", None)
    assert sum(build("out").rows["default"].values()) == 13
    again = {request["path"] for request in requests(arxiv_url)}
    assert again & asked == {"/html/2401.00009v1"}


def test_hostile_articles(build: Callable[..., BuildReport], tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(f"2402.0000{n}v1" for n in range(1, 10)))
    report = build("out", f"ids:{tmp_path / 'ids.txt'}", configs=["all"])
    assert validate_folder(report.folder) == []
    assert report.rejected == {"source": 5}
    statuses = {STATUSES[row["image_status"]] for row in rows_of(report.folder, "all").values()}
    assert statuses == set(STATUSES) - {"credited"}


def test_nothing_found(build: Callable[..., BuildReport]) -> None:
    with pytest.raises(UsageError, match="query:nothing: nothing to build from; give another --source"):
        build("out", "query:nothing")
    with pytest.raises(UsageError, match="arXiv refuses the search: incorrect query"):
        build("out", "query:wrong")
    with pytest.raises(UsageError, match="'reference' is no source of articles"):
        build("out", "reference")


def test_what_does_not_fit_is_found(built: Built) -> None:
    builder = load_builder("arxiv_figures").BUILDER
    config = builder.config_model(description="as default")
    table = pa.concat_tables(pq.read_table(path) for path in sorted(built.folder.glob("data/all/*")))
    assert list(builder.check(table, config)) == []

    def spoilt(**changes: Any) -> str:
        rows = table.to_pylist()
        row = next(row for row in rows if row["id"] == "2401.00001v1_S1.F1")
        row.update(changes)
        return " ".join(builder.check(pa.Table.from_pylist([row], schema=table.schema), config))

    assert "may not be passed on" in spoilt(rights="link")
    assert "does not allow copies" in spoilt(licence="arxiv", licence_url="")
    assert "differs from its checksum" in spoilt(sha256="0" * 64)
    assert "another size" in spoilt(width=500)
    assert "outside the image" in spoilt(width=100)
    assert "contradict each other" in spoilt(image=None)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomvision_hub.literature import fetch

    for name in SERVICES:
        monkeypatch.setenv(f"ATOMVISION_ARXIV_{name}", "http://127.0.0.1:9/x")
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)
    with pytest.raises(
        AtomVisionError, match=r"127\.0\.0\.1:9 cannot be reached .* run the same command again"
    ):
        load_builder("arxiv_figures").build(
            BuildOptions(
                dataset="arxiv_figures",
                sources=("query:STM",),
                out=tmp_path / "out",
                cache_dir=tmp_path / "cache",
            )
        )


def test_over_the_hub_and_back(built: Built, repository: Path, tmp_path: Path) -> None:
    program = f"""
import json
from pathlib import Path
from datasets import load_dataset
from atomvision_hub.data.publish import push_dataset

push_dataset(Path({str(built.folder)!r}), "atomvision/arxiv_figures", tag="v1.0.0")
found = {{}}
for rows in load_dataset("atomvision/arxiv_figures", "all", revision="v1.0.0", streaming=True).values():
    found |= {{row["id"]: row["image"] and row["image"].size for row in rows}}
print("ROWS", json.dumps(found))
"""
    for url in serve(repository / "tests" / "hub", "--folder", tmp_path / "hub"):
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "hf_alicewrites",
        }
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=200
        )
    assert done.returncode == 0, done.stderr[-3000:]
    (answer,) = (json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("ROWS "))
    assert answer == {
        name: [row["width"], row["height"]] if row["image"] else None
        for name, row in rows_of(built.folder, "all").items()
    }


@pytest.mark.parametrize(
    ("written", "spelled"), [("NB", "BN"), ("S2Mo", "MoS2"), ("La7Sr3Mn10O30", "Sr3La7Mn10O30"), ("C", "C")]
)
def test_formulas_are_spelled_as_those_of_crystals(written: str, spelled: str) -> None:
    script: Any = load_builder("arxiv_figures")
    assert script.spelled(written) == spelled
