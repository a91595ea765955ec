"""What every finished run states, whatever it trained."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Facts(BaseModel):
    """A part of ``facts.json``: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFacts(Facts):
    """What the model learned from; `revision` or `manifest_sha256` pins it."""

    dataset: str = Field(min_length=1)
    config: str = Field(min_length=1)
    label: str | None
    revision: str | None
    manifest_sha256: str | None
    splits: dict[str, int]
    classes: tuple[str, ...]
    pixel_size: tuple[float, float] | None
    field_of_view: tuple[float, float] | None = None

    @property
    def on_hub(self) -> bool:
        """Whether the dataset is named by its id on the Hub."""
        return "/" in self.dataset and " " not in self.dataset


class RunFacts(Facts):
    """What `engine.report.base_facts` writes."""

    task: str
    model_name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    commit: str | None
    config: dict[str, dict[str, Any]]
    parameters: int = Field(gt=0)
    seed: int
    tiny: bool
    best_epoch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    hardware: str = Field(min_length=1)
    training_seconds: float
    environment: dict[str, str] = Field(min_length=1)
