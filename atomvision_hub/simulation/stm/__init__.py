"""From a local density of states to images of a scanning tunnelling microscope.

`LocalDensity.from_volume` takes what any DFT code wrote, `simulate_stm` makes the image; where neither code
nor volume is at hand, `surrogate_density` gives a shape that is marked as such.
"""

from __future__ import annotations

from atomvision_hub.simulation.stm.density import BiasReference, LocalDensity
from atomvision_hub.simulation.stm.imaging import Mode, StmFrame, simulate_stm
from atomvision_hub.simulation.stm.surrogate import surrogate_density

__all__ = ["BiasReference", "LocalDensity", "Mode", "StmFrame", "simulate_stm", "surrogate_density"]
