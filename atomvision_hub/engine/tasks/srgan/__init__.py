"""Super-resolution: what its training script needs beside its visible loop."""

from __future__ import annotations

from atomvision_hub.engine.tasks.srgan.batches import (
    Batches,
    Degrade,
    Prepared,
    draw_crops,
    draw_doses,
    prepare,
)
from atomvision_hub.engine.tasks.srgan.config import (
    SrganConfig,
    SrganData,
    SrganModel,
    SrganTraining,
    model_name,
)
from atomvision_hub.engine.tasks.srgan.judge import Judge
from atomvision_hub.engine.tasks.srgan.losses import answer, caught, fooled, psnr, rate, set_rate
from atomvision_hub.engine.tasks.srgan.pictures import draw_examples, draw_history
from atomvision_hub.engine.tasks.srgan.report import Report, known_facts, test_report
from atomvision_hub.engine.tasks.srgan.views import KEPT, Views, decode_views, view_side

__all__ = [
    "KEPT",
    "Batches",
    "Degrade",
    "Judge",
    "Prepared",
    "Report",
    "SrganConfig",
    "SrganData",
    "SrganModel",
    "SrganTraining",
    "Views",
    "answer",
    "caught",
    "decode_views",
    "draw_crops",
    "draw_doses",
    "draw_examples",
    "draw_history",
    "fooled",
    "known_facts",
    "model_name",
    "prepare",
    "psnr",
    "rate",
    "set_rate",
    "test_report",
    "view_side",
]
