"""Graph classifiers: configuration, graphs of images, batches, answers, robustness."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from pydantic import Field
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from atomvision_hub.analysis.atoms import detect_atoms
from atomvision_hub.analysis.errors import AnalysisError
from atomvision_hub.data.progress import Steps, say
from atomvision_hub.engine.config import Fraction, LabelledData, LoopConfig, RunConfig, Section
from atomvision_hub.engine.data import Rows, Source
from atomvision_hub.engine.loop import batch_indices, gather_rows, share, steps_per_epoch
from atomvision_hub.engine.metrics import evaluate, proportion
from atomvision_hub.engine.workers import cores, worker_pool
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.models.alignn import Alignn, Draws, GraphStore, TorchGraph
from atomvision_hub.models.graphs import (
    ColumnGraph,
    Graphs,
    GraphSettings,
    column_graph,
    no_columns,
    read_levels,
)

#: Columns of the dataset that tell the intensity of a grey level.
INTENSITY = ("intensity_offset", "intensity_scale")
#: Accuracy of the AtomVision paper's ALIGNN.
PAPER = 0.78
#: What the tested images are changed by for the card: detected electrons/Å², pixels averaged, columns lost.
DOSES, BINNINGS, LOSSES = (5000.0, 500.0, 50.0), (2, 4), (0.02, 0.1)
#: Rows that are worth a worker process, which takes seconds to start.
_ROWS_OF_A_WORKER = 96


class GraphConfig(Section):
    """How images become graphs; see `models.graphs.GraphSettings`."""

    cutoff: float = Field(4.0, gt=0)
    neighbours: int = Field(6, ge=1)
    repeats: int = Field(8, ge=0)
    reach: float = Field(14.0, gt=0)
    columns: int = Field(192, ge=8)

    def settings(self) -> GraphSettings:
        """Return what travels with the weights."""
        return GraphSettings(**self.model_dump())


class AlignnModel(Section):
    """The network; see `models.alignn.Alignn`."""

    hidden: int = Field(64, ge=4)
    embedding: int = Field(64, ge=4)
    layers: int = Field(2, ge=1)
    graph_layers: int = Field(2, ge=0)
    bins: int = Field(64, ge=8)
    ratios: bool = True


class AlignnTraining(LoopConfig):
    """The loop; epochs, batch and rate of the AtomVision paper by default.

    Parameters
    ----------
    window_min
        Smallest part of an image's columns that a random window keeps; 1 for whole images.
    lost_max
        Largest part of the columns that is left out at random.
    jitter_max
        Largest standard deviation of a random shift of the columns, in Å.
    doses
        Detected electrons/Å² of further versions of each training image, made once; each epoch takes one
        version of an image at random. Needs the columns `INTENSITY` of the dataset; folders of images, which
        have no pixel size, go without.
    robustness
        Judge noisy, coarser and defective versions of the test images too. Needs the same columns.
    select_by
        What validation picks the checkpoint by.
    """

    epochs: int = Field(50, ge=1)
    label_smoothing: Fraction = 0.0
    window_min: float = Field(0.5, gt=0, le=1)
    lost_max: Fraction = 0.05
    jitter_max: float = Field(0.02, ge=0)
    doses: tuple[float, ...] = ()
    robustness: bool = True
    select_by: Literal["macro_f1", "accuracy"] = "accuracy"


class AlignnConfig(RunConfig):
    """Everything that decides the result of `training/train_alignn.py`."""

    task_name: ClassVar[str] = "alignn"

    data: LabelledData = LabelledData()
    graph: GraphConfig = GraphConfig()
    model: AlignnModel = AlignnModel()
    training: AlignnTraining = AlignnTraining()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the dataset that this run needs beside image and label."""
        return INTENSITY if self.training.robustness or self.training.doses else ()

    def tiny(self) -> Self:
        """Return the tiny twin: a toy network, two epochs, a few dozen rows of each split."""
        small = {"hidden": 8, "embedding": 8, "layers": 1, "graph_layers": 1, "bins": 8}
        loop = {"epochs": 2, "batch_size": 16, "doses": (), "robustness": False}
        return self.model_copy(
            update={
                "graph": self.graph.model_copy(update={"columns": 48}),
                "model": self.model.model_copy(update=small),
                "training": self.training.model_copy(update=loop),
            }
        )


@dataclass(frozen=True)
class Change:
    """What happens to an image before its columns are sought.

    Parameters
    ----------
    dose
        Detected electrons per Å², mean over the image; 0 for no noise.
    binning
        Pixels along each side whose mean becomes one.
    lost
        Part of the columns found that is taken away: vacancies of whole columns.
    """

    dose: float = 0.0
    binning: int = 1
    lost: float = 0.0


