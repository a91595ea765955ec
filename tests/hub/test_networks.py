"""Our own networks on the Hub: pushed, loaded by name and version, from the cache without a network."""

from __future__ import annotations

from typing import Any

import pytest

MODELS = {
    "segmenter": "Segmenter(encoder='tu-test_efficientnet', depth=4, decoder_channels=(16, 16, 8, 8))",
    "alignn": "Alignn(classes=5, hidden=16, embedding=16, layers=1, graph_layers=1, bins=8)",
    "super_resolution": "SuperResolution(channels=8, blocks=2)",
    "autoencoder": "Autoencoder(latent=16, size=32, width=8, blocks=1)",
    "vae": "VariationalAutoencoder(latent=8, size=32, width=8, blocks=1)",
}

LOAD = """
import torch
from atomvision_hub.models import load_model

def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)
"""


@pytest.mark.slow
def test_every_model_travels_over_the_hub(hub: Any, in_subprocess: Any) -> None:
    answer = in_subprocess(
        LOAD
        + f"""
import pathlib, tempfile
from atomvision_hub.data.publish import push_model
from atomvision_hub.errors import AtomVisionError
from atomvision_hub.models import *

for kind, call in {MODELS!r}.items():
    torch.manual_seed(0)
    model = eval(call)
    model.known["pixel_size"] = [0.05, 0.2]
    folder = pathlib.Path(tempfile.mkdtemp())
    model.save_pretrained(folder)
    card = f"---\\nlicense: mit\\nlibrary_name: atomvision-hub\\npipeline_tag: {{model.task}}\\n---\\n"
    (folder / "README.md").write_text(card)
    (folder / "facts.json").write_text("{{}}")
    name = f"atomvision/{{kind}}"
    push_model(folder, name, tag="v1.0.0", private=True)
    again = load_model(name, revision="v1.0.0")
    own = type(model).from_pretrained(name, revision="v1.0.0")
    answer[kind] = same(model, again) and same(model, own) and again.known == model.known
for revision, name in (("v9.9.9", "atomvision/vae"), (None, "atomvision/no-such")):
    try:
        load_model(name, revision=revision)
    except AtomVisionError as error:
        answer[name + str(revision)] = str(error)
""",
        token="hf_alicewrites",
    )
    for kind in MODELS:
        assert answer[kind], kind
    assert answer["atomvision/vaev9.9.9"] == "atomvision/vae has no revision v9.9.9 on the Hub"
    assert "no such repository" in answer["atomvision/no-suchNone"]

    # From the cache, offline; what is not in it is one line.
    again = in_subprocess(
        LOAD
        + """
from atomvision_hub.errors import NetworkNeededError
answer["kind"] = load_model("atomvision/alignn", revision="v1.0.0").kind
try:
    load_model("atomvision/other")
except NetworkNeededError as error:
    answer["missing"] = str(error)
""",
        HF_HUB_OFFLINE="1",
    )
    assert again["kind"] == "alignn"
    assert "the Hub cannot be reached; connect, or give a folder" in again["missing"]
