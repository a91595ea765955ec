"""Changing a repository: preupload, commits as NDJSON, branches, tags."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import HubError, commit_of, repository_of, token_of
from .paths import REPOSITORY, revision_of
from .store import File, Repository, Store, follows_lfs

#: Larger files, and binary ones, must go through Git-LFS.
LARGEST_REGULAR = 10 * 1024**2

Files = dict[str, File]


def _text(store: Store, tree: Files, path: str) -> str:
    file = tree.get(path)
    return store.read(file).decode() if file and not file.lfs else ""


async def preupload(request: Request) -> Response:
    repository = repository_of(request, write=True)
    tree = commit_of(repository, revision_of(request)).tree
    store: Store = request.app.state.store
    body = await request.json()
    attributes = _text(store, dict(tree), ".gitattributes")
    ignored = body.get("gitIgnore", _text(store, dict(tree), ".gitignore")).split()
    answers = []
    for asked in body["files"]:
        path, sample = asked["path"], base64.b64decode(asked["sample"])
        lfs = follows_lfs(attributes, path) or asked["size"] > LARGEST_REGULAR or b"\0" in sample
        answer: dict[str, Any] = {
            "path": path,
            "uploadMode": "lfs" if lfs else "regular",
            "shouldIgnore": any(PurePosixPath(path).match(pattern) for pattern in ignored),
        }
        if path in tree:
            answer["oid"] = tree[path].etag
        answers.append(answer)
    return JSONResponse({"files": answers, "commitOid": commit_of(repository, revision_of(request)).oid})


async def commit(request: Request) -> Response:
    repository = repository_of(request, write=True)
    branch = revision_of(request)
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
    headers = [line["value"] for line in lines if line["key"] == "header"]
    if len(headers) != 1 or not headers[0].get("summary"):
        raise HubError(400, "A commit needs one header with a summary")
    head = commit_of(repository, branch)
    parent = headers[0].get("parentCommit")
    if parent and not head.oid.startswith(parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    token = token_of(request)
    assert token is not None
    tree = dict(head.tree)
    for line in lines:
        if line["key"] != "header":
            _apply(request.app.state.store, repository, tree, line["key"], line["value"])

    base = str(request.base_url).rstrip("/") + ("" if repository.kind == "model" else f"/{repository.kind}s")
    answer: dict[str, Any] = {"success": True, "hookOutput": ""}
    if request.query_params.get("create_pr") == "1":
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.branches)
        branch = f"refs/pr/{number}"
        repository.branches[branch] = head.oid
        answer["pullRequestUrl"] = f"{base}/{repository.id}/discussions/{number}"
    elif branch not in repository.branches:
        raise HubError(400, f"Cannot commit to {branch}: it is not a branch")
    made = repository.commit(
        branch, tree, token.user, headers[0]["summary"], headers[0].get("description", "")
    )
    answer |= {"commitOid": made.oid, "commitUrl": f"{base}/{repository.id}/commit/{made.oid}"}
    return JSONResponse(answer)


def _apply(store: Store, repository: Repository, tree: Files, key: str, value: dict[str, Any]) -> None:
    """Carry out one operation of a commit on `tree`."""
    path = str(value["path"]).rstrip("/")
    if not path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(400, f"Invalid path: {path!r}")
    operations: dict[str, Callable[[], None]] = {
        "file": lambda: _add_regular(store, tree, path, value),
        "lfsFile": lambda: _add_lfs(store, repository, tree, path, value),
        "deletedFile": lambda: _delete(tree, lambda name: name == path),
        "deletedFolder": lambda: _delete(tree, lambda name: name.startswith(path + "/")),
    }
    if key not in operations:
        raise HubError(400, f"Unknown operation {key!r}")
    operations[key]()


def _add_regular(store: Store, tree: Files, path: str, value: dict[str, Any]) -> None:
    content = value["content"]
    data = base64.b64decode(content) if value.get("encoding") == "base64" else content.encode()
    if len(data) > LARGEST_REGULAR or b"\0" in data[:512]:
        raise HubError(400, f"{path}: large and binary files must be uploaded through Git-LFS")
    store.write(data)
    tree[path] = File.regular(data)


def _add_lfs(store: Store, repository: Repository, tree: Files, path: str, value: dict[str, Any]) -> None:
    oid = value["oid"]
    if oid not in repository.objects:
        raise HubError(400, f"{path}: LFS pointer pointed to a file that does not exist")
    tree[path] = File.pointer(oid, repository.objects[oid])
    attributes = _text(store, tree, ".gitattributes")
    if not follows_lfs(attributes, path):
        attributes += f"{path} filter=lfs diff=lfs merge=lfs -text\n"
        store.write(attributes.encode())
        tree[".gitattributes"] = File.regular(attributes.encode())


def _delete(tree: Files, chosen: Callable[[str], bool]) -> None:
    names = [name for name in tree if chosen(name)]
    if not names:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    for name in names:
        del tree[name]


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"(?!refs/|/|-)(?!.*(\.\.|//|@\{))[\w./+-]+(?<![/.])", name) or re.fullmatch(
        r"[0-9a-f]{40}", name
    ):
        raise HubError(400, f"Invalid reference name: {name}")
    return name


async def create_tag(request: Request) -> Response:
    repository = repository_of(request, write=True)
    name = _checked_name((await request.json())["tag"])
    if name in repository.tags:
        raise HubError(409, f"Tag {name} already exists")
    repository.tags[name] = commit_of(repository, revision_of(request)).oid
    return JSONResponse({"ref": f"refs/tags/{name}"})


async def delete_tag(request: Request) -> Response:
    repository = repository_of(request, write=True)
    if repository.tags.pop(revision_of(request), None) is None:
        raise HubError(404, f"Tag {revision_of(request)} does not exist", "RevisionNotFound")
    return Response("OK")


async def create_branch(request: Request) -> Response:
    repository = repository_of(request, write=True)
    name = _checked_name(unquote(request.path_params["branch"]))
    body = json.loads(await request.body() or b"{}")
    if name in repository.branches and not body.get("overwrite"):
        raise HubError(409, f"Reference {name} already exists")
    repository.branches[name] = commit_of(repository, body.get("startingPoint", "main")).oid
    return Response("OK")


async def delete_branch(request: Request) -> Response:
    repository = repository_of(request, write=True)
    name = unquote(request.path_params["branch"])
    if name == "main":
        raise HubError(403, "Cannot delete the main branch")
    if repository.branches.pop(name, None) is None:
        raise HubError(404, f"Branch {name} does not exist", "RevisionNotFound")
    return Response("OK")


async def super_squash(request: Request) -> Response:
    repository = repository_of(request, write=True)
    branch = unquote(request.path_params["branch"])
    if branch not in repository.branches:
        raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    token = token_of(request)
    assert token is not None
    title = json.loads(await request.body() or b"{}").get("message") or "Super-squash branch"
    repository.commit(branch, commit_of(repository, branch).tree, token.user, title, root=True)
    return Response("OK")


routes = [
    Route(REPOSITORY + "/preupload/{revision}", preupload, methods=["POST"]),
    Route(REPOSITORY + "/commit/{revision}", commit, methods=["POST"]),
    Route(REPOSITORY + "/tag/{revision}", create_tag, methods=["POST"]),
    Route(REPOSITORY + "/tag/{revision}", delete_tag, methods=["DELETE"]),
    Route(REPOSITORY + "/branch/{branch}", create_branch, methods=["POST"]),
    Route(REPOSITORY + "/branch/{branch}", delete_branch, methods=["DELETE"]),
    Route(REPOSITORY + "/super-squash/{branch}", super_squash, methods=["POST"]),
]
