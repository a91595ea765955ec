"""A run's folder and the way a training script starts, fails, and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from atomvision_hub._files import write_json
from atomvision_hub.cards.model import write_model_card
from atomvision_hub.engine.config import Options, RunConfig, save_config
from atomvision_hub.engine.launch import EXIT_CODE_FILE
from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.reports.training import write_training_report


class RunFolder:
    """The folder of a run, which becomes the repository of the model.

    Parameters
    ----------
    config, options
        Of the run.
    main
        Whether this process writes.
    """

    def __init__(self, config: RunConfig, options: Options, main: bool) -> None:
        self.path, self.main = options.output_dir, main
        self.checkpoints = self.path / "checkpoints"
        self.started = time.perf_counter()
        if main:
            self.path.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def check(config: RunConfig, options: Options) -> None:
        """Refuse a folder that holds another run, before anything is touched.

        Raises
        ------
        UsageError
            When there is a run and `resume` is off, or its configuration is another one.
        """
        saved = options.output_dir / "training_config.yaml"
        if not saved.is_file():
            return
        if not options.resume:
            raise UsageError(
                f"{options.output_dir} holds a run; add --resume to go on, or choose another folder"
            )
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        for section, values in config.model_dump(mode="json").items():
            for key, value in values.items():
                old = before.get(section, {}).get(key)
                if old != (list(value) if isinstance(value, tuple) else value):
                    raise UsageError(
                        f"{options.output_dir} was trained with {section}.{key}={old}, not {value}; "
                        "resume with the same configuration, or choose another --output-dir"
                    )

    def start(self, config: RunConfig) -> None:
        """Write the configuration."""
        if self.main:
            save_config(config, self.path / "training_config.yaml")

    def truncate(self, epochs: int) -> list[dict[str, Any]]:
        """Keep the first `epochs` lines of ``metrics.jsonl``, those the checkpoint knows, and return them."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()[:epochs] if path.is_file() else []
        if self.main:
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return [json.loads(line) for line in lines]

    def log(self, values: dict[str, Any]) -> None:
        """Append an epoch to ``metrics.jsonl`` and say it."""
        if not self.main:
            return
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values, sort_keys=True) + "\n")
        shown = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
        )
        print(shown, flush=True)

    def save_model(self, model: Any) -> None:
        """Write weights and configuration of a model of ours or of transformers."""
        from transformers.utils import logging

        logging.disable_progress_bar()  # one file, in an instant
        model.save_pretrained(self.path)
        # safetensors writes for its owner alone; others may read a model, as they may its configuration.
        (self.path / "model.safetensors").chmod((self.path / "config.json").stat().st_mode & 0o777)

    def finish(self, facts: dict[str, Any], options: Options, result: str) -> None:
        """Write facts, card and report, remove the checkpoints, say the result, publish where asked."""
        write_json(self.path / "facts.json", facts)
        write_model_card(self.path)
        write_training_report(self.path)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        print(f"test: {result}; the model is in {self.path}", flush=True)
        if options.push_to is not None and options.tag is not None:
            from atomvision_hub.data.publish import push_model

            print(push_model(self.path, options.push_to, tag=options.tag))


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; errors the user can mend become one line and an exit code."""
    # `atomvision train` starts its children with SIGINT ignored, so that the launcher between keeps quiet.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    speaks = os.environ.get("RANK", "0") == "0"
    try:
        main()
    except AtomVisionError as error:
        if os.environ.get("ATOMVISION_DEBUG"):
            raise
        code, line = error.exit_code, f"error: {error}"
    except KeyboardInterrupt:
        code, line = 1, "interrupted; the same command with --resume goes on after the last finished epoch"
    else:
        return
    if speaks:
        if told := os.environ.get(EXIT_CODE_FILE):
            Path(told).write_text(str(code), encoding="ascii")
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    sys.exit(code)
