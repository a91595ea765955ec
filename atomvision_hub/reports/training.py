"""Report of a training run: scores, curves, configuration and environment, from the files of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from atomvision_hub._files import write_text
from atomvision_hub.cards.model import ModelFacts, read_facts
from atomvision_hub.cards.network import NetworkFacts
from atomvision_hub.cards.templating import figure
from atomvision_hub.reports.page import Picture, cell, render

#: What the pictures of a run show, where its facts have no caption for them.
_CAPTIONS = {
    "curves.png": "Loss and validation scores over the epochs",
    "confusion.png": "Confusion matrix of the test rows",
}
#: Most epochs that the table shows; of longer runs every n-th and the last.
_EPOCHS = 60
#: Largest picture that is put into a page.
_LARGEST = 8 * 2**20


def training_report(folder: Path) -> str:
    """Return an HTML page about a finished run.

    Parameters
    ----------
    folder
        Of the run: ``facts.json``, and if they are there ``metrics.jsonl``, ``training_config.yaml`` and
        pictures.

    Raises
    ------
    AtomVisionError
        When ``facts.json`` is missing or lacks a fact.
    """
    facts = read_facts(folder)
    network = facts if isinstance(facts, NetworkFacts) else None
    return render(
        "training.html.j2",
        title=facts.model_name,
        facts=facts,
        scores=_network_scores(network) if network else _classifier_scores(facts),
        baselines=sorted({name for r in network.metrics.test.values() for name in r.baselines})
        if network
        else [],
        classes=[] if network else _classes(facts),
        validation=[(name.replace("_", " "), value) for name, value in facts.metrics.validation.items()],
        tables=network.tables if network else (),
        notes=network.notes if network else (),
        pictures=_pictures(folder, network),
        history=_history(folder),
        run=_run(facts),
        data=[(name.replace("_", " "), value) for name, value in facts.data.model_dump(mode="json").items()],
        config=_config(folder, facts.config),
        environment=sorted(facts.environment.items()),
    )


def write_training_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run; errors as of `training_report`."""
    path = folder / "report.html"
    write_text(path, training_report(folder))
    return path


def _network_scores(facts: NetworkFacts) -> list[dict[str, Any]]:
    return [
        {
            "name": name.replace("_", " "),
            "value": figure(result.value, result.unit),
            "interval": _interval(result.interval, result.unit),
            "n": result.n,
            "baselines": {key: figure(value, result.unit) for key, value in result.baselines.items()},
            "paper": None if result.paper is None else figure(result.paper, result.unit),
            "note": result.note,
        }
        for name, result in facts.metrics.test.items()
    ]


def _classifier_scores(facts: Any) -> list[dict[str, Any]]:
    test = facts.metrics.test
    rows = {"accuracy": test.accuracy, "macro-F1": test.macro_f1, "majority class": test.majority_class}
    rows |= {f"ceiling by {name}": score for name, score in test.ceilings.items()}
    rows |= {f"{name}, prototypes never seen": score for name, score in test.new_prototypes.items()}
    return [
        {
            "name": name.replace("_", " "),
            "value": figure(score.value, "1"),
            "interval": _interval(score.interval, "1"),
            "n": score.n,
            "baselines": {},
            "paper": None,
            "note": "",
        }
        for name, score in rows.items()
    ]


def _classes(facts: Any) -> list[tuple[str, str, str, int]]:
    return [
        (
            name.replace("_", " "),
            figure(scores.recall.value, "1"),
            figure(scores.precision.value, "1"),
            scores.recall.n,
        )
        for name, scores in facts.metrics.test.per_class.items()
    ]


def _interval(interval: tuple[float, float] | None, unit: str) -> str:
    if interval is None:
        return ""
    return " to ".join(figure(value, unit) for value in interval)


def _pictures(folder: Path, facts: NetworkFacts | None) -> list[Picture]:
    captions = {entry.file: entry.caption for entry in facts.figures} if facts else {}
    names = [*captions, *(name for name in _CAPTIONS if name not in captions)]
    paths = [(folder / name, captions.get(name) or _CAPTIONS[name]) for name in names]
    return [
        Picture(path.read_bytes(), caption)
        for path, caption in paths
        if path.is_file() and path.stat().st_size <= _LARGEST
    ]


def _history(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines if line.strip()]
    step = -(-len(entries) // _EPOCHS) or 1
    chosen = [
        entry for number, entry in enumerate(entries, 1) if number % step == 0 or number == len(entries)
    ]
    plain = {name for entry in chosen for name, value in entry.items() if not isinstance(value, (dict, list))}
    names = ["epoch", *sorted(plain - {"epoch"})]
    return {
        "head": [name.replace("_", " ") for name in names],
        "rows": [[entry.get(name) for name in names] for entry in chosen],
        "all": len(entries),
    }


def _run(facts: ModelFacts | NetworkFacts) -> list[tuple[str, Any]]:
    return [
        ("Task", facts.task),
        ("Parameters", f"{facts.parameters:,}"),
        ("Epochs", f"{facts.epochs}, chosen by validation: {facts.best_epoch}"),
        ("Seed", facts.seed),
        ("Hardware", facts.hardware),
        ("Training time", _duration(facts.training_seconds)),
        ("Commit", facts.commit),
        ("AtomVision Hub", facts.version),
        *([("Size", "a tiny run: it shows that everything works, not how well")] if facts.tiny else []),
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _config(folder: Path, known: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    path = folder / "training_config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else known
    return [
        (str(name), [(str(key), cell(value)) for key, value in values.items()])
        if isinstance(values, dict)
        else (str(name), [("", cell(values))])
        for name, values in content.items()
    ]
