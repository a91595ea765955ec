"""Loading from the Hub and from folders: by plain `datasets`, and by our helper that pins the version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from atomvision_hub.data import load_dataset
from atomvision_hub.data.publish import push_dataset
from atomvision_hub.errors import AtomVisionError, UsageError

REPO = "atomvision/stem2d"
Api = Callable[..., HfApi]

#: Gives the rows of a split as something that can be compared.
ROWS = """
def rows(split):
    import hashlib, datasets
    if "image" in split.features:
        split = split.cast_column("image", datasets.Image(decode=False))
        return [(row["id"], hashlib.sha256(row["image"]["bytes"]).hexdigest()) for row in split]
    return [(row["id"], row["z"]) for row in split]
"""


def publish(hub: Any, folder: Path, tag: str, **options: Any) -> None:
    push_dataset(folder, REPO, tag=tag, token="hf_alicewrites", endpoint=hub.url, **options)


@pytest.fixture
def published(hub: Any, api: Api, versions: tuple[Path, Path]) -> tuple[Path, Path]:
    publish(hub, versions[0], "v1.0.0")
    publish(hub, versions[1], "v1.1.0")
    hub.forget()
    return versions


def test_plain_datasets_reads_the_repository(hub: Any, published: Any, in_subprocess: Any) -> None:
    """What a stranger types works: configs, revisions, streaming, and equal rows from Hub and folder."""
    code = f"""
    {ROWS.replace(chr(10), chr(10) + "    ")}
    from datasets import get_dataset_config_names, load_dataset
    newest, first = load_dataset({REPO!r}), load_dataset({REPO!r}, "default", revision="v1.0.0")
    folder = load_dataset({str(published[0])!r}, "default")
    streamed = load_dataset({REPO!r}, "default", revision="v1.0.0", streaming=True)
    structures = load_dataset({REPO!r}, "structures", split="test")
    answer["configs"] = get_dataset_config_names({REPO!r})
    answer["sizes"] = [len(newest["train"]), len(first["train"]), len(structures)]
    answer["like_the_folder"] = rows(first["train"]) == rows(folder["train"])
    answer["streamed_alike"] = rows(streamed["train"]) == rows(first["train"])
    answer["image"] = str(first["test"][0]["image"].size)
    """
    answer = in_subprocess(code)
    assert answer["configs"] == ["default", "structures"]
    assert answer["sizes"] == [20, 30, 10]
    assert answer["like_the_folder"]
    assert answer["streamed_alike"]
    assert answer["image"] == "(128, 128)"
    assert any(request["range"] for request in hub.requests("GET", "/storage/objects"))

    hub.forget()
    again = in_subprocess(code)
    assert again["sizes"] == answer["sizes"]
    # Cached: only the streamed rows were fetched again, and those by ranges.
    assert all(request["range"] for request in hub.requests("GET", "/storage/objects"))


def test_private_repository(hub: Any, api: Api, versions: Any, in_subprocess: Any) -> None:
    publish(hub, versions[0], "v1.0.0", private=True)
    hub.forget()
    answer = in_subprocess(f"""
    import datasets
    from atomvision_hub.data import load_dataset
    for name, token in (("nobody", False), ("other", "hf_mallory"), ("wrong", "hf_neverissued")):
        for kind, load in (("plain", datasets.load_dataset), ("ours", load_dataset)):
            try:
                load({REPO!r}, "default", token=token)
                answer[f"{{name}} {{kind}}"] = "loaded"
            except Exception as error:
                answer[f"{{name}} {{kind}}"] = f"{{type(error).__name__}}: {{error}}"
    streamed = load_dataset({REPO!r}, split="test", token="hf_alicereads", streaming=True)
    answer["streamed"] = sum(1 for _ in streamed)
    answer["owner"] = len(load_dataset({REPO!r}, split="train", token="hf_alicereads"))
    """)
    for name in ("nobody", "other"):
        assert "DatasetNotFoundError" in answer[f"{name} plain"]
        assert f"AtomVisionError: {REPO} does not exist at {hub.url}, or is private" in answer[f"{name} ours"]
    assert "does not accept the token" in answer["wrong ours"]
    assert "loaded" not in answer["wrong plain"]
    assert (answer["owner"], answer["streamed"]) == (30, 10)
    assert not any(request["authorization"] for request in hub.requests(path="/storage/"))


PINNED = f"""
import logging
from atomvision_hub.data import _hub, load_dataset
_hub.PAUSES = (0.01, 0.01, 0.01)
logging.basicConfig(level=logging.INFO, format="LOG %(name)s %(message)s")

