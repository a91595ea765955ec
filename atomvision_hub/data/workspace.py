"""The folder of a dataset while it is built: whose it is, what is finished, who works in it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from atomvision_hub._files import sha256_file, write_json
from atomvision_hub.data.interface import ShardTask
from atomvision_hub.data.load import read_manifest
from atomvision_hub.data.shards import ShardResult
from atomvision_hub.errors import AtomVisionError, UsageError

MANIFEST = "manifest.json"
CARD = "README.md"
REJECTED = "rejected.parquet"
STATE = ".build"

#: Manifest keys that must agree before two builds may share a folder.
IDENTITY = ("dataset", "schema_version", "limit", "tiny", "seed", "sources", "split", "inputs", "environment")

_LIBRARIES = ("ase", "atomvision-hub", "deflate", "numpy", "pillow", "pyarrow", "scipy", "spglib")


def environment(libraries: Iterable[str] = ()) -> dict[str, str]:
    """Return what the bytes of a dataset depend on besides its inputs.

    Parameters
    ----------
    libraries
        Further distributions that the rows of a dataset depend on.
    """
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    facts = {name: _version(name) for name in (*_LIBRARIES, *libraries)}
    facts["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    facts["machine"] = f"{platform.system()} {platform.machine()}"
    # Which kernels the BLAS chose for this processor: they order the additions.
    facts["blas"] = ", ".join(
        sorted(
            {
                f"{i['internal_api']} {i.get('architecture', '')}"
                for i in threadpool_info()
                if i["user_api"] == "blas"
            }
        )
    )
    return facts


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class Workspace:
    """A dataset folder that one build at a time works in.

    Parameters
    ----------
    folder
        The dataset folder, made when absent.
    identity
        What the folder is built from, the keys of `IDENTITY`.
    configs
        Config name -> parameters, those asked for.
    resume
        Whether finished shards are kept.

    Raises
    ------
    UsageError
        When the folder holds something else.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        configs: Mapping[str, Mapping[str, Any]],
        *,
        resume: bool,
    ) -> None:
        self.folder = folder
        self.state = folder / STATE
        self.identity = dict(identity)
        self.resume = resume
        self.manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
        unfinished = self._read_state()
        if self.manifest is None and unfinished is None and _foreign(folder):
            raise UsageError(f"{folder} holds other files ({_foreign(folder)[0]}); choose an empty --out")
        if self.manifest is not None:
            self._agree(self.manifest, self.manifest["configs"], configs, "choose another --out")
        if unfinished is not None:
            if resume:
                way = "choose another --out, or start afresh with --no-resume"
                self._agree(unfinished["identity"], unfinished["configs"], configs, way)
            else:
                self._forget(unfinished["configs"])
                unfinished = None
        #: The configs to make: those asked for and those an interrupted build left.
        self.configs = {**(unfinished["configs"] if unfinished else {}), **configs}
        write_json(self.state / "build.json", {"identity": self.identity, "configs": self.configs})
        self._sweep()

    def _sweep(self) -> None:
        """Remove what killed workers left half written."""
        for leftover in self.folder.glob("data/*/.*.part"):
            leftover.unlink(missing_ok=True)

    def _read_state(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads((self.state / "build.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return content

    def _agree(
        self,
        there: Mapping[str, Any],
        there_configs: Mapping[str, Any],
        configs: Mapping[str, Mapping[str, Any]],
        way: str,
    ) -> None:
        for key in IDENTITY:
            old, new = there.get(key), _plain(self.identity[key])
            if old != new:
                raise UsageError(f"{self.folder} was built with {_difference(key, old, new)}; {way}")
        for name, parameters in configs.items():
            if name in there_configs and (old := _parameters(there_configs[name])) != _plain(parameters):
                what = _difference(f"config {name!r}", old, _plain(parameters))
                raise UsageError(
                    f"{self.folder} was built with {what}; {way}, or give the config another name"
                )

    def _forget(self, configs: Mapping[str, Any]) -> None:
        finished = self.manifest["configs"] if self.manifest else {}
        for name in configs:
            if name not in finished:
                shutil.rmtree(self.folder / "data" / name, ignore_errors=True)
        for path in self.state.glob("*.json"):
            path.unlink()

    def finished(self, task: ShardTask) -> ShardResult | None:
        """Return the result of a task when its file is there and whole."""
        if not self.resume:
            return None
        state = self.state / f"{task.name}.json"
        if state.is_file():
            result = ShardResult.from_json(json.loads(state.read_text(encoding="utf-8")))
        elif self.manifest is not None and task.path in self.manifest["files"]:
            facts = self.manifest["files"][task.path]
            result = ShardResult(task.path, facts["sha256"], facts["bytes"], facts["rows"])
        else:
            return None
        path = self.folder / task.path
        whole = path.is_file() and path.stat().st_size == result.bytes and sha256_file(path) == result.sha256
        return result if result.path == task.path and whole else None

    def record(self, task: ShardTask, result: ShardResult) -> None:
        """Note that a shard is finished."""
        write_json(self.state / f"{task.name}.json", result.to_json())

    def close(self) -> None:
        """Remove the state: the dataset is finished."""
        self._sweep()
        shutil.rmtree(self.state, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other builds out of a folder.

    Raises
    ------
    UsageError
        When it is a file.
    AtomVisionError
        When another build works there.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a folder as --out")
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / STATE / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AtomVisionError(
            f"another build works in {folder}; wait for it or choose another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
        # Leave no trace in a folder that was refused or is finished.
        if not (folder / STATE / "build.json").exists():
            shutil.rmtree(folder / STATE, ignore_errors=True)


def _foreign(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value))


def _parameters(entry: Mapping[str, Any]) -> Any:
    return entry.get("parameters", entry)


def _difference(key: str, old: Any, new: Any) -> str:
    """Say where two values differ, as deep as it takes to be short."""
    if isinstance(old, dict) and isinstance(new, dict):
        for inner in sorted(old.keys() | new.keys()):
            if old.get(inner) != new.get(inner):
                return _difference(f"{key}: {inner}", old.get(inner), new.get(inner))
    if key == "sources" and isinstance(old, list) and isinstance(new, list):
        names = [" + ".join(f"{s['name']} ({s['version'][:12]})" for s in side) for side in (old, new)]
        return f"source {names[0]}, not {names[1]}"
    if key == "inputs: fingerprint":
        return "other inputs under the same names"
    return f"{key} {old}, not {new}"
