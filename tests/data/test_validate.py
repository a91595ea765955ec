from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atomvision_hub.data import BuildOptions, validate_folder

SHARD = "data/default/train-00001-of-00005.parquet"
Validate = Callable[[], list[str]]


@pytest.fixture(scope="module")
def built(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("validate") / "toy"
    toy.build(BuildOptions(dataset="toy", sources=["60"], out=out))
    return out


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(built, tmp_path / "toy")


@pytest.fixture
def validate(toy: Any, folder: Path) -> Validate:
    return lambda: validate_folder(folder, toy.BUILDER)


def resign(folder: Path, *names: str) -> None:
    """Write the checksums of changed files into the manifest, as someone would who hides the change."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in names:
        content = (folder / name).read_bytes()
        manifest["files"][name].update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change(folder: Path, column: str, values: Callable[[list[Any]], list[Any]], shard: str = SHARD) -> None:
    """Change a column of a shard and its checksum."""
    table = pq.read_table(folder / shard)
    index = table.column_names.index(column)
    new = pa.array(values(table[column].to_pylist()), type=table.schema.field(column).type)
    pq.write_table(table.set_column(index, table.schema.field(column), new), folder / shard)
    resign(folder, shard)


def test_a_sound_folder(validate: Validate) -> None:
    assert validate() == []


def test_no_dataset(tmp_path: Path) -> None:
    (problem,) = validate_folder(tmp_path)
    assert "holds no manifest.json: it is no finished dataset" in problem


def test_damaged_shard_is_named(folder: Path, validate: Validate) -> None:
    content = bytearray((folder / SHARD).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / SHARD).write_bytes(content)
    (problem,) = validate()
    assert problem.startswith(f"{SHARD} is damaged or was changed, its checksum is not the manifest's; ")
    assert problem.endswith("run the same build again or download the file again")


def test_missing_and_stray_files(folder: Path, validate: Validate) -> None:
    (folder / SHARD).unlink()
    (folder / "data" / "notes.txt").write_text("mine")
    (folder / ".gitattributes").write_text("hidden files are the Hub's business")
    problems = validate()
    assert problems[0].startswith(f"{SHARD} is missing")
    assert problems[1] == "data/notes.txt does not belong to the dataset; remove it"
    assert len(problems) == 2


def test_image_that_does_not_decode(folder: Path, validate: Validate) -> None:
    def spoil(images: list[Any]) -> list[Any]:
        images[2] = {"bytes": images[2]["bytes"][:40], "path": None}
        return images

    change(folder, "image", spoil)
    (problem,) = validate()
    assert problem.startswith(f"{SHARD}: row n")
    assert "image does not decode" in problem


def test_values_out_of_range(folder: Path, validate: Validate) -> None:
    change(folder, "stripes", lambda labels: [7, *labels[1:]])
    assert validate() == [f"{SHARD}: column 'stripes' has class 7; there are 2"]


def test_check_of_the_builder(folder: Path, validate: Validate) -> None:
    change(folder, "stripes", lambda labels: [1 - labels[0], *labels[1:]])
    (problem,) = validate()
    assert problem.endswith("wrong number of stripes")


def test_identifiers_are_unique(folder: Path, validate: Validate) -> None:
    shutil.copy(folder / "data/default/train-00000-of-00005.parquet", folder / SHARD)
    resign(folder, SHARD)
    problems = validate()
    assert len(problems) == 7
    assert "is also in data/default/train-00000-of-00005.parquet" in problems[0]


def test_identifiers_are_unique_in_a_shard(folder: Path, validate: Validate) -> None:
    change(folder, "id", lambda ids: [ids[2], ids[1], *ids[2:]])
    assert f"{SHARD}: identifiers occur twice" in validate()


def test_groups_that_cross_splits(folder: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(toy.BUILDER), "group_column", "stripes")
    (problem,) = validate_folder(folder, toy.BUILDER)
    assert problem == "config default: 2 group(s) cross splits, such as 0"


def test_other_schema(folder: Path, validate: Validate) -> None:
    table = pq.read_table(folder / SHARD)
    pq.write_table(table.drop_columns("points"), folder / SHARD)
    resign(folder, SHARD)
    problems = validate()
    assert f"{SHARD} has not the schema of ToyRow; build it again with this version" in problems


def test_row_counts(folder: Path, validate: Validate) -> None:
    pq.write_table(pq.read_table(folder / SHARD).slice(1), folder / SHARD)
    resign(folder, SHARD)
    problems = validate()
    assert problems[0].startswith(f"{SHARD} has 6 rows, the manifest says otherwise")
    assert "config default has" in problems[1]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("num_examples: 34", "num_examples: 35", "README.md: config default has rows {'train': 35"),
        (
            "dtype: image",
            "dtype: string",
            "README.md: features of config default are not those of the Parquet",
        ),
        ("config_name: default", "config_name: other", "README.md has configs ["),
    ],
)
def test_card_against_parquet(folder: Path, validate: Validate, old: str, new: str, problem: str) -> None:
    card = (folder / "README.md").read_text()
    assert old in card
    (folder / "README.md").write_text(card.replace(old, new, 1))
    resign(folder, "README.md")
    assert len(validate()) == 1
    assert validate()[0].startswith(problem)


def test_rejected_counts(folder: Path, validate: Validate) -> None:
    table = pq.read_table(folder / "rejected.parquet")
    pq.write_table(table.slice(1), folder / "rejected.parquet")
    resign(folder, "rejected.parquet")
    (problem,) = validate()
    assert problem.startswith("rejected.parquet counts {'luck': 6}, the manifest {'duplicate': 1, 'luck': 6}")


def test_interrupted_addition(folder: Path, validate: Validate) -> None:
    (folder / ".build").mkdir()
    (folder / ".build" / "build.json").write_text("{}")
    (problem,) = validate()
    assert problem.endswith("the same build command goes on")


def test_another_schema_version(folder: Path, validate: Validate) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    (problem,) = validate()
    assert "has schema version 99" in problem


def test_unknown_dataset(folder: Path) -> None:
    (problem,) = validate_folder(folder)
    assert problem.startswith("there is no dataset builder 'toy'; there are: ")
