"""The loopback Hub itself: what it answers is what the clients' source and the documentation say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = "alice/model"
Api = Callable[..., HfApi]


@pytest.fixture
def client(api: Api) -> HfApi:
    """A client that may write, with an empty repository."""
    made = api()
    made.create_repo(REPO)
    return made


def add(client: HfApi, files: dict[str, bytes], **options: Any) -> Any:
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return client.create_commit(REPO, operations, commit_message="add", **options)


def get(hub: Any, path: str, token: str | None = "hf_alicewrites", **headers: str) -> httpx.Response:
    if token:
        headers["authorization"] = f"Bearer {token}"
    return httpx.get(f"{hub.url}{path}", headers=headers, follow_redirects=True)


def test_who_am_i(api: Api) -> None:
    me = api("hf_alicereads").whoami()
    assert (me["name"], me["orgs"][0]["name"]) == ("alice", "atomvision")
    assert me["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api("hf_neverissued").whoami()


def test_object_names_are_those_of_git(client: HfApi, tmp_path: Path) -> None:
    files = {"a.txt": b"one\n", "b/c.txt": b"two\n", "b.txt": b"three\n", "b/d/e.md": b"four\n"}
    add(client, files)
    files[".gitattributes"] = Path(client.hf_hub_download(REPO, ".gitattributes")).read_bytes()
    folder = tmp_path / "git"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout

    git("init", "--quiet")
    git("add", "--all")
    tree = git("write-tree").strip()
    expected = {}
    for line in git("ls-tree", "-r", "-t", tree).splitlines():
        facts, name = line.split("\t")
        expected[name] = facts.split()[2]
    found = client.list_repo_tree(REPO, recursive=True)
    assert {entry.path: getattr(entry, "blob_id", None) or entry.tree_id for entry in found} == expected


def test_create_exists_move_delete(client: HfApi, api: Api) -> None:
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as caught:
        client.create_repo(REPO)
    assert caught.value.response.status_code == 409
    assert str(client.create_repo(REPO, exist_ok=True)).endswith(REPO)
    with pytest.raises(HfHubHTTPError, match="403"):
        api("hf_mallory").create_repo("atomvision/theirs")
    client.move_repo(REPO, "atomvision/moved")
    assert client.model_info("atomvision/moved").sha
    assert not client.repo_exists(REPO)
    client.update_repo_settings("atomvision/moved", private=True)
    assert client.model_info("atomvision/moved").private
    assert [model.id for model in client.list_models(author="atomvision")] == ["atomvision/moved"]
    assert not list(api(False).list_models(author="atomvision"))
    client.delete_repo("atomvision/moved")
    assert not client.repo_exists("atomvision/moved")


def test_who_may_see_a_private_repository(hub: Any, client: HfApi, api: Api) -> None:
    client.update_repo_settings(REPO, private=True)
    for token, status in ((None, 401), ("hf_mallory", 404)):
        response = get(hub, f"/api/models/{REPO}", token)
        assert (response.status_code, response.headers["X-Error-Code"]) == (status, "RepoNotFound")
        assert get(hub, f"/{REPO}/resolve/main/.gitattributes", token).status_code == status
    assert get(hub, f"/api/models/{REPO}", "hf_neverissued").status_code == 401
    reader = api("hf_alicereads")
    assert reader.file_exists(REPO, ".gitattributes")
    reader.auth_check(REPO)
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_tag(REPO, tag="v1")
    with pytest.raises(HfHubHTTPError, match="403"):
        add(reader, {"x": b"1"})


def test_branches_tags_and_history(client: HfApi) -> None:
    first = add(client, {"a.txt": b"1"}).oid
    client.create_branch(REPO, branch="try/this", revision=first)
    second = add(client, {"a.txt": b"2"}, revision="try/this").oid
    client.create_tag(REPO, tag="v1", revision="try/this", tag_message="first")
    refs = client.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "try/this": second}
    assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1", second)]
    assert len(client.list_repo_commits(REPO, revision="v1")) == 3
    for revision in (second, second[:7], "refs/heads/try/this"):
        assert client.model_info(REPO, revision=revision).sha == second
    with pytest.raises(HfHubHTTPError, match="409"):
        client.create_tag(REPO, tag="v1")
    with pytest.raises(BadRequestError):
        client.create_tag(REPO, tag="a..b")
    client.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        client.delete_tag(REPO, tag="v1")
    client.delete_branch(REPO, branch="try/this")
    with pytest.raises(HfHubHTTPError, match="403"):
        client.delete_branch(REPO, branch="main")
    client.super_squash_history(REPO)
    assert len(client.list_repo_commits(REPO)) == 1


def test_commits(client: HfApi) -> None:
    parent = client.model_info(REPO).sha
    binary = bytes(range(256)) * 1000
    add(client, {"a/x.txt": b"1", "a/y.txt": b"2", "weights.safetensors": binary}, parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        add(client, {"z.txt": b"3"}, parent_commit=parent)
    assert caught.value.response.status_code == 412
    client.create_commit(
        REPO,
        [
            CommitOperationDelete("a/", is_folder=True),
            CommitOperationCopy("weights.safetensors", "copy.safetensors"),
        ],
        commit_message="rearrange",
    )
    assert set(client.list_repo_files(REPO)) == {".gitattributes", "weights.safetensors", "copy.safetensors"}
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        client.delete_file("a/x.txt", REPO)
    request = add(client, {"z.txt": b"3"}, create_pr=True)
    assert request.pr_num == 1
    assert client.file_exists(REPO, "z.txt", revision="refs/pr/1")
    assert not client.file_exists(REPO, "z.txt")


def test_what_goes_through_lfs(client: HfApi) -> None:
    add(
        client,
        {"small.json": b"{}", "w.safetensors": b"text", "odd.dat": b"a\0b", "log.txt": b"x" * 11_000_000},
    )
    info = {
        file.path: file
        for file in client.get_paths_info(REPO, ["small.json", "w.safetensors", "odd.dat", "log.txt"])
    }
    assert {name for name, file in info.items() if file.lfs} == {"w.safetensors", "odd.dat", "log.txt"}
    assert info["log.txt"].lfs.size == 11_000_000
    # Binary files of unknown kinds are written down in .gitattributes.
    path = client.hf_hub_download(REPO, ".gitattributes")
    assert "odd.dat filter=lfs diff=lfs merge=lfs -text" in Path(path).read_text()


def test_objects_of_others_cannot_be_claimed(hub: Any, client: HfApi, api: Api) -> None:
    secret = b"\0secret" * 100
    sha256 = add(client, {"w.bin": secret}) and client.get_paths_info(REPO, "w.bin")[0].lfs.sha256
    thief = api("hf_mallory")
    thief.create_repo("mallory/copy")
    line = {
        "key": "lfsFile",
        "value": {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": len(secret)},
    }
    body = "\n".join(json.dumps(one) for one in ({"key": "header", "value": {"summary": "mine"}}, line))
    response = httpx.post(
        f"{hub.url}/api/models/mallory/copy/commit/main",
        content=body,
        headers={"authorization": "Bearer hf_mallory", "content-type": "application/x-ndjson"},
    )
    assert response.status_code == 400
    assert "does not exist" in response.json()["error"]


def test_listings_come_in_pages(hub: Any, client: HfApi) -> None:
    names = {f"folder/{number:02d}.txt" for number in range(10)}
    add(client, dict.fromkeys(names, b"x"))
    hub.forget()
    found = [entry.path for entry in client.list_repo_tree(REPO, recursive=True)]
    assert found == sorted({".gitattributes", "folder", *names})
    assert len(hub.requests("GET", "/tree/")) == 4
    assert [entry.path for entry in client.list_repo_tree(REPO)] == [".gitattributes", "folder"]
    assert len(list(client.list_repo_tree(REPO, "folder", expand=True))) == 10
    with pytest.raises(EntryNotFoundError):
        list(client.list_repo_tree(REPO, "nowhere"))


def test_downloads(hub: Any, client: HfApi) -> None:
    content = bytes(range(256)) * 10
    commit = add(client, {"deep/w.bin": content, "ä b%2F.txt": b"strange name"}).oid
    response = get(hub, f"/{REPO}/resolve/main/deep/w.bin", Range="bytes=10-19")
    assert (response.status_code, response.content) == (206, content[10:20])
    assert response.headers["Content-Range"] == "bytes 10-19/2560"
    assert get(hub, f"/{REPO}/resolve/main/deep/w.bin", Range="bytes=-5").content == content[-5:]
    assert get(hub, f"/{REPO}/resolve/main/deep/w.bin", Range="bytes=9999-").status_code == 416
    head = httpx.head(f"{hub.url}/{REPO}/resolve/main/deep/w.bin")
    sha256 = client.get_paths_info(REPO, "deep/w.bin")[0].lfs.sha256
    assert head.status_code == 302
    assert head.headers["X-Repo-Commit"] == commit
    assert (head.headers["X-Linked-ETag"], head.headers["X-Linked-Size"]) == (f'"{sha256}"', "2560")
    assert Path(client.hf_hub_download(REPO, "ä b%2F.txt")).read_bytes() == b"strange name"
    for path, code in (("main/none", "EntryNotFound"), ("none/deep/w.bin", "RevisionNotFound")):
        missing = get(hub, f"/{REPO}/resolve/{path}")
        assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, code)
    with pytest.raises(RepositoryNotFoundError):
        client.hf_hub_download("alice/nothing", "x")


def test_signed_addresses(hub: Any, client: HfApi) -> None:
    add(client, {"w.bin": b"\0" * 10})
    place = httpx.head(f"{hub.url}/{REPO}/resolve/main/w.bin").headers["location"]
    assert httpx.get(place).status_code == 200
    assert httpx.put(place, content=b"x").status_code == 405
    for spoilt in (place[:-1] + ("0" if place[-1] != "0" else "1"), place.partition("?")[0]):
        assert httpx.get(spoilt).status_code == 403


def test_cards_are_checked(client: HfApi) -> None:
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        add(client, {"README.md": b"---\ntags: [\n---\n"})
    add(client, {"README.md": b"---\npipeline_tag: image-classification\ntags: [a]\n---\n"})
    info = client.model_info(REPO)
    assert (info.pipeline_tag, info.tags) == ("image-classification", ["a"])
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        add(client, {"README.md": b"# nothing\n"})
