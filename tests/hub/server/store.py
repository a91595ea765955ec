"""What a Hub keeps: repositories with branches, tags and commits, and file contents on disk.

Object names are those of git (blob, tree, commit) and of Git-LFS (SHA-256), since clients compare them with
what they compute themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

KINDS = ("model", "dataset", "space")

#: Suffixes that a new repository stores through Git-LFS; datasets also their pictures and sounds.
_LFS = """
    7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth
    rar safetensors tar tflite tgz wasm xz zip zst
"""
_LFS_MEDIA = """
    aac ac3 avi bmp flac gif jp2 jpeg jpg mkv mov mp3 mp4 ogg pcm png raw sam tiff wav webm webp
"""


def git_oid(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def gitattributes(kind: str) -> bytes:
    suffixes = sorted((_LFS + _LFS_MEDIA if kind == "dataset" else _LFS).split())
    patterns = [f"*.{suffix}" for suffix in suffixes] + ["*tfevents*", "saved_model/**/*"]
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns).encode()


@dataclass(frozen=True)
class File:
    """One version of a file; `oid` is git's name of it (of the pointer when `lfs`)."""

    size: int
    sha256: str
    lfs: bool
    oid: str

    @classmethod
    def regular(cls, content: bytes) -> File:
        return cls(len(content), hashlib.sha256(content).hexdigest(), False, git_oid("blob", content))

    @classmethod
    def pointer(cls, sha256: str, size: int) -> File:
        return cls(size, sha256, True, git_oid("blob", pointer_text(sha256, size)))

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


def pointer_text(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


Tree = Mapping[str, File]


@dataclass(frozen=True)
class Commit:
    oid: str
    tree: Tree
    parent: str | None
    author: str
    date: datetime
    title: str
    message: str


@dataclass
class Repository:
    kind: str
    id: str
    private: bool
    created: datetime
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    #: Git-LFS objects that were uploaded to this repository, whether committed or not.
    objects: dict[str, int] = field(default_factory=dict)
    gated: bool | str = False

    def find(self, revision: str) -> Commit | None:
        """Return the commit of a branch, tag, full name of a ref, or (shortened) commit id."""
        name = re.sub(r"^refs/(heads|tags)/", "", revision)
        oid = self.branches.get(name) or self.tags.get(name)
        if oid is None and re.fullmatch(r"[0-9a-f]{7,40}", revision):
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        return self.commits[oid] if oid else None

    def history(self, start: Commit) -> list[Commit]:
        found: list[Commit] = []
        current: Commit | None = start
        while current:
            found.append(current)
            current = self.commits[current.parent] if current.parent else None
        return found

    def commit(
        self, branch: str, tree: Tree, author: str, title: str, message: str = "", *, root: bool = False
    ) -> Commit:
        """Put a new commit on top of a branch (or, when `root`, in place of its history)."""
        date = datetime.now(UTC)
        parent = None if root else self.branches.get(branch)
        stamp = f"{author} <{author}@users.noreply> {int(date.timestamp())} +0000"
        text = f"tree {tree_oid(tree)}\n" + (f"parent {parent}\n" if parent else "")
        text += f"author {stamp}\ncommitter {stamp}\n\n{title}\n\n{message}"
        commit = Commit(git_oid("commit", text.encode()), dict(tree), parent, author, date, title, message)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit


def tree_oid(tree: Tree) -> str:
    """Return git's name of a folder, given all files below it."""
    entries = []
    for name, oid, is_folder in children(tree):
        mode = b"40000" if is_folder else b"100644"
        entries.append((name + "/" * is_folder, mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid)))
    return git_oid("tree", b"".join(content for _, content in sorted(entries)))


def children(tree: Tree) -> Iterable[tuple[str, str, bool]]:
    """Yield name, object id and whether it is a folder, for everything directly in `tree`."""
    folders: dict[str, dict[str, File]] = {}
    for path, file in tree.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(head, {})[rest] = file
        else:
            yield head, file.oid, False
    for name, below in folders.items():
        yield name, tree_oid(below), True


def below(tree: Tree, folder: str) -> dict[str, File]:
    """Return the files in `folder`, by their path inside it; the whole tree for an empty name."""
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    return {path[len(prefix) :]: file for path, file in tree.items() if path.startswith(prefix)}


def follows_lfs(tree_attributes: str, path: str) -> bool:
    """Tell whether the repository's ``.gitattributes`` sends a path through Git-LFS."""
    for line in tree_attributes.splitlines():
        pattern, *attributes = line.split() or [""]
        if "filter=lfs" in attributes and PurePosixPath(path).match(pattern):
            return True
    return False


class Store:
    """All repositories, and the contents of all files by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories: dict[tuple[str, str], Repository] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def write(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self.path(sha256).write_bytes(content)
        return sha256

    def read(self, file: File) -> bytes:
        return self.path(file.sha256).read_bytes()

    def create(self, kind: str, repo_id: str, author: str, *, private: bool) -> Repository:
        repository = Repository(kind, repo_id, private, datetime.now(UTC))
        attributes = gitattributes(kind)
        self.write(attributes)
        repository.commit("main", {".gitattributes": File.regular(attributes)}, author, "initial commit")
        self.repositories[kind, repo_id] = repository
        return repository
