"""Take the pictures of the page in the browser again: ``build/app/bin/python docs/screenshots.py``.

All that is shown is simulated: from the reference crystals, in Explore from those of 2DMatPedia
(``build/stem2d``, see README).
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import sync_playwright

from atomvision_hub import load_structures
from atomvision_hub.microscopy import write_demo_file
from atomvision_hub.simulation.acquisition import record_stem

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "images"
#: What an image viewer on a laptop shows; all tabs the same.
VIEW = {"width": 1280, "height": 900}
#: Width of the pictures in pixels.
WIDTH = 1000
NOTES = {"name": "MoS2-flake-3", "formula": "MoS2"}


def scan(folder: Path) -> Path:
    """Write the micrograph that is dropped on the page: MoS2, 5,000 electrons per Å²."""
    made = record_stem(
        load_structures("reference")["MoS2"], "good", shape=(512, 512), pixel_size=0.1, rotation=12, seed=1
    )
    path = folder / "scan.tif"
    return write_demo_file(path, made.image.astype("uint8"), made.ideal.pixel_size)


def analyze(page: Any, micrograph: Path) -> None:
    """Drop the scan, look closer."""
    page.locator("#analyze-file input[type=file]").set_input_files(str(micrograph))
    page.locator("[data-testid=lattice-class]").wait_for()
    page.locator("#analyze-spectrum img").wait_for()
    page.locator("#analyze-html:not([disabled])").wait_for()
    page.get_by_label("close-up").check()


def simulate(page: Any, micrograph: Path) -> None:
    """Take away a twentieth of the atoms."""
    page.locator("#simulate-stem img").wait_for()
    vacancies = page.get_by_label("number input for Vacancies, share of the atoms")
    vacancies.fill("0.05")
    vacancies.press("Enter")
    page.get_by_text("without the vacancies").first.wait_for()


def restore(page: Any, micrograph: Path) -> None:
    """Drop the scan."""
    page.locator("#restore-file input[type=file]").set_input_files(str(micrograph))
    page.locator("#restore-pair img").first.wait_for()


def describe(page: Any, micrograph: Path) -> None:
    """Drop the scan, say what it shows."""
    page.locator("#describe-file input[type=file]").set_input_files(str(micrograph))
    page.get_by_text("Valid:").wait_for()
    for field, text in NOTES.items():
        page.locator(f"#describe-sample-{field} textarea").fill(text)
    page.get_by_text("2 of them yours").wait_for()


def explore(page: Any, micrograph: Path) -> None:
    """Open the validation rows, draw their map, look at those with silver."""
    page.locator("#explore-dataset").locator("input, textarea").fill("build/stem2d")
    page.locator("#explore-config").locator("input, textarea").fill("rotated")
    page.get_by_label("Split").click()
    page.get_by_role("option", name="validation").click()
    page.locator("#explore-open").click()
    page.locator(".av-tile").first.wait_for()
    page.locator("#explore-draw").click()
    page.locator("#explore-map circle").first.wait_for()
    page.locator("#explore-element input").click()
    page.get_by_role("option", name="Ag", exact=True).click()
    page.locator("#explore-status").get_by_text("page 1 of 1").wait_for()
    page.locator(".av-tile").nth(2).click()
    page.locator("#explore-detail caption").wait_for()


TABS = {
    "Analyze": analyze,
    "Simulate": simulate,
    "Super-resolve and denoise": restore,
    "Describe": describe,
    "Explore": explore,
}


def take(browser: Any, address: str, tab: str, micrograph: Path) -> None:
    """Do what a person would do in a tab, and keep the picture."""
    page = browser.new_context(viewport=VIEW, device_scale_factor=1.25).new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.get_by_role("tab", name=tab).click()
    steps = TABS[tab]
    steps(page, micrograph)
    page.evaluate("document.activeElement?.blur()")  # no frame around the field that was typed in last
    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    path = PICTURES / f"app-{steps.__name__}.png"
    # The palette that is never far off: colours stand for classes, however few their pixels.
    palette = small.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {small.width} x {small.height}, {path.stat().st_size // 1000} kB")


def main() -> None:
    """Start the page, take the pictures, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tabs", nargs="*", help="first word of a tab's name; all without")
    wanted = parser.parse_args().tabs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, str(ROOT / "app" / "app.py")], env=environment, cwd=ROOT)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(1200):
            try:
                httpx.get(address, timeout=30)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            micrograph = scan(Path(folder))
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            for tab in TABS:
                if not wanted or tab.split()[0] in wanted:
                    take(browser, address, tab, micrograph)
            browser.close()
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
