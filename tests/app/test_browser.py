"""What people do with the page, in Chromium."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CLASS = "[data-testid=lattice-class]"


def upload(page: Any, field: str, path: Path) -> None:
    page.locator(f"#{field} input[type=file]").set_input_files(str(path))


def download(page: Any, button: str, folder: Path) -> Path:
    page.locator(f"#{button}:not([disabled])").wait_for()
    with page.expect_download() as waiting:
        page.locator(f"#{button}").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_real_micrograph_gives_its_lattice_and_a_report(
    open_page: Any, server: tuple[str, Path], shared_data: Path, tmp_path: Path
) -> None:
    page = open_page()
    upload(page, "analyze-file", shared_data / "microscopy" / "Acquisition_18.emd")
    page.locator(CLASS).wait_for()
    assert page.locator(CLASS).inner_text() == "square"
    assert "0.1225 Å/px, as the file says" in page.locator("#analyze-calibration").inner_text()
    assert "±" in page.locator("#analyze-numbers").inner_text()
    report = download(page, "analyze-html", tmp_path).read_text(encoding="utf-8")
    assert "Acquisition_18.emd" in report
    assert "square" in report
    assert not any(mark in report for mark in ('src="http', "<script", 'href="http'))
    told = json.loads(download(page, "analyze-json", tmp_path).read_text(encoding="utf-8"))
    assert told["lattice"]["label"] == "square"
    assert "a" in page.locator("#analyze-picture svg").get_attribute("aria-label")
    assert page.locator("#analyze-spectrum img").count() == 1
    # The upload is gone, what was made of it is there until the page is closed.
    left = [Path("x")]
    for _ in range(100):
        left = list(server[1].rglob("*.emd"))
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_the_keyboard_is_enough(open_page: Any, micrographs: dict[str, Path]) -> None:
    page = open_page()
    page.get_by_role("tab", name="Analyze").focus()
    with page.expect_file_chooser() as waiting:
        reach(page, "#analyze-file button")
        page.keyboard.press("Enter")
    waiting.value.set_files(str(micrographs["hexagonal"]))
    page.locator(CLASS).wait_for()
    assert "lengths are in pixels" in page.locator("#analyze-calibration").inner_text()
    # The bar in the image, by hand: 100 px stand for 1 nm.
    reach(page, "#analyze-scale button")
    page.keyboard.press("Enter")
    for field, value in (("analyze-bar-pixels", "100"), ("analyze-bar-length", "1")):
        reach(page, f"#{field} input")
        page.keyboard.type(value)
    reach(page, "#analyze-use-bar")
    page.keyboard.press("Enter")
    page.get_by_text("0.1 Å per pixel; now press Analyze").wait_for()
    reach(page, "#analyze-again")
    page.keyboard.press("Enter")
    page.get_by_text("0.1 Å/px, as you say").wait_for()
    assert page.locator(CLASS).inner_text() == "hexagonal"
    row = page.locator("#analyze-numbers tr").first.inner_text()
    assert float(row.split()[1]) == pytest.approx(3.19, abs=0.03)
    assert "±" in row


def reach(page: Any, selector: str) -> None:
    """Press the tabulator key until an element has the focus."""
    for _ in range(60):
        if page.evaluate("selector => document.activeElement?.matches(selector) ?? false", selector):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the tabulator key does not reach {selector}")


def test_two_clicks_measure_a_scale_bar(open_page: Any, micrographs: dict[str, Path]) -> None:
    page = open_page()
    upload(page, "analyze-file", micrographs["hexagonal"])
    page.locator(CLASS).wait_for()
    page.locator("#analyze-scale button").first.click()
    ruler = page.locator("#analyze-ruler svg")
    ruler.wait_for()
    ruler.scroll_into_view_if_needed()
    box = ruler.bounding_box()
    for share in (0.25, 0.75):
        ruler.click(position={"x": share * box["width"], "y": 0.5 * box["height"]})
    page.get_by_text("The bar is").wait_for()
    assert float(page.locator("#analyze-bar-pixels input").input_value()) == pytest.approx(128, abs=2)


def test_wrong_files_are_told_in_one_sentence(
    open_page: Any, micrographs: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page()
    upload(page, "analyze-file", micrographs["square"])
    page.locator(CLASS).wait_for()
    wrong = tmp_path / "<b>notes.png"
    wrong.write_text("this is no picture", encoding="utf-8")
    page.get_by_label("Remove file").or_(page.locator("#analyze-file button[aria-label*=emove]")).or_(
        page.locator("#analyze-file button[aria-label=Clear]")
    ).first.click()
    page.locator(CLASS).wait_for(state="detached")
    upload(page, "analyze-file", wrong)
    alert = page.locator("#analyze-status [role=alert]")
    alert.wait_for()
    assert "is no png file, whatever its name says" in alert.inner_text()
    assert "\n" not in alert.inner_text().strip()
    assert "Traceback" not in page.content()
    assert page.locator(CLASS).count() == 0


def test_two_people_at_once_see_their_own_results(open_page: Any, micrographs: dict[str, Path]) -> None:
    pages = {name: open_page() for name in ("hexagonal", "square")}
    for name, page in pages.items():
        upload(page, "analyze-file", micrographs[name])
    for name, page in pages.items():
        page.locator(CLASS).wait_for()
        assert page.locator(CLASS).inner_text() == name
        assert f"{name}.png" in page.locator("#analyze-calibration").inner_text()


def test_the_same_file_at_once_is_read_twice(open_page: Any, micrographs: dict[str, Path]) -> None:
    pages = [open_page(), open_page()]
    for page in pages:
        upload(page, "analyze-file", micrographs["hexagonal"])
    for page in pages:
        page.locator(CLASS).wait_for()
        assert page.locator(CLASS).inner_text() == "hexagonal"


@pytest.mark.parametrize("tab", ["Analyze", "Simulate", "Super-resolve", "Describe", "Explore"])
def test_a_narrow_screen_needs_no_scrolling_sideways(open_page: Any, tab: str) -> None:
    page = open_page(tab="Analyze", viewport={"width": 390, "height": 844})
    if tab != "Analyze":
        # What does not fit into the row of tabs is behind its last button.
        entry = page.get_by_role("tab", name=tab)
        if not entry.is_visible():
            page.locator("button.overflow-menu, .overflow-menu > button").first.click()
            entry = page.locator(".overflow-dropdown").get_by_text(tab)
        entry.click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_sliders_change_the_simulation_and_rows_are_kept(open_page: Any, tmp_path: Path) -> None:
    from datasets import load_dataset

    page = open_page(tab="Simulate")
    image = page.locator("#simulate-stem img")
    image.wait_for()
    before = image.get_attribute("src")
    page.locator("#simulate-rotation input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('#simulate-stem img')?.src !== before", arg=before
    )
    assert "density of states by gpaw" in page.locator("#simulate-stm").inner_text()
    for count in (1, 2):
        page.locator("#simulate-save").click()
        page.get_by_text(f"Rows kept: {count}.").wait_for()
    path = download(page, "simulate-parquet", tmp_path)
    rows = load_dataset("parquet", data_files=str(path), split="train")
    assert rows["id"] == ["MoS2-0", "MoS2-1"]
    assert rows[0]["image"].size == (256, 256)
    assert rows[0]["rotation"] == 16
    assert rows.features["lattice"].int2str(rows[0]["lattice"]) == "hexagonal"


def test_restoration_shows_its_warning_and_what_only_it_shows(
    open_page: Any, micrographs: dict[str, Path]
) -> None:
    page = open_page(tab="Super-resolve")
    assert "A network made this picture" in page.locator("#restore-warning").inner_text()
    page.locator("#restore-pixel-size input").fill("0.1")
    upload(page, "restore-file", micrographs["noisy"])
    page.locator("#restore-pair img").first.wait_for()
    told = page.locator("#restore-numbers").inner_text()
    assert "Only the network shows" in told
    assert "Made up on test images" in told
    slider = page.locator("#restore-pair input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".av-compare").evaluate("e => e.style.getPropertyValue('--at')") == "0%"


def test_a_description_is_checked_while_one_types(open_page: Any, tmp_path: Path) -> None:
    from atomvision_hub.microscopy import metadata, write_demo_file

    scan = tmp_path / "scan.tif"
    write_demo_file(scan, np.random.default_rng(0).random((32, 32), dtype=np.float32), (0.1, 0.1))
    page = open_page(tab="Describe")
    upload(page, "describe-file", scan)
    page.get_by_text("Valid:").wait_for()
    formula = page.locator("#describe-sample-formula textarea")
    formula.fill("Xx3")
    page.get_by_text("is no chemical formula").wait_for()
    formula.fill("MoS2")
    page.get_by_text("1 of them yours").wait_for()
    saved = download(page, "describe-save-yaml", tmp_path)
    assert saved.name == "scan.tif.yaml"
    assert metadata.read_sidecar(saved).sample.formula == "MoS2"
    content = json.loads(download(page, "describe-save-json", tmp_path).read_text(encoding="utf-8"))
    assert content["sources"]["sample.formula"] == "sidecar: scan.tif.yaml"
    # And it is opened again.
    again = open_page(tab="Describe")
    upload(again, "describe-file", saved)
    again.get_by_text("Valid:").wait_for()
    assert again.locator("#describe-sample-formula textarea").input_value() == "MoS2"


def test_a_dataset_is_filtered_and_its_map_opens_images(
    open_page: Any, tmp_path: Path, repository: Path
) -> None:
    from atomvision_hub.data import BuildOptions, load_builder

    folder = tmp_path / "stem2d"
    load_builder("stem2d").build(
        BuildOptions(dataset="stem2d", sources=["reference"], out=folder, configs=["default"], tiny=True)
    )
    page = open_page(tab="Explore")
    page.locator("#explore-dataset").locator("input, textarea").fill(str(folder))
    page.locator("#explore-open").click()
    page.locator(".av-tile").first.wait_for()
    page.locator(".av-tile").first.press("Enter")
    page.locator("#explore-detail caption").wait_for()
    page.locator("#explore-draw").click()
    points = page.locator("#explore-map circle")
    points.first.wait_for()
    row = points.last.get_attribute("data-row")
    points.last.press("Enter")
    title = points.last.get_attribute("aria-label").removeprefix("Open ")
    page.locator("#explore-detail caption").get_by_text(title).wait_for()
    assert row.isdecimal()
    page.locator("#explore-element input").click()
    page.get_by_role("option").nth(1).click()
    page.locator("#explore-status").get_by_text(" images; page 1 of 1").wait_for()
    assert page.locator(".av-tile").count() < points.count()
    page.locator("#explore-dataset").locator("input, textarea").fill("nowhere")
    page.locator("#explore-open").click()
    page.locator("#explore-status [role=alert]").wait_for()
    assert "neither a folder nor a Hub id" in page.locator("#explore-status").inner_text()
