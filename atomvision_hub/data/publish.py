"""Publishing a finished folder on the Hugging Face Hub under a version tag that never moves.

A push checks the folder, uploads it (nothing else stays in the repository), compares what the Hub holds with
the folder file by file, and only then sets the tag. Running it again after any failure goes on where it
stopped; running it again after success changes nothing.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from atomvision_hub._files import sha256_file
from atomvision_hub.data._hub import check_repo_id, hub_errors, newest_tag, parse_tag, patiently
from atomvision_hub.data.load import read_manifest
from atomvision_hub.errors import AtomVisionError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RepoType = Literal["dataset", "model"]

#: Kept by the Hub itself: which files go through Git-LFS.
_ATTRIBUTES = ".gitattributes"
#: What a model folder must hold, and the kinds of files published from it; never pickles or training states.
_MODEL_FILES = ("README.md", "config.json", "facts.json", "model.safetensors")
_MODEL_SUFFIXES = frozenset({".json", ".jsonl", ".md", ".png", ".safetensors", ".txt", ".yaml"})
#: Metadata without which a card does not serve its readers (or `pipeline`).
_CARD_KEYS: Mapping[RepoType, tuple[str, ...]] = {
    "dataset": ("configs", "dataset_info", "license"),
    "model": ("library_name", "license", "pipeline_tag"),
}


@dataclass(frozen=True, kw_only=True)
class PushReport:
    """What a push did; `str` gives the line for the user.

    Parameters
    ----------
    repo_id, repo_type
        The repository.
    tag
        Version.
    commit
        Commit that the tag names, 40 hexadecimal digits.
    url
        Page of the version.
    published
        False when the very same content was already published under this tag.
    """

    repo_id: str
    repo_type: RepoType
    tag: str
    commit: str
    url: str
    published: bool

    def __str__(self) -> str:
        done = "published" if self.published else "already published, nothing to do:"
        return f"{done} {self.repo_id} {self.tag} (commit {self.commit[:12]}), {self.url}"


def push_dataset(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    tag: str,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> PushReport:
    """Publish a dataset folder and tag it.

    Only the files named in ``manifest.json``, the manifest itself and the card are published.

    Parameters
    ----------
    folder
        Folder that ``atomvision build`` has finished.
    repo_id
        ``ORG/NAME``; created when it does not exist.
    tag
        Version ``vX.Y.Z``. A published tag never moves: with the same content nothing is done, with another
        content it is refused.
    private
        Make a new repository private; refused when it exists and is public.
    token
        Token with write permission; by default the one of ``HF_TOKEN`` or ``hf auth login``.
    endpoint
        Address of the Hub; by default that of ``HF_ENDPOINT``.

    Raises
    ------
    UsageError
        When `tag` or `repo_id` is malformed.
    AtomVisionError
        When the folder is not finished or damaged, the tag exists with another content, the repository holds
        something else, or the Hub cannot be reached, does not accept the token or keeps failing.
    """
    return _push(Path(folder), repo_id, "dataset", tag, private=private, token=token, endpoint=endpoint)


def push_model(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    tag: str,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> PushReport:
    """Publish a model folder and tag it; parameters and errors as for `push_dataset`.

    The folder needs ``README.md``, ``config.json``, ``facts.json`` and ``model.safetensors``. Published are
    the text, picture and safetensors files directly in it; what training keeps in subfolders stays at home.
    """
    return _push(Path(folder), repo_id, "model", tag, private=private, token=token, endpoint=endpoint)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """End the process at once on Ctrl-C, for the command line.

    The uploading threads would hold up an orderly end until their files are through. Nothing is lost:
    what the Hub has received it keeps, and no commit is half made.
    """

    def leave(*_: object) -> None:
        print("interrupted; what is uploaded is kept, the same command goes on", file=sys.stderr, flush=True)
        os._exit(1)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _push(
    folder: Path,
    repo_id: str,
    repo_type: RepoType,
    tag: str,
    *,
    private: bool,
    token: str | None,
    endpoint: str | None,
) -> PushReport:
    check_repo_id(repo_id)
    if parse_tag(tag) is None:
        raise UsageError(f"{tag!r} is no version; write vX.Y.Z, such as v1.0.0")
    files = dataset_files(folder) if repo_type == "dataset" else model_files(folder)
    _check_card(folder, repo_type)

    from huggingface_hub import HfApi, get_token

    token = token or get_token()
    if not token:
        raise AtomVisionError(
            "publishing needs a token; set HF_TOKEN to one with write permission or run `hf auth login`"
        )
    api = HfApi(endpoint=endpoint, token=token)
    target = _Target(api, repo_id, repo_type)
    with hub_errors(repo_id, api.endpoint):
        known = patiently(lambda: target.prepare(tag, files, private=private), "reading the repository")
        commit = known or patiently(lambda: target.upload(folder, files, tag), "uploading")
        if not known:
            patiently(lambda: target.set_tag(tag, commit), "tagging")
    return PushReport(
        repo_id=repo_id,
        repo_type=repo_type,
        tag=tag,
        commit=commit,
        url=f"{api.endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}/tree/{tag}",
        published=known is None,
    )


# --- what is published ---


@dataclass(frozen=True)
class LocalFile:
    """A file to publish."""

    path: Path

    @cached_property
    def sha256(self) -> str:
        """Name of the content in Git-LFS."""
        return sha256_file(self.path)

    @cached_property
    def blob_id(self) -> str:
        """Name of the content in git."""
        content = self.path.read_bytes()
        # SHA-1 is git's choice; nothing depends on its strength here.
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def dataset_files(folder: Path) -> dict[str, LocalFile]:
    """Return the files of a finished dataset by their names in the repository.

    Raises
    ------
    AtomVisionError
        When the folder is not finished, or a file is missing or differs from the manifest.
    """
    _check_folder(folder)
    manifest = read_manifest(folder)
    files = {name: LocalFile(folder / name) for name in ("README.md", "manifest.json", *manifest["files"])}
    for name, file in files.items():
        if ".." in Path(name).parts or Path(name).is_absolute() or not file.path.is_file():
            raise AtomVisionError(f"{folder} lacks {name}; build it again before publishing")
        facts = manifest["files"].get(name)
        if facts and facts["sha256"] != file.sha256:
            raise AtomVisionError(
                f"{file.path} differs from the manifest; build the dataset again before publishing"
            )
    return files


def model_files(folder: Path) -> dict[str, LocalFile]:
    """Return the files of a trained model by their names in the repository.

    Raises
    ------
    AtomVisionError
        When one of the necessary files is missing.
    """
    _check_folder(folder)
    for name in _MODEL_FILES:
        if not (folder / name).is_file():
            raise AtomVisionError(
                f"{folder} holds no {name}: it is no finished model; train it to the end first"
            )
    return {
        path.name: LocalFile(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in _MODEL_SUFFIXES and not path.name.startswith(".")
    }


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise AtomVisionError(f"there is no folder {folder}")


def _check_card(folder: Path, repo_type: RepoType) -> None:
    """Refuse a card without the metadata that the Hub and its readers need."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        metadata = None
    metadata = metadata if isinstance(metadata, dict) else {}
    missing = [key for key in _CARD_KEYS[repo_type] if not metadata.get(key)]
    if missing:
        raise AtomVisionError(f"the card {path} lacks {', '.join(missing)} in its metadata; make it again")
    if "[More Information Needed]".lower() in text.lower():
        raise AtomVisionError(f"the card {path} is not filled in ('More information needed'); complete it")


