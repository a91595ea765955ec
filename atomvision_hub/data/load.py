"""Loading a dataset: a folder or a Hub repository, always at one known version."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from atomvision_hub.data._hub import check_repo_id, hub_errors, is_unreachable, newest_tag, patiently
from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError

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

    ``datasets.load_dataset`` reads the same folders and repositories. This helper adds what it leaves out:
    the schema version is checked, a Hub repository is never read from its moving branch, nor another version
    silently taken from the cache when the Hub cannot be reached, and a half-copied folder is noticed.

    Parameters
    ----------
    path_or_repo
        Folder that ``atomvision build`` wrote, or Hub id such as ``"atomvision/stem2d"``.
    config
        Name of the config; by default ``"default"``, or the only one.
    revision
        Tag (``"v1.0.0"``), branch or commit on the Hub; by default the newest tag ``vX.Y.Z`` (logged).
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
        When there is no such dataset, it cannot be reached or downloaded, its schema version is another one,
        or files are missing or cut short.
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
        if fault := _fault(folder, manifest, name):
            raise AtomVisionError(f"{fault}; build or download the dataset again")
        _check_split(manifest, name, split, str(folder))
        return datasets.load_dataset(str(folder), name, split=split, streaming=streaming)

    repo_id = str(path_or_repo)
    try:
        check_repo_id(repo_id)
    except UsageError:
        raise AtomVisionError(f"{repo_id} is neither a folder nor a Hub id ORG/NAME") from None
    with hub_errors(repo_id):
        return _load_from_hub(repo_id, config, revision, split, streaming, token)


def _load_from_hub(
    repo_id: str,
    config: str | None,
    revision: str | None,
    split: str | None,
    streaming: bool,
    token: str | bool | None,
) -> Any:
    import datasets
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

    revision = revision or _newest_version(repo_id, token)
    where = f"{repo_id} {revision}"
    try:
        path = patiently(
            lambda: hf_hub_download(
                repo_id, "manifest.json", repo_type="dataset", revision=revision, token=token
            ),
            "loading the manifest",
            reconnect=False,
        )
    except LocalEntryNotFoundError:
        raise
    except RevisionNotFoundError:
        known = ", ".join(_published_tags(repo_id, token)) or "none"
        raise AtomVisionError(f"{repo_id} has no revision {revision!r}; its tags: {known}") from None
    except EntryNotFoundError:
        raise AtomVisionError(f"{where} has no manifest.json: it is no dataset of this project") from None
    snapshot = Path(path).parent
    manifest = read_manifest(snapshot, where)
    name = _config_name(manifest, config, where)
    _check_split(manifest, name, split, where)
    # The commit, not the tag, from here on: all files are of one version whatever happens on the Hub.
    commit = snapshot.name
    if _fault(snapshot, manifest, name):
        if streaming:
            return datasets.load_dataset(
                repo_id, name, split=split, revision=commit, streaming=True, token=token
            )
        files = ["README.md", *(file for file in manifest["files"] if file.startswith(f"data/{name}/"))]
        try:
            patiently(
                lambda: snapshot_download(
                    repo_id, repo_type="dataset", revision=commit, allow_patterns=files, token=token
                ),
                "downloading",
                reconnect=False,
            )
        except Exception as error:
            if not is_unreachable(error):
                raise
        if fault := _fault(snapshot, manifest, name):
            raise NetworkNeededError(
                f"{fault} in the cache; connect to the network to load the rest of {where}"
            )
    # Through the files rather than by the name: `datasets` would take any version from its cache when the Hub
    # cannot be reached, and offline it takes no notice of the revision.
    return datasets.load_dataset(str(snapshot), name, split=split, streaming=streaming)


def _published_tags(repo_id: str, token: str | bool | None) -> list[str]:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    refs = patiently(lambda: api.list_repo_refs(repo_id, repo_type="dataset"), "reading the tags")
    return [ref.name for ref in refs.tags]


def _newest_version(repo_id: str, token: str | bool | None) -> str:
    """Return the newest version tag on the Hub or, when it cannot be reached, in the cache."""
    try:
        tags, origin = _published_tags(repo_id, token), "newest version"
    except Exception as error:
        if not is_unreachable(error):
            raise
        tags, origin = _cached_tags(repo_id), "newest version in the cache, the Hub cannot be reached"
        if not tags:
            raise
    tag = newest_tag(tags)
    if tag is None:
        raise AtomVisionError(
            f"{repo_id} has no version tag vX.Y.Z; pass revision= (best a commit) to say which state is meant"
        )
    _log.info("%s: %s (%s)", repo_id, tag, origin)
    return tag


def _cached_tags(repo_id: str) -> list[str]:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="dataset") / "refs"
    return [path.name for path in refs.iterdir()] if refs.is_dir() else []


def read_manifest(folder: Path, where: str = "") -> dict[str, Any]:
    """Return the manifest of a dataset folder after checking its schema version.

    Parameters
    ----------
    folder
        The dataset.
    where
        What to call it in messages, by default by its path.

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
    _check_schema(manifest, where or str(folder))
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
    known = sorted({found[0] for name in manifest["files"] if (found := _config_and_split(name))})
    if wanted is None:
        wanted = "default" if "default" in known or len(known) != 1 else known[0]
    if wanted not in known:
        raise UsageError(f"{where} has no config {wanted!r}; it has: {', '.join(known) or 'none'}")
    return wanted


def _check_split(manifest: dict[str, Any], config: str, split: str | None, where: str) -> None:
    """Check the names in a split expression such as ``"train+test[:10%]"``."""
    found = (_config_and_split(name) for name in manifest["files"])
    known = {pair[1] for pair in found if pair and pair[0] == config}
    for part in (split or "").split("+") if split else ():
        name = part.partition("[")[0].strip()
        if name not in known | {"all"}:
            raise UsageError(
                f"config {config!r} of {where} has no split {name!r}; it has: {', '.join(sorted(known))}"
            )


def _config_and_split(name: str) -> tuple[str, str] | None:
    """Return config and split of a file in the manifest, `None` when it holds no rows."""
    match = re.fullmatch(r"data/([^/]+)/(\w+)-\d+-of-\d+\.parquet", name)
    return (match[1], match[2]) if match else None


def _fault(folder: Path, manifest: dict[str, Any], config: str) -> str | None:
    """Say which file of a config is missing or of another size than in the manifest, if any.

    Checksums are the business of ``atomvision validate``.
    """
    if not (folder / "README.md").is_file():
        return f"{folder / 'README.md'} is missing"
    for name, facts in sorted(manifest["files"].items()):
        found = _config_and_split(name)
        if not found or found[0] != config:
            continue
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != facts["bytes"]:
            return f"{path} has another size than the manifest says"
    return None
