"""Put finished super-resolution runs side by side in the card of one of them.

    python benchmarks/compare_srgan.py runs/srgan runs/srgan_mse runs/srgan_physical runs/srgan_physical_mse \
        runs/srgan_vgg16_9 ... [--pictures]

The first run gets the tables *Beside other trainings* (one for each way of making low resolution, rows of all
runs and of the methods without learning) and *Layer of the content loss* (runs that differ in nothing else)
in its ``facts.json``, and its card is rendered again. All figures are what the runs measured on the same
test rows; runs on other data are refused. With ``--pictures`` (needs the data that the first run's
configuration names) ``comparison.png`` shows three test materials enlarged by the first run's network and by
those trained by squared error alone on the same low resolution. Running it again replaces what it added.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from atomvision_hub._files import write_json
from atomvision_hub.cards.model import write_model_card
from atomvision_hub.engine.config import load_config
from atomvision_hub.engine.data import open_source
from atomvision_hub.engine.tasks import srgan
from atomvision_hub.engine.tasks.srgan.scores import simple_methods
from atomvision_hub.engine.tasks.srgan.views import spread_rows
from atomvision_hub.errors import UsageError
from atomvision_hub.models.super_resolution import SuperResolution

PICTURE = "comparison.png"


def read_runs(folders: list[Path]) -> list[dict[str, Any]]:
    """Return the facts of finished runs of one dataset; `UsageError` otherwise."""
    runs = []
    for folder in folders:
        path = folder / "facts.json"
        if not path.is_file():
            raise UsageError(f"{folder} holds no finished run (no facts.json)")
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.get("kind") != SuperResolution.kind:
            raise UsageError(f"{folder} is no super-resolution run")
        runs.append(facts)
    for folder, facts in zip(folders, runs, strict=True):
        for key in ("dataset", "config", "revision", "manifest_sha256", "splits"):
            if facts["data"][key] != runs[0]["data"][key]:
                raise UsageError(
                    f"{folder} was tested on other data than {folders[0]} ({key}: {facts['data'][key]}, "
                    f"not {runs[0]['data'][key]}); only runs on the same test rows can be compared"
                )
    return runs


def compare(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tables."""
    tables = []
    for degradation in dict.fromkeys(_training(run)["degradation"] for run in runs):
        alike = [run for run in runs if _training(run)["degradation"] == degradation]
        methods = alike[0]["tables"][0]
        rows = [row for row in methods["rows"] if row[0] != "this network"]
        ours = [[describe(run), *_figures(run)] for run in alike]
        if any(len(run["tables"][0]["columns"]) != len(methods["columns"]) for run in alike):
            raise UsageError("the runs have other tables than this version writes; train them again")
        tables.append(
            {
                "title": f"Beside other trainings: {degradation} low resolution",
                "columns": methods["columns"],
                "rows": [*rows[:-1], *ours, rows[-1]],
                "note": methods["note"],
            }
        )
        layers = _layers(alike)
        if len(layers) > 1:
            tables.append(
                {
                    "title": f"Layer of the content loss: {degradation} low resolution",
                    "columns": ["content", *methods["columns"][1:]],
                    "rows": [[_training(run)["content"], *_figures(run)] for run in layers],
                    "note": "The same network and number of epochs; `vgg16:N` compares features after the "
                    "first N modules, so larger numbers look deeper.",
                }
            )
    return tables


def describe(run: dict[str, Any]) -> str:
    """Return a run in a few words."""
    return f"adversary and {_training(run)['content']}" if _adversary(run) else "squared error alone"


def _adversary(run: dict[str, Any]) -> bool:
    training = _training(run)
    return bool(training["pretrain_epochs"] < training["epochs"])


def _training(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = run["config"]["training"]
    return found


def _figures(run: dict[str, Any]) -> list[float | None]:
    found: list[float | None] = next(row[1:] for row in run["tables"][0]["rows"] if row[0] == "this network")
    return found


def _layers(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs against an adversary that differ from the first one in the content loss alone."""
    gans = [run for run in runs if _adversary(run)]

    def rest(run: dict[str, Any]) -> Any:
        others = {name: value for name, value in _training(run).items() if name != "content"}
        return run["config"]["model"], others

    same = [run for run in gans if rest(run) == rest(gans[0])]
    contents = {_training(run)["content"]: run for run in reversed(same)}
    return sorted(contents.values(), key=lambda run: int(_training(run)["content"].partition(":")[2] or 0))


def draw(folders: list[Path], runs: list[dict[str, Any]]) -> None:
    """Draw three test materials as the networks of runs with the same degradation enlarge them."""
    config = load_config(folders[0] / "training_config.yaml", [], srgan.SrganConfig)
    kept = srgan.KEPT if config.data.atoms else ()
    source = open_source(config.data, seed=config.training.seed, keep=kept)
    side = srgan.view_side(source, config.training)
    rows = source.splits["test"]
    data = srgan.prepare(rows, side, config, torch.device("cpu"))
    judge = srgan.Judge(data, config.training, Accelerator(cpu=True), seed=config.training.seed + 1)
    networks = {
        describe(run): SuperResolution.from_pretrained(folder)
        for folder, run in zip(folders, runs, strict=True)
        if run is runs[0]
        or (_adversary(run), _training(run)["degradation"]) == (False, config.training.degradation)
    }
    low, truth = judge.low(), judge.truth()
    names = rows.columns.get("formula", rows.columns.get("material_id"))
    examples = []
    for row in spread_rows(len(rows), 5)[1:-1].tolist():
        title = str(names[row]) if names else f"image {row}"
        if config.training.degradation == "physical":
            title += f"\n{float(judge.doses[row]):.0f} e/Å²"
        pictures = {
            "low resolution": low[row],
            "bicubic": simple_methods(low[row][None], 0.0)["bicubic"][0],
        }
        pictures |= {name: network.upscale(low[row]).image for name, network in networks.items()}
        examples.append((title, pictures | {"truth": truth[row]}))
    pixel = rows.columns["pixel_size"][0][0] if "pixel_size" in rows.columns else config.data.pixel_size
    srgan.draw_examples(examples, pixel, folders[0] / PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs; the first one gets all")
    parser.add_argument("--pictures", action="store_true", help="draw comparison.png; needs the data")
    given = parser.parse_args()
    try:
        runs = read_runs(given.runs)
        tables = compare(runs)
        facts = runs[0]
        titles = {table["title"] for table in tables}
        facts["tables"] = [table for table in facts["tables"] if table["title"] not in titles] + tables
        if given.pictures:
            draw(given.runs, runs)
            others = [figure for figure in facts["figures"] if figure["file"] != PICTURE]
            caption = "Three test materials, enlarged by networks that were trained in different ways."
            facts["figures"] = [*others, {"file": PICTURE, "caption": caption}]
        write_json(given.runs[0] / "facts.json", facts)
        write_model_card(given.runs[0])
    except UsageError as problem:
        parser.error(str(problem))
    for table in tables:
        print(f"\n{table['title']}\n{' | '.join(table['columns'])}")
        for row in table["rows"]:
            print(" | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))


if __name__ == "__main__":
    main()
