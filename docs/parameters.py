"""What the reference says of parameters: each its own type and default, pydantic's fields as well."""

from __future__ import annotations

import importlib
from typing import Any

import griffe
from pydantic import BaseModel


class Parameters(griffe.Extension):
    """Types and defaults by name.

    Names that share a description (``a, b``) share what the parser finds for the first one, and classes of
    pydantic have no constructor that can be read: both are mended here.
    """

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Write the constructor of a pydantic class from its fields; look at what is described."""
        model = getattr(importlib.import_module(cls.module.path), cls.name, None)
        if isinstance(model, type) and issubclass(model, BaseModel) and "__init__" not in cls.members:
            parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
            for name, field in model.model_fields.items():
                default = field.get_default(call_default_factory=True)
                parameters.append(
                    griffe.Parameter(
                        name,
                        annotation=_type(field.annotation),
                        kind=griffe.ParameterKind.keyword_only,
                        default=None if field.is_required() else _text(default),
                    )
                )
            made = griffe.Function(
                "__init__", parameters=griffe.Parameters(*parameters), returns="None", parent=cls
            )
            cls.set_member("__init__", made)
        _mend(cls)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Look at what is described."""
        _mend(func)


def _mend(member: griffe.Function | griffe.Class) -> None:
    for section in member.docstring.parsed if member.docstring else ():
        if section.kind is griffe.DocstringSectionKind.parameters:
            for described in section.value:
                _declare(member, described)


def _declare(member: griffe.Function | griffe.Class, described: Any) -> None:
    if described.name in member.parameters:
        found = member.parameters[described.name]
        described.annotation, described.value = found.annotation, found.default
    elif isinstance(attribute := member.members.get(described.name), griffe.Attribute):  # of a dataclass
        described.annotation, described.value = attribute.annotation, attribute.value


def _text(default: object) -> str:
    """Return a default as one would type it; sections say their own."""
    if isinstance(default, BaseModel):
        return f"{type(default).__name__}()"
    return repr(default)


def _type(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
