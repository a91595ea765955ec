"""Who asks, and what they may do: users, tokens, errors in the Hub's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from .store import Commit, Repository, Store


class HubError(Exception):
    """An answer with an error status; clients choose the exception by `code`, sent as ``X-Error-Code``."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message, **headers}
        if code:
            self.headers["X-Error-Code"] = code


def answer_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HubError)
    return JSONResponse({"error": error.message}, error.status, error.headers)


@dataclass(frozen=True)
class Token:
    user: str
    role: str
    organisations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.organisations


#: Tokens the server knows.
TOKENS = {
    "hf_alicewrites": Token("alice", "write", ("atomvision",)),
    "hf_alicereads": Token("alice", "read", ("atomvision",)),
    "hf_mallory": Token("mallory", "write"),
}


def token_of(request: Request) -> Token | None:
    """Return the caller's token, `None` for an anonymous one; an unknown token is refused everywhere."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() != "bearer" or value not in TOKENS:
        raise HubError(401, "Invalid credentials in Authorization header")
    return TOKENS[value]


def authenticated(request: Request) -> Token:
    token = token_of(request)
    if token is None:
        raise HubError(401, "Invalid username or password.")
    return token


def may_write(request: Request, namespace: str, what: str) -> Token:
    token = authenticated(request)
    if token.role != "write" or not token.owns(namespace):
        raise HubError(403, f'You don\'t have the rights to {what} under the namespace "{namespace}"')
    return token


def kind_of(request: Request) -> str:
    """Return the kind of repository from the path: a plural, left out for models in some addresses."""
    return str(request.path_params.get("kind", "models")).removesuffix("s")


def repository_of(request: Request, *, write: bool = False) -> Repository:
    """Return the repository of the path, if the caller may see (and change) it."""
    store: Store = request.app.state.store
    namespace, name = request.path_params["namespace"], request.path_params["name"]
    token = token_of(request)
    repository = store.repositories.get((kind_of(request), f"{namespace}/{name}"))
    hidden = repository is not None and repository.private and not (token and token.owns(namespace))
    if repository is None or hidden:
        # The anonymous are not told whether a private repository exists.
        if token is None:
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        raise HubError(404, "Repository not found", "RepoNotFound")
    if write:
        may_write(request, namespace, f"write to this {repository.kind}")
    return repository


def commit_of(repository: Repository, revision: str) -> Commit:
    commit = repository.find(revision)
    if commit is None:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def whoami(request: Request) -> JSONResponse:
    token = authenticated(request)
    answer: dict[str, Any] = {
        "type": "user",
        "id": token.user,
        "name": token.user,
        "fullname": token.user.title(),
        "isPro": False,
        "orgs": [{"type": "org", "name": name, "roleInOrg": "admin"} for name in token.organisations],
        "auth": {
            "type": "access_token",
            "accessToken": {
                "displayName": "a token",
                "role": token.role,
                "createdAt": "2024-01-01T00:00:00.000Z",
            },
        },
    }
    return JSONResponse(answer)
