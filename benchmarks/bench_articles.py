"""What an article costs `arxiv_figures`: requests, processor time, rows; and so the minutes of a build.

    python benchmarks/bench_articles.py [--data FOLDER] [--out benchmarks/results/articles-DATE.json]

Articles come from arXiv on the loopback interface (`tests/literature/server`): our own ones, and with FOLDER
(`literature` of the shared test data) real LaTeXML pages. A build from arXiv itself is bound by the three
seconds that arXiv asks to leave between two requests: its minutes are requests x 3 s, however many workers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from _machine import machine_facts

from atomvision_hub._files import write_json
from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.rows import figure_rows
from atomvision_hub.literature.search import look_up
from atomvision_hub.literature.sites import ARXIV_DELAY, Sites

SERVER = Path(__file__).resolve().parents[1] / "tests" / "literature"
OURS = ("2401.00001v1", "2401.00002v2", "1706.00003v1", "cond-mat/0101004v1", "2401.00009v1")
REAL = ("1708.00137v1", "1803.07574v1", "1707.08043v1")
SERVICES = {"api": "api", "html": "html", "ar5iv": "ar5iv", "oai": "oai", "eprint": "e-print"}


def measure(url: str, key: str, cache: Path) -> dict[str, Any]:
    """Return requests, processor seconds and rows of one article, from the server and from the cache."""
    sites = Sites(**{name: f"{url}/{path}" for name, path in SERVICES.items()})
    fetcher = Fetcher(cache, sites)
    name, version = key.rsplit("v", 1)
    (article,) = look_up(fetcher, [(name, int(version))]).values()
    urllib.request.urlopen(urllib.request.Request(f"{url}/__test__/reset", b"null")).close()
    started = time.process_time()
    rows = list(figure_rows(fetcher, article, relevant_only=False))
    seconds = time.process_time() - started
    with urllib.request.urlopen(f"{url}/__test__/requests") as answer:
        requests = len(json.load(answer)[0])
    started = time.process_time()
    again = list(figure_rows(fetcher, article, relevant_only=False))
    assert [row.id for row in again] == [row.id for row in rows]
    return {
        "article": key,
        "requests": requests,
        "rows": len(rows),
        "relevant_rows": sum(row.relevant for row in rows),
        "images": sum(row.image is not None for row in rows),
        "processor_s": round(seconds, 3),
        "processor_s_from_cache": round(time.process_time() - started, 3),
        "network_s_at_arxiv": requests * ARXIV_DELAY,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=None, help="folder `literature` of the shared test data")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    shared = ["--shared", str(options.data.resolve())] if options.data else []
    command = [sys.executable, "-m", "server", *shared]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=SERVER)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as cache:
            keys = (*OURS, *(REAL if options.data else ()))
            results = [measure(url, key, Path(cache)) for key in keys]
    finally:
        process.kill()
        process.wait()
    for result in results:
        print(json.dumps(result))
    report = {"machine": machine_facts(), "delay_s": ARXIV_DELAY, "articles": results}
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()
