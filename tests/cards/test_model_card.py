"""The model card: every figure from the facts, a missing one refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from atomvision_hub.cards.model import read_facts, write_model_card
from atomvision_hub.errors import AtomVisionError

SHA = "ab" * 32


def score(value: float | None, n: int, interval: list[float] | None = None) -> dict[str, Any]:
    return {"value": value, "n": n, "unit": "1"} | ({"interval": interval} if interval else {})


@pytest.fixture
def facts() -> dict[str, Any]:
    part = {"recall": score(0.5, 4, [0.15, 0.85]), "precision": score(None, 0, [0.0, 1.0])}
    return {
        "task": "image-classification",
        "model_name": "resnet18-lattice_legacy",
        "version": "0.1.0",
        "commit": None,
        "data": {
            "dataset": "atomvision/stem2d",
            "config": "default",
            "label": "lattice_legacy",
            "revision": "v1.0.0",
            "manifest_sha256": SHA,
            "splits": {"train": 65, "validation": 10, "test": 25},
            "classes": ["hexagonal", "centered_rectangular"],
            "pixel_size": [0.1, 0.1],
            "field_of_view": [15.4, 25.6],
        },
        "config": {
            "model": {"architecture": "resnet18", "input_size": 128, "crop_pct": 1.0},
            "training": {"select_by": "macro_f1", "augment": "pose", "batch_size": 8, "learning_rate": 0.001},
        },
        "parameters": 11_000_000,
        "seed": 0,
        "tiny": False,
        "best_epoch": 3,
        "epochs": 4,
        "metrics": {
            "validation": {"accuracy": 0.8, "macro_f1": 0.7, "validation_loss": 0.5},
            "test": {
                "accuracy": score(0.76, 25, [0.566, 0.885]),
                "macro_f1": score(0.7, 25, [0.5, 0.8]) | {"classes": 2},
                "majority_class": score(0.4, 25, [0.234, 0.593]),
                "per_class": {"hexagonal": part, "centered_rectangular": part},
                "confusion": [[10, 2], [4, 9]],
                "ceilings": {"lattice": score(0.84, 25, [0.653, 0.936])},
                "new_prototypes": {"accuracy": score(None, 0, [0.0, 1.0])},
            },
        },
        "hardware": "CPU, 2 cores",
        "training_seconds": 600.0,
        "environment": {"torch": "2.14"},
    }


def write(folder: Path, facts: dict[str, Any]) -> None:
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def test_card_tells_the_facts(facts: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, facts)
    write_model_card(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["atomvision/stem2d"]
    assert card.data.license == "mit"
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["accuracy"].metric_value == 0.76
    assert results["accuracy"].dataset_revision == "v1.0.0"
    for part in (
        "| accuracy | 76.0 % (56.6–88.5) | 25 |",
        "from the true `lattice` | 84.0 % (65.3–93.6) | 25 |",
        "| accuracy on structure prototypes that training never saw | – (no such rows) | 0 |",
        "| centered rectangular | 50.0 % (15.0–85.0) | 4 | – (no such rows) | 0 |",
        "train 65, validation 10, test 25 rows",
        f"SHA-256 of its manifest `{SHA}`",
        "10 minutes",
        "0.1 Å/px, 15 to 26 Å wide",
    ):
        assert part in card.text, part
    assert "tiny" not in card.text
    assert "None" not in card.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("data", "manifest_sha256"), r"data\.manifest_sha256: Field required"),
        (("metrics", "test", "accuracy", "n"), r"metrics\.test\.accuracy\.n: Field required"),
        (("hardware",), "hardware: Field required"),
        (("config", "training", "seed"), None),
        (("config", "training", "augment"), "lacks a fact.*augment"),
    ],
)
def test_missing_fact_is_an_error(
    facts: dict[str, Any], tmp_path: Path, path: tuple[str, ...], message: str | None
) -> None:
    part = facts
    for key in path[:-1]:
        part = part[key]
    part.pop(path[-1], None)
    write(tmp_path, facts)
    if message is None:
        write_model_card(tmp_path)
        return
    with pytest.raises(AtomVisionError, match=message):
        write_model_card(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_data_must_be_pinned(facts: dict[str, Any], tmp_path: Path) -> None:
    facts["data"] |= {"revision": None, "manifest_sha256": None}
    write(tmp_path, facts)
    with pytest.raises(AtomVisionError, match="nothing pins the data"):
        read_facts(tmp_path)
    with pytest.raises(AtomVisionError, match=r"has no facts\.json"):
        read_facts(tmp_path / "elsewhere")


def test_card_counts_materials_where_one_has_several_images(facts: dict[str, Any], tmp_path: Path) -> None:
    facts["metrics"]["test"]["accuracy"]["groups"] = 5
    write(tmp_path, facts)
    write_model_card(tmp_path)
    assert "as wide as 5 independent materials allow" in (tmp_path / "README.md").read_text(encoding="utf-8")
