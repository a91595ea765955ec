"""The shape of the Hub's addresses."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request


class _Word(Convertor[str]):
    def __init__(self, regex: str) -> None:
        self.regex = regex

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("kind", _Word("models|datasets|spaces"))
register_url_convertor("oid", _Word("[0-9a-f]{64}"))

#: Start of all addresses that belong to one repository.
REPOSITORY = "/api/{kind:kind}/{namespace}/{name}"


def revision_of(request: Request) -> str:
    """Return the revision of the path; clients quote its slashes, and the path keeps those quoted."""
    return unquote(str(request.path_params.get("revision", "main")))
