"""Loading a dataset: a folder or a Hub repository, always at one known version."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from atomvision_hub.data._hub import hub_errors, newest_tag
from atomvision_hub.errors import AtomVisionError, UsageError

#: Version of the folder layout and of the columns that this package writes and reads.
SCHEMA_VERSION = 1

_log = logging.getLogger(__name__)


def load_dataset(
    path_or_repo: str | os.PathLike[str],
    config: str | None = None,
    *,
    revision: str | None = None,
    split: str | None = None,
    streaming: bool = False,
    token: str | bool | None = None,
) -> Any:
    """Load a dataset of this project, after checking that this package understands it.

    ``datasets.load_dataset`` reads the same folders and repositories. This helper adds what it leaves out: the
    schema version is checked, a Hub repository is never read from its moving branch, nor another version
    silently taken from the cache when the Hub cannot be reached, and a half-copied folder is noticed.

    Parameters
    ----------
    path_or_repo
        Folder that ``atomvision build`` wrote, or Hub id such as ``"atomvision/stem2d"``.
    config
        Name of the config; by default ``"default"``, or the only one.
    revision
        Tag (``"v1.0.0"``), branch or commit on the Hub; by default the newest tag ``vX.Y.Z``, which is logged.
    split
        ``"train"``, ``"validation"`` or ``"test"``; by default all of them.
    streaming
        Read rows while iterating instead of downloading all files first.
    token
        Token for the Hub; by default the one of ``HF_TOKEN`` or ``hf auth login``.

    Returns
    -------
    datasets.DatasetDict or datasets.Dataset
        A single dataset when `split` is given; their iterable twins when `streaming`.

    Raises
    ------
    UsageError
        When `config` or `split` is unknown, or `revision` is given for a folder.
    AtomVisionError
        When there is no such dataset, it cannot be reached or downloaded, its schema version is another one, or
        files are missing or cut short.
    """
    import datasets

    folder = Path(path_or_repo)
    if folder.is_dir():
        if revision is not None:
            raise UsageError(
                f"{folder} is a folder and has no revisions; leave out revision={revision!r} or give a Hub id"
            )
        manifest = read_manifest(folder)
        name = _config_name(manifest, config, str(folder))
        _check_files(folder, manifest, name)
        return datasets.load_dataset(str(folder), name, split=split, streaming=streaming)
    raise NotImplementedError("loading from the Hub")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a dataset folder after checking its schema version.

    Raises
    ------
    AtomVisionError
        When there is none, it is unreadable, or of another schema version.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AtomVisionError(
            f"{folder} holds no manifest.json: it is no finished dataset; run `atomvision build` (again)"
        ) from None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise AtomVisionError(f"{path} is damaged; build or download the dataset again")
    _check_schema(manifest, str(folder))
    return manifest


def _check_schema(manifest: dict[str, Any], where: str) -> None:
    found = manifest.get("schema_version")
    if found == SCHEMA_VERSION:
        return
    if isinstance(found, int) and found > SCHEMA_VERSION:
        remedy = "upgrade with `pip install -U atomvision-hub` or load an older version of the dataset"
    else:
        remedy = "load a newer version of the dataset or build it again with `atomvision build`"
    raise AtomVisionError(
        f"{where} has schema version {found}, this atomvision-hub reads {SCHEMA_VERSION}; {remedy}"
    )


def _config_name(manifest: dict[str, Any], wanted: str | None, where: str) -> str:
    """Return the config to read: the wanted one, ``default``, or the only one."""
    parts = (Path(name).parts for name in manifest["files"])
    known = sorted({part[1] for part in parts if len(part) == 3 and part[0] == "data"})
    if wanted is None:
        wanted = "default" if "default" in known or len(known) != 1 else known[0]
    if wanted not in known:
        raise UsageError(f"{where} has no config {wanted!r}; it has: {', '.join(known) or 'none'}")
    return wanted


def _check_files(folder: Path, manifest: dict[str, Any], config: str) -> None:
    """Compare presence and size of the config's files with the manifest (checksums: ``atomvision validate``)."""
    for name, facts in sorted(manifest["files"].items()):
        if not name.startswith(f"data/{config}/"):
            continue
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            problem = "is cut short" if path.is_file() else "is missing"
            raise AtomVisionError(f"{path} {problem}; build or download the dataset again")
