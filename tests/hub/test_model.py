"""A model on the Hub: pushed by us, loaded by name with plain `transformers`, without remote code."""

from __future__ import annotations

from typing import Any

REPO = "atomvision/lattice-classifier"

MODEL = """
import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, TimmWrapperConfig, pipeline
from transformers import TimmWrapperForImageClassification

image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 160), dtype=np.uint8))

def logits(name, **options):
    model = AutoModelForImageClassification.from_pretrained(name, **options).eval()
    inputs = AutoImageProcessor.from_pretrained(name, **options)(image.convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.flatten().tolist()

def answers(name, **options):
    return {one["label"]: one["score"] for one in pipeline(model=name, **options)(image)}
"""


def test_model_travels_over_the_hub(hub: Any, in_subprocess: Any) -> None:
    answer = in_subprocess(
        MODEL
        + f"""
import json, pathlib, tempfile, timm
from atomvision_hub.data.publish import push_model

folder = pathlib.Path(tempfile.mkdtemp())
names = ["hexagonal", "square", "rectangular"]
torch.manual_seed(0)
backbone = timm.create_model("test_resnet", num_classes=3)
config = TimmWrapperConfig(
    architecture="test_resnet",
    num_classes=3,
    label2id={{name: index for index, name in enumerate(names)}},
    id2label=dict(enumerate(names)),
    pretrained_cfg=backbone.pretrained_cfg,
    num_labels=3,
)
model = TimmWrapperForImageClassification(config)
model.save_pretrained(folder)
(folder / "README.md").write_text(
    "---\\nlicense: mit\\nlibrary_name: timm\\npipeline_tag: image-classification\\n---\\n"
)
(folder / "facts.json").write_text("{{}}")
report = push_model(folder, {REPO!r}, tag="v1.0.0", private=True)
answer["commit"] = report.commit
answer["same"] = logits({REPO!r}, revision="v1.0.0") == logits(str(folder))
answer["labels"] = sorted(answers({REPO!r}))
answer["pipeline"] = answers({REPO!r})
""",
        token="hf_alicewrites",
    )
    assert answer["same"]
    assert answer["labels"] == ["hexagonal", "rectangular", "square"]
    weights = [request for request in hub.requests("GET", "/storage/objects") if request["status"] == 200]
    assert len(weights) == 1
    assert not weights[0]["authorization"]

    # From the cache, offline, the same answers.
    again = in_subprocess(
        MODEL + f"answer['pipeline'] = answers({REPO!r}, task='image-classification')", HF_HUB_OFFLINE="1"
    )
    assert again["pipeline"] == answer["pipeline"]


def test_shipped_classifier_travels_over_the_hub(hub: Any, in_subprocess: Any) -> None:
    answer = in_subprocess(
        MODEL
        + """
from atomvision_hub import predict
from atomvision_hub.data.publish import push_model
from atomvision_hub.models.pretrained import DEFAULT_CLASSIFIER, pretrained_folder

name = "atomvision/lattice-classifier"
push_model(pretrained_folder(DEFAULT_CLASSIFIER), name, tag="v1.0.0")
answer["pipeline"] = sorted(answers(name))
shipped = pretrained_folder(DEFAULT_CLASSIFIER)
answer["same"] = predict(image, name).probabilities == predict(image, shipped).probabilities
""",
        token="hf_alicewrites",
    )
    assert answer["same"]
    assert answer["pipeline"] == ["centered_rectangular", "hexagonal", "oblique", "rectangular", "square"]
