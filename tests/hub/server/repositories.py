"""Repositories as such: create, move, delete, settings, information, refs, history, files of a revision."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import HubError, authenticated, commit_of, kind_of, may_write, repository_of, token_of
from .paths import REPOSITORY, revision_of
from .store import KINDS, Commit, File, Repository, Store, below, children

NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(?<![.-])(?<!\.git)")


def iso(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"))


def page(request: Request, entries: list[Any], largest: int) -> Response:
    """Answer with one page of `entries` and, in the ``Link`` header, the address of the next."""
    largest = min(largest, request.app.state.page_size or largest)
    size = min(int(request.query_params.get("limit", largest)), largest)
    start = int(request.query_params.get("cursor", 0))
    response = JSONResponse(entries[start : start + size])
    if start + size < len(entries):
        query = urlencode(
            [
                *((k, v) for k, v in request.query_params.multi_items() if k != "cursor"),
                ("cursor", start + size),
            ]
        )
        path = request.scope["raw_path"].decode()
        response.headers["Link"] = f'<{str(request.base_url).rstrip("/")}{path}?{query}>; rel="next"'
    return response


# --- create, move, delete, settings ---


def _new_id(body: dict[str, Any], user: str) -> str:
    name = str(body.get("name", ""))
    namespace, slash, short = name.partition("/")
    if not slash:
        namespace, short = body.get("organization") or user, name
    if not NAME.fullmatch(short) or not NAME.fullmatch(namespace):
        raise HubError(400, f"Invalid repository name: {namespace}/{short}")
    return f"{namespace}/{short}"


def _private(body: dict[str, Any]) -> bool:
    return body.get("visibility") == "private" or bool(body.get("private"))


async def create(request: Request) -> Response:
    body = await request.json()
    kind = body.get("type", "model")
    if kind not in KINDS:
        raise HubError(400, f"Invalid repository type: {kind}")
    user = authenticated(request).user
    repo_id = _new_id(body, user)
    may_write(request, repo_id.partition("/")[0], f"create a {kind}")
    store: Store = request.app.state.store
    prefix = "" if kind == "model" else f"{kind}s/"
    url = f"{str(request.base_url).rstrip('/')}/{prefix}{repo_id}"
    if (kind, repo_id) in store.repositories:
        message = f"You already created this {kind} repo: {repo_id}"
        return JSONResponse({"error": message, "url": url}, 409, {"X-Error-Message": message})
    store.create(kind, repo_id, user, private=_private(body))
    return JSONResponse({"url": url, "name": repo_id, "id": repo_id})


def _named(request: Request, repo_id: str, kind: str) -> Repository:
    namespace, _, name = repo_id.partition("/")
    request.scope["path_params"] = {"kind": f"{kind}s", "namespace": namespace, "name": name}
    return repository_of(request, write=True)


async def delete(request: Request) -> Response:
    body = await request.json()
    repo_id = _new_id(body, authenticated(request).user)
    repository = _named(request, repo_id, body.get("type", "model"))
    del request.app.state.store.repositories[repository.kind, repository.id]
    return Response("OK")


async def move(request: Request) -> Response:
    body = await request.json()
    repository = _named(request, body["fromRepo"], body["type"])
    target = _new_id({"name": body["toRepo"]}, "")
    may_write(request, target.partition("/")[0], f"create a {repository.kind}")
    repositories = request.app.state.store.repositories
    if (repository.kind, target) in repositories:
        raise HubError(409, f"{target} exists already")
    repositories[repository.kind, target] = repositories.pop((repository.kind, repository.id))
    repository.id = target
    return Response("OK")


async def settings(request: Request) -> Response:
    repository = repository_of(request, write=True)
    body = await request.json()
    if "visibility" in body or "private" in body:
        repository.private = _private(body)
    repository.gated = body.get("gated", repository.gated)
    return JSONResponse({"private": repository.private, "gated": repository.gated})


async def auth_check(request: Request) -> Response:
    repository_of(request, write=request.url.path.endswith("/write"))
    return Response("OK")


# --- information ---


def card_data(store: Store, commit: Commit) -> dict[str, Any]:
    readme = commit.tree.get("README.md")
    return front_matter(store.read(readme).decode())[0] if readme and not readme.lfs else {}


def front_matter(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the YAML between the card's dashes, and what is wrong with it."""
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    if not match:
        return {}, []
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as problem:
        return {}, [str(problem)]
    if not isinstance(data, dict):
        return {}, [] if data is None else ['"metadata" must be of type object']
    return data, []


async def validate_yaml(request: Request) -> Response:
    authenticated(request)
    body = await request.json()
    data, errors = front_matter(body["content"])
    if not errors:
        for key in ("tags", "task_categories", "size_categories"):
            if key in data and not isinstance(data[key], (list, str)):
                errors.append(f'"{key}" must be an array')
        for config in data.get("configs", []) if body.get("repoType") == "dataset" else []:
            if not isinstance(config, dict) or "config_name" not in config:
                errors.append('"configs[].config_name" is required')
    warnings = [] if data else ["empty or missing yaml metadata in repo card"]
    answer = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }
    return JSONResponse(answer, 400 if errors else 200)


def _sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": file.size, "blobId": file.oid}
        if file.lfs:
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 130}
    return sibling


