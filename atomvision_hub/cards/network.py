"""Facts and cards of the models that are no timm classifiers: one layout, a template for each kind."""

from __future__ import annotations

from typing import Any, Self

from jinja2.exceptions import TemplateNotFound, UndefinedError
from pydantic import Field, model_validator

from atomvision_hub.cards.facts import DataFacts, Facts, RunFacts
from atomvision_hub.cards.templating import environment
from atomvision_hub.errors import AtomVisionError

#: Words that a search on the Hub finds these models by.
_TAGS = {
    "segmenter": ("image-segmentation", "segmentation-models-pytorch"),
    "lattice": ("transformers", "bravais-lattice"),
    "alignn": ("graph-neural-network", "bravais-lattice"),
    "super_resolution": ("super-resolution", "gan"),
    "autoencoder": ("autoencoder",),
    "vae": ("autoencoder", "vae"),
}


class Result(Facts):
    """A figure measured on `n` test rows of `groups` materials.

    Parameters
    ----------
    value, unit
        The figure and its unit; ``"1"`` for a share, which a card shows in percent.
    interval
        95 % confidence interval.
    paper
        The figure of the AtomVision paper, where it has one.
    baselines
        The same figure of simpler methods on the same rows.
    note
        What to know about it, one sentence.
    """

    value: float | None
    unit: str = Field(min_length=1)
    n: int = Field(ge=0)
    interval: tuple[float, float] | None = None
    groups: int | None = None
    paper: float | None = None
    baselines: dict[str, float | None] = Field({})
    note: str = ""


class Metrics(Facts):
    """Figures of the chosen epoch on the validation rows, and on the test rows, which were opened once."""

    validation: dict[str, float]
    test: dict[str, Result] = Field(min_length=1)


class TableFacts(Facts):
    """A table of a card: robustness, a sweep, a comparison."""

    title: str = Field(min_length=1)
    columns: tuple[str, ...] = Field(min_length=1)
    rows: tuple[tuple[str | int | float | None, ...], ...] = Field(min_length=1)
    note: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of table {self.title!r} has not {len(self.columns)} entries")
        return self


class FigureFacts(Facts):
    """A picture beside the card."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.png$")
    caption: str = Field(min_length=1)


class NetworkFacts(RunFacts):
    """Everything a card of these models is made of."""

    kind: str
    data: DataFacts
    metrics: Metrics
    tables: tuple[TableFacts, ...] = ()
    figures: tuple[FigureFacts, ...] = ()
    notes: tuple[str, ...] = ()


def render_network_card(facts: NetworkFacts) -> str:
    """Return the card: YAML block with the figures as ``model-index``, then prose and tables.

    Raises
    ------
    AtomVisionError
        When the kind has no template, or its template wants a fact that is not there.
    """
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
            metric_type=name,
            metric_value=round(result.value, 6),
            metric_args={"n": result.n, "unit": result.unit}
            | ({} if result.interval is None else {"interval_95": list(result.interval)}),
        )
        for name, result in facts.metrics.test.items()
        if result.value is not None
    ]
    header = ModelCardData(
        model_name=facts.model_name,
        eval_results=results,
        pipeline_tag=facts.task,
        library_name="atomvision-hub",
        license="mit",
        datasets=[data.dataset] if data.on_hub else None,
        tags=["materials-science", "electron-microscopy", "stem", *_TAGS.get(facts.kind, ())],
    )
    try:
        template = environment().get_template(f"model_{facts.kind}.md.j2")
        values: dict[str, Any] = dict(facts) | {"facts": facts, "validation": facts.metrics.validation}
        body = template.render(**values, test=facts.metrics.test)
    except TemplateNotFound:
        raise AtomVisionError(f"there is no card template for a {facts.kind!r}") from None
    except UndefinedError as problem:
        raise AtomVisionError(f"the card of {facts.model_name} lacks a fact: {problem}") from None
    return f"---\n{header.to_yaml().strip()}\n---\n\n{body.strip()}\n"
