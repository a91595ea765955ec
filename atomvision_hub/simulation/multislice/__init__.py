"""Multislice STEM images of crystals: slow and faithful, in the frames of the fast simulator.

The engine is abTEM, an extra: ``pip install 'atomvision-hub[multislice]'``.

>>> from atomvision_hub.simulation.multislice import Multislice, simulate_multislice
>>> simulate_multislice(crystal, settings=Multislice(voltage=60.0)).image  # doctest: +SKIP
"""

from __future__ import annotations

from atomvision_hub.simulation.multislice.imaging import MultisliceFrame, simulate_multislice
from atomvision_hub.simulation.multislice.scan import PeriodScan, scan_period
from atomvision_hub.simulation.multislice.settings import Multislice
from atomvision_hub.simulation.multislice.store import stored_scan

__all__ = [
    "Multislice",
    "MultisliceFrame",
    "PeriodScan",
    "scan_period",
    "simulate_multislice",
    "stored_scan",
]
