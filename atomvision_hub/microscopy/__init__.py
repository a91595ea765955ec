"""Instrument files -> images with their calibration and metadata."""

from atomvision_hub.microscopy.demo_file import write_demo_file
from atomvision_hub.microscopy.frame import KINDS, MicroscopeImage, MicroscopyError, size_limits
from atomvision_hub.microscopy.readers import FORMATS, companions, read_images

__all__ = [
    "FORMATS",
    "KINDS",
    "MicroscopeImage",
    "MicroscopyError",
    "companions",
    "read_images",
    "size_limits",
    "write_demo_file",
]
