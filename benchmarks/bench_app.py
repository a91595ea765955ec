"""How long the page takes for its first results, as a person waits for them: upload to class, in Chromium.

    build/app/bin/python benchmarks/bench_app.py

starts the app of this checkout, opens it in Debian's Chromium, drops a simulated micrograph (500 electrons
per Å²) several times, each in a session of its own, and writes the seconds until the class is read, until the
image with its atoms is there, until the report can be downloaded, and the processor time of the server for
each.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine_facts

from atomvision_hub import load_structures
from atomvision_hub.microscopy import write_demo_file
from atomvision_hub.simulation.acquisition import Acquisition, Dose, record_stem

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = "/usr/bin/chromium"
_PATIENCE = 300_000  # ms


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=1024, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = {
        "what": "seconds from dropping a file until class, image with atoms, and report are there",
        "image": f"MoS2, {arguments.side} x {arguments.side} px, 500 electrons per Å², 8-bit TIFF, 0.1 Å/px",
        "seed": arguments.seed,
        **measured(arguments.side, arguments.repeats, arguments.seed),
        "machine": machine_facts(),
    }
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    out = arguments.out or ROOT / "benchmarks" / "results" / f"app-{date}.json"
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if key != "machine"}, indent=1))


def measured(side: int, repeats: int, seed: int) -> dict[str, Any]:
    """Return the figures; the first session comes right after the start."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        path = _micrograph(Path(folder), side, seed)
        environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": f"{folder}/files"}
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, str(ROOT / "app" / "app.py")], env=environment)
        try:
            _wait(port)
            start = time.perf_counter() - started
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                runs = [_session(browser, port, path, process.pid) for _ in range(repeats)]
                browser.close()
        finally:
            process.terminate()
            process.wait()
    return {
        "start_seconds": start,
        "runs": runs,
        "median": {name: statistics.median(run[name] for run in runs) for name in runs[0]},
        "lowest": {name: min(run[name] for run in runs) for name in runs[0]},
    }


def _session(browser: Any, port: int, path: Path, server: int) -> dict[str, float]:
    page = browser.new_context().new_page()
    page.set_default_timeout(_PATIENCE)
    page.goto(f"http://127.0.0.1:{port}/")
    field = page.locator("#analyze-file input[type=file]")
    field.wait_for(state="attached")
    page.wait_for_timeout(1000)
    before, started = _processor_seconds(server), time.perf_counter()
    field.set_input_files(str(path))
    _shown(page, "[data-testid=lattice-class]")
    first, used = time.perf_counter() - started, _processor_seconds(server) - before
    _shown(page, "#analyze-picture svg")
    atoms, used_atoms = time.perf_counter() - started, _processor_seconds(server) - before
    _shown(page, "#analyze-html:not([disabled])")
    whole, used_whole = time.perf_counter() - started, _processor_seconds(server) - before
    page.context.close()
    return {
        "class_seconds": first,
        "class_server_cpu_seconds": used,
        "atoms_seconds": atoms,
        "atoms_server_cpu_seconds": used_atoms,
        "report_seconds": whole,
        "report_server_cpu_seconds": used_whole,
    }


def _shown(page: Any, selector: str) -> None:
    """Wait for an element, looked for with every frame: a locator looks twice a second after a while."""
    page.wait_for_function(
        "(selector) => document.querySelector(selector)?.getBoundingClientRect().height > 0",
        arg=selector,
        polling="raf",
    )


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _micrograph(folder: Path, side: int, seed: int) -> Path:
    crystal = load_structures("reference")["MoS2"]
    dose = Acquisition((Dose(electrons=500),))
    image = record_stem(crystal, dose, seed=seed, shape=(side, side), rotation=20).image
    grey = 255 * (image - image.min()) / np.ptp(image)
    return write_demo_file(folder / "scan.tif", grey.astype(np.uint8), (0.1, 0.1))


if __name__ == "__main__":
    main()
