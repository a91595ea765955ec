"""Train a super-resolution network, 64 x 64 to 256 x 256 pixels or any other size by four, after SRGAN.

    accelerate launch training/train_srgan.py --set data.path=build/stem2d data.config=rotated
    accelerate launch training/train_srgan.py --config srgan_physical --set data.path=build/stem2d
    accelerate launch training/train_srgan.py --train-dir images/train --test-dir images/test

Some epochs by mean squared error alone, the rest against a discriminator. The folder of the run becomes the
repository of the model: weights, card, facts, curves, examples.
"""

from __future__ import annotations

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
from atomvision_hub.engine.tasks import srgan
from atomvision_hub.models.perceptual import Content
from atomvision_hub.models.super_resolution import Discriminator, SuperResolution


def main() -> None:
    """Train, let validation choose, test once, save, publish."""
    config, options = parse_arguments(srgan.SrganConfig, __doc__ or "")
    settings, network = config.training, config.model
    RunFolder.check(config, options)
    accelerator = loop.make_accelerator(settings, str(options.output_dir))
    run = RunFolder(config, options, accelerator.is_main_process)
    accelerator.wait_for_everyone()

    # Data: all training images lie on the device; low resolution is made there. The test rows stay closed.
    keep = srgan.KEPT if config.data.atoms else ()
    source = open_source(config.data, seed=settings.seed, limit=48 if options.tiny else None, keep=keep)
    side, device = srgan.view_side(source, settings), accelerator.device
    content = Content(settings.content, config.data.content_weights).to(device)
    run.start(config)
    train = srgan.prepare(source.splits["train"], side, config, device)
    validation = srgan.prepare(source.splits["validation"], side, config, device, settings.validation_rows)
    batches = srgan.Batches(train, settings, accelerator)
    judge = srgan.Judge(validation, settings, accelerator, seed=settings.seed)

    # Models: the same start on every process.
    torch.manual_seed(settings.seed)
    known = srgan.known_facts(source, settings, side)
    plain = SuperResolution(channels=network.channels, blocks=network.blocks, known=known).to(device)
    critic = Discriminator(network.discriminator_channels).to(device)
    networks: tuple[torch.nn.Module, ...] = (plain, critic)
    for one in networks:
        one.to(memory_format=torch.channels_last)
    averaged = ModelEmaV3(plain, decay=settings.ema_decay) if settings.ema_decay else None
    adam = [torch.optim.Adam(one.parameters(), weight_decay=settings.weight_decay) for one in networks]
    generator, discriminator, improve, learn = accelerator.prepare(*networks, *adam)
    first, total = (number * len(batches) for number in (settings.pretrain_epochs, settings.epochs))

    state: dict[str, torch.nn.Module] = {"model": plain, "discriminator": critic}
    state |= {"averaged": averaged} if averaged is not None else {}
    checkpoints, optimizers = Checkpoints(run.checkpoints), {"model": improve, "discriminator": learn}
    progress: dict[str, Any] = {"best_epoch": 0, "best_score": None, "seconds": 0.0}
    done = 0
    if options.resume and checkpoints.exists():
        done, progress = checkpoints.load(state, optimizers)
    history = run.truncate(done)
    if settings.trackers:
        accelerator.init_trackers("srgan")

    for epoch in range(done + 1, settings.epochs + 1):
        began, totals = time.perf_counter(), torch.zeros(2, device=device)
        adversarial = epoch > settings.pretrain_epochs
        generator.train()
        for step, (low, truth) in enumerate(batches.epoch(epoch), (epoch - 1) * len(batches)):
            srgan.set_rate(srgan.rate(step, first, total, settings), improve, learn)
            made = generator(low)
            with accelerator.autocast():
                if adversarial:
                    critic.requires_grad_(False)  # the generator's step; through the plain network, not DDP's
                    loss = content(made, truth).mean() + settings.adversarial * srgan.fooled(
                        critic(made, low)
                    )
                    critic.requires_grad_(True)
                else:
                    loss = torch.nn.functional.mse_loss(made.float(), truth)
            accelerator.backward(loss)
            improve.step()
            improve.zero_grad()
            if adversarial:
                both = torch.cat([truth, made.detach()])
                true, false = discriminator(both, torch.cat([low, low])).chunk(2)
                caught = srgan.caught(true, false)
                accelerator.backward(caught)
                learn.step()
                learn.zero_grad()
                totals[1] += caught.detach()
            totals[0] += loss.detach()
            if averaged is not None:
                averaged.update(plain)
        loss_means = (accelerator.reduce(totals, "mean") / len(batches)).tolist()
        trained = time.perf_counter() - began

        judged = averaged.module if averaged is not None else plain
        scores = judge.scores(judged, content)
        entry = {
            "epoch": epoch,
            "loss": loss_means[0],
            "discriminator_loss": loss_means[1] if adversarial else None,
            **scores,
            "images_per_second": len(batches) * settings.batch_size / trained,
        }
        history.append(entry)
        run.log(entry)
        accelerator.log({name: value for name, value in entry.items() if value is not None}, step=epoch)

        progress["seconds"] += time.perf_counter() - began
        score = scores["psnr"] if settings.select_by == "psnr" else -scores["content"]
        # A generator with an adversary is chosen among the epochs that had one.
        candidate = adversarial or settings.pretrain_epochs == settings.epochs
        better = candidate and (progress["best_score"] is None or score > progress["best_score"])
        if better:
            progress |= {"best_epoch": epoch, "best_score": score}
        if accelerator.is_main_process:
            checkpoints.save(epoch, progress, state, optimizers, {"best": judged} if better else None)
        accelerator.wait_for_everyone()

    # The only time the test rows are looked at, with the weights that validation chose.
    best_model = SuperResolution(**plain.arguments, known=known).to(device)
    checkpoints.load_best({"best": best_model})
    report = srgan.test_report(best_model, source, config, side, judge, accelerator)
    accelerator.end_training()
    if report is None:
        return
    facts = base_facts(
        config,
        source.data_facts(known),
        task=plain.task,
        model_name=srgan.model_name(settings),
        model=plain,
        options=options,
        history=history,
        best_epoch=progress["best_epoch"],
        hardware=hardware(device, accelerator.num_processes),
        seconds=progress["seconds"],
    )
    chosen = history[progress["best_epoch"] - 1]
    run.save_model(best_model)
    srgan.draw_history(history, settings.pretrain_epochs, run.path / "curves.png")
    srgan.draw_examples(report.examples, report.pixel_size, run.path / "examples.png")
    run.finish(facts | report.facts(chosen, content.origin, settings), options, report.in_words())


if __name__ == "__main__":
    run_script(main)
