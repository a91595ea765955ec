"""The whole road in minutes: crystals -> dataset -> trained classifier -> `from_pretrained` -> prediction.

Then the other producers: STM images at two biases, and a microscope's file that becomes a dataset.
"""

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
    """Build a dataset from the embedded crystals, train on it, evaluate, reload, predict; STM; a file.

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
    dataset, model, files = out / "stem2d", out / "classifier", out / "experimental_tem"
    _clear(out, dataset, model, files)
    say("1. A dataset from the embedded crystals")
    _build(dataset, tiny=tiny, say=say)
    say("\n2. A small classifier of the five Bravais lattices, trained on it")
    _train(dataset, model, tiny=tiny)
    say("\n3. Evaluated on compositions it never saw, reloaded from its folder, asked about images")
    _report(dataset, model, out, say)
    say("\n4. Scanning tunnelling microscopy: h-BN at two biases")
    _stm(out / "stm.png", say)
    say("\n5. A microscope's file, with what a person wrote beside it, becomes a dataset")
    _microscope(out / "microscope", files, say)
    _where_to_look(out, dataset, model, files, say)


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


def _stm(picture: Path, say: Say) -> None:
    """Image the density of states that comes with the package and tell which atoms shine."""
    import numpy as np
    from PIL import Image

    from atomvision_hub import load_structures, simulate_stem, simulate_stm
    from atomvision_hub.simulation import to_grey

    crystal = load_structures("reference")["h-BN"]
    shape, pixel_size = (192, 192), 0.08
    stem = simulate_stem(crystal, shape=shape, pixel_size=pixel_size)
    atoms = stem.atoms[stem.atoms["visible"]]
    tiles = []
    for bias in (0.5, -0.5):
        frame = simulate_stm(crystal, bias=bias, engine="gpaw", shape=shape, pixel_size=pixel_size)
        places = np.rint([atoms["y"], atoms["x"]]).astype(int)
        bright = frame.image[tuple(np.clip(places, 0, shape[0] - 1))]
        means = {name: bright[atoms["number"] == number].mean() for name, number in (("B", 5), ("N", 7))}
        best = max(means, key=lambda name: means[name])
        say(
            f"   {bias:+.1f} V ({'empty' if bias > 0 else 'filled'} states, {frame.engine}): "
            f"{best} shines, {means[best] / min(means.values()):.1f} times as bright as the other"
        )
        tiles.append(to_grey(frame.image, bits=8)[0])
    tiles.append(to_grey(stem.image, bits=8)[0])
    seam = np.full((tiles[0].shape[0], 4), 255, np.uint8)
    row = [part for tile in tiles for part in (tile, seam)][:-1]
    Image.fromarray(np.hstack(row).astype(np.uint8)).save(picture)


def _microscope(folder: Path, dataset: Path, say: Say) -> None:
    """Write an instrument file with known metadata, build a dataset from it and measure its lattice."""
    import numpy as np
    from datasets import load_dataset

    from atomvision_hub import load_structures, simulate_stem
    from atomvision_hub.analysis import lattice_spacings
    from atomvision_hub.data.build import BuildOptions
    from atomvision_hub.data.builders import load_builder
    from atomvision_hub.microscopy import write_demo_file
    from atomvision_hub.simulation import to_grey

    crystal = load_structures("reference")["MoS2"]
    frame = simulate_stem(crystal, shape=(512, 512), pixel_size=0.12, rotation=11.0)
    write_demo_file(
        folder / "MoS2.tif",
        to_grey(frame.image, bits=16)[0],
        frame.pixel_size,
        {"sample.material": "MoS2", "sample.formula": "MoS2", "acquisition.mode": "stem"},
    )
    builder = load_builder("experimental_tem")
    builder.build(BuildOptions(dataset="experimental_tem", sources=[str(folder)], out=dataset))
    splits = load_dataset(str(dataset))
    row = next(iter(next(iter(splits.values()))))
    height, width = row["pixel_size"]
    widest = max(lattice_spacings(np.asarray(row["image"]), (height, width)).peaks, key=lambda peak: peak.d)
    say(
        f"   {row['formula']}, {width:.3f} Å/px as the file says; widest planes in its power spectrum "
        f"{widest.d:.3f} Å apart (crystal: {crystal.cell.lengths()[0] * np.sqrt(3) / 2:.3f} Å)"
    )


def _where_to_look(out: Path, dataset: Path, model: Path, files: Path, say: Say) -> None:
    say(
        f"""
Look at
  {out / "samples.png"}      images, their atoms and masks
  {out / "confusion.png"}    what the model mixes up
  {out / "stm.png"}          h-BN at +0.5 V, at -0.5 V, and by STEM
  {dataset / "README.md"}    card of the dataset
  {model / "README.md"}      card of the model
  {files / "README.md"}      card of the microscope's file

Go on with
  atomvision predict IMAGE.png                      the classifier that ships, trained on 2DMatPedia
  atomvision build stem2d --source my_crystals/ --out my_dataset
  atomvision train classifier --config classifier_small --set data.path=my_dataset --output-dir my_model
  atomvision push {dataset} --repo-id YOU/stem2d --tag v1.0.0"""
    )
