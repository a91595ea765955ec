"""Effects of a microscope on an image, each a small step with its physical parameters and units.

A step takes a `Frame` and a source of randomness and returns the frame that it leaves. Steps whose strength
is zero return the frame they were given, so that an acquisition without effects is the ideal image to the
bit.
"""

from __future__ import annotations

from atomvision_hub.simulation.acquisition.steps.base import Frame, Step
from atomvision_hub.simulation.acquisition.steps.detection import Detector, Digitise, Dose
from atomvision_hub.simulation.acquisition.steps.optics import FWHM_TO_SIGMA, Probe, SourceSize
from atomvision_hub.simulation.acquisition.steps.scan import Drift, Flyback, LineJitter, Scan
from atomvision_hub.simulation.acquisition.steps.specimen import (
    FILM_WAVES,
    Background,
    Contamination,
    Tilt,
    Vibration,
)

__all__ = [
    "FILM_WAVES",
    "FWHM_TO_SIGMA",
    "STEPS",
    "Background",
    "Contamination",
    "Detector",
    "Digitise",
    "Dose",
    "Drift",
    "Flyback",
    "Frame",
    "LineJitter",
    "Probe",
    "Scan",
    "SourceSize",
    "Step",
    "Tilt",
    "Vibration",
]

#: All steps by name, in the order of the instrument.
STEPS: dict[str, type[Step]] = {
    kind.name: kind
    for kind in (
        Tilt,
        Vibration,
        Probe,
        SourceSize,
        Contamination,
        Background,
        Drift,
        LineJitter,
        Flyback,
        Dose,
        Detector,
        Digitise,
    )
}
