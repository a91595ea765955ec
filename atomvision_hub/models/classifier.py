"""Image classifiers: a timm network in transformers' TimmWrapper, with its preprocessing and labels."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from atomvision_hub.errors import NetworkNeededError, UsageError


def make_classifier(
    architecture: str,
    labels: Sequence[str],
    *,
    input_size: int = 128,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    mean: float = 0.25,
    std: float = 0.25,
    args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    atomvision: Mapping[str, Any] | None = None,
) -> TimmWrapperForImageClassification:
    """Make a classifier that `AutoModelForImageClassification.from_pretrained` gives back after saving.

    Parameters
    ----------
    architecture, args, pretrained
        Any timm model, keyword arguments for it, whether to start from timm's published weights.
    labels
        Class names in the order of the logits.
    input_size, crop_pct, interpolation, mean, std
        Preprocessing: the shorter side becomes ``input_size / crop_pct`` px, the centre ``input_size`` x
        ``input_size`` is kept, grey levels 0..1 are normalised. Never squashed.
    atomvision
        Facts of ours kept in ``config.json``, e.g. the pixel sizes seen in training.

    Raises
    ------
    UsageError
        When timm knows no such model, or `args` do not fit it.
    NetworkNeededError
        When published weights cannot be had.
    """
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise UsageError(f"timm {timm.__version__} knows no model {architecture!r}{hint}")
    args = dict(args or {})
    try:
        network = timm.create_model(architecture, pretrained=pretrained, num_classes=len(labels), **args)
    except TypeError as problem:
        raise UsageError(f"model.args do not fit {architecture}: {problem}") from None
    except Exception as problem:
        if not pretrained:
            raise
        raise NetworkNeededError(
            f"the published weights of {architecture} cannot be had ({type(problem).__name__}); "
            "set model.pretrained=false or connect to the network"
        ) from None
    preprocessing = {
        "input_size": [3, input_size, input_size],
        "crop_pct": crop_pct,
        "crop_mode": "center",
        "interpolation": interpolation,
        "mean": [mean] * 3,
        "std": [std] * 3,
        "fixed_input_size": False,
    }
    config = TimmWrapperConfig.from_dict(
        {
            "architecture": architecture,
            "num_classes": len(labels),
            "label_names": list(labels),
            "model_args": args,
            "pretrained_cfg": preprocessing,
            "atomvision": dict(atomvision or {}),
        }
    )
    model = TimmWrapperForImageClassification(config)
    # The wrapper draws its own weights (normal, 0.02); timm's are those the network was designed with.
    model.timm_model.load_state_dict(network.state_dict())
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, input_size, input_size))
    except (RuntimeError, AssertionError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise UsageError(
            f"{architecture} does not take images of {input_size} x {input_size}: {reason}; "
            "set model.input_size, or model.args (img_size, pretrained_window_size, ...)"
        ) from None
    return model.train()
