"""What all tabs share: limits, uploads that are deleted, folders of sessions, errors that are sentences."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import html
import inspect
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from atomvision_hub.errors import AtomVisionError, UsageError
from atomvision_hub.microscopy import FORMATS, MicroscopeImage, read_images, size_limits

#: What one upload may have, on the disk and unfolded, and what one image may have.
MAX_MEGABYTES, MAX_UNFOLDED, MAX_PIXELS = 64, 2**28, 2**24
#: Frames of a stack that are kept.
MAX_FRAMES = 16
#: Seconds that what a session without a call made lives, and an upload after it was read.
LIFE, GRACE = 3600, float(os.environ.get("ATOMVISION_APP_GRACE", "20"))

#: Files of this process: uploads for as long as they are read, downloads while their session lasts.
ROOT = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.mkdtemp(prefix="atomvision-app-"))
os.environ["GRADIO_TEMP_DIR"] = str(ROOT)
_log = logging.getLogger("atomvision.app")


@atexit.register
def _remove_all() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)


def micrograph_field(name: str) -> gr.File:
    """Return the field that takes a micrograph; its element is ``<name>-file``."""
    return gr.File(
        label="Micrograph: PNG, TIFF, DM3, DM4, EMD, SXM, …",
        file_types=sorted(FORMATS),
        elem_id=f"{name}-file",
        height=150,
    )


def read_upload(path: str) -> list[MicroscopeImage]:
    """Return the images of an upload, which is deleted whatever happens."""
    with upload(path) as found, size_limits(max_bytes=MAX_UNFOLDED, max_pixels=MAX_PIXELS):
        return read_images(found, max_frames=MAX_FRAMES)


@contextmanager
def upload(path: str) -> Iterator[Path]:
    """Give the path of an upload that is not too large; it is deleted a moment after.

    Gradio names the folder of an upload by its content, so that two people who bring one file at one time
    share it. Who comes later finds it still there: it is removed only if nobody wrote it anew since.
    """
    found = Path(path)
    try:
        facts = found.stat()
    except FileNotFoundError:
        raise UsageError(f"{found.name} is no longer here; drop it again") from None
    try:
        if facts.st_size > MAX_MEGABYTES * 2**20:
            raise UsageError(f"{found.name} is larger than {MAX_MEGABYTES} MB; crop or bin it first")
        yield found
    finally:
        timer = threading.Timer(GRACE, _delete, (found, facts.st_mtime_ns))
        timer.daemon = True
        timer.start()


def _delete(path: Path, written: int) -> None:
    folder = path.resolve().parent
    with contextlib.suppress(OSError):
        if ROOT.resolve() in folder.parents and path.stat().st_mtime_ns == written:
            shutil.rmtree(folder)


def session_folder(request: gr.Request) -> Path:
    """Return the folder of one session's downloads; removed when its page is closed."""
    # The name comes from the browser: only a hash of it becomes a path.
    name = hashlib.sha256(str(request.session_hash).encode()).hexdigest()[:24]
    sessions = ROOT / "sessions"
    folder = sessions / name
    folder.mkdir(parents=True, exist_ok=True)
    # What was still being made when its page was closed.
    for other in sessions.iterdir():
        with contextlib.suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > LIFE:
                shutil.rmtree(other)
    return folder


def forget(request: gr.Request) -> None:
    """Remove what a session left."""
    shutil.rmtree(session_folder(request), ignore_errors=True)


def file_stem(name: str) -> str:
    """Return a name for downloads: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "image"


def say(text: str, kind: str = "note") -> str:
    """Return a line for a status field; `kind` is ``note``, ``good`` or ``error``."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="av-status av-{kind}" role="{role}">{html.escape(text)}</p>' if text else ""


Handler = Callable[..., Any]


def guarded(status: gr.HTML, *cleared: Any) -> Callable[[Handler], Handler]:
    """Return a decorator for handlers that return component -> value.

    What goes wrong becomes one sentence in `status`, and the components in `cleared` are emptied, so that no
    result of an earlier file stands beside it.
    """

    def told(problem: Exception) -> dict[Any, Any]:
        if isinstance(problem, AtomVisionError):
            line = _plain(str(problem))
        else:
            _log.error("unexpected", exc_info=problem)
            line = "that did not work, for a reason that the log of this app tells; try another file"
        return {status: say(line, "error"), **dict.fromkeys(cleared)}

    def decorate(handler: Handler) -> Handler:
        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def steps(*args: Any) -> Iterator[dict[Any, Any]]:
                try:
                    for found in handler(*args):
                        yield {status: "", **found}
                except Exception as problem:  # noqa: BLE001  # a page shows sentences, whatever happens
                    yield told(problem)

            return steps

        @functools.wraps(handler)
        def once(*args: Any) -> dict[Any, Any]:
            try:
                return {status: "", **handler(*args)}
            except Exception as problem:  # noqa: BLE001  # a page shows sentences, whatever happens
                return told(problem)

        return once

    return decorate


def _plain(text: str) -> str:
    """Return a message without line breaks and without folders of this machine."""
    return " ".join(text.replace(f"{ROOT}{os.sep}", "").split())


def warm_up() -> None:
    """Load what an answer needs, so that the first one is as quick as the others."""
    from atomvision_hub import analyze, load_structures, simulate_stem

    analyze(simulate_stem(load_structures("reference")["graphene"], shape=(64, 64)).image, pixel_size=0.1)
