"""`atomvision train`: the training scripts of the checkout or of the installed copy, by `accelerate launch`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from atomvision_hub.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]


def scripts_folder() -> Path:
    """Return the folder of the training scripts: inside the wheel, else beside the package in a checkout."""
    installed = _PACKAGE / "_scripts" / "training"
    return installed if installed.is_dir() else _PACKAGE.parent / "training"


def launch(task: str, arguments: Sequence[str]) -> int:
    """Run ``training/train_<task>.py`` with `arguments` and return its exit code.

    Raises
    ------
    UsageError
        When there is no such script.
    """
    script = scripts_folder() / f"train_{task}.py"
    if not script.is_file():
        known = sorted(path.stem.removeprefix("train_") for path in scripts_folder().glob("train_*.py"))
        raise UsageError(f"there is no training task {task!r}; there are: {', '.join(known)}")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    process = subprocess.Popen([*command, str(script), *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the script got it too and says how to go on
