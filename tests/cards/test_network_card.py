"""Cards of the other models: figures with their baselines, tables, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from atomvision_hub.cards import network
from atomvision_hub.cards.model import write_model_card
from atomvision_hub.cards.templating import figure
from atomvision_hub.errors import AtomVisionError


@pytest.fixture
def facts() -> dict[str, Any]:
    return {
        "kind": "segmenter",
        "task": "image-segmentation",
        "model_name": "atom-segmenter",
        "version": "0.1.0",
        "commit": "ab" * 20,
        "data": {
            "dataset": "atomvision/stem2d",
            "config": "defects",
            "label": None,
            "revision": "v1.0.0",
            "manifest_sha256": None,
            "splits": {"train": 65, "validation": 10, "test": 25},
            "classes": [],
            "pixel_size": [0.05, 0.2],
            "field_of_view": [15.4, 25.6],
        },
        "config": {"model": {}, "training": {}},
        "parameters": 1000,
        "seed": 0,
        "tiny": False,
        "best_epoch": 2,
        "epochs": 3,
        "metrics": {
            "validation": {"iou": 0.95},
            "test": {
                "pixel_accuracy": {
                    "value": 0.993,
                    "unit": "1",
                    "n": 100,
                    "interval": [0.99, 0.995],
                    "groups": 50,
                    "paper": 0.93,
                    "baselines": {"otsu": 0.81},
                    "note": "Of all pixels.",
                },
                "position_error": {"value": 0.0123, "unit": "Å", "n": 100},
            },
        },
        "tables": [
            {"title": "Dose", "columns": ["e/Å²", "IoU"], "rows": [["50", 0.9], ["500", None]], "note": "n"}
        ],
        "figures": [{"file": "curves.png", "caption": "Learning curves"}],
        "notes": ["Seen nothing real."],
        "hardware": "CPU, 2 cores",
        "training_seconds": 200.0,
        "environment": {"torch": "2.14"},
    }


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template for a kind of its own, so that the layout is tested without any one model's words."""
    from jinja2 import ChoiceLoader, DictLoader

    real = network.environment

    def with_toy() -> Any:
        made = real()
        toy = (
            '{% extends "model_network.md.j2" %}{% block intro %}A toy.{% endblock %}'
            "{% block usage %}Load it.{% endblock %}{% block limits %}- Many.{% endblock %}"
        )
        assert made.loader is not None
        made.loader = ChoiceLoader([DictLoader({"model_toy.md.j2": toy}), made.loader])
        return made

    monkeypatch.setattr(network, "environment", with_toy)


@pytest.mark.usefixtures("templates")
def test_card_tells_figures_baselines_tables_and_pictures(facts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps(facts | {"kind": "toy"}), encoding="utf-8")
    write_model_card(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.library_name == "atomvision-hub"
    assert card.data.datasets == ["atomvision/stem2d"]
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["pixel_accuracy"].metric_value == 0.993
    assert results["pixel_accuracy"].dataset_revision == "v1.0.0"
    for part in (
        "| figure | value | otsu | AtomVision paper | n |",
        "| pixel accuracy | 99.30 % (99.00–99.50) | 81.0 % | 93.0 % | 100 (50 materials) |",
        "| position error | 0.0123 Å | – | – | 100 |",
        "- pixel accuracy: Of all pixels.",
        "### Dose",
        "| 500 | – |",
        "![Learning curves](curves.png)",
        "- Seen nothing real.",
        "0.05 to 0.2 Å/px, 15 to 26 Å wide",
    ):
        assert part in card.text, part
    assert "None" not in card.text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("metrics", "test"), {}, r"metrics\.test"),
        (("tables", 0, "rows"), [["50"]], "has not 2 entries"),
        (("figures", 0, "file"), "../secret.png", r"figures\.0\.file"),
        (("kind",), "no_such", "no card template for a 'no_such'"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_wrong_facts_are_refused(
    facts: dict[str, Any], tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    part: Any = facts
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (tmp_path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(AtomVisionError, match=message):
        write_model_card(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_figures_show_the_digits_that_mean_something() -> None:
    assert figure(0.5, "1") == "50.0 %"
    assert figure(0.9934, "1") == "99.34 %"
    assert figure(None, "1") == "–"
    assert figure(31.4159, "dB") == "31.42 dB"
