"""`atomvision train`: the scripts of the checkout or of the installed copy, by `accelerate launch`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from atomvision_hub.errors import UsageError

#: Environment variable with the file into which a script writes the exit code of a known error.
EXIT_CODE_FILE = "ATOMVISION_EXIT_CODE_FILE"

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
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", str(script), *arguments]
    # The launcher turns every failure into 1; the script tells the real code this way.
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "exit_code"
        environment = {"ACCELERATE_LOG_LEVEL": "ERROR"} | os.environ | {EXIT_CODE_FILE: str(told)}
        # Ctrl-C is for the script, which says how to go on: launcher and this process let it pass. (Only the
        # main thread may set handlers; elsewhere nothing is to be done, it receives no signals.)
        main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main_thread else None
        try:
            code = subprocess.run(command, env=environment, check=False).returncode
        finally:
            if main_thread:
                signal.signal(signal.SIGINT, before)
        return int(told.read_text()) if told.is_file() else code
