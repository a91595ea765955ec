"""The build engine: inputs -> shards -> a finished dataset folder."""

from __future__ import annotations

from atomvision_hub.data.interface import BuildOptions, BuildReport, DatasetBuilder
from atomvision_hub.errors import AtomVisionError

__all__ = ["BuildOptions", "BuildReport", "DatasetBuilder", "run_build"]


def run_build(builder: DatasetBuilder, options: BuildOptions) -> BuildReport:
    """Build a dataset folder."""
    raise AtomVisionError(
        f"building {builder.name} into {options.out} does not work yet; wait for the next version"
    )
