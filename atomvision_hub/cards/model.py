"""Model cards: facts of a run in, README.md out; a missing fact is an error, never a blank."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2.exceptions import UndefinedError
from pydantic import Field, ValidationError

from atomvision_hub._files import write_text
from atomvision_hub.cards.facts import DataFacts, Facts, RunFacts
from atomvision_hub.cards.network import NetworkFacts, render_network_card
from atomvision_hub.cards.templating import environment
from atomvision_hub.errors import AtomVisionError


class Score(Facts):
    """A score between 0 and 1 on n rows of `groups` materials, with its 95 % interval where there is one."""

    value: float | None
    n: int = Field(ge=0)
    unit: str
    interval: tuple[float, float] | None = None
    classes: int | None = None
    groups: int | None = None


class ClassScores(Facts):
    """Recall and precision of one class."""

    recall: Score
    precision: Score


class TestFacts(Facts):
    """Scores on the test rows, which were looked at once."""

    accuracy: Score
    macro_f1: Score
    majority_class: Score
    per_class: dict[str, ClassScores] = Field(min_length=2)
    confusion: tuple[tuple[int, ...], ...]
    ceilings: dict[str, Score] = Field({})
    new_prototypes: dict[str, Score] = Field({})


class MetricFacts(Facts):
    """Scores of the chosen epoch on the validation rows, and on the test rows."""

    validation: dict[str, float]
    test: TestFacts


class LabelledFacts(DataFacts):
    """Images with classes."""

    label: str = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=2)


class ModelFacts(RunFacts):
    """Everything a classifier's card is made of."""

    data: LabelledFacts
    metrics: MetricFacts


def read_facts(folder: Path) -> ModelFacts | NetworkFacts:
    """Return the facts of a model folder; the ``kind`` in them tells which.

    Raises
    ------
    AtomVisionError
        When ``facts.json`` is missing or lacks a fact; the line names it.
    """
    path = folder / "facts.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # A classifier's facts have no kind.
        layout = NetworkFacts if isinstance(content, dict) and "kind" in content else ModelFacts
        facts: ModelFacts | NetworkFacts = layout.model_validate(content)
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


def render_model_card(facts: ModelFacts | NetworkFacts) -> str:
    """Return the card: YAML block with the scores as ``model-index``, then prose."""
    return render_network_card(facts) if isinstance(facts, NetworkFacts) else _render_classifier(facts)


def _render_classifier(facts: ModelFacts) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    data = facts.data
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
        datasets=[data.dataset] if data.on_hub else None,
        tags=["timm", "materials-science", "electron-microscopy", "stem", "bravais-lattice"],
    )
    try:
        body = (
            environment().get_template("model_classifier.md.j2").render(**dict(facts), **dict(facts.metrics))
        )
    except UndefinedError as problem:
        raise AtomVisionError(f"the card of {facts.model_name} lacks a fact: {problem}") from None
    return f"---\n{header.to_yaml().strip()}\n---\n\n{body.strip()}\n"


def write_model_card(folder: Path) -> None:
    """Render ``README.md`` of a model folder from its ``facts.json``; errors as of `read_facts`."""
    write_text(folder / "README.md", render_model_card(read_facts(folder)))