@dataclass(frozen=True)
class _Work:
    encoded: bytes | Path
    pixel_size: tuple[float, float] | None
    intensity: tuple[float, float]  # offset, scale
    change: Change
    seed: tuple[int, int]
    settings: GraphSettings


def _make(work: _Work) -> ColumnGraph:
    values = read_levels(work.encoded).astype(np.float64)
    change, steps = work.change, work.pixel_size
    generator = np.random.default_rng(work.seed)
    if change.binning > 1:
        rows, columns = (side // change.binning for side in values.shape)
        cut = values[: rows * change.binning, : columns * change.binning]
        values = cut.reshape(rows, change.binning, columns, change.binning).mean((1, 3))
        steps = None if steps is None else (steps[0] * change.binning, steps[1] * change.binning)
    if change.dose:
        if steps is None:
            raise UsageError("noise of a dose needs images with a pixel size")
        offset, scale = work.intensity
        intensity = np.maximum(offset + scale * values, 0)
        mean = max(float(intensity.mean()), 1e-12)
        values = generator.poisson(intensity * (change.dose * steps[0] * steps[1] / mean)).astype(np.float64)
    try:
        table = detect_atoms(values, steps)
    except AnalysisError:
        table = no_columns(values.shape)
    if change.lost:
        table = table.select(generator.random(len(table)) >= change.lost)
    return column_graph(table, work.settings)


def training_versions(config: AlignnTraining, rows: Rows) -> dict[str, Change]:
    """Return the versions of the training images by the names of their files: as they are, and noisy ones."""
    doses = config.doses if "pixel_size" in rows.columns else ()
    return {"graphs-train": Change()} | {f"graphs-train-{dose:g}": Change(dose=dose) for dose in doses}


def make_graphs(
    rows: Rows, settings: GraphSettings, title: str, change: Change | None = None, *, seed: int = 0
) -> Graphs:
    """Return the graphs of all images of a split, made by as many processes as there are cores.

    Parameters
    ----------
    title
        Of the progress bar.
    change, seed
        What happens to the images first, and the seed of what is random in it.
    """
    change = change or Change()
    sizes = rows.columns.get("pixel_size") or [None] * len(rows)
    intensities = zip(*(rows.columns.get(name, [0.0] * len(rows)) for name in INTENSITY), strict=True)
    work = (
        _Work(encoded, None if size is None else (size[0], size[1]), levels, change, (seed, index), settings)
        for index, (encoded, size, levels) in enumerate(zip(rows.encoded(), sizes, intensities, strict=True))
    )
    workers = min(cores(), len(rows) // _ROWS_OF_A_WORKER)
    made: list[ColumnGraph] = []
    with Steps(title, len(rows), "graphs") as step:
        if workers < 2:
            with threadpool_limits(1):
                for item in work:
                    made.append(_make(item))
                    step()
            return Graphs.join(made)
        pool = worker_pool(workers)
        try:
            for graph in pool.map(_make, work, chunksize=16):
                made.append(graph)
                step()
        except BrokenProcessPool:
            raise AtomVisionError(
                "a worker that makes graphs died, perhaps for want of memory; start again with --resume"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return Graphs.join(made)


def cached_graphs(
    rows: Rows,
    settings: GraphSettings,
    path: Path,
    accelerator: Accelerator,
    change: Change | None = None,
) -> Graphs:
    """Return the graphs of a split from a file, which the main process makes first where it is missing.

    Parameters
    ----------
    path
        Beside the checkpoints, which go when the run is finished.
    """
    if accelerator.is_main_process and not path.is_file():
        began = time.perf_counter()
        graphs = make_graphs(rows, settings, path.stem, change)
        graphs.save(path)
        rate = len(graphs) / (time.perf_counter() - began)
        empty = int((graphs.nodes == 0).sum())
        hint = f"; {empty} images show no columns" if empty else ""
        say(f"{path.stem}: {len(graphs):,} graphs, {rate:,.0f} a second{hint}")
    accelerator.wait_for_everyone()
    return Graphs.load(path)


class Batches:
    """Training batches of one epoch, the same for any number of processes, put together on the device.

    Parameters
    ----------
    store
        Graphs of the training images on the device: all of the first version, then all of the next.
    labels
        Of the images.
    """

    def __init__(
        self,
        store: GraphStore,
        labels: npt.NDArray[np.int64],
        config: AlignnTraining,
        accelerator: Accelerator,
    ) -> None:
        self.store, self.config, self.accelerator = store, config, accelerator
        self.rows, self.versions = len(labels), len(store) // len(labels)
        self.labels = torch.from_numpy(labels).to(store.device)

    def __len__(self) -> int:
        return steps_per_epoch(self.rows, self.config)

    def epoch(self, epoch: int) -> Iterator[tuple[TorchGraph, torch.Tensor]]:
        """Yield graphs and labels, both on the device."""
        config, device = self.config, self.store.device
        mine, count, most = share(config.batch_size, self.accelerator), config.batch_size, self.store.most
        for rows, generator in batch_indices(self.rows, config, epoch, self.accelerator):

            def draw(*shape: int, source: torch.Generator = generator) -> torch.Tensor:
                return torch.rand(shape, generator=source)

            version = (draw(count) * self.versions).long()[mine]
            draws = Draws(
                centre=draw(count),
                window=config.window_min + (1 - config.window_min) * draw(count),
                lost=config.lost_max * draw(count),
                chance=draw(count, most),
                jitter=config.jitter_max * draw(count),
                moves=torch.randn((count, most, 2), generator=generator),
            ).take(mine, device)
            chosen = torch.from_numpy(rows)
            graph = self.store.batch(version * self.rows + chosen, draws)
            yield graph, self.labels[chosen.to(device)]


def seconds_of_batches(batches: Batches) -> float:
    """Return the time of putting together the batches of one epoch, without anything else."""

    def settle() -> float:
        if batches.store.device.type == "cuda":
            torch.cuda.synchronize(batches.store.device)
        return time.perf_counter()

    began = settle()
    for _ in batches.epoch(1):
        pass
    return settle() - began


def join(graphs: Sequence[Graphs]) -> Graphs:
    """Return several sets of graphs as one."""
    if len(graphs) == 1:
        return graphs[0]
    return Graphs(
        **{
            name: np.concatenate([getattr(one, name) for one in graphs], axis=1 if name == "edges" else 0)
            for name in Graphs.__dataclass_fields__
        }
    )


def _chances(model: torch.nn.Module, store: GraphStore, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    logits: torch.Tensor = model(store.batch(torch.from_numpy(rows)))
    return logits.float().softmax(-1)


def predict_rows(
    model: torch.nn.Module, store: GraphStore, accelerator: Accelerator, batch_size: int = 64
) -> torch.Tensor:
    """Return the class probabilities of every graph, once each and in order, on every process."""
    was_training = model.training
    model.eval()
    found = gather_rows(lambda rows: _chances(model, store, rows), len(store), accelerator, batch_size)
    model.train(was_training)
    return found


@torch.inference_mode()
def predict_alone(model: torch.nn.Module, store: GraphStore, batch_size: int = 64) -> npt.NDArray[np.int64]:
    """Return the predicted class of every graph, by this process alone."""
    model.eval()
    parts = np.array_split(np.arange(len(store)), max(1, -(-len(store) // batch_size)))
    return torch.cat([_chances(model, store, rows) for rows in parts]).argmax(-1).cpu().numpy()


def robustness_table(
    source: Source,
    model: Alignn,
    settings: GraphSettings,
    predicted: npt.NDArray[np.int64],
    device: torch.device,
) -> dict[str, Any]:
    """Return the scores on changed versions of the test images as a table of the card.

    Parameters
    ----------
    predicted
        Classes of the images as they are.
    """
    rows = source.splits["test"]
    groups = np.array(rows.columns["material_id"]) if "material_id" in rows.columns else None
    step = float(np.median([size[0] for size in rows.columns["pixel_size"]]))
    changes = {
        "as it is": Change(),
        **{f"dose {dose:g} electrons/Å²": Change(dose=dose) for dose in DOSES},
        **{f"pixel size {step * n:.2g} Å": Change(binning=n) for n in BINNINGS},
        **{f"{100 * part:g} % of the columns missing": Change(lost=part) for part in LOSSES},
    }
    entries: list[list[Any]] = []
    for title, change in changes.items():
        found = predicted
        nodes = None
        if change != Change():
            graphs = make_graphs(rows, settings, f"test, {title}", change, seed=1)
            found, nodes = predict_alone(model, GraphStore(graphs, device)), float(graphs.nodes.mean())
        accuracy = proportion(found == rows.labels, groups)
        low, high = accuracy["interval"]
        macro = evaluate(rows.labels, found, source.classes)["macro_f1"]["value"]
        entries.append(
            [
                title,
                f"{100 * accuracy['value']:.1f} % ({100 * low:.1f}–{100 * high:.1f})",
                f"{100 * macro:.1f} %",
                "–" if nodes is None else round(nodes, 1),
            ]
        )
    return {
        "title": "Robustness",
        "columns": ["test images", "accuracy (95 % interval)", "macro-F1", "columns a graph"],
        "rows": entries,
        "note": f"The same {len(rows):,} test images, changed before their columns are sought: Poisson noise "
        "of so many detected electrons, pixels averaged, columns taken away at random. A "
        "graph holds lengths and angles, no directions: a rotation changes only which columns are in view.",
    }


def card_facts(
    config: AlignnConfig,
    source: Source,
    report: dict[str, Any],
    predicted: npt.NDArray[np.int64],
    model: Alignn,
    batches: Batches,
    history: Sequence[dict[str, Any]],
    graph_seconds: float,
) -> dict[str, Any]:
    """Return what the card says beside the facts of every run: metrics, tables, figures, notes.

    Parameters
    ----------
    report, predicted
        Of the test rows.
    graph_seconds
        Time of making (or reading) the graphs of the training and validation images.
    """
    chosen = max(history, key=lambda entry: entry[config.training.select_by])
    alone = seconds_of_batches(batches)
    steady = max(entry["graphs_per_second"] for entry in history)
    epoch_seconds = len(batches) * config.training.batch_size / steady
    made = len(batches.store) + len(source.splits["validation"])
    tables = [class_table(report, source.classes)]
    if config.training.robustness and "pixel_size" in source.splits["test"].columns:
        device = batches.store.device
        tables.append(robustness_table(source, model, config.graph.settings(), predicted, device))
    notes = [
        (
            f"Graphs of {made:,} images were made or read in {graph_seconds:.1f} s "
            f"({made / graph_seconds:,.0f} a second), once for all epochs. Putting together the batches of "
            f"an epoch takes {alone:.2g} s of {epoch_seconds:.2g} s "
            f"({100 * min(1.0, alone / epoch_seconds):.0f} %), on the device that trains, where all "
            "graphs lie."
        ),
        *_limits(config, report, noisy=batches.versions > 1),
    ]
    return {
        "metrics": {
            "validation": {name: chosen[name] for name in ("accuracy", "macro_f1", "validation_loss")},
            "test": _figures(report, source),
        },
        "tables": tables,
        "figures": [
            {"file": "confusion.png", "caption": "Confusion matrix of the test rows"},
            {"file": "curves.png", "caption": "Loss and validation scores over the epochs"},
        ],
        "notes": notes,
    }


def _limits(config: AlignnConfig, report: dict[str, Any], *, noisy: bool) -> list[str]:
    notes = []
    if report.get("ceilings"):
        notes.append(
            "These labels depend on how the source wrote down the cell, which no image shows: the best guess "
            "from the true lattice is the most to expect of a model that reads the lattice without fault."
        )
    if config.graph.repeats == 0:
        notes.append(
            f"Edges end at {config.graph.cutoff:g} Å: lengths and angles of cells larger than that are known "
            "only through chains of bonds."
        )
    beside = [
        text
        for on, text in (
            (config.training.label_smoothing, f"label smoothing {config.training.label_smoothing:g}"),
            (config.training.ema_decay, f"a moving average of the weights ({config.training.ema_decay:g})"),
            (config.training.warmup, "a warm-up and half a cosine of the learning rate"),
            (config.graph.repeats, f"{config.graph.repeats} repeats a column"),
            (config.model.ratios, "ratios of lengths beside the angles"),
            (
                noisy,
                f"training images of {_listed(config.training.doses)} electrons/Å² too",
            ),
        )
        if on
    ]
    if beside:
        notes.append(f"Beside the paper's settings: {', '.join(beside)}.")
    return notes


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _figures(report: dict[str, Any], source: Source) -> dict[str, Any]:
    """Return a `test_report` as figures of a card, with majority class and ceilings as baselines."""
    accuracy, macro = report["accuracy"], report["macro_f1"]
    baselines = {"majority class": report["majority_class"]["value"]}
    for column, score in report.get("ceilings", {}).items():
        baselines[f"best guess from true {column}"] = score["value"]
    # The paper's ALIGNN learned labels of the same rule, on images of other materials.
    paper = {"paper": PAPER} if source.facts["label"] == "lattice_legacy" else {}
    figures = {
        "accuracy": accuracy | {"baselines": baselines} | paper,
        "macro_f1": {key: macro[key] for key in ("value", "n", "unit", "interval")},
    }
    new = report.get("new_prototypes", {}).get("accuracy")
    if new is not None and new["n"]:
        note = "rows whose structure prototype training never saw"
        figures["accuracy_on_new_prototypes"] = new | {"note": note}
    return figures


def class_table(report: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return recall and precision of the classes as a table of the card."""

    def shown(score: dict[str, Any]) -> str:
        if score["value"] is None:
            return "–"
        low, high = score["interval"]
        return f"{100 * score['value']:.1f} % ({100 * low:.1f}–{100 * high:.1f})"

    entries = []
    for name in classes:
        scores = report["per_class"][name]
        recall, precision = scores["recall"], scores["precision"]
        entries.append([name.replace("_", " "), shown(recall), recall["n"], shown(precision), precision["n"]])
    return {
        "title": "Classes",
        "columns": ["class", "recall", "n", "precision", "n predicted"],
        "rows": entries,
        "note": "",
    }
