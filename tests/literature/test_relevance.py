"""Captions in all the ways people write them; the labelled ones are scored by bench_captions.py."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomvision_hub.literature.relevance import MODALITIES, assess

LABELS = Path(__file__).parent / "labels" / "captions.jsonl"
FROZEN = "d4a301019a7b53b786283a8b9a07892f9bb8bb4dafb66c11c93277a85c2115e1"

SHOWN = {
    "STM topograph of graphene on SiC, 10 nm wide.": "stm",
    "Constant-current image of the Si(111) surface (2 V, 50 pA).": "stm",
    "(a) Scanning tunnelling micrograph of NbSe$_2$. (b) dI/dV spectrum.": "stm",
    "Scanning tunneling microscopy (STM) images at both polarities": "stm",
    "Topographic image of a vacancy, V_s = -0.5 V, I = 100 pA.": "stm",
    "dI/dV map at 20 meV.": "stm",
    "LT-STM image of a molecule": "stm",
    "HAADF-STEM image of MoS2.": "stem",
    "(a) Atomically resolved high-angle annular dark-field image along [110].": "stem",
    "(a) XRD. (b) STEM. (c) EELS spectra.": "stem",
    "Scanning transmission electron micrographs of the interface": "stem",
    "Z-contrast image of a grain boundary": "stem",
    "Annular bright-field STEM image with oxygen columns": "stem",
    "Aberration-corrected ADF\u2013STEM imaging of WS2": "stem",
    "Dark-field STEM image": "stem",
    "Bright-field TEM image of dislocations": "tem",
    "Cross-sectional transmission electron micrograph of the stack": "tem",
    "High-resolution TEM (HRTEM) images of nanoparticles": "tem",
    "Transmission  electron\nmicroscope image of a carbon nanotube": "tem",
    "(a) SEM and (b) TEM of the powder": "tem",
    "Cryo-TEM images of micelles": "tem",
    "XTEM micrograph of the film": "tem",
    "Comparison of experimental and simulated STEM images": "stem",
    "Histogram of particle sizes; inset: TEM image": "tem",
    "Topography of NbSe2 taken at 4.2 K, setpoint 100 mV, 50 pA.": "stm",
    "(a) Filled-state and (b) empty-state STM images of Si(111)-7x7.": "stm",
    "STM characterization of graphene on Ir(111): (a) overview, (b) zoom.": "stm",
    "Tunneling current image of the flake": "stm",
    "Experimental (top) and DFT-simulated (bottom) STM images": "stm",
    "(a) Atomic model. (b) Experimental STM image. (c) Simulated STM image.": "stm",
    "Constant-height nc-AFM image and STM image with CO tip": "stm",
    "STEM analysis of the interface. (a) HAADF (b) EELS maps of Ti (c) and Sr (d)": "stem",
    "Atomic structure of the interface revealed by aberration-corrected STEM.": "stem",
    "iDPC-STEM image of zeolite": "stem",
    "Scanning transmission electron microscopy with high angle annular dark field imaging": "stem",
    "TEM observation of dislocations after 2% strain": "tem",
    "Lattice fringes in a HR-TEM picture": "tem",
    "In situ TEM snapshots of the growth": "tem",
    "a) TEM-image b) SAED": "tem",
    "Weak-beam dark-field images of dislocations in the foil taken with the TEM": "tem",
}
NOT_SHOWN = {
    "Simulated STM image at +1 V.": "none",
    "Multislice STEM image simulation of the model": "none",
    "Size distribution determined from TEM images.": "none",
    "Histogram of lengths measured by TEM": "none",
    "Schematic of the STM tip above the surface": "none",
    "Drawing of the TEM grid": "none",
    "STM spectroscopy curves": "none",
    "Response of the whole system as it stems from stem cells.": "none",
    "Data are mean \u00b1 SEM, n = 5.": "none",
    "Error bars are SEM (n=3)": "none",
    "The TEM$_{00}$ mode of the cavity": "none",
    "Impedance of the TEM wave in the coaxial line": "none",
    "Share of women in STEM fields": "none",
    "Number of STEM students": "none",
    "Short-term memory (STM) capacity over trials; STM decays.": "none",
    "The state-transition matrix (STM) of the orbit": "none",
    "Tersoff-Hamann STM images of the vacancy calculated with DFT": "none",
    "Multislice simulations of HRTEM contrast": "none",
    "Schematic view of a scanning tunneling microscope.": "none",
    "Experimental setup: STM head, cryostat": "none",
    "Tunneling spectra (STS) on and off the impurity.": "none",
    "Electron energy-loss spectra recorded in STEM mode.": "none",
    "Comparison of sizes obtained by TEM, SAXS, and DLS": "none",
    "Architecture of the STM (spatio-temporal memory) network. STM improves results.": "none",
    "Height profile extracted from the STM image shown in Fig. 1(a).": "none",
    "Fourier transform of the STM topograph.": "none",
    "Loss curves of a network trained on STEM images": "none",
    "Contrast transfer function of the TEM": "none",
    "Structural equation modeling (SEM) path diagram": "none",
    "Diffraction patterns recorded in the TEM": "diffraction",
    "High resolution electron micrograph of Si": "other_microscopy",
    "SEM micrograph of the fracture surface": "sem",
    "Scanning electron micrographs (scale bar 2 um)": "sem",
    "AFM topography image": "afm",
    "Optical micrograph of a flake": "other_microscopy",
    "Fluorescence microscopy images of cells": "other_microscopy",
    "Bright-field images of spheroids": "other_microscopy",
    "SAED pattern of the film": "diffraction",
    "XRD patterns of both phases": "diffraction",
    "Band structure of graphene": "none",
    "": "none",
}


@pytest.mark.parametrize(("caption", "modality"), SHOWN.items())
def test_a_shown_micrograph_is_relevant(caption: str, modality: str) -> None:
    found = assess(caption)
    assert (found.relevant, found.modality) == (True, modality)
    assert found.evidence
    assert found.confidence > 0.5


@pytest.mark.parametrize(("caption", "modality"), NOT_SHOWN.items())
def test_what_is_only_spoken_of_or_means_something_else_is_not(caption: str, modality: str) -> None:
    found = assess(caption)
    assert (found.relevant, found.modality) == (False, modality)


def test_the_article_helps_where_the_caption_names_nothing() -> None:
    abstract = "We studied the surface by scanning tunneling microscopy (STM)."
    assert assess("Atomically resolved image of the terrace", abstract=abstract).modality == "stm"
    assert not assess("Atomically resolved image of the terrace").relevant
    assert not assess("Optical image of the terrace", abstract=abstract).relevant
    assert not assess("Band structure", abstract=abstract).relevant
    both = abstract + " STEM images agree."
    assert not assess("Atomically resolved image of the terrace", abstract=both).relevant


def test_keywords_are_named_wherever_they_stand() -> None:
    found = assess("HRTEM image", title="Seen by STEM", abstract="scanning tunnelling microscopy of systems")
    assert found.matched == ("HRTEM", "STEM", "scanning tunneling microscopy")


def test_evidence_is_a_part_of_the_caption() -> None:
    caption = "a, HAADF-STEM images of Au. b, Bright-field TEM micrograph."
    found = assess(caption)
    assert found.evidence == ("HAADF-STEM images", "Bright-field TEM micrograph")
    assert all(phrase in caption for phrase in found.evidence)


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 1_000_000,
        "STEM " * 200_000,
        "(a) " * 250_000,
        "scanning " * 110_000,
        "STM image from the of the " * 40_000,
        "high-" * 200_000,
        "BF-" * 300_000,
        "\u00b1 " * 500_000,
        "bias " * 200_000,
        "optical a a " * 80_000,
        "\ufdfa" * 1_000_000,
        "((((STM)" * 120_000,
    ],
)
def test_a_megabyte_of_anything_takes_no_time(hostile: str) -> None:
    started = time.process_time()
    assess(hostile, abstract=hostile)
    assert time.process_time() - started < 3


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(st.sampled_from("STEM stmAFHD(),;.-ab$_{}\u2009imagesro\u00b1\n"), max_size=200))
def test_any_text_gets_an_answer_in_bounds(text: str) -> None:
    found = assess(text, title=text)
    assert found.modality in MODALITIES
    assert 0 <= found.confidence <= 1
    assert found.relevant == (found.modality in {"stm", "stem", "tem"})


def test_the_labels_are_those_that_were_frozen() -> None:
    content = LABELS.read_bytes()
    assert hashlib.sha256(content).hexdigest() == FROZEN
    rows = [json.loads(line) for line in content.splitlines()]
    assert len(rows) == 425
    assert Counter(row["split"] for row in rows if row["relevant"]) == {"tune": 56, "test": 42}
    halves = {row["id"]: row["split"] for row in rows}
    assert all(halves[row["id"]] == row["split"] for row in rows)


def test_both_halves_reach_the_aim(shared_data: Path) -> None:
    texts = {}
    captions = shared_data / "literature" / "captions" / "captions.jsonl"
    for line in captions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts[hashlib.sha256(row["caption"].encode()).hexdigest(), row["paper"]] = row["caption"]
    for half in ("tune", "test"):
        labels = [row for row in map(json.loads, LABELS.open(encoding="utf-8")) if row["split"] == half]
        found = [assess(texts[row["sha256"], row["id"]]).relevant for row in labels]
        right = sum(row["relevant"] and answer for row, answer in zip(labels, found, strict=True))
        assert right >= 0.95 * sum(found)
        assert right >= 0.90 * sum(row["relevant"] for row in labels)