def outcome(*arguments, **options):
    try:
        loaded = load_dataset(*arguments, **options)
        return len(loaded) if "split" in options else {{name: len(rows) for name, rows in loaded.items()}}
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"

answer["newest"] = outcome({REPO!r})
answer["first"] = outcome({REPO!r}, revision="v1.0.0", split="train")
"""


def test_our_helper_pins_the_version(hub: Any, published: Any, api: Api, in_subprocess: Any) -> None:
    answer = in_subprocess(
        PINNED
        + f"""
streamed = load_dataset({REPO!r}, "structures", revision="v1.0.0", split="train", streaming=True)
answer["streamed"] = sum(1 for _ in streamed)
answer["part"] = outcome({REPO!r}, "structures", split="train[:5]+test")
answer["config"] = outcome({REPO!r}, "raw16")
answer["split"] = outcome({REPO!r}, split="dev")
answer["revision"] = outcome({REPO!r}, revision="v9.9.9")
answer["repository"] = outcome("atomvision/nothing")
"""
    )
    assert answer["newest"] == {"train": 20, "test": 10}
    assert (answer["first"], answer["streamed"], answer["part"]) == (30, 30, 15)
    assert f"LOG atomvision_hub.data.load {REPO}: v1.1.0 (newest version)" in answer["stderr"]
    assert answer["config"] == (
        f"UsageError: {REPO} v1.1.0 has no config 'raw16'; it has: default, structures"
    )
    assert "has no split 'dev'; it has: test, train" in answer["split"]
    assert answer["revision"] == f"AtomVisionError: {REPO} has no revision 'v9.9.9'; its tags: v1.0.0, v1.1.0"
    assert answer["repository"].startswith("AtomVisionError: atomvision/nothing does not exist at")

    # The second time nothing is downloaded, and offline the versions in the cache still serve.
    hub.forget()
    again = in_subprocess(
        PINNED
        + 'import sys\nanswer["heavy"] = sorted({"torch", "transformers", "jarvis"} & set(sys.modules))'
    )
    assert again["heavy"] == []  # (`datasets` itself imports torch for streaming)
    assert (again["newest"], again["first"]) == (answer["newest"], answer["first"])
    assert not [request for request in hub.requests("GET") if "/storage/" in request["path"]]
    offline = in_subprocess(
        PINNED + f"answer['missing'] = outcome({REPO!r}, 'structures', revision='v1.0.0')", HF_HUB_OFFLINE="1"
    )
    assert (offline["newest"], offline["first"]) == (answer["newest"], answer["first"])
    assert "v1.1.0 (newest version in the cache, the Hub cannot be reached)" in offline["stderr"]
    assert "is missing in the cache; connect to the network to load the rest of" in offline["missing"]
    nowhere = "http://127.0.0.1:9"
    unreachable = in_subprocess(PINNED, HF_ENDPOINT=nowhere)
    assert (unreachable["newest"], unreachable["first"]) == (answer["newest"], answer["first"])
    nothing = in_subprocess(PINNED.partition('answer["first"]')[0], HF_ENDPOINT=nowhere, cache="empty")
    assert nothing["newest"].startswith(f"NetworkNeededError: cannot reach {nowhere}")
    nothing = in_subprocess(PINNED, HF_HUB_OFFLINE="1", cache="empty")
    assert nothing["newest"] == nothing["first"]
    assert nothing["first"].startswith(f"NetworkNeededError: {REPO} needs the Hub, but offline mode is on")


def test_trouble_while_downloading(hub: Any, published: Any, in_subprocess: Any) -> None:
    hub.fault(method="GET", path="/storage/objects", kind="cut", after_bytes=70_000, times=2)
    hub.fault(method="GET", path="/storage/objects", kind="status", status=503)
    hub.fault(method="GET", path="/storage/objects", kind="stall", seconds=30)
    hub.fault(method="HEAD", path="manifest.json", kind="status", status=503)
    hub.fault(method="GET", path="/refs", kind="stall", seconds=30)
    answer = in_subprocess(
        # The client writes what it has received in pieces of 10 MB: smaller ones show that it goes on.
        "import huggingface_hub.constants as c\nc.DOWNLOAD_CHUNK_SIZE = 10_000\n"
        "from atomvision_hub.data import _hub\n_hub.STALL_SECONDS = 1.0\n" + PINNED,
        HF_HUB_DOWNLOAD_TIMEOUT="1",
    )
    assert answer["newest"] == {"train": 20, "test": 10}
    assert answer["first"] == 30
    # After a cut the download went on from where it was.
    assert any((request["range"] or "") == "bytes=70000-" for request in hub.requests("GET", "/storage/"))


def test_repository_without_versions_or_of_another_kind(
    hub: Any, api: Api, versions: Any, tmp_path: Path, in_subprocess: Any
) -> None:
    client = api()
    future = Path(shutil.copytree(versions[0], tmp_path / "future"))
    manifest = json.loads((future / "manifest.json").read_text())
    (future / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 2}))
    for name, folder in (("untagged", versions[0]), ("future", future)):
        client.create_repo(f"atomvision/{name}", repo_type="dataset")
        client.upload_folder(repo_id=f"atomvision/{name}", repo_type="dataset", folder_path=folder)
    client.create_tag("atomvision/future", tag="v2.0.0", repo_type="dataset")
    client.create_repo("atomvision/foreign", repo_type="dataset")
    client.create_tag("atomvision/foreign", tag="v1.0.0", repo_type="dataset")
    answer = in_subprocess("""
