"""Trouble on demand, and a record of what was asked.

A test posts a fault to ``/__test__/faults``; it befalls the next `times` requests that match:

``{"method": "PUT", "path": "/storage/uploads/.*", "kind": "status", "status": 503, "times": 2}``
    is answered with that status (and `headers`).
``{"kind": "stall", "seconds": 30}``
    nothing comes for so long; the request is then carried out.
``{"kind": "cut", "after_bytes": 1000}``
    the answer breaks off after so many bytes of its body; the request has been carried out.
``{"kind": "cut_upload", "after_bytes": 1000}``
    the line is cut after so many bytes of the request's body; nothing is carried out.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LineCutError(Exception):
    """Makes the web server close the connection without finishing the answer."""


@dataclass
class Fault:
    kind: str
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    status: int = 503
    seconds: float = 0.0
    after_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def befalls(self, record: dict[str, Any]) -> bool:
        return (
            self.times > 0
            and re.fullmatch(self.method, record["method"]) is not None
            and re.search(self.path, record["path"]) is not None
        )


@dataclass
class Desk:
    """What tests see and set: pending faults and the requests so far."""

    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)


class Faults:
    """Records every request and lets the faults happen."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self.app = app
        self.desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/__test__/"):
            await self.app(scope, receive, send)
            return
        # Paths stay as they were sent: a quoted slash belongs to a revision or file name.
        scope["path"] = scope["raw_path"].decode("ascii")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        record: dict[str, Any] = {
            "method": scope["method"],
            "host": headers.get("host", "").partition(":")[0],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "authorization": "authorization" in headers,
            "range": headers.get("range"),
            "status": None,
            "received": 0,
            "sent": 0,
        }
        self.desk.requests.append(record)
        fault = next((fault for fault in self.desk.faults if fault.befalls(record)), None)
        if fault:
            fault.times -= 1

        async def counted_receive() -> Message:
            message = await receive()
            record["received"] += len(message.get("body", b""))
            if fault and fault.kind == "cut_upload" and record["received"] >= fault.after_bytes:
                await _break_off(send)
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                if fault and fault.kind == "cut" and not fault.after_bytes:
                    await _break_off(send)
            body = message.get("body", b"")
            if fault and fault.kind == "cut" and body and record["sent"] + len(body) >= fault.after_bytes:
                rest = body[: fault.after_bytes - record["sent"]]
                record["sent"] += len(rest)
                await send({**message, "body": rest, "more_body": True})
                raise LineCutError
            record["sent"] += len(body)
            await send(message)

        if fault and fault.kind == "stall":
            await asyncio.sleep(fault.seconds)
        if fault and fault.kind == "status":
            record["status"] = fault.status
            message = "The server is temporarily unavailable"
            await JSONResponse({"error": message}, fault.status, fault.headers)(scope, receive, send)
            return
        try:
            await self.app(scope, counted_receive, counted_send)
        except LineCutError:
            record["status"] = None
            raise


async def _break_off(send: Send) -> None:
    # An answer that has begun and is never finished: uvicorn then closes the connection.
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000000")]}
    )
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    raise LineCutError


def control(desk: Desk) -> list[Route]:
    async def add_fault(request: Request) -> Response:
        desk.faults.append(Fault(**(await request.json())))
        return Response("OK")

    async def requests(_: Request) -> Response:
        return JSONResponse(desk.requests)

    async def reset(request: Request) -> Response:
        desk.faults.clear()
        desk.requests.clear()
        if request.query_params.get("repositories"):
            request.app.state.store.repositories.clear()
        return Response("OK")

    return [
        Route("/__test__/faults", add_fault, methods=["POST"]),
        Route("/__test__/requests", requests),
        Route("/__test__/reset", reset, methods=["POST"]),
    ]
