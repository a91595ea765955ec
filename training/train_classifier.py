"""Train an image classifier: any timm network on a dataset, or on images in class folders.

    accelerate launch training/train_classifier.py --config classifier_small --set data.path=build/stem2d
    accelerate launch training/train_classifier.py --train-dir images/train --test-dir images/test

The folder of the run becomes the repository of the model: weights, preprocessing, card, facts, curves.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from timm.utils import ModelEmaV3

from atomvision_hub.engine import loop
from atomvision_hub.engine.checkpoint import Checkpoints
from atomvision_hub.engine.config import parse_arguments
from atomvision_hub.engine.curves import draw_confusion, draw_curves
from atomvision_hub.engine.data import decode_for_evaluation, decode_for_training, open_source
from atomvision_hub.engine.metrics import evaluate
from atomvision_hub.engine.report import base_facts, hardware, in_words, test_report
from atomvision_hub.engine.run import RunFolder, run_script
from atomvision_hub.engine.tasks.classifier import (
    Batches,
    ClassifierConfig,
    Loss,
    Rendered,
    mean_log_loss,
    normalise,
    predict_rows,
)
from atomvision_hub.models.classifier import make_classifier


def main() -> None:
    """Train, let validation choose, test once, save, publish."""
    config, options = parse_arguments(ClassifierConfig, __doc__ or "")
    settings, network = config.training, config.model
    RunFolder.check(config, options)
    accelerator = loop.make_accelerator(settings, str(options.output_dir))
    run = RunFolder(config, options, accelerator.is_main_process)
    accelerator.wait_for_everyone()

    # Data: every image is decoded once, or drawn anew; the test rows stay closed until the end.
    limit = 64 if options.tiny else None
    source = open_source(config.data, seed=settings.seed, limit=limit)
    rendered = Rendered(config, accelerator, limit=limit) if config.data.render else None
    run.start(config)

    # Model: timm network, preprocessing and label map in one; the same start on every process.
    torch.manual_seed(settings.seed)
    smallest_crop = settings.crop_min if settings.augment != "none" else 1
    calibration = rendered.calibration if rendered else source.calibration(smallest_crop)
    model = make_classifier(**network.model_dump(), labels=source.classes, atomvision=calibration)
    preprocessing = model.config.pretrained_cfg
    validation = decode_for_evaluation(source.splits["validation"], preprocessing, run.path)

    batches: Batches | Rendered = rendered or Batches(
        decode_for_training(source.splits["train"], network.input_size, run.path),
        network.input_size,
        settings,
        accelerator,
    )
    criterion = Loss(batches.labels, len(source.classes), settings)
    optimizer = torch.optim.AdamW(loop.weight_groups(model, settings.weight_decay), lr=settings.learning_rate)
    scheduler = loop.schedule(optimizer, settings.epochs * len(batches), settings.warmup)
    # Channels last: on a CPU several times as fast, on a GPU what its convolutions want.
    plain = model.to(accelerator.device, memory_format=torch.channels_last)
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
        accelerator.init_trackers("classifier")

    for epoch in range(done + 1, settings.epochs + 1):
        began, total = time.perf_counter(), torch.zeros((), device=accelerator.device)
        model.train()
        for images, labels in batches.epoch(epoch):
            logits = model(normalise(images, network.mean, network.std)).logits
            loss = criterion(logits, labels)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if averaged is not None:
                averaged.update(plain)
            total += loss.detach()
        trained = time.perf_counter() - began

        judged = averaged.module if averaged is not None else plain
        chances = predict_rows(judged, validation, network.mean, network.std, accelerator)
        scores = evaluate(validation.labels, chances.argmax(-1).numpy(), source.classes)
        entry = {
            "epoch": epoch,
            "loss": float(accelerator.reduce(total, "mean")) / len(batches),
            "validation_loss": mean_log_loss(chances, validation.labels),
            "accuracy": scores["accuracy"]["value"],
            "macro_f1": scores["macro_f1"]["value"],
            "learning_rate": scheduler.get_last_lr()[0],
            "images_per_second": len(batches) * settings.batch_size / trained,
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
    best_model = copy.deepcopy(plain).to(memory_format=torch.contiguous_format)
    checkpoints.load_best({"best": best_model})
    test = decode_for_evaluation(source.splits["test"], preprocessing, run.path)
    chances = predict_rows(best_model, test, network.mean, network.std, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    report = test_report(source, chances.argmax(-1).numpy())
    facts = base_facts(
        config,
        source.data_facts(calibration),
        task="image-classification",
        model_name=f"{network.architecture}-{source.facts['label'].replace(' ', '-')}",
        model=plain,
        options=options,
        history=history,
        best_epoch=progress["best_epoch"],
        hardware=hardware(accelerator.device, accelerator.num_processes),
        seconds=progress["seconds"],
    )
    chosen = history[progress["best_epoch"] - 1]
    validation_scores = {name: chosen[name] for name in ("accuracy", "macro_f1", "validation_loss")}
    run.save_model(best_model)
    draw_curves(history, run.path / "curves.png")
    draw_confusion(report["confusion"], source.classes, run.path / "confusion.png")
    run.finish(
        facts | {"metrics": {"validation": validation_scores, "test": report}}, options, in_words(report)
    )


if __name__ == "__main__":
    run_script(main)
