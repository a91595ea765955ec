"""What was found, as one HTML file: pictures inside, no scripts, no network, printable."""

from __future__ import annotations

from atomvision_hub.reports.analysis import analysis_report
from atomvision_hub.reports.training import training_report

__all__ = ["analysis_report", "training_report"]
