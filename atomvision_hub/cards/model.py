"""Model cards: facts of a run in, README.md out; a missing fact is an error, never a blank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.exceptions import UndefinedError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atomvision_hub._files import write_text
from atomvision_hub.errors import AtomVisionError

_TEMPLATES = Path(__file__).with_name("templates")


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Facts):
    """A score between 0 and 1 on n rows of `groups` materials, with its 95 % interval where there is one."""

    value: float | None
    n: int = Field(ge=0)
    unit: str
    interval: tuple[float, float] | None = None
    classes: int | None = None
    groups: int | None = None


class ClassScores(_Facts):
    """Recall and precision of one class."""

    recall: Score
    precision: Score


class TestFacts(_Facts):
    """Scores on the test rows, which were looked at once."""

    accuracy: Score
    macro_f1: Score
    majority_class: Score
    per_class: dict[str, ClassScores] = Field(min_length=2)
    confusion: tuple[tuple[int, ...], ...]
    ceilings: dict[str, Score] = {}
    new_prototypes: dict[str, Score] = {}


class MetricFacts(_Facts):
    """Scores of the chosen epoch on the validation rows, and on the test rows."""

    validation: dict[str, float]
    test: TestFacts


class DataFacts(_Facts):
    """What the model learned from; `revision` or `manifest_sha256` pins it."""

    dataset: str = Field(min_length=1)
    config: str = Field(min_length=1)
    label: str = Field(min_length=1)
    revision: str | None
    manifest_sha256: str | None
    splits: dict[str, int]
    classes: tuple[str, ...] = Field(min_length=2)
    pixel_size: tuple[float, float] | None
    field_of_view: tuple[float, float] | None = None


class ModelFacts(_Facts):
    """Everything a classifier's card is made of."""

    task: str
    model_name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    commit: str | None
    data: DataFacts
    config: dict[str, dict[str, Any]]
    parameters: int = Field(gt=0)
    seed: int
    tiny: bool
    best_epoch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    metrics: MetricFacts
    hardware: str = Field(min_length=1)
    training_seconds: float
    environment: dict[str, str] = Field(min_length=1)


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts of a model folder.

    Raises
    ------
    AtomVisionError
        When ``facts.json`` is missing or lacks a fact; the line names it.
    """
    path = folder / "facts.json"
    try:
        facts = ModelFacts.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise AtomVisionError(f"{folder} has no facts.json; only a finished run has a card") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise AtomVisionError(f"{path}: {place}: {first['msg']}; the card cannot be written") from None
    except ValueError:
        raise AtomVisionError(f"{path} is damaged; train the model again") from None
    if facts.data.revision is None and facts.data.manifest_sha256 is None:
        raise AtomVisionError(
            f"{path} has neither data.revision nor data.manifest_sha256: nothing pins the data"
        )
    return facts


def render_model_card(facts: ModelFacts) -> str:
    """Return the card: YAML block with the scores as ``model-index``, then prose."""
    from huggingface_hub import EvalResult, ModelCardData

    data = facts.data
    on_hub = "/" in data.dataset and " " not in data.dataset
    results = [
        EvalResult(
            task_type=facts.task,
            dataset_type=data.dataset,
            dataset_name=data.dataset,
            dataset_config=data.config,
            dataset_split="test",
            dataset_revision=data.revision,
            dataset_args={"label": data.label},
            metric_type=metric,
            metric_value=round(score.value, 5),
            metric_args=None
            if score.interval is None
            else {"n": score.n, "interval_95": list(score.interval)},
        )
        for metric, score in (("accuracy", facts.metrics.test.accuracy), ("f1", facts.metrics.test.macro_f1))
        if score.value is not None
    ]
    header = ModelCardData(
        model_name=facts.model_name,
        eval_results=results,
        pipeline_tag="image-classification",
        library_name="transformers",
        license="mit",
        datasets=[data.dataset] if on_hub else None,
        tags=["timm", "materials-science", "electron-microscopy", "stem", "bravais-lattice"],
    )
    # Markdown for the Hub, which sanitises it; HTML escaping would spoil names.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    environment.filters["score"] = _score
    environment.filters["words"] = lambda name: name.replace("_", " ")
    try:
        body = environment.get_template("model_classifier.md.j2").render(**dict(facts), **dict(facts.metrics))
    except UndefinedError as problem:
        raise AtomVisionError(f"the card of {facts.model_name} lacks a fact: {problem}") from None
    return f"---\n{header.to_yaml().strip()}\n---\n\n{body.strip()}\n"


def _score(score: Score) -> str:
    if score.value is None:
        return "– (no such rows)"
    if score.interval is None:
        return f"{100 * score.value:.1f} %"
    low, high = score.interval
    return f"{100 * score.value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def write_model_card(folder: Path) -> None:
    """Render ``README.md`` of a model folder from its ``facts.json``; errors as of `read_facts`."""
    write_text(folder / "README.md", render_model_card(read_facts(folder)))
