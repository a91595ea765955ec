"""The error of autoencoders over the length of their code, beside linear codes of the same length.

    python benchmarks/autoencoder_sweep.py --out runs/autoencoder_sweep --jobs 2 \
        --set data.path=build/stem2d data.config=rotated
    python benchmarks/autoencoder_sweep.py --out runs/autoencoder_sweep --card model_cards/autoencoder

Trains one autoencoder for every length with `training/train_autoencoder.py`, `--jobs` at a time, each in a
folder of its own below `--out`; finished runs are kept, interrupted ones go on. Then it draws `sweep.png`,
writes `sweep.json` and prints the table, from the facts of the runs alone. With `--card` table and picture
also go into the card of a finished run of the same data.

The paper varies the length from 64 to 1568 numbers; its code (usnistgov/atomvision,
`scripts/train_autoencoder.py`) names 448 and 1120 as well.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atomvision_hub._files import write_json
from atomvision_hub.cards.model import write_model_card
from atomvision_hub.engine.run import run_script
from atomvision_hub.engine.tasks.autoencoder_report import draw_sweep
from atomvision_hub.errors import AtomVisionError, UsageError

LATENTS = (64, 128, 256, 448, 784, 1120, 1568)
SCRIPT = Path(__file__).resolve().parents[1] / "training" / "train_autoencoder.py"
TITLE = "Error over the length of the code"
COLUMNS = ("PCA", "DCT", "mean image")


def main() -> None:
    """Train what is missing, then compare."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of the result")
    parser.add_argument("--latents", type=int, nargs="+", default=list(LATENTS), help="lengths of the code")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, on one device")
    parser.add_argument("--config", default="autoencoder", help="configuration of all runs")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tiny", action="store_true", help="toy networks, to try it out")
    parser.add_argument("--card", type=Path, help="finished run whose card gets table and picture")
    given = parser.parse_args()
    folders = {latent: given.out / f"latent-{latent:04d}" for latent in sorted(set(given.latents))}
    missing = {n: folder for n, folder in folders.items() if not (folder / "README.md").is_file()}
    options = ["--config", given.config, "--resume", *(["--tiny"] if given.tiny else [])]
    if missing and not any(item.startswith("data.path=") for item in given.set):
        raise UsageError(f"nothing trained yet for {sorted(missing)}; say on what: --set data.path=FOLDER")
    train(missing, options, given.set, max(1, given.jobs))
    rows = compare(folders)
    write_json(given.out / "sweep.json", rows)
    draw_sweep(rows, given.out / "sweep.png")
    print(in_words(rows))
    if given.card is not None:
        extend_card(given.card, rows, given.out / "sweep.png")


def train(missing: dict[int, Path], options: list[str], settings: list[str], jobs: int) -> None:
    """Run the training script for every length, `jobs` at a time; what it says goes to ``FOLDER.log``."""
    waiting, failed = list(missing.items()), []
    running: dict[int, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            latent, folder = waiting.pop()  # the longest first: they take longest
            folder.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, str(SCRIPT), *options, "--output-dir", str(folder)]
            command += ["--set", *settings, f"model.latent={latent}"]
            with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
                running[latent] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            print(f"{latent} numbers: started", flush=True)
        for latent, process in list(running.items()):
            if process.poll() is not None:
                del running[latent]
                last = missing[latent].with_suffix(".log").read_text(encoding="utf-8").strip().splitlines()
                print(f"{latent} numbers: {last[-1] if last else 'said nothing'}", flush=True)
                if process.returncode:
                    failed.append(latent)
        time.sleep(0.2)
    if failed:
        raise AtomVisionError(
            f"runs of {sorted(failed)} numbers failed; the log beside each folder says why, the same command "
            "goes on"
        )


def compare(folders: dict[int, Path]) -> list[dict[str, Any]]:
    """Return one row a run, from its facts."""
    rows, pins = [], set()
    for latent, folder in folders.items():
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        error = facts["metrics"]["test"]["mse"]
        pins.add(
            json.dumps([facts["data"][key] for key in ("dataset", "config", "manifest_sha256", "splits")])
        )
        everyone = {"network": error["value"], **error["baselines"]}
        low, high = error["interval"]
        rows.append(
            {
                "latent": latent,
                **everyone,
                "low": low,
                "high": high,
                "best": min(everyone, key=lambda name: everyone[name]),
                "better_rows": facts["metrics"]["test"]["better_than_the_strongest_baseline"]["value"],
                "n": error["n"],
                "epochs": facts["epochs"],
                "best_epoch": facts["best_epoch"],
                "seconds": facts["training_seconds"],
                "hardware": facts["hardware"],
            }
        )
    if len(pins) > 1:
        raise AtomVisionError(
            "the runs were trained on different data; compare only runs of one dataset and config"
        )
    return rows


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows as a table of a card."""
    heads = [
        "numbers",
        "autoencoder",
        "95 % interval",
        *COLUMNS,
        "lowest",
        "rows better than the best linear code",
    ]
    lines = [
        [
            str(row["latent"]),
            f"{row['network']:.3g}",
            f"{row['low']:.3g}–{row['high']:.3g}",
            *(f"{row[name]:.3g}" for name in COLUMNS),
            row["best"].replace("network", "autoencoder"),
            f"{100 * row['better_rows']:.1f} %",
        ]
        for row in rows
    ]
    note = (
        f"Mean squared error of grey levels 0..1 on the {rows[0]['n']:,} test rows; one network a row, "
        f"trained alike ({rows[0]['epochs']} epochs)."
    )
    return {"title": TITLE, "columns": heads, "rows": lines, "note": note}


def in_words(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    found = table(rows)
    lines = [found["columns"], ["---"] + ["--:"] * (len(found["columns"]) - 1), *found["rows"]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{found['note']}"


def extend_card(folder: Path, rows: list[dict[str, Any]], picture: Path) -> None:
    """Put table and picture into the facts of a finished run, and write its card again."""
    path = folder / "facts.json"
    if not path.is_file():
        raise UsageError(f"{folder} holds no finished run (no facts.json); give the folder of one")
    facts = json.loads(path.read_text(encoding="utf-8"))
    shutil.copyfile(picture, folder / "sweep.png")
    caption = "Test error over the length of the code, autoencoders and linear codes."
    facts["tables"] = [table(rows), *(one for one in facts["tables"] if one["title"] != TITLE)]
    others = [one for one in facts["figures"] if one["file"] != "sweep.png"]
    facts["figures"] = [{"file": "sweep.png", "caption": caption}, *others]
    write_json(path, facts)
    write_model_card(folder)


if __name__ == "__main__":
    run_script(main)
