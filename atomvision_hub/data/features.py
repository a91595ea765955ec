"""From one `Record` to everything that describes its rows: features, Arrow schema, card table, checks."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atomvision_hub.errors import AtomVisionError
from atomvision_hub.records import Column, Record

_IMAGE_STORAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@dataclass(frozen=True, slots=True)
class ColumnLine:
    """One line of the card's column table."""

    name: str
    type: str
    unit: str
    description: str


def fields_of(record: type[Record]) -> dict[str, Column | type[Record]]:
    """Return the columns of a record in the order they are stored; a nested record stands for a struct.

    What the record itself declares comes before what it inherits, generation by generation, so that a viewer
    shows the image first and the material's properties after it.
    """
    found: dict[str, Column | type[Record]] = {}
    generations = [kind for kind in record.__mro__ if issubclass(kind, Record)]
    declared = chain(*(inspect.get_annotations(kind) for kind in generations))
    order = dict.fromkeys(name for name in declared if name in record.model_fields)
    for name in order:
        field = record.model_fields[name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, Record):
            found[name] = field.annotation
            continue
        columns = [item for item in field.metadata if isinstance(item, Column)]
        if len(columns) != 1:
            raise TypeError(f"{record.__name__}.{name} carries {len(columns)} Column annotations, not one")
        found[name] = columns[0]
    return found


def features_of(record: type[Record]) -> Any:
    """Return the `datasets.Features` of a record; the Parquet files and the card both carry them."""
    from datasets import ClassLabel, Features, Image, List, Value  # heavy: only where features are needed

    def feature(column: Column | type[Record]) -> Any:
        if not isinstance(column, Column):
            return {name: feature(inner) for name, inner in fields_of(column).items()}
        scalar: Any
        if column.kind == "image":
            scalar = Image()
        elif column.kind == "class_label":
            scalar = ClassLabel(names=list(column.names))
        else:
            scalar = Value(column.kind)
        for length in reversed(column.shape):
            scalar = List(scalar, length=-1 if length is None else length)
        return scalar

    return Features({name: feature(column) for name, column in fields_of(record).items()})


def arrow_type(column: Column | type[Record]) -> pa.DataType:
    """Return the Arrow storage type of a column or, for a nested record, of its struct."""
    if not isinstance(column, Column):
        return pa.struct([pa.field(name, arrow_type(inner)) for name, inner in fields_of(column).items()])
    if column.kind == "image":
        scalar = _IMAGE_STORAGE
    elif column.kind == "class_label":
        scalar = pa.int64()
    else:
        scalar = pa.type_for_alias(column.kind)
    for length in reversed(column.shape):
        scalar = pa.list_(scalar, -1 if length is None else length)
    return scalar


def plain_schema(record: type[Record]) -> pa.Schema:
    """Return the Arrow schema of a record without the metadata of `datasets`."""
    return pa.schema([pa.field(name, arrow_type(column)) for name, column in fields_of(record).items()])


def arrow_schema(record: type[Record]) -> pa.Schema:
    """Return the Arrow schema of a record, with the metadata by which `datasets` knows its features."""
    info = {"info": {"features": features_of(record).to_dict()}}
    return plain_schema(record).with_metadata({"huggingface": json.dumps(info)})


def column_table(record: type[Record], prefix: str = "") -> list[ColumnLine]:
    """Return the column table of the card; columns of a struct are written ``struct.column``."""
    lines = []
    for name, column in fields_of(record).items():
        if not isinstance(column, Column):
            lines += column_table(column, f"{prefix}{name}.")
            continue
        kind = f"class label ({', '.join(column.names)})" if column.names else column.kind
        lengths = "".join("[n]" if length is None else f"[{length}]" for length in column.shape)
        lengths += " or null" if column.nullable else ""
        lines.append(ColumnLine(prefix + name, kind + lengths, column.unit, column.description))
    return lines


