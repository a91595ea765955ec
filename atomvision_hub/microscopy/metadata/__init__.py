"""Metadata of experimental images: schema, extraction from instrument files, completion by people."""

from atomvision_hub.microscopy.metadata.extract import extract
from atomvision_hub.microscopy.metadata.schema import (
    FIELDS,
    SCHEMA_VERSION,
    Facts,
    Metadata,
    json_schema,
)
from atomvision_hub.microscopy.metadata.sidecar import (
    FOLDER_FILE,
    MetadataError,
    Problem,
    complete,
    find_sidecars,
    read_sidecar,
)
from atomvision_hub.microscopy.metadata.template import example, examples, field_table, template, to_yaml

__all__ = [
    "FIELDS",
    "FOLDER_FILE",
    "SCHEMA_VERSION",
    "Facts",
    "Metadata",
    "MetadataError",
    "Problem",
    "complete",
    "example",
    "examples",
    "extract",
    "field_table",
    "find_sidecars",
    "json_schema",
    "read_sidecar",
    "template",
    "to_yaml",
]
