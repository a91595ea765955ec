"""File contents: Git-LFS uploads, and downloads by revision.

Large files are not served by the Hub itself: uploads and downloads go to signed addresses of a storage host.
Here that host is ``localhost``, while the Hub is ``127.0.0.1``, so that a client which sends its token on to
the storage is found out.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from .access import HubError, commit_of, repository_of
from .paths import revision_of
from .store import Repository, Store

LFS_JSON = "application/vnd.git-lfs+json"
_VALID_SECONDS = 3600


def _hub(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _signature(request: Request, method: str, path: str, expires: str) -> str:
    secret: bytes = request.app.state.secret
    return hmac.new(secret, f"{method} {path} {expires}".encode(), "sha256").hexdigest()


def signed(request: Request, method: str, path: str, host: str = "localhost") -> str:
    """Return an address, of the storage host by default, that lets its holder do one thing for a while."""
    expires = str(int(time.time()) + _VALID_SECONDS)
    query = urlencode({"Expires": expires, "Signature": _signature(request, method, path, expires)})
    return f"http://{host}:{request.url.port}{path}?{query}"


def check_signature(request: Request, method: str) -> None:
    expires = request.query_params.get("Expires", "0")
    expected = _signature(request, method, request.url.path, expires)
    if int(expires) < time.time() or not hmac.compare_digest(
        expected, request.query_params.get("Signature", "")
    ):
        raise HubError(403, "Request has expired or its signature does not match")


# --- uploads ---


async def batch(request: Request) -> Response:
    body = await request.json()
    upload = body["operation"] == "upload"
    repository = repository_of(request, write=upload)
    if body.get("hash_algo", "sha256") != "sha256":
        raise HubError(409, "only sha256 is known")
    largest = request.app.state.part_size
    multipart = (
        upload
        and "multipart" in body.get("transfers", [])
        and any(o["size"] > largest for o in body["objects"])
    )
    objects = [_actions(request, repository, asked, upload, multipart) for asked in body["objects"]]
    answer = {"transfer": "multipart" if multipart else "basic", "objects": objects, "hash_algo": "sha256"}
    return JSONResponse(answer, media_type=LFS_JSON)


def _actions(
    request: Request, repository: Repository, asked: dict[str, Any], upload: bool, multipart: bool
) -> dict[str, Any]:
    oid, size = asked["oid"], asked["size"]
    answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    known = oid in repository.objects
    if not upload:
        if known:
            answer["actions"] = {"download": {"href": signed(request, "GET", f"/storage/objects/{oid}")}}
        else:
            answer["error"] = {"code": 404, "message": "Object does not exist"}
        return answer
    if known:
        return answer
    git = f"{_hub(request)}{request.scope['raw_path'].decode().removesuffix('/objects/batch')}"
    target = f"/storage/uploads/{repository.kind}/{repository.id}/{oid}"
    action: dict[str, Any] = {"href": signed(request, "PUT", target)}
    part_size = request.app.state.part_size
    if multipart and size > part_size:
        parts = range(1, math.ceil(size / part_size) + 1)
        header = {f"{part:05d}": signed(request, "PUT", f"{target}/{part}") for part in parts}
        action = {
            "href": signed(request, "POST", f"{target}/complete", "127.0.0.1"),
            "header": {"chunk_size": str(part_size), **header},
        }
    answer["actions"] = {"upload": action, "verify": {"href": f"{git}/objects/verify"}}
    return answer


def _part(store: Store, repository: str, oid: str, part: str) -> Path:
    return store.folder / f"{repository.replace('/', '--')}-{oid}-{part}.upload"


async def put(request: Request) -> Response:
    """Store an object, or one part of it; nothing of a broken upload is kept."""
    check_signature(request, "PUT")
    store: Store = request.app.state.store
    asked = request.path_params
    digest = hashlib.sha256()
    content = bytearray()
    async for chunk in request.stream():
        digest.update(chunk)
        content += chunk
    if len(content) != int(request.headers.get("content-length", len(content))):
        raise HubError(400, "IncompleteBody")
    if "part" in asked:
        _part(store, asked["repository"], asked["oid"], asked["part"]).write_bytes(content)
    else:
        _keep(request, bytes(content))
    return Response(headers={"ETag": f'"{digest.hexdigest()[:32]}"'})


def _keep(request: Request, content: bytes) -> None:
    store: Store = request.app.state.store
    kind, _, repo_id = request.path_params["repository"].partition("/")
    if hashlib.sha256(content).hexdigest() != request.path_params["oid"]:
        raise HubError(400, "The content does not have the announced SHA-256")
    store.repositories[kind, repo_id].objects[store.write(content)] = len(content)


async def complete(request: Request) -> Response:
    check_signature(request, "POST")
    store: Store = request.app.state.store
    asked = request.path_params
    parts = [
        _part(store, asked["repository"], asked["oid"], str(part["partNumber"]))
        for part in (await request.json())["parts"]
    ]
    if not all(part.is_file() for part in parts):
        raise HubError(400, "A part was not uploaded")
    _keep(request, b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return JSONResponse({"success": True})


async def verify(request: Request) -> Response:
    repository = repository_of(request, write=True)
    body = await request.json()
    if repository.objects.get(body["oid"]) != body["size"]:
        raise HubError(404, "Object does not exist or has another size")
    return Response()


# --- downloads ---


async def resolve(request: Request) -> Response:
    """Answer with the place of a file, as the Hub does: its cache for regular files, the storage for LFS."""
    repository = repository_of(request)
    commit = commit_of(repository, revision_of(request))
    path = unquote(request.path_params["path"])
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    file = commit.tree.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", **headers)
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"', "ETag": f'"{file.etag}"'}
    if file.lfs:
        headers["Location"] = signed(request, "GET", f"/storage/objects/{file.sha256}")
        return Response(status_code=302, headers=headers)
    where = f"/api/resolve-cache/{repository.kind}s/{repository.id}/{commit.oid}/{quote(path, safe='')}"
    return Response(status_code=307, headers=headers | {"Location": where})


async def resolve_cache(request: Request) -> Response:
    repository = repository_of(request)
    commit = commit_of(repository, revision_of(request))
    file = commit.tree.get(unquote(request.path_params["path"]))
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    name = PurePosixPath(unquote(request.path_params["path"])).name
    return FileResponse(request.app.state.store.path(file.sha256), headers=headers, filename=name)


async def stored_object(request: Request) -> Response:
    check_signature(request, "GET")
    oid = request.path_params["oid"]
    path = request.app.state.store.path(oid)
    if not path.is_file():
        raise HubError(404, "NoSuchKey")
    return FileResponse(path, headers={"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _git(prefix: str) -> str:
    return prefix + "/{namespace}/{name}.git/info/lfs/objects"


routes = [
    Route("/storage/objects/{oid}", stored_object),
    Route("/storage/uploads/{repository:path}/{oid}/complete", complete, methods=["POST"]),
    Route("/storage/uploads/{repository:path}/{oid:oid}/{part:int}", put, methods=["PUT"]),
    Route("/storage/uploads/{repository:path}/{oid:oid}", put, methods=["PUT"]),
    Route("/api/resolve-cache/{kind:kind}/{namespace}/{name}/{revision}/{path:path}", resolve_cache),
    Route("/api/{kind:kind}/{namespace}/{name}/resolve/{revision}/{path:path}", resolve),
    Route("/{kind:kind}/{namespace}/{name}/resolve/{revision}/{path:path}", resolve),
    Route("/{namespace}/{name}/resolve/{revision}/{path:path}", resolve),
    Route(_git("/{kind:kind}") + "/batch", batch, methods=["POST"]),
    Route(_git("/{kind:kind}") + "/verify", verify, methods=["POST"]),
    Route(_git("") + "/batch", batch, methods=["POST"]),
    Route(_git("") + "/verify", verify, methods=["POST"]),
]