def table_of(record: type[Record], rows: Sequence[Record]) -> pa.Table:
    """Return rows as an Arrow table with the record's plain schema.

    Raises
    ------
    AtomVisionError
        When a value does not fit its column (names column and row).
    """
    arrays = []
    for name, column in fields_of(record).items():
        values = [getattr(row, name) for row in rows]
        try:
            arrays.append(_array(column, values))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as problem:
            ids = f"rows {getattr(rows[0], 'id', 0)} to {getattr(rows[-1], 'id', len(rows) - 1)}"
            raise AtomVisionError(
                f"column {name!r} of {record.__name__} in {ids}: {problem}; mend the builder that made it"
            ) from problem
    return pa.Table.from_arrays(arrays, schema=plain_schema(record))


def _array(column: Column | type[Record], values: list[Any]) -> pa.Array:
    if not isinstance(column, Column):
        inner = fields_of(column)
        children = [_array(inner[name], [getattr(value, name) for value in values]) for name in inner]
        return pa.StructArray.from_arrays(children, fields=list(arrow_type(column)))
    missing = sum(value is None for value in values)
    if missing and not column.nullable:
        raise ValueError(f"{missing} value(s) are missing and the column is not nullable")
    if column.kind == "image" and not column.shape:
        images = [None if value is None else {"bytes": value, "path": None} for value in values]
        return pa.array(images, type=_IMAGE_STORAGE)
    if column.shape and column.kind not in ("string", "binary", "image"):
        return _nullable_lists(column, values) if missing else _lists(column, [np.asarray(v) for v in values])
    return pa.array(values, type=arrow_type(column))


def _nullable_lists(column: Column, values: list[Any]) -> pa.Array:
    """Join arrays some of which are missing; the others are checked like any."""
    _lists(column, [np.asarray(value) for value in values if value is not None])
    return pa.array([None if v is None else np.asarray(v).tolist() for v in values], type=arrow_type(column))


def _lists(column: Column, arrays: list[np.ndarray[Any, Any]]) -> pa.Array:
    """Join arrays into one (nested) list array without a Python object a number."""
    dtype = np.dtype(np.int64 if column.kind == "class_label" else column.kind)
    for array in arrays:
        fits = array.ndim == len(column.shape) and all(
            wanted in (None, length) for wanted, length in zip(column.shape, array.shape, strict=True)
        )
        if not fits or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"{array.dtype}{list(array.shape)} is not {dtype}{list(column.shape)}")
    flat = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.empty(0, dtype)
    joined = pa.array(flat.astype(dtype, copy=False))
    for axis in reversed(range(len(column.shape))):
        length = column.shape[axis]
        if length is not None:
            joined = pa.FixedSizeListArray.from_arrays(joined, length)
            continue
        if axis:
            raise ValueError("only the first axis of a list may have any length")
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int32)
        joined = pa.ListArray.from_arrays(pa.array(offsets), joined)
    return joined


def table_problems(record: type[Record], table: pa.Table) -> Iterator[str]:
    """Yield what is wrong with the values of a table: missing, not finite, unknown class."""
    for name, column in fields_of(record).items():
        yield from _column_problems(name, column, table.column(name).combine_chunks())


def _column_problems(name: str, column: Column | type[Record], array: pa.Array) -> Iterator[str]:
    if isinstance(array, pa.ChunkedArray):  # what combine_chunks gives for an empty table
        array = array.chunk(0) if array.num_chunks else pa.array([], type=array.type)
    if array.null_count:
        if not (isinstance(column, Column) and column.nullable):
            yield f"column {name!r} has {array.null_count} missing value(s)"
            return
        array = array.drop_null()
    if not isinstance(column, Column):
        for inner_name, inner in fields_of(column).items():
            yield from _column_problems(f"{name}.{inner_name}", inner, array.field(inner_name))
        return
    if column.kind == "image":
        missing = pc.sum(pc.is_null(array.field("bytes"))).as_py() if len(array) else 0
        if missing:
            yield f"column {name!r} has {missing} image(s) without bytes"
        return
    while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = cast("pa.ListArray", array).flatten()
    if column.kind.startswith("float") and not pc.all(pc.is_finite(array)).as_py() and len(array):
        yield f"column {name!r} has values that are not finite"
    if column.names and len(array):
        least, most = (int(value) for value in pc.min_max(array).as_py().values())
        if least < 0 or most >= len(column.names):
            yield f"column {name!r} has class {least if least < 0 else most}; there are {len(column.names)}"
