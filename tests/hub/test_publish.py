"""Publishing: what reaches the Hub, tags that do not move, failures of the server and of the line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from atomvision_hub.data import _hub
from atomvision_hub.data.publish import PushReport, push_dataset, push_model
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError

REPO = "atomvision/stem2d"
Versions = tuple[Path, Path]
Api = Callable[..., HfApi]


@pytest.fixture
def push(hub: Any, api: Api) -> Callable[..., PushReport]:
    def run(
        folder: Path, tag: str = "v1.0.0", token: str | None = "hf_alicewrites", **options: Any
    ) -> PushReport:
        return push_dataset(folder, REPO, tag=tag, token=token, endpoint=hub.url, **options)

    return run


def remote_files(client: HfApi, revision: str) -> set[str]:
    return set(client.list_repo_files(REPO, repo_type="dataset", revision=revision))


def test_push_puts_the_folder_on_the_hub_to_the_letter(
    hub: Any, api: Api, push: Any, versions: Versions
) -> None:
    report = push(versions[0])
    client = api()
    files = json.loads((versions[0] / "manifest.json").read_text())["files"]
    assert remote_files(client, "v1.0.0") == {*files, "README.md", "manifest.json", ".gitattributes"}
    assert report.published
    assert client.repo_info(REPO, repo_type="dataset", revision="v1.0.0").sha == report.commit
    assert report.url == f"{hub.url}/datasets/{REPO}/tree/v1.0.0"
    assert str(report).startswith(f"published {REPO} v1.0.0 (commit {report.commit[:12]})")
    for entry in client.list_repo_tree(REPO, recursive=True, repo_type="dataset"):
        if entry.path in files:
            assert entry.lfs is not None
            assert entry.lfs.sha256 == files[entry.path]["sha256"]
    # Storage got signed addresses, never the token.
    uploads = hub.requests(path="/storage/")
    assert {request["host"] for request in hub.requests("PUT")} == {"localhost"}
    assert not any(request["authorization"] for request in uploads)


def test_second_version_replaces_files_and_keeps_the_first(api: Api, push: Any, versions: Versions) -> None:
    first, second = push(versions[0]), push(versions[1], "v1.1.0")
    client = api()
    assert "data/default/train-00002-of-00003.parquet" in remote_files(client, "v1.0.0")
    shards = {name for name in remote_files(client, "v1.1.0") if name.startswith("data/default/train-")}
    assert shards == {f"data/default/train-0000{index}-of-00002.parquet" for index in (0, 1)}
    refs = client.list_repo_refs(REPO, repo_type="dataset")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {
        "v1.0.0": first.commit,
        "v1.1.0": second.commit,
    }


def test_pushing_the_same_again_changes_nothing(hub: Any, push: Any, versions: Versions) -> None:
    first = push(versions[0])
    hub.forget()
    again = push(versions[0])
    assert (again.commit, again.published) == (first.commit, False)
    assert "already published" in str(again)
    assert {request["method"] for request in hub.requests()} == {"GET"}


def test_same_content_may_get_another_tag(push: Any, versions: Versions) -> None:
    first, other = push(versions[0]), push(versions[0], "v1.0.1")
    assert other.published
    assert other.commit == first.commit


def test_a_published_tag_never_moves(hub: Any, push: Any, versions: Versions) -> None:
    push(versions[0])
    push(versions[0], "v1.4.2")
    hub.forget()
    with pytest.raises(AtomVisionError, match=r"v1\.0\.0 is already published .* as v1\.4\.3 or higher"):
        push(versions[1])
    assert {request["method"] for request in hub.requests()} == {"GET"}


@pytest.mark.parametrize("tag", ["1.0.0", "v1.0", "v01.0.0", "v1.0.0-rc1", "main", "v1.0.0 "])
def test_tags_have_one_form(push: Any, versions: Versions, tag: str) -> None:
    with pytest.raises(UsageError, match=r"is no version; write vX\.Y\.Z"):
        push(versions[0], tag)


@pytest.mark.parametrize("repo_id", ["stem2d", "a/b/c", "atomvision/stem 2d", "atomvision/a--b", "/x", "x/"])
def test_repository_names_are_checked(versions: Versions, repo_id: str) -> None:
    with pytest.raises(UsageError, match="is no repository name; write ORG/NAME"):
        push_dataset(versions[0], repo_id, tag="v1.0.0")


def test_private_repository(api: Api, push: Any, versions: Versions) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    push(versions[0], private=True)
    assert api().repo_info(REPO, repo_type="dataset").private
    for stranger in (False, "hf_mallory"):
        with pytest.raises(RepositoryNotFoundError):
            api(stranger).repo_info(REPO, repo_type="dataset")


def test_private_push_to_a_public_repository_is_refused(hub: Any, push: Any, versions: Versions) -> None:
    push(versions[0])
    hub.forget()
    with pytest.raises(AtomVisionError, match="is public; make it private"):
        push(versions[1], "v2.0.0", private=True)
    assert not hub.requests("PUT")


def test_other_repositories_are_not_cleared(api: Api, push: Any, versions: Versions, tmp_path: Path) -> None:
    client = api()
    client.create_repo(REPO, repo_type="dataset")
    client.upload_file(path_or_fileobj=b"1", path_in_repo="mine.csv", repo_id=REPO, repo_type="dataset")
    with pytest.raises(
        AtomVisionError, match=r"holds other files \(mine\.csv\) and was not published from here"
    ):
        push(versions[0])
    client.delete_file("mine.csv", REPO, repo_type="dataset")
    push(versions[0])
    other = Path(shutil.copytree(versions[1], tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"dataset": "stm2d"}))
    with pytest.raises(AtomVisionError, match="holds dataset stem2d, not stm2d; choose another name"):
        push(other, "v2.0.0")


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_neverissued", "does not accept the token; set HF_TOKEN"),
        ("hf_alicereads", "the token may not write to atomvision/stem2d; use one with write permission"),
        ("hf_mallory", "the token may not write to atomvision/stem2d; use one with write permission"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_tokens_that_may_not(push: Any, versions: Versions, token: str, message: str, exists: bool) -> None:
    if exists:
        push(versions[0])
    with pytest.raises(AtomVisionError, match=message) as caught:
        push(versions[1], "v2.0.0", token=token)
    assert "\n" not in str(caught.value)
    assert token not in str(caught.value)


def test_no_token(hub: Any, push: Any, versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent")
    with pytest.raises(AtomVisionError, match="publishing needs a token; set HF_TOKEN"):
        push(versions[0], token=None)
    assert not hub.requests()


def test_no_server(api: Api, versions: Versions, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NetworkNeededError, match=r"cannot reach http://127\.0\.0\.1:9 .* check the network"):
        push_dataset(versions[0], REPO, tag="v1.0.0", token="hf_x", endpoint="http://127.0.0.1:9")
    assert "ConnectError" in caplog.text
    assert "hf_x" not in caplog.text


# --- the folder ---


@pytest.fixture
def folder(versions: Versions, tmp_path: Path) -> Path:
    return Path(shutil.copytree(versions[0], tmp_path / "dataset"))


def test_unfinished_folder(push: Any, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(AtomVisionError, match=r"holds no manifest\.json: it is no finished dataset"):
        push(folder)
    with pytest.raises(AtomVisionError, match="there is no folder"):
        push(folder / "nowhere")


def test_corrupted_shard_is_not_published(hub: Any, push: Any, folder: Path) -> None:
    shard = folder / "data/default/train-00001-of-00003.parquet"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(AtomVisionError, match=r"train-00001-of-00003\.parquet differs from the manifest"):
        push(folder)
    shard.unlink()
    with pytest.raises(AtomVisionError, match=r"lacks data/default/train-00001-of-00003\.parquet"):
        push(folder)
    assert not hub.requests()


def test_manifest_cannot_reach_outside(push: Any, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"sha256": "", "bytes": 1}
    (folder.parent / "secret").write_text("x")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AtomVisionError, match=r"lacks \.\./secret"):
        push(folder)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("# none\n", "lacks configs, dataset_info, license"),
        ("---\nlicense: [\n---\n", "lacks configs, dataset_info, license"),
        (
            "---\nlicense: mit\nconfigs: [{}]\ndataset_info: [{}]\n---\n[More Information Needed]",
            "not filled",
        ),
    ],
)
def test_poor_cards_are_not_published(push: Any, folder: Path, card: str, message: str) -> None:
    (folder / "README.md").write_text(card)
    with pytest.raises(AtomVisionError, match=message):
        push(folder)


# --- failures on the way ---


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "POST", "path": "/commit/", "kind": "status", "status": 503, "times": 2},
        {"method": "POST", "path": "/commit/", "kind": "cut"},
        {"method": "POST", "path": "/tag/", "kind": "cut"},
        {"method": "POST", "path": "/tag/", "kind": "status", "status": 502},
        {"method": "POST", "path": "/repos/create", "kind": "cut"},
        {"method": "GET", "path": "/refs", "kind": "status", "status": 500},
        {"method": "GET", "path": "/tree/", "kind": "cut", "after_bytes": 50},
        {"method": "PUT", "kind": "cut_upload", "after_bytes": 50000},
        {"method": "PUT", "kind": "status", "status": 503},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('path', 'upload')}",
)
def test_passing_failures_are_overcome(
    hub: Any, api: Api, push: Any, versions: Versions, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fault(**fault)
    report = push(versions[0])
    client = api()
    # Also when the answer to a commit was lost: one commit (beside the initial one), tagged.
    assert len(client.list_repo_commits(REPO, repo_type="dataset")) == 2
    refs = client.list_repo_refs(REPO, repo_type="dataset")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1.0.0": report.commit}
    assert any(request["status"] in (None, fault.get("status")) for request in hub.requests())


def test_stalled_server_is_not_waited_for(
    hub: Any, push: Any, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hub, "STALL_SECONDS", 0.5)
    hub.fault(method="POST", path="/commit/", kind="stall", seconds=200)
    start = time.monotonic()
    assert push(versions[0]).published
    assert time.monotonic() - start < 100


def test_server_that_keeps_failing(hub: Any, api: Api, push: Any, versions: Versions) -> None:
    hub.fault(method="POST", path="/commit/", kind="status", status=503, times=100)
    with pytest.raises(AtomVisionError, match=r"keeps failing \(status 503\); run the same command later"):
        push(versions[0])
    assert remote_files(api(), "main") == {".gitattributes"}
    assert not api().list_repo_refs(REPO, repo_type="dataset").tags


def test_killed_upload_goes_on_where_it_stopped(
    hub: Any, api: Api, push: Any, versions: Versions, client_environment: Any, tmp_path: Path
) -> None:
    """After SIGKILL nothing is visible on the Hub, and the next push sends only what is missing."""
    # The second parts of two shards never come through; everything else does.
    sizes = {path.name: path.stat().st_size for path in (versions[0] / "data/default").iterdir()}
    assert all(size > 100_000 for size in sizes.values())
    hub.fault(method="PUT", path="/2$", kind="stall", seconds=200, times=2)
    program = (
        "from atomvision_hub.data.publish import push_dataset\n"
        f"push_dataset({str(versions[0])!r}, {REPO!r}, tag='v1.0.0')"
    )
    environment = client_environment(tmp_path / "home", "hf_alicewrites")
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        wait_until(lambda: len(finished_objects(hub)) >= 6)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert remote_files(api(), "main") == {".gitattributes"}
    sent = finished_objects(hub)
    hub.forget()
    assert push(versions[0]).published
    sent_later = finished_objects(hub)
    assert len(sent_later) == 2
    assert not sent & sent_later
    assert remote_files(api(), "v1.0.0") >= {"README.md", "manifest.json"}


def test_interrupt_ends_a_stalled_upload_at_once(
    hub: Any, versions: Versions, client_environment: Any, tmp_path: Path
) -> None:
    hub.fault(method="PUT", kind="stall", seconds=200, times=100)
    program = (
        "from atomvision_hub.data.publish import exit_on_interrupt, push_dataset\n"
        f"with exit_on_interrupt():\n    push_dataset({str(versions[0])!r}, {REPO!r}, tag='v1.0.0')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=client_environment(tmp_path / "home", "hf_alicewrites"),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: bool(hub.requests("PUT")))
    process.send_signal(signal.SIGINT)
    _, line = process.communicate(timeout=30)
    assert (process.returncode, line) == (
        1,
        "interrupted; what is uploaded is kept, the same command goes on\n",
    )


def finished_objects(hub: Any) -> set[str]:
    """Return the Git-LFS objects whose upload was verified."""
    whole = {
        r["path"].split("/")[6]
        for r in hub.requests("PUT")
        if r["status"] == 200 and r["path"].count("/") == 6
    }
    parts = {r["path"].split("/")[6] for r in hub.requests("POST", "/complete") if r["status"] == 200}
    return whole | parts


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# --- models ---


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "state").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nlicense: mit\nlibrary_name: timm\npipeline_tag: image-classification\n---\n"
    )
    (folder / "config.json").write_text("{}")
    (folder / "facts.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * 300_000)
    (folder / "curves.png").write_bytes(b"\x89PNG\0")
    for stray in (
        "optimizer.bin",
        "random.pkl",
        ".hidden.json",
        "model.safetensors.part",
        "state/state.json",
    ):
        (folder / stray).write_bytes(b"x")
    return folder


def test_push_model(hub: Any, api: Api, model_folder: Path) -> None:
    report = push_model(
        model_folder, "atomvision/classifier", tag="v0.1.0", token="hf_alicewrites", endpoint=hub.url
    )
    assert report.url == f"{hub.url}/atomvision/classifier/tree/v0.1.0"
    files = api().list_repo_files("atomvision/classifier", revision="v0.1.0")
    expected = {".gitattributes", "README.md", "config.json", "curves.png", "facts.json", "model.safetensors"}
    assert set(files) == expected
    again = push_model(
        model_folder, "atomvision/classifier", tag="v0.1.0", token="hf_alicewrites", endpoint=hub.url
    )
    assert not again.published


def test_unfinished_model(model_folder: Path) -> None:
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(AtomVisionError, match="lacks library_name, pipeline_tag in its metadata"):
        push_model(model_folder, "atomvision/classifier", tag="v0.1.0")
    (model_folder / "facts.json").unlink()
    with pytest.raises(AtomVisionError, match=r"holds no facts\.json: it is no finished model"):
        push_model(model_folder, "atomvision/classifier", tag="v0.1.0")