def describe(store: Store, repository: Repository, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    card = card_data(store, commit)
    tags = card.get("tags", [])
    answer: dict[str, Any] = {
        "_id": repository.id,
        "id": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": commit.oid,
        "lastModified": iso(commit.date),
        "createdAt": iso(repository.created),
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags if isinstance(tags, list) else [tags],
        "cardData": card,
        "siblings": [_sibling(path, file, blobs) for path, file in sorted(commit.tree.items())],
    }
    if repository.kind == "model":
        answer["modelId"] = repository.id
        answer |= {key: card[key] for key in ("pipeline_tag", "library_name") if key in card}
        config = commit.tree.get("config.json")
        if config:
            content = json.loads(store.read(config))
            answer["config"] = {
                key: content[key] for key in ("architectures", "model_type") if key in content
            }
    return answer


async def info(request: Request) -> Response:
    repository = repository_of(request)
    commit = commit_of(repository, revision_of(request))
    blobs = request.query_params.get("blobs", "").lower() in ("1", "true")
    return JSONResponse(describe(request.app.state.store, repository, commit, blobs=blobs))


async def listing(request: Request) -> Response:
    store: Store = request.app.state.store
    token, query = token_of(request), request.query_params
    found = [
        describe(store, repository, commit_of(repository, "main"))
        for (kind, repo_id), repository in sorted(store.repositories.items())
        if kind == kind_of(request)
        and (not repository.private or (token and token.owns(repo_id.partition("/")[0])))
        and query.get("author", repo_id.partition("/")[0]) == repo_id.partition("/")[0]
        and query.get("search", "").lower() in repo_id.lower()
    ]
    return page(request, found, 1000)


async def refs(request: Request) -> Response:
    repository = repository_of(request)

    def named(refs: dict[str, str], kind: str, prefix: str = "") -> list[dict[str, str]]:
        return [
            {
                "name": name.removeprefix(prefix),
                "ref": name if prefix else f"refs/{kind}/{name}",
                "targetCommit": oid,
            }
            for name, oid in sorted(refs.items())
            if name.startswith(prefix or ("" if not name.startswith("refs/") else "\0"))
        ]

    answer = {
        "branches": named(repository.branches, "heads"),
        "tags": named(repository.tags, "tags"),
        "converts": named(repository.branches, "convert", "refs/convert/"),
    }
    if request.query_params.get("include_prs"):
        answer["pullRequests"] = named(repository.branches, "pr", "refs/pr/")
    return JSONResponse(answer)


async def commits(request: Request) -> Response:
    repository = repository_of(request)
    found = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": iso(commit.date),
        }
        for commit in repository.history(commit_of(repository, revision_of(request)))
    ]
    return page(request, found, 50)


# --- files of a revision ---


def _entry(
    repository: Repository, commit: Commit, path: str, file: File | None, expand: bool
) -> dict[str, Any]:
    entry: dict[str, Any]
    if file is None:
        folder = below(commit.tree, path)
        entry = {
            "type": "directory",
            "oid": next(oid for name, oid, _ in _roots(path, folder)),
            "size": 0,
            "path": path,
        }
    else:
        entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
    if expand:
        last = commit
        for older in repository.history(commit):
            if below(older.tree, path) != below(commit.tree, path) or older.tree.get(path) != file:
                break
            last = older
        entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": iso(last.date)}
    return entry


def _roots(path: str, folder: dict[str, File]) -> Any:
    return children({f"{path.rpartition('/')[2]}/{name}": file for name, file in folder.items()})


def _truth(value: Any) -> bool:
    return str(value).lower() in ("1", "true")


async def tree(request: Request) -> Response:
    repository = repository_of(request)
    commit = commit_of(repository, revision_of(request))
    root = unquote(request.path_params.get("path", "")).strip("/")
    inside = below(commit.tree, root)
    if not inside:
        raise HubError(404, f'{root} does not exist on "{revision_of(request)}"', "EntryNotFound")
    recursive, expand = (_truth(request.query_params.get(key, "")) for key in ("recursive", "expand"))
    paths: dict[str, File | None] = {}
    for name, file in inside.items():
        parts = name.split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            paths["/".join(parts[:depth])] = None
        if recursive or len(parts) == 1:
            paths[name] = file
    prefix = f"{root}/" if root else ""
    found = [_entry(repository, commit, prefix + name, file, expand) for name, file in sorted(paths.items())]
    return page(request, found, 50 if expand else 1000)


async def paths_info(request: Request) -> Response:
    repository = repository_of(request)
    commit = commit_of(repository, revision_of(request))
    if request.headers.get("content-type", "").startswith("application/json"):
        body = await request.json()
        paths, expand = body["paths"], body.get("expand")
    else:
        form = parse_qs((await request.body()).decode())
        paths, expand = form.get("paths", []), form.get("expand", [""])[0]
    entries = []
    for path in (str(path).strip("/") for path in paths):
        file = commit.tree.get(path)
        if file or below(commit.tree, path):
            entries.append(_entry(repository, commit, path, file, _truth(expand)))
    return JSONResponse(entries)


routes = [
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route("/api/repos/move", move, methods=["POST"]),
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route("/api/{kind:kind}", listing),
    Route(REPOSITORY, info),
    Route(REPOSITORY + "/revision/{revision}", info),
    Route(REPOSITORY + "/refs", refs),
    Route(REPOSITORY + "/commits/{revision}", commits),
    Route(REPOSITORY + "/tree/{revision}", tree),
    Route(REPOSITORY + "/tree/{revision}/{path:path}", tree),
    Route(REPOSITORY + "/paths-info/{revision}", paths_info, methods=["POST"]),
    Route(REPOSITORY + "/settings", settings, methods=["PUT"]),
    Route(REPOSITORY + "/auth-check", auth_check),
    Route(REPOSITORY + "/auth-check/write", auth_check),
]
