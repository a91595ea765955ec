"""The microscope and the accuracy of a multislice calculation."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

#: Of the largest angle that a grid carries, the antialiasing of every slice leaves this share.
ANTIALIAS = 2 / 3


class Multislice(BaseModel):
    """Microscope, thermal motion and accuracy; every field has its unit in its description.

    The accuracy settings were chosen by ``benchmarks/bench_multislice.py``, which changes one at a time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    voltage: PositiveFloat = Field(80.0, description="Acceleration voltage, kV")
    semi_angle: PositiveFloat = Field(30.0, description="Convergence semi-angle of the probe, mrad")
    inner: PositiveFloat = Field(60.0, description="Inner angle of the annular detector, mrad")
    outer: PositiveFloat = Field(200.0, description="Outer angle of the annular detector, mrad")
    defocus: float = Field(
        0.0,
        description="C1 of the probe, Å: how far before the crystal's middle the focus lies (lower z)",
    )
    spherical: float = Field(0.0, description="C3 of the probe, mm")
    phonons: PositiveInt = Field(16, description="Frozen-phonon configurations that are averaged")
    displacement: float | dict[str, float] = Field(
        0.07,
        description=(
            "Root-mean-square thermal displacement along x and y, Å: one for all atoms or by element. "
            "0.07 is a convention of this project, the order of monolayers at room temperature"
        ),
    )
    slice_thickness: PositiveFloat = Field(
        0.3, description="Atoms whose heights differ by less than this, Å, scatter in one plane"
    )
    box: float = Field(16.0, ge=8, description="Smallest side of the periodic box around the probe, Å")
    margin: float = Field(1.25, ge=1, description="The grid carries angles up to `outer` times this")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.outer <= self.inner:
            raise ValueError(f"outer ({self.outer:g} mrad) must be larger than inner ({self.inner:g} mrad)")
        values = self.displacement.values() if isinstance(self.displacement, dict) else [self.displacement]
        if not all(0 <= value < 0.5 for value in values):
            raise ValueError(f"displacement must be between 0 and 0.5 Å, not {self.displacement!r}")
        if self.phonons > 1 and not any(values):
            raise ValueError("several phonon configurations without displacement are all the same: phonons=1")
        return self
