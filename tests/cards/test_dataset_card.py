from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from atomvision_hub.cards.dataset import (
    CardText,
    ConfigFacts,
    DatasetFacts,
    LabelComparison,
    LabelCounts,
    LabelFacts,
    SourceFacts,
    ValueCounts,
    dataset_header,
    render_dataset_card,
)
from atomvision_hub.errors import AtomVisionError

SOURCE = {
    "name": "reference",
    "description": "Monolayers.",
    "citation": "Someone (2020)",
    "licence": "CC-BY-4.0",
    "url": "https://example.org",
    "version": "1",
}
TEXT = {
    "title": "A dataset",
    "licence": "cc-by-4.0",
    "licence_note": "Images are ours.",
    "template": "dataset_stem2d.md.j2",
    "tags": ("stem",),
    "task_categories": ("image-classification",),
    "bibtex": ("@misc{a}",),
    "label_columns": ("lattice",),
    "classes": ("hexagonal", "square"),
}


def facts(**changes: Any) -> DatasetFacts:
    config = ConfigFacts(
        description="As in the paper",
        parameters={"bits": 8},
        splits={"train": 70, "validation": 10, "test": 20},
        bytes=5_000_000,
        columns=(("image", "image", "", "Image | grey levels"),),
    )
    counts = LabelCounts(column="lattice", splits={"train": {"hexagonal": 60, "square": 10}})
    comparison = LabelComparison(
        first="lattice", second="legacy", rows=100, differ=21, guessed=84, matrix=((40, 20), (1, 39))
    )
    values: dict[str, Any] = {
        "name": "stem2d",
        "text": CardText(**TEXT),
        "configs": {"default": config, "raw16": config},
        "sources": (SourceFacts(**SOURCE),),
        "rejected": {"duplicate": 3, "two-dimensional": 2},
        "inputs": 105,
        "split": {"by": "hash of the group", "group": "reduced formula"},
        "seed": 0,
        "limit": None,
        "tiny": False,
        "warnings": (),
        "environment": {"atomvision-hub": "0.1.0"},
        "schema_version": 1,
        "labels": LabelFacts(counts=(counts,), comparisons=(comparison,)),
        "picture": "assets/samples.png",
    }
    return DatasetFacts(**{**values, **changes})


def test_card_tells_the_facts() -> None:
    card = render_dataset_card(facts(), "license: cc-by-4.0")
    assert card.startswith("---\nlicense: cc-by-4.0\n---\n\n# A dataset\n")
    for line in (
        "![Example images](assets/samples.png)",
        "| `default` | 70 | 10 | 20 | 5.0 MB | As in the paper |",
        r"| `image` | image |  | Image \| grey levels |",
        "`raw16` has the columns of `default`.",
        "| hexagonal | 60 (85.7 %) | ",
        "`legacy` differs from `lattice` in 21 of 100 rows (21.0 %)",
        "is right in 84.0 %.",
        "105 inputs were looked at and 5 rejected (duplicate 3, two-dimensional 2).",
        "- **reference**: Monolayers. Licence of the inputs: CC-BY-4.0. <https://example.org> Version: `1`.",
        "Citation: Someone (2020).",
        "@misc{a}",
    ):
        assert line in card
    assert "{{" not in card
    assert "None" not in card


def test_card_of_a_split_file_warns() -> None:
    split = {"by": "file", "sha256": "abc", "unknown_ids": 7, "crossing_groups": ["MoS2"]}
    card = render_dataset_card(facts(split=split, warnings=("7 ids are unknown",)), "a: 1")
    assert "**1 compositions occur in more than one split**" in card
    assert "**Note:** 7 ids are unknown." in card


def test_tiny_card_says_so() -> None:
    assert "> A tiny twin" in render_dataset_card(facts(tiny=True), "a: 1")


@pytest.mark.parametrize("fact", sorted(SOURCE.keys() - {"url"}))
def test_a_source_without_provenance_is_refused(fact: str) -> None:
    with pytest.raises(ValidationError, match=fact):
        SourceFacts(**{**SOURCE, fact: ""})
    with pytest.raises(ValidationError, match=fact):
        SourceFacts(**{key: value for key, value in SOURCE.items() if key != fact})


def test_a_dataset_without_sources_or_citation_is_refused() -> None:
    with pytest.raises(ValidationError, match="sources"):
        facts(sources=())
    with pytest.raises(ValidationError, match="bibtex"):
        CardText(**{**TEXT, "bibtex": ()})


def test_a_missing_fact_stops_the_card() -> None:
    with pytest.raises(AtomVisionError, match=r"the card of stem2d lacks a fact: .*sha256"):
        render_dataset_card(facts(split={"by": "file"}), "a: 1")


def test_header_is_what_datasets_reads() -> None:
    from datasets import Features, Image, Value
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCard

    features = Features({"id": Value("string"), "image": Image()})
    sizes = {"train": (70, 700, 350), "validation": (10, 100, 50), "test": (20, 200, 100)}
    header = dataset_header(facts(), {"default": (features, sizes), "raw16": (features, sizes)})
    data = yaml.safe_load(header)
    assert data["license"] == "cc-by-4.0"
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0] == {
        "config_name": "default",
        "data_files": [
            {"split": split, "path": f"data/default/{split}-*"} for split in ("train", "validation", "test")
        ],
    }
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard(f"---\n{header}\n---\n").data)
    assert infos["default"].features == features
    assert infos["raw16"].splits["train"].num_examples == 70
    assert infos["default"].dataset_size == 1000
    assert infos["default"].download_size == 500


def test_counts_name_the_frequent_values_and_sum_up_the_others() -> None:
    counts = ValueCounts(
        column="licence",
        values=(("CC BY 4.0", {"train": 1200, "test": 30}), ("unknown", {"train": 0, "test": 2})),
        others=7,
    )
    card = render_dataset_card(facts(counts=(counts,)), "a: 1")
    assert "| `licence` | train | test |\n|---|--:|--:|\n| CC BY" in card
    assert "| CC BY 4.0 | 1,200 | 30 | " in card
    assert "| unknown | 0 | 2 | " in card
    assert "7 rows have other values." in card
    assert "## Counts" not in render_dataset_card(facts(), "a: 1")


def test_splits_are_told_by_what_the_group_is() -> None:
    card = render_dataset_card(facts(split={"by": "hash of the group", "group": "article"}), "a: 1")
    assert "no article is in two splits" in card


def test_the_picture_is_told_as_what_it_shows() -> None:
    plain = facts()
    masked = plain.configs["default"].model_copy(update={"columns": (("mask", "image", "", "Mask"),)})
    card = render_dataset_card(plain.model_copy(update={"configs": {"default": masked}}), "a: 1")
    assert "![Images (left) and the same images with mask and atoms (right)](assets/samples.png)" in card
