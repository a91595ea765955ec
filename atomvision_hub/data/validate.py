"""Checking a dataset folder against its manifest, its card and itself."""

from __future__ import annotations

import json
from pathlib import Path

from atomvision_hub._files import sha256_file


def validate_folder(folder: Path | str) -> list[str]:
    """Return the problems of a dataset folder, one line each; none when it is valid."""
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return [f"{folder} holds no manifest.json: it is no finished dataset; run the build again"]
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    return [
        f"{name} differs from the manifest; build or download it again"
        for name, facts in sorted(files.items())
        if not (folder / name).is_file() or sha256_file(folder / name) != facts["sha256"]
    ]
