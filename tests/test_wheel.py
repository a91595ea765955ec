"""The built wheel works on its own: commands, embedded tables, builders, training scripts, shipped model.

The dependencies are those of the running environment; `make test-wheel` runs this file's road in an empty
environment into which the wheel is installed with everything it asks for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which a freshly built wheel was installed, without the checkout in sight."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(repository),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "atomvision_hub/_scripts/dataset_builders/stem2d.py" in names
    assert "atomvision_hub/_scripts/training/train_classifier.py" in names
    assert not [name for name in names if name.split("/")[0] in {"tests", "training", "dataset_builders"}]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=300)
    return target


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, "-m", "atomvision_hub.cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_whole_road_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import atomvision_hub; print(atomvision_hub.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed) in where.stdout
    result = run(installed, tmp_path, "demo", "--tiny", "--out", "here")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "here" / "stem2d" / "manifest.json").is_file()
    assert (tmp_path / "here" / "classifier" / "model.safetensors").is_file()
    result = run(installed, tmp_path, "validate", "here/stem2d")
    assert result.returncode == 0, result.stderr
