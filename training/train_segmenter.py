"""Train a segmenter: a U-Net that marks the pixels of atoms, on a dataset or on images with masks.

    accelerate launch training/train_segmenter.py --set data.path=build/stem2d
    accelerate launch training/train_segmenter.py --train-dir mine/train --test-dir mine/test

A folder of images holds images/ and masks/ with equal names; what is brighter than half a mask's brightest
pixel is atom. The folder of the run becomes the repository of the model: weights, card, facts, curves.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from timm.utils import ModelEmaV3

from atomvision_hub.engine import loop
from atomvision_hub.engine.checkpoint import Checkpoints
from atomvision_hub.engine.config import parse_arguments
from atomvision_hub.engine.report import base_facts, hardware
from atomvision_hub.engine.run import RunFolder, run_script
from atomvision_hub.engine.scenes import decode
from atomvision_hub.engine.tasks.segmenter import (
    Batches,
    Crops,
    Loss,
    SegmenterConfig,
    count_answers,
    open_scenes,
    smallest_side,
    validation_conditions,
    validation_scores,
)
from atomvision_hub.engine.tasks.segmenter_report import Judge, draw_pictures, in_words, judge_test
from atomvision_hub.models.segmenter import Segmenter


def main() -> None:
    """Train, let validation choose epoch and threshold, test once, save, publish."""
    config, options = parse_arguments(SegmenterConfig, __doc__ or "")
    settings, network = config.training, config.model
    RunFolder.check(config, options)
    accelerator = loop.make_accelerator(settings, str(options.output_dir))
    run = RunFolder(config, options, accelerator.is_main_process)
    accelerator.wait_for_everyone()

    # Data: decoded once and put on the device; the test rows stay closed until the end.
    source = open_scenes(config.data, seed=settings.seed, limit=32 if options.tiny else None)
    run.start(config)
    side = smallest_side(source.splits["train"])
    crops = Crops.fit(side, settings)
    (train,) = decode(source.splits["train"], accelerator.device, square=side)
    validation = decode(source.splits["validation"], accelerator.device)
    simulated = train.atoms is not None
    radii = config.data.radii if simulated else ()

    # Model: the same start on every process; what it knows of its images travels with the weights.
    torch.manual_seed(settings.seed)
    calibration = crops.calibration(source)
    known = calibration | {"mask_radii": list(radii), "normalisation": "per image, inside the network"}
    model = Segmenter(
        **network.model_dump(exclude={"encoder_weights", "start"}), outputs=max(1, len(radii)), known=known
    )
    start = "from scratch"
    if network.start is not None:
        start = "from " + model.load_trained(network.start)
    elif network.encoder_weights is not None:
        start = "from an encoder pretrained on " + model.load_encoder(network.encoder_weights)

    batches = Batches(train, crops, radii, settings, accelerator)
    criterion = Loss(settings.loss)
    optimizer = torch.optim.AdamW(loop.weight_groups(model, settings.weight_decay), lr=settings.learning_rate)
    scheduler = loop.schedule(optimizer, settings.epochs * len(batches), settings.warmup)
    plain = model.to(accelerator.device)
    # The average forgets its start: its decay grows with the steps up to the configured one.
    averaged = (
        ModelEmaV3(plain, decay=settings.ema_decay, use_warmup=True, warmup_power=0.75)
        if settings.ema_decay
        else None
    )
    model, optimizer = accelerator.prepare(model, optimizer)

    state = {"model": plain} | ({"averaged": averaged} if averaged is not None else {})
    checkpoints, optimizers = Checkpoints(run.checkpoints), {"model": optimizer}
    progress: dict[str, Any] = {"best_epoch": 0, "best_score": -1.0, "threshold": 0.5, "seconds": 0.0}
    done = 0
    if options.resume and checkpoints.exists():
        done, progress = checkpoints.load(state, optimizers)
        scheduler.last_epoch = done * len(batches)
        scheduler._step_count = scheduler.last_epoch + 1  # noqa: SLF001 - else torch warns of the order of steps
    history = run.truncate(done)
    if settings.trackers:
        accelerator.init_trackers("segmenter")
    conditions = validation_conditions(settings, simulated=simulated)

    for epoch in range(done + 1, settings.epochs + 1):
        began, total = time.perf_counter(), torch.zeros((), device=accelerator.device)
        model.train()
        for step, (images, masks) in enumerate(batches.epoch(epoch), (epoch - 1) * len(batches)):
            loss = criterion(model(images, every=True), masks)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if averaged is not None:
                averaged.update(plain, step)
            total += loss.detach()
        trained = time.perf_counter() - began

        judged = averaged.module if averaged is not None else plain
        counts = {
            name: count_answers(
                judged, validation, radii, at, accelerator, seed=1, rows=settings.validation_rows
            )
            for name, at in conditions.items()
        }
        entry = {
            "epoch": epoch,
            "loss": float(accelerator.reduce(total, "mean")) / len(batches),
            **validation_scores(counts),
            "learning_rate": scheduler.get_last_lr()[0],
            "images_per_second": len(batches) * settings.batch_size / trained,
        }
        history.append(entry)
        run.log(entry)
        accelerator.log(entry, step=epoch)

        progress["seconds"] += time.perf_counter() - began
        score = sum(entry[name] for name in conditions) / len(conditions)
        better = score > progress["best_score"]
        if better:
            progress |= {"best_epoch": epoch, "best_score": score, "threshold": entry["threshold"]}
        if accelerator.is_main_process:
            checkpoints.save(epoch, progress, state, optimizers, {"best": judged} if better else None)
        accelerator.wait_for_everyone()

    # The only time the test rows are looked at, with the weights and the threshold that validation chose.
    # A network of its own: the one above computes in half precision where the GPU has it.
    best_model = Segmenter(**plain.arguments, known=known | {"threshold": progress["threshold"]})
    checkpoints.load_best({"best": best_model})
    best_model = best_model.to(accelerator.device)
    test = decode(source.splits["test"], accelerator.device)
    judge = Judge(best_model, best_model.threshold, test, radii, accelerator, settings.robustness_rows)
    report = judge_test(judge, source)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    facts = base_facts(
        config,
        source.data_facts(calibration),
        task=Segmenter.task,
        model_name="atom-segmenter",
        model=plain,
        options=options,
        history=history,
        best_epoch=progress["best_epoch"],
        hardware=hardware(accelerator.device, accelerator.num_processes),
        seconds=progress["seconds"],
    )
    chosen = history[progress["best_epoch"] - 1]
    told = ("pixel_accuracy", *conditions, "validation_loss", "threshold")
    facts |= {
        "metrics": {"validation": {name: chosen[name] for name in told}, "test": report["test"]},
        "tables": report["tables"],
        "figures": draw_pictures(judge, history, report["doses"], run.path),
        "notes": [f"Training started {start}; loss `{settings.loss}`."],
    }
    run.save_model(best_model)
    run.finish(facts, options, in_words(report["test"]))


if __name__ == "__main__":
    run_script(main)
