"""arXiv's services on the loopback interface, for tests: ``python -m server [--shared DIR]``.

Search API, article pages, ar5iv, OAI-PMH and sources of the articles in `articles` and `hostile`, and with
``--shared`` the real feeds and pages of that folder. It prints its address on the first line. Tests put
faults before answers (busy, cut, empty) and read which requests came, and how many at once.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import articles, hostile
from .pages import feed, refusal

PAGE = 4


class State:
    """What the server knows; one for all threads."""

    def __init__(self, shared: Path | None) -> None:
        self.lock = threading.Lock()
        self.shared = shared
        self.ours = articles.entries()
        others = [articles.lost(), articles.mixed(), articles.scaled(), *hostile.entries()]
        self.entries = {entry.key: entry for entry in [*self.ours, *others]}
        if shared is not None:
            self.entries |= {entry.key: entry for entry in articles.real_entries(shared / "html")}
        self.reset()

    def reset(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.busy = self.most_busy = 0

    def fault(self, path: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault["path"] in path and fault["times"] > 0:
                fault["times"] -= 1
                return fault
        return None

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers."""
        service, _, rest = path.lstrip("/").partition("/")
        if service == "api":
            return self.search({name: values[0] for name, values in query.items()})
        if service == "oai":
            wanted = query["identifier"][0].removeprefix("oai:arXiv.org:")
            entry = next((e for e in self.entries.values() if e.arxiv_id == wanted), None)
            return (200, entry.oai or entry.record(), {}) if entry else (200, b"<OAI-PMH/>", {})
        found = self.file(service, rest)
        if found is None and service == "ar5iv" and any(e.arxiv_id == rest for e in self.entries.values()):
            return 307, b"", {"Location": f"/abs/{rest}"}
        if service == "abs":
            return 200, b"<html><body>Abstract page</body></html>", {}
        return (404, b"Not found", {}) if found is None else (200, found, {})

    def file(self, service: str, rest: str) -> bytes | None:
        for entry in self.entries.values():
            name = entry.arxiv_id if service == "ar5iv" else entry.key
            if rest.rstrip("/") == name:
                return {"html": entry.html, "ar5iv": entry.ar5iv, "e-print": entry.source}.get(service)
            if rest.startswith(f"{name}/") and service in ("html", "ar5iv"):
                return entry.files.get(rest.removeprefix(f"{name}/"))
        return None

    def search(self, query: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        words, start = query.get("search_query", ""), int(query.get("start", 0))
        if query.get("id_list"):
            wanted = query["id_list"].split(",")
            found = [e for e in self.entries.values() if e.key in wanted or e.arxiv_id in wanted]
            return 200, feed(found[start : start + 100], len(found), start), {}
        if words == "nothing":
            return 200, feed([], 0, 0), {}
        if words == "wrong":
            return 400, refusal("incorrect query"), {}
        if words == "bomb":
            return 200, hostile.entity_bomb(), {}
        if words == "all:testing" and self.shared is not None:
            paths = sorted((self.shared / "feeds").glob(f"q_testing_s{start}_m10_*.xml"))
            return (200, paths[0].read_bytes(), {}) if paths else (200, feed([], 214881, start), {})
        return 200, feed(self.ours[start : start + PAGE], len(self.ours), start), {}


class Handler(BaseHTTPRequestHandler):
    """One request; connections are closed after each, as the client does not keep them either."""

    state: State

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if path == "/__test__/requests":
            return self.reply(200, json.dumps([self.state.requests, self.state.most_busy]).encode())
        with self.state.lock:
            self.state.busy += 1
            self.state.most_busy = max(self.state.most_busy, self.state.busy)
            self.state.requests.append(
                {"path": self.path, "time": time.time(), "agent": self.headers.get("User-Agent", "")}
            )
            fault = self.state.fault(self.path)
        # Long enough to catch a second request beside this one. It ends before the answer goes out: the next
        # request may come as soon as that is read, and this thread be told so late.
        time.sleep(0.005)
        with self.state.lock:
            self.state.busy -= 1
        try:
            if fault is not None:
                return self.fail(fault)
            if path.endswith("endless.png"):
                return self.endless()
            if path.endswith("gzip_bomb.png"):
                return self.reply(200, hostile.gzip_bomb(100 * 2**20), {"Content-Encoding": "gzip"})
            return self.reply(*self.state.answer(path, query))
        except (BrokenPipeError, ConnectionResetError):
            return None

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
        with self.state.lock:
            if self.path == "/__test__/reset":
                self.state.reset()
            else:
                self.state.faults.append({"times": 1} | content)
        self.reply(200, b"{}")

    def fail(self, fault: dict[str, Any]) -> None:
        if fault["kind"] == "status":
            return self.reply(fault["status"], b"busy", fault.get("headers", {}))
        if fault["kind"] == "empty":
            return self.reply(200, feed([], 99, 0))
        # Cut: fewer bytes than announced.
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"half a file")
        self.wfile.flush()
        self.connection.close()
        return None

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(2**20))

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, default=None, help="folder `literature` of the real inputs")
    Handler.state = State(parser.parse_args().shared)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
