"""The whole road in minutes: crystals -> dataset -> trained classifier -> `from_pretrained` -> prediction."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from atomvision_hub.errors import AtomVisionError

Say = Callable[[str], None]

#: Test crystals whose images the reloaded model is asked about at the end.
SHOWN = 5


def run_demo(out: Path, *, tiny: bool, say: Say) -> None:
    """Build a dataset from the embedded crystals, train on it, evaluate, reload, predict.

    Parameters
    ----------
    out
        Folder for the results; made if absent, a demo there is done anew.
    tiny
        The same steps in seconds; the model is useless.
    say
        Receives the lines of the report.

    Raises
    ------
    AtomVisionError
        When a step fails.
    """
    # The libraries' own progress bars would bury the report; read when they are imported, also by children.
    for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    dataset, model = out / "stem2d", out / "classifier"
    _clear(out, dataset, model)
    say("1. A dataset from the embedded crystals")
    _build(dataset, tiny=tiny, say=say)
    say("\n2. A small classifier of the five Bravais lattices, trained on it")
    _train(dataset, model, tiny=tiny)
    say("\n3. Evaluated on compositions it never saw, reloaded from its folder, asked about images")
    _report(dataset, model, out, say)


def _clear(out: Path, *folders: Path) -> None:
    # Only what an earlier demo made is removed; anything else in the way is the user's.
    if out.exists() and not out.is_dir():
        raise AtomVisionError(f"{out} is a file; give another folder with --out")
    for folder in folders:
        if folder.exists():
            if not any(
                (folder / name).exists() for name in ("manifest.json", ".build", "training_config.yaml")
            ):
                raise AtomVisionError(f"{folder} exists and is not of a demo; give another folder with --out")
            shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)


def _build(folder: Path, *, tiny: bool, say: Say) -> None:
    from atomvision_hub.data.build import BuildOptions
    from atomvision_hub.data.builders import load_builder

    options = BuildOptions(dataset="stem2d", sources=["reference"], out=folder, configs=["demo"], tiny=tiny)
    report = load_builder("stem2d").build(options)
    rows = report.rows["demo"]
    say(f"   {sum(rows.values()):,} images of simulated STEM ({report.seconds:.0f} s): " + _counts(rows))


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in rows.items())


def _train(dataset: Path, model: Path, *, tiny: bool) -> None:
    from atomvision_hub.engine.launch import launch

    arguments = ["--config", "classifier_demo", "--set", f"data.path={dataset}", "--output-dir", str(model)]
    if launch("classifier", [*arguments, *(["--tiny"] if tiny else [])]) != 0:
        raise AtomVisionError(
            f"the training of the demo failed; its messages are above, its files in {model}"
        )


def _report(dataset: Path, model: Path, out: Path, say: Say) -> None:
    from datasets import load_dataset
    from transformers import pipeline

    facts = json.loads((model / "facts.json").read_text(encoding="utf-8"))
    test = load_dataset(str(dataset), "demo", split="test")
    ask = pipeline("image-classification", model=str(model))
    names = test.features["lattice_projected"].names
    step = max(1, len(test) // SHOWN)
    for row in test.select(range(0, len(test), step)).select(range(min(SHOWN, len(test)))):
        best = ask(row["image"])[0]
        say(
            f"   {row['material_id']:<12} is {names[row['lattice_projected']]:<20} "
            f"model says {best['label']} ({best['score']:.2f})"
        )
    accuracy = facts["metrics"]["test"]["accuracy"]
    low, high = accuracy["interval"]
    say(
        f"\nTest accuracy {accuracy['value']:.1%} ({low:.1%} to {high:.1%}), n = {accuracy['n']:,} images"
        f" of {accuracy.get('groups', accuracy['n']):,} materials"
    )
    shutil.copyfile(dataset / "assets" / "samples.png", out / "samples.png")
    shutil.copyfile(model / "confusion.png", out / "confusion.png")
    say(
        f"""
Look at
  {out / "samples.png"}      images, their atoms and masks
  {out / "confusion.png"}    what the model mixes up
  {dataset / "README.md"}    card of the dataset
  {model / "README.md"}      card of the model

Go on with
  atomvision predict IMAGE.png                      the classifier that ships, trained on 2DMatPedia
  atomvision build stem2d --source my_crystals/ --out my_dataset
  atomvision train classifier --config classifier_small --set data.path=my_dataset --output-dir my_model
  atomvision push {dataset} --repo-id YOU/stem2d --tag v1.0.0"""
    )
