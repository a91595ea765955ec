"""From the ideal image to what a detector records: steps with physical units, seeded, composable.

>>> from atomvision_hub.simulation.acquisition import Acquisition, Dose, record_stem
>>> acquisition = Acquisition.preset("typical").with_steps(Dose(electrons=200))
>>> record_stem(crystal, acquisition, seed=0).image  # doctest: +SKIP
"""

from __future__ import annotations

from atomvision_hub.simulation.acquisition.model import (
    Acquired,
    Acquisition,
    RecordedFrame,
    acquire,
    from_record,
    record_stem,
)
from atomvision_hub.simulation.acquisition.presets import PRESETS
from atomvision_hub.simulation.acquisition.probe import probe_intensity, wavelength
from atomvision_hub.simulation.acquisition.steps import (
    STEPS,
    Background,
    Contamination,
    Detector,
    Digitise,
    Dose,
    Drift,
    Flyback,
    LineJitter,
    Probe,
    SourceSize,
    Step,
    Tilt,
    Vibration,
)

__all__ = [
    "PRESETS",
    "STEPS",
    "Acquired",
    "Acquisition",
    "Background",
    "Contamination",
    "Detector",
    "Digitise",
    "Dose",
    "Drift",
    "Flyback",
    "LineJitter",
    "Probe",
    "RecordedFrame",
    "SourceSize",
    "Step",
    "Tilt",
    "Vibration",
    "acquire",
    "from_record",
    "probe_intensity",
    "record_stem",
    "wavelength",
]
