"""`atomvision doctor`: what is installed, what is missing, where files go; looks, never repairs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import typer

from atomvision_hub import __version__
from atomvision_hub.commands.shared import FAILED, JsonOption, emit, note

#: Extra -> (modules it brings, programs it needs, what it is for).
EXTRAS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "stm": (("gpaw",), (), "density of states for stm2d (compiles: CC=g++ pip install ...)"),
    "microscopy": (
        ("rsciio", "h5py", "imagecodecs"),
        (),
        "DM3/DM4, EMD, SER, MRC and other instrument files",
    ),
    "dask": (("distributed", "dask_jobqueue"), (), "builds on a cluster"),
    "multislice": (("abtem",), (), "STEM images by multislice, beside the fast simulator"),
    "synthetic": (("pyxtal",), (), "random crystals: --source synthetic:N"),
    "dgl": (("dgl",), (), "atom graphs for DGL, Python 3.11"),
    "app": (("gradio",), (), "the page to drop a micrograph on: make app"),
    "ocr": (("pytesseract",), ("tesseract",), "scale bars in published figures"),
    "tensorboard": (("tensorboard",), (), "training curves"),
    "trackio": (("trackio",), (), "training curves"),
}
#: What a program of the system is for -> its names, any of which will do.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "text beside scale bars": ("tesseract",),
    "compiling GPAW": ("g++", "c++", "clang++"),
    "tests of the app in a browser": ("chromium", "chromium-browser", "google-chrome"),
}
#: Variables that keep clients from the network.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_CORE = ("torch", "torchvision", "transformers", "datasets", "huggingface-hub", "accelerate", "timm", "numpy")
#: Files of a cache that are counted before it is called "more than".
_MOST_FILES = 20_000


def doctor(as_json: JsonOption = False) -> None:
    """Tell what is installed, which extras are missing, which devices are there, and where files go.

    Needs no network and shows no secret. Exit code 1: something that every command needs is missing or
    does not work.

    Example: atomvision doctor
    """
    found = examine()
    if as_json:
        emit(found)
    else:
        for line in _report(found):
            typer.echo(line)
    for problem in found["problems"]:
        note(f"problem: {problem}")
    if found["problems"]:
        raise typer.Exit(FAILED)


def examine() -> dict[str, Any]:
    """Return all that `doctor` tells, as JSON-ready values; secrets only as where they are."""
    devices, problem = _devices()
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "libraries": {name: _version(name) for name in _CORE},
        "devices": devices,
        "extras": {name: _extra(name) for name in EXTRAS},
        "programs": {
            purpose: next((where for name in names if (where := shutil.which(name))), None)
            for purpose, names in PROGRAMS.items()
        },
        "caches": {name: _cache(path) for name, path in _cache_folders().items()},
        "credentials": {"hub_token": _token(), "arxiv_contact": bool(os.environ.get("ATOMVISION_CONTACT"))},
        "hub": os.environ.get("HF_ENDPOINT") or "https://huggingface.co",
        "offline": [
            name for name in _OFFLINE if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        ],
        "problems": [*_unmet(), *([problem] if problem else [])],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _unmet() -> list[str]:
    """Return one line for each declared dependency that is absent or too old."""
    from packaging.requirements import Requirement

    lines = []
    for text in importlib.metadata.requires("atomvision-hub") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        version, remedy = _version(needed.name), f"pip install '{needed.name}{needed.specifier}'"
        if version is None:
            lines.append(f"{needed.name} is not installed; {remedy}")
        elif not needed.specifier.contains(version, prereleases=True):
            lines.append(f"{needed.name} {version} is not {needed.specifier}; {remedy}")
    return lines


def _devices() -> tuple[list[dict[str, Any]], str | None]:
    """Return what can compute, and what is wrong with PyTorch."""
    try:
        import torch
        import torchvision  # noqa: F401 - a build for another torch fails here
    except (ImportError, RuntimeError, OSError) as problem:
        reason = " ".join(str(problem).split())
        return [], f"PyTorch does not work ({reason}); install torch and torchvision together, of one build"
    devices: list[dict[str, Any]] = [{"kind": "cpu", "threads": torch.get_num_threads()}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        memory = round(properties.total_memory / 2**30, 1)
        devices.append({"kind": "cuda", "name": properties.name, "memory_gib": memory})
    if torch.backends.mps.is_available():
        devices.append({"kind": "mps", "name": "Apple GPU"})
    return devices, None


def _extra(name: str) -> dict[str, Any]:
    modules, programs, purpose = EXTRAS[name]
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    absent = [program for program in programs if shutil.which(program) is None]
    return {
        "purpose": purpose,
        "installed": not missing and not absent,
        "missing": missing,
        "programs": absent,
    }


def _cache_folders() -> dict[str, Path]:
    hub = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    own = os.environ.get("ATOMVISION_CACHE") or "~/.cache/atomvision"
    return {"atomvision": Path(own).expanduser(), "huggingface": Path(hub).expanduser()}


def _cache(folder: Path) -> dict[str, Any]:
    """Return where a cache is, its size, and whether and how much can be written there."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    total = files = 0
    for file in folder.rglob("*"):
        if files >= _MOST_FILES:
            break
        # Models lie there once and are linked from each revision; a file may vanish while we look.
        if not file.is_symlink() and file.is_file():
            files += 1
            total += file.stat().st_size
    return {
        "path": str(folder),
        "exists": folder.exists(),
        "bytes": total,
        "complete": files < _MOST_FILES,
        "writable": os.access(existing, os.W_OK),
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _token() -> str | None:
    """Return where a token of the Hub comes from, never the token."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return "environment"
    from huggingface_hub import get_token

    return "file" if get_token() else None


def _report(found: dict[str, Any]) -> list[str]:
    """Return the findings as lines."""
    here = f"Python {found['python']}, {found['platform']}, {found['cores']} cores"
    lines = [
        f"atomvision-hub {found['version']}, {here}",
        "libraries: " + ", ".join(f"{name} {told or '-'}" for name, told in found["libraries"].items()),
        "devices: " + (", ".join(map(_device, found["devices"])) or "none"),
        "extras",
    ]
    for name, extra in found["extras"].items():
        missing = [*extra["missing"], *(f"the program {program}" for program in extra["programs"])]
        state = "installed" if extra["installed"] else f"missing: {', '.join(missing)}"
        lines.append(f"  [{name}]  {state:<32} {extra['purpose']}")
        if extra["missing"]:
            lines.append(f"      pip install 'atomvision-hub[{name}]'")
    lines.append("programs")
    lines += [f"  {path or 'none':<32} {purpose}" for purpose, path in found["programs"].items()]
    lines += [f"cache: {_cache_line(cache)}" for cache in found["caches"].values()]
    told = {
        "environment": "set (environment)",
        "file": "set (stored by hf auth login)",
        None: "not set (needed to push: `hf auth login`, or the variable)",
    }
    lines.append(f"HF_TOKEN: {told[found['credentials']['hub_token']]}")
    contact = "set" if found["credentials"]["arxiv_contact"] else "not set (arXiv wants your e-mail address)"
    lines.append(f"ATOMVISION_CONTACT: {contact}")
    offline = f"offline, by {', '.join(found['offline'])}" if found["offline"] else "asked when needed"
    lines.append(f"hub: {found['hub']}, {offline}")
    return lines


def _device(device: dict[str, Any]) -> str:
    if device["kind"] == "cpu":
        return f"cpu ({device['threads']} threads)"
    memory = f", {device['memory_gib']:g} GiB" if "memory_gib" in device else ""
    return f"{device['kind']} ({device['name']}{memory})"


def _cache_line(cache: dict[str, Any]) -> str:
    if not cache["exists"]:
        told = "not made yet"
    else:
        told = f"{'' if cache['complete'] else 'more than '}{cache['bytes'] / 2**20:,.0f} MiB"
    if not cache["writable"]:
        told += ", not writable"
    return f"{cache['path']} ({told}; {cache['free_bytes'] / 2**30:,.0f} GiB free)"
