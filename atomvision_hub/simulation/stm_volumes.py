"""Volumes of other codes as densities of states: the file, and what a YAML beside it says of the bias."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atomvision_hub.errors import CrystalError
from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity
from atomvision_hub.structures.volumes import Volume, is_volume_file


class VolumeNotes(BaseModel):
    """``NAME.yaml`` beside a volume ``NAME``: what the file itself does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bias: float = Field(allow_inf_nan=False, description="Sample bias, V; positive collects empty states")
    bias_reference: BiasReference = "fermi"
    window: tuple[float, float] | None = Field(None, description="Energies from the Fermi level, eV")
    broadening: float = Field(0.0, ge=0, description="kT of the window's edges, eV")
    engine: str = Field("volume", min_length=1, description="Code that computed it")


def volume_files(source: Path) -> list[Path]:
    """Return a volume file, or those in a folder and its subfolders; empty where there are none."""
    if not source.is_dir():
        return [source] if is_volume_file(source) else []
    files = (path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix not in (".yaml", ".yml") and is_volume_file(path))


def notes_path(path: Path) -> Path:
    """Return where the notes of a volume are."""
    return path.with_name(f"{path.name}.yaml")


def density_of(path: Path, volume: Volume, bias: float | None = None) -> LocalDensity:
    """Return the density of states of a volume.

    Parameters
    ----------
    path, volume
        The file and what was read from it.
    bias
        Sample bias (V) where there are no notes.

    Raises
    ------
    CrystalError
        With step ``"volume"`` when the bias is nowhere, the notes are invalid, or there is no vacuum.
    """
    notes = notes_path(path)
    if notes.is_file():
        try:
            found = VolumeNotes.model_validate(yaml.safe_load(notes.read_text(encoding="utf-8")))
        except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as problem:
            reason = " ".join(str(problem).split())[:200]
            raise CrystalError(f"{notes.name} is not valid: {reason}", step="volume") from None
    elif bias is None:
        raise CrystalError(
            f"bias of {path.name} unknown: write 'bias: 0.5' (V) into {notes.name} beside it, "
            "or set bias in the config",
            step="volume",
        )
    else:
        found = VolumeNotes(bias=bias)
    return LocalDensity.from_volume(
        volume,
        bias=found.bias,
        bias_reference=found.bias_reference,
        window=found.window,
        broadening=found.broadening,
        engine=found.engine,
    )