from atomvision_hub.data import load_dataset
for name in ("untagged", "future", "foreign"):
    try:
        load_dataset(f"atomvision/{name}")
    except Exception as error:
        answer[name] = f"{type(error).__name__}: {error}"
answer["by_branch"] = len(load_dataset("atomvision/untagged", revision="main", split="train"))
""")
    assert (
        "AtomVisionError: atomvision/untagged has no version tag vX.Y.Z; pass revision=" in answer["untagged"]
    )
    assert answer["future"] == (
        "AtomVisionError: atomvision/future v2.0.0 has schema version 2, this atomvision-hub reads 1; "
        "upgrade with `pip install -U atomvision-hub` or load an older version of the dataset"
    )
    assert answer["foreign"].endswith("v1.0.0 has no manifest.json: it is no dataset of this project")
    assert answer["by_branch"] == 30


# --- folders, in this process ---


@pytest.fixture
def folder(versions: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return Path(shutil.copytree(versions[0], tmp_path / "dataset"))


def change(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_folder(folder: Path) -> None:
    assert {name: len(split) for name, split in load_dataset(folder).items()} == {"train": 30, "test": 10}
    assert len(load_dataset(str(folder), "structures", split="test")) == 10
    assert next(iter(load_dataset(folder, split="train", streaming=True)))["id"] == "train-0-0"


def test_the_only_config_is_the_default_one(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change(folder, files={name: facts for name, facts in files.items() if "structures" in name})
    assert len(load_dataset(folder, split="test")) == 10


def test_folder_has_no_revisions(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder and has no revisions; leave out revision='v1\.0\.0'"):
        load_dataset(folder, revision="v1.0.0")


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(2, "upgrade with `pip install -U atomvision-hub`"), (0, "build it again"), (None, "build it again")],
)
def test_schema_version_is_checked(folder: Path, version: int | None, remedy: str) -> None:
    change(folder, schema_version=version)
    with pytest.raises(AtomVisionError, match=rf"has schema version {version}, this .* reads 1; .*{remedy}"):
        load_dataset(folder)


def test_half_copied_folder_is_noticed(folder: Path) -> None:
    shard = folder / "data/default/train-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(AtomVisionError, match="has another size than the manifest says; build or download"):
        load_dataset(folder)
    shard.unlink()
    with pytest.raises(AtomVisionError, match="is missing; build or download"):
        load_dataset(folder)
    assert len(load_dataset(folder, "structures", split="train")) == 30


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema_version": 1}'])
def test_damaged_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(AtomVisionError, match=r"manifest\.json is damaged; build or download"):
        load_dataset(folder)


def test_neither_folder_nor_repository(tmp_path: Path) -> None:
    with pytest.raises(AtomVisionError, match="is neither a folder nor a Hub id"):
        load_dataset(tmp_path / "nothing")
    with pytest.raises(AtomVisionError, match=r"holds no manifest\.json: it is no finished dataset"):
        load_dataset(tmp_path)
