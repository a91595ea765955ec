"""Train a graph classifier: atom columns of images as graphs, an ALIGNN that tells their lattices.

    accelerate launch training/train_alignn.py --set data.path=build/stem2d data.config=rotated
    accelerate launch training/train_alignn.py --train-dir images/train --test-dir images/test

The folder of the run becomes the repository of the model: weights, graph settings, card, facts, curves.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch.nn import functional

from atomvision_hub.engine import loop
from atomvision_hub.engine.checkpoint import Checkpoints
from atomvision_hub.engine.config import parse_arguments
from atomvision_hub.engine.curves import draw_confusion, draw_curves
from atomvision_hub.engine.data import open_source
from atomvision_hub.engine.metrics import evaluate
from atomvision_hub.engine.report import base_facts, hardware, in_words, test_report
from atomvision_hub.engine.run import RunFolder, run_script
from atomvision_hub.engine.tasks.alignn import (
    AlignnConfig,
    Batches,
    cached_graphs,
    card_facts,
    join,
    predict_rows,
    training_versions,
)
from atomvision_hub.engine.tasks.classifier import mean_log_loss
from atomvision_hub.models.alignn import Alignn, GraphStore


def main() -> None:
    """Make graphs, train, let validation choose, test once, save, publish."""
    config, options = parse_arguments(AlignnConfig, __doc__ or "")
    settings, graph = config.training, config.graph.settings()
    RunFolder.check(config, options)
    accelerator = loop.make_accelerator(settings, str(options.output_dir))
    run = RunFolder(config, options, accelerator.is_main_process)
    accelerator.wait_for_everyone()

    # Data: every image becomes a graph once, kept in a file until the run is finished; test rows stay closed.
    limit = 64 if options.tiny else None
    source = open_source(config.data, seed=settings.seed, limit=limit, keep=config.columns)
    run.start(config)
    splits, labels = source.splits, source.splits["train"].labels
    began = time.perf_counter()
    made = [
        cached_graphs(splits["train"], graph, run.checkpoints / f"{name}.npz", accelerator, change)
        for name, change in training_versions(settings, splits["train"]).items()
    ]
    held_out = cached_graphs(
        splits["validation"], graph, run.checkpoints / "graphs-validation.npz", accelerator
    )
    train, validation = (GraphStore(one, accelerator.device) for one in (join(made), held_out))
    graph_seconds = time.perf_counter() - began

    # Model: the same start on every process; how images become graphs travels with it.
    torch.manual_seed(settings.seed)
    calibration = source.calibration(1)
    known = calibration | {"graph": graph.to_dict(), "labels": list(source.classes)}
    arguments = config.model.model_dump() | {"reach": max(graph.cutoff, graph.reach * (graph.repeats > 0))}
    model = Alignn(classes=len(source.classes), known=known, **arguments)
    batches = Batches(train, labels, settings, accelerator)
    optimizer = torch.optim.AdamW(loop.weight_groups(model, settings.weight_decay), lr=settings.learning_rate)
    scheduler = loop.schedule(optimizer, settings.epochs * len(batches), settings.warmup)
    plain = model.to(accelerator.device)
    averaged = ModelEmaV3(plain, decay=settings.ema_decay) if settings.ema_decay else None
    model, optimizer = accelerator.prepare(model, optimizer)

    state = {"model": plain} | ({"averaged": averaged} if averaged is not None else {})
    checkpoints, optimizers = Checkpoints(run.checkpoints), {"model": optimizer}
    progress: dict[str, Any] = {"best_epoch": 0, "best_score": -1.0, "seconds": 0.0}
    done = 0
    if options.resume and checkpoints.exists():
        done, progress = checkpoints.load(state, optimizers)
        scheduler.last_epoch = done * len(batches)
        scheduler._step_count = scheduler.last_epoch + 1  # noqa: SLF001 - else torch warns of the order of steps
    history = run.truncate(done)
    if settings.trackers:
        accelerator.init_trackers("alignn")

    for epoch in range(done + 1, settings.epochs + 1):
        began, total = time.perf_counter(), torch.zeros((), device=accelerator.device)
        model.train()
        for graphs, classes in batches.epoch(epoch):
            logits = model(graphs)
            # Negative logarithm of the likelihood, as in the paper.
            loss = functional.cross_entropy(logits.float(), classes, label_smoothing=settings.label_smoothing)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if averaged is not None:
                averaged.update(plain)
            total += loss.detach()
        mean_loss = float(accelerator.reduce(total, "mean")) / len(batches)
        trained = time.perf_counter() - began

        judged = averaged.module if averaged is not None else plain
        chances = predict_rows(judged, validation, accelerator)
        truth = splits["validation"].labels
        scores = evaluate(truth, chances.argmax(-1).numpy(), source.classes)
        entry = {
            "epoch": epoch,
            "loss": mean_loss,
            "validation_loss": mean_log_loss(chances, truth),
            "accuracy": scores["accuracy"]["value"],
            "macro_f1": scores["macro_f1"]["value"],
            "learning_rate": scheduler.get_last_lr()[0],
            "graphs_per_second": len(batches) * settings.batch_size / trained,
        }
        history.append(entry)
        run.log(entry)
        accelerator.log(entry, step=epoch)

        progress["seconds"] += time.perf_counter() - began
        better = entry[settings.select_by] > progress["best_score"]
        if better:
            progress |= {"best_epoch": epoch, "best_score": entry[settings.select_by]}
        if accelerator.is_main_process:
            checkpoints.save(epoch, progress, state, optimizers, {"best": judged} if better else None)
        accelerator.wait_for_everyone()

    # The only time the test rows are looked at, with the weights that validation chose.
    best_model = copy.deepcopy(plain)
    checkpoints.load_best({"best": best_model})
    tested = cached_graphs(splits["test"], graph, run.checkpoints / "graphs-test.npz", accelerator)
    predicted = (
        predict_rows(best_model, GraphStore(tested, accelerator.device), accelerator).argmax(-1).numpy()
    )
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    report = test_report(source, predicted)
    facts = base_facts(
        config,
        source.data_facts(calibration),
        task=Alignn.task,
        model_name=f"alignn-{source.facts['label'].replace(' ', '-')}",
        model=plain,
        options=options,
        history=history,
        best_epoch=progress["best_epoch"],
        hardware=hardware(accelerator.device, accelerator.num_processes),
        seconds=progress["seconds"],
    )
    run.save_model(best_model)
    draw_curves(history, run.path / "curves.png")
    draw_confusion(report["confusion"], source.classes, run.path / "confusion.png")
    facts |= card_facts(config, source, report, predicted, best_model, batches, history, graph_seconds)
    run.finish(facts, options, in_words(report))


if __name__ == "__main__":
    run_script(main)
