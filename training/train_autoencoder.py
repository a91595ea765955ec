"""Train an autoencoder of images, plain or variational, on a dataset or on folders of images.

    accelerate launch training/train_autoencoder.py --set data.path=build/stem2d data.config=rotated
    accelerate launch training/train_autoencoder.py --config autoencoder_vae --set data.path=build/stem2d
    accelerate launch training/train_autoencoder.py --train-dir images/train --test-dir images/test

The folder of the run becomes the repository of the model: weights, card, facts, pictures. The sweep over
the length of the code is one command: `python benchmarks/autoencoder_sweep.py`.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import torch
from timm.utils import ModelEmaV3

from atomvision_hub.engine import loop
from atomvision_hub.engine.checkpoint import Checkpoints
from atomvision_hub.engine.config import parse_arguments
from atomvision_hub.engine.data import open_source
from atomvision_hub.engine.report import base_facts, hardware
from atomvision_hub.engine.run import RunFolder, run_script
from atomvision_hub.engine.tasks import autoencoder as task
from atomvision_hub.engine.tasks.autoencoder_report import draw_history, in_words, report
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models.autoencoder import VariationalAutoencoder


def main() -> None:
    """Train, let validation choose, test once, save, publish."""
    config, options = parse_arguments(task.AutoencoderConfig, __doc__ or "")
    settings, network = config.training, config.model
    RunFolder.check(config, options)
    accelerator = loop.make_accelerator(settings, str(options.output_dir))
    run = RunFolder(config, options, accelerator.is_main_process)
    accelerator.wait_for_everyone()

    # Data: every image is decoded once; the test rows stay closed until the end.
    source = open_source(config.data, seed=settings.seed, limit=64 if options.tiny else None)
    run.start(config)
    fine = task.decode_grey(source.splits["train"], network.size, run.path)
    train = task.reduce(fine, network.size)
    validation = task.reduce(
        task.decode_grey(source.splits["validation"], network.size, run.path), network.size
    )

    # Model: the same start on every process.
    torch.manual_seed(settings.seed)
    calibration = source.calibration(settings.crop_min if settings.augment != "none" else 1)
    model = task.make_model(
        network, train, {**calibration, "reduction": "area average of the central square"}
    )
    batches = task.Batches(fine, network, settings, accelerator)
    plain: Any = model.to(device=accelerator.device).to(memory_format=torch.channels_last)
    variational = isinstance(plain, VariationalAutoencoder)
    averaged = ModelEmaV3(plain, decay=settings.ema_decay) if settings.ema_decay else None
    optimizer: Any = torch.optim.Adam(
        loop.weight_groups(plain, settings.weight_decay), lr=settings.learning_rate
    )
    scheduler = loop.schedule(optimizer, settings.epochs * len(batches), settings.warmup)
    model, optimizer = accelerator.prepare(model, optimizer)

    state = {"model": plain} | ({"averaged": averaged} if averaged is not None else {})
    checkpoints, optimizers = Checkpoints(run.checkpoints), {"model": optimizer}
    progress: dict[str, Any] = {"best_epoch": 0, "best_loss": None, "seconds": 0.0}
    progress["variance"] = plain.std**2  # of a pixel around the decoded one: the last epoch's error
    kept: dict[str, Any] | None = None
    done = 0
    if options.resume and checkpoints.exists():
        done, progress = checkpoints.load(state, optimizers)
        scheduler.last_epoch = done * len(batches)
        scheduler._step_count = scheduler.last_epoch + 1  # noqa: SLF001 - else torch warns of the order of steps
    history = run.truncate(done)
    if settings.trackers:
        accelerator.init_trackers("autoencoder")

    for epoch in range(done + 1, settings.epochs + 1):
        began, total = time.perf_counter(), torch.zeros(2, device=accelerator.device)
        weight = task.kl_weight(epoch, settings)
        model.train()
        for images, noise in batches.epoch(epoch):
            variance = progress["variance"] if variational else None
            loss, error = task.loss_of(model, images, noise, weight, variance)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if averaged is not None:
                averaged.update(plain)
            total += torch.stack([loss.detach(), error.detach()])
        mean_loss, mean_error = (accelerator.reduce(total, "mean") / len(batches)).tolist()
        trained = time.perf_counter() - began

        judged: Any = averaged.module if averaged is not None else plain
        entry = {"epoch": epoch, "loss": mean_loss, "training_mse": mean_error}
        entry |= task.judge(judged, task.score_rows(judged, validation, accelerator, settings.seed))
        entry |= {
            "learning_rate": scheduler.get_last_lr()[0],
            "images_per_second": len(batches) * settings.batch_size / trained,
        }
        progress["variance"] = mean_error
        history.append(entry)
        run.log(entry)
        accelerator.log(entry, step=epoch)

        progress["seconds"] += time.perf_counter() - began
        best = math.inf if progress["best_loss"] is None else progress["best_loss"]
        # Nothing is chosen while the divergence is still growing in.
        settled = not variational or weight == settings.beta
        if settled and entry["validation_loss"] < best:
            progress |= {"best_epoch": epoch, "best_loss": entry["validation_loss"]}
            kept = {"best": copy.deepcopy(judged)}
        # Epochs take less than a second on a GPU, files as much: not each of them is written.
        if accelerator.is_main_process and (epoch % settings.save_every == 0 or epoch == settings.epochs):
            checkpoints.save(epoch, progress, state, optimizers, kept)
            kept = None
        accelerator.wait_for_everyone()

    if not progress["best_epoch"]:
        raise AtomVisionError("no epoch had a finite validation loss; lower training.learning_rate")
    # The only time the test rows are looked at, with the weights that validation chose.
    best_model: Any = copy.deepcopy(averaged.module if averaged is not None else plain)
    best_model = best_model.to(memory_format=torch.contiguous_format)
    checkpoints.load_best({"best": best_model})
    fine = task.decode_grey(source.splits["test"], network.size, run.path)
    scores = task.score_rows(best_model, task.reduce(fine, network.size), accelerator, settings.seed)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    facts = base_facts(
        config,
        source.data_facts(calibration),
        task=best_model.task,
        model_name=f"{best_model.kind}-{network.latent}",
        model=best_model,
        options=options,
        history=history,
        best_epoch=progress["best_epoch"],
        hardware=hardware(accelerator.device, accelerator.num_processes),
        seconds=progress["seconds"],
    )
    run.save_model(best_model)
    draw_history(history, run.path / "curves.png")
    found = report(best_model, source, train, fine, scores, run.path, settings.seed)
    chosen = history[progress["best_epoch"] - 1]
    found["metrics"]["validation"] = {k: v for k, v in chosen.items() if k.startswith("validation")}
    run.finish(facts | found, options, in_words(found))


if __name__ == "__main__":
    run_script(main)
