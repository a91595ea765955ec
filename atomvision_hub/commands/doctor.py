"""`atomvision doctor`: what is installed, what is missing, where files go."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

import typer

from atomvision_hub import __version__

#: Extra -> (modules it brings, programs it needs, what it is for).
EXTRAS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "stm": (("gpaw",), (), "density of states for stm2d (compiles: CC=g++ pip install ...)"),
    "microscopy": (
        ("rsciio", "h5py", "imagecodecs"),
        (),
        "DM3/DM4, EMD, SER, MRC and other instrument files",
    ),
    "dask": (("distributed", "dask_jobqueue"), (), "builds on a cluster"),
    "synthetic": (("pyxtal",), (), "random crystals: --source synthetic:N"),
    "dgl": (("dgl",), (), "atom graphs for DGL, Python 3.11"),
    "ocr": (("pytesseract",), ("tesseract",), "scale bars in published figures"),
    "tensorboard": (("tensorboard",), (), "training curves"),
    "trackio": (("trackio",), (), "training curves"),
}
_CORE = ("torch", "transformers", "datasets", "huggingface-hub", "accelerate", "timm", "numpy", "pyarrow")


def doctor() -> None:
    """Tell what is installed, which extras are missing, and where files go; needs no network."""
    typer.echo(
        f"atomvision-hub {__version__}, Python {sys.version.split()[0]}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    typer.echo("libraries: " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _CORE))
    for extra, (modules, programs, purpose) in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        missing += [f"the program {name}" for name in programs if shutil.which(name) is None]
        state = "installed" if not missing else f"missing: {', '.join(missing)}"
        typer.echo(f"  [{extra}]  {state:<32} {purpose}")
        if missing and importlib.util.find_spec(modules[0]) is None:
            typer.echo(f"      pip install 'atomvision-hub[{extra}]'")
    cache = Path(os.environ.get("ATOMVISION_CACHE") or "~/.cache/atomvision").expanduser()
    typer.echo(f"cache: {cache}" + ("" if cache.exists() else " (not made yet)"))
    token = "set" if os.environ.get("HF_TOKEN") else "not set (needed to push; or `hf auth login`)"
    typer.echo(f"HF_TOKEN: {token}")
    contact = (
        "set" if os.environ.get("ATOMVISION_CONTACT") else "not set (arXiv wants one: your e-mail address)"
    )
    typer.echo(f"ATOMVISION_CONTACT: {contact}")
