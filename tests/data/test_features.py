from __future__ import annotations

import io
from typing import Annotated, Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atomvision_hub.data import arrow_schema, column_table, features_of
from atomvision_hub.data.features import fields_of, table_of, table_problems
from atomvision_hub.data.png import encode_png
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.records import Column, Record
from atomvision_hub.simulation.record import RecordedStemRow, StemRow
from atomvision_hub.structures.record import StructureRow


class Inner(Record):
    values: Annotated[npt.NDArray[np.float32], Column("float32", "Values", "Å", (None,))]


class Row(Record):
    id: Annotated[str, Column("string", "Identifier")]
    image: Annotated[bytes, Column("image", "Picture")]
    label: Annotated[int, Column("class_label", "Class", names=("a", "b"))]
    number: Annotated[float, Column("float64", "Number", "Å")]
    matrix: Annotated[npt.NDArray[np.float64], Column("float64", "Matrix", shape=(2, 2))]
    points: Annotated[npt.NDArray[np.float64], Column("float64", "Points", "Å", shape=(None, 3))]
    inner: Inner


def row(index: int = 0, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "id": f"r{index}",
        "image": encode_png(np.full((3, 5), index, np.uint8)),
        "label": index % 2,
        "number": 0.5 * index,
        "matrix": np.arange(4.0).reshape(2, 2) + index,
        "points": np.arange(3.0 * index).reshape(index, 3),
        "inner": Inner(values=np.arange(index, dtype=np.float32)),
    }
    return Row(**{**values, **changes})


@pytest.mark.parametrize("record", [Row, StemRow, RecordedStemRow, StructureRow])
def test_arrow_schema_is_what_datasets_would_write(record: type[Record]) -> None:
    theirs = features_of(record).arrow_schema
    assert arrow_schema(record).equals(theirs)
    assert arrow_schema(record).metadata == theirs.metadata


@pytest.mark.parametrize("record", [StemRow, RecordedStemRow, StructureRow])
def test_column_table_covers_every_column_once(record: type[Record]) -> None:
    names = [line.name for line in column_table(record)]
    assert len(set(names)) == len(names)
    assert {name.split(".")[0] for name in names} == set(record.model_fields)
    assert all(line.description for line in column_table(record))


def test_own_columns_come_before_inherited_ones() -> None:
    names = list(fields_of(StemRow))
    assert names[:2] == ["id", "image"]
    assert names.index("psf") < names.index("material_id")
    names = list(fields_of(RecordedStemRow))
    assert names[:2] == ["id", "image"]
    assert names.index("acquisition") < names.index("psf") < names.index("material_id")


def test_rows_come_back_through_parquet(tmp_path: Any) -> None:
    rows = [row(index) for index in range(4)]
    with pq.ParquetWriter(tmp_path / "rows.parquet", arrow_schema(Row)) as writer:
        writer.write_table(table_of(Row, rows))
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded.features == features_of(Row)
    for before, after in zip(rows, loaded, strict=True):
        assert after["id"] == before.id
        assert after["label"] == before.label
        assert np.array_equal(after["matrix"], before.matrix)
        assert np.array_equal(np.reshape(after["points"], (-1, 3)), before.points)
        assert np.array_equal(after["inner"]["values"], before.inner.values)
        assert np.array_equal(np.asarray(after["image"]), np.asarray(Image.open(io.BytesIO(before.image))))


def test_no_rows_make_an_empty_table() -> None:
    table = table_of(Row, [])
    assert table.num_rows == 0
    assert list(table_problems(Row, table)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix": np.zeros((3, 3))}, r"column 'matrix' of Row in rows r1 to r1: float64\[3, 3\] is not"),
        ({"matrix": np.zeros((2, 2), complex)}, "column 'matrix'.*complex128"),
        ({"points": np.zeros(3)}, r"column 'points'.*float64\[3\] is not float64\[None, 3\]"),
    ],
)
def test_value_of_another_shape_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AtomVisionError, match=message):
        table_of(Row, [row(1, **changes)])


def test_unfit_numbers_are_refused() -> None:
    class Small(Record):
        id: Annotated[str, Column("string", "Identifier")]
        n: Annotated[int, Column("uint8", "Small number")]

    with pytest.raises(AtomVisionError, match=r"column 'n' of Small in rows x to x.*300"):
        table_of(Small, [Small(id="x", n=300)])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"number": float("nan")}, "column 'number' has values that are not finite"),
        ({"inner": Inner(values=np.array([np.inf], np.float32))}, "'inner.values' has values that are not"),
        ({"label": 2}, "column 'label' has class 2; there are 2"),
        ({"label": -1}, "column 'label' has class -1"),
    ],
)
def test_bad_values_are_found(changes: dict[str, Any], problem: str) -> None:
    found = list(table_problems(Row, table_of(Row, [row(1), row(2, **changes)])))
    assert len(found) == 1
    assert problem in found[0]


def test_missing_values_are_found() -> None:
    table = table_of(Row, [row(1), row(2)])
    index = table.column_names.index("number")
    table = table.set_column(index, "number", pa.array([1.0, None]))
    assert list(table_problems(Row, table)) == ["column 'number' has 1 missing value(s)"]


class Sparse(Record):
    id: Annotated[str, Column("string", "Identifier")]
    image: Annotated[bytes | None, Column("image", "Picture, or none", nullable=True)]
    raw: Annotated[bytes, Column("binary", "Bytes")]
    bias: Annotated[float | None, Column("float64", "Bias", "V", nullable=True)]
    names: Annotated[tuple[str, ...], Column("string", "Names", shape=(None,))]
    pixel_size: Annotated[
        npt.NDArray[np.float64] | None, Column("float64", "Pixel size", "Å/px", (2,), nullable=True)
    ]


def sparse(**changes: Any) -> Sparse:
    values: dict[str, Any] = {
        "id": "s0",
        "image": encode_png(np.zeros((2, 2), np.uint8)),
        "raw": b"\x00\xff",
        "bias": -0.5,
        "names": ("a", "b"),
        "pixel_size": np.array([0.1, 0.2]),
    }
    return Sparse(**{**values, **changes})


def test_missing_values_survive_where_they_may(tmp_path: Any) -> None:
    rows = [sparse(), sparse(id="s1", image=None, bias=None, names=(), pixel_size=None)]
    table = table_of(Sparse, rows).cast(arrow_schema(Sparse))
    assert list(table_problems(Sparse, table)) == []
    pq.write_table(table, tmp_path / "rows.parquet")
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train")
    assert loaded.features == features_of(Sparse)
    assert loaded[0]["pixel_size"] == [0.1, 0.2]
    assert loaded[0]["raw"] == b"\x00\xff"
    assert [loaded[1][name] for name in ("image", "bias", "names", "pixel_size")] == [None, None, [], None]
    assert "or null" in next(line.type for line in column_table(Sparse) if line.name == "bias")


def test_missing_values_are_refused_elsewhere() -> None:
    row = Sparse.model_construct(**{**sparse().__dict__, "raw": None})
    with pytest.raises(AtomVisionError, match=r"column 'raw' .* is not nullable"):
        table_of(Sparse, [row])
    assert list(table_problems(Inner, pa.table({"values": pa.array([None], pa.list_(pa.float32()))}))) == [
        "column 'values' has 1 missing value(s)"
    ]


def test_a_nullable_column_still_refuses_what_is_not_finite() -> None:
    table = table_of(Sparse, [sparse(bias=float("nan"))])
    assert list(table_problems(Sparse, table)) == ["column 'bias' has values that are not finite"]
