"""STM images travel over the Hub: built from shipped densities, pushed, streamed back, joined with STEM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atomvision_hub.data import BuildOptions, load_builder, validate_folder
from atomvision_hub.data.publish import push_dataset

REPO = "atomvision/stm2d"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stm")
    # Four crystals with shipped densities, as files: names do not matter, crystals do.
    from ase.io import write

    from atomvision_hub import load_structures

    crystals = load_structures("reference")
    (root / "crystals").mkdir()
    for name in ("graphene", "h-BN", "MoS2", "FeTe"):
        write(root / "crystals" / f"{name}.vasp", crystals[name], format="vasp")
    made = {}
    for dataset in ("stm2d", "stem2d"):
        made[dataset] = root / dataset
        options = BuildOptions(
            dataset=dataset, sources=[str(root / "crystals")], out=made[dataset], cache_dir=root / "cache"
        )
        load_builder(dataset).build(options)
        assert validate_folder(made[dataset]) == []
    return made


def test_published_rows_stream_back(hub: Any, api: Any, folders: dict[str, Path], in_subprocess: Any) -> None:
    push_dataset(folders["stm2d"], REPO, tag="v1.0.0", token="hf_alicewrites", endpoint=hub.url)
    hub.forget()
    answer = in_subprocess(f"""
    from atomvision_hub.data import load_dataset
    for split, rows in load_dataset({REPO!r}, "default", revision="v1.0.0", streaming=True).items():
        for row in rows:
            answer[row["id"]] = dict(
                split=split, size=row["image"].size, mode=row["mode"], bias=row["bias"],
                scale=row["intensity_scale"], height=row["height"], isovalue=row["isovalue"],
                engine=row["engine"], surrogate=row["surrogate"], material=row["material_id"],
            )
    """)
    answer.pop("stderr")
    stored = [
        row | {"split": path.name.split("-")[0]}
        for path in folders["stm2d"].glob("data/default/*")
        for row in pq.read_table(path).to_pylist()
    ]
    assert answer.keys() == {row["id"] for row in stored}
    assert len(answer) == 4 * 2 * 2  # materials, biases, modes
    for row in stored:
        seen = answer[row["id"]]
        assert seen["size"] == [256, 256]
        assert seen["scale"] == row["intensity_scale"]
        for name in ("split", "mode", "bias", "height", "isovalue", "engine", "surrogate"):
            assert seen[name] == row[name]
        assert not seen["surrogate"]


def test_rows_join_those_of_stem2d(folders: dict[str, Path]) -> None:
    """The same material has the same identifier, labels and split in both datasets."""
    columns = ["material_id", "formula", "lattice", "lattice_projected", "prototype"]
    tables: dict[str, set[tuple[Any, ...]]] = {}
    for dataset, folder in folders.items():
        tables[dataset] = {
            (path.name.split("-")[0], *row.values())
            for path in folder.glob("data/default/*")
            for row in pq.read_table(path, columns=columns).to_pylist()
        }
    assert tables["stm2d"] == tables["stem2d"]
    assert len(tables["stm2d"]) == 4
