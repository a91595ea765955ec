"""The one-way house: which room may import which, and what must not cost a torch import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "atomvision_hub"
# What a room may import from the package; leaves (errors, records, _files, _download) are open to all.
UPSTREAM: dict[str, set[str]] = {
    "structures": set(),
    "simulation": {"structures"},
    "literature": set(),
    "microscopy": set(),
    "analysis": {"structures"},
    "cards": set(),
    "data": {"structures", "simulation", "cards"},
    "models": {"analysis"},
    "inference": {"models", "analysis", "microscopy", "simulation", "structures"},
    "reports": {"inference", "cards"},
    "engine": {"models", "data", "cards", "analysis", "simulation", "structures", "reports"},
}
LEAVES = {"errors", "records", "_files", "_download", "__init__"}
DOORS = {"cli", "commands", "demo"}
NO_TORCH = ("structures", "simulation", "literature", "microscopy", "analysis", "data", "cards")
LEARNING = {"torch", "torchvision", "timm", "transformers", "accelerate"}


def imports(path: Path) -> set[str]:
    """All modules a file imports, also inside functions; relative ones are refused by the linter."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules(repository: Path) -> list[Path]:
    return sorted((repository / PACKAGE).rglob("*.py"))


def room(path: Path, repository: Path) -> str:
    return path.relative_to(repository / PACKAGE).with_suffix("").parts[0]


def test_every_room_is_on_the_map(repository: Path) -> None:
    rooms = {room(path, repository) for path in modules(repository)}
    assert rooms <= set(UPSTREAM) | LEAVES | DOORS


def test_rooms_import_only_upstream(repository: Path) -> None:
    wrong = []
    for path in modules(repository):
        here = room(path, repository)
        if here in DOORS or here == "__init__":
            continue
        allowed = UPSTREAM.get(here, set()) | {here} | LEAVES
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == PACKAGE and len(parts) > 1 and parts[1] not in allowed | {"__version__"}:
                wrong.append(f"{path.relative_to(repository)} imports {name}")
    assert not wrong


def test_rooms_before_the_models_know_no_learning_library(repository: Path) -> None:
    wrong = []
    for path in modules(repository):
        if room(path, repository) not in NO_TORCH or "torch" in path.relative_to(repository).parts:
            continue
        wrong += [
            f"{path.relative_to(repository)} imports {name}"
            for name in imports(path)
            if name.split(".")[0] in LEARNING
        ]
    assert not wrong


def test_package_does_not_import_the_scripts(repository: Path) -> None:
    for path in modules(repository):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"training", "dataset_builders", "tests", "benchmarks"}, path


#: Optional engine -> the one module that may import it.
ENGINES = {
    "gpaw": "simulation/gpaw_engine.py",
    "abtem": "simulation/multislice/engine.py",
    "rsciio": "microscopy/",
    "dask": "data/dask_engine.py",
    "distributed": "data/dask_engine.py",
    "dask_jobqueue": "data/dask_engine.py",
    "pytesseract": "literature/scale_bar.py",
    "pyxtal": "structures/",
    "dgl": "models/dgl_bridge.py",
}


def test_optional_engines_stay_behind_their_adapters(repository: Path) -> None:
    found: dict[str, set[str]] = {}
    for path in modules(repository):
        here = path.relative_to(repository / PACKAGE).as_posix()
        for name in {name.split(".")[0] for name in imports(path)} & set(ENGINES):
            found.setdefault(name, set()).add(here)
    for name, places in found.items():
        assert len(places) == 1, f"{name} is imported in {sorted(places)}; one adapter each"
        assert next(iter(places)).startswith(ENGINES[name])


@pytest.mark.parametrize(
    "statement",
    [
        "import atomvision_hub",
        "from atomvision_hub import load_structures, simulate_stem, classify_lattice, load_dataset",
        "import atomvision_hub.cli",
    ],
)
def test_import_costs_no_torch(statement: str) -> None:
    heavy = {"torch", "transformers", "timm", "jarvis", "matplotlib.pyplot", "skimage", "networkx"}
    heavy |= {"gpaw", "abtem", "rsciio", "dask", "bs4", "sklearn"}
    code = f"import sys; {statement}; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_lint_tool_at_run_time(repository: Path) -> None:
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = " ".join(project["dependencies"])
    assert not any(tool in names for tool in ("ruff", "mypy", "pytest", "black", "flake8", "pylint"))
    # Every requirement has a lower bound and none has a cap.
    for requirement in project["dependencies"]:
        assert ">=" in requirement, requirement
        assert "<" not in requirement, requirement
