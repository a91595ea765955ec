"""What a dataset row is made of: one declaration from which features, validation and card follow.

Each producer (structures, simulation, literature, microscopy) declares its rows as a `Record` whose fields
carry a `Column`. The package's `data` room derives the Hugging Face features, the Arrow schema, the
validation and the column table of the card from it, so that nothing is typed twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

ColumnKind = Literal[
    "string",
    "binary",
    "bool",
    "int8",
    "uint8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "image",
    "class_label",
]


@dataclass(frozen=True, slots=True)
class Column:
    """How one field is stored and explained.

    Parameters
    ----------
    kind
        Storage type of the scalar, or of the elements when `shape` is given.
    description
        One sentence for the card.
    unit
        Physical unit (``"Å"``, ``"degree"``, ...), empty where there is none.
    shape
        Lengths of a (nested) list; ``None`` for any length. Empty for scalars.
    names
        Class names in the order of their integers, for `kind` ``"class_label"``.
    nullable
        Whether the value may be missing (``None``): what is not known is never guessed.
    """

    kind: ColumnKind
    description: str
    unit: str = ""
    shape: tuple[int | None, ...] = ()
    names: tuple[str, ...] = ()
    nullable: bool = False


class Record(BaseModel):
    """Base of all rows: immutable, no unknown fields, NumPy arrays allowed.

    Fields are written ``name: Annotated[type, Column(...)]``; a field whose type is another `Record` becomes
    a struct.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
