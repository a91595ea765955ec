"""Instrument images travel over the Hub: built, pushed, streamed back with raw intensities and gaps."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atomvision_hub.data import BuildOptions, load_builder, validate_folder
from atomvision_hub.data.publish import push_dataset
from atomvision_hub.microscopy import write_demo_file

REPO = "atomvision/experimental_tem"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experimental")
    generator = np.random.default_rng(0)
    for number in range(10):
        data = generator.poisson(300, (40, 56)).astype("float32" if number % 2 else "uint16")
        values = {"sample.name": f"grid-{number}", "sample.formula": "Fe3O4", "acquisition.mode": "tem"}
        write_demo_file(root / "images" / f"frame_{number}.tif", data, (0.2, 0.3), values)
    Image.fromarray(generator.integers(0, 255, (40, 56)).astype(np.uint8)).save(root / "images" / "plain.png")
    options = BuildOptions(dataset="experimental_tem", sources=[str(root / "images")], out=root / "out")
    load_builder("experimental_tem").build(options)
    assert validate_folder(root / "out") == []
    return root / "out"


def test_published_rows_stream_back(hub: Any, api: Any, folder: Path, in_subprocess: Any) -> None:
    push_dataset(folder, REPO, tag="v1.0.0", token="hf_alicewrites", endpoint=hub.url)
    hub.forget()
    answer = in_subprocess(f"""
    import hashlib
    from atomvision_hub.data import load_dataset
    from atomvision_hub.microscopy.view import decode_raw
    for split, rows in load_dataset({REPO!r}, "default", revision="v1.0.0", streaming=True).items():
        for row in rows:
            raw = decode_raw(row["raw"])
            answer[row["id"]] = dict(
                split=split, image=row["image"].size, mode=row["image"].mode, dtype=raw.dtype.name,
                raw=hashlib.sha256(row["raw"]).hexdigest(), shape=list(raw.shape), formula=row["formula"],
                pixel_size=row["pixel_size"], calibrated=row["calibrated"], notes=row["notes"],
            )
    """)
    answer.pop("stderr")
    stored = {
        row["id"]: row | {"split": path.name.split("-")[0]}
        for path in folder.glob("data/default/*")
        for row in pq.read_table(path).to_pylist()
    }
    assert len(stored) == 11
    assert answer.keys() == stored.keys()
    for identifier, row in answer.items():
        wanted = stored[identifier]
        assert row["raw"] == hashlib.sha256(wanted["raw"]).hexdigest()
        assert (row["image"], row["mode"]) == ([56, 40], "L")
        assert row["shape"] == [40, 56]
        for name in ("split", "dtype", "formula", "pixel_size", "calibrated", "notes"):
            assert row[name] == wanted[name]
    assert answer["plain.png"]["pixel_size"] is None
    assert answer["frame_1.tif"]["pixel_size"] == pytest.approx([0.2, 0.3])
    assert any(request["range"] for request in hub.requests("GET", "/storage/objects"))