# --- the repository ---


@dataclass(frozen=True)
class _Target:
    api: HfApi
    repo_id: str
    repo_type: RepoType

    def prepare(self, tag: str, files: Mapping[str, LocalFile], *, private: bool) -> str | None:
        """Create the repository where needed; return the tag's commit if `files` are already published so.

        Raises
        ------
        AtomVisionError
            When the tag exists with another content, or a private push would become public.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self.api.repo_info(self.repo_id, repo_type=self.repo_type)
        except RepositoryNotFoundError:
            self.api.create_repo(self.repo_id, repo_type=self.repo_type, private=private, exist_ok=True)
            info = self.api.repo_info(self.repo_id, repo_type=self.repo_type)
        if private and not info.private:
            raise AtomVisionError(
                f"{self.repo_id} is public; make it private in its settings, or leave out --private"
            )
        tags = self._tags()
        if tag not in tags:
            self._check_kinship(files)
            return None
        if self.differences(tags[tag], files):
            numbers = parse_tag(newest_tag(tags) or tag)
            assert numbers is not None
            major, minor, patch = numbers
            raise AtomVisionError(
                f"{self.repo_id} {tag} is already published with another content, and a published tag never "
                f"moves; publish this one as v{major}.{minor}.{patch + 1} or higher"
            )
        return tags[tag]

    def _check_kinship(self, files: Mapping[str, LocalFile]) -> None:
        """Refuse to replace what is not an older version (or a broken upload) of the same thing.

        Since a push leaves nothing but its own files, a mistyped name would clear another repository.
        """
        marker = "manifest.json" if self.repo_type == "dataset" else "facts.json"
        remote = set(self.api.list_repo_files(self.repo_id, repo_type=self.repo_type))
        foreign = sorted(remote - set(files) - {_ATTRIBUTES})
        if marker not in remote:
            if foreign:
                raise AtomVisionError(
                    f"{self.repo_id} holds other files ({foreign[0]}) and was not published from here; "
                    "choose another name, or empty it first"
                )
        elif self.repo_type == "dataset":
            path = self.api.hf_hub_download(self.repo_id, marker, repo_type=self.repo_type)
            theirs, ours = (
                json.loads(Path(manifest).read_text(encoding="utf-8")).get("dataset")
                for manifest in (path, files[marker].path)
            )
            if theirs != ours:
                raise AtomVisionError(
                    f"{self.repo_id} holds dataset {theirs}, not {ours}; choose another name"
                )

    def _tags(self) -> dict[str, str]:
        refs = self.api.list_repo_refs(self.repo_id, repo_type=self.repo_type)
        return {ref.name: ref.target_commit for ref in refs.tags}

    def differences(self, revision: str, files: Mapping[str, LocalFile]) -> list[str]:
        """Return the names of files that are not the same in the folder and in a revision."""
        from huggingface_hub.hf_api import RepoFile

        tree = self.api.list_repo_tree(
            self.repo_id, recursive=True, revision=revision, repo_type=self.repo_type
        )
        remote = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        remote.pop(_ATTRIBUTES, None)
        different = set(files) ^ set(remote)
        for name in set(files) & set(remote):
            lfs = remote[name].lfs
            same = lfs.sha256 == files[name].sha256 if lfs else remote[name].blob_id == files[name].blob_id
            if not same:
                different.add(name)
        return sorted(different)

    def upload(self, folder: Path, files: Mapping[str, LocalFile], tag: str) -> str:
        """Make the main branch hold `files` and nothing else; return its commit."""
        commit = self.api.upload_folder(
            repo_id=self.repo_id,
            repo_type=self.repo_type,
            folder_path=folder,
            allow_patterns=[glob.escape(name) for name in files],
            delete_patterns="*",
            commit_message=f"Version {tag}",
        )
        different = self.differences(commit.oid, files)
        if different:
            raise AtomVisionError(
                f"{self.repo_id} holds another {different[0]} than {folder} after the upload (is somebody "
                "else publishing?); no tag was set, run the same command again"
            )
        return commit.oid

    def set_tag(self, tag: str, commit: str) -> None:
        """Set the tag, which may already be there when an answer of the Hub was lost."""
        self.api.create_tag(self.repo_id, tag=tag, revision=commit, repo_type=self.repo_type, exist_ok=True)
        if self._tags().get(tag) != commit:
            raise AtomVisionError(
                f"{self.repo_id} {tag} was set by somebody else meanwhile; choose the next version"
            )
