"""The page in a real browser: one server for all tests, a context of its own for each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from atomvision_hub import load_structures, simulate_stem
from atomvision_hub.simulation.acquisition import Acquisition, Dose, record_stem

#: Milliseconds that an answer may take on a busy machine.
PATIENCE = 60_000
CHROMIUM = "/usr/bin/chromium"
INSTALL = "apt-get install -y chromium"


@pytest.fixture(scope="session")
def app_folder(repository: Path) -> Path:
    """Folder of the app, importable; skipped without Gradio."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the app needs Gradio, which lives in an environment of its own: make test-app")
    folder = repository / "app"
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="session")
def server(app_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of the running app and the folder of its files."""
    files = tmp_path_factory.mktemp("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(files),
        "ATOMVISION_APP_GRACE": "0.5",
    }
    environment.pop("SPACE_ID", None)
    log = files.with_suffix(".log")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(app_folder / "app.py")],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        _wait(address, process, log)
        yield address, files
    finally:
        process.terminate()
        process.wait(30)
    assert "Traceback" not in log.read_text(encoding="utf-8")


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(2400):
        if process.poll() is not None:
            pytest.fail(f"the app ended: {log.read_text(encoding='utf-8')[-2000:]}")
        try:
            httpx.get(address, timeout=30)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the app does not answer")


@pytest.fixture(scope="session")
def browser(server: tuple[str, Path]) -> Iterator[Any]:
    """Debian's Chromium; skipped without it."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("the browser is driven by Playwright: make test-app")
    if not shutil.which(CHROMIUM):
        pytest.skip(f"these tests need Chromium: {INSTALL}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, server: tuple[str, Path]) -> Iterator[OpenPage]:
    """Return a function that opens the page in a session of its own; no request may leave the machine."""
    contexts, requests, errors = [], [], []

    def opened(tab: str = "Analyze", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1300, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server[0])
        page.get_by_role("tab", name=tab).click()
        return page

    yield opened
    for context in contexts:
        context.close()
    hosts = {urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts <= {"127.0.0.1"}
    assert not errors


@pytest.fixture(scope="session")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Simulated micrographs as PNG, 0.1 Å/px, by lattice; ``noisy`` has 400 electrons per Å²."""
    folder = tmp_path_factory.mktemp("micrographs")
    crystals = load_structures("reference")
    found = {}
    for name, crystal in (("hexagonal", "MoS2"), ("square", "FeSe")):
        image = simulate_stem(crystals[crystal], shape=(256, 256), rotation=20).image
        found[name] = _save(folder / f"{name}.png", image)
    noisy = record_stem(crystals["MoS2"], Acquisition((Dose(electrons=400),)), seed=1, shape=(192, 192))
    found["noisy"] = _save(folder / "noisy.png", noisy.image)
    return found


def _save(path: Path, image: np.ndarray) -> Path:
    grey = 255 * (image - image.min()) / (image.max() - image.min())
    Image.fromarray(grey.astype(np.uint8)).save(path)
    return path
