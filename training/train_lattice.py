"""Train the lattice network: crystals rendered in random poses, a transformer on what nearly repeats them.

    accelerate launch training/train_lattice.py --set data.path=build/stem2d

The folder of the run becomes the repository of the model: weights, preprocessing, card, facts, curves.
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
from atomvision_hub.engine.report import base_facts, hardware
from atomvision_hub.engine.run import RunFolder, run_script
from atomvision_hub.engine.tasks.classifier import mean_log_loss
from atomvision_hub.engine.tasks.lattice import (
    RECORDED,
    Batches,
    LatticeRunConfig,
    Trained,
    card_facts,
    data_facts,
    predict_split,
    scores,
    see_split,
)
from atomvision_hub.models.lattice_network import LatticeNetwork, image_processor, make_lattice_network
from atomvision_hub.structures.record import LATTICES

LEAST = 0.015  # Å; margin from which a label counts


def main() -> None:
    """Render, train, let validation choose, test once, save, publish."""
    config, options = parse_arguments(LatticeRunConfig, __doc__ or "")
    settings = config.training
    RunFolder.check(config, options)
    accelerator = loop.make_accelerator(settings, str(options.output_dir))
    run = RunFolder(config, options, accelerator.is_main_process)
    accelerator.wait_for_everyone()

    # Data: every image is rendered and looked at once; the test crystals stay closed until the end.
    limit = 48 if options.tiny else None
    run.start(config)
    train = see_split(config, "train", run.checkpoints, accelerator, limit=limit)
    validation = see_split(config, "validation", run.checkpoints, accelerator, limit=limit)

    # Model: the same start on every process; what it learned from travels with it.
    torch.manual_seed(settings.seed)
    facts_of_data = data_facts(config, {"train": train, "validation": validation})
    known = {key: facts_of_data[key] for key in ("pixel_size", "field_of_view")}
    plain = make_lattice_network(LATTICES, atomvision=known, **config.model.model_dump())
    batches = Batches(train, settings, accelerator)
    optimizer = torch.optim.AdamW(loop.weight_groups(plain, settings.weight_decay), lr=settings.learning_rate)
    scheduler = loop.schedule(optimizer, settings.epochs * len(batches), settings.warmup)
    plain = plain.to(accelerator.device)
    averaged = ModelEmaV3(plain, decay=settings.ema_decay) if settings.ema_decay else None
    model, optimizer = accelerator.prepare(Trained(plain), optimizer)

    state = {"model": plain} | ({"averaged": averaged} if averaged is not None else {})
    checkpoints, optimizers = Checkpoints(run.checkpoints), {"model": optimizer}
    progress: dict[str, Any] = {"best_epoch": 0, "best_score": -1e9, "seconds": train.seconds}
    done = 0
    if options.resume and checkpoints.exists():
        done, progress = checkpoints.load(state, optimizers)
        scheduler.last_epoch = done * len(batches)
        scheduler._step_count = scheduler.last_epoch + 1  # noqa: SLF001 - else torch warns of the order of steps
    history = run.truncate(done)
    if settings.trackers:
        accelerator.init_trackers("lattice")

    for epoch in range(done + 1, settings.epochs + 1):
        began, total = time.perf_counter(), torch.zeros((), device=accelerator.device)
        model.train()
        for found, labels in batches.epoch(epoch):
            logits = model(found)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
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

        judged: LatticeNetwork = averaged.module if averaged is not None else plain
        chances = predict_split(judged, validation, accelerator)
        figures = scores(validation, chances, LEAST)
        entry = {
            "epoch": epoch,
            "loss": mean_loss,
            "validation_loss": mean_log_loss(chances, validation.labels),
            "accuracy": figures["ideal"]["accuracy"]["value"],
            "macro_f1": figures["ideal"]["macro_f1"]["value"],
            "accuracy_typical": figures["typical"]["accuracy"]["value"],
            "learning_rate": scheduler.get_last_lr()[0],
            "images_per_second": len(batches) * settings.batch_size / trained,
        }
        history.append(entry)
        run.log(entry)
        accelerator.log(entry, step=epoch)

        progress["seconds"] += time.perf_counter() - began
        better = -entry["validation_loss"] > progress["best_score"]
        if better:
            progress |= {"best_epoch": epoch, "best_score": -entry["validation_loss"]}
        if accelerator.is_main_process:
            checkpoints.save(epoch, progress, state, optimizers, {"best": judged} if better else None)
        accelerator.wait_for_everyone()

    # The only time the test crystals are looked at, with the weights that validation chose.
    best_model = copy.deepcopy(plain)
    checkpoints.load_best({"best": best_model})
    test = see_split(config, "test", run.checkpoints, accelerator, limit=limit)
    chances = predict_split(best_model, test, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    report = card_facts(train, test, chances, LEAST)
    chosen = history[progress["best_epoch"] - 1]
    facts = base_facts(
        config,
        data_facts(config, {"train": train, "validation": validation, "test": test}),
        task="image-classification",
        model_name="lattice-network",
        model=plain,
        options=options,
        history=history,
        best_epoch=progress["best_epoch"],
        hardware=hardware(accelerator.device, accelerator.num_processes),
        seconds=progress["seconds"],
    )
    run.save_model(best_model)
    image_processor(min(config.render.shape)).save_pretrained(run.path)
    draw_curves(history, run.path / "curves.png")
    confusion = scores(test, chances, LEAST)[RECORDED[0]]["confusion"]
    draw_confusion(confusion, LATTICES, run.path / "confusion.png")
    validation_scores = {name: chosen[name] for name in ("accuracy", "accuracy_typical", "validation_loss")}
    facts |= {
        "metrics": {"validation": validation_scores, "test": report["test"]},
        "tables": report["tables"],
    }
    facts["figures"] = [
        {"file": "confusion.png", "caption": "Confusion matrix, noise-free test images"},
        {"file": "curves.png", "caption": "Learning curves"},
    ]
    words = ", ".join(
        f"{name} accuracy {report['test'][f'accuracy_{name}']['value']:.3f}" for name in RECORDED
    )
    run.finish(facts, options, words)


if __name__ == "__main__":
    run_script(main)
