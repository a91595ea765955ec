"""Columns of atoms -> class of lattice, by the graph classifier that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomvision_hub import analyze, load_structures, simulate_stem
from atomvision_hub.analysis import detect_atoms
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.inference.graph_lattice import (
    classify_columns,
    is_graph_classifier,
    load_graph_classifier,
)
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, DEFAULT_GRAPH_CLASSIFIER, pretrained_folder

MODEL = str(pretrained_folder(DEFAULT_GRAPH_CLASSIFIER))


@pytest.mark.parametrize(("crystal", "lattice"), [("MoS2", "hexagonal"), ("FeSe", "square")])
def test_shipped_graph_classifier_names_the_lattice(crystal: str, lattice: str) -> None:
    frame = simulate_stem(load_structures("reference")[crystal], rotation=20.0)
    names, chances = classify_columns(detect_atoms(frame.image, 0.1), load_graph_classifier(MODEL))
    assert chances.shape == (1, 5)
    assert names[int(chances[0].argmax())] == lattice
    assert chances.sum() == pytest.approx(1)


def test_wide_images_are_asked_about_in_parts() -> None:
    frame = simulate_stem(load_structures("reference")["graphene"], shape=(600, 300), rotation=5.0)
    names, chances = classify_columns(detect_atoms(frame.image, 0.1), load_graph_classifier(MODEL))
    assert len(chances) == 2
    assert {names[int(one.argmax())] for one in chances} == {"hexagonal"}


def test_without_a_pixel_size_the_scale_does_not_matter() -> None:
    image = simulate_stem(load_structures("reference")["graphene"]).image
    atoms = detect_atoms(image)
    assert atoms.pixel_size is None
    names, chances = classify_columns(atoms, load_graph_classifier(MODEL))
    assert names[int(chances.mean(0).argmax())] == "hexagonal"


def test_small_views_and_few_columns_are_one_line() -> None:
    image = simulate_stem(load_structures("reference")["graphene"], shape=(60, 60)).image
    with pytest.raises(AtomVisionError, match=r"shows 6\.0 Å, the model learned views of 18 to 26 Å"):
        classify_columns(detect_atoms(image, 0.1), load_graph_classifier(MODEL))
    atoms = detect_atoms(simulate_stem(load_structures("reference")["graphene"]).image, 0.1)
    with pytest.raises(AtomVisionError, match="too few columns"):
        classify_columns(atoms.select(atoms.confidence > 2), load_graph_classifier(MODEL))


def test_analyze_fits_the_lattice_and_asks_a_classifier_that_is_named() -> None:
    image = simulate_stem(load_structures("reference")["MoS2"], rotation=20.0).image
    found = analyze(image, pixel_size=0.1, segmenter="none")
    assert found.lattice is not None
    assert (found.lattice.label, found.lattice.model) == ("hexagonal", "lattice fit")
    assert sum(found.lattice.probabilities.values()) == pytest.approx(1)
    asked = analyze(image, pixel_size=0.1, segmenter="none", classifier=MODEL)
    assert asked.lattice is not None
    assert (asked.lattice.label, asked.lattice.model) == ("hexagonal", DEFAULT_GRAPH_CLASSIFIER)
    assert asked.models["classifier"]["sha256"]


def test_kinds_of_classifiers_are_told_apart(tmp_path: Path) -> None:
    assert is_graph_classifier(MODEL)
    assert not is_graph_classifier(str(pretrained_folder(DEFAULT_CLASSIFIER)))
    assert not is_graph_classifier("atomvision/some-model")
    (tmp_path / "config.json").write_text("no json")
    assert not is_graph_classifier(str(tmp_path))
