"""A Hugging Face Hub on the loopback interface, for tests: ``python -m server --folder DIR``.

It speaks the Hub's HTTP API as the clients' source and the documentation describe it, without xet: clients
set ``HF_HUB_DISABLE_XET=1``. It prints its address on the first line. Contents lie in the folder, everything
else in memory. Stop it with SIGKILL, since a stalled request would hold up an orderly end.
"""

from __future__ import annotations

import argparse
import secrets
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from . import commits, files, repositories
from .access import HubError, answer_error, whoami
from .faults import Desk, Faults, control
from .store import Store


async def not_found(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "Sorry, we can't find the page you are looking for."}, 404)


def application(folder: Path, *, page_size: int, part_size: int) -> Starlette:
    """Make the server.

    Parameters
    ----------
    folder
        Where contents are kept.
    page_size
        Upper limit of the entries in one page of a listing; 0 for the Hub's own limits.
    part_size
        Larger Git-LFS objects are uploaded in parts of this many bytes.
    """
    desk = Desk()
    app = Starlette(
        routes=[
            *control(desk),
            Route("/api/whoami-v2", whoami),
            *repositories.routes,
            *commits.routes,
            *files.routes,
        ],
        exception_handlers={HubError: answer_error, 404: not_found},
    )
    app.add_middleware(Faults, desk=desk)
    app.state.store = Store(folder)
    app.state.secret = secrets.token_bytes(32)
    app.state.page_size = page_size
    app.state.part_size = part_size
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--page-size", type=int, default=0)
    parser.add_argument("--part-size", type=int, default=16 * 1024**2)
    options = parser.parse_args()
    app = application(options.folder, page_size=options.page_size, part_size=options.part_size)
    listener = socket.create_server(("127.0.0.1", 0))
    # Answers are written in two pieces; without this each waits 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
